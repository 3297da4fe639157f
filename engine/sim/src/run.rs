//! One seed.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::life::Lives;

/// What came of a seed.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What was found, if anything was.
    pub failure: Option<String>,
    /// How often what was done, answered and checked.
    pub counts: BTreeMap<String, u64>,
    /// How often what went wrong on the disk.
    pub faults: BTreeMap<String, u64>,
    /// Operations of the disk.
    pub ios: u64,
    /// A number over every choice: the same if a seed is run again.
    pub path: u64,
}

/// Runs a seed. After a failure the thread can't be used again: what stopped in the middle still stands there.
pub fn run(seed: u64) -> Outcome {
    let mut lives = Lives::new(Rng::with_seed(seed));
    let ran = panic::catch_unwind(AssertUnwindSafe(|| {
        let count = lives.profile.lives;
        for life in 1..=count {
            lives.live(life == count)?;
        }
        // And once more, to see what the last life has left.
        lives.look_back()
    }));
    let failure = match ran {
        Ok(Ok(())) => None,
        Ok(Err(wrong)) => Some(wrong),
        Err(panic) => Some(format!("a panic: {}", message(&*panic))),
    };
    lives.leave_disk();
    let mut counts = lives.book.try_borrow().map(|book| book.counts.clone()).unwrap_or_default();
    counts.insert("stalled callers".into(), lives.stalls);
    counts.insert("turns".into(), lives.turns);
    let outcome = Outcome {
        seed,
        counts,
        faults: lives.faults.clone(),
        ios: lives.ios,
        path: lives.path,
        failure,
    };
    if outcome.failure.is_some() {
        std::mem::forget(lives);
    }
    outcome
}

/// What a panic said.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("nothing").to_owned()
}
