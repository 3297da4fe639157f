//! How a store is followed: subscriptions to its shards, and watches of its aggregates.

use crate::error::Error;
use crate::read::{MergedSubscription, PrefixWatch, Subscription, Watch};
use crate::store::Store;

impl Store {
    /// Follows one shard: its events from the start of its log or from a position on, in the order of the log, and then
    /// those that become durable. Shards are counted from 0; if there is no such shard, an error is the only item.
    pub fn subscribe(&self, shard: u16) -> Subscription {
        if let Some(side) = self.sides().nth(shard.into()) {
            return side.subscribe();
        }
        let first = self.sides().next().expect("a store has a shard");
        first.subscribe().failing(self.no_shard(shard))
    }

    /// A subscription for each shard, in the order of their numbers.
    pub fn subscriptions(&self) -> Vec<Subscription> {
        self.sides().map(|side| side.subscribe()).collect()
    }

    /// Follows all shards at once, each in the order of its log.
    pub fn subscribe_all(&self) -> MergedSubscription {
        MergedSubscription::new(self.sides().map(|side| &**side))
    }

    /// Watches the durable version of one aggregate, which need not exist yet: it is given a place in the index, as the first
    /// append to it would do, and keeps that while the store is open.
    ///
    /// # Errors
    ///
    /// `Invalid` or `TooLarge` if the key is not 1 to 1,024 bytes; `Busy` if there is no memory for the index to grow.
    pub fn watch(&self, key: impl AsRef<[u8]>) -> Result<Watch, Error> {
        let key = key.as_ref();
        let shard = self.route(key).shard;
        let side = self.sides().nth(shard).expect("a key has a shard");
        side.watch(key)
    }

    /// Watches all aggregates whose keys begin so, on every shard; an empty prefix watches all that there are.
    ///
    /// Each prefix that was watched keeps a place in the index of every shard while the store is open, and each *length* of
    /// a prefix that was watched costs every later write a look into that index for each of its aggregates: watch few
    /// lengths.
    ///
    /// # Errors
    ///
    /// `TooLarge` if the prefix is longer than a key may be; `Busy` if there is no memory for the index to grow.
    pub fn watch_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<PrefixWatch, Error> {
        PrefixWatch::new(self.sides().map(|side| &**side), prefix.as_ref())
    }
}
