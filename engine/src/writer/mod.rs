//! The log writer: one thread a shard, and the one place where the log is written.
//!
//! It takes submitted requests in order, brings each to its decision if its owner has not, and does one *turn* after
//! the other:
//!
//! 1. take completions, and **publish** flushes in order ([`publish`]): head and version of each slot, the watermark;
//! 2. start the next flush, then **settle** what was published: tickets, slots, wake-ups;
//! 3. **place** requests in the flush that is being built ([`place`]): positions, links, checksums, in the tail image;
//! 4. **flush**: start it as soon as it holds something and the window has room ([`flush`]). There is no timer: a flush
//!    grows by itself while the disk is busy;
//! 5. **retire** requests that grace periods have passed for ([`retire`]).
//!
//! The log writer is a value with a [`turn`](LogWriter::turn); its thread is the few lines of [`LogWriter::run`].
//!
//! # Invariants
//!
//! * The order of submission is the order of the log. Whatever a request was decided against was submitted before it
//!   ([`decide`](crate::reserve::decide), rule 6).
//! * Flush *s* starts when flush *s − window* is published, and in a new segment when everything before is.
//! * Flushes are published in order, and nothing after one that failed.
//! * A cell is settled once: when its flush is published, or when the shard stops.

pub(crate) mod cells;
mod flush;
pub(crate) mod groups;
pub(crate) mod intake;
mod place;
pub(crate) mod pool;
mod publish;
pub(crate) mod request;
mod retire;

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use self::flush::{Building, Flight, Placed};
use self::intake::Intake;
use self::request::Payload;
use self::retire::Retirement;
use crate::disk::{Completion, Queue};
use crate::error::{Error, ErrorKind};
use crate::format::AcceptedEnd;
use crate::id::{FlushSequence, Position, ShardId, StoreId};
use crate::index::Index;
use crate::log::catalogue::Catalogue;
use crate::log::prepare::Prepared;
use crate::log::tail::Tail;
use crate::reserve::stack::Batch;
use crate::reserve::write::WriteRef;
use crate::stats::Counters;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{clock, followers, mailbox};

/// How long the log is quiet before a small flush states its frontier.
const FRONTIER_AFTER: Duration = Duration::from_millis(50);
/// How long a turn waits for memory that readers or stalled threads hold back.
const HELD_LOOK: Duration = Duration::from_millis(5);

/// What connects the log writer to the rest of its shard.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) intake: Intake,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) index: Arc<Index>,
    /// The segment that comes next, once it is prepared.
    pub(crate) prepared: Mutex<Option<Prepared>>,
    /// Somebody closes the shard: what is accepted is still written.
    pub(crate) closing: AtomicBool,
    pub(crate) counters: Counters,
    /// What the log writer left. It is freed with the links: whoever follows a slot has come by them.
    pub(crate) rest: Mutex<Vec<WriteRef<Payload>>>,
}

impl Links {
    /// Whether somebody needs more blocks than the segment being filled, which has `rest` left, and the prepared one
    /// have together, so that the rest of the first has to be given up: if nobody holds permits for it, and if the
    /// segment that is prepared in its place brings more.
    fn early_roll_wanted(&self, rest: i64, capacity_blocks: i64) -> bool {
        let Intake { preparation, .. } = &self.intake;
        let (wanted, left) = (preparation.wanted(), self.intake.permits().blocks_left());
        let most = wanted.min(capacity_blocks);
        let ready = preparation.ready_blocks();
        wanted > left && left >= rest && ready > 0 && (rest < most || ready < most)
    }

    /// The preparing thread: hands over the segment that comes next.
    pub(crate) fn hand_over(&self, prepared: Prepared, blocks: i64) {
        *self.prepared.lock().unwrap_or_else(PoisonError::into_inner) = Some(prepared);
        self.intake.preparation.set_ready(blocks);
    }

    /// Takes the segment that comes next, if it is prepared.
    pub(crate) fn take_prepared(&self) -> Option<Prepared> {
        let taken = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.intake.preparation.set_ready(0);
        taken
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let rest = self.rest.get_mut().unwrap_or_else(PoisonError::into_inner);
        for request in rest.drain(..) {
            // SAFETY: appends and accepted reads have the links, so nobody looks at a slot any more; the log writer has
            // ended, and each request is in this list once.
            drop(unsafe { request.into_box() });
        }
    }
}

/// What the log writer is told when it starts.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) store: StoreId,
    pub(crate) shard: ShardId,
    pub(crate) block_bytes: u32,
    pub(crate) window: usize,
    /// The most blocks of records that a segment can hold.
    pub(crate) capacity_blocks: i64,
    /// The last flush that recovery accepted.
    pub(crate) accepted: Option<AcceptedEnd>,
    /// Where wakers of tasks are called. That thread ends with the log writers, whoever keeps the links alive.
    pub(crate) wakers: mailbox::Sender<Vec<Waker>>,
}

/// The segment that is being filled.
#[derive(Debug)]
struct Active {
    prepared: Prepared,
    /// Where the next flush starts.
    offset: u32,
    /// Where records must end. One block beyond it is kept for stating the frontier.
    end: u32,
}

impl Active {
    /// How many bytes of records it can still take: none when the block behind `end` is used.
    fn rest_bytes(&self) -> u32 {
        self.end.saturating_sub(self.offset)
    }

    fn rest_blocks(&self, block_bytes: u32) -> i64 {
        i64::from(self.rest_bytes() / block_bytes)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LogWriter {
    start: Start,
    links: Arc<Links>,
    queue: Box<dyn Queue>,
    tail: Tail,
    active: Option<Active>,
    /// Taken off the stack and not yet placed.
    batch: Batch<Payload>,
    /// What came with the closing of the stack.
    last: Option<Batch<Payload>>,
    building: Building,
    flights: VecDeque<Flight>,
    /// The sequence of the next flush.
    sequence: FlushSequence,
    /// The checksum of the last flush that was started.
    previous: u64,
    /// The end of the last flush that was published.
    frontier: Position,
    /// No data has been published since a flush stated the frontier.
    frontier_stated: bool,
    quiet_since: Option<Instant>,
    completions: Vec<Completion>,
    retirement: Retirement,
    /// Why the shard stopped, if it did.
    failure: Option<Error>,
    /// Given up by a shard that stopped, and still in slots.
    abandoned: Vec<WriteRef<Payload>>,
    /// Empty, to be filled again.
    lists: Vec<Vec<Placed>>,
    /// Wakers of settled tickets, to be called elsewhere.
    wakers: Vec<Waker>,
    /// A flush could not begin for want of memory.
    starved: bool,
}

/// What is left when a log writer ends.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Why it stopped, if it did. The shard may have been closing by then, so this is not always why it takes no writes.
    pub(crate) failure: Option<Error>,
    /// The segment it was filling, and how many bytes of it are used.
    pub(crate) active: Option<(Prepared, u32)>,
    /// Requests that other threads may still look at.
    pub(crate) rest: Vec<WriteRef<Payload>>,
}

/// What a turn came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// Something was done: look again.
    Progress,
    /// There is nothing to do until something is submitted or completes.
    Idle,
    /// Closed, and everything is durable; or stopped.
    Over,
}

impl LogWriter {
    pub(crate) fn new(start: Start, links: Arc<Links>, queue: Box<dyn Queue>, tail: Tail) -> Self {
        let (sequence, previous, frontier) = match &start.accepted {
            Some(end) => (FlushSequence(end.sequence.0 + 1), end.checksum, end.position),
            None => (FlushSequence(1), 0, Position::START),
        };
        LogWriter {
            start,
            links,
            queue,
            tail,
            active: None,
            batch: Batch::empty(),
            last: None,
            building: Building::default(),
            flights: VecDeque::new(),
            sequence,
            previous,
            frontier,
            frontier_stated: true,
            quiet_since: None,
            completions: Vec::new(),
            retirement: Retirement::new(),
            failure: None,
            abandoned: Vec::new(),
            lists: Vec::new(),
            wakers: Vec::new(),
            starved: false,
        }
    }

    /// The thread: turns until it is over.
    pub(crate) fn run(mut self) -> Ended {
        loop {
            // A turn that panics stops the shard like a failed write, so that no ticket waits for ever.
            let turned = panic::catch_unwind(AssertUnwindSafe(|| {
                let turn = self.turn();
                if turn == Turn::Idle {
                    self.sleep();
                }
                turn
            }));
            match turned.unwrap_or_else(|_| self.give_up(flush::broken("it panicked"))) {
                Turn::Progress | Turn::Idle => {}
                Turn::Over => return self.end(),
            }
        }
    }

    /// One round of the module's list.
    fn turn(&mut self) -> Turn {
        self.queue.poll(&mut self.completions);
        match self.round() {
            Ok(progress) => {
                self.hand_over_wakers();
                self.retirement.collect();
                let held = self.retirement.held_bytes() + self.tail.held_bytes();
                self.links.intake.permits().set_held_bytes(held);
                if progress {
                    return Turn::Progress;
                }
                if self.last.is_some() && self.is_quiet() && self.frontier_stated {
                    return Turn::Over;
                }
                Turn::Idle
            }
            Err(failure) => self.give_up(failure),
        }
    }

    fn give_up(&mut self, failure: Error) -> Turn {
        self.stop(failure);
        self.hand_over_wakers();
        Turn::Over
    }

    /// Whether anything was done.
    fn round(&mut self) -> Result<bool, Error> {
        let mut progress = self.land()?;
        if self.links.intake.preparation.is_broken() {
            return Err(flush::broken("the thread that prepares segments panicked"));
        }
        if self.links.closing.load(Ordering::Acquire) && self.last.is_none() {
            let closed = Error::new(ErrorKind::Closed, "the store is closed");
            self.last = Some(self.links.intake.halt(closed));
            progress = true;
        }
        progress |= self.place()?;
        progress |= self.start_flush()?;
        progress |= self.roll_early()?;
        progress |= self.state_frontier()?;
        self.ask_for_space();
        self.links.intake.set_idle(self.is_quiet());
        Ok(progress)
    }

    /// Whether everything that was taken is durable and settled.
    fn is_quiet(&self) -> bool {
        self.flights.is_empty() && !self.building.begun() && self.batch.peek().is_none()
    }

    fn sleep(&mut self) {
        let limit = if self.starved {
            Some(HELD_LOOK)
        } else if let Some(since) = self.quiet_since {
            Some(FRONTIER_AFTER.saturating_sub(clock::since(since)))
        } else if !self.retirement.is_empty() {
            Some(FRONTIER_AFTER)
        } else {
            None
        };
        let (rest, capacity) = (self.rest_blocks(), self.start.capacity_blocks);
        let (quiet, blocked) = (self.is_quiet(), self.batch.peek().is_some());
        let LogWriter { links, queue, completions, .. } = self;
        if self.flights.len() == self.start.window && self.last.is_none() {
            // Only a completion can change anything: nobody needs to make a wake call.
            queue.wait(limit, completions);
            return;
        }
        let open = self.last.is_none();
        links.intake.doorbell().sleep_unless(
            || {
                let submitted = !blocked && !links.intake.is_empty();
                open && (submitted || links.closing.load(Ordering::Acquire))
                    || links.intake.preparation.is_broken()
                    || quiet && links.early_roll_wanted(rest, capacity)
            },
            || queue.wait(limit, completions),
        );
    }

    /// Sends wakers of tasks to the thread that calls them.
    fn hand_over_wakers(&mut self) {
        if !self.wakers.is_empty() {
            let wakers = std::mem::take(&mut self.wakers);
            if let Err(unsent) = self.start.wakers.send(wakers) {
                drop(unsent);
            }
        }
    }

    /// Tells everybody who follows that nothing more becomes durable.
    fn ring_last(&mut self) {
        let following = self.links.catalogue.following();
        following.end(self.failure.clone().map_or(Ok(()), Err));
        followers::published();
        following.followers.ring(&mut self.wakers);
        if following.is_watched() {
            for slot in self.links.index.iter() {
                slot.watchers.ring(&mut self.wakers);
            }
        }
        self.hand_over_wakers();
    }

    /// Ends a log writer whose last turn is over. The queue waits for what is still in flight.
    fn end(mut self) -> Ended {
        self.ring_last();
        let LogWriter { active, retirement, abandoned, queue, failure, .. } = self;
        drop(queue);
        Ended {
            active: active.map(|Active { prepared, offset, .. }| (prepared, offset)),
            failure,
            rest: retirement.into_rest().chain(abandoned).collect(),
        }
    }
}
