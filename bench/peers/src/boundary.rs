//! The contract on top of a store with dynamic consistency boundaries: an append fails if, after a position, there is an event that a query finds.
//!
//! An event has its aggregate's key as its tag, and its version in front of its payload. "Still at version N" becomes "no event with this
//! tag after the one that made version N": the way such a store is meant to be used. Where a version was made is remembered, for whoever
//! appended or read last needs no further read; if it is not known, or two aggregates need one position in common, the last events
//! are read first.
//!
//! The position of an event is known once it is acknowledged, so a write on an aggregate waits for the session's own write before it.

use std::{
    collections::HashMap,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bench::store::{Append, Key, Outcome, Result, Session, Ticket};
use futures::{
    executor::block_on,
    future::{BoxFuture, FutureExt, Shared},
};

/// The last event of an aggregate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tip {
    /// The version that it made.
    pub version: u64,
    /// Where it is.
    pub position: u64,
}

/// An event that is to be written, with its version in front.
#[derive(Debug, Clone)]
pub struct Written {
    /// The aggregate.
    pub key: Key,
    /// The version and the payload.
    pub data: Vec<u8>,
}

/// A store with dynamic consistency boundaries.
pub trait Boundary: Clone + Send + Sync + 'static {
    /// The position of the newest event of all; 0 if there is none.
    fn head(&self) -> impl Future<Output = Result<u64>> + Send;

    /// The data of the last `limit` events of an aggregate, the newest first, with their positions.
    fn last(
        &self,
        key: Key,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(u64, Vec<u8>)>>> + Send;

    /// Hands the data of all events to `each`, in order.
    fn all(&self, each: &mut dyn FnMut(&[u8])) -> Result<()>;

    /// Appends, unless there is an event of one of these aggregates after that position: the position of the last event, durable. None if there is one.
    fn append(
        &self,
        events: Vec<Written>,
        after: u64,
    ) -> impl Future<Output = Result<Option<u64>>> + Send;

    /// Has the future run by itself from now on, if it needs somebody to run it.
    fn start<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>>;

    /// Waits for a future that was not started.
    fn wait<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T>;
}

/// Where the last events of aggregates are, as far as it is known.
#[derive(Debug)]
pub struct Tips(Vec<Mutex<HashMap<Key, Tip>>>);

impl Default for Tips {
    fn default() -> Tips {
        Tips((0..64).map(|_| Mutex::default()).collect())
    }
}

impl Tips {
    fn stripe(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Tip>> {
        let hash =
            key.iter().fold(0_usize, |hash, &byte| hash.wrapping_mul(31) + usize::from(byte));
        self.0[hash % self.0.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, key: &Key) -> Option<Tip> {
        self.stripe(key).get(key).copied()
    }

    fn learn(&self, key: Key, tip: Tip) {
        let mut tips = self.stripe(&key);
        let known = tips.entry(key).or_default();
        if known.version < tip.version {
            *known = tip;
        }
    }
}

/// One thread's way to such a store.
#[derive(Debug)]
pub struct BoundarySession<B> {
    store: B,
    tips: Arc<Tips>,
    /// This session's own writes that may be under way.
    pending: HashMap<Key, Shared<BoxFuture<'static, Answer>>>,
}

/// An outcome that can be given to several.
type Answer = std::result::Result<Outcome, Arc<str>>;

impl<B: Boundary> BoundarySession<B> {
    /// A session of a store whose sessions share what they know.
    pub fn new(store: B, tips: Arc<Tips>) -> BoundarySession<B> {
        BoundarySession { store, tips, pending: HashMap::new() }
    }

    /// Waits for the own writes that the next one depends on.
    fn settle(&mut self, appends: &[Append<'_>]) {
        for append in appends {
            // A task that awaited its own write before it began the next has nothing to wait for, and may not block within its executor.
            let pending = self.pending.remove(&append.key);
            if let Some(pending) = pending.filter(|pending| pending.peek().is_none()) {
                // How it ended is its ticket's business.
                let _ = block_on(pending);
            }
        }
        if self.pending.len() >= 4096 {
            self.pending.retain(|_, pending| pending.peek().is_none());
        }
    }

    fn write(
        &self,
        appends: &[Append<'_>],
    ) -> impl Future<Output = Result<Outcome>> + Send + use<B> {
        let owned =
            appends.iter().map(|append| (append.key, append.expected, append.payload.to_vec()));
        write(self.store.clone(), Arc::clone(&self.tips), owned.collect())
    }
}

type Owned = (Key, Option<u64>, Vec<u8>);

/// Writes, as often as it takes to know.
async fn write<B: Boundary>(store: B, tips: Arc<Tips>, appends: Vec<Owned>) -> Result<Outcome> {
    let mut known = match &appends[..] {
        [(key, expected, _)] => {
            let known = match expected {
                Some(0) => Some(tips.known(key).unwrap_or_default()),
                _ => tips.known(key),
            };
            known.filter(|tip| expected.is_none_or(|expected| expected == tip.version))
        }
        _ => None,
    };
    loop {
        let (versions, after) = match known.take() {
            Some(tip) => (vec![tip.version], tip.position),
            None => {
                // Taken before the reads: whatever comes after it is found by the condition.
                let head = store.head().await?;
                let mut versions = Vec::with_capacity(appends.len());
                for (key, expected, _) in &appends {
                    let version = match store.last(*key, 1).await?.first() {
                        Some((position, data)) => {
                            let tip = Tip { version: version_of(data)?, position: *position };
                            tips.learn(*key, tip);
                            tip.version
                        }
                        None => 0,
                    };
                    if expected.is_some_and(|expected| expected != version) {
                        return Ok(Outcome::Conflict(version));
                    }
                    versions.push(version);
                }
                (versions, head)
            }
        };
        let events: Vec<Written> = appends
            .iter()
            .zip(&versions)
            .map(|((key, _, payload), version)| Written {
                key: *key,
                data: [&(version + 1).to_be_bytes()[..], payload].concat(),
            })
            .collect();
        if let Some(last) = store.append(events, after).await? {
            let first = last + 1 - appends.len() as u64;
            for (place, ((key, ..), version)) in appends.iter().zip(&versions).enumerate() {
                tips.learn(*key, Tip { version: version + 1, position: first + place as u64 });
            }
            return Ok(Outcome::Committed(versions[0] + 1));
        }
    }
}

fn version_of(data: &[u8]) -> Result<u64> {
    match data.first_chunk() {
        Some(version) => Ok(u64::from_be_bytes(*version)),
        None => Err(format!(
            "an event with 8 bytes of version was expected and one of {} was found",
            data.len()
        )
        .into()),
    }
}

impl<B: Boundary> Session for BoundarySession<B> {
    type Ticket = BoundaryTicket;
    type Handle = Key;

    fn submit(&mut self, appends: &[Append<'_>]) -> Result<BoundaryTicket> {
        self.settle(appends);
        let started = self.store.start(self.write(appends));
        let answer = started.map(|outcome| outcome.map_err(|error| error.to_string().into()));
        let ticket = answer.boxed().shared();
        // What runs in the one who waits takes its first step here: that puts it on its way.
        let _ = pin!(ticket.clone()).poll(&mut Context::from_waker(Waker::noop()));
        for append in appends {
            self.pending.insert(append.key, ticket.clone());
        }
        Ok(BoundaryTicket(ticket))
    }

    fn append(&mut self, appends: &[Append<'_>]) -> Result<Outcome> {
        self.settle(appends);
        self.store.wait(self.write(appends))
    }

    fn handle(&mut self, key: Key) -> Result<Key> {
        Ok(key)
    }

    fn submit_to(
        &mut self,
        handle: &Key,
        expected: Option<u64>,
        payload: &[u8],
    ) -> Result<BoundaryTicket> {
        self.submit(&[Append { key: *handle, expected, payload }])
    }

    fn version(&mut self, key: Key) -> Result<u64> {
        let last = self.store.wait(self.store.last(key, 1))?;
        last.first().map_or(Ok(0), |(_, data)| version_of(data))
    }

    fn read_last(&mut self, key: Key, events: usize, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let last = self.store.wait(self.store.last(key, events))?;
        for (_, data) in last.iter().rev() {
            each(&data[8..]);
        }
        Ok(last.len() as u64)
    }

    fn read_all(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut found = 0;
        self.store.all(&mut |data| {
            each(&data[8..]);
            found += 1;
        })?;
        Ok(found)
    }
}

/// A write under way.
#[derive(Debug)]
pub struct BoundaryTicket(Shared<BoxFuture<'static, Answer>>);

impl Ticket for BoundaryTicket {
    fn wait(self) -> Result<Outcome> {
        Ok(block_on(self.0).map_err(|error| error.to_string())?)
    }
}

impl Future for BoundaryTicket {
    type Output = Result<Outcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = self.0.poll_unpin(context);
        answer.map(|answer| Ok(answer.map_err(|error| error.to_string())?))
    }
}
