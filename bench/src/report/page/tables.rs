//! What the page tabulates: Annals beside the best of the others, and every case with all who ran it.

use crate::{
    campaign::is_noisy,
    report::{beside, units},
    results::{Kind, Latency, Results, Run, Spread},
    workload::WORKLOADS,
};

use super::{Styles, colour};

/// A line of the first table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) workload: String,
    pub(super) case: String,
    /// What is compared: `commits`, `p99`.
    pub(super) what: String,
    pub(super) annals: Option<Value>,
    pub(super) peer: Option<(String, Value)>,
    /// How many times better Annals is, and whether it is better at all.
    pub(super) ratio: Option<(String, bool)>,
    pub(super) share: Option<String>,
}

/// A figure, and what its rounds say about it.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) text: String,
    /// The smallest and the largest; empty where there was one round.
    pub(super) range: String,
    /// Half their distance, as `±3 %`; empty where there was one round.
    pub(super) noise: String,
    pub(super) noisy: bool,
    /// The variable that holds the contender's colour.
    pub(super) colour: String,
    /// How long the bar is, and where its whisker begins and ends, in hundredths of the longest.
    pub(super) bar: [String; 3],
}

impl Value {
    fn new(spread: &Spread, form: fn(f64) -> String, colour: String, longest: f64) -> Value {
        let of = |value: f64| {
            let share = if longest > 0.0 { 100.0 * value / longest } else { 0.0 };
            format!("{:.2}", share.clamp(0.0, 100.0))
        };
        let several = |text: String| if spread.rounds > 1 { text } else { String::new() };
        Value {
            text: form(spread.median),
            range: several(format!("{} – {}", form(spread.min), form(spread.max))),
            noise: several(format!("±{:.0} %", 100.0 * spread.noise())),
            noisy: is_noisy(spread),
            colour,
            bar: [of(spread.median), of(spread.min), of(spread.max)],
        }
    }
}

/// A workload and its cases.
#[derive(Debug)]
pub(super) struct Workload<'a> {
    pub(super) name: &'a str,
    pub(super) about: &'static str,
    pub(super) cases: Vec<Case<'a>>,
}

/// A case with all who ran it. A column that none of them fills is left out.
#[derive(Debug)]
pub(super) struct Case<'a> {
    pub(super) name: &'a str,
    pub(super) unit: &'a str,
    pub(super) columns: Vec<&'static str>,
    pub(super) lines: Vec<Line>,
}

/// A contender in a case, or a further histogram of it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) contender: String,
    /// Which further histogram; empty for the main line.
    pub(super) part: String,
    pub(super) ours: bool,
    pub(super) verified: bool,
    pub(super) rate: Option<Value>,
    /// As many as the case has columns.
    pub(super) cells: Vec<String>,
    /// Further figures: name, median, range.
    pub(super) figures: Vec<(String, String, String)>,
}

/// Cases in the order in which they ran, each with its runs.
fn cases(results: &Results) -> Vec<Vec<&Run>> {
    let mut cases: Vec<Vec<&Run>> = Vec::new();
    for run in &results.runs {
        let same = |runs: &&mut Vec<&Run>| {
            runs.first().is_some_and(|a| a.workload == run.workload && a.case == run.case)
        };
        match cases.iter_mut().find(same) {
            Some(runs) => runs.push(run),
            None => cases.push(vec![run]),
        }
    }
    cases
}

/// Annals beside the best peer, a row for each case.
pub(super) fn rows(results: &Results, styles: &Styles) -> Vec<Row> {
    cases(results).iter().filter_map(|runs| row(results, styles, runs)).collect()
}

fn row(results: &Results, styles: &Styles, runs: &[&Run]) -> Option<Row> {
    let first = runs.first()?;
    // The first Annals in the list is the one with default options.
    let default = results.contenders.iter().find(|one| one.kind == Kind::Annals);
    let annals = runs
        .iter()
        .copied()
        .find(|run| run.verified && default.is_some_and(|one| one.name == run.contender));
    let peer = beside::best_peer(results, first);
    annals.or(peer)?;
    let shown = || [annals, peer].into_iter().flatten();
    let longest = shown().filter_map(beside::figure).map(|spread| spread.max).fold(0.0, f64::max);
    let is_time = beside::is_open_loop(first);
    let form: fn(f64) -> String = if is_time { units::nanos } else { units::rate };
    let value = |run: &Run| {
        let colour = colour(styles, &run.contender);
        let mut value = Value::new(&beside::figure(run)?, form, colour, longest);
        if is_time {
            value.text = format!("{} at {}", value.text, units::rate(run.rate.median));
        }
        Some(value)
    };
    Some(Row {
        workload: first.workload.clone(),
        case: first.case.clone(),
        what: if is_time { "p99".to_owned() } else { first.unit.clone() },
        annals: annals.and_then(value),
        peer: peer.and_then(|run| Some((run.contender.clone(), value(run)?))),
        ratio: annals
            .zip(peer)
            .and_then(|(ours, theirs)| beside::ratio(ours, theirs))
            .map(|times| (units::ratio(times), times >= 1.0)),
        share: annals.and_then(|run| run.device_share).map(units::percent),
    })
}

/// Every workload with every case and every contender in it.
pub(super) fn workloads<'a>(results: &'a Results, styles: &Styles) -> Vec<Workload<'a>> {
    let mut workloads: Vec<Workload<'a>> = Vec::new();
    for runs in cases(results) {
        let Some(first) = runs.first() else { continue };
        let case = case(results, styles, &runs, &first.case, &first.unit);
        match workloads.iter_mut().find(|workload| workload.name == first.workload) {
            Some(workload) => workload.cases.push(case),
            None => workloads.push(Workload {
                name: &first.workload,
                about: WORKLOADS
                    .iter()
                    .find(|(name, _)| *name == first.workload)
                    .map_or("", |(_, about)| about),
                cases: vec![case],
            }),
        }
    }
    workloads
}

fn case<'a>(
    results: &Results,
    styles: &Styles,
    runs: &[&Run],
    name: &'a str,
    unit: &'a str,
) -> Case<'a> {
    let longest = runs.iter().map(|run| run.rate.max).fold(0.0, f64::max);
    let mut lines = Vec::new();
    for run in runs {
        let ours = beside::kind(results, run) == Some(Kind::Annals);
        let figures = run.figures.iter().map(|(name, spread)| {
            let (words, median) = units::figure(name, spread.median);
            let range = if spread.max > spread.min {
                let ends = [spread.min, spread.max].map(|end| units::figure(name, end).1);
                ends.join(" – ")
            } else {
                String::new()
            };
            (words, median, range)
        });
        let rate = Value::new(&run.rate, units::rate, colour(styles, &run.contender), longest);
        lines.push(Line {
            contender: run.contender.clone(),
            part: String::new(),
            ours,
            verified: run.verified,
            rate: Some(rate),
            cells: cells(run.latency.as_ref(), Some(run)),
            figures: figures.collect(),
        });
        lines.extend(run.more_latency.iter().map(|(part, latency)| Line {
            contender: run.contender.clone(),
            part: part.replace('_', " "),
            ours,
            verified: run.verified,
            rate: None,
            cells: cells(Some(latency), None),
            figures: Vec::new(),
        }));
    }
    let filled: Vec<bool> =
        (0..COLUMNS.len()).map(|at| lines.iter().any(|line| !line.cells[at].is_empty())).collect();
    for line in &mut lines {
        let mut at = filled.iter();
        line.cells.retain(|_| at.next() == Some(&true));
    }
    let columns = COLUMNS.iter().zip(&filled).filter(|(_, filled)| **filled);
    Case { name, unit, columns: columns.map(|(column, _)| *column).collect(), lines }
}

/// The columns after the rate, for one unit of it where it is not a latency.
const COLUMNS: [&str; 9] =
    ["p50", "p90", "p99", "p99.9", "max", "processor", "written", "conflicts", "of the device"];

fn cells(latency: Option<&Latency>, run: Option<&Run>) -> Vec<String> {
    let nanos = |of: fn(&Latency) -> u64| {
        latency.filter(|l| l.count > 0).map_or(String::new(), |l| units::nanos(of(l) as f64))
    };
    let spread = |spread: Option<Spread>, form: fn(f64) -> String| {
        spread.map_or(String::new(), |spread| form(spread.median))
    };
    let conflicts = run.map_or(0.0, |run| run.conflicts);
    let share = run.and_then(|run| run.device_share);
    vec![
        nanos(|l| l.p50),
        nanos(|l| l.p90),
        nanos(|l| l.p99),
        nanos(|l| l.p999),
        nanos(|l| l.max),
        spread(run.and_then(|run| run.processor_nanos), units::nanos),
        spread(run.and_then(|run| run.written_bytes), units::bytes),
        if conflicts > 0.0 { units::number(conflicts) } else { String::new() },
        share.map_or(String::new(), units::percent),
    ]
}
