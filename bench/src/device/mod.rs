//! What the device itself does: loops that write, or read, with nothing above them.
//!
//! They write as the engine does: whole aligned blocks past the system's cache, into a file whose blocks were written before, one
//! after the other, each durable before it counts (`RWF_DSYNC`, or a write and `fdatasync`: both are measured, because which is faster
//! differs from drive to drive). There is a loop over io_uring and one of threads that block; the reference that shares are
//! taken of is the fastest of all. Every method has its turn in every round, so that a noisy moment meets all of them.
//!
//! Reads come past the system's cache from the same file. A cache below the system, in the drive or in a host, can't be emptied
//! and may answer them.

mod blocking;
mod fio;
mod target;
mod uring;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

pub use target::{Buffer, Target};
pub use uring::write_with;

use crate::{
    measure::histogram,
    results::{DeviceRun, Spread},
    store::Result,
};

/// What a loop does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Writes, each with `RWF_DSYNC`.
    WriteDsync,
    /// Writes, each followed by `fdatasync`.
    WriteThenSync,
    /// Reads.
    Read,
}

impl Action {
    fn direction(self) -> &'static str {
        if self == Action::Read { "read" } else { "write" }
    }

    fn durability(self) -> &'static str {
        match self {
            Action::WriteDsync => "RWF_DSYNC",
            Action::WriteThenSync => "fdatasync",
            Action::Read => "",
        }
    }
}

/// One loop's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// What it does.
    pub action: Action,
    /// How many requests it keeps in flight.
    pub depth: usize,
    /// The size of each.
    pub bytes: usize,
}

/// What one turn of a loop did.
#[derive(Debug)]
pub struct Turn {
    /// Requests that were completed.
    pub requests: u64,
    /// From the first request's start to the last one's end.
    pub elapsed: Duration,
    /// Nanoseconds of each, from its submission until it was seen to be complete.
    pub latency: Histogram<u64>,
}

/// What was found out.
#[derive(Debug)]
pub struct Survey {
    /// The measurements.
    pub runs: Vec<DeviceRun>,
    /// What a reader must know about them.
    pub remarks: Vec<String>,
}

/// How long a survey takes.
struct Plan {
    rounds: u32,
    file_bytes: u64,
    /// Of one turn.
    turn: Duration,
    /// Of one turn of the largest requests, of which few fit into a turn.
    large_turn: Duration,
    /// Of one turn of the smallest block at depth 1, whose highest percentiles others are compared with.
    long_turn: Duration,
}

impl Plan {
    fn turn_of(&self, load: Load, block: usize) -> Duration {
        match load {
            Load { depth: 1, bytes, .. } if bytes == SIZES[0].max(block) => self.long_turn,
            Load { bytes, .. } if bytes >= SIZES[2] => self.large_turn,
            _ => self.turn,
        }
    }
}

const CANONICAL: Plan = Plan {
    rounds: 3,
    file_bytes: 256 << 20,
    turn: Duration::from_millis(50),
    large_turn: Duration::from_millis(120),
    long_turn: Duration::from_millis(350),
};

const QUICK: Plan = Plan {
    rounds: 1,
    file_bytes: 32 << 20,
    turn: Duration::from_millis(15),
    large_turn: Duration::from_millis(15),
    long_turn: Duration::from_millis(50),
};

const DEPTHS: [usize; 3] = [1, 4, 16];
const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

/// Which loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Method {
    Uring,
    Blocking,
    Fio,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::Uring => "io_uring",
            Method::Blocking => "blocking",
            Method::Fio => "fio",
        }
    }
}

/// One row: a loop and its work, and what its turns did.
struct Row {
    method: Method,
    load: Load,
    rates: Vec<f64>,
    latency: Histogram<u64>,
    /// `fio` gives percentiles, not its histogram: the last round's.
    summary: Option<crate::results::Latency>,
    failure: Option<String>,
}

/// Measures the device under `dir`. `progress` is told what is being done.
///
/// # Errors
///
/// If the file to measure with can't be made, or a blocking loop fails. A ring that can't be had is a remark.
pub fn measure(dir: &Path, quick: bool, progress: &dyn Fn(&str)) -> Result<Survey> {
    let plan = if quick { QUICK } else { CANONICAL };
    let probe = engine(&dir.join("device-probe"))?;
    let path = dir.join("device");
    progress("device: preparing a file");
    let target = Target::create(&path, plan.file_bytes)?;
    let mut remarks = vec![format!(
        "The engine writes blocks of {} bytes here, durable by {}, as its probe chose.",
        probe.block_bytes, probe.durability
    )];
    if !target.is_direct() {
        remarks.push("The file system has no direct I/O: the device was measured through the system's cache.".to_owned());
    }
    let mut rows = rows(probe.block_bytes as usize, fio::version().is_some());
    let mut offset = 0;
    for round in 0..plan.rounds {
        progress(&format!("device: round {} of {}", round + 1, plan.rounds));
        for row in rows.iter_mut().filter(|row| row.failure.is_none()) {
            let duration = plan.turn_of(row.load, probe.block_bytes as usize);
            row.take_turn(&target, duration, &mut offset)?;
        }
    }
    drop(target);
    std::fs::remove_file(&path)?;
    for failure in failures(&rows) {
        remarks.push(failure);
    }
    let runs: Vec<DeviceRun> = rows.into_iter().filter_map(Row::finish).collect();
    remarks.extend(compare_with_fio(&runs, fio::version().as_deref()));
    Ok(Survey { runs, remarks })
}

/// The fastest of both loops and both durability methods: what a share of the device's limit is a share of.
#[must_use]
pub fn reference<'a>(
    runs: &'a [DeviceRun],
    direction: &str,
    bytes: u64,
    depth: u32,
) -> Option<&'a DeviceRun> {
    runs.iter()
        .filter(|run| {
            run.method != Method::Fio.name()
                && (run.direction.as_str(), run.block_bytes, run.depth) == (direction, bytes, depth)
        })
        .max_by(|a, b| a.rate.median.total_cmp(&b.rate.median))
}

/// What the engine chose for this folder.
fn engine(dir: &Path) -> Result<annals::Stats> {
    let store = annals::Store::open(dir)?;
    let stats = store.stats();
    store.close()?;
    drop(store);
    std::fs::remove_dir_all(dir)?;
    Ok(stats)
}

fn rows(block: usize, with_fio: bool) -> Vec<Row> {
    let mut sizes = SIZES.map(|bytes| bytes.max(block)).to_vec();
    sizes.dedup();
    let mut rows = Vec::new();
    let mut add = |method, action, bytes, depth| {
        rows.push(Row {
            method,
            load: Load { action, depth, bytes },
            rates: Vec::new(),
            latency: histogram::empty(),
            summary: None,
            failure: None,
        });
    };
    for bytes in sizes {
        for depth in DEPTHS {
            for action in [Action::WriteDsync, Action::WriteThenSync] {
                for method in [Method::Uring, Method::Blocking] {
                    add(method, action, bytes, depth);
                }
            }
        }
    }
    for depth in DEPTHS {
        for method in [Method::Uring, Method::Blocking] {
            add(method, Action::Read, SIZES[2], depth);
        }
    }
    if with_fio {
        add(Method::Fio, Action::WriteDsync, SIZES[0].max(block), 1);
        add(Method::Fio, Action::WriteDsync, SIZES[2], 4);
    }
    rows
}

impl Row {
    fn take_turn(&mut self, target: &Target, duration: Duration, offset: &mut u64) -> Result<()> {
        let turn = match self.method {
            Method::Uring => uring::turn(target, self.load, duration, offset),
            Method::Blocking => blocking::turn(target, self.load, duration, offset),
            Method::Fio => return self.take_turn_of_fio(target, duration.max(FIO_TURN_MIN)),
        };
        match turn {
            Ok(turn) => {
                self.rates.push(turn.requests as f64 / turn.elapsed.as_secs_f64());
                self.latency.add(turn.latency)?;
                Ok(())
            }
            // Containers often forbid rings: then the blocking loop is what there is.
            Err(error) if self.method == Method::Uring => {
                self.failure = Some(error.to_string());
                Ok(())
            }
            Err(error) => Err(format!(
                "the device can't be measured under {}: {} of {} bytes failed: {error}",
                target.path().display(),
                self.load.action.direction(),
                self.load.bytes
            )
            .into()),
        }
    }

    fn take_turn_of_fio(&mut self, target: &Target, duration: Duration) -> Result<()> {
        match fio::turn(target, self.load, duration) {
            Ok((rate, latency)) => {
                self.rates.push(rate);
                self.summary = Some(latency);
            }
            Err(error) => self.failure = Some(error.to_string()),
        }
        Ok(())
    }

    fn finish(self) -> Option<DeviceRun> {
        let rate = Spread::of(self.rates)?;
        Some(DeviceRun {
            method: self.method.name().to_owned(),
            direction: self.load.action.direction().to_owned(),
            durability: self.load.action.durability().to_owned(),
            depth: self.load.depth as u32,
            block_bytes: self.load.bytes as u64,
            rate,
            latency: self.summary.unwrap_or_else(|| histogram::summary(&self.latency)),
        })
    }
}

/// `fio` takes some time to get going.
const FIO_TURN_MIN: Duration = Duration::from_millis(400);

/// One remark for each method that failed, not one for each of its rows.
fn failures(rows: &[Row]) -> Vec<String> {
    [Method::Uring, Method::Fio]
        .iter()
        .filter_map(|method| {
            let row = rows.iter().find(|row| row.method == *method && row.failure.is_some())?;
            let reason = row.failure.as_deref().unwrap_or_default();
            Some(format!(
                "The device was not measured, or not wholly, with {}: {reason}",
                method.name()
            ))
        })
        .collect()
}

/// How far `fio` and our ring may be apart.
const FIO_DIFFERENCE_MAX: f64 = 0.10;

/// Whether `fio` finds what the ring's loop found at the same durability, size and depth.
fn compare_with_fio(runs: &[DeviceRun], version: Option<&str>) -> Vec<String> {
    let Some(version) = version else {
        return vec!["fio is not installed: the loops were not compared with it.".to_owned()];
    };
    let same = |a: &DeviceRun, b: &DeviceRun| {
        (&a.direction, &a.durability, a.depth, a.block_bytes)
            == (&b.direction, &b.durability, b.depth, b.block_bytes)
    };
    let pairs = runs.iter().filter(|run| run.method == Method::Fio.name()).filter_map(|fio| {
        let ours = runs.iter().find(|run| run.method == Method::Uring.name() && same(run, fio))?;
        Some((ours, fio))
    });
    pairs
        .map(|(ours, fio)| {
            let difference = ours.rate.median / fio.rate.median - 1.0;
            let verdict = if difference.abs() > FIO_DIFFERENCE_MAX {
                "more than 10 % apart"
            } else {
                "within 10 %"
            };
            format!(
                "{version}, {} KiB at depth {}: {:.0} a second, our io_uring loop {:.0}: {verdict} ({:+.1} %).",
                fio.block_bytes >> 10,
                fio.depth,
                fio.rate.median,
                ours.rate.median,
                100.0 * difference
            )
        })
        .collect()
}

/// A clock for a loop: whether its turn is over.
struct Clock {
    begin: Instant,
    end: Instant,
}

impl Clock {
    fn start(duration: Duration) -> Clock {
        let begin = Instant::now();
        Clock { begin, end: begin + duration }
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.end
    }
}

fn nanos(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(method: &str, durability: &str, depth: u32, rate: f64) -> DeviceRun {
        DeviceRun {
            method: method.to_owned(),
            direction: "write".to_owned(),
            durability: durability.to_owned(),
            depth,
            block_bytes: 4096,
            rate: Spread { median: rate, min: rate, max: rate, rounds: 1 },
            latency: crate::results::Latency::default(),
        }
    }

    #[test]
    fn the_reference_is_the_fastest_and_never_fio() {
        let runs = [
            run("io_uring", "RWF_DSYNC", 1, 100.0),
            run("blocking", "fdatasync", 1, 120.0),
            run("blocking", "RWF_DSYNC", 1, 90.0),
            run("fio", "RWF_DSYNC", 1, 500.0),
            run("io_uring", "RWF_DSYNC", 4, 400.0),
        ];
        assert_eq!(reference(&runs, "write", 4096, 1).unwrap().rate.median, 120.0);
        assert_eq!(reference(&runs, "write", 4096, 4).unwrap().rate.median, 400.0);
        assert!(reference(&runs, "write", 4096, 16).is_none());
        assert!(reference(&runs, "read", 4096, 1).is_none());
    }

    #[test]
    fn a_difference_from_fio_is_told() {
        let compare = |ours, fio| {
            let runs = [
                run("io_uring", "RWF_DSYNC", 1, ours),
                run("fio", "RWF_DSYNC", 1, fio),
                run("io_uring", "fdatasync", 1, 1.0),
            ];
            compare_with_fio(&runs, Some("fio-3"))
        };
        assert!(compare(100.0, 112.0)[0].contains("more than 10 %"));
        assert!(compare(112.0, 100.0)[0].contains("more than 10 %"));
        assert!(compare(100.0, 105.0)[0].contains("within"));
        assert!(compare_with_fio(&[], None)[0].contains("not installed"));
    }

    #[test]
    fn a_survey_has_every_row() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let survey = measure(dir.path(), true, &|_| ()).unwrap();
        for depth in [1, 4, 16] {
            for bytes in [4096, 65_536, 1 << 20] {
                let run = reference(&survey.runs, "write", bytes, depth).unwrap();
                assert!(run.rate.median > 0.0 && run.latency.p50 > 0, "{run:?}");
            }
        }
        assert!(reference(&survey.runs, "read", 1 << 20, 4).unwrap().latency.count > 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
