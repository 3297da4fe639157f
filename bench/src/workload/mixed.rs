//! Mostly reads: 95 % read the last ten events of an aggregate, 5 % append to one on the version that they have just looked up, and wait
//! until it is durable. Aggregates are drawn by Zipf's law, so that threads meet on the busiest.
//!
//! A unit is an operation of either kind. The latency is that of a read; that of an append is `append`, its look at the version
//! included. An append that loses to another is told so, counts as a conflict, and is not tried again.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use hdrhistogram::Histogram;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, Zipf};

use super::{Case, Measured, Round};
use crate::{
    measure::{
        crew::{self, Shift, Tally, Worker},
        histogram,
        payload::Payloads,
        verify::Acknowledged,
    },
    store::{Append, Outcome, Result, Session, Store, key},
};

/// How many events are read.
const LAST: usize = 10;
/// How many each aggregate has before anything is measured.
const EVENTS_EACH: u64 = 10;
/// Of all operations.
const APPENDS: f64 = 0.05;
/// The law's exponent, as the benchmarks of others have it.
const EXPONENT: f64 = 0.99;

/// The cases.
pub fn cases() -> Vec<Case> {
    let case = |(name, threads)| {
        let parameters = [
            ("threads", threads),
            ("aggregates", 1e4),
            ("payload_bytes", 128.0),
            ("append_share", APPENDS),
        ];
        Case::new("mixed", name, parameters)
    };
    [("1 thread", 1.0), ("4 threads", 4.0), ("16 threads", 16.0)].map(case).to_vec()
}

/// Runs a case once.
pub fn run<S: Store>(round: &Round<'_>) -> Result<Measured> {
    let aggregates = round.case.number("aggregates") / if round.quick { 100 } else { 1 };
    let store = S::open(round.dir, &round.setup)?;
    let payloads = Payloads::new(round.case.number("payload_bytes"), round.seed);
    let numbers = 0..aggregates * EVENTS_EACH;
    let mut events = numbers.map(|number| (key(number % aggregates), payloads.at(number)));
    store.session()?.load(&mut events)?;
    let committed: Vec<AtomicU64> = (0..aggregates).map(|_| AtomicU64::new(0)).collect();
    let mut clients = (0..round.case.number("threads"))
        .map(|thread| {
            Ok(Client {
                random: SmallRng::seed_from_u64(round.seed ^ (thread << 32)),
                law: Zipf::new(aggregates as f64, EXPONENT)?,
                payloads: Payloads::new(round.case.number("payload_bytes"), round.seed ^ thread),
                committed: &committed,
                appends: histogram::empty(),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let shift = Shift { warm_up: round.warm_up, measure: round.measure };
    let (spent, tally) = crew::run(&store, &mut clients, shift)?;
    let mut appends = histogram::empty();
    for client in &clients {
        histogram::merge(&mut appends, &client.appends)?;
    }
    let mut acknowledged = Acknowledged::default();
    for (number, committed) in (0..).zip(&committed) {
        acknowledged.add(key(number), EVENTS_EACH + committed.load(Ordering::Relaxed));
    }
    acknowledged.check_reopened(store, round)?;
    let mut measured = Measured::new("operations", tally.units, spent);
    measured.latency = Some(tally.latency);
    measured.more_latency.insert("append", appends);
    measured.conflicts = tally.conflicts;
    measured.verified = true;
    Ok(measured)
}

struct Client<'a> {
    random: SmallRng,
    law: Zipf<f64>,
    payloads: Payloads,
    /// Of each aggregate: how many appends to it were acknowledged, to anyone.
    committed: &'a [AtomicU64],
    appends: Histogram<u64>,
}

impl<S: Store> Worker<S> for Client<'_> {
    fn turn(&mut self, session: &mut S::Session, tally: &mut Tally) -> Result<()> {
        if tally.units == 0 {
            // Warm-up has just ended, or begun.
            self.appends.clear();
        }
        let place = self.law.sample(&mut self.random) as u64 - 1;
        let begin = Instant::now();
        if !self.random.random_bool(APPENDS) {
            let events = session.read_last(key(place), LAST, &mut |event| {
                black_box(event[0]);
            })?;
            if events != LAST as u64 {
                return Err(
                    format!("an aggregate has {events} last events: expected {LAST}").into()
                );
            }
            tally.done(begin);
            return Ok(());
        }
        let expected = session.version(key(place))?;
        let append =
            Append { key: key(place), expected: Some(expected), payload: self.payloads.next() };
        match session.append(&[append])? {
            Outcome::Committed(_) => {
                self.committed[place as usize].fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Conflict(_) => tally.conflicts += 1,
        }
        tally.units += 1;
        histogram::record(&mut self.appends, begin.elapsed());
        Ok(())
    }
}
