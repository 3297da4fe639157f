//! Two results beside each other: what changed, with the noise next to it.
//!
//! A change counts only if it is larger than the noise, which is half the distance of the rounds' extremes, of both sides
//! together. A percentile has no spread of its own, since its histogram is of all rounds together; the rate's stands in for it.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use crate::results::{Latency, Machine, Results, Run, Spread};

/// What changed from `a` to `b`, as a table with remarks.
pub fn compare(a: &Results, b: &Results) -> String {
    let mut text = String::new();
    heading(&mut text, a, b);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "workload",
        "case",
        "contender",
        "",
        "before",
        "after",
        "change",
        "noise",
        "",
    ]);
    for column in 4..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut verdicts = [0; 3];
    for before in &a.runs {
        let Some(after) = b.runs.iter().find(|run| same(before, run)) else { continue };
        for (at, line) in lines(before, after).into_iter().enumerate() {
            verdicts[line.verdict as usize] += 1;
            let [workload, case, contender] = if at == 0 {
                [&before.workload, &before.case, &before.contender].map(String::as_str)
            } else {
                [""; 3]
            };
            let cells = [workload, case, contender, line.what];
            let figures = [line.before, line.after, line.change, line.noise];
            let verdict = line.verdict.text().to_owned();
            table.add_row(cells.map(str::to_owned).into_iter().chain(figures).chain([verdict]));
        }
    }
    if !table.is_empty() {
        let _ = writeln!(text, "{}\n", table.trim_fmt());
        let [better, worse, within] = verdicts;
        let _ = writeln!(
            text,
            "{better} better, {worse} worse, {within} within the noise or without one to judge by"
        );
    } else {
        let _ = writeln!(text, "nothing was measured in both");
    }
    only(&mut text, "before", a, b);
    only(&mut text, "after", b, a);
    text
}

fn same(a: &Run, b: &Run) -> bool {
    (&a.workload, &a.case, &a.contender) == (&b.workload, &b.case, &b.contender)
}

/// Something that a comparison takes to be the same on both sides: its name, and it in words.
type Fact = (&'static str, fn(&Machine) -> String);

/// Which is which, and what differs between them apart from what was measured.
fn heading(text: &mut String, a: &Results, b: &Results) {
    for (name, results) in [("before", a), ("after", b)] {
        let annals = &results.machine.annals;
        let _ = writeln!(text, "{name:<7} {}  annals {annals}  {}", results.began, results.command);
    }
    if a.form != b.form {
        let _ = writeln!(text, "differs: the form of the results: {}, then {}", a.form, b.form);
    }
    let facts: [Fact; 7] = [
        ("processor", |m| m.processor.clone()),
        ("processors", |m| m.processors.to_string()),
        ("memory", |m| format!("{} bytes", m.memory_bytes)),
        ("kernel", |m| m.kernel.clone()),
        ("compiler", |m| m.compiler.clone()),
        ("file system", |m| m.file_system.clone()),
        ("device", |m| m.block_device.clone()),
    ];
    for (name, of) in facts {
        let (before, after) = (of(&a.machine), of(&b.machine));
        if before != after {
            let _ = writeln!(text, "differs: {name}: {before}, then {after}");
        }
    }
    for contender in &a.contenders {
        let other = b.contenders.iter().find(|other| other.name == contender.name);
        if let Some(other) = other.filter(|other| other.version != contender.version) {
            let (name, before, after) = (&contender.name, &contender.version, &other.version);
            let _ = writeln!(text, "differs: {name}: version {before}, then {after}");
        }
    }
    let _ = writeln!(text);
}

fn only(text: &mut String, name: &str, here: &Results, there: &Results) {
    for run in &here.runs {
        if !there.runs.iter().any(|other| same(run, other)) {
            let Run { workload, case, contender, .. } = run;
            let _ = writeln!(text, "only {name}: {workload}, {case}: {contender}");
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    Within,
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "WORSE",
            Verdict::Within => "",
        }
    }
}

/// One figure of a run, before and after.
#[derive(Debug)]
struct Line {
    what: &'static str,
    before: String,
    after: String,
    change: String,
    noise: String,
    verdict: Verdict,
}

fn lines(before: &Run, after: &Run) -> Vec<Line> {
    if !(before.verified && after.verified) {
        let state = |run: &Run| if run.verified { "verified" } else { "NOT VERIFIED" }.to_owned();
        return vec![Line {
            what: "nothing to compare",
            before: state(before),
            after: state(after),
            change: String::new(),
            noise: String::new(),
            verdict: Verdict::Within,
        }];
    }
    let noise = noise(&before.rate, &after.rate);
    let rate = line("a second", before.rate.median, after.rate.median, noise, true);
    let percentile = |what, of: fn(&Latency) -> u64| {
        let (before, after) = (before.latency.as_ref()?, after.latency.as_ref()?);
        line(what, of(before) as f64, of(after) as f64, noise, false)
    };
    let processor =
        before.processor_nanos.zip(after.processor_nanos).and_then(|(before, after)| {
            let noise = self::noise(&before, &after);
            line("processor ns", before.median, after.median, noise, false)
        });
    let all = [rate, percentile("p50 ns", |l| l.p50), percentile("p99 ns", |l| l.p99), processor];
    all.into_iter().flatten().collect()
}

/// The noise of both together; none if either had a single round and so can't tell.
fn noise(before: &Spread, after: &Spread) -> Option<f64> {
    (before.rounds > 1 && after.rounds > 1).then(|| before.noise() + after.noise())
}

/// None where there is no ratio: nothing before.
fn line(
    what: &'static str,
    before: f64,
    after: f64,
    noise: Option<f64>,
    more: bool,
) -> Option<Line> {
    if before <= 0.0 {
        return None;
    }
    let change = after / before - 1.0;
    let verdict = match noise {
        Some(noise) if change.abs() > noise && (change > 0.0) == more => Verdict::Better,
        Some(noise) if change.abs() > noise => Verdict::Worse,
        _ => Verdict::Within,
    };
    Some(Line {
        what,
        before: figure(before),
        after: figure(after),
        change: format!("{:+.1} %", 100.0 * change),
        noise: noise.map_or("one round".to_owned(), |noise| format!("±{:.1} %", 100.0 * noise)),
        verdict,
    })
}

/// With thousands apart.
fn figure(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn spread(median: f64, noise: f64, rounds: u32) -> Spread {
        Spread { median, min: median * (1.0 - noise), max: median * (1.0 + noise), rounds }
    }

    fn run(case: &str, contender: &str, rate: f64, noise: f64) -> Run {
        Run {
            workload: "solo".into(),
            case: case.into(),
            parameters: BTreeMap::new(),
            contender: contender.into(),
            unit: "commits".into(),
            rate: spread(rate, noise, 3),
            latency: Some(Latency { p50: 100_000, p99: 400_000, ..Latency::default() }),
            more_latency: BTreeMap::new(),
            processor_nanos: Some(spread(2_000.0, 0.01, 3)),
            written_bytes: None,
            conflicts: 0.0,
            device_share: None,
            figures: BTreeMap::new(),
            verified: true,
        }
    }

    fn results(runs: Vec<Run>) -> Results {
        Results {
            form: Results::FORM,
            began: "2026-01-31T12:00:00Z".into(),
            seconds: 1.0,
            command: "bench solo".into(),
            machine: Machine { kernel: "Linux 6.1".into(), ..Machine::default() },
            device: Vec::new(),
            contenders: Vec::new(),
            runs,
            remarks: Vec::new(),
        }
    }

    /// The line of the table that has all of these.
    fn found<'a>(text: &'a str, parts: &[&str]) -> &'a str {
        let line = text.lines().find(|line| parts.iter().all(|part| line.contains(part)));
        line.unwrap_or_else(|| panic!("no line with {parts:?} in\n{text}"))
    }

    #[test]
    fn a_change_counts_when_it_exceeds_the_noise_of_both() {
        let a = results(vec![
            run("128 B", "annals", 10_000.0, 0.02),
            run("1 KiB", "annals", 10_000.0, 0.06),
        ]);
        let b = results(vec![
            run("128 B", "annals", 11_000.0, 0.02),
            run("1 KiB", "annals", 11_000.0, 0.06),
        ]);
        let text = compare(&a, &b);
        let clear = found(&text, &["128 B", "a second", "10 000", "11 000", "+10.0 %", "±4.0 %"]);
        assert!(clear.ends_with("better"), "{clear}");
        let blurred = found(&text, &["1 KiB", "+10.0 %", "±12.0 %"]);
        assert!(!blurred.contains("better"), "{blurred}");
        let back = compare(&b, &a);
        assert!(found(&back, &["128 B", "-9.1 %"]).ends_with("WORSE"), "{back}");
    }

    #[test]
    fn a_longer_time_is_worse() {
        let a = results(vec![run("128 B", "annals", 10_000.0, 0.01)]);
        let mut slow = run("128 B", "annals", 10_000.0, 0.01);
        slow.latency = Some(Latency { p50: 150_000, p99: 300_000, ..Latency::default() });
        slow.processor_nanos = Some(spread(4_000.0, 0.01, 3));
        let text = compare(&a, &results(vec![slow]));
        assert!(found(&text, &["p50 ns", "+50.0 %"]).ends_with("WORSE"), "{text}");
        assert!(found(&text, &["p99 ns", "-25.0 %"]).ends_with("better"), "{text}");
        assert!(found(&text, &["processor ns", "+100.0 %", "±2.0 %"]).ends_with("WORSE"), "{text}");
        assert!(text.contains("1 better, 2 worse, 1 within"), "{text}");
    }

    #[test]
    fn one_round_has_no_noise_to_judge_by() {
        let mut a = run("128 B", "annals", 10_000.0, 0.0);
        a.rate.rounds = 1;
        let text =
            compare(&results(vec![a]), &results(vec![run("128 B", "annals", 90_000.0, 0.0)]));
        let line = found(&text, &["a second", "+800.0 %", "one round"]);
        assert!(!line.contains("better"), "{line}");
    }

    #[test]
    fn what_did_not_hold_its_promise_is_compared_with_nothing() {
        let mut lost = run("128 B", "annals", 90_000.0, 0.0);
        lost.verified = false;
        let text =
            compare(&results(vec![run("128 B", "annals", 10_000.0, 0.0)]), &results(vec![lost]));
        found(&text, &["128 B", "verified", "NOT VERIFIED"]);
        assert!(!text.contains("800"), "{text}");
    }

    #[test]
    fn what_is_only_in_one_and_what_differs_around_it_is_said() {
        let a = results(vec![run("128 B", "redb", 4_000.0, 0.0)]);
        let mut b = results(vec![run("128 B", "fjall", 5_000.0, 0.0)]);
        b.machine.kernel = "Linux 6.12".into();
        b.form += 1;
        let text = compare(&a, &b);
        found(&text, &["only before", "redb"]);
        found(&text, &["only after", "fjall"]);
        found(&text, &["differs", "kernel", "Linux 6.1, then Linux 6.12"]);
        found(&text, &["differs", "form", "1, then 2"]);
        found(&text, &["nothing was measured in both"]);
    }
}
