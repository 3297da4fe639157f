//! The simulation itself: seeds repeat themselves, in whatever company they are run.

use std::process::Command;

use annals_sim::run::Outcome;

/// What came of these seeds, run in this order by one process.
fn outcomes(from: u64, seeds: u64) -> Vec<Outcome> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    command.args(["--worker", "--from", &from.to_string(), "--seeds", &seeds.to_string()]);
    let output = command.output().expect("the simulation starts");
    let text = String::from_utf8(output.stdout).expect("it prints text");
    let outcomes = text.lines().map(|line| serde_json::from_str(line).expect("one outcome a line"));
    outcomes.collect()
}

#[test]
fn a_seed_repeats_itself_wherever_it_is_run() {
    let together = outcomes(1, 12);
    assert_eq!(together.len(), 12, "{:?}", together.last());
    for outcome in together {
        assert_eq!(outcome.failure, None, "seed {}", outcome.seed);
        let alone = outcomes(outcome.seed, 1);
        // The path is a number over every choice that was made; the rest follows from it.
        assert_eq!([outcome].as_slice(), alone.as_slice());
    }
}

#[test]
fn seeds_differ_and_do_something() {
    let outcomes = outcomes(20, 10);
    let mut paths: Vec<u64> = outcomes.iter().map(|outcome| outcome.path).collect();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), 10, "two seeds went the same way");
    let sum = |what: &str| -> u64 {
        outcomes.iter().filter_map(|outcome| outcome.counts.get(what)).sum()
    };
    for what in ["committed", "power cuts", "recoveries inspected", "refused 2003", "replayed"] {
        assert!(sum(what) > 0, "nothing counts as \"{what}\"");
    }
}
