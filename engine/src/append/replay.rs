//! A write that its client has made before: its original result, from the log.

use std::sync::Arc;

use super::record::refused;
use crate::error::{Error, ErrorKind};
use crate::format::Role;
use crate::read::RecordedWrite;
use crate::reserve::slot_ref::SlotRef;
use crate::reserve::step;
use crate::shard::Shard;
use crate::ticket::{Committed, Ticket};
use crate::writer::intake::Patience;
use crate::writer::pool;
use crate::writer::request::{Asked, Done, Kind, Request, TicketCell};

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
        mut request: Box<Request>,
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
        request.reset();
        request.payload.kind = Kind::Watch;
        if let Err(refused) = self.take_permits(&mut request, patience) {
            pool::give(request);
            return Err(refused);
        }
        set_asked(&mut request, |asked| asked.group = self.links.intake.group());
        let cell = triomphe::Arc::clone(&request.payload.cell);
        step!("submit a wait");
        match self.links.intake.push(request) {
            Ok(_) => {
                step!("wake for a wait");
                self.links.intake.wake_writer();
                Ok(Ticket::replaying(cell, replay))
            }
            Err(request) => {
                self.links.intake.release(request.payload.permits);
                pool::give(request);
                Err(self.closed())
            }
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

/// Changes what the cell of a request says that nobody else has seen.
fn set_asked(request: &mut Request, set: impl FnOnce(&mut Asked)) {
    if let Some(cell) = triomphe::Arc::get_mut(&mut request.payload.cell) {
        set(cell.asked_mut());
    }
}
