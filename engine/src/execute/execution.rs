//! What comes of an execution.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::error::Error;
use crate::ticket::{Committed, Ticket};

/// What an execution comes to: its write, `None` if it decided on no events, or the refusal.
pub(super) type Outcome<R> = Result<Result<Option<Committed>, R>, Error>;

/// A decision that was made and is on its way to the disk. Made by [`Store::execute`](crate::Store::execute).
///
/// Waiting for it, or awaiting it, gives
/// - `Ok(Ok(Some(committed)))`: the events are durable,
/// - `Ok(Ok(None))`: it decided on no events, and all that it decided on is durable,
/// - `Ok(Err(refusal))`: it refused, and all that it decided on is durable,
/// - `Err(error)`: nothing was decided, or what it decided on or wrote may not have become durable.
///
/// Dropping it takes nothing back.
#[must_use = "what was decided is durable only when the execution resolves"]
pub struct Execution<R>(Stage<R>);

enum Stage<R> {
    Appended(Ticket),
    /// The answer waits for what it rests on.
    Declined(Result<(), R>, Ticket),
    Resolved(Outcome<R>),
    /// The outcome was given away.
    Given,
}

// Nothing in it is pinned.
impl<R> Unpin for Execution<R> {}

impl<R> Execution<R> {
    pub(super) fn appended(ticket: Ticket) -> Execution<R> {
        Execution(Stage::Appended(ticket))
    }

    pub(super) fn declined(answer: Result<(), R>, barrier: Ticket) -> Execution<R> {
        Execution(Stage::Declined(answer, barrier))
    }

    pub(super) fn resolved(outcome: Outcome<R>) -> Execution<R> {
        Execution(Stage::Resolved(outcome))
    }

    /// Waits for the outcome.
    ///
    /// # Errors
    ///
    /// [`Contended`](crate::ErrorKind::Contended) if it lost too many races; otherwise those of
    /// [`Store::append`](crate::Store::append), [`Read`](crate::Read) and [`Ticket::wait`].
    pub fn wait(self) -> Result<Result<Option<Committed>, R>, Error> {
        match &self.0 {
            Stage::Appended(ticket) => ticket.wait().map(|committed| Ok(Some(committed))),
            Stage::Declined(_, barrier) => {
                let durable = barrier.wait();
                self.finish(durable)
            }
            Stage::Resolved(_) | Stage::Given => self.finish_resolved(),
        }
    }

    /// Waits for the outcome, but not longer than `limit`. `None`: the time is over; it can be waited for again.
    ///
    /// # Errors
    ///
    /// As [`wait`](Execution::wait).
    pub fn wait_timeout(
        &mut self,
        limit: Duration,
    ) -> Option<Result<Result<Option<Committed>, R>, Error>> {
        if let Stage::Appended(ticket) | Stage::Declined(_, ticket) = &self.0 {
            let answer = match ticket.wait_timeout(limit) {
                Ok(committed) => Ok(committed),
                Err(_) if !ticket.is_resolved() => return None,
                // Perhaps it has been resolved since the time was over.
                Err(_) => ticket.wait(),
            };
            return Some(self.take().finish(answer));
        }
        Some(self.take().finish_resolved())
    }

    /// Whether waiting would return at once.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        match &self.0 {
            Stage::Appended(ticket) | Stage::Declined(_, ticket) => ticket.is_resolved(),
            Stage::Resolved(_) | Stage::Given => true,
        }
    }

    fn take(&mut self) -> Execution<R> {
        std::mem::replace(self, Execution(Stage::Given))
    }

    fn finish(self, answer: Result<Committed, Error>) -> Outcome<R> {
        match self.0 {
            Stage::Appended(_) => answer.map(|committed| Ok(Some(committed))),
            Stage::Declined(declined, _) => answer.map(|_| declined.map(|()| None)),
            Stage::Resolved(_) | Stage::Given => self.finish_resolved(),
        }
    }

    fn finish_resolved(self) -> Outcome<R> {
        match self.0 {
            Stage::Resolved(outcome) => outcome,
            _ => Err(Error::invalid("the outcome of the execution was given already")),
        }
    }
}

impl<R> Future for Execution<R> {
    type Output = Result<Result<Option<Committed>, R>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Stage::Appended(ticket) | Stage::Declined(_, ticket) => {
                match Pin::new(ticket).poll(context) {
                    Poll::Ready(answer) => Poll::Ready(self.take().finish(answer)),
                    Poll::Pending => Poll::Pending,
                }
            }
            Stage::Resolved(_) | Stage::Given => Poll::Ready(self.take().finish_resolved()),
        }
    }
}

/// Shows no refusal: what a caller decides may be secret.
impl<R> fmt::Debug for Execution<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.0 {
            Stage::Appended(_) => "appended",
            Stage::Declined(..) => "declined",
            Stage::Resolved(_) => "resolved",
            Stage::Given => "given",
        };
        f.debug_struct("Execution")
            .field("stage", &stage)
            .field("resolved", &self.is_resolved())
            .finish()
    }
}
