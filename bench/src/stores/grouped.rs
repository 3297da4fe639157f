//! A group-commit thread in front of a store with one writer: what a good engineer would put there.
//!
//! Callers add their write to the open group and get a ticket. One thread closes the group, decides all its writes in the order in which
//! they came, in one transaction, makes that durable with one commit, and answers them all. Meanwhile the next group fills: there is no timer, a
//! group is what came while the disk was busy. A group has a bound; at it, callers wait until the thread takes it.
//!
//! An outcome is given after the commit, also a conflict: the version that it names may be this very group's, and is true for good only then. (A
//! group in which nothing is written has nothing to make durable and is answered at once.)
//!
//! Writes lie one behind the other in one buffer that is used again and again, outcomes stand in one list for the group, and all waiting
//! threads of a group sleep on one word, so that one system call wakes them and nobody else.

use std::{
    future::Future,
    marker::PhantomData,
    ops::Range,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    thread::JoinHandle,
};

use super::rows::{Decisions, Writer};
use crate::store::{Append, Key, Outcome, Result, Session, Setup, Store, Ticket};

/// How many writes a group has at most.
const WRITES_MAX: usize = 16 * 1024;

/// How many bytes of events it has at most; a larger event goes alone.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// A store with one writer, which can commit many writes at once.
pub trait Batch: Store {
    /// What the group thread commits with.
    type Writer: Writer;

    /// The writer. Called once.
    fn writer(&self) -> Result<Self::Writer>;
}

/// A store behind a group-commit thread.
#[derive(Debug)]
pub struct Grouped<B: Batch> {
    store: Option<B>,
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl<B: Batch> Store for Grouped<B> {
    type Session = GroupedSession<B>;

    fn open(dir: &Path, setup: &Setup) -> Result<Self> {
        let store = B::open(dir, setup)?;
        let writer = store.writer()?;
        let queue = Arc::new(Queue::default());
        let for_thread = Arc::clone(&queue);
        let thread = std::thread::Builder::new()
            .name("group commit".into())
            .spawn(move || for_thread.run(writer))?;
        Ok(Grouped { store: Some(store), queue, thread: Some(thread) })
    }

    fn session(&self) -> Result<GroupedSession<B>> {
        let store = self.store.as_ref().expect("it is there until the store is closed");
        Ok(GroupedSession {
            reads: store.session()?,
            queue: Arc::clone(&self.queue),
            store: PhantomData,
        })
    }

    fn processes(&self) -> Vec<u32> {
        self.store.as_ref().map_or_else(Vec::new, Store::processes)
    }

    fn close(mut self) -> Result<()> {
        self.stop();
        self.store.take().map_or(Ok(()), Store::close)
    }
}

impl<B: Batch> Grouped<B> {
    /// Lets the thread finish what was submitted, and waits for it.
    fn stop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has answered its tickets, and there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl<B: Batch> Drop for Grouped<B> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One thread's way to a store behind a group-commit thread. It reads from the store itself.
#[derive(Debug)]
pub struct GroupedSession<B: Batch> {
    reads: B::Session,
    queue: Arc<Queue>,
    store: PhantomData<fn() -> B>,
}

impl<B: Batch> Session for GroupedSession<B> {
    type Ticket = GroupedTicket;
    type Handle = Key;

    fn submit(&mut self, appends: &[Append<'_>]) -> Result<GroupedTicket> {
        self.queue.submit(appends)
    }

    fn handle(&mut self, key: Key) -> Result<Key> {
        Ok(key)
    }

    fn submit_to(
        &mut self,
        handle: &Key,
        expected: Option<u64>,
        payload: &[u8],
    ) -> Result<GroupedTicket> {
        self.submit(&[Append { key: *handle, expected, payload }])
    }

    fn version(&mut self, key: Key) -> Result<u64> {
        self.reads.version(key)
    }

    fn read_last(&mut self, key: Key, events: usize, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        self.reads.read_last(key, events, each)
    }

    fn read_all(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        self.reads.read_all(each)
    }
}

/// One event of a write in a group, its payload in the group's buffer.
#[derive(Debug)]
struct Part {
    key: Key,
    expected: Option<u64>,
    payload: Range<usize>,
}

/// The writes of one group.
#[derive(Debug, Default)]
struct Pile {
    /// Of each write, where its parts end.
    ends: Vec<usize>,
    parts: Vec<Part>,
    bytes: Vec<u8>,
}

impl Pile {
    fn has_room(&self, bytes: usize) -> bool {
        self.ends.is_empty()
            || self.ends.len() < WRITES_MAX && self.bytes.len() + bytes <= BYTES_MAX
    }

    fn push(&mut self, appends: &[Append<'_>]) {
        for append in appends {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(append.payload);
            let payload = start..self.bytes.len();
            self.parts.push(Part { key: append.key, expected: append.expected, payload });
        }
        self.ends.push(self.parts.len());
    }

    /// The writes in the order in which they came.
    fn writes(&self) -> impl Iterator<Item = impl Iterator<Item = Append<'_>> + Clone> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let parts = &self.parts[start..end];
            start = end;
            parts.iter().map(|part| Append {
                key: part.key,
                expected: part.expected,
                payload: &self.bytes[part.payload.clone()],
            })
        })
    }

    fn clear(&mut self) {
        self.ends.clear();
        self.parts.clear();
        self.bytes.clear();
    }
}

/// Where writes wait for the group thread.
#[derive(Debug, Default)]
struct Queue {
    open: Mutex<Open>,
    /// There is a first write, or it is closed.
    work: Condvar,
    /// There is room again.
    room: Condvar,
}

/// The group that takes writes.
#[derive(Debug, Default)]
struct Open {
    pile: Pile,
    group: Arc<Group>,
    /// The group thread waits for work.
    idle: bool,
    /// Nothing more is coming.
    closed: bool,
    /// Why nothing more is taken.
    failed: Option<String>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Open> {
        // What a thread that panicked left is whole: a push is made under the lock and either was made or was not.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, appends: &[Append<'_>]) -> Result<GroupedTicket> {
        let bytes = appends.iter().map(|append| append.payload.len()).sum();
        let mut open = self.lock();
        while open.failed.is_none() && !open.pile.has_room(bytes) {
            open = self.room.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(failure) = &open.failed {
            return Err(failure.clone().into());
        }
        let place = open.pile.ends.len();
        open.pile.push(appends);
        let ticket = GroupedTicket { group: Arc::clone(&open.group), place, registered: None };
        let wake = std::mem::take(&mut open.idle);
        drop(open);
        if wake {
            self.work.notify_one();
        }
        Ok(ticket)
    }

    /// The group thread: one turn for each group.
    fn run(&self, mut writer: impl Writer) {
        let mut pile = Pile::default();
        let mut decisions = Decisions::default();
        while let Some(group) = self.take(&mut pile) {
            // If the writer panics, dropping this answers the group.
            let unknown = Err("the group thread panicked; what it wrote is unknown".into());
            let mut answer = Answer { queue: self, group, outcomes: unknown };
            answer.outcomes = commit(&mut writer, &pile, &mut decisions);
            drop(answer);
            pile.clear();
        }
    }

    /// Waits for writes and exchanges them for the empty `pile`. None when it is closed or a commit failed.
    fn take(&self, pile: &mut Pile) -> Option<Arc<Group>> {
        let mut open = self.lock();
        while open.pile.ends.is_empty() {
            if open.closed || open.failed.is_some() {
                return None;
            }
            open.idle = true;
            open = self.work.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
        open.idle = false;
        std::mem::swap(&mut open.pile, pile);
        let group = std::mem::take(&mut open.group);
        drop(open);
        self.room.notify_all();
        Some(group)
    }
}

/// Decides and commits a group. All outcomes are durable when it returns.
fn commit(
    writer: &mut impl Writer,
    pile: &Pile,
    decisions: &mut Decisions,
) -> std::result::Result<Vec<Outcome>, String> {
    let mut outcomes = Vec::with_capacity(pile.ends.len());
    let done = writer.transact(&mut |rows| {
        for write in pile.writes() {
            outcomes.push(decisions.decide(rows, write)?);
        }
        decisions.finish(rows)
    });
    done.map(|()| outcomes).map_err(|error| error.to_string())
}

/// The outcomes of a group on their way to its tickets.
struct Answer<'a> {
    queue: &'a Queue,
    group: Arc<Group>,
    outcomes: std::result::Result<Vec<Outcome>, String>,
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        if let Err(failure) = &self.outcomes {
            // After a failed commit nobody knows what the store holds: what came since is refused, and all that will come.
            let mut open = self.queue.lock();
            open.failed = Some(failure.clone());
            open.pile.clear();
            let group = std::mem::take(&mut open.group);
            drop(open);
            self.queue.room.notify_all();
            group.settle(Err(failure.clone()));
        }
        self.group.settle(std::mem::replace(&mut self.outcomes, Ok(Vec::new())));
    }
}

/// The group of tickets that one commit answers.
#[derive(Debug, Default)]
struct Group {
    outcomes: OnceLock<std::result::Result<Vec<Outcome>, String>>,
    /// 1 once there are outcomes: the word that threads sleep on.
    settled: AtomicU32,
    /// The tasks that wait.
    tasks: Mutex<Vec<Waker>>,
}

impl Group {
    fn settle(&self, outcomes: std::result::Result<Vec<Outcome>, String>) {
        let _ = self.outcomes.set(outcomes);
        // Release: pairs with the Acquire in `wait`. (Whoever finds `outcomes` set needs no more than that.)
        self.settled.store(1, Ordering::Release);
        atomic_wait::wake_all(&self.settled);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.into_iter().for_each(Waker::wake);
    }

    fn outcome(&self, place: usize) -> Option<Result<Outcome>> {
        self.outcomes.get().map(|outcomes| match outcomes {
            Ok(outcomes) => Ok(outcomes[place]),
            Err(failure) => Err(failure.clone().into()),
        })
    }
}

/// A write in a group.
#[derive(Debug)]
pub struct GroupedTicket {
    group: Arc<Group>,
    place: usize,
    /// The waker that the group knows.
    registered: Option<Waker>,
}

impl Ticket for GroupedTicket {
    fn wait(self) -> Result<Outcome> {
        loop {
            if let Some(outcome) = self.group.outcome(self.place) {
                return outcome;
            }
            // Acquire: pairs with the Release in `settle`, so that the outcomes are there once this is 1.
            if self.group.settled.load(Ordering::Acquire) == 0 {
                atomic_wait::wait(&self.group.settled, 0);
            }
        }
    }
}

impl Future for GroupedTicket {
    type Output = Result<Outcome>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ticket = self.get_mut();
        if let Some(outcome) = ticket.group.outcome(ticket.place) {
            return Poll::Ready(outcome);
        }
        if ticket.registered.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            return Poll::Pending;
        }
        let mut tasks = ticket.group.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at again under the lock: outcomes are set before the tasks are taken, so one of the two sees the other.
        if let Some(outcome) = ticket.group.outcome(ticket.place) {
            return Poll::Ready(outcome);
        }
        tasks.push(context.waker().clone());
        drop(tasks);
        ticket.registered = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::{store::key, stores::rows::Rows};

    /// A writer that commits when it is told to, and says what it was given.
    struct Told {
        commits: Receiver<std::result::Result<(), &'static str>>,
        given: Sender<u64>,
    }

    struct Nothing(u64);

    impl Rows for Nothing {
        fn version(&mut self, _: &Key) -> Result<u64> {
            Ok(0)
        }
        fn put_event(&mut self, _: &Key, _: u64, _: &[u8]) -> Result<()> {
            self.0 += 1;
            Ok(())
        }
        fn put_version(&mut self, _: &Key, _: u64) -> Result<()> {
            Ok(())
        }
    }

    impl Writer for Told {
        fn transact(&mut self, work: &mut dyn FnMut(&mut dyn Rows) -> Result<bool>) -> Result<()> {
            let mut rows = Nothing(0);
            work(&mut rows)?;
            self.given.send(rows.0).unwrap();
            Ok(self.commits.recv().expect("the test says how a commit ends")?)
        }
    }

    type Tell = Sender<std::result::Result<(), &'static str>>;

    fn with_thread(test: impl FnOnce(&Queue, Tell, Receiver<u64>)) {
        let queue = Queue::default();
        let (tell, commits) = channel();
        let (given, writes) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| queue.run(Told { commits, given }));
            test(&queue, tell, writes);
            queue.lock().closed = true;
            queue.work.notify_one();
        });
    }

    fn submit(queue: &Queue, number: u64, expected: u64) -> Result<GroupedTicket> {
        queue.submit(&[Append { key: key(number), expected: Some(expected), payload: b"event" }])
    }

    #[test]
    fn what_comes_during_a_commit_is_the_next_group() {
        with_thread(|queue, tell, writes| {
            let first = submit(queue, 0, 0).unwrap();
            assert_eq!(writes.recv().unwrap(), 1);
            let tickets: Vec<_> = (0..5).map(|number| submit(queue, number, 0).unwrap()).collect();
            let second = submit(queue, 0, 1).unwrap();
            let late = submit(queue, 0, 1).unwrap();
            assert!(first.group.outcome(0).is_none(), "answered before the commit");
            tell.send(Ok(())).unwrap();
            assert_eq!(first.wait().unwrap(), Outcome::Committed(1));
            assert_eq!(writes.recv().unwrap(), 6);
            tell.send(Ok(())).unwrap();
            for ticket in tickets {
                assert_eq!(ticket.wait().unwrap(), Outcome::Committed(1));
            }
            assert_eq!(second.wait().unwrap(), Outcome::Committed(2));
            assert_eq!(late.wait().unwrap(), Outcome::Conflict(2));
        });
    }

    #[test]
    fn after_a_failed_commit_everything_is_refused() {
        with_thread(|queue, tell, writes| {
            let failing = submit(queue, 1, 0).unwrap();
            writes.recv().unwrap();
            let waiting = submit(queue, 2, 0).unwrap();
            tell.send(Err("the disk is gone")).unwrap();
            assert_eq!(failing.wait().unwrap_err().to_string(), "the disk is gone");
            assert_eq!(waiting.wait().unwrap_err().to_string(), "the disk is gone");
            assert_eq!(submit(queue, 3, 0).unwrap_err().to_string(), "the disk is gone");
        });
    }

    #[test]
    fn a_writer_that_panics_leaves_nobody_waiting() {
        let queue = Queue::default();
        let (tell, commits) = channel();
        let (given, writes) = channel();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| queue.run(Told { commits, given }));
            let (failing, waiting) = (submit(&queue, 1, 0).unwrap(), {
                writes.recv().unwrap();
                submit(&queue, 2, 0).unwrap()
            });
            drop(tell);
            assert!(thread.join().is_err());
            assert!(failing.wait().unwrap_err().to_string().contains("panicked"));
            assert!(waiting.wait().unwrap_err().to_string().contains("panicked"));
            assert!(submit(&queue, 3, 0).is_err());
        });
    }

    #[test]
    fn a_full_group_makes_callers_wait_and_keeps_every_write() {
        with_thread(|queue, tell, writes| {
            let first = submit(queue, 0, 0).unwrap();
            writes.recv().unwrap();
            let full: Vec<_> =
                (0..WRITES_MAX as u64).map(|number| submit(queue, number, 0).unwrap()).collect();
            assert!(!queue.lock().pile.has_room(1));
            std::thread::scope(|scope| {
                let one_more = scope.spawn(|| submit(queue, 1 << 30, 0).unwrap());
                (0..3).for_each(|_| tell.send(Ok(())).unwrap());
                assert_eq!(one_more.join().unwrap().wait().unwrap(), Outcome::Committed(1));
            });
            assert_eq!(first.wait().unwrap(), Outcome::Committed(1));
            assert!(full.into_iter().all(|ticket| ticket.wait().unwrap() == Outcome::Committed(1)));
            assert_eq!(writes.iter().take(2).collect::<Vec<_>>(), [WRITES_MAX as u64, 1]);
        });
    }
}
