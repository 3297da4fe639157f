//! Flushes: being built, and on their way.

use super::groups::GroupSet;
use super::request::{Payload, Taken};
use super::{Active, FRONTIER_AFTER, LogWriter};
use crate::disk;
use crate::error::{Error, ErrorKind};
use crate::format::{CHAIN_START, FLUSH_HEADER_BYTES, FlushHeader, Origin};
use crate::id::{FlushSequence, Position};
use crate::log::segment::Segment;
use crate::reserve::write::WriteRef;
use crate::sync::{broken, clock};

use std::sync::Arc;

/// A request and where its record stands; no position if it has none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) request: WriteRef<Payload>,
    pub(super) position: Position,
}

/// The flush that records are being placed in. Its bytes are the tail's.
#[derive(Debug, Default)]
pub(super) struct Building {
    begun: bool,
    pub(super) requests: Vec<Placed>,
    pub(super) records: u32,
    pub(super) events: u64,
    pub(super) records_checksum: u64,
    /// When its writes were committed, in microseconds since 1970.
    pub(super) time: i64,
    pub(super) groups: GroupSet,
    /// Block permits that its writes hold, less what was wasted for their sake.
    pub(super) blocks: i64,
}

impl Building {
    pub(super) fn begun(&self) -> bool {
        self.begun
    }
}

/// A flush that was started.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) sequence: FlushSequence,
    /// The watermark when it is published.
    pub(super) end: Position,
    pub(super) requests: Vec<Placed>,
    pub(super) records: u32,
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) time: i64,
    pub(super) groups: GroupSet,
    pub(super) durable: bool,
}

impl LogWriter {
    /// Begins a flush in which a record of so many bytes fits. `false`: not before something in flight is published,
    /// or memory is free.
    pub(super) fn begin(&mut self, record_bytes: usize) -> Result<bool, Error> {
        let need = (FLUSH_HEADER_BYTES + record_bytes).next_multiple_of(self.block());
        let fits = |active: &Active| active.offset as usize + need <= active.end as usize;
        if !self.active.as_ref().is_some_and(fits) && !self.roll()? {
            return Ok(false);
        }
        self.begin_here(need)
    }

    /// Begins a flush in the segment as it is.
    fn begin_here(&mut self, need: usize) -> Result<bool, Error> {
        let Some(active) = &self.active else { return Ok(false) };
        match self.tail.begin(active.prepared.id, active.offset, need) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Busy => {
                self.starved = true;
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        self.starved = false;
        if self.tail.extend(FLUSH_HEADER_BYTES).is_none() {
            return Err(broken("the tail has no room for the flush that it began"));
        }
        self.building.begun = true;
        self.building.records = 0;
        self.building.events = 0;
        self.building.records_checksum = CHAIN_START;
        self.building.time = clock::unix_micros();
        Ok(true)
    }

    /// Goes on to the prepared segment, once everything in the one before is durable.
    fn roll(&mut self) -> Result<bool, Error> {
        if !self.flights.is_empty() {
            return Ok(false);
        }
        let Some(prepared) = self.links.take_prepared() else { return Ok(false) };
        let block = self.start.block_bytes;
        let size = u32::try_from(prepared.bytes)
            .map_err(|_| broken("a prepared segment is larger than a segment can be"))?;
        let (Some(end), true) = (size.checked_sub(block), size.is_multiple_of(block)) else {
            return Err(broken("a prepared segment is not made of whole blocks"));
        };
        if let Some(left) = &self.active {
            // What is left of it stood behind permits: they went with the write that did not fit.
            self.building.blocks -= left.rest_blocks(block);
        }
        self.links.catalogue.add_segment(Segment::active(
            prepared.id,
            prepared.salt,
            &prepared.path,
            Arc::clone(&prepared.file),
        ));
        self.active = Some(Active { offset: prepared.header_bytes, end, prepared });
        self.links.intake.preparation.look_again();
        Ok(true)
    }

    /// Starts the flush that was built, if there is one and the window has room.
    pub(super) fn start_flush(&mut self) -> Result<bool, Error> {
        if !self.building.begun || self.flights.len() == self.start.window {
            return Ok(false);
        }
        let Some(active) = &mut self.active else { return Ok(false) };
        let content_bytes = self.tail.filled();
        let header = FlushHeader {
            origin: Origin {
                store: self.start.store,
                shard: self.start.shard,
                segment: active.prepared.id,
                salt: active.prepared.salt,
            },
            offset: active.offset,
            sequence: self.sequence,
            frontier: if broken!(StatesTooMuch) {
                Position::new(active.prepared.id, active.offset)
            } else {
                self.frontier
            },
            previous: self.previous,
            content_bytes: content_bytes as u32,
            records: self.building.records,
            records_checksum: self.building.records_checksum,
            time: self.building.time,
        };
        self.previous = header.encode(self.tail.built_mut());
        let Some(built) = self.tail.finish() else {
            return Err(broken("a flush without a header"));
        };
        self.queue.start(disk::Flush {
            token: self.sequence.0,
            file: Arc::clone(&active.prepared.file),
            offset: active.offset.into(),
            memory: built.chunk,
            start: built.start,
            bytes: built.bytes,
        });
        active.offset += built.bytes as u32;
        let used = (built.bytes / self.start.block_bytes as usize) as i64;
        let unused = Taken { bytes: 0, blocks: self.building.blocks - used };
        let next = self.lists.pop().unwrap_or_default();
        self.flights.push_back(Flight {
            sequence: self.sequence,
            end: Position::new(active.prepared.id, active.offset),
            requests: std::mem::replace(&mut self.building.requests, next),
            records: self.building.records,
            events: self.building.events,
            bytes: built.bytes as u64,
            time: self.building.time,
            groups: std::mem::take(&mut self.building.groups),
            durable: broken!(AcknowledgesEarly),
        });
        if broken!(WatermarkLeads) {
            self.links.catalogue.publish(Position::new(active.prepared.id, active.offset));
        }
        self.sequence = FlushSequence(self.sequence.0 + 1);
        self.building.begun = false;
        self.building.blocks = 0;
        self.quiet_since = None;
        self.links.intake.next_group();
        self.links.intake.release(unused);
        Ok(true)
    }

    /// States the frontier in a flush of its own when the log has been quiet, or is being closed: once after the last
    /// data, never after another.
    pub(super) fn state_frontier(&mut self) -> Result<bool, Error> {
        if self.frontier_stated || !self.is_quiet() {
            return Ok(false);
        }
        let since = *self.quiet_since.get_or_insert_with(clock::now);
        if self.last.is_none() && clock::since(since) < FRONTIER_AFTER {
            return Ok(false);
        }
        self.frontier_stated = true;
        self.quiet_since = None;
        if broken!(StatesNoFrontier) {
            return Ok(false);
        }
        let block = self.start.block_bytes;
        let Some(active) = &self.active else { return Ok(false) };
        let withdrawn = active.rest_blocks(block) > 0 && self.links.intake.permits().withdraw(1);
        // A segment that is full has one block more, which is kept for this. At a close nobody writes any more, whoever still
        // stands there with permits.
        if !withdrawn && active.offset != active.end && self.last.is_none() {
            return Ok(self.put_off_frontier());
        }
        if !self.begin_here(block as usize)? {
            self.starved = false;
            self.links.intake.release(Taken { bytes: 0, blocks: i64::from(withdrawn) });
            return Ok(self.put_off_frontier());
        }
        self.building.blocks = 1;
        self.start_flush()
    }

    /// The frontier can't be stated for want of a block or of memory that others hold: it is tried again when the log has been
    /// quiet for as long once more, or is being closed. After that there is no later.
    fn put_off_frontier(&mut self) -> bool {
        self.frontier_stated = self.last.is_some();
        if !self.frontier_stated {
            self.quiet_since = Some(clock::now());
        }
        false
    }

    /// Has the next segment prepared when this one is half full. After a failure whoever needs it asks.
    pub(super) fn ask_for_space(&mut self) {
        let Some(active) = &self.active else { return };
        let used = u64::from(active.offset) * 2 > active.prepared.bytes;
        let preparation = &self.links.intake.preparation;
        if used && !preparation.is_ready() && !preparation.has_failed() {
            preparation.ask(1);
        }
    }

    /// Leaves the segment early if somebody needs more blocks than it and the prepared one have together.
    pub(super) fn roll_early(&mut self) -> Result<bool, Error> {
        let rest = self.rest_blocks();
        if !self.is_quiet() || !self.links.early_roll_wanted(rest, self.start.capacity_blocks) {
            return Ok(false);
        }
        // The rest of the segment leaves circulation first: if somebody has just taken permits, let them go on.
        if !self.links.intake.permits().withdraw(rest) {
            return Ok(false);
        }
        self.building.blocks += rest;
        let rolled = self.roll()?;
        if !rolled {
            self.links.intake.release(Taken { bytes: 0, blocks: self.building.blocks });
        }
        self.building.blocks = 0;
        Ok(rolled)
    }

    /// How many blocks of records the segment being filled can still take.
    pub(super) fn rest_blocks(&self) -> i64 {
        self.active.as_ref().map_or(0, |active| active.rest_blocks(self.start.block_bytes))
    }

    pub(super) fn block(&self) -> usize {
        self.start.block_bytes as usize
    }

    /// A request without a record joins what is on its way, and is settled with it. `false`: nothing is.
    pub(super) fn join(&mut self, placed: Placed, group: u8) -> bool {
        debug_assert!(placed.position.is_none());
        let (requests, groups) = if self.building.begun {
            (&mut self.building.requests, &mut self.building.groups)
        } else if let Some(flight) = self.flights.back_mut() {
            (&mut flight.requests, &mut flight.groups)
        } else {
            return false;
        };
        requests.push(placed);
        groups.insert(group);
        true
    }
}

/// A state that the invariants exclude. It stops the shard, as a failed write does.
pub(super) fn broken(what: &str) -> Error {
    Error::new(ErrorKind::Stopped, format!("the log writer found itself broken: {what}"))
}
