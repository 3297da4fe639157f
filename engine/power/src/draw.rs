//! How the store of a life is made and opened, drawn from a seed.

use annals::{Backend, Durability, Options};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::plan::SEPARATOR;

/// The smallest segments, so that the log rolls every few hundred writes.
pub const SEGMENT_BYTES: u64 = 1 << 20;

/// What is drawn for one life of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Drawn {
    /// Shards; fixed when the store is created.
    pub shards: u16,
    /// A block of 4 KiB, where the loop device would allow one sector; fixed when the store is created.
    pub large_blocks: bool,
    /// Flushes that are one write, instead of a write and a sync.
    pub write_dsync: bool,
    /// io_uring, or the blocking back end.
    pub uring: bool,
    /// Maps older segments.
    pub mapped: bool,
    /// Flushes in flight.
    pub flush_window: usize,
    /// Threads that write.
    pub threads: u64,
    /// Writes that a thread submits before it waits.
    pub burst: u64,
}

impl Drawn {
    /// Draws everything.
    pub fn new(random: &mut ChaCha8Rng, uring: bool) -> Drawn {
        Drawn {
            shards: random.random_range(1..3),
            large_blocks: random.random(),
            write_dsync: random.random(),
            uring: uring && random.random_bool(0.6),
            mapped: random.random(),
            flush_window: [1, 2, 4, 8][random.random_range(0..4)],
            threads: random.random_range(1..4),
            burst: [1, 4, 16][random.random_range(0..3)],
        }
    }

    /// Draws again what is not fixed.
    pub fn again(self, random: &mut ChaCha8Rng, uring: bool) -> Drawn {
        Drawn { shards: self.shards, large_blocks: self.large_blocks, ..Drawn::new(random, uring) }
    }

    /// As the store takes them.
    pub fn options(self) -> Options {
        let options = Options::new()
            .shards(self.shards)
            .route_by_prefix(SEPARATOR)
            .segment_bytes(SEGMENT_BYTES)
            .tail_bytes(4 << 20)
            .mapped(self.mapped)
            .flush_window(self.flush_window)
            .backend(if self.uring { Backend::Uring } else { Backend::Blocking })
            .durability(if self.write_dsync {
                Durability::WriteDsync
            } else {
                Durability::WriteThenSync
            });
        if self.large_blocks { options.block_bytes(4096) } else { options }
    }
}
