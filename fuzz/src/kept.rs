//! Every kept crash and the whole corpus, on any toolchain, without a fuzzer.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::harness::{self, Outcome, Target};
use crate::targets::{ALL, canary};

/// Memory is counted for the whole process, so one thing runs at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub fn one_at_a_time<R>(run: impl FnOnce() -> R) -> R {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    run()
}

#[test]
fn the_corpus_runs_and_reaches_what_is_behind_the_checksums() {
    one_at_a_time(|| {
        for target in ALL {
            let mut reached = 0;
            let corpus = (target.corpus)();
            for (name, input) in &corpus {
                eprintln!("{}/{name}", target.name);
                reached += usize::from(harness::run(target, input));
            }
            assert!(reached > 2, "{}: {reached} of {} inputs reached", target.name, corpus.len());
        }
    });
}

#[test]
fn what_once_failed_passes() {
    one_at_a_time(|| {
        for target in ALL.iter().filter(|target| target.name != canary::TARGET.name) {
            let dir = Path::new("regressions").join(target.name);
            for entry in fs::read_dir(&dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                eprintln!("{}", path.display());
                harness::run(target, &fs::read(&path).unwrap());
            }
        }
    });
}

/// The input that finds the planted fault, as a fuzzer once did.
#[test]
fn the_canary_can_be_found() {
    one_at_a_time(|| {
        let mut inputs = fs::read_dir("regressions/canary").unwrap();
        let input = fs::read(inputs.next().unwrap().unwrap().path()).unwrap();
        let found = std::panic::catch_unwind(|| harness::run(&canary::TARGET, &input));
        assert!(found.is_err(), "the planted fault is not met by the input that found it");
    });
}

#[test]
fn memory_beyond_the_bound_is_noticed() {
    fn run(input: &[u8]) -> Outcome {
        let (_, held) = harness::measure(|| vec![1_u8; (1 << 20) + 5 * input.len()]);
        Outcome { bytes: input.len(), held, ..Outcome::default() }
    }
    let target = Target { name: "greedy", run, corpus: Vec::new, repair: None };
    one_at_a_time(|| {
        let greedy = std::panic::catch_unwind(|| harness::run(&target, &[0; 100_000]));
        assert!(greedy.is_err(), "five times the input and 1 MiB were held unnoticed");
    });
}
