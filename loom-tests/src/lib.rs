//! What the models in `tests/` share.
//!
//! Under `RUSTFLAGS="--cfg loom" cargo test --release -p loom-tests` each model runs through all interleavings of two or three
//! threads. Under `RUSTFLAGS="--cfg shuttle" cargo test --release -p loom-tests --test larger` larger ones, the
//! whole engine among them, run through schedules that are drawn. Without either flag this package is empty, so
//! that the ordinary build of the workspace passes it by. Each model stands beside a twin that is broken on
//! purpose and must fail: a model that passes with the ordering weakened or the step left out checks nothing.
//!
//! A thread that *stops* is one that ends between two steps: what it would have done next is never done.

#[cfg(any(loom, shuttle))]
mod bell;
#[cfg(any(loom, shuttle))]
mod checker;
#[cfg(loom)]
mod explore;
#[cfg(shuttle)]
mod history;
#[cfg(shuttle)]
mod hosted;
#[cfg(shuttle)]
mod lying;
#[cfg(shuttle)]
mod patient;
#[cfg(shuttle)]
mod schedules;
#[cfg(any(loom, shuttle))]
mod shard;

#[cfg(any(loom, shuttle))]
pub use {
    annals::internals::sync::fault::Fault,
    bell::{Bell, block_on},
    checker::{UnsafeCell, sync, thread},
    shard::{LogWriter, Part, Payload, Shard},
};
#[cfg(loom)]
pub use {
    explore::{broken, explore, holds},
    shard::stop_at,
};
#[cfg(shuttle)]
pub use {
    history::{History, Kind, audit, numbered},
    hosted::{Handle, Hosted},
    lying::Lying,
    schedules::{broken, broken_engine, engine, holds},
};

/// What a model that failed has said.
#[cfg(any(loom, shuttle))]
fn told(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default().to_owned()
}
