//! Two aggregates of a million, changed together or not at all: one thread, its tickets in flight.
//!
//! Aggregates are drawn by a Zipf distribution, so some are in many writes that are not yet durable; both conditions name the version
//! that the writes before lead to. A unit is a write of two events. The same draws are also appended one by one, in the same store:
//! `single_processor_nanos` is the processor time of one such append, `processor_ratio` that of a transfer by it.

use std::time::{Duration, Instant};

use rand::{SeedableRng, distr::Distribution, rngs::SmallRng};
use rand_distr::Zipf;

use super::{Case, Measured, Round};
use crate::{
    measure::{
        Meter, Spent,
        payload::Payloads,
        verify::Acknowledged,
        window::{self, Window},
    },
    store::{Append, Result, Session, Store, key},
};

/// The exponent that key-value benchmarks have long used.
const ZIPF_EXPONENT: f64 = 0.99;

/// How many pairs are drawn beforehand. They come again in the same order.
const PAIRS: usize = 1 << 20;

/// The cases.
pub fn cases() -> Vec<Case> {
    let parameters = [
        ("threads", 1.0),
        ("aggregates", 1e6),
        ("payload_bytes", 128.0),
        ("window", window::tickets(256) as f64),
        ("zipf_exponent", ZIPF_EXPONENT),
    ];
    vec![Case::new("transfer", "2 of 10⁶ aggregates", parameters).canonical()]
}

/// Runs a case once.
pub fn run<S: Store>(round: &Round<'_>) -> Result<Measured> {
    let mut bank = Bank::new(round)?;
    let store = S::open(round.dir, &round.setup)?;
    let mut session = store.session()?;
    let mut window = Window::new(round.case.number("window"));

    let mut both = |session: &mut S::Session, bank: &mut Bank, time: Duration, parts: usize| {
        let meter = Meter::begin(store.processes());
        let began = Instant::now();
        while began.elapsed() < time {
            bank.submit(session, parts, &mut window)?;
        }
        let writes = window.finish()?;
        Ok::<(u64, Spent), crate::store::Error>((writes, meter.end()))
    };
    both(&mut session, &mut bank, round.warm_up, 1)?;
    let (appends, append_spent) = both(&mut session, &mut bank, round.measure / 2, 1)?;
    both(&mut session, &mut bank, round.warm_up, 2)?;
    let (transfers, spent) = both(&mut session, &mut bank, round.measure, 2)?;
    drop(session);

    let mut acknowledged = Acknowledged::default();
    for (number, version) in (0..).zip(&bank.versions) {
        acknowledged.add(key(number), u64::from(*version));
    }
    acknowledged.check_reopened(store, round)?;

    let single = append_spent.processor.as_nanos() as f64 / appends.max(1) as f64;
    let double = spent.processor.as_nanos() as f64 / transfers.max(1) as f64;
    let mut measured = Measured::new("commits", transfers, spent);
    measured.figures.insert("single_processor_nanos", single);
    if single > 0.0 {
        measured.figures.insert("processor_ratio", double / single);
    }
    measured.verified = true;
    Ok(measured)
}

/// The aggregates' versions, and who transfers to whom.
struct Bank {
    versions: Vec<u32>,
    pairs: Vec<[u32; 2]>,
    next: usize,
    payloads: [Payloads; 2],
}

impl Bank {
    fn new(round: &Round<'_>) -> Result<Bank> {
        let count = round.case.number("aggregates");
        let mut random = SmallRng::seed_from_u64(round.seed);
        let zipf = Zipf::new(count as f64, ZIPF_EXPONENT)?;
        let mut draw = || zipf.sample(&mut random) as u32 - 1;
        let pairs = std::iter::repeat_with(|| [draw(), draw()]).filter(|[from, to]| from != to);
        let payload_bytes = round.case.number("payload_bytes");
        let payloads = [1, 2].map(|number| Payloads::new(payload_bytes, round.seed ^ number));
        Ok(Bank {
            versions: vec![0; count as usize],
            pairs: pairs.take(PAIRS).collect(),
            next: 0,
            payloads,
        })
    }

    /// Submits the next write, to the first `parts` aggregates of the next pair.
    fn submit<S: Session>(
        &mut self,
        session: &mut S,
        parts: usize,
        window: &mut Window<S::Ticket>,
    ) -> Result<()> {
        let pair = self.pairs[self.next];
        self.next = (self.next + 1) % self.pairs.len();
        let [one, two] = &mut self.payloads;
        let part = |number: u32, payload| Append {
            key: key(u64::from(number)),
            expected: Some(u64::from(self.versions[number as usize])),
            payload,
        };
        let appends = [part(pair[0], one.next()), part(pair[1], two.next())];
        window.push(session.submit(&appends[..parts])?)?;
        for number in &pair[..parts] {
            self.versions[*number as usize] += 1;
        }
        Ok(())
    }
}
