//! The workloads: each a file with its cases and one function, generic over the store, that runs a case once.

pub mod clients;
pub mod conflict;
pub mod growth;
pub mod hot;
pub mod latency;
pub mod mixed;
pub mod open;
pub mod pipeline;
pub mod real;
pub mod replay;
pub mod size;
pub mod solo;
pub mod steady;
pub mod transfer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::{
    measure::Spent,
    store::{Result, Setup, Store},
};

/// The workloads, in the order in which they are listed and run, each with what it does.
pub const WORKLOADS: [(&str, &str); 14] = [
    ("solo", "one thread, which waits for each conditional append"),
    ("clients", "many waiting threads, or tasks, each with aggregates of its own"),
    ("pipeline", "one thread or two, tickets in flight, by key and by handle"),
    ("hot", "all threads read, decide and append on one aggregate; and one chains tickets"),
    ("transfer", "two of a million aggregates atomically, Zipf-distributed, tickets in flight"),
    ("conflict", "how long until a loser knows"),
    ("open", "the time to open a store, after a clean close and after a kill"),
    ("latency", "appends at a given share of capacity: durability, and the call alone"),
    ("mixed", "95 % reads of the last ten events, 5 % appends, Zipf-distributed"),
    ("replay", "one long aggregate, and all events, from memory and from cold files"),
    ("size", "bytes on disk an event, memory an aggregate"),
    ("growth", "the cost of an append as the store grows"),
    ("real", "the event logs in a given folder, imported with their conditions"),
    ("steady", "ten minutes at a given share of capacity"),
];

/// All cases of all workloads, in the order of [`WORKLOADS`].
pub fn cases() -> Vec<Case> {
    [
        solo::cases(),
        clients::cases(),
        pipeline::cases(),
        hot::cases(),
        transfer::cases(),
        conflict::cases(),
        open::cases(),
        latency::cases(),
        mixed::cases(),
        replay::cases(),
        size::cases(),
        growth::cases(),
        real::cases(),
        steady::cases(),
    ]
    .concat()
}

/// Runs the round's case once on a store.
pub fn run<S: Store>(round: &Round<'_>) -> Result<Measured> {
    match round.case.workload {
        "solo" => solo::run::<S>(round),
        "clients" => clients::run::<S>(round),
        "pipeline" => pipeline::run::<S>(round),
        "hot" => hot::run::<S>(round),
        "transfer" => transfer::run::<S>(round),
        "conflict" => conflict::run::<S>(round),
        "open" => open::run::<S>(round),
        "latency" => latency::run::<S>(round),
        "mixed" => mixed::run::<S>(round),
        "replay" => replay::run::<S>(round),
        "size" => size::run::<S>(round),
        "growth" => growth::run::<S>(round),
        "real" => real::run::<S>(round),
        "steady" => steady::run::<S>(round),
        other => {
            let names = WORKLOADS.map(|(name, _)| name).join(", ");
            Err(format!("there is no workload {other}: expected one of {names}").into())
        }
    }
}

/// One case of a workload.
#[derive(Debug, Clone)]
pub struct Case {
    /// The workload's name.
    pub workload: &'static str,
    /// The case in few words, unique within the workload: `64 threads`.
    pub name: String,
    /// Its numbers, by name: `threads`, `aggregates`, `payload_bytes`.
    pub parameters: BTreeMap<&'static str, f64>,
    /// Whether a run without arguments includes it.
    pub canonical: bool,
    /// Whether only Annals can run it.
    pub annals_only: bool,
}

impl Case {
    /// A case that is run only when it is asked for, and by every contender.
    pub fn new(
        workload: &'static str,
        name: impl Into<String>,
        parameters: impl IntoIterator<Item = (&'static str, f64)>,
    ) -> Case {
        Case {
            workload,
            name: name.into(),
            parameters: parameters.into_iter().collect(),
            canonical: false,
            annals_only: false,
        }
    }

    /// The same, part of a run without arguments.
    pub fn canonical(self) -> Case {
        Case { canonical: true, ..self }
    }

    /// The same, for Annals alone.
    pub fn annals_only(self) -> Case {
        Case { annals_only: true, ..self }
    }

    /// A number of the case; 0 where it has none by that name.
    pub fn number(&self, name: &str) -> u64 {
        self.parameters.get(name).copied().unwrap_or(0.0) as u64
    }
}

/// What one round of a case is given.
#[derive(Debug)]
pub struct Round<'a> {
    /// The case.
    pub case: &'a Case,
    /// The contender's name, for a workload that starts this program a second time.
    pub contender: &'a str,
    /// An empty folder of this round's own. Whoever called removes it.
    pub dir: &'a Path,
    /// How the store is to be opened.
    pub setup: Setup,
    /// How long to measure, where a workload goes by time.
    pub measure: Duration,
    /// How long to run before that.
    pub warm_up: Duration,
    /// A number that differs from round to round, the same for every contender: the seed of random choices.
    pub seed: u64,
    /// The folder of event logs for `real`, if one was given.
    pub logs: Option<PathBuf>,
    /// The best rate known of this contender, for workloads that offer a share of its capacity.
    pub capacity: Option<f64>,
    /// Only to see that everything works: sizes and times that make a figure mean something may be cut down.
    pub quick: bool,
    /// This process was started by [`Round::child`].
    pub is_child: bool,
}

impl Round<'_> {
    /// A short round, for tests.
    #[cfg(test)]
    pub(crate) fn short<'a>(case: &'a Case, dir: &'a Path) -> Round<'a> {
        Round {
            case,
            contender: "a contender",
            dir,
            setup: Setup::default(),
            measure: Duration::from_millis(20),
            warm_up: Duration::from_millis(5),
            seed: 1,
            logs: None,
            capacity: None,
            quick: true,
            is_child: false,
        }
    }

    /// This program, to run the same case on the same contender and folder in a process of its own, which may then be killed. There
    /// [`Round::is_child`] is set.
    pub fn child(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(CHILD).arg(self.contender).arg(self.case.workload).arg(&self.case.name);
        command.arg(self.dir).arg(self.seed.to_string());
        command.arg(self.setup.blocking.to_string()).arg(self.quick.to_string());
        command.arg(self.measure.as_nanos().to_string());
        Ok(command)
    }
}

/// The first argument of a process that was started by [`Round::child`].
pub const CHILD: &str = "--child";

/// What one round found.
#[derive(Debug, Clone)]
pub struct Measured {
    /// What was counted: commits, events, conflicts.
    pub unit: &'static str,
    /// How many of them.
    pub units: u64,
    /// How long they took, to the last outcome.
    pub elapsed: Duration,
    /// Nanoseconds of an operation.
    pub latency: Option<Histogram<u64>>,
    /// Further histograms by name.
    pub more_latency: BTreeMap<&'static str, Histogram<u64>>,
    /// Processor time of this process and of a server under test.
    pub processor: Option<Duration>,
    /// Bytes that this process and a server under test had the device write.
    pub written_bytes: Option<u64>,
    /// Writes that were rejected.
    pub conflicts: u64,
    /// Further figures by name, the unit last.
    pub figures: BTreeMap<&'static str, f64>,
    /// Whether the store, opened again, held what was acknowledged. A round that is not verified is a failure, not a figure.
    pub verified: bool,
}

impl Measured {
    /// So many units in what was spent on them. Not verified yet.
    pub fn new(unit: &'static str, units: u64, spent: Spent) -> Measured {
        Measured {
            unit,
            units,
            elapsed: spent.elapsed,
            latency: None,
            more_latency: BTreeMap::new(),
            processor: Some(spent.processor),
            written_bytes: Some(spent.written_bytes),
            conflicts: 0,
            figures: BTreeMap::new(),
            verified: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::{annals::Annals, contract, file::LoneFile};

    #[test]
    fn names_of_cases_are_unique_and_belong_to_a_workload() {
        let cases = cases();
        for (place, case) in cases.iter().enumerate() {
            assert!(WORKLOADS.iter().any(|(name, _)| *name == case.workload), "{case:?}");
            let same = |other: &Case| other.workload == case.workload && other.name == case.name;
            assert_eq!(cases.iter().position(same), Some(place), "{case:?}");
        }
    }

    #[test]
    fn rounds_are_verified_on_a_store_with_tickets_and_on_one_that_waits() {
        let ours = ["solo", "clients", "pipeline", "hot", "conflict"];
        let small = |case: &Case| {
            ours.contains(&case.workload)
                && case.number("aggregates") <= 5000
                && case.number("threads") <= 16
        };
        for case in cases().iter().filter(|case| small(case)) {
            let runs: [fn(&Round<'_>) -> Result<Measured>; 2] = [run::<Annals>, run::<LoneFile>];
            for run in runs {
                let dir = contract::folder();
                let measured = run(&Round::short(case, dir.path()));
                let measured = measured.unwrap_or_else(|error| panic!("{case:?}: {error}"));
                assert!(measured.verified && measured.units > 0, "{case:?}: {measured:?}");
            }
        }
    }
}
