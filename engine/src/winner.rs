//! Waiting for the write that won.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::shard::Shard;
use crate::ticket::Ticket;
use crate::writer::intake::Patience;

/// What a write lost against, to be waited for on a thread or awaited. Made by [`Error::winner`].
#[must_use = "it says nothing until it is waited for"]
pub struct Winner(Result<Ticket, Error>);

impl Error {
    /// After a [conflict](ErrorKind::Conflict): something to wait for, or to await, until what the write lost against is
    /// durable, or has failed. `None` for any other error.
    ///
    /// A loser is told at once, which may be before the winner is durable. Whoever answers somebody outside with what
    /// the aggregate is at now waits for this first. It waits for all that is accepted on the shard by now.
    #[must_use]
    pub fn winner(&self) -> Option<Winner> {
        if self.kind() != ErrorKind::Conflict {
            return None;
        }
        let place = self.place()?.upgrade();
        let shard = place.and_then(|place| place.downcast::<Shard>().ok());
        let closed = || Error::new(ErrorKind::Closed, "the store is closed");
        Some(Winner(shard.ok_or_else(closed).and_then(|shard| shard.barrier(Patience::Wait))))
    }
}

impl Winner {
    /// Waits until it is durable.
    ///
    /// # Errors
    ///
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) if the shard failed first, [`Stopped`](ErrorKind::Stopped) or
    /// [`Closed`](ErrorKind::Closed) if it had before this was made.
    pub fn wait(&self) -> Result<(), Error> {
        self.0.as_ref().map_err(Error::clone)?.wait().map(drop)
    }

    /// Waits until it is durable, but not longer than `limit`.
    ///
    /// # Errors
    ///
    /// As [`wait`](Winner::wait); [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) also when the time is over. It can be
    /// waited for again; [`is_resolved`](Winner::is_resolved) tells the two apart.
    pub fn wait_timeout(&self, limit: Duration) -> Result<(), Error> {
        self.0.as_ref().map_err(Error::clone)?.wait_timeout(limit).map(drop)
    }

    /// Whether waiting would return at once.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        self.0.as_ref().map_or(true, Ticket::is_resolved)
    }
}

impl Future for Winner {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(ticket) => Pin::new(ticket).poll(context).map(|answer| answer.map(drop)),
            Err(error) => Poll::Ready(Err(error.clone())),
        }
    }
}

impl fmt::Debug for Winner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Winner").field(&self.0).finish()
    }
}
