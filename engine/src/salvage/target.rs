//! The log of one shard of the new store, written by one thread from its first flush to its last.
//!
//! Nobody reads it meanwhile, so a flush is durable before the next is begun, and each states the one before as its
//! frontier. A record keeps all that was written, its commit time too; position and links are new.

use std::sync::Arc;

use crate::disk::Disk;
use crate::error::Error;
use crate::event::Event;
use crate::format::{
    CHAIN_START, EncodeError, FLUSH_HEADER_BYTES, FlushHeader, Identity, Origin, RecordEncoder,
    Role, chain, seal, set_links,
};
use crate::id::{FlushSequence, Position, ShardId};
use crate::limits::FLUSH_BYTES_TARGET;
use crate::log::prepare::{Prepared, Preparer, Start};
use crate::verify::{Kind, Part, Record};

/// Where the versions and the snapshot before are, in the new log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Links {
    pub(super) last: Position,
    pub(super) skip: Position,
    pub(super) snapshot: Position,
}

/// See the top of the file.
pub(super) struct Target {
    identity: Identity,
    shard: ShardId,
    preparer: Preparer,
    active: Option<Prepared>,
    /// Where the next flush starts in the active segment.
    at: u32,
    sequence: u64,
    previous: u64,
    frontier: Position,
    /// The flush that is being filled: room for its header, and records.
    flush: Vec<u8>,
    records: u32,
    chained: u64,
    /// Of the newest commit in it.
    time: i64,
    encoder: RecordEncoder,
}

impl Target {
    pub(super) fn new(disk: Arc<dyn Disk>, identity: &Identity, shard: u16) -> Target {
        let shard = ShardId(shard);
        Target {
            identity: *identity,
            shard,
            preparer: Preparer::new(disk, identity, shard, Start::default()),
            active: None,
            at: 0,
            sequence: 1,
            previous: 0,
            frontier: Position::START,
            flush: Vec::new(),
            records: 0,
            chained: CHAIN_START,
            time: 0,
            encoder: RecordEncoder::new(),
        }
    }

    /// Adds a write, without the checkpoints that it moved. `links` tells for each other part what was before; returns
    /// where the write stands.
    pub(super) fn push(
        &mut self,
        record: &Record<'_>,
        links: &mut dyn FnMut(&Part<'_>) -> Links,
    ) -> Result<Position, Error> {
        let kept = || record.parts.iter().filter(|part| part.kind != Kind::Checkpoint);
        self.encode(record).map_err(|error| match error {
            EncodeError::OutOfMemory => Error::out_of_memory("a write that is copied"),
            _ => Error::invalid(format!("a write that was read can't be written: {error}")),
        })?;
        let bytes = self.encoder.record_bytes();
        let position = self.place(bytes)?;
        let mut head = self.encoder.head().to_vec();
        for (index, part) in kept().enumerate() {
            let before = links(part);
            match part.kind {
                Kind::Append => set_links(&mut head, index, before.last, before.skip),
                Kind::Snapshot => set_links(&mut head, index, before.snapshot, Position::START),
                Kind::Check | Kind::Checkpoint => {}
            }
        }
        let salt = self.active.as_ref().map_or(0, |active| active.salt);
        let checksum = seal(&mut head, record.time, salt, position);
        self.chained = chain(self.chained, checksum);
        self.time = record.time;
        self.records += 1;
        self.flush.extend_from_slice(&head);
        self.flush.extend_from_slice(self.encoder.body());
        if self.flush.len() >= FLUSH_BYTES_TARGET {
            self.write()?;
        }
        Ok(position)
    }

    fn encode(&mut self, record: &Record<'_>) -> Result<(), EncodeError> {
        let kept = || record.parts.iter().filter(|part| part.kind != Kind::Checkpoint);
        let encoder = &mut self.encoder;
        encoder.clear();
        for part in kept() {
            let role = match part.kind {
                Kind::Append => Role::Append,
                Kind::Check => Role::Check,
                Kind::Checkpoint => Role::Checkpoint,
                Kind::Snapshot => Role::Snapshot,
            };
            encoder.begin_part(role, part.expect, part.key)?;
            // They were verified before.
            for event in part.events().flatten() {
                let mut copied = Event::new(event.name, event.data).metadata(event.metadata);
                if let Some(id) = event.id {
                    copied = copied.id(id);
                }
                if let Some(time) = event.time {
                    copied = copied.time(time);
                }
                encoder.push_event(&copied)?;
            }
        }
        encoder.finish(record.client)?;
        for (index, part) in kept().enumerate() {
            encoder.set_version(index, part.version);
        }
        Ok(())
    }

    /// Makes room for a record in the flush that is being filled, or in the first of the next segment.
    fn place(&mut self, bytes: usize) -> Result<Position, Error> {
        if self.records > 0 && !self.fits(self.flush.len() + bytes) {
            self.write()?;
        }
        if self.records == 0 {
            let alone = FLUSH_HEADER_BYTES + bytes;
            if !self.fits(alone) {
                self.roll(alone)?;
            }
            self.flush.clear();
            self.flush.resize(FLUSH_HEADER_BYTES, 0);
        }
        self.flush.try_reserve(bytes).map_err(|_| Error::out_of_memory("a flush"))?;
        let id = self.active.as_ref().map_or_else(Default::default, |active| active.id);
        Ok(Position::new(id, self.at + self.flush.len() as u32))
    }

    fn whole_blocks(&self, bytes: usize) -> u64 {
        (bytes as u64).next_multiple_of(self.identity.block_bytes.into())
    }

    fn fits(&self, flush: usize) -> bool {
        let end = u64::from(self.at) + self.whole_blocks(flush);
        self.active.as_ref().is_some_and(|active| end <= active.bytes)
    }

    fn roll(&mut self, flush: usize) -> Result<(), Error> {
        let prepared = self.preparer.prepare(self.whole_blocks(flush))?;
        self.at = prepared.header_bytes;
        self.active = Some(prepared);
        Ok(())
    }

    /// Writes the flush that was filled, and waits until it is durable.
    fn write(&mut self) -> Result<(), Error> {
        let Some(active) = &self.active else { return Ok(()) };
        let header = FlushHeader {
            origin: Origin {
                store: self.identity.store,
                shard: self.shard,
                segment: active.id,
                salt: active.salt,
            },
            offset: self.at,
            sequence: FlushSequence(self.sequence),
            frontier: self.frontier,
            previous: self.previous,
            content_bytes: self.flush.len() as u32,
            records: self.records,
            records_checksum: self.chained,
            time: self.time,
        };
        self.previous = header.encode(&mut self.flush);
        let stored = self.whole_blocks(self.flush.len()) as usize;
        self.flush.resize(stored, 0);
        active
            .file
            .write_at(self.at.into(), &self.flush)
            .and_then(|()| active.file.sync())
            .map_err(|error| Error::io(format_args!("writing {}", active.path), error))?;
        self.frontier = header.end_position(self.identity.block_bytes);
        self.at = self.frontier.offset();
        self.sequence += 1;
        self.records = 0;
        self.chained = CHAIN_START;
        Ok(())
    }

    /// Writes what is left, states that all of it is durable, and cuts the last segment to what it holds.
    pub(super) fn close(mut self) -> Result<(), Error> {
        if self.records > 0 {
            self.write()?;
        }
        if self.active.is_some() {
            if !self.fits(FLUSH_HEADER_BYTES) {
                self.roll(FLUSH_HEADER_BYTES)?;
            }
            self.flush.clear();
            self.flush.resize(FLUSH_HEADER_BYTES, 0);
            self.write()?;
        }
        let active = self.active.as_ref().map(|active| (&*active.file, u64::from(self.at)));
        self.preparer.finish(active, None)
    }
}
