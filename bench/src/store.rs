//! What every store under test can do: the one contract that Annals and its peers are measured through.
//!
//! A store keeps, for every aggregate, a stream of events and a version: the number of events in it. A write appends
//! one event to one aggregate, or to each of two, only if every aggregate is still at the version that the write
//! expects; all of it or nothing. An outcome is given when it is true for good: [`Outcome::Committed`] only when the events
//! survive a power cut.

use std::{future::Future, path::Path};

/// What goes wrong in a store: a text is enough, for the report to show.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The outcome of something that a store does.
pub type Result<T> = std::result::Result<T, Error>;

/// An aggregate's key. All stores are given the same sixteen bytes.
pub type Key = [u8; 16];

/// The key of aggregate `number`: `agg-` and twelve hexadecimal digits.
pub fn key(number: u64) -> Key {
    let mut key = *b"agg-000000000000";
    for (place, byte) in key[4..].iter_mut().rev().enumerate() {
        *byte = b"0123456789abcdef"[(number >> (4 * place) & 15) as usize];
    }
    key
}

/// One event for one aggregate, on a condition.
#[derive(Debug, Clone, Copy)]
pub struct Append<'a> {
    /// The aggregate.
    pub key: Key,
    /// How many events it must have. `None`: any number.
    pub expected: Option<u64>,
    /// The event's bytes.
    pub payload: &'a [u8],
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Durable. The version of the first aggregate after it.
    Committed(u64),
    /// Rejected whole. The version that the first aggregate whose condition failed really has. Where a store tells a loser before the winner is
    /// durable, it is the winner's.
    Conflict(u64),
}

/// What a store is told when it is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// For a store that has several ways to reach the disk: the one that blocks, instead of its default.
    pub blocking: bool,
}

/// A store, open in a folder.
pub trait Store: Sized + Send + Sync + 'static {
    /// A thread's way to it.
    type Session: Session;

    /// Opens the store in `dir`, an existing folder, and makes it if it is not there.
    fn open(dir: &Path, setup: &Setup) -> Result<Self>;

    /// A session for one more thread. Sessions keep the store open.
    fn session(&self) -> Result<Self::Session>;

    /// The processes of a server that was started for it: their processor time and bytes are counted with this process's own.
    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Closes it cleanly, when all sessions are gone.
    fn close(self) -> Result<()>;
}

/// One thread's way to a store.
pub trait Session: Send + 'static {
    /// A write under way.
    type Ticket: Ticket;
    /// An aggregate that need not be looked up again. A store without such a thing uses the [`Key`].
    type Handle: Send + 'static;

    /// Starts a write of one or two events, in the order of `appends`. A store that can do nothing but wait has waited when it returns. A
    /// conflict that is known already is an [`Outcome`], through the ticket, not an error.
    fn submit(&mut self, appends: &[Append<'_>]) -> Result<Self::Ticket>;

    /// Writes and waits.
    fn append(&mut self, appends: &[Append<'_>]) -> Result<Outcome> {
        self.submit(appends)?.wait()
    }

    /// Brings the state of an aggregate up to date, decides on it, and appends one event on the version that it saw; once
    /// more if another writer came in between, until the write is in. The state is how many events there are.
    ///
    /// A store that has nothing for this reads, appends and waits, time and again.
    fn execute(&mut self, key: Key, payload: &[u8]) -> Result<Decided<Self::Ticket>> {
        let mut version = self.version(key)?;
        loop {
            match self.append(&[Append { key, expected: Some(version), payload }])? {
                outcome @ Outcome::Committed(_) => return Ok(Decided::Done(Done(outcome))),
                Outcome::Conflict(actual) => version = actual,
            }
        }
    }

    /// A handle to the aggregate.
    fn handle(&mut self, key: Key) -> Result<Self::Handle>;

    /// Starts a write of one event through a handle.
    fn submit_to(
        &mut self,
        handle: &Self::Handle,
        expected: Option<u64>,
        payload: &[u8],
    ) -> Result<Self::Ticket>;

    /// How a workload fills a store before it measures: these events, in this order, each a write of its own on no
    /// condition. All are durable on return. A store that is slow one by one puts many into a transaction; what it then holds
    /// is the same.
    fn load(&mut self, events: &mut dyn Iterator<Item = (Key, &[u8])>) -> Result<u64> {
        let mut tickets = std::collections::VecDeque::new();
        let mut count = 0;
        for (key, payload) in events {
            tickets.push_back(self.submit(&[Append { key, expected: None, payload }])?);
            count += 1;
            if tickets.len() > 8192 {
                tickets.pop_front().map(Ticket::wait).transpose()?;
            }
        }
        for ticket in tickets {
            ticket.wait()?;
        }
        Ok(count)
    }

    /// The durable version of an aggregate; 0 if it has no events.
    fn version(&mut self, key: Key) -> Result<u64>;

    /// Hands the last `events` events of an aggregate, oldest first, to `each`: how many there were.
    fn read_last(&mut self, key: Key, events: usize, each: &mut dyn FnMut(&[u8])) -> Result<u64>;

    /// Hands all events of the store to `each`, in any order that keeps each aggregate's: how many there were.
    fn read_all(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<u64>;
}

/// A write under way: waited for by a thread or awaited by a task.
pub trait Ticket: Future<Output = Result<Outcome>> + Send + Unpin + 'static {
    /// Waits until the outcome is known and durable.
    fn wait(self) -> Result<Outcome>;
}

/// The ticket of a store that waits before it returns.
#[derive(Debug)]
pub struct Done(pub Outcome);

impl Ticket for Done {
    fn wait(self) -> Result<Outcome> {
        Ok(self.0)
    }
}

impl Future for Done {
    type Output = Result<Outcome>;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::task::Poll::Ready(Ok(self.0))
    }
}

/// A decision under way, or one that was waited for.
#[derive(Debug)]
pub enum Decided<T> {
    /// Its write is on its way.
    Accepted(T),
    /// Its write is in.
    Done(Done),
}

impl<T: Ticket> Ticket for Decided<T> {
    fn wait(self) -> Result<Outcome> {
        match self {
            Decided::Accepted(ticket) => ticket.wait(),
            Decided::Done(done) => done.wait(),
        }
    }
}

impl<T: Ticket> Future for Decided<T> {
    type Output = Result<Outcome>;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        match self.get_mut() {
            Decided::Accepted(ticket) => std::pin::Pin::new(ticket).poll(context),
            Decided::Done(done) => std::pin::Pin::new(done).poll(context),
        }
    }
}
