//! Deciding: fold what an aggregate has been through, decide, append on the version that was seen.
//!
//! ```text
//!            ┌──────────────── lost a race: fold what is new ───────────────┐
//!            ▼                                                              │
//! recall ─► fold accepted events ─► decide ─┬─ events ─► append on version ─┴─► ticket
//!                                           └─ none, or a refusal ────────────► barrier: all that was seen is durable
//! ```
//!
//! The fold sees what is accepted and not yet durable, so an execution waits for no flush, and neither does the next one
//! on the same aggregate. What comes of it waits: the write's ticket resolves after all that it was decided on (the log
//! is in that order), and a refusal after a barrier behind it.

mod execution;
mod snapshot;
mod state;
mod states;

use std::fmt;
use std::slice;
use std::sync::Arc;

use smallvec::SmallVec;

pub use self::execution::Execution;
pub use self::state::State;
pub use self::states::States;

use self::states::Recall;
use crate::append::Target;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::expect::Expect;
use crate::index::SlotKey;
use crate::key::{self, KeyBuf};
use crate::read::Folded;
use crate::reserve::slot_ref::SlotRef;
use crate::reserve::step;
use crate::shard::Shard;
use crate::store::Store;
use crate::sync::backoff::Backoff;
use crate::ticket::Ticket;
use crate::writer::intake::Patience;

/// How often an execution decides, unless it is told otherwise.
const ATTEMPTS: u32 = 64;

/// Executions with settings of their own. Made by [`Store::executor`] and [`States::executor`].
#[must_use = "nothing is executed before `execute`"]
pub struct Executor<'a, S> {
    store: &'a Store,
    kept: Option<&'a dyn Recall<S>>,
    attempts: u32,
    client: Option<(u128, u64)>,
}

/// An aggregate that is being decided on. Its state stands beside it.
struct Subject {
    key: KeyBuf,
    hash: u64,
    slot: Option<SlotRef>,
    /// The version that the state is of.
    version: u64,
    /// The version of the newest snapshot that is known.
    snapshot: u64,
    /// Nothing of what the state rests on was pending.
    quiet: bool,
}

/// The events that were decided for each aggregate.
type Decisions = SmallVec<[Vec<Event>; 1]>;

impl<'a, S: State> Executor<'a, S> {
    pub(crate) fn new(store: &'a Store) -> Executor<'a, S> {
        Executor { store, kept: None, attempts: ATTEMPTS, client: None }
    }

    fn keeping(store: &'a Store, kept: &'a dyn Recall<S>) -> Executor<'a, S> {
        Executor { kept: Some(kept), ..Executor::new(store) }
    }

    /// Decides so often at most, at least once: 64 times unless set. Beyond it the execution fails with
    /// [`Contended`](ErrorKind::Contended).
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Makes a retry safe, as [`Write::client`](crate::Write::client): if the client has made this write before, its
    /// original result is given, and nothing is decided. A refusal and a decision on no events write nothing, so they are
    /// not known again.
    pub fn client(mut self, client: u128, sequence: u64) -> Self {
        self.client = Some((client, sequence));
        self
    }

    /// Decides on one aggregate. See [`Store::execute`].
    pub fn execute<R>(
        &self,
        key: impl AsRef<[u8]>,
        decide: impl FnMut(&S) -> Result<Vec<Event>, R>,
    ) -> Execution<R> {
        self.execute_at(key.as_ref(), None, decide)
    }

    /// As [`Executor::execute`], with the slot if it is at hand.
    pub(crate) fn execute_at<R>(
        &self,
        key: &[u8],
        slot: Option<SlotRef>,
        mut decide: impl FnMut(&S) -> Result<Vec<Event>, R>,
    ) -> Execution<R> {
        let executed = self.subject(key).and_then(|(shard, mut subject)| {
            subject.slot = slot;
            let subjects = slice::from_mut(&mut subject);
            let mut decide = |states: &[S]| match states {
                [state] => decide(state).map(|events| Decisions::from_iter([events])),
                _ => Ok(Decisions::new()),
            };
            self.run(shard, subjects, &mut [S::default()], &mut decide)
        });
        executed.unwrap_or_else(|error| Execution::resolved(Err(error)))
    }

    /// Decides on several aggregates at once. See [`Store::execute_all`].
    pub fn execute_all<R>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<[u8]>>,
        mut decide: impl FnMut(&[S]) -> Result<Vec<Vec<Event>>, R>,
    ) -> Execution<R> {
        let executed = self.subjects(keys).and_then(|(shard, mut subjects)| {
            let mut states: Vec<S> = subjects.iter().map(|_| S::default()).collect();
            let mut decide = |states: &[S]| decide(states).map(Decisions::from_vec);
            self.run(shard, &mut subjects, &mut states, &mut decide)
        });
        executed.unwrap_or_else(|error| Execution::resolved(Err(error)))
    }

    fn subject(&self, key: &[u8]) -> Result<(&'a Arc<Shard>, Subject), Error> {
        key::check(key)?;
        let route = self.store.route(key);
        let shard = self.store.shard(route.shard);
        let shard = shard.ok_or_else(|| Error::invalid("the store has no such shard"))?;
        let key = KeyBuf::new(key);
        let subject =
            Subject { key, hash: route.hash, slot: None, version: 0, snapshot: 0, quiet: true };
        Ok((shard, subject))
    }

    fn subjects(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<(&'a Arc<Shard>, Vec<Subject>), Error> {
        let mut one = None;
        let mut subjects: Vec<Subject> = Vec::new();
        for key in keys {
            let (shard, subject) = self.subject(key.as_ref())?;
            let first = *one.get_or_insert(shard);
            let key = subject.key.as_bytes();
            if subjects.iter().any(|other| other.key.as_bytes() == key) {
                return Err(
                    Error::invalid("an aggregate appears twice in one execution").with_keys([key])
                );
            }
            if !Arc::ptr_eq(first, shard) {
                let others = subjects.iter().map(|other| other.key.as_bytes());
                return Err(Error::new(
                    ErrorKind::CrossShard,
                    "the aggregates of an execution live on different shards: expected one shard",
                )
                .with_keys(others.chain([key])));
            }
            subjects.push(subject);
        }
        match one {
            Some(shard) => Ok((shard, subjects)),
            None => Err(Error::invalid("an execution is empty: expected an aggregate at least")),
        }
    }

    fn run<R>(
        &self,
        shard: &Arc<Shard>,
        subjects: &mut [Subject],
        states: &mut [S],
        decide: &mut dyn FnMut(&[S]) -> Result<Decisions, R>,
    ) -> Result<Execution<R>, Error> {
        if let Some(made) = self.made_before(shard, subjects)? {
            return Ok(Execution::appended(made));
        }
        for (subject, state) in subjects.iter_mut().zip(&mut *states) {
            self.recall(shard, subject, state);
        }
        let mut backoff = Backoff::new();
        for attempt in 0..self.attempts {
            if attempt > 0 {
                backoff.wait();
            }
            for (subject, state) in subjects.iter_mut().zip(&mut *states) {
                step!("fold");
                self.fold(shard, subject, state)?;
            }
            step!("look at all");
            if !all_at_once(shard, subjects)? {
                continue;
            }
            let decisions = match decide(states) {
                Ok(decisions) if ![0, subjects.len()].contains(&decisions.len()) => {
                    return Err(miscounted(subjects.len(), decisions.len()));
                }
                Ok(decisions) if decisions.iter().any(|events| !events.is_empty()) => decisions,
                declined => return self.decline(shard, subjects, declined.map(drop)),
            };
            match self.append(shard, subjects, decisions) {
                Ok(ticket) => return Ok(Execution::appended(ticket)),
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        let message = format!(
            "an execution lost {} races for its aggregates, as many as it may: try again later, or allow it more attempts",
            self.attempts
        );
        let keys = subjects.iter().map(|subject| subject.key.as_bytes());
        Err(Error::new(ErrorKind::Contended, message).with_keys(keys))
    }

    /// What the client of this execution has written before.
    fn made_before(
        &self,
        shard: &Arc<Shard>,
        subjects: &[Subject],
    ) -> Result<Option<Ticket>, Error> {
        let Some(client) = self.client else { return Ok(None) };
        let keys = subjects.iter().map(|subject| (subject.key.as_bytes(), subject.hash));
        shard.made_before(keys, client)
    }

    /// Starts from a state that was kept, or from a snapshot, if there is one.
    fn recall(&self, shard: &Shard, subject: &mut Subject, state: &mut S) {
        subject.slot = subject.slot.or_else(|| find(shard, subject));
        let Some(slot) = subject.slot else { return };
        if let Some(recalled) = self.kept.and_then(|kept| kept.recall(slot)) {
            (subject.version, subject.snapshot) = (recalled.version, recalled.snapshot);
            *state = recalled.state;
        } else if S::SNAPSHOT_EVERY > 0
            && let Some((version, decoded)) = snapshot::load(shard, slot)
        {
            (subject.version, subject.snapshot) = (version, version);
            *state = decoded;
        }
    }

    /// Folds what is new.
    fn fold(&self, shard: &Arc<Shard>, subject: &mut Subject, state: &mut S) -> Result<(), Error> {
        subject.slot = subject.slot.or_else(|| find(shard, subject));
        let Some(slot) = subject.slot else { return Ok(()) };
        let before = subject.version;
        let Folded { version, quiet } =
            shard.read.fold(slot, before, &mut |event| state.apply(event))?;
        (subject.version, subject.quiet) = (version, quiet);
        if S::SNAPSHOT_EVERY > 0 && version - subject.snapshot >= S::SNAPSHOT_EVERY {
            subject.snapshot = version;
            let target = subject.target();
            snapshot::save(shard, &target, version, state, self.store.write_bytes_max());
        }
        if let Some(kept) = self.kept.filter(|_| version > before) {
            kept.keep(slot, version, subject.snapshot, state);
        }
        Ok(())
    }

    fn append(
        &self,
        shard: &Arc<Shard>,
        subjects: &[Subject],
        decisions: Decisions,
    ) -> Result<Ticket, Error> {
        if let ([subject], None) = (subjects, self.client) {
            let target = subject.target();
            let events = &mut decisions.into_iter().flatten();
            let bytes_max = self.store.write_bytes_max();
            return shard.append(&target, subject.expect(), events, bytes_max, Patience::Wait);
        }
        let mut write = self.store.write();
        for (subject, events) in subjects.iter().zip(decisions) {
            let key = subject.key.as_bytes();
            write = match events.is_empty() {
                true => write.check(key, subject.expect()),
                false => write.append(key, subject.expect(), events),
            };
        }
        if let Some((client, sequence)) = self.client {
            write = write.client(client, sequence);
        }
        write.submit()
    }

    /// Answers without a write, once all that the decision rests on is durable.
    fn decline<R>(
        &self,
        shard: &Arc<Shard>,
        subjects: &[Subject],
        answer: Result<(), R>,
    ) -> Result<Execution<R>, Error> {
        step!("decline");
        // The original of a retry may have landed, and be what the decision was made against.
        if let Some(made) = self.made_before(shard, subjects)? {
            return Ok(Execution::appended(made));
        }
        if subjects.iter().all(|subject| subject.quiet) {
            return Ok(Execution::resolved(Ok(answer.map(|()| None))));
        }
        Ok(Execution::declined(answer, shard.barrier(Patience::Wait)?))
    }
}

impl Subject {
    fn target(&self) -> Target<'_> {
        Target { key: self.key.as_bytes(), hash: self.hash, slot: self.slot, looked: true }
    }

    fn expect(&self) -> Expect {
        if self.version == 0 { Expect::Absent } else { Expect::Version(self.version) }
    }
}

#[cold]
fn miscounted(expected: usize, found: usize) -> Error {
    Error::invalid(format!(
        "a decision on {expected} aggregates has events for {found}: expected a list for each, in order, or none at all"
    ))
}

fn find(shard: &Shard, subject: &Subject) -> Option<SlotRef> {
    shard.find(subject.hash, SlotKey::Aggregate(subject.key.as_bytes()))
}

/// Whether states that were folded one after the other were all true at one moment: none has moved since the last.
fn all_at_once(shard: &Shard, subjects: &[Subject]) -> Result<bool, Error> {
    if subjects.len() == 1 {
        return Ok(true);
    }
    for subject in subjects {
        let version = match subject.slot.or_else(|| find(shard, subject)) {
            Some(slot) => shard.version_accepted(slot)?,
            None => 0,
        };
        if version != subject.version {
            return Ok(false);
        }
    }
    Ok(true)
}

impl<S> fmt::Debug for Executor<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("store", &self.store)
            .field("keeps_states", &self.kept.is_some())
            .field("attempts", &self.attempts)
            .field("client", &self.client)
            .finish()
    }
}
