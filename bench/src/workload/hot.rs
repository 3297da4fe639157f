//! Everybody wants the same aggregate: each reads its version, decides, and appends on that condition; whoever loses decides again on
//! the version that the conflict names, until the write is in.
//!
//! An operation is a commit, from the read before its first try until it is durable. Afterwards the same threads append to aggregates of their
//! own, in the same store: `own_ratio` is the rate on the one aggregate by the rate on their own.
//!
//! Where the case says so, the loop is the store's own: it *executes* a decision on the aggregate's state. Stores that have nothing for
//! it do what the other case does.
//!
//! One thread can also chain: each write expects the version that the one before it will lead to, and does not wait for it. Or it executes
//! one decision after the other, each on the accepted result of the one before.

use std::time::Instant;

use super::{Case, Measured, Round, clients::Client};
use crate::{
    measure::{
        Meter,
        crew::{self, Shift, Tally, Worker},
        payload::Payloads,
        verify::Acknowledged,
        window::{self, Window},
    },
    store::{Append, Decided, Key, Outcome, Result, Session, Store, Ticket, key},
};

/// The number of the aggregate that everybody wants.
const HOT: u64 = 0;

/// The cases.
pub fn cases() -> Vec<Case> {
    let case = |threads: u64, name: &str, more: &[(&'static str, f64)]| {
        let all = [("threads", threads as f64), ("payload_bytes", 128.0), ("aggregates", 1.0)];
        Case::new("hot", name, all.into_iter().chain(more.iter().copied()))
    };
    let window = ("window", window::tickets(128) as f64);
    let execute = ("execute", 1.0);
    vec![
        case(16, "16 threads", &[]).canonical(),
        case(64, "64 threads", &[]),
        case(16, "16 threads execute", &[execute]),
        case(64, "64 threads execute", &[execute]),
        case(1, "tickets chained", &[window]),
        case(1, "executions chained", &[window, execute]),
    ]
}

/// Runs a case once.
pub fn run<S: Store>(round: &Round<'_>) -> Result<Measured> {
    if round.case.number("window") > 0 { chained::<S>(round) } else { contended::<S>(round) }
}

/// A thread that decides on the one aggregate.
struct Contender {
    key: Key,
    payloads: Payloads,
    execute: bool,
    commits: u64,
}

impl<S: Store> Worker<S> for Contender {
    fn turn(&mut self, session: &mut S::Session, tally: &mut Tally) -> Result<()> {
        let began = Instant::now();
        let payload = self.payloads.next();
        if self.execute {
            session.execute(self.key, payload)?.wait()?;
            self.commits += 1;
            tally.done(began);
            return Ok(());
        }
        let mut version = session.version(self.key)?;
        loop {
            let append = Append { key: self.key, expected: Some(version), payload };
            match session.append(&[append])? {
                Outcome::Committed(_) => break,
                Outcome::Conflict(actual) => {
                    tally.conflicts += 1;
                    version = actual;
                }
            }
        }
        self.commits += 1;
        tally.done(began);
        Ok(())
    }
}

fn contended<S: Store>(round: &Round<'_>) -> Result<Measured> {
    let store = S::open(round.dir, &round.setup)?;
    let threads = round.case.number("threads");
    let payload_bytes = round.case.number("payload_bytes");
    let mut contenders: Vec<Contender> = (0..threads)
        .map(|number| Contender {
            key: key(HOT),
            payloads: Payloads::new(payload_bytes, round.seed ^ number),
            execute: round.case.number("execute") > 0,
            commits: 0,
        })
        .collect();
    let mut clients = Client::all(threads, HOT + 1, round);
    let shift = Shift { warm_up: round.warm_up, measure: round.measure };
    let (spent, tally) = crew::run(&store, &mut contenders, shift)?;
    let (own_spent, own) = crew::run(&store, &mut clients, shift)?;

    let mut acknowledged = Acknowledged::default();
    acknowledged.add(key(HOT), contenders.iter().map(|contender| contender.commits).sum());
    clients.iter().for_each(|client| client.acknowledged(&mut acknowledged));
    acknowledged.check_reopened(store, round)?;

    let own_rate = own.units as f64 / own_spent.elapsed.as_secs_f64();
    let rate = tally.units as f64 / spent.elapsed.as_secs_f64();
    let mut measured = Measured::new("commits", tally.units, spent);
    measured.latency = Some(tally.latency);
    measured.more_latency.insert("own", own.latency);
    measured.conflicts = tally.conflicts;
    measured.figures.insert("own_commits_per_second", own_rate);
    measured.figures.insert("own_ratio", rate / own_rate);
    measured.verified = true;
    Ok(measured)
}

fn chained<S: Store>(round: &Round<'_>) -> Result<Measured> {
    let store = S::open(round.dir, &round.setup)?;
    let mut session = store.session()?;
    let handle = session.handle(key(HOT))?;
    let mut payloads = Payloads::new(round.case.number("payload_bytes"), round.seed);
    let execute = round.case.number("execute") > 0;
    let mut window = Window::new(round.case.number("window"));
    let mut version = 0;
    let mut write_for = |time| -> Result<u64> {
        let began = Instant::now();
        while began.elapsed() < time {
            let payload = payloads.next();
            window.push(match execute {
                true => session.execute(key(HOT), payload)?,
                false => Decided::Accepted(session.submit_to(&handle, Some(version), payload)?),
            })?;
            version += 1;
        }
        window.finish()
    };
    write_for(round.warm_up)?;
    let meter = Meter::begin(store.processes());
    let commits = write_for(round.measure)?;
    let spent = meter.end();
    drop((handle, session));
    let mut acknowledged = Acknowledged::default();
    acknowledged.add(key(HOT), version);
    acknowledged.check_reopened(store, round)?;
    Ok(Measured { verified: true, ..Measured::new("commits", commits, spent) })
}
