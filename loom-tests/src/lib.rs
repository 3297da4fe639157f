//! What the models in `tests/` share.
//!
//! The models run under `RUSTFLAGS="--cfg loom" cargo test --release -p loom-tests`; without the flag this package
//! is empty, so that the ordinary build of the workspace passes it by. Each model stands beside a twin that is broken on
//! purpose and must fail: a model that passes with the ordering weakened or the step left out checks nothing.
//!
//! A thread that *stops* is one that ends between two steps: what it would have done next is never done.

#[cfg(loom)]
mod explore;
#[cfg(loom)]
mod shard;

#[cfg(loom)]
pub use {
    annals::internals::sync::fault::Fault,
    explore::{Bell, block_on, broken, explore, holds},
    shard::{LogWriter, Part, Payload, Shard, stop_at},
};
