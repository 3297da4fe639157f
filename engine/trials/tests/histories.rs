//! Histories of the real store: both checkers accept them as they are, and reject each anomaly that is planted in them.

use annals::{Backend, Options};
use annals_trials::history::{Call, History, Operation, Outcome};
use annals_trials::plant::Anomaly;
use annals_trials::record::{self, Plan};
use annals_trials::{exact, linear};

fn keys(groups: usize, each: usize) -> Vec<String> {
    (0..groups * each).map(|number| format!("{}/{number}", number % groups)).collect()
}

fn history(
    seed: u64,
    backend: Backend,
    shards: u16,
    keys: Vec<String>,
    operations: u32,
) -> History {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let options = Options::new()
        .shards(shards)
        .route_by_prefix(b'/')
        .segment_bytes(1 << 20)
        .block_bytes(4096)
        .backend(backend);
    let plan = Plan { seed, threads: 4, operations, rounds: 3, keys };
    record::run(&plan, &mut || options.open(dir.path())).unwrap()
}

fn accept(history: &History) {
    if let Err(complaints) = exact::check(history) {
        let complaint = &complaints[0];
        let call = complaint.call.map(|call| &history.calls[call]);
        panic!("{} complaints; {complaint}\n    {call:?}", complaints.len());
    }
    for window in 0..linear::windows(history) {
        if let Err(complaints) = linear::check(history, window) {
            panic!("{complaints:?}");
        }
    }
}

fn is_rejected_by_windows(history: &History) -> bool {
    (0..linear::windows(history)).any(|window| linear::check(history, window).is_err())
}

#[test]
fn histories_as_they_are_are_accepted() {
    for (seed, backend) in [(1, Backend::Auto), (2, Backend::Blocking)] {
        accept(&history(seed, backend, 1, keys(1, 4), 150));
        accept(&history(seed + 10, backend, 3, keys(6, 4), 150));
    }
}

/// A history that has a place for an anomaly, with that planted in it.
fn planted(anomaly: Anomaly, recorded: &mut Vec<History>) -> History {
    for seed in 0..20 {
        if recorded.len() == seed {
            let fresh = history(seed as u64, Backend::Auto, 2, keys(4, 3), 60);
            accept(&fresh);
            recorded.push(fresh);
        }
        let mut planted = recorded[seed].clone();
        if anomaly.plant(&mut planted) {
            return planted;
        }
    }
    panic!("{anomaly:?}: no place for it in twenty histories");
}

#[test]
fn every_planted_anomaly_is_rejected() {
    let mut recorded = Vec::new();
    for anomaly in Anomaly::ALL {
        let planted = planted(anomaly, &mut recorded);
        let complaints = exact::check(&planted).expect_err(&format!("{anomaly:?} was accepted"));
        assert!(
            complaints.iter().any(|complaint| complaint.fault == anomaly.fault()),
            "{anomaly:?}: {complaints:?}"
        );
        assert_eq!(
            is_rejected_by_windows(&planted),
            anomaly.is_of_versions(),
            "{anomaly:?}, the general checker"
        );
    }
}

#[test]
fn a_history_survives_its_file() {
    let recorded = history(9, Backend::Blocking, 1, keys(1, 3), 40);
    let lines: Vec<String> =
        recorded.lines().map(|line| serde_json::to_string(&line).unwrap()).collect();
    let again = History::of_lines(lines.iter().map(|line| serde_json::from_str(line).unwrap()));
    assert!(again == recorded);
}

#[test]
fn a_history_has_everything_in_it() {
    let recorded = history(11, Backend::Auto, 2, keys(4, 3), 200);
    let some = |wanted: fn(&Call) -> bool| recorded.calls.iter().any(wanted);
    assert!(some(|call| matches!(call.outcome, Outcome::Accepted)), "writes given up");
    assert!(some(|call| matches!(call.outcome, Outcome::Duplicate)), "overtaken retries");
    assert!(some(|call| matches!(call.outcome, Outcome::Declined(_))), "declined executions");
    assert!(some(|call| matches!(call.operation, Operation::Log { .. })), "reads of logs");
    let totals = exact::Totals::of(&recorded);
    for count in [totals.conflicts, totals.replays, totals.accepted_reads, totals.followed] {
        assert!(count > 0, "{totals:?}");
    }
    assert_eq!(totals.reopenings, 3);
}
