//! The cost of an append as a store grows: 10⁴, 10⁵, 10⁶ and 10⁷ aggregates, each with an event.
//!
//! The store grows from nothing to that size (`growing_nanos_per_event` is what that took); then appends go to aggregates drawn evenly,
//! each on the condition of the version that the writes before lead to, tickets in flight as in `pipeline`. A unit is a commit.

use std::time::Instant;

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{Case, Measured, Round};
use crate::{
    measure::{
        Meter,
        payload::Payloads,
        verify::Acknowledged,
        window::{self, Window},
    },
    store::{Append, Result, Session, Store, key},
};

/// How many writes go between two looks at the clock.
const STRIDE: u64 = 32;

/// What an aggregate may take in memory, of the store and of this workload, before it is not even tried.
const MEMORY_BYTES_EACH: u64 = 300;

/// The cases.
pub fn cases() -> Vec<Case> {
    let case = |(count, exponent): (&str, i32)| {
        let parameters = [
            ("aggregates", 10_f64.powi(exponent)),
            ("payload_bytes", 128.0),
            ("threads", 1.0),
            ("window", window::tickets(128) as f64),
        ];
        let case = Case::new("growth", format!("{count} aggregates"), parameters);
        // What a peer takes to be filled with these is out of all proportion.
        if exponent == 7 { case.annals_only() } else { case }
    };
    [("10³", 3), ("10⁴", 4), ("10⁵", 5), ("10⁶", 6), ("10⁷", 7)].map(case).to_vec()
}

/// Runs a case once.
pub fn run<S: Store>(round: &Round<'_>) -> Result<Measured> {
    let aggregates = round.case.number("aggregates") / if round.quick { 100 } else { 1 };
    expect_memory(aggregates)?;
    let mut payloads = Payloads::new(round.case.number("payload_bytes"), round.seed);
    let store = S::open(round.dir, &round.setup)?;
    let mut session = store.session()?;
    let began = Instant::now();
    session.load(&mut (0..aggregates).map(|number| (key(number), payloads.at(number))))?;
    let growing = began.elapsed();
    let mut versions = vec![1_u32; aggregates as usize];
    let mut random = SmallRng::seed_from_u64(round.seed);
    let mut window = Window::new(round.case.number("window"));
    let mut write_for = |time| -> Result<u64> {
        let began = Instant::now();
        while began.elapsed() < time {
            for _ in 0..STRIDE {
                let place = random.random_range(0..versions.len());
                let version = u64::from(versions[place]);
                let append = Append {
                    key: key(place as u64),
                    expected: Some(version),
                    payload: payloads.next(),
                };
                window.push(session.submit(&[append])?)?;
                versions[place] += 1;
            }
        }
        window.finish()
    };
    write_for(round.warm_up)?;
    let meter = Meter::begin(store.processes());
    let commits = write_for(round.measure)?;
    let spent = meter.end();
    drop(session);
    let mut acknowledged = Acknowledged::default();
    for (place, version) in (0..).zip(&versions) {
        acknowledged.add(key(place), u64::from(*version));
    }
    acknowledged.check_reopened(store, round)?;
    let mut measured = Measured::new("commits", commits, spent);
    let nanos = growing.as_nanos() as f64 / aggregates as f64;
    measured.figures.insert("growing_nanos_per_event", nanos);
    measured.verified = true;
    Ok(measured)
}

/// So many aggregates fit into memory that nobody uses.
fn expect_memory(aggregates: u64) -> Result<()> {
    use procfs::Current;
    let available = procfs::Meminfo::current()?.mem_available.unwrap_or(u64::MAX);
    let needed = aggregates * MEMORY_BYTES_EACH;
    if needed <= available {
        return Ok(());
    }
    Err(format!(
        "{aggregates} aggregates may take {} MiB of memory and {} are free: give it a machine with more, or fewer aggregates",
        needed >> 20,
        available >> 20
    )
    .into())
}
