//! What a store has to say of the operations that were sent to it: a plain reference, without a disk and without threads.
//!
//! One thread sends, so the order in which writes are accepted on a shard is the order in which they were sent, and what a
//! shard holds after a crash is the beginning of that order. The reference keeps, for each shard, every write that was
//! accepted; which of them are durable is known from below (what was acknowledged or seen) until the store is opened
//! again, and then exactly. What is found then is adopted.

use std::collections::BTreeMap;

use annals::{Expect, Position};

/// What one write does to one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// The version that it makes, and the data of its events.
    Append {
        key: Vec<u8>,
        version: u64,
        events: Vec<Vec<u8>>,
    },
    /// The version that was seen.
    Check {
        key: Vec<u8>,
        version: u64,
    },
    Checkpoint {
        name: Vec<u8>,
        from: Position,
        to: Position,
    },
    Snapshot {
        key: Vec<u8>,
        version: u64,
        bytes: Vec<u8>,
    },
}

/// A write that was accepted and has a place in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub client: Option<(u128, u64)>,
    pub parts: Vec<Part>,
    /// Where it stands, once that is known.
    pub position: Option<Position>,
    /// It was said that it can't be on disk.
    pub not_written: bool,
}

impl Record {
    pub fn new(client: Option<(u128, u64)>, parts: Vec<Part>) -> Record {
        Record { client, parts, position: None, not_written: false }
    }

    /// The version that it brings an aggregate to.
    pub fn version_of(&self, key: &[u8]) -> Option<u64> {
        self.parts.iter().find_map(|part| match part {
            Part::Append { key: of, version, .. } if of == key => Some(*version),
            _ => None,
        })
    }
}

/// An event as a follower of a shard sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    pub key: Vec<u8>,
    pub version: u64,
    pub data: Vec<u8>,
}

/// One shard.
#[derive(Clone, Default, Debug)]
pub struct Shard {
    pub log: Vec<Record>,
    /// How many of them are durable at least.
    pub durable: usize,
    versions: BTreeMap<Vec<u8>, u64>,
    events: BTreeMap<Vec<u8>, Vec<(u64, Vec<u8>)>>,
    checkpoints: BTreeMap<Vec<u8>, Position>,
    /// Where in the log the newest write of a client on an aggregate stands, with its sequence.
    clients: BTreeMap<(u128, Vec<u8>), (u64, usize)>,
}

/// What a client's sequence means on some aggregates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sequence {
    /// Higher than any seen.
    New,
    /// The newest on all of them, and of this one write.
    Replay(usize),
    /// Neither.
    Unanswerable,
}

impl Shard {
    /// The version that is accepted.
    pub fn version(&self, key: &[u8]) -> u64 {
        self.versions.get(key).copied().unwrap_or(0)
    }

    pub fn checkpoint(&self, name: &[u8]) -> Position {
        self.checkpoints.get(name).copied().unwrap_or(Position::START)
    }

    /// The events of an aggregate up to a version, oldest first.
    pub fn events(&self, key: &[u8], version: u64) -> Vec<(u64, Vec<u8>)> {
        let events = self.events.get(key).into_iter().flatten();
        events.filter(|(of, _)| *of <= version).cloned().collect()
    }

    /// The durable version of an aggregate is this at least.
    pub fn version_durable(&self, key: &[u8]) -> u64 {
        let durable = self.log[..self.durable].iter().rev();
        durable.into_iter().find_map(|record| record.version_of(key)).unwrap_or(0)
    }

    /// The newest snapshot of an aggregate among the first records.
    pub fn snapshot(&self, key: &[u8], records: usize) -> Option<(u64, Vec<u8>)> {
        let parts = self.log[..records].iter().rev().flat_map(|record| &record.parts);
        parts.into_iter().find_map(|part| match part {
            Part::Snapshot { key: of, version, bytes } if of == key => {
                Some((*version, bytes.clone()))
            }
            _ => None,
        })
    }

    pub fn sequence(&self, (client, sequence): (u128, u64), keys: &[Vec<u8>]) -> Sequence {
        let seen: Vec<_> =
            keys.iter().map(|key| self.clients.get(&(client, key.clone())).copied()).collect();
        if seen.iter().all(|seen| seen.is_none_or(|(newest, _)| newest < sequence)) {
            return Sequence::New;
        }
        let first = seen.first().copied().flatten();
        match first {
            Some((newest, at)) if newest == sequence && seen.iter().all(|seen| *seen == first) => {
                Sequence::Replay(at)
            }
            _ => Sequence::Unanswerable,
        }
    }

    /// Whether a condition holds of what is accepted.
    pub fn holds(&self, key: &[u8], expect: Expect) -> bool {
        let version = self.version(key);
        match expect {
            Expect::Any => true,
            Expect::Exists => version > 0,
            Expect::Absent => version == 0,
            Expect::Version(expected) => expected == version,
        }
    }

    /// Takes a write that was accepted; says where in the log.
    pub fn accept(&mut self, record: Record) -> usize {
        let at = self.log.len();
        for part in &record.parts {
            match part {
                Part::Append { key, version, events } => {
                    self.versions.insert(key.clone(), *version);
                    let kept = self.events.entry(key.clone()).or_default();
                    kept.extend(events.iter().map(|data| (*version, data.clone())));
                    if let Some((client, sequence)) = record.client {
                        self.clients.insert((client, key.clone()), (sequence, at));
                    }
                }
                Part::Checkpoint { name, to, .. } => {
                    self.checkpoints.insert(name.clone(), *to);
                }
                Part::Check { .. } | Part::Snapshot { .. } => {}
            }
        }
        self.log.push(record);
        at
    }

    /// A write is durable, and so is all before it.
    pub fn acknowledge(&mut self, at: usize, position: Position) {
        let record = &mut self.log[at];
        assert!(!record.not_written, "it was not written, and now it is: {record:?}");
        assert!(record.position.is_none_or(|known| known == position), "{record:?}: {position}");
        record.position = Some(position);
        self.durable = self.durable.max(at + 1);
    }

    /// The store was opened again and holds so many: what else was accepted never was.
    pub fn adopt(&mut self, kept: usize) {
        assert!(kept >= self.durable, "{kept} are left of {} that were durable", self.durable);
        for record in &self.log[..kept] {
            assert!(!record.not_written, "it was said not to be written: {record:?}");
        }
        let mut log = std::mem::take(&mut self.log);
        log.truncate(kept);
        *self = Shard { durable: kept, ..Shard::default() };
        for record in log {
            self.accept(record);
        }
    }

    /// All events in the order of the log.
    pub fn told(&self) -> impl Iterator<Item = (usize, Told)> {
        let parts = self
            .log
            .iter()
            .enumerate()
            .flat_map(|(at, record)| record.parts.iter().map(move |part| (at, part)));
        parts.flat_map(|(at, part)| {
            let (key, version, events) = match part {
                Part::Append { key, version, events } => {
                    (key.as_slice(), *version, events.as_slice())
                }
                _ => (&[][..], 0, &[][..]),
            };
            let told = events
                .iter()
                .map(move |data| (at, Told { key: key.to_vec(), version, data: data.clone() }));
            told.collect::<Vec<_>>()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard() -> Shard {
        let mut shard = Shard::default();
        for version in 1..=3 {
            let part =
                Part::Append { key: b"a".to_vec(), version, events: vec![vec![version as u8]] };
            shard.accept(Record::new(None, vec![part]));
        }
        shard
    }

    #[test]
    fn what_was_only_accepted_may_be_gone() {
        let mut shard = shard();
        shard.acknowledge(1, Position::from_raw(4096));
        shard.adopt(2);
        assert_eq!((shard.version(b"a"), shard.log.len()), (2, 2));
    }

    #[test]
    #[should_panic(expected = "1 are left of 2 that were durable")]
    fn what_was_acknowledged_may_not() {
        let mut shard = shard();
        shard.acknowledge(1, Position::from_raw(4096));
        shard.adopt(1);
    }

    #[test]
    #[should_panic(expected = "it was said not to be written")]
    fn what_was_said_not_to_be_written_may_not_come_back() {
        let mut shard = shard();
        shard.log[1].not_written = true;
        shard.adopt(2);
    }
}
