//! Placing: from a request to a record in the tail image.

use super::LogWriter;
use super::flush::{Placed, broken};
use super::request::{Kind, Payload, Request, Tag};
use crate::error::Error;
use crate::format::{self, FLUSH_HEADER_BYTES};
use crate::id::Position;
use crate::limits::FLUSH_BYTES_TARGET;
use crate::reserve::decide;
use crate::reserve::stack::Batch;
use crate::reserve::write::{Status, Write, WriteRef};
use crate::sync::{broken, epoch, prefetch};

impl LogWriter {
    /// Places what has been submitted, as far as there is room. Whether anything was done.
    pub(super) fn place(&mut self) -> Result<bool, Error> {
        let mut progress = false;
        loop {
            if self.batch.peek().is_none() {
                self.batch = match &mut self.last {
                    None => self.links.intake.take(),
                    Some(last) => std::mem::replace(last, Batch::empty()),
                };
            }
            let Some(request) = self.batch.peek() else { return Ok(progress) };
            if let Some(next) = self.batch.peek_second() {
                prefetch::for_reading(next.address(), size_of::<Request>());
            }
            if !self.place_one(request)? {
                return Ok(progress);
            }
            self.batch.next();
            progress = true;
        }
    }

    /// `false`: there is no room for it now.
    fn place_one(&mut self, request: WriteRef<Payload>) -> Result<bool, Error> {
        // SAFETY: a request that was taken off the stack is alive until the retirement frees it.
        let write: &Write<Payload> = unsafe { request.get() };
        let payload = &write.payload;
        let mut status = write.status();
        if status == Status::Undecided {
            status = epoch::pinned(|guard| decide::decide(write, guard));
        }
        if status == Status::Rejected {
            self.links.counters.count_lost_race();
            self.links.intake.release(payload.permits);
            self.retirement.reject(request);
            return Ok(true);
        }
        let group = payload.cell.asked().group;
        if payload.kind == Kind::Watch {
            let placed = Placed { request, position: Position::START };
            if broken!(WaitsForNobody) || !self.join(placed, group) {
                self.settle_now(placed, group);
            }
            return Ok(true);
        }
        let record_bytes = payload.record.record_bytes();
        loop {
            if !self.building.begun() && !self.begin(record_bytes)? {
                return Ok(false);
            }
            if self.fits(record_bytes) {
                break;
            }
            if !self.start_flush()? {
                return Ok(false);
            }
        }
        self.write_record(request, write)?;
        self.building.groups.insert(group);
        self.building.blocks += payload.permits.blocks;
        Ok(true)
    }

    /// Whether a record fits into the flush that is being built.
    fn fits(&self, record_bytes: usize) -> bool {
        let filled = self.tail.filled();
        let grown = filled + record_bytes;
        let first = filled == FLUSH_HEADER_BYTES;
        let segment = self.active.as_ref().map_or(0, |active| active.rest_bytes() as usize);
        (first || grown <= FLUSH_BYTES_TARGET)
            && grown.next_multiple_of(self.block()) <= segment
            && record_bytes <= self.tail.room()
    }

    fn write_record(
        &mut self,
        request: WriteRef<Payload>,
        write: &Write<Payload>,
    ) -> Result<(), Error> {
        let Some(active) = &self.active else { return Err(broken("a record without a segment")) };
        let record = &write.payload.record;
        let position = Position::new(active.prepared.id, active.offset + self.tail.filled() as u32);
        let Some(place) = self.tail.extend(record.record_bytes()) else {
            return Err(broken("a record without room"));
        };
        let (head, body) = place.split_at_mut(record.head().len());
        head.copy_from_slice(record.head());
        body.copy_from_slice(record.body());
        for entry in write.entries() {
            let (part, skip) = match Tag::decode(entry.tag) {
                Tag::Append(part) => (part, entry.slot.skip()),
                Tag::Checkpoint(part) | Tag::Snapshot(part) => (part, Position::START),
                Tag::Check | Tag::Client => continue,
            };
            format::set_links(head, part as usize, entry.slot.last(), skip);
            entry.slot.place_version(entry.version_after, position);
        }
        let checksum = format::seal(head, self.building.time, active.prepared.salt, position);
        self.building.records_checksum = format::chain(self.building.records_checksum, checksum);
        self.building.records += 1;
        self.building.events += u64::from(record.events());
        self.building.requests.push(Placed { request, position });
        Ok(())
    }
}
