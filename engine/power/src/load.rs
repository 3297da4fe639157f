//! What is done to a store while the power is on: threads that append to one and to several aggregates, with and
//! without conditions, send again what they sent, and say what came of each write.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use annals::{Committed, Error, ErrorKind, Event, Expect, Store, Ticket};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::plan::{Plan, WriteId};
use crate::truth::{Stands, Word};

/// The type of every event.
pub const EVENT_TYPE: &str = "Written";
/// Clients are a life's number times this, and the number of the thread.
pub const CLIENTS_PER_LIFE: u64 = 100;

/// A load on a store.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Decides what every write is.
    pub seed: u64,
    /// Which life of the run.
    pub life: u64,
    /// Threads that write.
    pub threads: u64,
    /// Writes that a thread submits before it waits.
    pub burst: u64,
    /// Bytes of events after which it ends.
    pub bytes: u64,
}

impl Load {
    /// Runs until it has written its bytes or is told to stop, and tells what came of each write.
    pub fn run(&self, store: &Store, stop: &AtomicBool, tell: &(dyn Fn(Word) + Sync)) {
        let written = AtomicU64::new(0);
        thread::scope(|scope| {
            for thread in 0..self.threads {
                let written = &written;
                scope.spawn(move || self.run_thread(thread, store, stop, written, tell));
            }
        });
    }

    fn run_thread(
        &self,
        thread: u64,
        store: &Store,
        stop: &AtomicBool,
        written: &AtomicU64,
        tell: &(dyn Fn(Word) + Sync),
    ) {
        let client = self.life * CLIENTS_PER_LIFE + thread;
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ client);
        let mut sequence = 0;
        while !stop.load(Ordering::Relaxed) && written.load(Ordering::Relaxed) < self.bytes {
            let mut sent: Vec<(WriteId, Plan, Ticket)> = Vec::new();
            let mut stopped = false;
            for _ in 0..self.burst {
                sequence += 1;
                let id = WriteId { client, sequence };
                let plan = id.plan(self.seed);
                let bytes =
                    plan.parts.iter().flat_map(|part| &part.events).map(Vec::len).sum::<usize>();
                written.fetch_add(bytes as u64, Ordering::Relaxed);
                match send(store, id, &plan, Some(&mut random)) {
                    Ok(ticket) => sent.push((id, plan, ticket)),
                    Err(error) => {
                        tell(Word::Refused(id));
                        if let Some(wrong) = complaint(&error) {
                            tell(Word::Wrong(format!("{id:?} was refused: {wrong}")));
                        }
                        stopped |= error.kind() == ErrorKind::Stopped;
                    }
                }
            }
            let mut last = None;
            for (id, plan, ticket) in sent {
                let outcome = ticket.wait();
                last = outcome.is_ok().then_some((id, plan.clone()));
                tell(word_of(store, id, &plan, outcome));
            }
            if let Some((id, plan)) = last
                && plan.retriable
                && id.sequence == sequence
                && random.random_bool(0.3)
            {
                tell(send_again(store, id, &plan));
            }
            if stopped {
                return;
            }
        }
    }
}

/// Submits a write, with conditions that hold now or nearly.
pub fn send(
    store: &Store,
    id: WriteId,
    plan: &Plan,
    mut conditions: Option<&mut ChaCha8Rng>,
) -> Result<Ticket, Error> {
    let mut write = store.write();
    for part in &plan.parts {
        let expect = match &mut conditions {
            Some(random) => condition(store, &part.key, random)?,
            None => Expect::Any,
        };
        let events = part.events.iter().map(|data| Event::new(EVENT_TYPE, data.as_slice()));
        write = write.append(&part.key, expect, events);
    }
    if let Some(key) = &plan.check {
        let version = store.version_accepted(key)?;
        write = write.check(key, if version == 0 { Expect::Absent } else { Expect::Exists });
    }
    if plan.retriable {
        write = write.client(u128::from(id.client), id.sequence);
    }
    write.submit()
}

fn condition(store: &Store, key: &str, random: &mut ChaCha8Rng) -> Result<Expect, Error> {
    Ok(match random.random_range(0..10) {
        0..4 => Expect::Any,
        // Wrong from the start, sometimes.
        4 => Expect::Version(random.random_range(0..10_000)),
        _ => match store.version_accepted(key)? {
            0 => Expect::Absent,
            version => Expect::Version(version),
        },
    })
}

/// Sends a write again that was acknowledged as the newest of its client.
fn send_again(store: &Store, id: WriteId, plan: &Plan) -> Word {
    match send(store, id, plan, None).and_then(|ticket| ticket.wait()) {
        Ok(done) if done.is_replay() => Word::Replayed(stands(store, id, plan, &done)),
        Ok(done) => Word::Wrong(format!("{id:?} was written again: {done:?}")),
        // The shard has failed in between.
        Err(error) if failed(&error) => Word::Unknown(id),
        Err(error) => Word::Wrong(format!("{id:?}, sent again: {error}")),
    }
}

fn failed(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Stopped | ErrorKind::NotWritten | ErrorKind::OutcomeUnknown | ErrorKind::Io
    )
}

/// What came of a write, in the words of the truth.
pub fn word_of(store: &Store, id: WriteId, plan: &Plan, outcome: Result<Committed, Error>) -> Word {
    match outcome {
        Ok(done) => Word::Acknowledged(stands(store, id, plan, &done)),
        Err(error) => match error.kind() {
            ErrorKind::NotWritten => Word::Refused(id),
            ErrorKind::OutcomeUnknown => Word::Unknown(id),
            _ => Word::Wrong(format!("the ticket of {id:?} says: {error}")),
        },
    }
}

/// Where a write stands that was committed.
pub fn stands(store: &Store, id: WriteId, plan: &Plan, done: &Committed) -> Stands {
    let versions = plan.parts.iter().map(|part| done.version_of(&part.key).unwrap_or(0)).collect();
    let shard = store.shard_of(&plan.parts[0].key);
    Stands { id, shard, position: done.position().get(), versions }
}

/// A refusal that none of these writes can have earned.
fn complaint(error: &Error) -> Option<String> {
    let earned = matches!(
        error.kind(),
        ErrorKind::Conflict
            | ErrorKind::NotFound
            | ErrorKind::Full
            | ErrorKind::Busy
            | ErrorKind::Stopped
            | ErrorKind::Io
    );
    (!earned).then(|| error.to_string())
}
