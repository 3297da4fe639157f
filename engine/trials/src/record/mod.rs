//! Threads on a store: what they ask and what they are told is noted, with the moments before and after.
//!
//! A history has rounds. In each, threads work on the open store while followers follow; then the store is closed and
//! opened again. Everything that is drawn is drawn from the seed, so a history can be had again but for its timing.

mod thread;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use annals::{Error, Position, Store};

use crate::history::{Call, Head, History, Item, LogRecord, Nanos, Operation, Outcome, Subject};
use crate::observe;
use thread::{Sent, Thread};

/// What a history is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything is drawn from it.
    pub seed: u64,
    /// How many threads work.
    pub threads: u16,
    /// How many operations each does, in all rounds together.
    pub operations: u32,
    /// How many times the store is opened for work.
    pub rounds: u32,
    /// The keys. Those with the same part before a `/` must live on one shard.
    pub keys: Vec<String>,
}

/// The clock of a history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn now(self) -> Nanos {
        self.0.elapsed().as_nanos() as Nanos
    }
}

/// What threads share: writes that can be sent again by anybody.
pub(crate) type Retries = Mutex<Vec<Sent>>;

/// Runs a plan on a store, which `open` opens; each time the same one.
///
/// # Errors
///
/// What opening, closing, or reading the log at the end says. What a call is told is part of the history.
pub fn run(plan: &Plan, open: &mut dyn FnMut() -> Result<Store, Error>) -> Result<History, Error> {
    let clock = Clock(Instant::now());
    let mut store = open()?;
    let subjects: Vec<Subject> = plan
        .keys
        .iter()
        .map(|key| Subject { key: key.clone(), shard: store.shard_of(key) })
        .collect();
    let shards = store.shards();
    let mut history = History {
        head: Head { seed: plan.seed, subjects: subjects.clone() },
        ..History::default()
    };
    let subjects: Arc<[Subject]> = subjects.into();
    let retries = Retries::default();
    let mut threads: Vec<Thread> =
        (0..plan.threads).map(|number| Thread::new(plan, number, clock, &subjects)).collect();
    let mut followed = vec![0; usize::from(shards)];
    for _round in 0..plan.rounds {
        let operations = (plan.operations / plan.rounds).max(1);
        let called = std::thread::scope(|scope| {
            let followers: Vec<_> = (0..shards)
                .map(|shard| {
                    let after = followed[usize::from(shard)];
                    let subjects = &subjects;
                    let number = plan.threads + shard;
                    let begun = follow(&store, shard, after);
                    scope.spawn(move || collect(begun, subjects, number, shard, after, clock))
                })
                .collect();
            let working: Vec<_> = threads
                .iter_mut()
                .map(|thread| {
                    let (store, retries) = (&store, &retries);
                    scope.spawn(move || thread.work(store, retries, operations))
                })
                .collect();
            working.into_iter().for_each(joined);
            let called = clock.now();
            let closed = store.close();
            for (shard, follower) in followers.into_iter().enumerate() {
                let call = joined(follower);
                if let Outcome::Logged(items) = &call.outcome
                    && let Some(last) = items.last()
                {
                    followed[shard] = last.position;
                }
                history.calls.push(call);
            }
            closed.map(|()| called)
        })?;
        // The lock is let go with the last handle.
        drop(store);
        store = open()?;
        let returned = clock.now();
        let (operation, outcome) = (Operation::Reopen, Outcome::Reopened);
        let thread = u16::MAX;
        history.calls.push(Call {
            thread,
            called,
            decided: returned,
            returned,
            operation,
            outcome,
        });
        let mut reader = Thread::new(plan, u16::MAX, clock, &subjects);
        reader.read_all(&store);
        history.calls.extend(reader.into_calls());
    }
    for thread in threads {
        history.calls.extend(thread.into_calls());
    }
    history.log = read_log(&store, &subjects)?;
    store.close()?;
    Ok(history)
}

/// The log of all shards, in its order.
///
/// # Errors
///
/// The first error of a read.
pub fn read_log(store: &Store, subjects: &[Subject]) -> Result<Vec<LogRecord>, Error> {
    let mut log = Vec::new();
    for shard in 0..store.shards() {
        for write in store.log(shard).writes() {
            log.push(observe::record(subjects, shard, &write?));
        }
    }
    Ok(log)
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn follow(store: &Store, shard: u16, after: u64) -> annals::WriteSubscription {
    let subscription = store.subscribe(shard);
    match after {
        0 => subscription.writes(),
        after => subscription.after(Position::from_raw(after)).writes(),
    }
}

/// Follows until the store is closed.
fn collect(
    writes: annals::WriteSubscription,
    subjects: &[Subject],
    thread: u16,
    shard: u16,
    after: u64,
    clock: Clock,
) -> Call {
    let called = clock.now();
    let mut items = Vec::with_capacity(4096);
    let mut failed = None;
    for write in writes {
        match write {
            Ok(write) => {
                let at = clock.now();
                let digest = observe::record(subjects, shard, &write).digest();
                items.push(Item { position: write.position().get(), digest, at });
            }
            Err(error) => failed = Some(error),
        }
    }
    let returned = clock.now();
    let outcome = match failed {
        None => Outcome::Logged(items),
        Some(error) => Outcome::Failed(error.to_string()),
    };
    let operation = Operation::Follow { shard, after };
    Call { thread, called, decided: returned, returned, operation, outcome }
}
