//! Reading: one aggregate of 100,000 events, and all events of a store; just after they were written, and cold.
//!
//! "From memory" is what a store holds on to, or the system's cache does, right after it was filled. "Cold" is after it was closed, the
//! system's cache has forgotten its files, it was opened, and the cache has forgotten them again, because an opening reads them:
//! `cached_share` says how much of them was still there. Caches below the system stay.
//!
//! A unit is an event whose bytes were handed out; an operation is a whole pass. `read_bytes_per_second` is all bytes of the store's
//! files by that time, for cold passes.

use std::{hint::black_box, time::Duration};

use super::{Case, Measured, Round};
use crate::{
    measure::{Meter, Spent, folder, histogram, payload::Payloads},
    store::{Result, Session, Store, key},
};

/// How often all is read in a round, at most.
const PASSES_MAX: u32 = 1_000;
/// And cold: every pass needs an opening.
const COLD_PASSES_MAX: u32 = 5;

/// The cases.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, aggregates: f64, events: f64, cold: bool| {
        let name = format!("{name}, {}", if cold { "cold" } else { "from memory" });
        let parameters = [
            ("aggregates", aggregates),
            ("events", events),
            ("cold", f64::from(u8::from(cold))),
            ("payload_bytes", 128.0),
        ];
        Case::new("replay", name, parameters)
    };
    vec![
        case("one aggregate", 1.0, 1e5, false),
        case("one aggregate", 1.0, 1e5, true),
        case("all of 2·10⁵ events", 1e3, 2e5, false),
        case("all of 2·10⁵ events", 1e3, 2e5, true),
        case("all of 5·10⁶ events", 1e5, 5e6, true).annals_only(),
    ]
}

/// Runs a case once.
pub fn run<S: Store>(round: &Round<'_>) -> Result<Measured> {
    let cold = round.case.number("cold") > 0;
    let (store, expected) = fill::<S>(round)?;
    let mut store = Some(store);
    let mut passes = histogram::empty();
    let mut spent = Spent { elapsed: Duration::ZERO, processor: Duration::ZERO, written_bytes: 0 };
    let mut cached = None;
    for _ in 0..if cold { COLD_PASSES_MAX } else { PASSES_MAX } {
        if cold && let Some(open) = store.take() {
            open.close()?;
            folder::drop_cache(round.dir)?;
        }
        let open = match store.take() {
            Some(open) => open,
            None => S::open(round.dir, &round.setup)?,
        };
        if cold {
            folder::drop_cache(round.dir)?;
            cached = folder::cached_share(round.dir);
        }
        let pass = pass(&open, expected, round)?;
        histogram::record(&mut passes, pass.elapsed);
        spent.elapsed += pass.elapsed;
        spent.processor += pass.processor;
        spent.written_bytes += pass.written_bytes;
        store = Some(open);
        if spent.elapsed >= round.measure {
            break;
        }
    }
    if let Some(open) = store {
        open.close()?;
    }
    let reopened = S::open(round.dir, &round.setup)?;
    pass(&reopened, expected, round)?;
    reopened.close()?;
    let mut measured = Measured::new("events", expected.events * passes.len(), spent);
    if cold {
        let bytes = folder::bytes(round.dir)? as f64 * passes.len() as f64;
        measured.figures.insert("read_bytes_per_second", bytes / spent.elapsed.as_secs_f64());
    }
    if let Some(share) = cached {
        measured.figures.insert("cached_share", share);
    }
    measured.latency = Some(passes);
    measured.verified = true;
    Ok(measured)
}

/// What a pass must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected {
    events: u64,
    bytes: u64,
}

fn fill<S: Store>(round: &Round<'_>) -> Result<(S, Expected)> {
    let events = round.case.number("events") / if round.quick { 100 } else { 1 };
    let aggregates = round.case.number("aggregates");
    let payloads = Payloads::new(round.case.number("payload_bytes"), round.seed);
    let store = S::open(round.dir, &round.setup)?;
    let mut session = store.session()?;
    let mut numbered = (0..events).map(|number| (key(number % aggregates), payloads.at(number)));
    let written = session.load(&mut numbered)?;
    drop(session);
    Ok((store, Expected { events: written, bytes: written * round.case.number("payload_bytes") }))
}

/// Reads all of it once.
fn pass<S: Store>(store: &S, expected: Expected, round: &Round<'_>) -> Result<Spent> {
    let mut session = store.session()?;
    let mut bytes = 0;
    let mut each = |event: &[u8]| bytes += black_box(event).len() as u64;
    let meter = Meter::begin(store.processes());
    let events = match round.case.number("aggregates") {
        1 => session.read_last(key(0), expected.events as usize, &mut each)?,
        _ => session.read_all(&mut each)?,
    };
    let spent = meter.end();
    let found = Expected { events, bytes };
    if found != expected {
        return Err(format!(
            "a pass found {found:?}: expected {expected:?}, all that was acknowledged"
        )
        .into());
    }
    Ok(spent)
}
