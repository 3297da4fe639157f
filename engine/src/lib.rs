#![doc = include_str!("../../README.md")]
// The models build the protocol alone, so much of what it stands on is unused there.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

mod sync;

pub mod limits;

mod error;
mod event;
mod expect;
mod id;
mod key;
mod options;

mod index;
mod reserve;

#[cfg(not(loom))]
mod aggregate;
#[cfg(not(loom))]
mod append;
#[cfg(not(loom))]
mod disk;
#[cfg(not(loom))]
mod execute;
#[cfg(not(loom))]
mod follow;
#[cfg(not(loom))]
mod format;
#[cfg(not(loom))]
mod identity_file;
#[cfg(not(loom))]
mod log;
#[cfg(not(loom))]
mod read;
#[cfg(not(loom))]
mod recover;
#[cfg(not(loom))]
mod salvage;
#[cfg(not(loom))]
mod shard;
#[cfg(not(loom))]
mod stats;
#[cfg(not(loom))]
mod store;
#[cfg(not(loom))]
mod ticket;
#[cfg(not(loom))]
mod verify;
#[cfg(not(loom))]
mod winner;
#[cfg(not(loom))]
mod writer;

pub use error::{Error, ErrorKind};
pub use event::{Event, Payload};
pub use expect::Expect;
pub use id::Position;
pub use options::{Backend, Durability, Options};

#[cfg(not(loom))]
pub use crate::{
    aggregate::{Aggregate, Aggregates},
    append::Write,
    execute::{Execution, Executor, State, States},
    format::Role,
    read::{
        LogRead, MergedSubscription, PrefixWatch, Read, Recorded, RecordedPart, RecordedWrite,
        Snapshot, Subscription, Watch, WriteSubscription, Writes,
    },
    salvage::{CutOff, DamagedRange, LeftCheckpoint, MissingVersions, Salvage, SetAside, salvage},
    stats::{ShardStats, Stats},
    store::{Limits, Store},
    ticket::{Committed, Ticket},
    verify::{LogEnd, Problem, Verification, verify},
    winner::Winner,
};

/// What the models, the fuzzers and the tests of this workspace reach into. Anything here may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;

/// The guide's examples, compiled and run.
#[cfg(doctest)]
mod guide {
    #![doc = include_str!("../../docs/GUIDE.md")]
}
