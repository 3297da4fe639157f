//! The command line.

use std::path::PathBuf;

use annals::Backend;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Trials of the real store on the real disk.
///
/// Exit code 1: a promise was broken. 3: the trial could not be run.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Threads work on the store, and two checkers look at what they were told.
    Histories(Histories),
    /// Checks a history that was saved when it failed.
    Recheck {
        /// The file.
        file: PathBuf,
    },
    /// Kills a process at random moments, opens the store at once, and looks what is back.
    Kill(Kill),
    /// Kills a process at its system calls, one after the other, and makes system calls fail (needs strace).
    Syscalls(Syscalls),
    /// Kills a process with large flushes in flight, and looks whether any of them lands after the store is open again.
    Stragglers(Stragglers),
    /// A process that lives as it is told on its standard input.
    #[command(hide = true)]
    Life,
    /// A process that writes without the store, for comparison.
    #[command(hide = true)]
    PlainWriter {
        /// Where.
        dir: PathBuf,
    },
}

/// Where trials put their stores.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// A directory on a real disk.
    #[arg(long, default_value = "/var/tmp")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Histories {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The seed of the first; the others count on.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many.
    #[arg(long, default_value_t = 500)]
    pub(crate) histories: u64,
    /// How many threads work.
    #[arg(long, default_value_t = 4)]
    pub(crate) threads: u16,
    /// How many operations each does.
    #[arg(long, default_value_t = 500)]
    pub(crate) operations: u32,
    /// How many windows of each history the general checker searches.
    #[arg(long, default_value_t = 1)]
    pub(crate) windows: usize,
    /// How many histories are made at once.
    #[arg(long, default_value_t = 2)]
    pub(crate) at_once: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The seed of the first store; the others count on.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many lives end.
    #[arg(long, default_value_t = 200)]
    pub(crate) kills: u32,
    /// A process that does not keep its promises: the trial must find that.
    #[arg(long)]
    pub(crate) lie: Option<Lie>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, serde::Serialize, serde::Deserialize)]
pub(crate) enum Lie {
    /// It says that a write is durable as soon as it is accepted.
    AckEarly,
}

#[derive(Debug, Args)]
pub(crate) struct Syscalls {
    #[command(flatten)]
    pub(crate) place: Place,
    /// How many points in all.
    #[arg(long, default_value_t = 300)]
    pub(crate) points: usize,
    /// One point alone: the back end, the system call, and which of its calls, as `uring,fdatasync,3`.
    #[arg(long)]
    pub(crate) only: Option<String>,
    /// A process that does not keep its promises: the trial must find that.
    #[arg(long)]
    pub(crate) lie: Option<Lie>,
    /// Kills at points, or errors, or both.
    #[arg(long, value_enum, default_value_t = What::Both)]
    pub(crate) what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum What {
    Kills,
    Errors,
    Both,
}

#[derive(Debug, Args)]
pub(crate) struct Stragglers {
    #[command(flatten)]
    pub(crate) place: Place,
    /// How many processes are killed.
    #[arg(long, default_value_t = 50)]
    pub(crate) rounds: u32,
    /// The seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Without the store: what happens if the lock file is not registered in the ring. Succeeds if a straggler was seen.
    #[arg(long)]
    pub(crate) plain: bool,
}

/// The back ends that can be had here.
pub(crate) fn backends() -> Vec<Backend> {
    let dir = tempfile::tempdir_in("/var/tmp");
    let options = annals::Options::new().backend(Backend::Uring).segment_bytes(1 << 20);
    match dir.map(|dir| options.open(dir.path()).is_ok()) {
        Ok(true) => vec![Backend::Uring, Backend::Blocking],
        _ => vec![Backend::Blocking],
    }
}
