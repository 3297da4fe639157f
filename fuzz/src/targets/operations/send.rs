//! Writes, executions and snapshots, and what each has to be answered.

use annals::{Error, ErrorKind, Event, Expect, Position, Recorded, State};

use super::life::{Alive, Awaited, Pending};
use super::{KEYS, Operation, Wanted, Wish, is_trouble};
use crate::model::{Part, Record, Sequence};

pub(super) fn key(number: u8) -> Vec<u8> {
    format!("k{}", number % KEYS).into_bytes()
}

/// How many events an aggregate has.
#[derive(Default)]
struct Count(usize);

impl State for Count {
    fn apply(&mut self, _: &Recorded) {
        self.0 += 1;
    }
}

impl Alive {
    fn expect(&self, key: &[u8], wish: Wish) -> Expect {
        let version = self.shard(key).version(key);
        match wish {
            Wish::Any => Expect::Any,
            Wish::Exists => Expect::Exists,
            Wish::Absent => Expect::Absent,
            Wish::Right => Expect::Version(version),
            Wish::Wrong(by) => Expect::Version(version.wrapping_add(u64::from(by) + 1)),
        }
    }

    /// Events that no other write has.
    fn events(&mut self, wanted: Wanted) -> Vec<Vec<u8>> {
        let count = u64::from(wanted.events % 4);
        let fresh = self.fresh();
        (0..count)
            .map(|nth| {
                let mut data = [fresh.to_le_bytes(), nth.to_le_bytes()].concat();
                data.resize(data.len() + usize::from(wanted.bytes) * 3, wanted.bytes);
                data
            })
            .collect()
    }

    pub(super) fn append(&mut self, wanted: Wanted) {
        let key = key(wanted.key);
        let expect = self.expect(&key, wanted.wish);
        let data = self.events(wanted);
        let events = data.iter().map(|data| Event::new("E", data.as_slice()));
        let answer = self.store().append(&key, expect, events.collect::<Vec<_>>());
        let shard = self.shard(&key);
        let (holds, version) = (shard.holds(&key, expect), shard.version(&key));
        match answer {
            Ok(ticket) => {
                assert!(!data.is_empty(), "an append without events was taken");
                assert!(holds, "{expect} was taken to hold at version {version}");
                let part = Part::Append { key: key.clone(), version: version + 1, events: data };
                self.accepted(&key, Record::new(None, vec![part]), Awaited::Ticket(ticket));
            }
            Err(error) if data.is_empty() => {
                assert_eq!(error.kind(), ErrorKind::Invalid, "{error}")
            }
            Err(error) => self.refused(&error, &[(key, expect)], true),
        }
    }

    /// A write was refused: one of its conditions does not hold, or the disk fails.
    fn refused(&self, error: &Error, conditions: &[(Vec<u8>, Expect)], checkpoints_hold: bool) {
        if self.trouble && is_trouble(error) {
            return;
        }
        let kind = error.kind();
        assert!(matches!(kind, ErrorKind::Conflict | ErrorKind::NotFound), "{kind:?}: {error}");
        match error.key() {
            Some(of) => {
                let condition = conditions.iter().find(|(key, _)| key == of);
                let (key, expect) = condition.expect("a conflict on a key that was not sent");
                let shard = self.shard(key);
                assert!(!shard.holds(key, *expect), "{error}, though it holds");
                assert_eq!(error.actual(), Some(shard.version(key)), "{error}");
                let missing = *expect == Expect::Exists;
                assert_eq!(kind == ErrorKind::NotFound, missing, "{error}");
            }
            None => assert!(!checkpoints_hold, "{error}, though the checkpoint stands there"),
        }
    }

    pub(super) fn several(&mut self, operation: &Operation) {
        let Operation::Several { parts, count, client, checkpoint } = operation else { return };
        let parts = &parts[..usize::from(count % 4).min(3)];
        let client =
            client.map(|(second, sequence)| (1 + u128::from(second), u64::from(sequence % 8)));
        let mut write = self.store().write();
        let (mut conditions, mut sent, mut invalid) = (Vec::new(), Vec::new(), false);
        let mut homes = Vec::new();
        for wanted in parts {
            let key = key(wanted.key);
            let expect = self.expect(&key, wanted.wish);
            let data = self.events(*wanted);
            let version = self.shard(&key).version(&key);
            invalid |= conditions.iter().any(|(other, _)| *other == key);
            if data.is_empty() {
                invalid |= expect == Expect::Any;
                write = write.check(&key, expect);
                sent.push(Part::Check { key: key.clone(), version });
            } else {
                let events: Vec<_> =
                    data.iter().map(|data| Event::new("E", data.as_slice())).collect();
                write = write.append(&key, expect, events);
                sent.push(Part::Append { key: key.clone(), version: version + 1, events: data });
            }
            homes.push(self.store().shard_of(&key));
            conditions.push((key, expect));
        }
        let mut checkpoints_hold = true;
        if let Some((name, right)) = checkpoint {
            let name = key(*name);
            let stands = self.shard(&name).checkpoint(&name);
            let from = if *right { stands } else { Position::from_raw(stands.get() / 2 + 1) };
            let to = Position::from_raw(stands.get() + 2 + self.fresh());
            checkpoints_hold = from == stands;
            write = write.checkpoint(&name, from, to);
            homes.push(self.store().shard_of(&name));
            sent.push(Part::Checkpoint { name, from, to });
        }
        if let Some((client, sequence)) = client {
            write = write.client(client, sequence);
        }
        invalid |= sent.is_empty() || homes.iter().any(|home| *home != homes[0]);
        let answer = write.submit();
        if invalid {
            let error = answer.expect_err("a write that makes no sense was taken");
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::Invalid | ErrorKind::CrossShard), "{error}");
            return;
        }
        self.answered(homes[0], client, sent, &conditions, checkpoints_hold, answer);
    }

    fn answered(
        &mut self,
        home: u16,
        client: Option<(u128, u64)>,
        sent: Vec<Part>,
        conditions: &[(Vec<u8>, Expect)],
        checkpoints_hold: bool,
        answer: Result<annals::Ticket, Error>,
    ) {
        let keys: Vec<Vec<u8>> = sent
            .iter()
            .filter_map(|part| match part {
                Part::Append { key, .. } => Some(key.clone()),
                _ => None,
            })
            .collect();
        let shard = &self.shards[usize::from(home)];
        let sequence = match client {
            Some(client) if !keys.is_empty() => shard.sequence(client, &keys),
            _ => Sequence::New,
        };
        let holds =
            checkpoints_hold && conditions.iter().all(|(key, expect)| shard.holds(key, *expect));
        match (answer, sequence) {
            (Ok(ticket), Sequence::New) => {
                assert!(holds, "{conditions:?} were taken to hold");
                let awaited = Awaited::Ticket(ticket);
                if sent.iter().all(|part| matches!(part, Part::Check { .. })) {
                    // It has no place in the log.
                    self.pending.push(Pending { shard: home, at: None, replay: None, awaited });
                } else {
                    self.accepted_on(home, Record::new(client, sent), awaited);
                }
            }
            (Ok(ticket), replay) => {
                let of = match replay {
                    Sequence::Replay(of) => Some(of),
                    _ => None,
                };
                let awaited = Awaited::Ticket(ticket);
                self.pending.push(Pending {
                    shard: home,
                    at: None,
                    replay: Some((of, keys)),
                    awaited,
                });
            }
            (Err(error), Sequence::New) => {
                assert!(!holds || self.trouble, "all holds, but: {error}");
                self.refused(&error, conditions, checkpoints_hold);
            }
            (Err(error), Sequence::Replay(_)) => {
                assert!(self.trouble && is_trouble(&error), "a replay is refused: {error}");
            }
            (Err(error), Sequence::Unanswerable) => assert!(
                error.kind() == ErrorKind::Duplicate || self.trouble && is_trouble(&error),
                "{error}"
            ),
        }
    }

    pub(super) fn execute(&mut self, number: u8, refuse: bool) {
        let key = key(number);
        let data = self.fresh().to_le_bytes().to_vec();
        let mut seen = None;
        let execution = self.store().execute(&key, |count: &Count| {
            seen = Some(count.0);
            if refuse { Err(()) } else { Ok(vec![Event::new("E", data.as_slice())]) }
        });
        let shard = self.shard(&key);
        let version = shard.version(&key);
        if let Some(seen) = seen {
            assert_eq!(seen, shard.events(&key, version).len(), "what was decided on");
        }
        let home = self.store().shard_of(&key);
        match (seen, refuse) {
            (None, _) => {
                let error = execution.wait().expect_err("nothing was decided");
                assert!(self.trouble && is_trouble(&error), "{error}");
            }
            (Some(_), true) => {
                let awaited = Awaited::Execution(execution);
                self.pending.push(Pending { shard: home, at: None, replay: None, awaited });
            }
            (Some(_), false) => {
                // On a failing disk it may have been refused, which only its outcome tells. It then stands behind all that
                // is written, as one that was never written does.
                let part =
                    Part::Append { key: key.clone(), version: version + 1, events: vec![data] };
                let record = Record::new(None, vec![part]);
                if !self.trouble {
                    self.accepted(&key, record, Awaited::Execution(execution));
                    return;
                }
                match execution.wait() {
                    Ok(Ok(Some(committed))) => {
                        let shard = &mut self.shards[usize::from(home)];
                        let at = shard.accept(record);
                        shard.acknowledge(at, committed.position());
                    }
                    Ok(other) => panic!("it decided on an event, and is answered {other:?}"),
                    Err(error) => {
                        assert!(is_trouble(&error), "{error}");
                        if matches!(error.kind(), ErrorKind::OutcomeUnknown | ErrorKind::NotWritten)
                        {
                            self.shards[usize::from(home)].accept(record);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn snapshot(&mut self, number: u8, version: u8) {
        let key = key(number);
        let reached = self.shard(&key).version(&key);
        let version = u64::from(version) % (reached + 2);
        let bytes = self.fresh().to_le_bytes().to_vec();
        match self.store().save_snapshot(&key, version, bytes.as_slice()) {
            Ok(ticket) => {
                assert!((1..=reached).contains(&version), "version {version} of {reached}");
                let part = Part::Snapshot { key: key.clone(), version, bytes };
                self.accepted(&key, Record::new(None, vec![part]), Awaited::Ticket(ticket));
            }
            Err(error) if self.trouble && is_trouble(&error) => {}
            Err(error) => {
                assert!(!(1..=reached).contains(&version), "{error}");
                let kind = if reached == 0 { ErrorKind::NotFound } else { ErrorKind::Invalid };
                assert_eq!(error.kind(), kind, "{error}");
            }
        }
    }
}
