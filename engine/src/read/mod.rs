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
mod follower;
mod merged;
mod recorded;
mod shard;
mod subscription;
#[cfg(test)]
mod tests;
mod trail;
mod watch;
mod watch_prefix;
mod write;

use std::sync::Arc;

pub use self::aggregate::Read;
pub use self::merged::MergedSubscription;
pub use self::recorded::Recorded;
pub use self::shard::{LogRead, Writes};
pub use self::subscription::{Subscription, WriteSubscription};
pub use self::watch::Watch;
pub use self::watch_prefix::PrefixWatch;
pub use self::write::{RecordedPart, RecordedWrite};

use self::chain::Chain;
use crate::error::Error;
use crate::format::Damage;
use crate::id::Position;
use crate::index::{Index, OutOfMemory, SlotKey};
use crate::key;
use crate::log::catalogue::{Catalogue, Record};
use crate::reserve::slot_ref::SlotRef;

/// A slot, and what keeps it alive.
#[derive(Clone, Debug)]
struct Slot {
    slot: SlotRef,
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
}

impl ReadSide {
    /// The read side of a shard.
    pub fn new(catalogue: Arc<Catalogue>, index: Arc<Index>) -> ReadSide {
        ReadSide { catalogue, index }
    }

    /// A read of the aggregate with this key. Nothing is inserted if there is none.
    pub fn read(&self, key: &[u8]) -> Read {
        if let Err(error) = key::check(key) {
            return Read::failed(error);
        }
        let watermark = self.catalogue.watermark();
        Read::new(self.chain(key), self.head(key), watermark)
    }

    /// A read of an aggregate whose slot is at hand.
    pub fn read_slot(&self, slot: SlotRef) -> Read {
        let watermark = self.catalogue.watermark();
        Read::new(self.chain(slot.key()), slot.head(), watermark)
    }

    /// The durable version of the aggregate with this key, 0 if there is none.
    pub fn version(&self, key: &[u8]) -> Result<u64, Error> {
        key::check(key)?;
        let watermark = self.catalogue.watermark();
        self.chain(key).version_below(self.head(key), watermark)
    }

    /// The durable version of an aggregate whose slot is at hand.
    pub fn version_of_slot(&self, slot: SlotRef) -> Result<u64, Error> {
        let watermark = self.catalogue.watermark();
        self.chain(slot.key()).version_below(slot.head(), watermark)
    }

    /// A read of the shard in log order.
    pub fn log(&self) -> LogRead {
        LogRead::new(Arc::clone(&self.catalogue))
    }

    /// A subscription to the shard.
    pub fn subscribe(&self) -> Subscription {
        Subscription::new(Arc::clone(&self.catalogue))
    }

    /// A watch of the aggregate with this key, whose slot is inserted if there is none.
    pub fn watch(&self, key: &[u8]) -> Result<Watch, Error> {
        key::check(key)?;
        self.catalogue.following().watch();
        let slot = self.slot(SlotKey::Aggregate(key))?;
        Ok(Watch::new(self.chain(key), &self.catalogue, slot))
    }

    /// The slot of a key, made if there is none.
    fn slot(&self, key: SlotKey<'_>) -> Result<Slot, Error> {
        let found = self.index.insert(self.index.hash(key), key);
        let (slot, _) = found.map_err(|OutOfMemory| Error::out_of_memory("the index"))?;
        Ok(Slot { slot, _index: Arc::clone(&self.index) })
    }

    /// The write at a position below the watermark, or one that a slot names.
    pub fn write_at(&self, position: Position) -> Result<RecordedWrite, Error> {
        RecordedWrite::new(&self.catalogue, self.catalogue.published(position)?)
    }

    fn chain(&self, key: &[u8]) -> Chain {
        Chain::new(Arc::clone(&self.catalogue), key)
    }

    fn head(&self, key: &[u8]) -> Position {
        let key = SlotKey::Aggregate(key);
        let slot = self.index.find(self.index.hash(key), key);
        slot.map_or(Position::START, |slot| slot.head())
    }
}
