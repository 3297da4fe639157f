//! Which run a run of Annals is compared with, by what, and how many times better it is: the one place that the table and the page have it from.

use crate::results::{Kind, Results, Run, Spread};

/// Whether a run's rate was given to it, so that only its latency says anything.
pub fn is_open_loop(run: &Run) -> bool {
    ["latency", "steady"].contains(&run.workload.as_str())
}

/// What a run is judged by: its rate, or, where that was given to it, p99 in nanoseconds.
pub fn figure(run: &Run) -> Option<Spread> {
    if !is_open_loop(run) {
        return Some(run.rate);
    }
    let p99 = run.latency.as_ref()?.p99 as f64;
    // Its histogram is of all rounds together.
    Some(Spread { median: p99, min: p99, max: p99, rounds: 1 })
}

/// What a contender of the results is.
pub fn kind(results: &Results, run: &Run) -> Option<Kind> {
    results.contenders.iter().find(|one| one.name == run.contender).map(|one| one.kind)
}

/// The runs of the same case by contenders of such kinds. One that did not hold what it acknowledged is not among them.
fn same_case<'a>(
    results: &'a Results,
    run: &'a Run,
    kinds: &'a [Kind],
) -> impl Iterator<Item = &'a Run> {
    results.runs.iter().filter(move |other| {
        (&other.workload, &other.case, &other.unit) == (&run.workload, &run.case, &run.unit)
            && other.verified
            && kind(results, other).is_some_and(|kind| kinds.contains(&kind))
    })
}

/// The best peer in the case of a run: the same promise, the highest rate or the shortest p99.
pub fn best_peer<'a>(results: &'a Results, run: &'a Run) -> Option<&'a Run> {
    let peers = same_case(results, run, &[Kind::Embedded, Kind::Grouped, Kind::Server]);
    best(peers)
}

/// The best of those in the case of a run that promise less.
pub fn best_bound<'a>(results: &'a Results, run: &'a Run) -> Option<&'a Run> {
    best(same_case(results, run, &[Kind::Bound]))
}

fn best<'a>(runs: impl Iterator<Item = &'a Run>) -> Option<&'a Run> {
    let known = runs.filter_map(|run| Some((run, figure(run)?.median)));
    let best = known.reduce(|best, one| {
        let (better, worse) = ordered(best.0, one.1, best.1);
        if better > worse { one } else { best }
    });
    best.map(|(run, _)| run)
}

/// How many times better the one is than the other.
pub fn ratio(one: &Run, other: &Run) -> Option<f64> {
    let (above, below) = ordered(one, figure(one)?.median, figure(other)?.median);
    (below > 0.0).then(|| above / below)
}

/// Two figures of such a run, turned so that the first is the larger if the one is better.
fn ordered(run: &Run, one: f64, other: f64) -> (f64, f64) {
    if is_open_loop(run) { (other, one) } else { (one, other) }
}
