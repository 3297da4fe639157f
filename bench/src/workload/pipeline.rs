//! Throughput: one thread, or two, submits conditional appends without waiting for each, tickets in flight in a bounded window.
//!
//! Aggregates are drawn at random, each thread's its own; a condition names the version that the thread's writes before lead to.
//! Warm-up begins aggregates, one event each, in batches where that is faster, until all are begun or the time for it is over, which only
//! slow stores and 10⁷ aggregates need (`begun_share` says how far it got), and then writes for a while. It is measured until
//! the time is over *and* enough bytes were written for eight full segments of Annals, preparation of space included, unless a
//! contender would need several times as long for that. The clock stops when the last ticket has resolved. A unit is a commit.

use std::{
    any::Any,
    sync::Barrier,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{Case, Measured, Round};
use crate::{
    measure::{
        Meter, Spent,
        payload::Payloads,
        verify::Acknowledged,
        window::{self, Window},
    },
    store::{Append, Error, Result, Session, Store, key},
    stores::annals::Annals,
};

/// Keys and payloads of eight segments of Annals, and one for the small ones that a store begins with: what comes on top of them in the log
/// only makes it more.
pub const BYTES_LEAST: u64 = 9 * (64 << 20);

/// How many times as long as asked for it is measured at most to reach [`BYTES_LEAST`].
pub const PATIENCE: u32 = 4;

/// How many times as long as it is warmed up aggregates are begun at most.
const BEGINNING: u32 = 15;

/// How many writes go between two looks at the clock.
const STRIDE: u64 = 32;

/// The cases.
pub fn cases() -> Vec<Case> {
    let case = |threads: u32, by_handle: bool, power: u32, payload_bytes: u32| {
        let parameters = [
            ("threads", f64::from(threads)),
            ("by_handle", f64::from(u8::from(by_handle))),
            ("aggregates", 10_f64.powi(power as i32)),
            ("payload_bytes", f64::from(payload_bytes)),
            ("window", window::tickets(payload_bytes.into()) as f64),
        ];
        let digit = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][power as usize];
        let way = if by_handle { "handle" } else { "key" };
        let size = if payload_bytes < 1024 {
            format!("{payload_bytes} B")
        } else {
            format!("{} KiB", payload_bytes / 1024)
        };
        let threads_too = if threads == 1 { String::new() } else { format!("{threads} threads, ") };
        let name = format!("{threads_too}by {way}, 10{digit}, {size}");
        Case::new("pipeline", name, parameters)
    };
    let mut cases = vec![case(1, false, 6, 128).canonical(), case(1, false, 3, 128)];
    cases.extend([case(1, false, 7, 128), case(1, true, 3, 128), case(1, true, 6, 128)]);
    cases.extend([case(2, false, 3, 128), case(2, false, 6, 128), case(2, false, 7, 128)]);
    cases.extend([case(2, true, 3, 128), case(2, true, 6, 128)]);
    cases.extend([case(1, false, 6, 4096), case(2, false, 6, 4096), case(1, true, 3, 4096)]);
    cases
}

/// Runs a case once.
pub fn run<S: Store>(round: &Round<'_>) -> Result<Measured> {
    let store = S::open(round.dir, &round.setup)?;
    let threads = round.case.number("threads");
    let mut pipes = (0..threads)
        .map(|thread| Pipe::<S::Session>::new(store.session()?, thread, round))
        .collect::<Result<Vec<_>>>()?;
    let (commits, spent, begun) = drive(&store, &mut pipes, round)?;
    let mut acknowledged = Acknowledged::default();
    for pipe in pipes {
        pipe.acknowledged(&mut acknowledged);
    }
    let segments = (&store as &dyn Any)
        .downcast_ref::<Annals>()
        .map(|annals| annals.stats().shards.iter().map(|shard| shard.segments).sum::<u64>());
    acknowledged.check_reopened(store, round)?;
    let mut measured = Measured::new("commits", commits, spent);
    measured.figures.insert("begun_share", begun as f64 / round.case.number("aggregates") as f64);
    measured.figures.extend(segments.map(|segments| ("segments", segments as f64)));
    measured.verified = true;
    Ok(measured)
}

/// Warms up, then measures: how many commits, what they took, and how many aggregates there were before.
fn drive<S: Store>(
    store: &S,
    pipes: &mut [Pipe<S::Session>],
    round: &Round<'_>,
) -> Result<(u64, Spent, u64)> {
    let end = End {
        measure: round.measure,
        bytes: if round.quick { 0 } else { BYTES_LEAST / pipes.len() as u64 },
    };
    let warm = Barrier::new(pipes.len() + 1);
    let start = Barrier::new(pipes.len() + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = pipes
            .iter_mut()
            .map(|pipe| {
                let (warm, start) = (&warm, &start);
                scope.spawn(move || {
                    let warmed = pipe.warm_up(round);
                    warm.wait();
                    start.wait();
                    Ok::<(u64, u64), Error>((pipe.write_until(end)?, warmed?))
                })
            })
            .collect();
        warm.wait();
        let meter = Meter::begin(store.processes());
        start.wait();
        let joined: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        let spent = meter.end();
        let (mut commits, mut begun) = (0, 0);
        for ended in joined {
            let (more, aggregates) =
                ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            commits += more;
            begun += aggregates;
        }
        Ok((commits, spent, begun))
    })
}

/// When measuring ends.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// Not before this.
    pub measure: Duration,
    /// And not before so many bytes, if they can be had in [`PATIENCE`] times as long.
    pub bytes: u64,
}

impl End {
    /// Whether it has come.
    pub fn reached(&self, elapsed: Duration, bytes: u64) -> bool {
        let patience = f64::from(PATIENCE) * self.measure.as_secs_f64();
        let hopeless = || bytes as f64 * patience < self.bytes as f64 * elapsed.as_secs_f64();
        elapsed >= self.measure && (bytes >= self.bytes || hopeless())
    }
}

/// A thread that pipelines, with its aggregates.
struct Pipe<S: Session> {
    session: S,
    /// Of each aggregate: how many events were submitted.
    versions: Vec<u32>,
    /// Of each, if it goes by handle.
    handles: Vec<S::Handle>,
    /// The number of the first aggregate, and how far each is from the one before.
    numbers: (u64, u64),
    window: Window<S::Ticket>,
    payloads: Payloads,
    random: SmallRng,
}

impl<S: Session> Pipe<S> {
    fn new(mut session: S, thread: u64, round: &Round<'_>) -> Result<Pipe<S>> {
        let threads = round.case.number("threads");
        let aggregates = round.case.number("aggregates") / threads;
        let numbers = (thread, threads);
        let handles = if round.case.number("by_handle") > 0 {
            (0..aggregates)
                .map(|place| session.handle(key(numbers.0 + place * numbers.1)))
                .collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        Ok(Pipe {
            session,
            versions: vec![0; aggregates as usize],
            handles,
            numbers,
            window: Window::new(round.case.number("window") / threads),
            payloads: Payloads::new(round.case.number("payload_bytes"), round.seed ^ thread),
            random: SmallRng::seed_from_u64(round.seed ^ thread),
        })
    }

    /// One event to each aggregate, as far as the time goes, then writes that do not count: how many aggregates there
    /// are then.
    fn warm_up(&mut self, round: &Round<'_>) -> Result<u64> {
        let time = round.warm_up * BEGINNING;
        let began = Instant::now();
        let numbers = self.numbers;
        let payloads = &self.payloads;
        let places = 0..self.versions.len() as u64;
        let mut events = places
            .take_while(|place| !place.is_multiple_of(STRIDE) || began.elapsed() < time)
            .map(|place| (key(numbers.0 + place * numbers.1), payloads.at(place)));
        let begun = self.session.load(&mut events)?;
        self.versions[..begun as usize].fill(1);
        self.write_until(End { measure: round.warm_up, bytes: 0 })?;
        Ok(begun)
    }

    /// Writes to random aggregates until the end: how many commits.
    fn write_until(&mut self, end: End) -> Result<u64> {
        let began = Instant::now();
        let mut bytes = 0;
        while !end.reached(began.elapsed(), bytes) {
            for _ in 0..STRIDE {
                let place = self.random.random_range(0..self.versions.len());
                bytes += self.submit(place)?;
            }
        }
        self.window.finish()
    }

    /// Submits the next write to an aggregate: the bytes of its key and payload.
    fn submit(&mut self, place: usize) -> Result<u64> {
        let expected = Some(u64::from(self.versions[place]));
        let payload = self.payloads.next();
        let key = key(self.numbers.0 + place as u64 * self.numbers.1);
        let bytes = (key.len() + payload.len()) as u64;
        let ticket = match self.handles.get(place) {
            Some(handle) => self.session.submit_to(handle, expected, payload)?,
            None => self.session.submit(&[Append { key, expected, payload }])?,
        };
        self.window.push(ticket)?;
        self.versions[place] += 1;
        Ok(bytes)
    }

    fn acknowledged(self, acknowledged: &mut Acknowledged) {
        for (place, version) in (0..).zip(&self.versions) {
            acknowledged.add(key(self.numbers.0 + place * self.numbers.1), u64::from(*version));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measuring_ends_with_time_and_bytes_or_without_hope_of_them() {
        let end = End { measure: Duration::from_secs(1), bytes: 1000 };
        let reached = |millis, bytes| end.reached(Duration::from_millis(millis), bytes);
        assert!(!reached(999, 5000));
        assert!(reached(1000, 1000));
        assert!(!reached(1000, 300), "in four seconds there would be 1,200");
        assert!(reached(1000, 200), "in four seconds there would be 800");
        assert!(reached(3999, 1000));
    }

    #[test]
    fn the_canonical_case_is_the_one_with_a_goal() {
        let cases = cases();
        let canonical: Vec<&str> =
            cases.iter().filter(|case| case.canonical).map(|case| &*case.name).collect();
        assert_eq!(canonical, ["by key, 10⁶, 128 B"]);
    }
}
