//! Reading: one aggregate, or the log of a shard; and following either as it grows. Everything shown is durable.
//!
//! A read takes the watermark first, then the slot's head, and from there on needs neither locks nor guards: what it hands
//! out keeps the bytes it points to alive. It knows nothing of the log writer.
//!
//! What follows is a [`Source`](follower::Source), which reads what is there, beside a [`Follower`](follower::Follower),
//! which waits for more. A source of events or writes goes along a [`Trail`](trail::Trail).

mod aggregate;
mod chain;
mod filter;
mod fold;
mod follower;
mod merged;
mod newest;
mod pending;
mod recorded;
mod shard;
mod snapshot;
mod subscription;
#[cfg(test)]
mod tests;
mod trail;
mod watch;
mod watch_prefix;
mod write;

use std::sync::Arc;

pub use self::aggregate::Read;
pub use self::fold::Folded;
pub use self::merged::MergedSubscription;
pub use self::pending::{Decided, Pending, Records, unplaced};
pub use self::recorded::Recorded;
pub use self::shard::{LogRead, Writes};
pub use self::snapshot::Snapshot;
pub use self::subscription::{Subscription, WriteSubscription};
pub use self::watch::Watch;
pub use self::watch_prefix::PrefixWatch;
pub use self::write::{RecordedPart, RecordedWrite};

use self::chain::Chain;
use crate::error::Error;
use crate::format::{Damage, Role};
use crate::id::Position;
use crate::index::{Index, OutOfMemory, SlotKey};
use crate::key;
use crate::log::catalogue::{Catalogue, Record};
use crate::reserve::slot_ref::SlotRef;

/// A slot, what keeps it alive, and the log whose writer rings its watchers.
#[derive(Clone, Debug)]
struct Slot {
    slot: SlotRef,
    log: Arc<Catalogue>,
    _index: Arc<Index>,
}

/// An error about the events of a record.
fn damaged(catalogue: &Catalogue, record: &Record, damage: &Damage) -> Error {
    let error = catalogue.damaged(record.position(), damage);
    error.with_keys(record.view().parts().map(|part| part.key))
}

/// What reads of one shard start from.
#[derive(Debug)]
pub struct ReadSide {
    catalogue: Arc<Catalogue>,
    index: Arc<Index>,
    decided: Arc<dyn Decided>,
}

impl ReadSide {
    /// The read side of a shard.
    pub fn new(
        catalogue: Arc<Catalogue>,
        index: Arc<Index>,
        decided: Arc<dyn Decided>,
    ) -> Arc<ReadSide> {
        Arc::new(ReadSide { catalogue, index, decided })
    }

    /// A read of the aggregate with this key. Nothing is inserted if there is none.
    pub fn read(self: &Arc<Self>, key: &[u8]) -> Read {
        match key::check(key).and_then(|()| self.check_process()) {
            Ok(()) => Read::new(self.chain(key)),
            Err(error) => Read::failed(error),
        }
    }

    /// A read of an aggregate whose slot is at hand.
    pub fn read_slot(self: &Arc<Self>, slot: SlotRef) -> Read {
        match self.check_process() {
            Ok(()) => Read::new(self.chain_of_slot(slot)),
            Err(error) => Read::failed(error),
        }
    }

    /// Refuses a child of the process that opened the shard: what it would see stands still, and nobody would say so.
    pub fn check_process(&self) -> Result<(), Error> {
        self.catalogue.following().check_process()
    }

    /// The durable version of the aggregate with this key, 0 if there is none.
    pub fn version(self: &Arc<Self>, key: &[u8]) -> Result<u64, Error> {
        key::check(key)?;
        self.check_process()?;
        Ok(self.chain(key).newest()?.map_or(0, |link| link.version))
    }

    /// The durable version of an aggregate whose slot is at hand.
    pub fn version_of_slot(self: &Arc<Self>, slot: SlotRef) -> Result<u64, Error> {
        self.check_process()?;
        Ok(self.chain_of_slot(slot).newest()?.map_or(0, |link| link.version))
    }

    /// Where the checkpoint with this name durably stands; the start if there is none.
    pub fn checkpoint(&self, name: &[u8]) -> Result<Position, Error> {
        self.check_process()?;
        let watermark = self.catalogue.watermark();
        let head = self.head_of(SlotKey::Checkpoint(name));
        let newest = newest::newest(&self.catalogue, Role::Checkpoint, name, head, watermark)?;
        Ok(newest.map_or(Position::START, |newest| Position::from_raw(newest.version)))
    }

    /// The durable snapshot of an aggregate that was saved last.
    pub fn snapshot(&self, key: &[u8]) -> Result<Option<Snapshot>, Error> {
        self.check_process()?;
        let watermark = self.catalogue.watermark();
        let head = self.head_of(SlotKey::Snapshot(key));
        newest::newest(&self.catalogue, Role::Snapshot, key, head, watermark)?
            .map(|newest| Snapshot::new(&self.catalogue, key, newest))
            .transpose()
    }

    /// A read of the shard in log order.
    pub fn log(&self) -> LogRead {
        match self.check_process() {
            Ok(()) => LogRead::new(Arc::clone(&self.catalogue)),
            Err(error) => LogRead::failed(error),
        }
    }

    /// A subscription to the shard.
    pub fn subscribe(&self) -> Subscription {
        let subscription = Subscription::new(Arc::clone(&self.catalogue));
        match self.check_process() {
            Ok(()) => subscription,
            Err(error) => subscription.failing(error),
        }
    }

    /// A watch of the aggregate with this key, whose slot is inserted if there is none.
    pub fn watch(self: &Arc<Self>, key: &[u8]) -> Result<Watch, Error> {
        key::check(key)?;
        self.catalogue.following().watch();
        let slot = self.slot_to_watch(SlotKey::Aggregate(key))?;
        Ok(Watch::new(self.chain(key), &self.catalogue, slot))
    }

    /// The slot of a key, made if there is none.
    fn slot_to_watch(&self, key: SlotKey<'_>) -> Result<Slot, Error> {
        self.check_process()?;
        let found = self.index.insert(self.index.hash(key), key);
        let (slot, _) = found.map_err(|OutOfMemory| Error::out_of_memory("the index"))?;
        let log = Arc::clone(&self.catalogue);
        Ok(Slot { slot, log, _index: Arc::clone(&self.index) })
    }

    /// The write at a position below the watermark, or one that a slot names.
    pub fn write_at(&self, position: Position) -> Result<RecordedWrite, Error> {
        self.check_process()?;
        RecordedWrite::new(&self.catalogue, self.catalogue.published(position)?)
    }

    fn chain(self: &Arc<Self>, key: &[u8]) -> Chain {
        Chain::new(Arc::clone(self), key, self.slot(key))
    }

    fn chain_of_slot(self: &Arc<Self>, slot: SlotRef) -> Chain {
        Chain::new(Arc::clone(self), slot.key(), Some(slot))
    }

    fn slot(&self, key: &[u8]) -> Option<SlotRef> {
        self.slot_of(SlotKey::Aggregate(key))
    }

    fn slot_of(&self, key: SlotKey<'_>) -> Option<SlotRef> {
        self.index.find(self.index.hash(key), key)
    }

    fn head_of(&self, key: SlotKey<'_>) -> Position {
        self.slot_of(key).map_or(Position::START, |slot| slot.head())
    }
}
