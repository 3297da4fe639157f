//! Threads that do one thing over and over: first to warm up, then, all starting together, for as long as is measured.

use std::{
    sync::Barrier,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{Meter, Spent, histogram};
use crate::store::{Error, Result, Store};

/// What one thread does.
pub trait Worker<S: Store>: Send {
    /// Does it once and counts it.
    fn turn(&mut self, session: &mut S::Session, tally: &mut Tally) -> Result<()>;
}

/// What a thread has counted.
#[derive(Debug)]
pub struct Tally {
    /// What was done.
    pub units: u64,
    /// Writes that were rejected.
    pub conflicts: u64,
    /// How long each took.
    pub latency: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally { units: 0, conflicts: 0, latency: histogram::empty() }
    }
}

impl Tally {
    /// Counts one more, begun then.
    pub fn done(&mut self, began: Instant) {
        self.units += 1;
        histogram::record(&mut self.latency, began.elapsed());
    }
}

/// How long a crew works.
#[derive(Debug, Clone, Copy)]
pub struct Shift {
    /// Before anything counts.
    pub warm_up: Duration,
    /// While it counts. What has begun is finished.
    pub measure: Duration,
}

/// Runs every worker on a thread of its own: what all of them counted, and what it took until the last had finished.
pub fn run<S: Store, W: Worker<S>>(
    store: &S,
    workers: &mut [W],
    shift: Shift,
) -> Result<(Spent, Tally)> {
    let warm = Barrier::new(workers.len() + 1);
    let start = Barrier::new(workers.len() + 1);
    let sessions = workers.iter().map(|_| store.session()).collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .iter_mut()
            .zip(sessions)
            .map(|(worker, mut session)| {
                let (warm, start) = (&warm, &start);
                scope.spawn(move || {
                    let session = &mut session;
                    let warmed = work(worker, session, shift.warm_up, &mut Tally::default());
                    warm.wait();
                    let mut tally = Tally::default();
                    start.wait();
                    warmed?;
                    work(worker, session, shift.measure, &mut tally)?;
                    Ok::<Tally, Error>(tally)
                })
            })
            .collect();
        warm.wait();
        let meter = Meter::begin(store.processes());
        start.wait();
        let mut all = Tally::default();
        let mut outcome: Result<()> = Ok(());
        let mut tallies = Vec::with_capacity(threads.len());
        for thread in threads {
            match thread.join() {
                Ok(Ok(tally)) => tallies.push(tally),
                Ok(Err(error)) => outcome = Err(error),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let spent = meter.end();
        outcome?;
        for tally in tallies {
            all.units += tally.units;
            all.conflicts += tally.conflicts;
            histogram::merge(&mut all.latency, &tally.latency)?;
        }
        Ok((spent, all))
    })
}

fn work<S: Store>(
    worker: &mut impl Worker<S>,
    session: &mut S::Session,
    time: Duration,
    tally: &mut Tally,
) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        worker.turn(session, tally)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::Setup,
        stores::{contract, file::LoneFile},
    };

    struct Counter {
        turns: u64,
        fails: bool,
    }

    impl Worker<LoneFile> for Counter {
        fn turn(&mut self, _: &mut <LoneFile as Store>::Session, tally: &mut Tally) -> Result<()> {
            if self.fails {
                return Err("it does not want to".into());
            }
            self.turns += 1;
            tally.done(Instant::now());
            Ok(())
        }
    }

    fn run_with(fails: bool, warm_up: Duration) -> (Result<(Spent, Tally)>, u64) {
        let dir = contract::folder();
        let store = LoneFile::open(dir.path(), &Setup::default()).expect("it opens");
        let mut workers = [false, fails].map(|fails| Counter { turns: 0, fails });
        let shift = Shift { warm_up, measure: Duration::from_millis(5) };
        let ran = run(&store, &mut workers, shift);
        (ran, workers.iter().map(|worker| worker.turns).sum())
    }

    #[test]
    fn what_is_counted_is_what_was_done_after_the_warm_up() {
        let (ran, turns) = run_with(false, Duration::ZERO);
        let (spent, tally) = ran.expect("nobody fails");
        assert_eq!((tally.units, tally.latency.len()), (turns, turns));
        assert!(spent.elapsed >= Duration::from_millis(5));
        let (ran, turns) = run_with(false, Duration::from_millis(5));
        assert!(ran.expect("nobody fails").1.units < turns);
    }

    #[test]
    fn one_that_fails_lets_the_others_end() {
        for warm_up in [Duration::ZERO, Duration::from_millis(2)] {
            let error = run_with(true, warm_up).0.expect_err("one fails");
            assert!(error.to_string().contains("does not want"), "{error}");
        }
    }
}
