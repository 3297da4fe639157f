//! How long until a loser knows: a conditional append whose condition does not hold, from the call until its outcome is known.
//!
//! On an aggregate where nothing happens; on one with a write under way that is accepted and not yet durable; and while eight threads
//! append to it. A store whose submission waits has no write under way by itself, and is asked the same. An operation is one conflict; reading the
//! clock is part of it (`clock_nanos` is what two readings take). A write that is rejected must leave nothing behind.

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::{Case, Measured, Round};
use crate::{
    measure::{Meter, crew::Tally, payload::Payloads, verify::Acknowledged},
    store::{Append, Key, Outcome, Result, Session, Store, Ticket, key},
};

/// The aggregate.
const NUMBER: u64 = 0;

/// How many losers follow each write that is under way.
const LOSERS_EACH: u64 = 16;

/// The version that losers expect: there is an event before the first of them.
const STALE: Option<u64> = Some(0);

/// The cases.
pub fn cases() -> Vec<Case> {
    let case = |name, writers: u32, pending: u32, by_handle: u32| {
        let parameters = [
            ("writers", f64::from(writers)),
            ("pending", f64::from(pending)),
            ("by_handle", f64::from(by_handle)),
            ("payload_bytes", 128.0),
        ];
        Case::new("conflict", name, parameters)
    };
    vec![
        case("quiet slot", 0, 0, 0).canonical(),
        case("pending write", 0, 1, 0).canonical(),
        case("eight writers", 8, 0, 0),
        case("quiet slot, by handle", 0, 0, 1),
        case("pending write, by handle", 0, 1, 1),
    ]
}

/// Runs a case once.
pub fn run<S: Store>(round: &Round<'_>) -> Result<Measured> {
    let store = S::open(round.dir, &round.setup)?;
    let (measured, version) = lose::<S>(&store, round)?;
    let mut acknowledged = Acknowledged::default();
    acknowledged.add(key(NUMBER), version);
    acknowledged.check_reopened(store, round)?;
    Ok(Measured { verified: true, ..measured })
}

/// Loses for as long as is measured: what was found, and the version of the aggregate.
fn lose<S: Store>(store: &S, round: &Round<'_>) -> Result<(Measured, u64)> {
    let mut loser = Loser::<S> {
        session: store.session()?,
        key: key(NUMBER),
        handle: None,
        payloads: Payloads::new(round.case.number("payload_bytes"), round.seed),
        version: 0,
    };
    loser.win()?.wait()?;
    if round.case.number("by_handle") > 0 {
        loser.handle = Some(loser.session.handle(loser.key)?);
    }
    let pending = round.case.number("pending") > 0;
    let writers = round.case.number("writers");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sessions = (0..writers).map(|_| store.session()).collect::<Result<Vec<_>>>()?;
        let threads: Vec<_> = sessions
            .into_iter()
            .map(|session| {
                let payloads = loser.payloads.clone();
                let stop = &stop;
                scope.spawn(move || append_until(session, payloads, stop))
            })
            .collect();
        let lost = measure(&mut loser, round, store, pending);
        stop.store(true, Ordering::Relaxed);
        let mut version = loser.version;
        for thread in threads {
            version += thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok((lost?, version))
    })
}

fn measure<S: Store>(
    loser: &mut Loser<S>,
    round: &Round<'_>,
    store: &S,
    pending: bool,
) -> Result<Measured> {
    loser.lose_for(round.warm_up, pending, &mut Tally::default())?;
    let mut tally = Tally::default();
    let meter = Meter::begin(store.processes());
    let losing = loser.lose_for(round.measure, pending, &mut tally)?;
    let spent = meter.end();
    let mut measured = Measured::new("conflicts", tally.units, spent);
    // Writes under way take time between the losers that is not theirs.
    measured.elapsed = losing;
    measured.conflicts = tally.units;
    measured.latency = Some(tally.latency);
    measured.figures.insert("clock_nanos", clock_nanos());
    if pending {
        // So is their processor time, and their bytes.
        measured.processor = None;
        measured.written_bytes = None;
    }
    Ok(measured)
}

/// One that is always too late.
struct Loser<S: Store> {
    session: S::Session,
    key: Key,
    handle: Option<<S::Session as Session>::Handle>,
    payloads: Payloads,
    version: u64,
}

impl<S: Store> Loser<S> {
    /// Loses for so long: how much of that time the losing itself took.
    fn lose_for(&mut self, time: Duration, pending: bool, tally: &mut Tally) -> Result<Duration> {
        let began = Instant::now();
        let mut losing = Duration::ZERO;
        while began.elapsed() < time {
            let under_way = if pending { Some(self.win()?) } else { None };
            let first = Instant::now();
            for _ in 0..LOSERS_EACH {
                self.lose(tally)?;
            }
            losing += first.elapsed();
            if let Some(ticket) = under_way {
                committed(ticket.wait()?, self.version)?;
            }
        }
        Ok(losing)
    }

    /// Starts a write whose condition holds.
    fn win(&mut self) -> Result<<S::Session as Session>::Ticket> {
        let expected = Some(self.version);
        self.version += 1;
        self.session.submit(&[Append { key: self.key, expected, payload: self.payloads.next() }])
    }

    fn lose(&mut self, tally: &mut Tally) -> Result<()> {
        let payload = self.payloads.next();
        let began = Instant::now();
        let ticket = match &self.handle {
            Some(handle) => self.session.submit_to(handle, STALE, payload)?,
            None => self.session.submit(&[Append { key: self.key, expected: STALE, payload }])?,
        };
        let outcome = ticket.wait()?;
        tally.done(began);
        match outcome {
            Outcome::Conflict(actual) if actual > 0 => Ok(()),
            other => Err(format!(
                "a write on a stale version ended as {other:?}: expected a conflict that names the version"
            )
            .into()),
        }
    }
}

fn committed(outcome: Outcome, version: u64) -> Result<()> {
    match outcome {
        Outcome::Committed(found) if found == version => Ok(()),
        other => {
            Err(format!("a write ended as {other:?}: expected it to lead to version {version}")
                .into())
        }
    }
}

/// Appends to the aggregate, whatever its version, until told to stop: how often.
fn append_until<S: Session>(
    mut session: S,
    mut payloads: Payloads,
    stop: &AtomicBool,
) -> Result<u64> {
    let mut appended = 0;
    while !stop.load(Ordering::Relaxed) {
        let append = Append { key: key(NUMBER), expected: None, payload: payloads.next() };
        if let Outcome::Conflict(actual) = session.append(&[append])? {
            return Err(
                format!("a write without a condition was rejected at version {actual}").into()
            );
        }
        appended += 1;
    }
    Ok(appended)
}

/// What it takes to read the clock twice.
fn clock_nanos() -> f64 {
    const TIMES: u32 = 10_000;
    let began = Instant::now();
    for _ in 0..TIMES {
        black_box(black_box(Instant::now()).elapsed());
    }
    began.elapsed().as_nanos() as f64 / f64::from(TIMES)
}
