//! An append, as its caller's thread goes through it: check, look, take permits, reserve, submit.
//!
//! ```text
//! Store::append, Write     the call is checked, its record encoded into a pooled request
//!   Shard::append          one aggregate: one look at its slot first; a conflict is told before anything else
//!   Shard::submit          several, or a client: slots are looked up, one look at each: conflict? replay?
//!   Shard::reserve         permits for memory and prepared space; slots for new aggregates
//!   Shard::attempt         look again, submit, install, decide ([`crate::reserve::decide`]); again if a race was lost
//! Ticket
//! ```

mod accepted;
mod barrier;
mod builder;
mod record;
mod replay;
mod snapshot;

use std::sync::{Arc, Weak};

pub use builder::Write;
pub(crate) use replay::Replay;

use self::record::{add_events, finish, moved, no_events, refused};
use self::replay::unanswerable;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::expect::Expect;
use crate::format::Role;
use crate::index::SlotKey;
use crate::reserve::decide::{self, Look};
use crate::reserve::slot_ref::SlotRef;
use crate::reserve::step;
use crate::reserve::write::{Entry, Status};
use crate::shard::Shard;
use crate::sync::backoff::Backoff;
use crate::sync::broken;
use crate::sync::epoch::{self, Guard};
use crate::ticket::Ticket;
use crate::writer::intake::Patience;
use crate::writer::pool;
use crate::writer::request::{Kind, Payload, Plan, Request, Tag, Taken, TicketCell};

/// The aggregate of a plain append.
pub(crate) struct Target<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) hash: u64,
    /// Its slot, if it is at hand.
    pub(crate) slot: Option<SlotRef>,
    /// The caller has just looked at it.
    pub(crate) looked: bool,
}

/// What one look at all slots of a write says.
enum Considered {
    /// Every condition holds.
    Holds,
    /// The client made this write before.
    Replay,
}

impl Shard {
    /// Appends to one aggregate. A conflict is told before anything else is done.
    pub(crate) fn append(
        self: &Arc<Self>,
        target: &Target<'_>,
        expect: Expect,
        events: &mut dyn Iterator<Item = Event>,
        bytes_max: usize,
        patience: Patience,
    ) -> Result<Ticket, Error> {
        let Some(first) = events.next() else {
            return Err(no_events(target.key));
        };
        let slot = target.slot.or_else(|| self.find(target.hash, SlotKey::Aggregate(target.key)));
        // What expects nothing can't be refused, and what was just seen hardly: the attempt looks soon enough.
        if expect != Expect::Any && !target.looked {
            let seen = epoch::pinned(|guard| look_at(slot, guard));
            if !expect.holds(seen.version) {
                return Err(self.conflict(Role::Append, target.key, expect, seen));
            }
        }
        step!("encode");
        let mut request = pool::take();
        let plan = &mut request.payload.plan;
        if let Err(wrong) = plan
            .push(target.key, target.hash, expect, Role::Append, 0)
            .map_err(|e| refused(e, target.key))
            .and_then(|()| add_events(&mut request, target.key, expect, first, events))
            .and_then(|()| finish(&mut request, None, bytes_max))
        {
            pool::give(request);
            return Err(wrong);
        }
        request.payload.plan.parts[0].slot = slot;
        self.reserve(request, None, patience)
    }

    /// The version that a slot is at, accepted writes included. A shard that failed says so instead, if they are what
    /// makes the difference.
    pub(crate) fn version_accepted(&self, slot: SlotRef) -> Result<u64, Error> {
        self.links.intake.check_process()?;
        let seen = epoch::pinned(|guard| look_at(Some(slot), guard));
        if !seen.settled {
            self.links.check_failed()?;
        }
        Ok(seen.version)
    }

    /// Whether something is accepted on a slot that is not durable yet.
    pub(crate) fn is_pending(&self, slot: SlotRef) -> bool {
        !epoch::pinned(|guard| look_at(Some(slot), guard)).settled
    }

    /// Reserves and submits a request that is encoded and planned.
    pub(crate) fn submit(
        self: &Arc<Self>,
        mut request: Box<Request>,
        client: Option<(u128, u64)>,
        patience: Patience,
    ) -> Result<Ticket, Error> {
        if let Err(forked) = self.links.intake.check_process() {
            pool::give(request);
            return Err(forked);
        }
        // A write that changes nothing has nothing to replay.
        let client = client.filter(|_| request.payload.kind == Kind::Record);
        self.locate(&mut request, client);
        step!("consider");
        match epoch::pinned(|guard| self.consider(&mut request, client, guard)) {
            Ok(Considered::Holds) => self.reserve(request, client, patience),
            Ok(Considered::Replay) => self.replay(request, client, patience),
            Err(refused) => {
                pool::give(request);
                Err(refused)
            }
        }
    }

    /// Goes on with a request whose conditions held at the first look: permits, slots, attempts.
    fn reserve(
        self: &Arc<Self>,
        mut request: Box<Request>,
        client: Option<(u128, u64)>,
        patience: Patience,
    ) -> Result<Ticket, Error> {
        step!("acquire");
        if let Err(refused) = self.take_permits(&mut request, patience) {
            pool::give(request);
            return Err(refused);
        }
        step!("make slots");
        if let Err(refused) = self.make_slots(&mut request, client) {
            self.links.intake.release(request.payload.permits);
            pool::give(request);
            return Err(refused);
        }
        self.attempt(request, client, patience)
    }

    /// Looks up the slots that exist.
    fn locate(&self, request: &mut Request, client: Option<(u128, u64)>) {
        let plan = &mut request.payload.plan;
        for index in 0..plan.parts.len() {
            let mut part = plan.parts[index];
            part.slot = part.slot.or_else(|| self.find(part.hash, plan.slot_key(&part)));
            plan.parts[index] = part;
        }
        if let Some((client, _)) = client {
            self.locate_client(plan, client);
        }
    }

    /// Looks up the slots of a client that are not known yet.
    fn locate_client(&self, plan: &mut Plan, client: u128) {
        for index in 0..plan.parts.len() {
            let part = plan.parts[index];
            if part.appends() && part.client.is_none() {
                let key = SlotKey::Client(client, plan.key(&part));
                plan.parts[index].client = self.find(self.index.hash(key), key);
            }
        }
    }

    /// Makes the slots that are missing: the conditions hold, so the write will need them.
    fn make_slots(&self, request: &mut Request, client: Option<(u128, u64)>) -> Result<(), Error> {
        let out_of_memory = |_| Error::out_of_memory("a new aggregate");
        let plan = &mut request.payload.plan;
        for index in 0..plan.parts.len() {
            let mut part = plan.parts[index];
            if part.slot.is_none() {
                let made = self.index.insert(part.hash, plan.slot_key(&part));
                part.slot = Some(made.map_err(out_of_memory)?.0);
            }
            if let Some((client, _)) = client.filter(|_| part.appends() && part.client.is_none()) {
                let key = SlotKey::Client(client, plan.key(&part));
                let made = self.index.insert(self.index.hash(key), key);
                part.client = Some(made.map_err(out_of_memory)?.0);
            }
            plan.parts[index] = part;
        }
        Ok(())
    }

    /// One look at every slot of a write, noted in its plan: whether its conditions hold, or it was made before.
    fn consider(
        self: &Arc<Self>,
        request: &mut Request,
        client: Option<(u128, u64)>,
        guard: &Guard<'_>,
    ) -> Result<Considered, Error> {
        let plan = &mut request.payload.plan;
        if let Some(client) = client
            && self.consider_client(plan, client, guard)?
        {
            return Ok(Considered::Replay);
        }
        for index in 0..plan.parts.len() {
            let part = &mut plan.parts[index];
            part.seen = look_at(part.slot, guard);
            if part.expect.holds(part.seen.version) || part.checks() && broken!(IgnoresChecks) {
                continue;
            }
            let part = *part;
            // The original of a retry may have landed between the two looks.
            if let Some(client) = client {
                self.locate_client(plan, client.0);
                if self.consider_client(plan, client, guard)? {
                    return Ok(Considered::Replay);
                }
            }
            return Err(self.conflict(part.role, plan.key(&part), part.expect, part.seen));
        }
        Ok(Considered::Holds)
    }

    /// What the client's slots say of a sequence: `true` if it is the newest on all of them, `false` if it is higher
    /// than any seen.
    fn consider_client(
        &self,
        plan: &mut Plan,
        (client, sequence): (u128, u64),
        guard: &Guard<'_>,
    ) -> Result<bool, Error> {
        let wanted = sequence + 1;
        // The original may take effect between the looks at two slots, or make them after they were looked up. What is
        // still mixed the second time was so at one moment, since sequences only grow.
        for _look in 0..2 {
            let (mut all, mut higher, mut newest) = (0, 0, 0);
            for part in plan.parts.iter_mut().filter(|part| part.appends()) {
                part.client_seen = look_at(part.client, guard);
                all += 1;
                higher += usize::from(part.client_seen.version < wanted);
                newest += usize::from(part.client_seen.version == wanted);
            }
            if higher == all || broken!(IgnoresClients) {
                return Ok(false);
            }
            if newest == all {
                return Ok(true);
            }
            self.locate_client(plan, client);
        }
        let seen =
            plan.parts.iter().filter(|part| part.appends() && part.client_seen.version >= wanted);
        Err(unanswerable(sequence).with_keys(seen.map(|part| plan.key(part))))
    }

    /// What a write is told whose condition on a slot does not hold. A shard that takes no more writes says so instead:
    /// what it saw may be a write that never became durable.
    fn conflict(
        self: &Arc<Self>,
        role: Role,
        key: &[u8],
        expect: Expect,
        Look { version, settled, .. }: Look,
    ) -> Error {
        if let Err(closed) = self.links.intake.check_open() {
            return closed;
        }
        self.links.counters.count_conflict();
        let error = match role {
            Role::Checkpoint => moved(key, expect, version, settled),
            _ => Error::condition(key, expect, version, settled),
        };
        let place: Weak<Shard> = Arc::downgrade(self);
        error.lost_at(place)
    }

    /// Looks, submits and decides, until the write is accepted or a condition does not hold.
    fn attempt(
        self: &Arc<Self>,
        mut request: Box<Request>,
        client: Option<(u128, u64)>,
        patience: Patience,
    ) -> Result<Ticket, Error> {
        let mut backoff = Backoff::new();
        loop {
            step!("attempt");
            match epoch::pinned(|guard| self.attempt_once(request, client, guard)) {
                Attempted::Accepted(cell) => {
                    step!("wake");
                    self.links.intake.wake_writer();
                    step!("answer");
                    return Ok(Ticket::new(cell));
                }
                Attempted::LostRace(again) => {
                    // The log writer has the permits of the lost attempt to give back.
                    step!("wake after a lost race");
                    self.links.intake.wake_writer();
                    backoff.wait();
                    request = again;
                    if let Err(refused) = self.take_permits(&mut request, patience) {
                        pool::give(request);
                        return Err(refused);
                    }
                }
                Attempted::Replay(request) => {
                    self.links.intake.release(request.payload.permits);
                    return self.replay(request, client, patience);
                }
                Attempted::Refused(request, refused) => {
                    self.links.intake.release(request.payload.permits);
                    pool::give(request);
                    // A lost attempt may be on the stack, with permits to give back.
                    self.links.intake.wake_writer();
                    return Err(refused);
                }
            }
        }
    }

    fn attempt_once(
        self: &Arc<Self>,
        mut request: Box<Request>,
        client: Option<(u128, u64)>,
        guard: &Guard<'_>,
    ) -> Attempted {
        step!("look again");
        match self.consider(&mut request, client, guard) {
            Ok(Considered::Holds) => {}
            Ok(Considered::Replay) => return Attempted::Replay(request),
            Err(refused) => return Attempted::Refused(request, refused),
        }
        if let Err(refused) = fill_in(&mut request, client, self.links.intake.group()) {
            return Attempted::Refused(request, refused);
        }
        request.seal();
        step!("keep the cell");
        let cell = triomphe::Arc::clone(&request.payload.cell);
        step!("submit");
        let submitted = match self.links.intake.push(request) {
            Ok(submitted) => submitted,
            Err(request) => return Attempted::Refused(request, self.closed()),
        };
        step!("decide");
        // SAFETY: it was pushed under this guard, so its memory is not used again while the guard lives.
        let write = unsafe { submitted.get() };
        if decide::decide(write, guard) == Status::Accepted {
            return Attempted::Accepted(cell);
        }
        step!("copy");
        let mut again = pool::take();
        match again.payload.copy_from(&write.payload) {
            Ok(()) => Attempted::LostRace(again),
            Err(wrong) => Attempted::Refused(again, refused(wrong, &[])),
        }
    }

    /// Why the stack is closed.
    pub(super) fn closed(&self) -> Error {
        let closed = || Error::new(ErrorKind::Closed, "the store is closed");
        self.links.intake.halted().cloned().unwrap_or_else(closed)
    }

    pub(super) fn take_permits(
        &self,
        request: &mut Request,
        patience: Patience,
    ) -> Result<(), Error> {
        let needed = match request.payload.kind {
            Kind::Record => self.links.intake.needs(request.payload.record.record_bytes()),
            Kind::Watch => Taken::WATCH,
        };
        self.links.intake.acquire(needed, patience)?;
        request.payload.permits = needed;
        Ok(())
    }
}

/// What came of one attempt.
enum Attempted {
    Accepted(triomphe::Arc<TicketCell>),
    /// Another write was decided in between; the conditions may hold still. A copy to try again with.
    LostRace(Box<Request>),
    Replay(Box<Request>),
    Refused(Box<Request>, Error),
}

#[inline]
fn look_at(slot: Option<SlotRef>, guard: &Guard<'_>) -> Look {
    slot.map_or(Look::NOTHING, |slot| decide::look::<Payload>(slot, guard))
}

/// Makes the entries of a write that is decided on what its plan has seen, and notes the versions it leads to.
fn fill_in(request: &mut Request, client: Option<(u128, u64)>, group: u8) -> Result<(), Error> {
    request.reset();
    let (entries, payload) = request.parts_mut();
    let Payload { kind, record, cell, plan, .. } = payload;
    for (index, part) in plan.parts.iter().enumerate() {
        let Some(slot) = part.slot else { continue };
        let Look { tick, version, .. } = part.seen;
        let next = || version.checked_add(1).ok_or_else(|| exhausted(plan.key(part)));
        let (after, stated, tag) = match part.role {
            Role::Append => (next()?, version + 1, Tag::Append(index as u32)),
            Role::Check => (version, version, Tag::Check),
            Role::Checkpoint => (part.stated, part.stated, Tag::Checkpoint(index as u32)),
            Role::Snapshot => (next()?, part.stated, Tag::Snapshot(index as u32)),
        };
        entries.push(Entry::new(slot, tick, version, after, tag.encode()));
        if *kind == Kind::Record {
            record.set_version(index, stated);
        }
        if let (Some(slot), Some((_, sequence)), true) = (part.client, client, part.appends()) {
            let Look { tick, version, .. } = part.client_seen;
            entries.push(Entry::new(slot, tick, version, sequence + 1, Tag::Client.encode()));
        }
    }
    if let Some(cell) = triomphe::Arc::get_mut(cell) {
        let asked = cell.asked_mut();
        asked.group = group;
        asked.clear();
        for part in plan.parts.iter().filter(|part| part.appends()) {
            let pushed = asked.push_appended(plan.key(part), part.seen.version + 1);
            pushed.map_err(|e| refused(e, plan.key(part)))?;
        }
        for part in plan.parts.iter().filter(|part| part.checks()) {
            let pushed = asked.push_checked(plan.key(part), part.seen.version);
            pushed.map_err(|e| refused(e, plan.key(part)))?;
        }
    }
    Ok(())
}

fn exhausted(key: &[u8]) -> Error {
    Error::invalid("the aggregate has as many versions as can be counted").with_keys([key])
}
