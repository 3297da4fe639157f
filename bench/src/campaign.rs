//! Who runs what when: contenders take turns within each round, so that a noisy moment meets all of them, and the medians of the rounds are
//! what the results keep.
//!
//! A contender that fails a case is listed with the reason and takes no further part in that case; one that fails in its very first round
//! takes no further part at all. Everybody else goes on.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::{
    folder::Folder,
    measure::histogram,
    progress::Progress,
    results::{self, Run, Spread},
    roster::{Contender, Roster},
    store::Result,
    workload::{Case, Measured, Round},
};

/// The name under which a run's own histogram is kept beside its further ones.
pub const LATENCY: &str = "latency";

/// What is to be run.
#[derive(Debug)]
pub struct Plan {
    /// The cases.
    pub cases: Vec<Case>,
    /// How many rounds of each.
    pub rounds: u32,
    /// How long a round is measured.
    pub measure: Duration,
    /// How long it warms up.
    pub warm_up: Duration,
    /// Only to see that everything works.
    pub quick: bool,
    /// The folder of event logs.
    pub logs: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Who took part.
    pub contenders: Vec<results::Contender>,
    /// The runs.
    pub runs: Vec<Finished>,
    /// What a reader must know.
    pub remarks: Vec<String>,
}

/// A run with the whole of its histograms, by name.
#[derive(Debug)]
pub struct Finished {
    /// The run.
    pub run: Run,
    /// Its histograms; [`LATENCY`] is its own.
    pub histograms: BTreeMap<String, Histogram<u64>>,
}

/// Runs all of it.
pub fn run(
    plan: &Plan,
    roster: &Roster,
    chosen: &dyn Fn(&Contender) -> bool,
    folder: &mut Folder,
    progress: &Progress,
) -> Outcome {
    let mut parties: Vec<Party<'_>> =
        roster.contenders.iter().filter(|one| chosen(one)).map(Party::new).collect();
    let mut outcome = Outcome::default();
    for party in &parties {
        if let Some(missing) = &party.contender.missing {
            progress.note(&format!("{} is missing: {missing}", party.contender.name));
        }
    }
    for case in &plan.cases {
        progress.begin(&format!("{}: {}", case.workload, case.name));
        let mut rounds: Vec<Vec<Measured>> = parties.iter().map(|_| Vec::new()).collect();
        let mut out = BTreeSet::new();
        for number in 0..plan.rounds {
            for (place, party) in parties.iter_mut().enumerate() {
                progress.step();
                if party.is_out || out.contains(&place) || !party.contender.takes(case) {
                    continue;
                }
                progress.detail(&format!(
                    "{}: {}: {}, round {} of {}",
                    case.workload,
                    case.name,
                    party.contender.name,
                    number + 1,
                    plan.rounds
                ));
                match party.take_turn(plan, case, number, folder) {
                    Ok(measured) => rounds[place].push(measured),
                    Err(error) => {
                        out.insert(place);
                        // Half of the rounds are no median.
                        rounds[place].clear();
                        progress.note(&party.failed(case, &error));
                    }
                }
            }
        }
        for (party, rounds) in parties.iter_mut().zip(rounds) {
            if let Some(finished) = summarise(case, &party.contender.name, rounds) {
                party.remember(&finished.run);
                outcome.runs.push(finished);
            }
        }
    }
    outcome.remarks = noise(&outcome.runs);
    outcome.contenders = parties.into_iter().map(Party::listed).collect();
    outcome
}

/// A contender in this campaign.
struct Party<'a> {
    contender: &'a Contender,
    has_run: bool,
    is_out: bool,
    failures: Vec<String>,
    capacity: Option<f64>,
}

impl<'a> Party<'a> {
    fn new(contender: &'a Contender) -> Party<'a> {
        Party {
            contender,
            has_run: false,
            is_out: contender.missing.is_some(),
            failures: contender.missing.iter().cloned().collect(),
            capacity: None,
        }
    }

    /// One round, in a folder that is removed afterwards.
    fn take_turn(
        &mut self,
        plan: &Plan,
        case: &Case,
        number: u32,
        folder: &mut Folder,
    ) -> Result<Measured> {
        let dir = folder.round()?;
        let round = Round {
            case,
            contender: &self.contender.name,
            dir: &dir,
            setup: self.contender.setup,
            measure: plan.measure,
            warm_up: plan.warm_up,
            seed: u64::from(number) + 1,
            logs: plan.logs.clone(),
            capacity: self.capacity,
            quick: plan.quick,
            is_child: false,
        };
        // A store under test may panic. It lived in this round's folder and nobody else knows of it.
        let ran = catch_unwind(AssertUnwindSafe(|| self.contender.run(&round)));
        let removed = fs::remove_dir_all(&dir);
        let measured = ran.unwrap_or_else(|panic| Err(said(&*panic).into()))?;
        removed?;
        if !measured.verified {
            return Err("what it holds was not compared with what was acknowledged".into());
        }
        self.has_run = true;
        Ok(measured)
    }

    fn failed(&mut self, case: &Case, error: &dyn std::fmt::Display) -> String {
        let failure = format!("{}: {}: {error}", case.workload, case.name);
        self.is_out = !self.has_run;
        let note = format!("{} failed: {failure}", self.contender.name);
        self.failures.push(failure);
        note
    }

    /// A rate that it can sustain is what an open loop offers shares of.
    fn remember(&mut self, run: &Run) {
        let sustained = matches!(run.workload.as_str(), "clients" | "pipeline");
        if sustained && run.rate.median > self.capacity.unwrap_or(0.0) {
            self.capacity = Some(run.rate.median);
        }
    }

    fn listed(self) -> results::Contender {
        results::Contender {
            name: self.contender.name.clone(),
            version: self.contender.version.clone(),
            kind: self.contender.kind,
            acknowledges: self.contender.acknowledges.clone(),
            failure: (!self.failures.is_empty()).then(|| self.failures.join("; ")),
        }
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("it panicked: {}", text.unwrap_or("no text"))
}

/// The medians of the rounds; nothing without rounds.
fn summarise(case: &Case, contender: &str, rounds: Vec<Measured>) -> Option<Finished> {
    let unit = rounds.first()?.unit;
    let each = |figure: &dyn Fn(&Measured) -> f64| Spread::of(rounds.iter().map(figure));
    let for_unit = |amount: f64, measured: &Measured| amount / measured.units.max(1) as f64;
    let rate = each(&|round| round.units as f64 / round.elapsed.as_secs_f64().max(1e-9))?;
    let processor_nanos = Spread::of(
        rounds.iter().filter_map(|round| Some(for_unit(round.processor?.as_nanos() as f64, round))),
    );
    let written_bytes = Spread::of(
        rounds.iter().filter_map(|round| Some(for_unit(round.written_bytes? as f64, round))),
    );
    let conflicts = each(&|round| for_unit(round.conflicts as f64, round))?.median;
    let names: BTreeSet<&str> =
        rounds.iter().flat_map(|round| round.figures.keys().copied()).collect();
    let figures = names
        .into_iter()
        .filter_map(|name| {
            let figures = rounds.iter().filter_map(|round| round.figures.get(name).copied());
            Some((name.to_owned(), Spread::of(figures)?))
        })
        .collect();
    let verified = rounds.iter().all(|round| round.verified);
    let histograms = histograms(rounds);
    let mut more_latency: BTreeMap<_, _> = histograms
        .iter()
        .map(|(name, histogram)| (name.clone(), histogram::summary(histogram)))
        .collect();
    let latency = more_latency.remove(LATENCY);
    let run = Run {
        workload: case.workload.to_owned(),
        case: case.name.clone(),
        parameters: case
            .parameters
            .iter()
            .map(|(name, number)| ((*name).to_owned(), *number))
            .collect(),
        contender: contender.to_owned(),
        unit: unit.to_owned(),
        rate,
        latency,
        more_latency,
        processor_nanos,
        written_bytes,
        conflicts,
        device_share: None,
        figures,
        verified,
    };
    Some(Finished { run, histograms })
}

/// The histograms of all rounds together, by name. One without a value is left out.
fn histograms(rounds: Vec<Measured>) -> BTreeMap<String, Histogram<u64>> {
    let mut all: BTreeMap<String, Histogram<u64>> = BTreeMap::new();
    for round in rounds {
        let own = round.latency.map(|latency| (LATENCY, latency));
        for (name, histogram) in own.into_iter().chain(round.more_latency) {
            if histogram.is_empty() {
                continue;
            }
            match all.get_mut(name) {
                // All have the bounds of `histogram::empty`; what lies beyond is counted as the largest.
                Some(sum) => histogram.iter_recorded().for_each(|step| {
                    sum.saturating_record_n(step.value_iterated_to(), step.count_at_value());
                }),
                None => drop(all.insert(name.to_owned(), histogram)),
            }
        }
    }
    all
}

/// From which distance of an extreme from the median a run counts as noisy.
pub const NOISY: f64 = 0.2;

/// Whether the rounds lie so far apart that the figure should be doubted.
pub fn is_noisy(rate: &Spread) -> bool {
    rate.max > rate.median * (1.0 + NOISY) || rate.min < rate.median * (1.0 - NOISY)
}

fn noise(runs: &[Finished]) -> Vec<String> {
    let noisy: Vec<String> = runs
        .iter()
        .filter(|finished| is_noisy(&finished.run.rate))
        .map(|Finished { run, .. }| format!("{} {} {}", run.contender, run.workload, run.case))
        .collect();
    if noisy.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "Noisy, a round is more than {:.0} % off the median: {}.",
        NOISY * 100.0,
        noisy.join("; ")
    )]
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::{measure::Spent, results::Kind};

    fn plan() -> Plan {
        Plan {
            cases: ["one", "two"].map(|name| Case::new("solo", name, [])).to_vec(),
            rounds: 3,
            measure: Duration::from_millis(1),
            warm_up: Duration::ZERO,
            quick: true,
            logs: None,
        }
    }

    fn measured(units: u64) -> Measured {
        let spent = Spent {
            elapsed: Duration::from_secs(1),
            processor: Duration::from_micros(units),
            written_bytes: 100 * units,
        };
        Measured { verified: true, ..Measured::new("commits", units, spent) }
    }

    type Seen = Arc<Mutex<Vec<String>>>;

    fn contender(
        name: &'static str,
        seen: &Seen,
        run: impl Fn(&Round<'_>) -> Result<Measured> + 'static,
    ) -> Contender {
        let seen = Arc::clone(seen);
        Contender::bare(
            name,
            "",
            |_| true,
            move |round| {
                let text = format!("{name} {} {}", round.case.name, round.seed);
                seen.lock().expect("nobody panicked with it").push(text);
                run(round)
            },
        )
    }

    fn run_all(contenders: Vec<Contender>) -> Outcome {
        let roster = Roster { contenders, remarks: Vec::new() };
        let mut folder = Folder::create(std::path::Path::new("/var/tmp"), true).expect("a folder");
        run(&plan(), &roster, &|_| true, &mut folder, &Progress::new(0))
    }

    #[test]
    fn contenders_take_turns_within_each_round() {
        let seen = Seen::default();
        let outcome = run_all(vec![
            contender("A", &seen, |_| Ok(measured(10))),
            contender("B", &seen, |round| Ok(measured(10 * round.seed))),
        ]);
        let seen = seen.lock().expect("nobody panicked with it");
        let begin = ["A one 1", "B one 1", "A one 2", "B one 2", "A one 3", "B one 3", "A two 1"];
        assert_eq!(seen[..7], begin);
        let b = &outcome.runs[1].run;
        assert_eq!(
            (b.contender.as_str(), b.rate),
            ("B", Spread { median: 20.0, min: 10.0, max: 30.0, rounds: 3 })
        );
        assert_eq!(b.processor_nanos.expect("it was counted").median, 1000.0);
        assert_eq!(b.written_bytes.expect("they were counted").median, 100.0);
        assert!(
            outcome.remarks[0].contains("B solo one") && !outcome.remarks[0].contains("A solo")
        );
    }

    #[test]
    fn one_that_fails_is_listed_and_the_rest_goes_on() {
        let seen = Seen::default();
        let outcome = run_all(vec![
            contender("good", &seen, |_| Ok(measured(10))),
            contender("refused", &seen, |_| Err("it does not start".into())),
            contender("late", &seen, |round| match round.seed {
                2 if round.case.name == "one" => panic!("it is broken"),
                _ => Ok(measured(10)),
            }),
            contender("unverified", &seen, |_| Ok(Measured { verified: false, ..measured(10) })),
            contender("missing", &seen, |_| Ok(measured(10))).needs(Err("install it".into())),
        ]);
        let ran = |name: &str| {
            outcome.runs.iter().filter(|finished| finished.run.contender == name).count()
        };
        assert_eq!((ran("good"), ran("refused"), ran("late"), ran("unverified")), (2, 0, 1, 0));
        let failure = |place: usize| outcome.contenders[place].failure.clone().unwrap_or_default();
        assert_eq!(failure(0), "");
        assert!(failure(1).contains("it does not start"));
        assert!(failure(2).contains("solo: one: it panicked: it is broken"), "{}", failure(2));
        assert!(!failure(3).is_empty());
        assert_eq!(failure(4), "install it");
        let seen = seen.lock().expect("nobody panicked with it");
        let tries = |name: &str| seen.iter().filter(|text| text.starts_with(name)).count();
        assert_eq!((tries("refused"), tries("missing")), (1, 0));
        assert!(outcome.contenders.iter().all(|contender| contender.kind == Kind::Bound));
    }

    #[test]
    fn histograms_of_all_rounds_are_one() {
        let with = |nanos| {
            let mut latency = histogram::empty();
            latency.saturating_record(nanos);
            Measured { latency: Some(latency), ..measured(1) }
        };
        let case = Case::new("solo", "one", []);
        let finished = summarise(&case, "A", vec![with(1000), with(2000), with(3000)]);
        let latency = finished.and_then(|finished| finished.run.latency).expect("there is one");
        assert_eq!(latency.count, 3);
        assert!(latency.p50.abs_diff(2000) < 10 && latency.max.abs_diff(3000) < 10, "{latency:?}");
    }
}
