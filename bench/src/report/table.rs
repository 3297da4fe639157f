//! The table for the terminal: what Annals does beside the best peer. The canonical run, and each suite alone, fits a screen of a hundred
//! columns.

use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, presets,
};

use crate::{
    campaign::is_noisy,
    report::{beside, units},
    results::{Kind, Results, Run},
};

/// What the columns say. One that nobody fills is left out.
const COLUMNS: [&str; 8] = ["", "Annals", "p50", "best peer", "", "ratio", "device", "also"];

/// From which share of foreign work on the processors figures should be doubted.
pub const FOREIGN_MOST: f64 = 0.1;

/// Renders the table and what must be said below it.
pub fn render(results: &Results) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    // A cell that was broken in two would be harder to read than a table that is too wide.
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(COLUMNS);
    let mut above = None;
    let mut filled = [false; COLUMNS.len()];
    for run in results.runs.iter().filter(|run| beside::kind(results, run) == Some(Kind::Annals)) {
        let row = row(results, run, above);
        filled.iter_mut().zip(&row).for_each(|(filled, cell)| *filled |= !cell.is_empty());
        table.add_row(row.map(Cell::new));
        above = Some(run);
    }
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if matches!(number, 1 | 2 | 4 | 5 | 6) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if !filled[number] {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
    let mut text = table.to_string();
    text.push('\n');
    for line in below(results) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn row(results: &Results, run: &Run, above: Option<&Run>) -> [String; COLUMNS.len()] {
    let best = beside::best_peer(results, run);
    let row = [
        Some(name(run, above)),
        figure(run),
        run.latency.as_ref().map(|latency| units::nanos(latency.p50 as f64)),
        best.map(|best| best.contender.clone()),
        best.and_then(figure),
        best.and_then(|best| beside::ratio(run, best)).map(units::ratio),
        run.device_share.map(|share| format!("{:.0} %", share * 100.0)),
        also(results, run),
    ];
    row.map(Option::unwrap_or_default)
}

/// What was run. What the row above says already is left out.
fn name(run: &Run, above: Option<&Run>) -> String {
    let workload = above.filter(|above| above.workload == run.workload);
    let case = workload.filter(|above| above.case == run.case);
    let mut parts = Vec::new();
    parts.push(if workload.is_some() { " " } else { &run.workload });
    parts.push(if case.is_some() { " " } else { &run.case });
    parts.extend(run.contender.strip_prefix("annals").map(str::trim).filter(|it| !it.is_empty()));
    parts.join(" ")
}

/// What a run is judged by.
fn figure(run: &Run) -> Option<String> {
    let figure = beside::figure(run)?;
    let noisy = if is_noisy(&figure) { "~" } else { "" };
    Some(if beside::is_open_loop(run) {
        format!("p99 {}", units::nanos(figure.median))
    } else {
        format!("{noisy}{}", units::number(figure.median))
    })
}

/// A ratio that no other column has.
fn also(results: &Results, run: &Run) -> Option<String> {
    let ratio = |name: &str| run.figures.get(name).map(|figure| figure.median);
    let bound = || beside::ratio(run, beside::best_bound(results, run)?);
    let rate = || {
        let peer = beside::best_peer(results, run).filter(|_| beside::is_open_loop(run))?;
        Some(run.rate.median / peer.rate.median).filter(|ratio| ratio.is_finite())
    };
    let own = ratio("own_ratio").map(|ratio| ("own", ratio));
    let (name, ratio) = own
        .or_else(|| Some(("cpu", ratio("processor_ratio")?)))
        .or_else(|| Some(("rate", rate()?)))
        .or_else(|| Some(("bare", bound()?)))?;
    let places = if ratio < 100.0 { 2 } else { 0 };
    Some(format!("{ratio:.places$} {name}"))
}

/// What must be said below the table.
fn below(results: &Results) -> Vec<String> {
    let has = |name: &str| results.runs.iter().any(|run| run.figures.contains_key(name));
    let mut lines = vec![
        "Medians of durable commits a second, or of what the suite counts: conflicts, events read or opened."
            .to_owned(),
    ];
    if results.runs.iter().any(beside::is_open_loop) {
        lines.push(
            "p99: at a share of each one's own capacity. The best peer has the shortest."
                .to_owned(),
        );
        lines.push("rate: the rate that Annals was offered by that of the best peer.".to_owned());
    }
    if has("own_ratio") {
        lines.push(
            "own: the rate on one aggregate by the same threads' rate on their own.".to_owned(),
        );
    }
    if has("processor_ratio") {
        lines.push("cpu: the processor time of a write by that of a single append.".to_owned());
    }
    if results.runs.iter().any(|run| beside::kind(results, run) == Some(Kind::Bound)) {
        lines.push("bare: the rate by that of something that promises less.".to_owned());
    }
    if results.runs.iter().any(|run| is_noisy(&run.rate)) {
        lines.push("~ noisy: a round is more than 20 % off the median.".to_owned());
    }
    let foreign = results.machine.foreign_share;
    if foreign > FOREIGN_MOST {
        lines.push(format!(
            "Noisy run: {:.0} % of the processors' time went to others. Run it again on a quiet machine.",
            foreign * 100.0
        ));
    }
    for contender in &results.contenders {
        if let Some(failure) = &contender.failure {
            lines.push(format!("{} failed: {failure}", contender.name));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        results::{Contender, Latency, Machine, Spread},
        workload::{self, Case, WORKLOADS},
    };

    fn run(workload: &str, contender: &str, rate: f64) -> Run {
        Run {
            workload: workload.into(),
            case: "64 threads".into(),
            parameters: BTreeMap::new(),
            contender: contender.into(),
            unit: "commits".into(),
            rate: Spread::of([rate * 0.7, rate, rate * 1.1]).expect("three figures"),
            latency: None,
            more_latency: BTreeMap::new(),
            processor_nanos: None,
            written_bytes: None,
            conflicts: 0.0,
            device_share: Some(0.42),
            figures: BTreeMap::new(),
            verified: true,
        }
    }

    fn results(runs: Vec<Run>) -> Results {
        let contender = |name: &str, kind, failure: Option<&str>| Contender {
            name: name.into(),
            version: "1".into(),
            kind,
            acknowledges: String::new(),
            failure: failure.map(str::to_owned),
        };
        Results {
            form: Results::FORM,
            began: String::new(),
            seconds: 1.0,
            command: String::new(),
            machine: Machine { foreign_share: 0.25, ..Machine::default() },
            device: Vec::new(),
            contenders: vec![
                contender("annals", Kind::Annals, None),
                contender("fjall + group", Kind::Grouped, None),
                contender("annals (blocking)", Kind::Annals, None),
                contender("rocksdb + group", Kind::Grouped, None),
                contender("redb", Kind::Embedded, Some("clients: it is broken")),
                contender("bare loop", Kind::Bound, None),
            ],
            runs,
            remarks: Vec::new(),
        }
    }

    #[test]
    fn the_best_peer_makes_the_same_promise() {
        let results = results(vec![
            run("clients", "annals", 200_000.0),
            run("clients", "redb", 4_000.0),
            run("clients", "fjall + group", 50_000.0),
            run("clients", "bare loop", 400_000.0),
            run("solo", "fjall + group", 900_000.0),
        ]);
        let text = render(&results);
        let row = text.lines().find(|line| line.contains("clients 64 threads")).expect("a row");
        for part in ["~200 k", "fjall + group", "~50 k", "4.0\u{202f}×", "42 %", "0.50 bare"] {
            assert!(row.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn noise_and_failures_are_said() {
        let text = render(&results(vec![run("clients", "annals", 10.0)]));
        assert!(text.contains("25 % of the processors' time"), "{text}");
        assert!(text.contains("redb failed: clients: it is broken"), "{text}");
        assert!(text.contains("~ noisy"), "{text}");
    }

    #[test]
    fn at_a_given_rate_the_best_peer_has_the_shortest_p99() {
        let at = |contender: &str, rate: f64, p99| Run {
            latency: Some(Latency { p50: 1000, p99, count: 1, ..Latency::default() }),
            ..run("latency", contender, rate)
        };
        let text = render(&results(vec![
            at("annals", 100.0, 300_000),
            at("redb", 900.0, 1_200_000),
            at("fjall + group", 500.0, 600_000),
        ]));
        let row = text.lines().find(|line| line.contains("latency")).expect("a row");
        for part in ["p99 300 µs", "fjall + group", "p99 600 µs", "2.0\u{202f}×", "0.20 rate"] {
            assert!(row.contains(part), "{part} is not in\n{text}");
        }
    }

    /// Of every contender in each of these cases, with all that such a run has in figures as long as they get.
    fn widest(cases: &[Case]) -> Results {
        let mut runs = Vec::new();
        for case in cases {
            for contender in ["annals", "annals (blocking)", "rocksdb + group", "bare loop"] {
                let mut run = run(case.workload, contender, 1_230_000.0);
                run.case.clone_from(&case.name);
                if case.workload != "pipeline" {
                    run.latency =
                        Some(Latency { p50: 1_230_000, p99: 1_230_000, ..Latency::default() });
                }
                if beside::is_open_loop(&run) {
                    run.device_share = None;
                }
                let ratio = match case.workload {
                    "hot" => Some("own_ratio"),
                    "transfer" => Some("processor_ratio"),
                    _ => None,
                };
                if let Some(ratio) = ratio {
                    run.figures.extend(Spread::of([1.23]).map(|spread| (ratio.into(), spread)));
                }
                if contender != "bare loop" || case.workload == "pipeline" {
                    runs.push(run);
                }
            }
        }
        results(runs)
    }

    #[test]
    fn the_canonical_run_and_each_suite_fit_a_screen() {
        let all = workload::cases();
        let of = |wanted: &dyn Fn(&Case) -> bool| -> Vec<Case> {
            all.iter().filter(|case| wanted(case)).cloned().collect()
        };
        let mut runs = vec![of(&|case| case.canonical)];
        runs.extend(WORKLOADS.map(|(name, _)| of(&|case| case.workload == name)));
        for cases in runs {
            let text = render(&widest(&cases));
            let table: Vec<&str> = text.lines().take(2 * cases.len() + 3).collect();
            assert!(table.iter().all(|line| line.chars().count() <= 100), "{text}");
            // A row for each, and another for each variant.
            for part in ["rocksdb + group", "(blocking)"] {
                let rows = table.iter().filter(|line| line.contains(part)).count();
                let each = if part == "(blocking)" { 1 } else { 2 };
                assert_eq!(rows, each * cases.len(), "{text}");
            }
        }
    }
}
