//! What a run finds out: the content of `results.json`, from which the table, the page and a comparison are made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The results of one run of the benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// The form of this file: [`Results::FORM`].
    pub form: u32,
    /// When it began, in UTC, as `2026-01-31T12:00:00Z`.
    pub began: String,
    /// How long it took.
    pub seconds: f64,
    /// The command that was given.
    pub command: String,
    /// Where it ran.
    pub machine: Machine,
    /// What the device does, measured in the same run.
    pub device: Vec<DeviceRun>,
    /// Who took part, also those that could not.
    pub contenders: Vec<Contender>,
    /// What was measured.
    pub runs: Vec<Run>,
    /// What a reader must know: noise, a contender that failed, what can't be installed.
    pub remarks: Vec<String>,
}

impl Results {
    /// The form that this program writes and reads.
    pub const FORM: u32 = 1;
}

/// The machine that a run used, and how busy it was with other things.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many logical processors this process may use.
    pub processors: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// The kernel's name and release.
    pub kernel: String,
    /// The compiler that built the benchmark.
    pub compiler: String,
    /// The version of Annals.
    pub annals: String,
    /// The file system of the folder.
    pub file_system: String,
    /// The block device under it.
    pub block_device: String,
    /// The load average of one minute at the start.
    pub load_before: f64,
    /// And at the end.
    pub load_after: f64,
    /// The share of processor time that went to anyone but this process and what it started while it ran, or was stolen by the host.
    pub foreign_share: f64,
}

/// One measurement of the bare device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceRun {
    /// `io_uring`, `blocking` or `fio`.
    pub method: String,
    /// `write` (durable, as the engine does it) or `read`.
    pub direction: String,
    /// `RWF_DSYNC` or `fdatasync`; empty for a read.
    pub durability: String,
    /// How many requests in flight.
    pub depth: u32,
    /// The size of each request.
    pub block_bytes: u64,
    /// Requests a second.
    pub rate: Spread,
    /// Nanoseconds of a request.
    pub latency: Latency,
}

/// A store that takes part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Contender {
    /// Its name in every run: `annals`, `fjall`, `fjall + group`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is.
    pub kind: Kind,
    /// What it does before it acknowledges.
    pub acknowledges: String,
    /// Why it did not take part or did not finish.
    pub failure: Option<String>,
}

/// What a contender is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Annals itself.
    Annals,
    /// An embedded store as it comes.
    Embedded,
    /// An embedded store behind a group-commit thread.
    Grouped,
    /// A server, in a process of its own.
    Server,
    /// Something that promises less, as an upper bound: never the best peer.
    Bound,
}

/// One case of one workload on one contender: all its rounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// The workload's name.
    pub workload: String,
    /// Which case of it, in few words: `64 threads`.
    pub case: String,
    /// The numbers of the case, for plots: `threads`, `aggregates`, `payload_bytes`, `offered_rate`.
    pub parameters: BTreeMap<String, f64>,
    /// The contender's name.
    pub contender: String,
    /// What the rate counts: `commits`, `events`, `opens`, `conflicts`.
    pub unit: String,
    /// Units a second.
    pub rate: Spread,
    /// Nanoseconds of an operation, all rounds together. What an operation is, the workload says.
    pub latency: Option<Latency>,
    /// Further histograms by name: `submit`, the call alone.
    pub more_latency: BTreeMap<String, Latency>,
    /// Processor time of this process, and of a server it started, for one unit, in nanoseconds.
    pub processor_nanos: Option<Spread>,
    /// Bytes that went to the device for one unit.
    pub written_bytes: Option<Spread>,
    /// Writes that were rejected, for one unit.
    pub conflicts: f64,
    /// The share of the device's limit for this case, if there is one: 1 is all of it.
    pub device_share: Option<f64>,
    /// Further figures by name, the unit last: `memory_bytes_per_aggregate`.
    pub figures: BTreeMap<String, Spread>,
    /// After each round the store was opened again and what it held was counted: whether it held what was acknowledged.
    pub verified: bool,
}

/// The median of the rounds, with the extremes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many rounds.
    pub rounds: u32,
}

impl Spread {
    /// Of the rounds' figures; none of an empty list.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            figures[middle]
        } else {
            (figures[middle - 1] + figures[middle]) / 2.0
        };
        Some(Spread { median, min, max, rounds: figures.len() as u32 })
    }

    /// Half the distance of the extremes, as a share of the median: how much to believe.
    pub fn noise(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.max - self.min) / 2.0 / self.median.abs() }
    }
}

/// A histogram's summary, in nanoseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Latency {
    /// How many operations.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// The smallest.
    pub min: u64,
    /// Half are at most this.
    pub p50: u64,
    /// 90 % are.
    pub p90: u64,
    /// 99 % are.
    pub p99: u64,
    /// 99.9 % are.
    pub p999: u64,
    /// The largest.
    pub max: u64,
    /// The curve, for the plot: pairs of a percentile (0 to 100) and nanoseconds, denser towards 100.
    pub curve: Vec<(f64, u64)>,
    /// The `.hgrm` file with the whole of it, beside the results.
    pub file: Option<String>,
}
