//! Decides about each write of the old log, in its order: copied, set aside, or lost.
//!
//! For each aggregate it keeps the version in the new store and the highest one that the old store tells of. As long as the
//! two are the same and the next write makes the next version, the aggregate goes on. Once they differ it is cut off.
//! Also a check and a snapshot tell of versions: one that has seen version 7 says that there were seven.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;

use super::report::{CutOff, DamagedRange, LeftCheckpoint, MissingVersions, Salvage, SetAside};
use super::target::{Links, Target};
use crate::error::{Error, ErrorKind};
use crate::id::Position;
use crate::key::Shown;
use crate::read::RecordedWrite;
use crate::verify::{Damage, Kind, Part, Record, Visit};

const SKIP_VERSIONS: u64 = 64;

/// What is known of an aggregate.
#[derive(Clone, Copy, Default)]
struct Account {
    number: u64,
    /// Its version in the new store.
    kept: u64,
    /// The highest version that the old store tells of.
    told: u64,
    set_aside: u64,
    cut_off: bool,
    /// The last write that it was part of.
    write: u64,
    links: Links,
}

/// The books of one shard of the old store.
pub(super) struct Ledger<'a> {
    shard: u16,
    target: &'a mut Target,
    salvage: &'a mut Salvage,
    set_aside: &'a mut dyn FnMut(&SetAside<'_>) -> io::Result<()>,
    walked: &'a mut dyn FnMut(u64),
    aggregates: HashMap<Box<[u8]>, Account>,
    clients: HashMap<(u128, u64), u64>,
    checkpoints: HashMap<Box<[u8]>, Position>,
    /// Where each copied write stood, and where it stands.
    moved: Vec<(Position, Position)>,
    writes: u64,
}

impl Visit for Ledger<'_> {
    fn segment(&mut self, bytes: u64) {
        (self.walked)(bytes);
    }

    fn flush(&mut self) {}

    fn write(&mut self, record: &Record<'_>, at: Position, path: &str) -> Result<(), Error> {
        self.writes += 1;
        self.note_checkpoints(record)?;
        if let Err(flaw) = record.verify_events() {
            return self.lose(record, at, path, &flaw.what);
        }
        if record.parts.iter().all(|part| matches!(part.kind, Kind::Check | Kind::Checkpoint)) {
            // Nothing to copy; what was checked may still tell of versions.
            return record.parts.iter().try_for_each(|part| self.judge(part).map(|_| ()));
        }
        let mut why = None;
        for part in &record.parts {
            let objection = self.judge(part)?;
            why = why.or(objection);
        }
        for part in record.parts.iter().filter(|part| part.kind == Kind::Append) {
            let sequence = self.out_of_sequence(part, record.client)?;
            why = why.or(sequence);
        }
        match why {
            None => self.copy(record, at),
            Some(why) => self.put_aside(record, at, &why),
        }
    }

    fn damage(&mut self, damage: Damage) {
        self.salvage.damage.push(DamagedRange {
            shard: self.shard,
            segment: damage.path,
            offset: damage.offset,
            bytes: damage.bytes,
            aggregate: damage.aggregate,
            what: damage.what,
            lost: damage.lost,
        });
    }
}

impl<'a> Ledger<'a> {
    pub(super) fn new(
        shard: u16,
        target: &'a mut Target,
        salvage: &'a mut Salvage,
        set_aside: &'a mut dyn FnMut(&SetAside<'_>) -> io::Result<()>,
        walked: &'a mut dyn FnMut(u64),
    ) -> Ledger<'a> {
        Ledger {
            shard,
            target,
            salvage,
            set_aside,
            walked,
            aggregates: HashMap::new(),
            clients: HashMap::new(),
            checkpoints: HashMap::new(),
            moved: Vec::new(),
            writes: 0,
        }
    }

    /// Whether a part can stand in the new store. Notes what it tells of versions that are missing.
    fn judge(&mut self, part: &Part<'_>) -> Result<Option<String>, Error> {
        if part.kind == Kind::Checkpoint {
            return Ok(None);
        }
        let (shard, write) = (self.shard, self.writes);
        let account = self.account(part.key)?;
        // The highest version that must have been there before this part.
        let before = match part.kind {
            Kind::Append => part.version - 1,
            _ => part.version,
        };
        let (from, known) = (account.told + 1, account.told);
        if before > known {
            account.told = before;
            account.cut_off = true;
            let position = (part.kind == Kind::Append && !part.prev.is_none()).then_some(part.prev);
            let aggregate = part.key.to_vec();
            let missing = MissingVersions { shard, aggregate, from, to: before, position };
            self.salvage.missing.push(missing);
        }
        let account = self.account(part.key)?;
        let twice = std::mem::replace(&mut account.write, write) == write;
        let key = Shown(part.key);
        // A snapshot of an older version than the last stands for what is there.
        let stands = part.kind == Kind::Snapshot && part.version <= account.kept;
        if account.cut_off && !stands {
            let kept = account.kept;
            return Ok(Some(format!("{key} is missing a version after {kept}")));
        }
        let contradicts = twice
            || part.kind != Kind::Snapshot && before < known
            || part.kind == Kind::Append && !part.expect.holds(before)
            || part.kind == Kind::Check && !part.expect.holds(before);
        Ok(contradicts
            .then(|| format!("{key} was at version {known}, which contradicts the write")))
    }

    /// A client's sequences rise on each aggregate.
    fn out_of_sequence(
        &mut self,
        part: &Part<'_>,
        client: Option<(u128, u64)>,
    ) -> Result<Option<String>, Error> {
        let Some((client, sequence)) = client else { return Ok(None) };
        let number = self.account(part.key)?.number;
        let before = self.clients.get(&(client, number)).copied();
        let wrong = before.is_some_and(|before| sequence <= before);
        Ok(wrong.then(|| format!("its client had a later sequence on {} before", Shown(part.key))))
    }

    fn copy(&mut self, record: &Record<'_>, at: Position) -> Result<(), Error> {
        let aggregates = &self.aggregates;
        let position = self.target.push(record, &mut |part| {
            aggregates.get(part.key).map_or_else(Links::default, |account| account.links)
        })?;
        for part in &record.parts {
            if !matches!(part.kind, Kind::Append | Kind::Snapshot) {
                continue;
            }
            let account = self.account(part.key)?;
            let number = account.number;
            if part.kind == Kind::Snapshot {
                account.links.snapshot = position;
                continue;
            }
            (account.kept, account.told) = (part.version, part.version);
            account.links.last = position;
            if part.version.is_multiple_of(SKIP_VERSIONS) {
                account.links.skip = position;
            }
            if let Some((client, sequence)) = record.client {
                self.clients.try_reserve(1).map_err(|_| out_of_memory())?;
                self.clients.insert((client, number), sequence);
            }
        }
        self.moved.try_reserve(1).map_err(|_| out_of_memory())?;
        self.moved.push((at, position));
        self.salvage.events += record.events();
        if record.is_snapshot() {
            self.salvage.snapshots += 1;
        } else {
            self.salvage.writes += 1;
        }
        Ok(())
    }

    fn put_aside(&mut self, record: &Record<'_>, at: Position, why: &str) -> Result<(), Error> {
        for part in record.parts.iter().filter(|part| part.kind == Kind::Append) {
            let account = self.account(part.key)?;
            account.cut_off = true;
            account.told = account.told.max(part.version);
            account.set_aside += 1;
        }
        let write = RecordedWrite::of_bytes(record.bytes, at).ok_or_else(|| {
            let what = format!("the write at {at} of shard {} is read in two ways", self.shard);
            Error::new(ErrorKind::Corrupt, what)
        })?;
        let mut events = record.parts.iter().filter(|part| part.kind == Kind::Snapshot);
        let snapshot = events.next().and_then(|part| part.events().next()?.ok());
        let aside = SetAside {
            shard: self.shard,
            write: &write,
            snapshot: snapshot.map(|event| event.data),
            why,
        };
        (self.set_aside)(&aside).map_err(|error| Error::io("setting a write aside", error))?;
        self.salvage.set_aside += 1;
        Ok(())
    }

    /// A write whose head is whole, and whose events are not: what it says it was is missing.
    fn lose(
        &mut self,
        record: &Record<'_>,
        at: Position,
        path: &str,
        what: &str,
    ) -> Result<(), Error> {
        for part in &record.parts {
            self.judge(part)?;
            if part.kind == Kind::Append {
                let account = self.account(part.key)?;
                account.cut_off = true;
                if part.version > account.told {
                    account.told = part.version;
                    self.salvage.missing.push(MissingVersions {
                        shard: self.shard,
                        aggregate: part.key.to_vec(),
                        from: part.version,
                        to: part.version,
                        position: Some(at),
                    });
                }
            }
        }
        let snapshot = if record.is_snapshot() { "a snapshot" } else { "an event" };
        self.damage(Damage {
            path: path.into(),
            offset: at.offset().into(),
            bytes: record.bytes.len() as u64,
            aggregate: record.parts.first().map(|part| part.key.to_vec()),
            what: format!("{snapshot} can't be read: {what}"),
            lost: true,
        });
        Ok(())
    }

    fn note_checkpoints(&mut self, record: &Record<'_>) -> Result<(), Error> {
        for part in record.parts.iter().filter(|part| part.kind == Kind::Checkpoint) {
            self.checkpoints.try_reserve(1).map_err(|_| out_of_memory())?;
            self.checkpoints.insert(part.key.into(), Position::from_raw(part.version));
        }
        Ok(())
    }

    fn account(&mut self, key: &[u8]) -> Result<&mut Account, Error> {
        self.aggregates.try_reserve(1).map_err(|_| out_of_memory())?;
        let number = self.aggregates.len() as u64;
        Ok(match self.aggregates.entry(key.into()) {
            Entry::Occupied(account) => account.into_mut(),
            Entry::Vacant(place) => place.insert(Account { number, ..Account::default() }),
        })
    }

    /// Enters into the report what is known at the end of the shard.
    pub(super) fn close(self) {
        let Ledger { shard, salvage, aggregates, checkpoints, mut moved, .. } = self;
        salvage.aggregates += aggregates.values().filter(|account| account.kept > 0).count() as u64;
        let cut_off = aggregates.into_iter().filter(|(_, account)| account.cut_off);
        let mut cut_off: Vec<CutOff> = cut_off
            .map(|(key, account)| CutOff {
                shard,
                aggregate: key.into(),
                kept: account.kept,
                last: account.told,
                set_aside: account.set_aside,
            })
            .collect();
        cut_off.sort_unstable_by(|left, right| left.aggregate.cmp(&right.aggregate));
        salvage.cut_off.append(&mut cut_off);
        // Positions of a log rise; only what was searched for could disturb that.
        moved.sort_unstable();
        let checkpoints = checkpoints.into_iter().map(|(name, stood)| {
            let now = moved.binary_search_by_key(&stood, |(was, _)| *was).ok();
            let now = now.and_then(|at| moved.get(at)).map(|(_, now)| *now);
            LeftCheckpoint { shard, name: name.into(), stood, now }
        });
        let mut checkpoints: Vec<LeftCheckpoint> = checkpoints.collect();
        checkpoints.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        salvage.checkpoints.append(&mut checkpoints);
    }
}

fn out_of_memory() -> Error {
    Error::out_of_memory("what the log says")
}
