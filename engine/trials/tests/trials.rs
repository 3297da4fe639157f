//! The trials themselves: short ones find nothing, and each finds what is planted in it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use annals::Options;
use annals_trials::plant::Anomaly;
use annals_trials::record::{self, Plan};

fn trials(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trials")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn finds_nothing(arguments: &[&str]) {
    let output = trials(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output));
}

/// It says what is wrong, and a command that goes there again.
fn finds(fault: &str, arguments: &[&str]) {
    let output = trials(arguments);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(said.contains(fault) && said.contains("trials "), "{arguments:?}: {said}");
}

/// Says what was not checked: to whoever runs it, and to the file that counts. An error where nothing may be left out.
fn skip(what: &str) {
    assert!(std::env::var_os("ANNALS_NO_SKIPS").is_none(), "SKIP: {what}");
    let _ = writeln!(std::io::stderr(), "SKIP: {what}");
    if let Some(file) = std::env::var_os("ANNALS_SKIPS") {
        let mut file = OpenOptions::new().append(true).create(true).open(file).unwrap();
        writeln!(file, "{what}").unwrap();
    }
}

fn strace_is_here() -> bool {
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    let here = works.is_ok_and(|output| output.status.success());
    if !here {
        skip("kills at system calls (no strace, or it may not trace)");
    }
    here
}

#[test]
fn a_few_histories_are_sound() {
    finds_nothing(&["histories", "--histories", "4", "--operations", "60", "--windows", "9"]);
}

#[test]
fn a_saved_history_is_checked_again() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let keys: Vec<String> = (0..4).map(|number| format!("0/{number}")).collect();
    let options = Options::new().route_by_prefix(b'/').segment_bytes(1 << 20);
    let save = |history: &annals_trials::history::History, file: &Path| {
        let lines = history.lines().map(|line| serde_json::to_string(&line).unwrap() + "\n");
        std::fs::write(file, lines.collect::<String>()).unwrap();
    };
    let file = dir.path().join("history.jsonl");
    let path = file.to_str().unwrap();
    // In a small history not every anomaly finds a place.
    let history = (3..30).find_map(|seed| {
        let plan = Plan { seed, threads: 3, operations: 60, rounds: 2, keys: keys.clone() };
        let store = dir.path().join(format!("store-{seed}"));
        let mut history = record::run(&plan, &mut || options.open(&store)).unwrap();
        save(&history, &file);
        finds_nothing(&["recheck", path]);
        Anomaly::LostWrite.plant(&mut history).then_some(history)
    });
    let history = history.expect("a write can be lost in one of many histories");
    save(&history, &file);
    let output = trials(&["recheck", path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("Lost: write"), "{}", text(&output));
}

#[test]
fn a_few_kills_lose_nothing() {
    finds_nothing(&["kill", "--kills", "8"]);
}

#[test]
fn an_acknowledgement_that_comes_too_early_is_found_by_killing() {
    finds("Lost: write", &["kill", "--kills", "40", "--lie", "ack-early"]);
}

#[test]
fn a_few_system_calls_lose_nothing() {
    if strace_is_here() {
        for point in ["pwritev2,3", "fsync,4", "renameat,1"] {
            let point = format!("blocking,{point}");
            finds_nothing(&["syscalls", "--only", &point]);
        }
    }
}

#[test]
fn an_acknowledgement_that_comes_too_early_is_found_at_a_system_call() {
    if strace_is_here() {
        let points = ["--points", "60", "--what", "kills", "--lie", "ack-early"];
        finds("Lost: write", &[&["syscalls"], points.as_slice()].concat());
    }
}

#[test]
fn a_few_stragglers_change_nothing() {
    let output = trials(&["stragglers", "--rounds", "2"]);
    let said = text(&output);
    match output.status.code() {
        Some(3) if said.contains("io_uring can't be had") => {
            skip("stragglers (io_uring can't be had here)")
        }
        code => assert_eq!(code, Some(0), "{said}"),
    }
}
