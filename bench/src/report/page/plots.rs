//! What the page plots: series of points, chosen and grouped here so that the script only draws.
//!
//! A plot has views, between which a reader chooses. A view without a line to draw is left out, and so is a plot without
//! a view.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    report::beside::is_open_loop,
    results::{DeviceRun, Latency, Results, Run, Spread},
};

use super::best_device;

/// The name under which the bare device stands among the contenders.
pub(super) const DEVICE: &str = "bare device";

/// Axes whose values lie this far apart are logarithmic.
const LOG_FROM: f64 = 20.0;

/// A plot and what can be chosen in it.
#[derive(Debug, Serialize)]
pub(super) struct Plot {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) note: &'static str,
    /// What the views differ in.
    choice: &'static str,
    views: Vec<View>,
}

#[derive(Debug, Serialize)]
struct View {
    name: String,
    x: Axis,
    y: Axis,
    series: Vec<Series>,
}

#[derive(Debug, Serialize)]
struct Axis {
    label: String,
    /// How the script writes its values: `percentile`, `nanos`, `rate` or `count`.
    unit: &'static str,
    log: bool,
}

#[derive(Debug, Serialize)]
struct Series {
    contender: String,
    points: Vec<Point>,
}

/// Where a point lies, and between which values its rounds lay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Point(f64, f64, Option<(f64, f64)>);

impl Point {
    fn plain(x: f64, y: f64) -> Point {
        Point(x, y, None)
    }

    fn spread(x: f64, spread: &Spread) -> Point {
        let whisker = (spread.rounds > 1).then_some((spread.min, spread.max));
        Point(x, spread.median, whisker)
    }
}

/// Every plot that these results have data for.
pub(super) fn all(results: &Results) -> Vec<Plot> {
    let plots = [percentiles(results), clients(results), offered(results), size(results)];
    plots.into_iter().filter(|plot| !plot.views.is_empty()).collect()
}

fn percentiles(results: &Results) -> Plot {
    let mut views: Vec<View> = Vec::new();
    let mut add = |name: String, contender: &str, latency: &Latency| {
        let points = curve(latency);
        if points.len() < 2 {
            return;
        }
        let series = Series { contender: contender.to_owned(), points };
        match views.iter_mut().find(|view| view.name == name) {
            Some(view) => view.series.push(series),
            None => views.push(View {
                name,
                x: Axis { label: "percentile".into(), unit: "percentile", log: true },
                y: Axis { label: "latency".into(), unit: "nanos", log: true },
                series: vec![series],
            }),
        }
    };
    for run in results.runs.iter().filter(|run| run.verified) {
        let name = format!("{}, {}", run.workload, run.case);
        if let Some(latency) = &run.latency {
            add(name.clone(), &run.contender, latency);
        }
        for (more, latency) in &run.more_latency {
            add(format!("{name}: {more}"), &run.contender, latency);
        }
    }
    for run in &results.runs {
        if let Some(device) = floor(&results.device, run) {
            let name = format!("{}, {}", run.workload, run.case);
            if let Some(view) = views.iter_mut().find(|view| view.name == name)
                && view.series.iter().all(|series| series.contender != DEVICE)
            {
                let points = curve(&device.latency);
                if points.len() > 1 {
                    view.series.push(Series { contender: DEVICE.into(), points });
                }
            }
        }
    }
    Plot {
        id: "percentiles",
        title: "Latency by percentile",
        note: "How long the slowest operations take: each step to the right is ten times rarer.",
        choice: "Case",
        views,
    }
}

/// The one durable block write that a waiting append can't be faster than.
fn floor<'a>(device: &'a [DeviceRun], run: &Run) -> Option<&'a DeviceRun> {
    let waits = run.workload == "solo" || is_open_loop(run);
    let payload = run.parameters.get("payload_bytes").copied().unwrap_or(0.0);
    // A block also holds the record's own header.
    let fits = |block: u64| payload * 2.0 <= block as f64;
    let block = device.iter().map(|run| run.block_bytes).filter(|block| fits(*block)).min()?;
    (waits && block <= 4096).then(|| best_device(device, "write", block, 1)).flatten()
}

/// The curve with x as how many operations it takes to meet one slower: 10 is 90 %, 100 is 99 %.
fn curve(latency: &Latency) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    let last = latency.count.max(1) as f64;
    for (percentile, nanos) in &latency.curve {
        // The slowest of n operations stands where one in n is.
        let x = if *percentile < 100.0 { 100.0 / (100.0 - percentile) } else { last };
        let point = Point::plain(rounded(x.clamp(1.0, last)), (*nanos).max(1) as f64);
        match points.last_mut() {
            Some(before) if before.0 == point.0 => *before = point,
            _ => points.push(point),
        }
    }
    // Of a run of equal values only its ends are needed to draw it.
    let level = |at: usize| points[at - 1].1 == points[at].1 && points[at].1 == points[at + 1].1;
    let kept = (0..points.len()).filter(|at| *at == 0 || at + 1 == points.len() || !level(*at));
    kept.map(|at| points[at]).collect()
}

/// To four digits: the page need not carry more than a screen shows.
fn rounded(value: f64) -> f64 {
    let unit = 10_f64.powf(value.abs().log10().floor() - 3.0);
    if value == 0.0 { 0.0 } else { (value / unit).round() * unit }
}

fn clients(results: &Results) -> Plot {
    // Each client has aggregates of its own, so that they become more with the clients.
    let groups = groups(results, &["clients", "hot"], &["threads", "aggregates"]);
    let views = groups.into_iter().filter_map(|group| {
        let series = group.series(|run, x| Some(Point::spread(x, &run.rate)));
        let unit = group.runs.first().map_or("", |(_, run)| &run.unit).to_owned();
        view(
            group.label,
            ("waiting threads", "count"),
            (&format!("{unit} a second"), "rate"),
            series,
        )
    });
    Plot {
        id: "clients",
        title: "Throughput against clients",
        note: "What one durable write at a time for each thread adds up to. Bars show the slowest and the fastest round.",
        choice: "Workload",
        views: views.collect(),
    }
}

/// A percentile by name.
type Percentile = (&'static str, fn(&Latency) -> u64);

fn offered(results: &Results) -> Plot {
    let percentiles: [Percentile; 3] =
        [("p99", |l| l.p99), ("p50", |l| l.p50), ("p99.9", |l| l.p999)];
    let mut views = Vec::new();
    for group in
        groups_by(results, &["latency", "steady"], &["offered_rate", "offered_share"], offered_rate)
    {
        for (name, of) in percentiles {
            let series = group.series(|run, x| {
                let latency = run.latency.as_ref().or_else(|| run.more_latency.get("durable"))?;
                Some(Point::plain(x, of(latency) as f64))
            });
            let label = format!("{}: {name}", group.label);
            views.extend(view(label, ("offered a second", "rate"), (name, "nanos"), series));
        }
    }
    Plot {
        id: "offered",
        title: "Latency against offered rate",
        note: "Writes arrive at a fixed rate whether or not the store keeps up; a write's time counts from when it was due.",
        choice: "Percentile",
        views,
    }
}

/// The rate that a run was offered; where only a share of capacity is named, what it then was.
fn offered_rate(run: &Run) -> Option<f64> {
    let named = run.parameters.get("offered_rate").copied();
    let found = run.figures.get("offered_rate").map(|spread| spread.median);
    named.or(found).or_else(|| is_open_loop(run).then_some(run.rate.median))
}

fn size(results: &Results) -> Plot {
    let mut views = Vec::new();
    let sources = [
        (["growth", "pipeline"].as_slice(), "aggregates"),
        (["open", "replay"].as_slice(), "events"),
    ];
    for (workloads, parameter) in sources {
        for group in groups(results, workloads, &[parameter]) {
            let unit = group.runs.first().map_or("", |(_, run)| &run.unit);
            let each = format!("time per {}", unit.trim_end_matches('s'));
            let wall =
                group.series(|run, x| inverse(&run.rate).map(|cost| Point::spread(x, &cost)));
            let spent =
                group.series(|run, x| Some(Point::spread(x, run.processor_nanos.as_ref()?)));
            let cpu = format!("{}: processor time", group.label);
            views.extend(view(group.label.clone(), (parameter, "count"), (&each, "nanos"), wall));
            views.extend(view(cpu, (parameter, "count"), ("processor time", "nanos"), spent));
        }
    }
    Plot {
        id: "size",
        title: "Cost against size of the store",
        note: "What one more costs as the store grows. A level line is a store that does not slow down.",
        choice: "Cost of",
        views,
    }
}

/// Nanoseconds for one, from a rate.
fn inverse(rate: &Spread) -> Option<Spread> {
    (rate.min > 0.0).then(|| Spread {
        median: 1e9 / rate.median,
        min: 1e9 / rate.max,
        max: 1e9 / rate.min,
        rounds: rate.rounds,
    })
}

/// What the cases of a group share: workload, unit, the other numbers as bits, the words of the name.
type Likeness<'a> = (&'a str, &'a str, BTreeMap<&'a str, u64>, String);

/// Cases that differ in one number only.
struct Group<'a> {
    label: String,
    runs: Vec<(f64, &'a Run)>,
}

impl Group<'_> {
    fn series(&self, point: impl Fn(&Run, f64) -> Option<Point>) -> Vec<Series> {
        let mut series: Vec<Series> = Vec::new();
        for (x, run) in &self.runs {
            let Some(point) = point(run, *x) else { continue };
            match series.iter_mut().find(|one| one.contender == run.contender) {
                Some(one) => one.points.push(point),
                None => {
                    series.push(Series { contender: run.contender.clone(), points: vec![point] })
                }
            }
        }
        for one in &mut series {
            one.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        series
    }
}

/// Groups whose x is the first of the parameters that vary.
fn groups<'a>(results: &'a Results, workloads: &[&str], varied: &[&str]) -> Vec<Group<'a>> {
    groups_by(results, workloads, varied, |run| run.parameters.get(*varied.first()?).copied())
}

fn groups_by<'a>(
    results: &'a Results,
    workloads: &[&str],
    varied: &[&str],
    x: impl Fn(&Run) -> Option<f64>,
) -> Vec<Group<'a>> {
    let mut groups: Vec<(Likeness<'_>, Group<'a>)> = Vec::new();
    let ours = |run: &&Run| run.verified && workloads.contains(&run.workload.as_str());
    for run in results.runs.iter().filter(ours) {
        let Some(at) = x(run) else { continue };
        let numbers = run.parameters.iter();
        let others = numbers.filter(|(name, _)| !varied.contains(&name.as_str()));
        let others: BTreeMap<_, _> = others.map(|(name, v)| (name.as_str(), v.to_bits())).collect();
        let key = (run.workload.as_str(), run.unit.as_str(), others, words(&run.case));
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.runs.push((at, run)),
            None => groups.push((key, Group { label: String::new(), runs: vec![(at, run)] })),
        }
    }
    groups.into_iter().map(|(_, group)| Group { label: label(&group.runs), ..group }).collect()
}

/// The words of a case without its numbers, in the singular: what it is, apart from how many.
fn words(case: &str) -> String {
    let words = case.split_whitespace().filter(|word| !word.chars().any(char::is_numeric));
    words.map(|word| word.trim_end_matches(',').trim_end_matches('s')).collect::<Vec<_>>().join(" ")
}

/// The workload, and of the cases' names the parts that they share.
fn label(runs: &[(f64, &Run)]) -> String {
    let Some((_, first)) = runs.first() else { return String::new() };
    let shared = |part: &&str| runs.iter().all(|(_, run)| run.case.split(", ").any(|p| p == *part));
    let parts = first.case.split(", ").filter(shared);
    [first.workload.as_str()].into_iter().chain(parts).collect::<Vec<_>>().join(", ")
}

/// A view of lines: none unless one of them has two points.
fn view(
    name: String,
    x: (&str, &'static str),
    y: (&str, &'static str),
    series: Vec<Series>,
) -> Option<View> {
    if !series.iter().any(|one| one.points.len() > 1) {
        return None;
    }
    let points = || series.iter().flat_map(|one| &one.points);
    let far = |values: &mut dyn Iterator<Item = f64>, from: f64| {
        let (low, high) =
            values.fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        low > 0.0 && high / low >= from
    };
    let x = Axis { label: x.0.to_owned(), unit: x.1, log: far(&mut points().map(|p| p.0), 8.0) };
    let y =
        Axis { label: y.0.to_owned(), unit: y.1, log: far(&mut points().map(|p| p.1), LOG_FROM) };
    Some(View { name, x, y, series })
}
