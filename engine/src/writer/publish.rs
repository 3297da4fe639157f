//! Publishing: from a completed write of the disk to answered tickets. And stopping: when it fails.

use super::flush::{Flight, Placed};
use super::groups::{self, GroupSet};
use super::request::{Done, Kind, Tag, Taken};
use super::{Links, LogWriter};
use crate::disk::Completion;
use crate::error::{Error, ErrorKind};
use crate::id::Position;
use crate::index::SlotKey;
use crate::reserve::decide;
use crate::reserve::slot_ref::SlotRef;
use crate::reserve::stack::Batch;
use crate::reserve::write::Status;
use crate::sync::{broken, followers, prefetch};

/// The slots of a request are asked for when the one so many places before it is published.
const PUBLISHED_AHEAD: usize = 8;

impl LogWriter {
    /// Takes completions, and publishes what is durable, in order. Whether anything was done.
    pub(super) fn land(&mut self) -> Result<bool, Error> {
        let mut failure = None;
        let mut completions = std::mem::take(&mut self.completions);
        let progress = !completions.is_empty();
        for Completion { token, result } in completions.drain(..) {
            match result {
                Err(_) if broken!(GoesOnAfterFailure) => self.landed(token),
                // A sync that succeeds after one that failed says nothing: the system may have dropped the bytes.
                Ok(()) if failure.is_some() => {}
                Ok(()) => self.landed(token),
                Err(error) => failure = Some(Error::io("writing to the log", error)),
            }
        }
        self.completions = completions;
        if let Some(failure) = failure {
            // What is durable with all before it is published; then nothing more ever is.
            while let Some(flight) = self.next_durable() {
                self.publish(&flight);
                self.settle(flight);
            }
            return Err(failure);
        }
        while let Some(flight) = self.next_durable() {
            self.publish(&flight);
            // The disk is not kept waiting for the settling of what it has done.
            let started = self.start_flush();
            self.settle(flight);
            started?;
        }
        Ok(progress)
    }

    /// Notes that a flush is durable.
    fn landed(&mut self, token: u64) {
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.sequence.0 == token) {
            flight.durable = true;
        }
    }

    /// The next flush in order, if it is durable.
    fn next_durable(&mut self) -> Option<Flight> {
        let nth = match broken!(PublishesOutOfOrder) {
            true => self.flights.iter().position(|flight| flight.durable)?,
            false => 0,
        };
        self.flights.get(nth).filter(|flight| flight.durable)?;
        self.flights.remove(nth)
    }

    /// Shows what a flush has changed: the slots, then the watermark.
    fn publish(&mut self, flight: &Flight) {
        for (nth, placed) in flight.requests.iter().enumerate() {
            if let Some(ahead) = flight.requests.get(nth + PUBLISHED_AHEAD) {
                // SAFETY: a request in a flight is alive until the retirement frees it.
                for entry in unsafe { ahead.request.get() }.entries() {
                    prefetch::for_writing(std::ptr::from_ref(&*entry.slot).cast(), 1);
                }
            }
            if placed.position.is_none() {
                continue;
            }
            // SAFETY: a request in a flight is alive until the retirement frees it.
            let write = unsafe { placed.request.get() };
            for entry in write.entries() {
                // Versions must not go back where entries are followed, also in mutants.
                if broken!(PublishesOutOfOrder | TakesNewestFirst)
                    && entry.slot.version() >= entry.version_after
                {
                    continue;
                }
                match Tag::decode(entry.tag) {
                    Tag::Append(_) | Tag::Client | Tag::Checkpoint(_) | Tag::Snapshot(_) => {
                        entry.slot.publish_version(entry.version_after, placed.position);
                    }
                    Tag::Check => {}
                }
            }
        }
        let passed = broken!(WatermarkLeads | PublishesOutOfOrder)
            && flight.end < self.links.catalogue.watermark();
        if !passed {
            self.links.catalogue.publish(flight.end);
        }
        self.frontier = flight.end;
        if flight.records > 0 {
            self.frontier_stated = false;
        }
        self.links.counters.count_flush(flight.records, flight.events, flight.bytes);
    }

    /// Wakes those who follow, answers the tickets of a published flush and clears its entries out of their slots.
    fn settle(&mut self, mut flight: Flight) {
        followers::published();
        if !broken!(RingsNobody) {
            self.links.catalogue.following().followers.ring(&mut self.wakers);
        }
        let mut spent = self.retirement.list();
        let mut bytes = 0;
        for placed in flight.requests.drain(..) {
            bytes += self.settle_one(placed, flight.time);
            spent.push(placed.request);
        }
        self.links.intake.release(Taken { bytes, blocks: 0 });
        self.retirement.spend(spent);
        self.lists.push(flight.requests);
        flight.groups.wake();
    }

    /// Settles a request without a record when everything before it is durable already.
    pub(super) fn settle_now(&mut self, placed: Placed, group: u8) {
        let bytes = self.settle_one(placed, 0);
        self.links.intake.release(Taken { bytes, blocks: 0 });
        let mut spent = self.retirement.list();
        spent.push(placed.request);
        self.retirement.spend(spent);
        groups::word(group).wake_all();
    }

    fn settle_one(&mut self, placed: Placed, time: i64) -> i64 {
        // SAFETY: a request that is being settled is alive until the retirement frees it.
        let write = unsafe { placed.request.get() };
        let payload = &write.payload;
        for entry in write.entries() {
            entry.slot.set_published(entry.after());
            decide::clear_published(entry);
            if let Tag::Append(_) = Tag::decode(entry.tag) {
                self.ring_watchers(entry.slot);
            }
        }
        let done = Done { position: placed.position, time };
        // SAFETY: a request is settled once, by its log writer.
        let waker = unsafe { payload.cell.settle(Ok(done)) };
        self.wakers.extend(waker);
        payload.permits.bytes
    }

    /// Wakes those who watch an aggregate, or a prefix of its key. What was published has been fenced.
    #[inline]
    fn ring_watchers(&mut self, slot: SlotRef) {
        slot.watchers.ring(&mut self.wakers);
        let Links { catalogue, index, .. } = &*self.links;
        for prefix in catalogue.following().prefixes_of(slot.key()) {
            let key = SlotKey::Prefix(prefix);
            if let Some(watched) = index.find(index.hash(key), key) {
                watched.watchers.ring(&mut self.wakers);
            }
        }
    }

    /// Stops the shard for good: nothing that is not yet published is ever reported committed.
    pub(super) fn stop(&mut self, cause: Error) {
        let shard = self.start.shard;
        let stopped = Error::new(
            ErrorKind::Stopped,
            format!("shard {shard} stopped taking writes ({cause}): open the store again"),
        );
        let unknown = Error::new(
            ErrorKind::OutcomeUnknown,
            format!(
                "shard {shard} stopped while the write was on its way to the disk ({cause}): open the store again, read, then decide"
            ),
        );
        let not_written = Error::new(
            ErrorKind::NotWritten,
            format!(
                "shard {shard} stopped before the write reached the disk ({cause}): open the store again and send it again"
            ),
        );
        self.failure = Some(stopped.clone());
        // Before anybody is told that a write has failed: from then on no read may show it.
        self.links.catalogue.following().end(Err(stopped.clone()));
        let last = self.links.intake.halt(stopped);
        let mut groups = GroupSet::default();
        let flown = if broken!(DeniesWhatFlew) { &not_written } else { &unknown };
        for mut flight in std::mem::take(&mut self.flights) {
            for placed in flight.requests.drain(..) {
                self.fail(placed, flown, &unknown, &mut groups);
            }
        }
        for placed in std::mem::take(&mut self.building.requests) {
            self.fail(placed, &not_written, &unknown, &mut groups);
        }
        let batch = std::mem::replace(&mut self.batch, Batch::empty());
        for request in batch.chain(self.last.take().into_iter().flatten()).chain(last) {
            // SAFETY: a request that was taken off the stack is alive until the retirement frees it.
            let write = unsafe { request.get() };
            // One without entries waits for the writes of others: nobody but the log writer decides it.
            if write.reject() == Status::Accepted || write.entries().is_empty() {
                let placed = Placed { request, position: Position::START };
                self.fail(placed, &not_written, &unknown, &mut groups);
            } else {
                // Its owner tries again, and meets the closed stack.
                self.abandoned.push(request);
            }
        }
        groups.wake();
        // Last: who listens to what is said may panic, and nobody is to wait for that.
        tracing::error!(shard = shard.0, %cause, "the shard stops taking writes");
    }

    /// Answers the ticket of a request that the shard gives up. Its entries stay in their slots.
    fn fail(&mut self, placed: Placed, record: &Error, watch: &Error, groups: &mut GroupSet) {
        // SAFETY: a request that is being settled is alive until the retirement frees it.
        let payload = &unsafe { placed.request.get() }.payload;
        groups.insert(payload.cell.asked().group);
        // A request that only waits or checks depends on what has become unknown.
        let why = if payload.kind == Kind::Record { record } else { watch };
        // SAFETY: a request is settled once, by its log writer.
        let waker = unsafe { payload.cell.settle(Err(Box::new(why.clone()))) };
        self.wakers.extend(waker);
        self.abandoned.push(placed.request);
    }
}
