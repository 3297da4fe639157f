//! Flushes by threads that block: for systems without rings, and where rings are forbidden.
//!
//! `start` puts a flush in a list and a thread takes it out; there are as many threads as flushes in flight, at most
//! `depth`, started when first needed. A completion goes into a second list, whose reader is then unparked. Only the
//! log writer and the flush threads take the lock of these lists. A waker does not: it may be called by a thread
//! that is then stopped for ever.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::sync::{Condvar, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::file::RealFile;
use super::lock::RealLock;
use super::{Completion, Flush, Queue, SyncMethod, Waker};
use crate::sync::atomic::{AtomicBool, Ordering, fence};
use crate::sync::process::Process;
use crate::sync::{Arc, Mutex, thread};

/// See the top of the file.
pub(super) struct BlockingQueue {
    shared: Arc<Shared>,
    threads: Vec<thread::JoinHandle<()>>,
    depth: usize,
    /// Flushes that no thread was given.
    refused: Vec<Completion>,
    process: Process,
    /// Held as long as anything can be in flight.
    _lock: Arc<RealLock>,
}

struct Shared {
    method: SyncMethod,
    lists: Mutex<Lists>,
    /// Signalled when `Lists::started` grows or `closed` is set.
    work: Condvar,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Lists {
    started: VecDeque<Flush>,
    completed: Vec<Completion>,
    /// Taken out of `started` and not yet in `completed`.
    running: usize,
    closed: bool,
}

impl Shared {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockingQueue {
    pub(super) fn new(lock: Arc<RealLock>, depth: usize, method: SyncMethod) -> BlockingQueue {
        let shared =
            Shared { method, lists: Mutex::default(), work: Condvar::new(), bell: Arc::default() };
        BlockingQueue {
            shared: Arc::new(shared),
            threads: Vec::new(),
            depth: depth.max(1),
            refused: Vec::new(),
            process: Process::current(),
            _lock: lock,
        }
    }
}

impl Queue for BlockingQueue {
    fn start(&mut self, flush: Flush) {
        let token = flush.token;
        let mut refuse = |error| self.refused.push(Completion { token, result: Err(error) });
        if !self.process.is_current() {
            return refuse(in_a_child());
        }
        let lists = self.shared.lists();
        let wanted = lists.started.len() + lists.running + 1;
        drop(lists);
        if let Err(error) = grow(&self.shared, &mut self.threads, wanted.min(self.depth)) {
            return refuse(error);
        }
        self.shared.lists().started.push_back(flush);
        self.shared.work.notify_one();
    }

    fn poll(&mut self, completed: &mut Vec<Completion>) {
        completed.append(&mut self.refused);
        // In a child, the lock of the lists may be one that the parent's threads held.
        if self.process.is_current() {
            completed.append(&mut self.shared.lists().completed);
        }
    }

    fn wait(&mut self, limit: Option<Duration>, completed: &mut Vec<Completion>) {
        let before = completed.len();
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        self.shared.bell.listen();
        loop {
            self.poll(completed);
            if self.shared.bell.was_rung() || completed.len() > before {
                return;
            }
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return,
                Some(rest) => thread::park_timeout(rest),
                None => thread::park(),
            }
        }
    }

    fn waker(&self) -> std::sync::Arc<dyn Waker> {
        Arc::clone(&self.shared.bell) as _
    }
}

impl Drop for BlockingQueue {
    fn drop(&mut self) {
        if !self.process.is_current() {
            // The threads are the parent's.
            mem::take(&mut self.threads).into_iter().for_each(mem::forget);
            return;
        }
        self.shared.lists().closed = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // One that panicked has nothing in flight any more.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for BlockingQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingQueue")
            .field("depth", &self.depth)
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

/// Starts one more thread, if there are fewer than wanted. Fails if there is none at all.
fn grow(
    shared: &Arc<Shared>,
    threads: &mut Vec<thread::JoinHandle<()>>,
    wanted: usize,
) -> io::Result<()> {
    if threads.len() >= wanted {
        return Ok(());
    }
    let shared = Arc::clone(shared);
    match thread::Builder::new().name("annals-flush".into()).spawn(move || flush_all(&shared)) {
        Ok(thread) => threads.push(thread),
        Err(error) if threads.is_empty() => return Err(error),
        // Fewer in flight, then.
        Err(_) => {}
    }
    Ok(())
}

/// What a flush thread does: until the queue is closed and empty.
fn flush_all(shared: &Shared) {
    loop {
        let mut lists = shared.lists();
        let flush = loop {
            if let Some(flush) = lists.started.pop_front() {
                break flush;
            }
            if lists.closed {
                return;
            }
            lists = shared.work.wait(lists).unwrap_or_else(PoisonError::into_inner);
        };
        lists.running += 1;
        drop(lists);
        let token = flush.token;
        let result = flush_one(&flush, shared.method);
        // The memory and the file are let go before the completion says so.
        drop(flush);
        let mut lists = shared.lists();
        lists.running -= 1;
        lists.completed.push(Completion { token, result });
        drop(lists);
        shared.bell.unpark();
    }
}

fn flush_one(flush: &Flush, method: SyncMethod) -> io::Result<()> {
    let file: &RealFile = flush.file.as_any().downcast_ref().ok_or(io::ErrorKind::InvalidInput)?;
    let end = flush.start.checked_add(flush.bytes).filter(|&end| end <= flush.memory.len());
    let end = end.ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: the range belongs to the flush until it completes: nobody writes into it.
    let bytes = unsafe { flush.memory.slice(flush.start..end) };
    file.flush(method, flush.offset, bytes)
}

/// What every use in a child process answers.
pub(super) fn in_a_child() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the store belongs to the parent process")
}

/// The thread that waits, and what it was told.
///
/// Two sides, each with a store, a fence and a load: a waker sets `rung` and then looks for the listener; the
/// listener makes itself known and then looks at `rung`. Whichever fence comes second sees the other's store, so
/// either the waker finds somebody to unpark or the listener finds `rung` and does not park. The same holds between
/// a completion put in its list and the listener who looks there.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    listener: OnceLock<thread::Thread>,
}

impl Bell {
    fn listen(&self) {
        if self.listener.get().is_none() {
            let _ = self.listener.set(thread::current());
            fence(Ordering::SeqCst);
        }
    }

    /// Whether it was rung since the last call.
    fn was_rung(&self) -> bool {
        // Acquire: pairs with `wake`, so what the waker did before is seen after.
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::Acquire)
    }

    fn unpark(&self) {
        fence(Ordering::SeqCst);
        if let Some(listener) = self.listener.get() {
            listener.unpark();
        }
    }
}

impl Waker for Bell {
    fn wake(&self) {
        self.rung.store(true, Ordering::Release);
        self.unpark();
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("rung", &self.rung).finish_non_exhaustive()
    }
}
