//! Annals, through its public interface and with its default options.

use std::{
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use annals::{
    Aggregate, Backend, Error, ErrorKind, Event, Execution, Expect, Options, Recorded, State,
    States, Store as Engine,
};

use crate::store::{Append, Decided, Key, Outcome, Result, Session, Setup, Store, Ticket};

/// Executions keep the states of so many aggregates.
const STATES: usize = 1024;

/// A store of Annals.
#[derive(Debug)]
pub struct Annals {
    engine: Engine,
    states: States<Count>,
}

/// What executions decide on: how many events an aggregate has.
#[derive(Clone, Copy, Debug, Default)]
struct Count(u64);

impl State for Count {
    fn apply(&mut self, _: &Recorded) {
        self.0 += 1;
    }
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
        let engine = options.open(dir)?;
        Ok(Annals { states: engine.states(STATES), engine })
    }

    fn session(&self) -> Result<AnnalsSession> {
        Ok(AnnalsSession { engine: self.engine.clone(), states: self.states.clone() })
    }

    fn close(self) -> Result<()> {
        Ok(self.engine.close()?)
    }
}

/// A thread's handle to the store.
#[derive(Debug)]
pub struct AnnalsSession {
    engine: Engine,
    states: States<Count>,
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

    fn execute(&mut self, key: Key, payload: &[u8]) -> Result<Decided<AnnalsTicket>> {
        let execution = self.states.execute(key, |count| {
            if count.0 < u64::MAX { Ok(vec![event(payload)]) } else { Err(Overflow) }
        });
        Ok(Decided::Accepted(AnnalsTicket::Decided(execution)))
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

/// Why a decision on a count refuses.
#[derive(Clone, Copy, Debug)]
pub struct Overflow;

type Executed =
    std::result::Result<std::result::Result<Option<annals::Committed>, Overflow>, Error>;

fn committed(executed: Executed) -> Result<Outcome> {
    match executed? {
        Ok(Some(committed)) => Ok(Outcome::Committed(committed.version())),
        other => Err(format!("an execution wrote nothing: {other:?}").into()),
    }
}

/// A ticket, or the conflict that was known at once.
#[derive(Debug)]
pub enum AnnalsTicket {
    /// Accepted, and not yet known to be durable.
    Accepted(annals::Ticket),
    /// Decided, and not yet known to be durable.
    Decided(Execution<Overflow>),
    /// Rejected: the version that the aggregate has.
    Conflict(u64),
}

impl Ticket for AnnalsTicket {
    fn wait(self) -> Result<Outcome> {
        match self {
            AnnalsTicket::Accepted(ticket) => Ok(Outcome::Committed(ticket.wait()?.version())),
            AnnalsTicket::Decided(execution) => committed(execution.wait()),
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
            AnnalsTicket::Decided(execution) => Pin::new(execution).poll(context).map(committed),
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
