//! Annals, through its public interface and with its default options.

use std::{
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use annals::{Aggregate, Backend, Error, ErrorKind, Event, Expect, Options, Store as Engine};

use crate::store::{Append, Key, Outcome, Result, Session, Setup, Store, Ticket};

/// A store of Annals.
#[derive(Debug)]
pub struct Annals {
    engine: Engine,
}

impl Annals {
    /// What it says of itself: the back end, how flushes are made durable, what it holds.
    pub fn stats(&self) -> annals::Stats {
        self.engine.stats()
    }

    /// The store itself, for what only Annals has.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

impl Store for Annals {
    type Session = AnnalsSession;

    fn open(dir: &Path, setup: &Setup) -> Result<Annals> {
        let options = Options::new();
        let options = if setup.blocking { options.backend(Backend::Blocking) } else { options };
        Ok(Annals { engine: options.open(dir)? })
    }

    fn session(&self) -> Result<AnnalsSession> {
        Ok(AnnalsSession { engine: self.engine.clone() })
    }

    fn close(self) -> Result<()> {
        Ok(self.engine.close()?)
    }
}

/// A thread's handle to the store.
#[derive(Debug)]
pub struct AnnalsSession {
    engine: Engine,
}

impl Session for AnnalsSession {
    type Ticket = AnnalsTicket;
    type Handle = Aggregate;

    fn submit(&mut self, appends: &[Append<'_>]) -> Result<AnnalsTicket> {
        let ticket = match appends {
            [one] => self.engine.append(one.key, expect(one.expected), [event(one.payload)]),
            _ => appends
                .iter()
                .fold(self.engine.write(), |write, part| {
                    write.append(part.key, expect(part.expected), [event(part.payload)])
                })
                .submit(),
        };
        accepted_or_conflict(ticket)
    }

    fn handle(&mut self, key: Key) -> Result<Aggregate> {
        Ok(self.engine.aggregate(key)?)
    }

    fn submit_to(
        &mut self,
        handle: &Aggregate,
        expected: Option<u64>,
        payload: &[u8],
    ) -> Result<AnnalsTicket> {
        accepted_or_conflict(handle.append(expect(expected), [event(payload)]))
    }

    fn version(&mut self, key: Key) -> Result<u64> {
        Ok(self.engine.version(key)?)
    }

    fn read_last(&mut self, key: Key, events: usize, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        // One event a write, so the last so many versions are the last so many events.
        let version = self.engine.version(key)?;
        let first = (version + 1).saturating_sub(events as u64).max(1);
        let mut count = 0;
        for event in self.engine.read(key).from(first).limit(events) {
            each(event?.data());
            count += 1;
        }
        Ok(count)
    }

    fn read_all(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut count = 0;
        for shard in 0..self.engine.shards() {
            for event in self.engine.log(shard) {
                each(event?.data());
                count += 1;
            }
        }
        Ok(count)
    }
}

fn expect(expected: Option<u64>) -> Expect {
    expected.map_or(Expect::Any, Expect::Version)
}

fn event(payload: &[u8]) -> Event {
    Event::new("Measured", payload)
}

fn accepted_or_conflict(
    ticket: std::result::Result<annals::Ticket, Error>,
) -> Result<AnnalsTicket> {
    match ticket {
        Ok(ticket) => Ok(AnnalsTicket::Accepted(ticket)),
        Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
            Ok(AnnalsTicket::Conflict(error.actual().unwrap_or(0)))
        }
        Err(error) => Err(error.into()),
    }
}

/// A ticket, or the conflict that was known at once.
#[derive(Debug)]
pub enum AnnalsTicket {
    /// Accepted, and not yet known to be durable.
    Accepted(annals::Ticket),
    /// Rejected: the version that the aggregate has.
    Conflict(u64),
}

impl Ticket for AnnalsTicket {
    fn wait(self) -> Result<Outcome> {
        match self {
            AnnalsTicket::Accepted(ticket) => Ok(Outcome::Committed(ticket.wait()?.version())),
            AnnalsTicket::Conflict(actual) => Ok(Outcome::Conflict(actual)),
        }
    }
}

impl Future for AnnalsTicket {
    type Output = Result<Outcome>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Outcome>> {
        match self.get_mut() {
            AnnalsTicket::Accepted(ticket) => Pin::new(ticket)
                .poll(context)
                .map(|committed| Ok(Outcome::Committed(committed?.version()))),
            AnnalsTicket::Conflict(actual) => Poll::Ready(Ok(Outcome::Conflict(*actual))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::contract;

    #[test]
    fn annals_keeps_the_contract() {
        contract::check::<Annals>();
    }

    #[test]
    fn the_blocking_back_end_is_the_one_that_runs_when_asked_for() {
        let dir = contract::folder();
        let store = Annals::open(dir.path(), &Setup { blocking: true }).expect("it opens");
        assert_eq!(store.stats().backend, "blocking");
        store.close().expect("it closes");
    }
}
