//! A write that its client has made before: its original result, from the log.

use std::sync::Arc;

use super::look_at;
use super::record::{no_such_sequence, refused};
use crate::error::{Error, ErrorKind};
use crate::expect::Expect;
use crate::format::Role;
use crate::index::SlotKey;
use crate::read::RecordedWrite;
use crate::reserve::slot::client_version;
use crate::reserve::slot_ref::SlotRef;
use crate::shard::Shard;
use crate::sync::epoch;
use crate::ticket::{Committed, Ticket};
use crate::writer::intake::Patience;
use crate::writer::pool;
use crate::writer::request::{Asked, Done, Request, TicketCell};

/// A write that was made before, to be found in the log.
pub(crate) struct Replay {
    shard: Arc<Shard>,
    client: u128,
    sequence: u64,
    /// The slot of the client on the first aggregate.
    slot: SlotRef,
    keys: Vec<Box<[u8]>>,
}

impl Replay {
    /// The original result. Everything that was decided when the replay was submitted is durable.
    pub(crate) fn look_up(&self) -> Result<Committed, Error> {
        let newest = self.shard.read.write_at(self.slot.head())?;
        if newest.client() == Some((self.client, self.sequence)) {
            return self.answer(&newest);
        }
        // A higher sequence of the client has landed meanwhile. The original is further down.
        let first = self.keys.first().map(|key| &**key).unwrap_or_default();
        for event in self.shard.read.read(first).backwards() {
            let event = event?;
            if event.index() > 0 {
                continue;
            }
            let write = self.shard.read.write_at(event.position())?;
            if write.client() == Some((self.client, self.sequence)) {
                return self.answer(&write);
            }
        }
        Err(self.unanswerable())
    }

    fn answer(&self, write: &RecordedWrite) -> Result<Committed, Error> {
        let mut asked = Asked::default();
        for part in write.parts().filter(|part| part.role() == Role::Append) {
            let pushed = asked.push_appended(part.key(), part.version());
            pushed.map_err(|e| refused(e, part.key()))?;
        }
        for part in write.parts().filter(|part| part.is_check()) {
            let pushed = asked.push_checked(part.key(), part.version());
            pushed.map_err(|e| refused(e, part.key()))?;
        }
        let appended =
            |key: &[u8]| write.parts().any(|part| part.role() == Role::Append && part.key() == key);
        if !self.keys.iter().all(|key| appended(key)) {
            return Err(self.unanswerable());
        }
        let done = Done { position: write.position(), time: write.commit_time() };
        Ok(Committed::replayed(triomphe::Arc::new(TicketCell::new(asked)), done))
    }

    fn unanswerable(&self) -> Error {
        unanswerable(self.sequence).with_keys(self.keys.iter().map(|key| &**key))
    }
}

impl Shard {
    /// Answers a write that was made before, once everything that was submitted before now is durable.
    pub(super) fn replay(
        self: &Arc<Self>,
        request: Box<Request>,
        client: Option<(u128, u64)>,
        patience: Patience,
    ) -> Result<Ticket, Error> {
        let plan = &request.payload.plan;
        let keys: Vec<Box<[u8]>> = plan
            .parts
            .iter()
            .filter(|part| part.appends())
            .map(|part| plan.key(part).into())
            .collect();
        let slot = plan.parts.iter().find_map(|part| part.client);
        let (Some((client, sequence)), Some(slot)) = (client, slot) else {
            pool::give(request);
            return Err(Error::invalid("a replay without a client"));
        };
        let replay = Replay { shard: Arc::clone(self), client, sequence, slot, keys };
        let cell = self.submit_barrier(request, patience)?;
        Ok(Ticket::replaying(cell, replay))
    }

    /// The original result of a write that a client has made before on some of these aggregates, for whoever does not
    /// know yet what it would write to which of them. `None` if its sequence is higher than any seen on all of them.
    pub(crate) fn made_before<'k>(
        self: &Arc<Self>,
        keys: impl Iterator<Item = (&'k [u8], u64)> + Clone,
        (client, sequence): (u128, u64),
    ) -> Result<Option<Ticket>, Error> {
        let wanted = client_version(sequence).ok_or_else(no_such_sequence)?;
        let (mut request, mut higher) = (pool::take(), Vec::new());
        for (key, hash) in keys {
            let slot_key = SlotKey::Client(client, key);
            let Some(slot) = self.find(self.index.hash(slot_key), slot_key) else { continue };
            let seen = epoch::pinned(|guard| look_at(Some(slot), guard)).version;
            if seen > wanted {
                higher.push(key);
            } else if seen == wanted {
                let plan = &mut request.payload.plan;
                plan.push(key, hash, Expect::Any, Role::Append, 0).map_err(|e| refused(e, key))?;
                if let Some(part) = plan.parts.last_mut() {
                    part.client = Some(slot);
                }
            }
        }
        if !request.payload.plan.parts.is_empty() {
            return self.replay(request, Some((client, sequence)), Patience::Wait).map(Some);
        }
        pool::give(request);
        match higher.is_empty() {
            true => Ok(None),
            false => Err(unanswerable(sequence).with_keys(higher)),
        }
    }
}

pub(super) fn unanswerable(sequence: u64) -> Error {
    Error::new(
        ErrorKind::Duplicate,
        format!(
            "what became of sequence {sequence} can't be answered: expected one above all that its client has used, or the newest of them, from one write, on all aggregates"
        ),
    )
}
