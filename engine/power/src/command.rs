//! The command line.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use annals::{Backend, Options};
use annals_power::drill::{Case, Drill, Mode};
use annals_power::faults::Faults;
use annals_power::rig::{FileSystem, tell};
use annals_power::vm::{Machine, TOOLS};
use annals_power::{drives, release, writer};
use clap::{Parser, Subcommand};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The exit code that says: this can't be done on this machine.
const CANT: u8 = 77;

/// Cuts the power under the store, as nearly as one machine can. Needs root, FUSE and loop devices.
#[derive(Debug, Parser)]
#[command(name = "power", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Cuts the power at random instants under a process that writes, and looks at what each cut leaves.
    Drill {
        /// Images to look at; those of cuts during recovery come on top.
        #[arg(long, default_value_t = 100)]
        images: u64,
        /// What the store lies on.
        #[arg(long, value_enum, default_value = "ext4")]
        fs: FileSystem,
        /// What the drive does to what is not synced.
        #[arg(long, value_enum, default_value = "mixed")]
        mode: Mode,
        /// Fixes options, load and sectors. Drawn if it is left out.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Makes drives and file systems fail, fill up, stall and go away under an open store.
    Faults {
        /// What the stores lie on.
        #[arg(long, value_enum, default_value = "ext4")]
        fs: FileSystem,
    },
    /// Cuts the power under a virtual machine, disk cache and all.
    Vm {
        /// Where a Debian kernel package was unpacked (`dpkg-deb -x`).
        #[arg(long)]
        kernel: PathBuf,
        /// How often.
        #[arg(long, default_value_t = 10)]
        cuts: u64,
        /// The disk ignores flushes: fails if nothing is found to be lost.
        #[arg(long)]
        lying: bool,
        /// Fixes options and load. Drawn if it is left out.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Looks again at an image that failed.
    Check {
        /// The image; what is known of it lies beside it.
        image: PathBuf,
    },
    /// Says whether this machine can do it, and lets go of what a killed run has left.
    Able {
        /// The file system that is asked for.
        #[arg(long, value_enum, default_value = "ext4")]
        fs: FileSystem,
    },
    /// Serves drives: what a rig starts.
    #[command(hide = true)]
    Drives {
        /// Where they are mounted.
        mount: PathBuf,
    },
    /// Writes: what a drill starts.
    #[command(hide = true)]
    Writer {
        /// The store.
        store: PathBuf,
    },
}

pub fn main() -> ExitCode {
    let command = Arguments::parse().command;
    if !matches!(command, Command::Drives { .. } | Command::Writer { .. })
        && let Err(error) = release_on_signals()
    {
        tell(&format!("power: {error}"));
        return ExitCode::FAILURE;
    }
    match run(command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failure::Cant(why)) => {
            tell(&format!("this machine can't: {why}"));
            ExitCode::from(CANT)
        }
        Err(Failure::Io(error)) => {
            tell(&format!("power: {error}"));
            ExitCode::FAILURE
        }
    }
}

enum Failure {
    Cant(String),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

fn run(command: Command) -> Result<bool, Failure> {
    match command {
        Command::Drill { images, fs, mode, seed } => {
            able(fs)?;
            let seed = seed.unwrap_or_else(drawn_seed);
            Ok(Drill { images, file_system: fs, mode, seed, uring: has_uring() }.run()?)
        }
        Command::Faults { fs } => {
            able(fs)?;
            let btrfs = able(FileSystem::Btrfs).is_ok();
            Ok(Faults { file_system: fs, uring: has_uring(), btrfs }.run()?)
        }
        Command::Vm { kernel, cuts, lying, seed } => {
            able(FileSystem::Ext4)?;
            all_found(&TOOLS)?;
            let seed = seed.unwrap_or_else(drawn_seed);
            Ok(Machine { kernel, cuts, seed, lying }.run()?)
        }
        Command::Check { image } => Ok(Case::check(&image)?),
        Command::Able { fs } => {
            able(fs)?;
            for left in release::release_left_over()? {
                tell(&format!("let go of what an earlier run left: {}", left.display()));
            }
            Ok(true)
        }
        Command::Drives { mount } => Ok(drives::serve(&mount).map(|()| true)?),
        Command::Writer { store } => Ok(writer::run(&store).map(|()| true)?),
    }
}

fn drawn_seed() -> u64 {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    time.map_or(1, |time| time.as_nanos() as u64 % 1_000_000_000)
}

/// What is missing on this machine, if anything is.
fn able(file_system: FileSystem) -> Result<(), Failure> {
    let missing = |what: &str| Err(Failure::Cant(what.to_owned()));
    if !rustix::process::geteuid().is_root() {
        return missing("it needs root");
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            return missing(&format!("there is no {device}"));
        }
    }
    all_found(&["losetup", "mount", "umount", &format!("mkfs.{}", file_system.name())])
}

/// Programs that must be there.
fn all_found(tools: &[&str]) -> Result<(), Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/sbin".into(), "/usr/sbin".into()]);
    for tool in tools {
        if !folders.iter().any(|folder| folder.join(tool).is_file()) {
            return Err(Failure::Cant(format!("there is no {tool}")));
        }
    }
    Ok(())
}

/// Whether a store gets io_uring here.
fn has_uring() -> bool {
    let folder = tempfile::tempdir_in(release::RIGS);
    let open = |folder: &Path| Options::new().backend(Backend::Uring).open(folder).is_ok();
    let has = folder.is_ok_and(|folder| open(&folder.path().join("store")));
    if !has {
        tell("io_uring can't be had here: the blocking back end alone");
    }
    has
}

/// A signal ends the run, and what it holds of the machine is let go first.
fn release_on_signals() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            release::release_own();
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}
