//! The table for the terminal: what Annals does beside the best peer, on one screen of a hundred columns.

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, presets};

use crate::{
    campaign::is_noisy,
    results::{Kind, Results, Run},
};

/// How wide it is.
const COLUMNS: u16 = 100;

/// From which share of foreign work on the processors figures should be doubted.
pub const FOREIGN_MOST: f64 = 0.1;

/// Renders the table and what must be said below it.
pub fn render(results: &Results) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(COLUMNS);
    table.set_header(["", "Annals", "p50", "best peer", "", "ratio", "device", "also"]);
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if matches!(number, 1 | 2 | 4 | 5 | 6) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for run in results.runs.iter().filter(|run| kind(results, run) == Some(Kind::Annals)) {
        table.add_row(row(results, run));
    }
    let mut text = table.to_string();
    text.push('\n');
    for line in below(results) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn kind(results: &Results, run: &Run) -> Option<Kind> {
    let contender = results.contenders.iter().find(|one| one.name == run.contender);
    contender.map(|contender| contender.kind)
}

/// The runs of the same case by contenders of other kinds than Annals.
fn beside<'a>(results: &'a Results, run: &'a Run, bounds: bool) -> impl Iterator<Item = &'a Run> {
    results.runs.iter().filter(move |other| {
        (&other.workload, &other.case, &other.unit) == (&run.workload, &run.case, &run.unit)
            && match kind(results, other) {
                Some(Kind::Bound) => bounds,
                Some(Kind::Embedded | Kind::Grouped | Kind::Server) => !bounds,
                Some(Kind::Annals) | None => false,
            }
    })
}

/// The fastest peer that makes the same promise.
pub fn best_peer<'a>(results: &'a Results, run: &'a Run) -> Option<&'a Run> {
    beside(results, run, false).max_by(|a, b| a.rate.median.total_cmp(&b.rate.median))
}

fn row(results: &Results, run: &Run) -> Vec<Cell> {
    let best = best_peer(results, run);
    let mut name = format!("{} {}", run.workload, run.case);
    if let Some(variant) = run.contender.strip_prefix("annals").filter(|rest| !rest.is_empty()) {
        name.push_str(variant);
    }
    let noisy = |run: &Run| if is_noisy(&run.rate) { " ~" } else { "" };
    let text = |text: Option<String>| Cell::new(text.unwrap_or_default());
    vec![
        Cell::new(name),
        Cell::new(format!("{}/s{}", count(run.rate.median), noisy(run))),
        text(run.latency.as_ref().map(|latency| time(latency.p50 as f64))),
        text(best.map(|best| best.contender.clone())),
        text(best.map(|best| format!("{}/s{}", count(best.rate.median), noisy(best)))),
        text(
            best.filter(|best| best.rate.median > 0.0)
                .map(|best| ratio(run.rate.median / best.rate.median)),
        ),
        text(run.device_share.map(|share| format!("{:.0} %", share * 100.0))),
        Cell::new(also(results, run)),
    ]
}

/// How many times as fast.
fn ratio(ratio: f64) -> String {
    let digits = if ratio < 0.995 { 2 } else { 1 };
    format!("{ratio:.digits$}×")
}

/// A ratio that no other column has.
fn also(results: &Results, run: &Run) -> String {
    let figure = |name: &str, of: &str| Some(format!("{:.2} {of}", run.figures.get(name)?.median));
    let bound = || {
        let bound = beside(results, run, true).find(|other| other.rate.median > 0.0)?;
        Some(format!("{:.2} bare (3)", run.rate.median / bound.rate.median))
    };
    figure("own_ratio", "own (1)")
        .or_else(|| figure("processor_ratio", "cpu (2)"))
        .or_else(bound)
        .unwrap_or_default()
}

/// What must be said below the table.
fn below(results: &Results) -> Vec<String> {
    let has = |name: &str| results.runs.iter().any(|run| run.figures.contains_key(name));
    let mut lines = vec![
        "Median rates: durable commits a second, or what the suite counts (conflicts, events read or opened)."
            .to_owned(),
    ];
    if has("own_ratio") {
        lines.push("(1) rate on one aggregate by the same threads' rate on their own".to_owned());
    }
    if has("processor_ratio") {
        lines.push("(2) processor time of a write by that of a single append".to_owned());
    }
    if results.runs.iter().any(|run| kind(results, run) == Some(Kind::Bound)) {
        lines.push("(3) rate by that of a bound: something that promises less".to_owned());
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

/// A number with three digits and its magnitude: `1.23 M`.
pub fn count(number: f64) -> String {
    scaled(number, &[(1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, "")])
}

/// A time of so many nanoseconds, with three digits and its unit.
pub fn time(nanos: f64) -> String {
    scaled(nanos, &[(1e9, " s"), (1e6, " ms"), (1e3, " µs"), (1.0, " ns")])
}

fn scaled(number: f64, scales: &[(f64, &str)]) -> String {
    // What rounds to a thousand is one of the next magnitude.
    let scale = scales.iter().find(|(size, _)| number.abs() >= size * 0.9995);
    let (size, name) = scale.or(scales.last()).copied().unwrap_or((1.0, ""));
    let number = number / size;
    let digits = if number.abs() >= 99.95 {
        0
    } else if number.abs() >= 9.995 {
        1
    } else {
        2
    };
    format!("{number:.digits$}{name}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::results::{Contender, Machine, Spread};

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
        for part in ["200 k/s ~", "fjall + group", "50.0 k/s", "4.0×", "42 %", "0.50 bare (3)"] {
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
    fn it_fits_a_screen() {
        let cases = ["solo", "clients", "pipeline", "hot", "transfer", "conflict", "open"];
        let runs = cases.iter().flat_map(|name| {
            [run(name, "annals", 1_234_567.0), run(name, "fjall + group", 12_345.0)]
        });
        let text = render(&results(runs.collect()));
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(COLUMNS)), "{text}");
        let rows = text.lines().filter(|line| line.contains("64 threads")).count();
        assert_eq!(rows, cases.len(), "each is one line of\n{text}");
    }

    #[test]
    fn figures_have_three_digits() {
        let counts = [1.0, 12.34, 999.4, 999.6, 12_345.0, 5_000_000.0].map(count);
        assert_eq!(counts, ["1.00", "12.3", "999", "1.00 k", "12.3 k", "5.00 M"]);
        let times = [95.0, 1_500.0, 104_000.0, 2_000_000.0, 3e9].map(time);
        assert_eq!(times, ["95.0 ns", "1.50 µs", "104 µs", "2.00 ms", "3.00 s"]);
    }
}
