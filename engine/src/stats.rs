//! What a store has done since it was opened, and what it holds.

use crate::sync::atomic::{AtomicU64, Ordering};

/// What a store has done since it was opened. Made by [`Store::stats`](crate::Store::stats).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// How flushes reach the disk: `"uring"`, `"blocking"`, or `"none"` when opened read-only.
    pub backend: &'static str,
    /// How flushes are made durable: `"write-dsync"` or `"write-then-sync"`.
    pub durability: &'static str,
    /// What flushes are padded to, in bytes.
    pub block_bytes: u32,
    /// The size that segments grow to, in bytes.
    pub segment_bytes: u64,
    /// Each shard's own.
    pub shards: Vec<ShardStats>,
}

/// What one shard has done since it was opened, and what it holds.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ShardStats {
    /// Flushes that are durable.
    pub flushes: u64,
    /// Writes that are durable.
    pub writes: u64,
    /// Events that are durable.
    pub events: u64,
    /// Bytes of durable flushes, padding included.
    pub flushed_bytes: u64,
    /// Writes that were told a conflict.
    pub conflicts: u64,
    /// Attempts that lost a race for a slot while their conditions still held, and were made again.
    pub lost_races: u64,
    /// Segments that hold the log.
    pub segments: u64,
    /// Slots in the index: aggregates, clients on aggregates, checkpoints, and aggregates that have snapshots.
    pub slots: u64,
    /// Memory of the index, in bytes.
    pub index_bytes: u64,
    /// Memory that stalled threads and kept events hold back, in bytes.
    pub held_bytes: u64,
    /// Where the durable log ends.
    pub end: crate::id::Position,
    /// Why the shard takes no more writes, if it does not.
    pub stopped: Option<String>,
}

/// What the threads of a shard count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    flushes: AtomicU64,
    writes: AtomicU64,
    events: AtomicU64,
    flushed_bytes: AtomicU64,
    conflicts: AtomicU64,
    lost_races: AtomicU64,
}

impl Counters {
    pub(crate) fn count_flush(&self, writes: u32, events: u64, bytes: u64) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.writes.fetch_add(writes.into(), Ordering::Relaxed);
        self.events.fetch_add(events, Ordering::Relaxed);
        self.flushed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_lost_race(&self) {
        self.lost_races.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted; the rest is the shard's to fill in.
    pub(crate) fn read(&self) -> ShardStats {
        ShardStats {
            flushes: self.flushes.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
            flushed_bytes: self.flushed_bytes.load(Ordering::Relaxed),
            conflicts: self.conflicts.load(Ordering::Relaxed),
            lost_races: self.lost_races.load(Ordering::Relaxed),
            ..ShardStats::default()
        }
    }
}
