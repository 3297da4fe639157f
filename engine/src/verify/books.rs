//! What the writes of a log say of each other: versions, links, conditions, sequences, checkpoints, snapshots.
//!
//! The books are kept while the log is walked, in its order. What stands in the log is believed from there on, so that one
//! fault is told once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::record::{Kind, Part, Record};
use super::walk::Visit;
use super::{Damage, Problem};
use crate::error::Error;
use crate::expect::Expect;
use crate::id::Position;
use crate::key::Shown;

/// A version divisible by this is what later ones link to by their skip.
const SKIP_VERSIONS: u64 = 64;
/// So many problems of a shard are told.
const PROBLEMS_MAX: usize = 1000;

/// What the log has said of an aggregate so far.
#[derive(Clone, Copy, Default)]
struct Account {
    /// What its clients are kept under.
    number: u64,
    /// The last write that it was part of.
    write: u64,
    version: u64,
    last: Position,
    skip: Position,
    /// The record of its newest snapshot.
    snapshot: Position,
}

/// What the log has said of a checkpoint so far.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// The last write that moved it.
    write: u64,
    at: Position,
    last: Position,
}

/// What the log of one shard has said so far, and what of it can't be so.
pub(super) struct Books<'a> {
    shard: u16,
    aggregates: HashMap<Box<[u8]>, Account>,
    /// The highest sequence of a client on an aggregate.
    clients: HashMap<(u128, u64), u64>,
    checkpoints: HashMap<Box<[u8]>, Mark>,
    pub(super) flushes: u64,
    pub(super) writes: u64,
    pub(super) events: u64,
    pub(super) problems: Vec<Problem>,
    walked: &'a mut dyn FnMut(u64),
}

impl Visit for Books<'_> {
    fn segment(&mut self, bytes: u64) {
        (self.walked)(bytes);
    }

    fn flush(&mut self) {
        self.flushes += 1;
    }

    fn write(&mut self, record: &Record<'_>, at: Position, path: &str) -> Result<(), Error> {
        self.writes += 1;
        self.events += record.events();
        let Some((aggregate, what)) = self.objection(record, at)? else { return Ok(()) };
        let offset = at.offset().into();
        self.damage(Damage { path: path.into(), offset, bytes: 0, aggregate, what, lost: false });
        Ok(())
    }

    fn damage(&mut self, damage: Damage) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem {
                shard: self.shard,
                segment: damage.path,
                offset: damage.offset,
                aggregate: damage.aggregate,
                what: damage.what,
            });
        }
    }
}

/// The aggregate, where it is one of an aggregate, and what is wrong with it.
type Objection = (Option<Vec<u8>>, String);

impl<'a> Books<'a> {
    /// Books of a log that is about to be walked.
    pub(super) fn new(shard: u16, walked: &'a mut dyn FnMut(u64)) -> Books<'a> {
        Books {
            shard,
            aggregates: HashMap::new(),
            clients: HashMap::new(),
            checkpoints: HashMap::new(),
            flushes: 0,
            writes: 0,
            events: 0,
            problems: Vec::new(),
            walked,
        }
    }

    /// How many aggregates have a version.
    pub(super) fn aggregates(&self) -> u64 {
        self.aggregates.values().filter(|account| account.version > 0).count() as u64
    }

    /// Enters a write; the first thing in it that can't be so.
    fn objection(&mut self, record: &Record<'_>, at: Position) -> Result<Option<Objection>, Error> {
        let mut objection = None;
        let mut object = |key: Option<&[u8]>, what: String| {
            objection.get_or_insert((key.map(<[u8]>::to_vec), what));
        };
        if let Err(flaw) = record.verify_events() {
            let key = record.parts.first().map(|part| part.key);
            object(key, format!("an event can't be read: {}", flaw.what));
        }
        let write = self.writes;
        for part in &record.parts {
            if part.kind == Kind::Checkpoint {
                if let Some(what) = self.checkpoint(part, at)? {
                    object(None, format!("checkpoint {}: {what}", Shown(part.key)));
                }
                continue;
            }
            let account = self.account(part.key)?;
            if let Some(what) = contradiction(part, account) {
                object(Some(part.key), what);
            }
            if std::mem::replace(&mut account.write, write) == write {
                object(Some(part.key), "the aggregate is in one write twice".into());
            }
            let number = account.number;
            if part.kind == Kind::Snapshot {
                account.snapshot = at;
            }
            if part.kind == Kind::Append {
                // What is there is believed from here on, so that one fault is told once.
                account.version = part.version;
                account.last = at;
                if part.version.is_multiple_of(SKIP_VERSIONS) {
                    account.skip = at;
                }
            }
            if let Some((client, sequence)) = record.client
                && part.kind == Kind::Append
            {
                match self.clients.insert((client, number), sequence) {
                    Some(before) if sequence <= before => {
                        let what =
                            format!("client {client:x} has sequence {sequence} after {before}");
                        object(Some(part.key), what);
                    }
                    _ => {}
                }
            }
        }
        Ok(objection)
    }

    /// Moves a checkpoint; what its part says that can't be so after all that the log has said before.
    fn checkpoint(&mut self, part: &Part<'_>, at: Position) -> Result<Option<String>, Error> {
        if self.checkpoints.try_reserve(1).is_err() {
            return Err(Error::out_of_memory("what the log says"));
        }
        let mark = self.checkpoints.entry(part.key.into()).or_default();
        let now = Mark { write: self.writes, at: Position::from_raw(part.version), last: at };
        let before = std::mem::replace(mark, now);
        if before.write == self.writes {
            return Ok(Some("it is in one write twice".into()));
        }
        if part.expect != Expect::Version(before.at.get()) {
            let from = if let Expect::Version(from) = part.expect { from } else { 0 };
            let (from, stood) = (Position::from_raw(from), before.at);
            return Ok(Some(format!("moved from {from} to {}, and it stood at {stood}", now.at)));
        }
        if part.prev != before.last {
            return Ok(Some(format!("linked to {}, and was moved at {}", part.prev, before.last)));
        }
        Ok(None)
    }

    fn account(&mut self, key: &[u8]) -> Result<&mut Account, Error> {
        if self.aggregates.try_reserve(1).is_err() || self.clients.try_reserve(1).is_err() {
            return Err(Error::out_of_memory("what the log says"));
        }
        let number = self.aggregates.len() as u64;
        Ok(match self.aggregates.entry(key.into()) {
            Entry::Occupied(account) => account.into_mut(),
            Entry::Vacant(place) => place.insert(Account { number, ..Account::default() }),
        })
    }
}

/// What a part says that can't be so after all that the log has said before.
fn contradiction(part: &Part<'_>, account: &Account) -> Option<String> {
    let before = account.version;
    match part.kind {
        Kind::Append if Some(part.version) != before.checked_add(1) => {
            return Some(format!("version {} follows version {before}", part.version));
        }
        Kind::Check if part.version != before => {
            return Some(format!("checked at version {}, and it was at {before}", part.version));
        }
        Kind::Snapshot if part.version > before => {
            return Some(format!("a snapshot of version {}, and it was at {before}", part.version));
        }
        Kind::Snapshot if part.prev != account.snapshot => {
            return Some(format!(
                "a snapshot linked to {}, and the one before stands at {}",
                part.prev, account.snapshot
            ));
        }
        _ => {}
    }
    if !part.expect.holds(before) {
        return Some(format!("written on {}, at version {before}", part.expect));
    }
    if part.kind == Kind::Append && (part.prev, part.skip) != (account.last, account.skip) {
        return Some(format!(
            "linked to {} and {}, and the versions stand at {} and {}",
            part.prev, part.skip, account.last, account.skip
        ));
    }
    None
}
