//! What an append returns, and what comes of it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use triomphe::Arc;

use crate::append::Replay;
use crate::error::{Error, ErrorKind};
use crate::id::Position;
use crate::sync::clock;
use crate::writer::cells::Held;
use crate::writer::groups;
use crate::writer::request::{Done, TicketCell};

/// A write that was accepted and is on its way to the disk.
///
/// Its conditions held and it has its place in the order of its shard; when it resolves, it is durable. Wait for it on a
/// thread ([`wait`](Ticket::wait)), or await it on any executor. Dropping it takes nothing back.
#[must_use = "a write is durable only when its ticket resolves"]
pub struct Ticket {
    cell: Held,
    /// The write was made before: what it answers is looked up in the log.
    replay: Option<Box<Replay>>,
}

impl Ticket {
    pub(crate) fn new(cell: Arc<TicketCell>) -> Ticket {
        Ticket { cell: Held::new(cell), replay: None }
    }

    /// A ticket for a write that was made before, to be looked up once the cell is settled.
    pub(crate) fn replaying(cell: Arc<TicketCell>, replay: Replay) -> Ticket {
        Ticket { cell: Held::new(cell), replay: Some(Box::new(replay)) }
    }

    /// Waits until the write is durable.
    ///
    /// # Errors
    ///
    /// [`NotWritten`](ErrorKind::NotWritten) or [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) if the shard fails
    /// first; see [`ErrorKind`] for what to do.
    pub fn wait(&self) -> Result<Committed, Error> {
        match self.cell.wait(groups::word(self.cell.asked().group), None) {
            Some(answer) => self.finish(answer),
            None => Err(still_unknown()),
        }
    }

    /// Waits until the write is durable, but not longer than `limit`.
    ///
    /// # Errors
    ///
    /// As [`wait`](Ticket::wait); [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) also when the time is over. The
    /// write goes on, and the ticket can be waited for again.
    pub fn wait_timeout(&self, limit: Duration) -> Result<Committed, Error> {
        let deadline = clock::now().checked_add(limit);
        match self.cell.wait(groups::word(self.cell.asked().group), deadline) {
            Some(answer) => self.finish(answer),
            None => Err(still_unknown()),
        }
    }

    /// Whether waiting would return at once.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        self.cell.answer().is_some()
    }

    fn finish(&self, answer: &Result<Done, Box<Error>>) -> Result<Committed, Error> {
        match (answer, &self.replay) {
            (Err(error), _) => Err(Error::clone(error)),
            (Ok(done), None) => {
                Ok(Committed { cell: self.cell.clone(), done: *done, replay: false })
            }
            (Ok(_), Some(replay)) => replay.look_up(),
        }
    }
}

#[cold]
fn still_unknown() -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        "the write was not durable when the time was over: wait for its ticket again",
    )
}

impl Future for Ticket {
    type Output = Result<Committed, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.cell.poll(context.waker()) {
            Some(answer) => Poll::Ready(self.finish(answer)),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("resolved", &self.is_resolved())
            .field("replay", &self.replay.is_some())
            .finish_non_exhaustive()
    }
}

/// A write that is durable.
#[derive(Clone)]
pub struct Committed {
    cell: Held,
    done: Done,
    replay: bool,
}

impl Committed {
    pub(crate) fn replayed(cell: Arc<TicketCell>, done: Done) -> Committed {
        Committed { cell: Held::new(cell), done, replay: true }
    }

    /// The version that the write brought its first aggregate to; 0 if it appended to none.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.cell.asked().first()
    }

    /// The version that the write brought this aggregate to, or saw it at if it only checked it; `None` if the
    /// aggregate was not part of it.
    #[must_use]
    pub fn version_of(&self, key: impl AsRef<[u8]>) -> Option<u64> {
        let key = key.as_ref();
        self.versions().find(|(part, _)| *part == key).map(|(_, version)| version)
    }

    /// All aggregates of the write with their versions: those it appended to first, then those it only checked. Its
    /// checkpoints are not among them.
    pub fn versions(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.cell.asked().versions()
    }

    /// Where the write stands in the log of its shard; [`Position::START`] if it only checked.
    #[must_use]
    pub fn position(&self) -> Position {
        self.done.position
    }

    /// When the write was committed, in microseconds since 1970.
    #[must_use]
    pub fn time(&self) -> i64 {
        self.done.time
    }

    /// Whether this is the result of an earlier write with the same client and sequence.
    #[must_use]
    pub fn is_replay(&self) -> bool {
        self.replay
    }
}

impl fmt::Debug for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committed")
            .field("version", &self.version())
            .field("position", &self.position())
            .field("time", &self.time())
            .field("is_replay", &self.is_replay())
            .finish_non_exhaustive()
    }
}
