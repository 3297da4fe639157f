//! A store from one opening to the next, and what has been asked of it.

use std::sync::Arc;

use annals::internals::disk::sim::SimDisk;
use annals::{
    Committed, Error, ErrorKind, Execution, Position, RecordedWrite, Role, Store, Subscription,
    Ticket,
};

use super::send::key;
use super::{KEYS, Life, Operation, fault, is_trouble};
use crate::image::Image;
use crate::model::{Part, Record, Shard, Told};

/// What an answer is waited for with.
pub(super) enum Awaited {
    Ticket(Ticket),
    Execution(Execution<()>),
}

/// An answer that is waited for.
pub(super) struct Pending {
    pub(super) shard: u16,
    /// The write in the reference's log; none if it has no place there.
    pub(super) at: Option<usize>,
    /// It was made before: by this write, if there is one that answers for all its aggregates.
    pub(super) replay: Option<(Option<usize>, Vec<Vec<u8>>)>,
    pub(super) awaited: Awaited,
}

pub(super) struct Alive {
    pub(super) disk: Arc<SimDisk>,
    /// None while it is opened again.
    store: Option<Store>,
    pub(super) shards: Vec<Shard>,
    pub(super) pending: Vec<Pending>,
    /// The disk fails or is full, or did.
    pub(super) trouble: bool,
    pub(super) acknowledged: u64,
    followers: Vec<Option<Follower>>,
    /// Numbers that make writes differ.
    numbers: u64,
}

/// Somebody who follows a shard.
struct Follower {
    subscription: Subscription,
    /// How many events it was given.
    given: usize,
}

impl Alive {
    pub(super) fn new(disk: &Arc<SimDisk>, life: Life, shards: u16) -> Alive {
        let (disk, store) = life.open(disk);
        Alive {
            disk,
            store: Some(store),
            shards: vec![Shard::default(); shards.into()],
            pending: Vec::new(),
            trouble: false,
            acknowledged: 0,
            followers: (0..shards).map(|_| None).collect(),
            numbers: 0,
        }
    }

    pub(super) fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open between operations")
    }

    pub(super) fn fresh(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn shard(&self, key: &[u8]) -> &Shard {
        &self.shards[usize::from(self.store().shard_of(key))]
    }

    pub(super) fn accepted(&mut self, key: &[u8], record: Record, awaited: Awaited) {
        let home = self.store().shard_of(key);
        self.accepted_on(home, record, awaited);
    }

    pub(super) fn accepted_on(&mut self, home: u16, record: Record, awaited: Awaited) {
        let at = self.shards[usize::from(home)].accept(record);
        self.pending.push(Pending { shard: home, at: Some(at), replay: None, awaited });
    }

    pub(super) fn operate(&mut self, operation: &Operation) {
        match *operation {
            Operation::Append(wanted) => self.append(wanted),
            Operation::Several { .. } => self.several(operation),
            Operation::Execute { key, refuse } => self.execute(key, refuse),
            Operation::Snapshot { key, version } => self.snapshot(key, version),
            Operation::Read { key, from, backwards, accepted } => {
                self.read(key, from, backwards, accepted);
            }
            Operation::Follow { shard } => self.follow(usize::from(shard) % self.shards.len()),
            Operation::Settle => self.settle(),
            Operation::Fail { op, nth, lasting, short } => {
                self.trouble = true;
                self.disk.plan(fault(op, nth, lasting, short));
            }
            Operation::Fill { room } => {
                self.trouble = true;
                let held = Image::bytes_on(&self.disk);
                self.disk.set_capacity(held + (u64::from(room % 32) << 10));
            }
            Operation::Close { life } => {
                let closed = self.store().close();
                self.settle();
                if let Err(error) = closed {
                    assert!(self.trouble && is_trouble(&error), "closing: {error}");
                }
                self.again(&Arc::clone(&self.disk), life);
            }
            Operation::Crash { life, seed } => {
                let left = self.disk.crash(seed.into());
                // What was answered before the cut counts; what the old disk answers after it does not.
                let known: Vec<usize> = self.shards.iter().map(|shard| shard.durable).collect();
                let closed = self.store().close();
                assert!(closed.is_ok() || self.trouble, "closing: {closed:?}");
                self.pending.clear();
                for (shard, known) in self.shards.iter_mut().zip(known) {
                    shard.durable = known;
                }
                self.again(&left, life);
            }
        }
    }

    /// Waits for every answer.
    fn settle(&mut self) {
        for Pending { shard, at, replay, awaited } in std::mem::take(&mut self.pending) {
            let answer = match awaited {
                Awaited::Ticket(ticket) => ticket.wait().map(Some),
                Awaited::Execution(execution) => {
                    execution.wait().map(|decided| decided.unwrap_or(None))
                }
            };
            let number = usize::from(shard);
            match (answer, at, replay) {
                (Ok(Some(committed)), None, Some((of, keys))) => {
                    self.replayed(number, &committed, of, &keys);
                }
                (Ok(committed), None, _) => {
                    let position = committed.map_or(Position::START, |done| done.position());
                    assert_eq!(position, Position::START, "a check has a place in the log");
                }
                (Ok(committed), Some(at), _) => {
                    let committed = committed.expect("a write has a place");
                    let shard = &mut self.shards[number];
                    for part in &shard.log[at].parts {
                        if let Part::Append { key, version, .. } = part {
                            assert_eq!(committed.version_of(key), Some(*version));
                        }
                    }
                    assert!(!committed.is_replay());
                    shard.acknowledge(at, committed.position());
                    self.acknowledged += 1;
                }
                (Err(error), at, replay) => self.failed(number, at, replay, &error),
            }
        }
        if !self.trouble {
            (0..self.shards.len()).for_each(|shard| self.look(shard));
        }
    }

    fn replayed(
        &mut self,
        number: usize,
        committed: &Committed,
        of: Option<usize>,
        keys: &[Vec<u8>],
    ) {
        let shard = &mut self.shards[number];
        let of = of.expect("what no one write can answer was answered");
        assert!(committed.is_replay());
        shard.acknowledge(of, committed.position());
        for key in keys {
            assert_eq!(committed.version_of(key), shard.log[of].version_of(key));
        }
    }

    fn failed(
        &mut self,
        number: usize,
        at: Option<usize>,
        replay: Option<(Option<usize>, Vec<Vec<u8>>)>,
        error: &Error,
    ) {
        if matches!(replay, Some((None, _))) && error.kind() == ErrorKind::Duplicate {
            return;
        }
        assert!(self.trouble && is_trouble(error), "{error}");
        match (at, error.kind()) {
            (Some(at), ErrorKind::NotWritten) => self.shards[number].log[at].not_written = true,
            (Some(_), kind) => assert_eq!(kind, ErrorKind::OutcomeUnknown, "{error}"),
            (None, _) => {}
        }
    }

    /// All is durable and was answered: every way of looking at a shard shows exactly that.
    fn look(&mut self, number: usize) {
        self.shards[number].durable = self.shards[number].log.len();
        self.follow(number);
        let shard = &self.shards[number];
        let all = shard.told().count();
        assert_eq!(self.followers[number].as_ref().map(|follower| follower.given), Some(all));
        for key in (0..KEYS).map(key) {
            if usize::from(self.store().shard_of(&key)) != number {
                continue;
            }
            let version = self.store().version(&key).expect("nothing fails");
            assert_eq!(version, shard.version(&key));
            assert_eq!(
                self.store().checkpoint(&key).expect("nothing fails"),
                shard.checkpoint(&key)
            );
            let snapshot = self.store().load_snapshot(&key).expect("nothing fails");
            let snapshot = snapshot.map(|kept| (kept.version(), kept.bytes().to_vec()));
            assert_eq!(snapshot, shard.snapshot(&key, shard.log.len()));
        }
    }

    fn read(&mut self, number: u8, from: u8, backwards: bool, accepted: bool) {
        let key = key(number);
        let mut read = self.store().read(&key).from(from.into());
        if accepted {
            read = read.accepted();
        }
        if backwards {
            read = read.backwards();
        }
        let version = read.version();
        let shard = self.shard(&key);
        let mut found = Vec::new();
        for event in read {
            match event {
                Ok(event) => found.push((event.version(), event.data().to_vec())),
                Err(error) => {
                    assert!(self.trouble && is_trouble(&error), "{error}");
                    return;
                }
            }
        }
        if backwards {
            found.reverse();
        }
        let (least, most) = (shard.version_durable(&key), shard.version(&key));
        if !self.trouble {
            assert!((least..=most).contains(&version), "{version} is not within {least} to {most}");
            assert!(!accepted || version == most, "{version} of {most} accepted");
        }
        let mut expected = shard.events(&key, version);
        let from = u64::from(from);
        expected.retain(|(version, _)| if backwards { *version <= from } else { *version >= from });
        assert_eq!(found, expected, "an aggregate at version {version}, from {from}");
        if !accepted && version > 0 {
            // What was seen is durable.
            let seen = shard.log.iter().position(|record| record.version_of(&key) == Some(version));
            let home = usize::from(self.store().shard_of(&key));
            let shard = &mut self.shards[home];
            shard.durable = shard.durable.max(seen.map_or(0, |at| at + 1));
        }
    }

    /// Goes on following a shard, up to what is durable.
    fn follow(&mut self, number: usize) {
        let subscription = || self.store().subscribe(number as u16);
        if self.followers[number].is_none() {
            self.followers[number] = Some(Follower { subscription: subscription(), given: 0 });
        }
        let shard = &mut self.shards[number];
        let Some(follower) = &mut self.followers[number] else { return };
        let told: Vec<(usize, Told)> = shard.told().skip(follower.given).collect();
        let mut told = told.into_iter();
        while let Some(event) = follower.subscription.try_next() {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    assert!(self.trouble && is_trouble(&error), "{error}");
                    self.followers[number] = None;
                    return;
                }
            };
            let found = Told {
                key: event.key().to_vec(),
                version: event.version(),
                data: event.data().to_vec(),
            };
            let (at, expected) = told.next().expect("an event that nobody sent");
            assert_eq!(found, expected, "a follower is told something else");
            // What was seen is durable.
            shard.acknowledge(at, event.position());
            follower.given += 1;
        }
    }

    /// The store is opened again: what it holds is a beginning of what was accepted, and is adopted.
    fn again(&mut self, disk: &Arc<SimDisk>, life: Life) {
        for follower in &mut self.followers {
            *follower = None;
        }
        // The last handle lets the lock go.
        self.store = None;
        let (disk, store) = life.open(disk);
        (self.disk, self.trouble) = (disk, false);
        for (number, shard) in (0..).zip(&mut self.shards) {
            let mut kept = 0;
            for write in store.log(number).writes() {
                let write = write.expect("there is no damage");
                let record = shard.log.get_mut(kept).expect("a write that nobody sent");
                assert_eq!(parts(&write), shape(record), "a write that was not sent so");
                assert_eq!(write.client(), record.client);
                let known = record.position.replace(write.position());
                assert!(known.is_none_or(|known| known == write.position()));
                kept += 1;
            }
            shard.adopt(kept);
        }
        self.store = Some(store);
    }
}

/// What a log shows of a write.
fn parts(write: &RecordedWrite) -> Vec<Part> {
    let parts = write.parts().map(|part| {
        let (key, version) = (part.key().to_vec(), part.version());
        match (part.role(), part.moved()) {
            (_, Some((from, to))) => Part::Checkpoint { name: key, from, to },
            (Role::Snapshot, _) => Part::Snapshot { key, version, bytes: Vec::new() },
            (Role::Append, _) => {
                let events = part.events().map(|event| event.data().to_vec()).collect();
                Part::Append { key, version, events }
            }
            _ => Part::Check { key, version },
        }
    });
    parts.collect()
}

/// The same of the reference: a log does not show the bytes of a snapshot.
fn shape(record: &Record) -> Vec<Part> {
    let mut parts = record.parts.clone();
    for part in &mut parts {
        if let Part::Snapshot { bytes, .. } = part {
            bytes.clear();
        }
    }
    parts
}
