//! Latency at a given rate: an open loop at 20, 50 and 80 % of capacity.
//!
//! One thread submits conditional appends by a schedule that does not wait for anything, another waits for the tickets. A write's
//! latency counts from when it was due, so a stall is felt by all that were due while it lasted (no coordinated omission). It is that of
//! durability; `submit` is the call alone, from its start.
//!
//! Capacity is what the same two threads reach with the same store when nothing holds them back, found out first, in every round: what other
//! workloads reach with more threads, or with fewer looks at the clock, could not be offered here. `capacity_per_second` says it,
//! `offered_rate` is the share of it that was offered. A unit is a commit.

use std::{
    sync::mpsc::{Receiver, sync_channel},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{Case, Measured, Round};
use crate::{
    measure::{
        Meter, Spent, histogram,
        pace::Pace,
        payload::Payloads,
        verify::Acknowledged,
        window::{rejected, tickets},
    },
    store::{Append, Outcome, Result, Session, Store, Ticket, key},
};

/// How long the capacity is looked for, of the time for warming up and measuring together.
const SEARCH: f64 = 0.25;

/// How many tickets wait at most meanwhile: enough for any store, and soon done by a slow one.
const SEARCH_WINDOW: usize = 16_384;

/// The cases.
pub fn cases() -> Vec<Case> {
    [20, 50, 80]
        .map(|percent| {
            let parameters = [
                ("offered_share", f64::from(percent) / 100.0),
                ("aggregates", 1e4),
                ("payload_bytes", 128.0),
                ("threads", 1.0),
            ];
            Case::new("latency", format!("{percent} % of capacity"), parameters)
        })
        .to_vec()
}

/// Runs a case once.
pub fn run<S: Store>(round: &Round<'_>) -> Result<Measured> {
    let store = S::open(round.dir, &round.setup)?;
    let mut source = Source::new(round);
    let search = (round.warm_up + round.measure).mul_f64(SEARCH);
    let capacity = capacity(&store, &mut source, search)?;
    let rate = round.case.parameters["offered_share"] * capacity;
    let plan = Plan { rate, warm_up: round.warm_up, slice: round.measure, slices: 1 };
    let offered = offer(&store, &mut source, plan)?;
    source.acknowledged().check_reopened(store, round)?;
    let mut measured = offered.measured(capacity, rate)?;
    measured.verified = true;
    Ok(measured)
}

/// Where writes come from: aggregates in turn, each on the version that the writes before lead to.
#[derive(Debug)]
pub(super) struct Source {
    versions: Vec<u64>,
    next: usize,
    payloads: Payloads,
    payload_bytes: u64,
}

impl Source {
    pub(super) fn new(round: &Round<'_>) -> Source {
        let aggregates = round.case.number("aggregates") / if round.quick { 100 } else { 1 };
        Source {
            versions: vec![0; aggregates.max(1) as usize],
            next: 0,
            payloads: Payloads::new(round.case.number("payload_bytes"), round.seed),
            payload_bytes: round.case.number("payload_bytes"),
        }
    }

    fn submit<S: Session>(&mut self, session: &mut S) -> Result<S::Ticket> {
        let place = self.next;
        self.next = (place + 1) % self.versions.len();
        let append = Append {
            key: key(place as u64),
            expected: Some(self.versions[place]),
            payload: self.payloads.next(),
        };
        let ticket = session.submit(&[append])?;
        self.versions[place] += 1;
        Ok(ticket)
    }

    /// What was acknowledged, once all tickets have resolved: everything.
    pub(super) fn acknowledged(&self) -> Acknowledged {
        let mut acknowledged = Acknowledged::default();
        for (number, version) in (0..).zip(&self.versions) {
            acknowledged.add(key(number), *version);
        }
        acknowledged
    }
}

/// What the two threads reach unpaced, in commits a second, after a quarter of that time to warm up.
pub(super) fn capacity<S: Store>(store: &S, source: &mut Source, search: Duration) -> Result<f64> {
    let mut found = 0.0;
    for time in [search / 4, search] {
        let began = Instant::now();
        let flight = Flight { start: began, slice: time, slices: 1, window: SEARCH_WINDOW };
        let next = || Some(Instant::now()).filter(|now| *now < began + time);
        let waited = fly(store, source, flight, next, |_, _| ())?;
        let committed: u64 = waited.iter().map(Histogram::len).sum();
        found = committed as f64 / began.elapsed().as_secs_f64();
    }
    Ok(found)
}

/// What is offered, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Writes a second.
    pub(super) rate: f64,
    /// For so long before anything counts.
    pub(super) warm_up: Duration,
    /// Then for so long, as often as this.
    pub(super) slice: Duration,
    pub(super) slices: usize,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Offered {
    /// From due to durable, by the slice in which it was due.
    pub(super) durable: Vec<Histogram<u64>>,
    /// The call alone.
    submit: Histogram<u64>,
    spent: Spent,
}

impl Offered {
    /// As figures, of all slices together. Not verified yet.
    pub(super) fn measured(self, capacity: f64, rate: f64) -> Result<Measured> {
        let mut durable = histogram::empty();
        for slice in &self.durable {
            histogram::merge(&mut durable, slice)?;
        }
        let mut measured = Measured::new("commits", durable.len(), self.spent);
        measured.latency = Some(durable);
        measured.more_latency.insert("submit", self.submit);
        measured.figures.insert("capacity_per_second", capacity);
        measured.figures.insert("offered_rate", rate);
        Ok(measured)
    }
}

/// Offers writes by the plan, and waits for all of them.
pub(super) fn offer<S: Store>(store: &S, source: &mut Source, plan: Plan) -> Result<Offered> {
    let mut submit = histogram::empty();
    let mut meter = None;
    let mut pace = Pace::new(plan.rate);
    let start = pace.due() + plan.warm_up;
    let end = start + plan.slice * plan.slices as u32;
    let window = tickets(source.payload_bytes) as usize;
    let flight = Flight { start, slice: plan.slice, slices: plan.slices, window };
    let next = || {
        let due = pace.wait();
        if due >= start && meter.is_none() {
            meter = Some(Meter::begin(store.processes()));
        }
        Some(due).filter(|due| *due < end)
    };
    let durable = fly(store, source, flight, next, |due, time| {
        if due >= start {
            histogram::record(&mut submit, time);
        }
    })?;
    let spent = meter
        .map(Meter::end)
        .ok_or("nothing was due while it was measured: the rate is too low for that time")?;
    Ok(Offered { durable, submit, spent })
}

/// When what is due counts, and how much may be under way.
#[derive(Debug, Clone, Copy)]
struct Flight {
    /// What was due before does not count.
    start: Instant,
    /// Latencies are told apart by slices of this length. What was due after the last does not count.
    slice: Duration,
    slices: usize,
    /// How many tickets wait at most.
    window: usize,
}

impl Flight {
    fn place(&self, due: Instant) -> Option<usize> {
        let since = due.checked_duration_since(self.start)?;
        let place = (since.as_nanos() / self.slice.as_nanos().max(1)) as usize;
        Some(place).filter(|place| *place < self.slices)
    }
}

/// A write under way, and when it was due.
struct Flying<T> {
    ticket: T,
    due: Instant,
}

/// Submits a write whenever `next` says that one is due, until it says nothing; another thread waits for each. `submitted` is told how
/// long each call took.
fn fly<S: Store>(
    store: &S,
    source: &mut Source,
    flight: Flight,
    mut next: impl FnMut() -> Option<Instant>,
    mut submitted: impl FnMut(Instant, Duration),
) -> Result<Vec<Histogram<u64>>> {
    let mut session = store.session()?;
    // Full only if the store can't keep up; what is due then waits here, and its latency says so.
    let (sender, receiver) = sync_channel(flight.window);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || wait_for_each(receiver, flight));
        let mut submit_all = || -> Result<()> {
            while let Some(due) = next() {
                let began = Instant::now();
                let ticket = source.submit(&mut session)?;
                submitted(due, began.elapsed());
                if sender.send(Flying { ticket, due }).is_err() {
                    // The other thread has failed, and says why.
                    break;
                }
            }
            Ok(())
        };
        let submitted = submit_all();
        drop(sender);
        let waited = waiter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        submitted.map(|()| waited)
    })
}

/// Waits for tickets in the order in which they were given out: how long after it was due each was durable.
fn wait_for_each<T: Ticket>(
    flying: Receiver<Flying<T>>,
    flight: Flight,
) -> Result<Vec<Histogram<u64>>> {
    let mut durable = vec![histogram::empty(); flight.slices];
    for Flying { ticket, due } in flying {
        if let Outcome::Conflict(actual) = ticket.wait()? {
            return Err(rejected(actual));
        }
        if let Some(place) = flight.place(due) {
            histogram::record(&mut durable[place], due.elapsed());
        }
    }
    Ok(durable)
}

#[cfg(test)]
mod tests {
    use std::{pin::Pin, task};

    use super::*;
    use crate::store::{Key, Setup};

    /// Forgets everything, and answers late.
    struct Slow;

    struct Late(Instant, u64);

    impl Future for Late {
        type Output = Result<Outcome>;

        fn poll(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> task::Poll<Self::Output> {
            task::Poll::Pending
        }
    }

    impl Ticket for Late {
        fn wait(self) -> Result<Outcome> {
            std::thread::sleep(self.0.saturating_duration_since(Instant::now()));
            Ok(Outcome::Committed(self.1))
        }
    }

    const DELAY: Duration = Duration::from_millis(20);

    impl Store for Slow {
        type Session = Slow;

        fn open(_: &std::path::Path, _: &Setup) -> Result<Slow> {
            Ok(Slow)
        }

        fn session(&self) -> Result<Slow> {
            Ok(Slow)
        }

        fn close(self) -> Result<()> {
            Ok(())
        }
    }

    impl Session for Slow {
        type Ticket = Late;
        type Handle = Key;

        fn submit(&mut self, appends: &[Append<'_>]) -> Result<Late> {
            Ok(Late(Instant::now() + DELAY, appends[0].expected.unwrap_or(0) + 1))
        }

        fn handle(&mut self, key: Key) -> Result<Key> {
            Ok(key)
        }

        fn submit_to(&mut self, _: &Key, _: Option<u64>, _: &[u8]) -> Result<Late> {
            Ok(Late(Instant::now(), 1))
        }

        fn version(&mut self, _: Key) -> Result<u64> {
            Ok(0)
        }

        fn read_last(&mut self, _: Key, _: usize, _: &mut dyn FnMut(&[u8])) -> Result<u64> {
            Ok(0)
        }

        fn read_all(&mut self, _: &mut dyn FnMut(&[u8])) -> Result<u64> {
            Ok(0)
        }
    }

    fn source() -> Source {
        Source { versions: vec![0; 7], next: 0, payloads: Payloads::new(8, 1), payload_bytes: 8 }
    }

    #[test]
    fn what_is_offered_is_counted_by_the_slice_in_which_it_was_due() {
        let ms = Duration::from_millis;
        let mut source = source();
        let plan = Plan { rate: 1000.0, warm_up: ms(10), slice: ms(20), slices: 3 };
        let offered = offer(&Slow, &mut source, plan).unwrap();
        let counts: Vec<u64> = offered.durable.iter().map(Histogram::len).collect();
        assert_eq!(counts, [20, 20, 20]);
        assert_eq!(offered.submit.len(), 60);
        assert_eq!(source.acknowledged().events(), 70);
        for slice in &offered.durable {
            assert!(slice.min() >= DELAY.as_nanos() as u64 - 100_000, "{}", slice.min());
        }
    }

    #[test]
    fn a_stall_is_felt_by_all_that_were_due_meanwhile() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let flight = Flight { start, slice: ms(100), slices: 1, window: 10 };
        let (sender, receiver) = sync_channel(10);
        for number in 0..5 {
            let due = start + ms(10) * number;
            sender.send(Flying { ticket: Late(start + ms(50), 1), due }).unwrap();
        }
        drop(sender);
        let durable = wait_for_each(receiver, flight).unwrap();
        assert_eq!(durable[0].len(), 5);
        assert!(durable[0].max() >= 49_000_000 && durable[0].min() >= 9_000_000);
    }

    #[test]
    fn what_was_due_before_or_after_does_not_count() {
        let ms = Duration::from_millis;
        let start = Instant::now() + ms(1000);
        let flight = Flight { start, slice: ms(10), slices: 2, window: 1 };
        let place = |at: u64| flight.place(start - ms(1000) + ms(at));
        assert_eq!(
            [999, 1000, 1009, 1010, 1019, 1020].map(place),
            [None, Some(0), Some(0), Some(1), Some(1), None]
        );
    }
}
