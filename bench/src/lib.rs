//! Annals side by side with what one would use instead, under the same promise, and with the device itself.
//!
//! `cargo run --release -p bench` is the canonical run; `--list` names everything else. The parts, in the order in which data
//! flows through them:
//!
//! * [`cli`]: what was asked for.
//! * [`roster`]: who takes part. [`stores`] are Annals and its peers behind the one contract of [`store`].
//! * [`workload`]: what is done to a store, a file each, generic over the contract; [`measure`] has the clocks and histograms.
//! * [`device`] and [`machine`]: what the ground can do on which all of it runs, and how busy it was with other things.
//! * [`campaign`]: who runs what when, contenders interleaved, and the medians of it as [`results`]; [`share`] says how far
//!   Annals is from the device's limit.
//! * [`report`]: the table, the page and the files; [`compare`]: two runs beside each other.

pub mod campaign;
pub mod cli;
pub mod compare;
pub mod device;
pub mod folder;
pub mod machine;
pub mod measure;
pub mod progress;
pub mod report;
pub mod results;
pub mod roster;
pub mod share;
pub mod store;
pub mod stores;
pub mod workload;

use std::process::ExitCode;

use roster::Roster;

/// The whole program, for a roster of contenders.
pub fn main(roster: Roster) -> ExitCode {
    cli::main(roster)
}
