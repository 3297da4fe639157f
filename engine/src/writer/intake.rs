//! What callers share with the log writer of a shard: how requests come in, and when they may.
//!
//! Everything here is an atomic or a word to sleep on. A caller takes [permits](Intake::acquire) before it reserves
//! anything, so that no accepted write is ever without memory or without prepared space. Permits come back from the log
//! writer: blocks when the write is placed, bytes when it is durable.
//!
//! A write of *n* blocks takes *2n − 1* block permits: its own, and the most that a roll to the next segment can waste
//! for its sake. There are permits for the rest of the segment being filled and for one prepared segment, no more. So
//! whenever a write does not fit into the rest, it fits into the prepared segment.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use crossbeam_utils::CachePadded;

use super::request::{Payload, Request};
use crate::disk;
use crate::error::{Error, ErrorKind};
use crate::format::FLUSH_HEADER_BYTES;
use crate::reserve::stack::{Batch, Stack};
use crate::reserve::step;
use crate::reserve::write::WriteRef;
use crate::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use crate::sync::doorbell::Doorbell;
use crate::sync::permits::{Permits, Short, Taken};
use crate::sync::process::Forks;
use crate::sync::wake_word::WakeWord;
use crate::sync::{broken, clock};

/// How often a caller that waits for room looks whether anybody still works on it.
const ROOM_LOOK: Duration = Duration::from_millis(20);
/// How long nobody may have worked on it before it gives up.
const IDLE_MAX: Duration = Duration::from_millis(200);

/// See the module.
pub(crate) struct Intake {
    stack: CachePadded<Stack<Payload>>,
    doorbell: CachePadded<Doorbell>,
    waker: Arc<dyn disk::Waker>,
    /// The group that submissions join.
    group: CachePadded<AtomicU8>,
    permits: Permits,
    block_bytes: usize,
    /// What a child pushes on its copy of the stack nobody takes off.
    forks: Forks,
    /// Nothing is in flight, placed or prepared.
    idle: AtomicBool,
    pub(crate) preparation: Preparation,
    /// Why no more writes are taken.
    halt: OnceLock<Error>,
}

/// What is asked of the thread that prepares segments, and what came of it.
pub(crate) struct Preparation {
    /// The most block permits that somebody lacks; 0 if nobody does.
    wanted: AtomicI64,
    word: WakeWord,
    /// How many blocks the segment has that is prepared and not yet taken; 0 if there is none.
    ready: AtomicI64,
    /// A segment is being prepared.
    busy: AtomicBool,
    /// How many attempts have ended.
    attempts: AtomicU64,
    /// Why the last one failed, if it did.
    failure: ArcSwapOption<Error>,
    closed: AtomicBool,
    /// The thread has panicked: nothing more is prepared, and the shard is to stop.
    broken: AtomicBool,
}

/// What a caller does when there is no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    /// Wait as long as somebody works on it.
    Wait,
    /// Say so.
    Refuse,
}

impl Intake {
    pub(crate) fn new(
        waker: Arc<dyn disk::Waker>,
        block_bytes: u32,
        in_flight_bytes: usize,
        first_group: u8,
    ) -> Intake {
        Intake {
            stack: CachePadded::new(Stack::new()),
            doorbell: CachePadded::new(Doorbell::new()),
            waker,
            group: CachePadded::new(AtomicU8::new(first_group)),
            permits: Permits::new(in_flight_bytes as i64),
            block_bytes: block_bytes as usize,
            forks: Forks::watch(),
            idle: AtomicBool::new(true),
            preparation: Preparation {
                wanted: AtomicI64::new(0),
                word: WakeWord::new(),
                ready: AtomicI64::new(0),
                busy: AtomicBool::new(false),
                attempts: AtomicU64::new(0),
                failure: ArcSwapOption::empty(),
                closed: AtomicBool::new(false),
                broken: AtomicBool::new(false),
            },
            halt: OnceLock::new(),
        }
    }

    /// The permits that a record of so many bytes needs.
    pub(crate) fn needs(&self, record_bytes: usize) -> Taken {
        let blocks = (FLUSH_HEADER_BYTES + record_bytes).div_ceil(self.block_bytes) as i64;
        Taken { bytes: record_bytes as i64, blocks: 2 * blocks - 1 }
    }

    /// Takes permits, before anything is reserved.
    #[inline]
    pub(crate) fn acquire(&self, needed: Taken, patience: Patience) -> Result<(), Error> {
        self.check_process()?;
        match self.permits.take(needed) {
            Ok(()) => Ok(()),
            Err(_) => self.acquire_slowly(needed, patience),
        }
    }

    #[cold]
    fn acquire_slowly(&self, needed: Taken, patience: Patience) -> Result<(), Error> {
        let mut idle_since: Option<Instant> = None;
        let mut asked_after = None;
        loop {
            let room = self.permits.room().register();
            let short = match self.permits.take_after_look(needed) {
                Ok(()) => return Ok(()),
                Err(short) => short,
            };
            self.check_open()?;
            if short == Short::Blocks {
                // An earlier attempt may have failed: ask anyway, so that the store goes on by itself when there is
                // space again, and wait for what comes of an attempt that began after this call.
                let under_way = self.preparation.busy.load(Ordering::Acquire);
                let attempts = self.preparation.attempts.load(Ordering::Acquire);
                let failure = self.preparation.failure.load_full();
                let asked_after = *asked_after.get_or_insert(attempts + u64::from(under_way));
                match failure {
                    Some(failure) if patience == Patience::Refuse => {
                        self.preparation.ask(needed.blocks);
                        return Err(Error::clone(&failure));
                    }
                    Some(failure) if attempts > asked_after => return Err(Error::clone(&failure)),
                    _ => self.preparation.ask(needed.blocks),
                }
                self.wake_writer();
            }
            if patience == Patience::Refuse {
                return Err(busy(short));
            }
            if short == Short::Held {
                // It lets go of what it can when it turns.
                self.wake_writer();
            }
            if self.idle.load(Ordering::Relaxed) && !self.preparation.is_busy() {
                if clock::since(*idle_since.get_or_insert_with(clock::now)) > IDLE_MAX {
                    return Err(busy(short));
                }
            } else {
                idle_since = None;
            }
            room.sleep(Some(ROOM_LOOK));
        }
    }

    /// Gives permits back.
    pub(crate) fn release(&self, taken: Taken) {
        self.permits.give_back(taken);
    }

    pub(crate) fn permits(&self) -> &Permits {
        &self.permits
    }

    /// The group that a submission joins now.
    #[inline]
    pub(crate) fn group(&self) -> u8 {
        self.group.load(Ordering::Relaxed)
    }

    /// Log writer: what comes from now on joins the next group.
    pub(crate) fn next_group(&self) {
        self.group.store(self.group().wrapping_add(1), Ordering::Relaxed);
    }

    /// Submits a request. Gets it back if no more are taken.
    #[inline]
    pub(crate) fn push(&self, request: Box<Request>) -> Result<WriteRef<Payload>, Box<Request>> {
        self.stack.push(request)
    }

    /// After a push: wakes the log writer if it sleeps.
    #[inline]
    pub(crate) fn wake_writer(&self) {
        if self.doorbell.must_wake() {
            step!("ring");
            self.waker.wake();
        }
    }

    /// Log writer: what has been submitted.
    pub(crate) fn take(&self) -> Batch<Payload> {
        self.stack.take()
    }

    /// Log writer: whether there is something to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.stack.is_empty()
    }

    pub(crate) fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    /// Log writer: says whether it has anything to do.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Relaxed);
    }

    /// No more writes are taken, for this reason; the first reason stays. Returns what was submitted last.
    pub(crate) fn halt(&self, reason: Error) -> Batch<Payload> {
        let _first_stays = self.halt.set(reason);
        let last = if broken!(HaltsOpen) { self.stack.take() } else { self.stack.close() };
        self.permits.room().wake_all();
        last
    }

    /// A shard without a log writer takes no writes from the start, for this reason.
    pub(crate) fn refuse(&self, reason: Error) {
        let nobody_was_here = self.halt(reason);
        debug_assert!(nobody_was_here.peek().is_none());
    }

    /// Why no more writes are taken, if they are not.
    pub(crate) fn halted(&self) -> Option<&Error> {
        self.halt.get()
    }

    /// Refuses a child of the process that opened the shard.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<(), Error> {
        if self.forks.is_copy() { Err(Error::forked()) } else { Ok(()) }
    }

    #[inline]
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        self.check_process()?;
        match self.halt.get() {
            None => Ok(()),
            Some(reason) => Err(reason.clone()),
        }
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake")
            .field("permits", &self.permits)
            .field("halted", &self.halt.get())
            .finish_non_exhaustive()
    }
}

fn busy(short: Short) -> Error {
    let what = match short {
        Short::Bytes => "as many bytes are in flight as `in_flight_bytes` allows",
        Short::Blocks => "no space is prepared for the write yet",
        Short::Held => "stalled threads or kept events hold back as much memory as is allowed",
    };
    Error::new(ErrorKind::Busy, format!("{what}: try again later"))
}

impl Preparation {
    /// Somebody needs so many block permits.
    pub(crate) fn ask(&self, blocks: i64) {
        self.wanted.fetch_max(blocks, Ordering::Relaxed);
        step!("ask");
        // Each that asks makes the call: one that asked before may have been stopped just here.
        self.word.wake_all();
    }

    /// The most that somebody lacks.
    pub(crate) fn wanted(&self) -> i64 {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Whether a segment is being prepared, or is about to be.
    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) || self.wanted() > 0 && !self.is_ready()
    }

    /// Whether the segment that comes next is prepared.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready_blocks() > 0
    }

    /// Whether the last attempt failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.load().is_some()
    }

    /// How many blocks that has.
    pub(crate) fn ready_blocks(&self) -> i64 {
        self.ready.load(Ordering::Relaxed)
    }

    pub(super) fn set_ready(&self, blocks: i64) {
        self.ready.store(blocks, Ordering::Relaxed);
    }

    /// The preparing thread: waits until somebody asks for more than is prepared. `None` when it is over.
    pub(crate) fn next(&self) -> Option<i64> {
        loop {
            let asked = self.word.register();
            if self.closed.load(Ordering::Acquire) {
                return None;
            }
            let wanted = self.wanted.load(Ordering::Relaxed);
            if wanted > 0 && !self.is_ready() {
                self.busy.store(true, Ordering::Release);
                return Some(wanted);
            }
            asked.sleep(None);
        }
    }

    /// Whether nothing more is ever prepared, though it was asked for.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// The log writer has taken the prepared segment: there may be more to do.
    pub(crate) fn look_again(&self) {
        self.word.wake_all();
    }

    /// The preparing thread: no more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.word.wake_all();
    }
}

impl Intake {
    /// The preparing thread: an attempt is over, and its outcome about to be told. Who still lacks something then asks
    /// again.
    pub(crate) fn attempted(&self) {
        self.preparation.wanted.store(0, Ordering::Relaxed);
    }

    /// The preparing thread: an attempt has panicked. The log writer stops the shard, which wakes all who wait.
    pub(crate) fn preparing_broke(&self) {
        self.preparation.broken.store(true, Ordering::Release);
        self.wake_writer();
    }

    /// The preparing thread: what came of an attempt. `blocks` are new permits.
    pub(crate) fn prepared(&self, blocks: Result<i64, Error>) {
        let preparation = &self.preparation;
        match blocks {
            Ok(blocks) => {
                preparation.failure.store(None);
                self.permits.grant(blocks);
            }
            Err(failure) => preparation.failure.store(Some(Arc::new(failure))),
        }
        preparation.attempts.fetch_add(1, Ordering::Release);
        preparation.busy.store(false, Ordering::Release);
        self.permits.room().wake_all();
        self.wake_writer();
    }
}
