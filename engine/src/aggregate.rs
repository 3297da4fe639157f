//! Aggregates one by one: a handle to one of them, and all of them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::append::Target;
use crate::error::Error;
use crate::event::{Event, Payload};
use crate::execute::{Execution, State};
use crate::expect::Expect;
use crate::index::SlotKey;
use crate::key;
use crate::read::{Read, Snapshot};
use crate::reserve::slot::SlotKind;
use crate::reserve::slot_ref::SlotRef;
use crate::shard::Shard;
use crate::store::{Route, Store};
use crate::ticket::Ticket;
use crate::writer::intake::Patience;

impl Store {
    /// A handle to one aggregate, for callers who come back to it: it looks the aggregate up once.
    ///
    /// # Errors
    ///
    /// `Invalid` or `TooLarge` if the key is not 1 to 1,024 bytes.
    pub fn aggregate(&self, key: impl AsRef<[u8]>) -> Result<Aggregate, Error> {
        let key = key.as_ref();
        key::check(key)?;
        let route = self.route(key);
        let slot = OnceLock::new();
        if let Some(found) =
            self.all_shards()[route.shard].find(route.hash, SlotKey::Aggregate(key))
        {
            let _first = slot.set(found);
        }
        Ok(Aggregate { store: self.clone(), key: key.into(), route, slot })
    }

    /// Every aggregate with its durable version, in no order. Those created meanwhile may be among them.
    pub fn aggregates(&self) -> Aggregates {
        let slots = self.all_shards().iter().enumerate().flat_map(|(number, shard)| {
            let aggregates = shard.index.iter().filter(|slot| slot.kind() == SlotKind::Aggregate);
            aggregates.map(move |slot| (number, slot))
        });
        Aggregates { store: self.clone(), slots: slots.collect::<Vec<_>>().into_iter() }
    }
}

/// A handle to one aggregate. Made by [`Store::aggregate`].
pub struct Aggregate {
    store: Store,
    key: Box<[u8]>,
    route: Route,
    /// Found when the handle was made, or once the aggregate existed.
    slot: OnceLock<SlotRef>,
}

impl Aggregate {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// As [`Store::append`].
    ///
    /// # Errors
    ///
    /// As [`Store::append`].
    pub fn append(
        &self,
        expect: Expect,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<Ticket, Error> {
        self.append_with(expect, &mut events.into_iter(), Patience::Wait)
    }

    /// As [`Store::try_append`].
    ///
    /// # Errors
    ///
    /// As [`Store::try_append`].
    pub fn try_append(
        &self,
        expect: Expect,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<Ticket, Error> {
        self.append_with(expect, &mut events.into_iter(), Patience::Refuse)
    }

    fn append_with(
        &self,
        expect: Expect,
        events: &mut dyn Iterator<Item = Event>,
        patience: Patience,
    ) -> Result<Ticket, Error> {
        let target =
            Target { key: &self.key, hash: self.route.hash, slot: self.slot(), looked: false };
        self.shard().append(&target, expect, events, self.store.write_bytes_max(), patience)
    }

    /// As [`Store::read`].
    pub fn read(&self) -> Read {
        match self.slot() {
            Some(slot) => self.shard().read.read_slot(slot),
            None => self.shard().read.read(&self.key),
        }
    }

    /// As [`Store::version`].
    ///
    /// # Errors
    ///
    /// As [`Store::version`].
    pub fn version(&self) -> Result<u64, Error> {
        match self.slot() {
            Some(slot) => self.shard().read.version_of_slot(slot),
            None => self.shard().read.check_process().map(|()| 0),
        }
    }

    /// As [`Store::version_accepted`].
    ///
    /// # Errors
    ///
    /// As [`Store::version_accepted`].
    pub fn version_accepted(&self) -> Result<u64, Error> {
        match self.slot() {
            Some(slot) => self.shard().version_accepted(slot),
            None => self.shard().read.check_process().map(|()| 0),
        }
    }

    /// As [`Store::execute`].
    pub fn execute<S: State, R>(
        &self,
        decide: impl FnMut(&S) -> Result<Vec<Event>, R>,
    ) -> Execution<R> {
        self.store.executor().execute_at(&self.key, self.slot(), decide)
    }

    /// As [`Store::save_snapshot`].
    ///
    /// # Errors
    ///
    /// As [`Store::save_snapshot`].
    pub fn save_snapshot(&self, version: u64, bytes: impl Into<Payload>) -> Result<Ticket, Error> {
        let target =
            Target { key: &self.key, hash: self.route.hash, slot: self.slot(), looked: false };
        let bytes_max = self.store.write_bytes_max();
        self.shard().save_snapshot(&target, version, bytes.into(), bytes_max, Patience::Wait)
    }

    /// As [`Store::load_snapshot`].
    ///
    /// # Errors
    ///
    /// As [`Store::load_snapshot`].
    pub fn load_snapshot(&self) -> Result<Option<Snapshot>, Error> {
        self.shard().read.snapshot(&self.key)
    }

    fn shard(&self) -> &Arc<Shard> {
        &self.store.all_shards()[self.route.shard]
    }

    fn slot(&self) -> Option<SlotRef> {
        if let Some(slot) = self.slot.get() {
            return Some(*slot);
        }
        let found = self.shard().find(self.route.hash, SlotKey::Aggregate(&self.key))?;
        Some(*self.slot.get_or_init(|| found))
    }
}

impl fmt::Debug for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Aggregate({})", key::Shown(&self.key))
    }
}

/// Aggregates with their versions. Made by [`Store::aggregates`].
pub struct Aggregates {
    store: Store,
    slots: std::vec::IntoIter<(usize, SlotRef)>,
}

impl Iterator for Aggregates {
    type Item = Result<(Box<[u8]>, u64), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        for (shard, slot) in self.slots.by_ref() {
            match self.store.all_shards()[shard].read.version_of_slot(slot) {
                Ok(0) => {}
                Ok(version) => return Some(Ok((slot.key().into(), version))),
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

impl fmt::Debug for Aggregates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aggregates").field("left", &self.slots.len()).finish_non_exhaustive()
    }
}
