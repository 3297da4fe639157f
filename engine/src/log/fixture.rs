//! A log built by hand, for tests: what a log writer does, without its thread and its slots.

use std::collections::HashMap;
use std::sync::Arc;

use crate::disk::sim::SimDisk;
use crate::disk::{Access, Disk, File};
use crate::event::Event;
use crate::expect::Expect;
use crate::format::{
    CHAIN_START, FLUSH_HEADER_BYTES, FileName, FlushHeader, Origin, RecordEncoder, Role, chain,
    seal, set_links,
};
use crate::id::{FlushSequence, Position, SegmentId, ShardId, StoreId};
use crate::log::catalogue::{Catalogue, ShardFacts};
use crate::log::segment::Segment;
use crate::log::tail::Tail;

const STORE: StoreId = StoreId(77);
const SHARD: ShardId = ShardId(0);

/// How a [`Log`] is laid out.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) block_bytes: u32,
    pub(crate) segment_bytes: u32,
    pub(crate) tail_bytes: usize,
    pub(crate) mapped: bool,
}

impl Default for Shape {
    fn default() -> Shape {
        let segment_bytes = if cfg!(miri) { 32 << 10 } else { 1 << 20 };
        Shape { block_bytes: 512, segment_bytes, tail_bytes: 1 << 20, mapped: true }
    }
}

/// What an aggregate is at, in the log.
#[derive(Clone, Copy, Default)]
pub(crate) struct Placed {
    pub(crate) version: u64,
    pub(crate) last: Position,
    pub(crate) skip: Position,
}

/// One aggregate's part in a write.
pub(crate) struct Part<'a> {
    pub(crate) key: &'a [u8],
    /// None: the part checks.
    pub(crate) events: Vec<Event>,
}

/// A log, and its writer's state.
pub(crate) struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) tail: Tail,
    pub(crate) aggregates: HashMap<Vec<u8>, Placed>,
    shape: Shape,
    encoder: RecordEncoder,
    segment: SegmentId,
    file: Option<Arc<dyn File>>,
    /// Where the next flush starts.
    offset: u32,
    sequence: u64,
    previous: u64,
    /// Of the flush being built.
    records: u32,
    chained: u64,
    /// Flushes that are durable and not published: their ends, and the aggregates in them.
    pending: Vec<(Position, Vec<Vec<u8>>)>,
    touched: Vec<Vec<u8>>,
}

impl Log {
    pub(crate) fn new(disk: Arc<dyn Disk>, shape: Shape) -> Log {
        disk.create_dir("shard-0000").unwrap();
        let facts = facts(&disk, shape);
        let catalogue = Arc::new(Catalogue::new(facts, Vec::new(), Position::START));
        Log {
            disk,
            tail: Tail::new(Arc::clone(&catalogue), shape.block_bytes, shape.tail_bytes),
            catalogue,
            aggregates: HashMap::new(),
            shape,
            encoder: RecordEncoder::new(),
            segment: SegmentId(0),
            file: None,
            offset: shape.segment_bytes,
            sequence: 1,
            previous: 0,
            records: 0,
            chained: CHAIN_START,
            pending: Vec::new(),
            touched: Vec::new(),
        }
    }

    pub(crate) fn sim(shape: Shape) -> (Log, Arc<SimDisk>) {
        let disk = SimDisk::with_block(1, shape.block_bytes);
        (Log::new(Arc::clone(&disk) as Arc<dyn Disk>, shape), disk)
    }

    /// The same log as it is found after a restart: nothing in memory.
    pub(crate) fn reopened(&self, mapped: bool) -> Arc<Catalogue> {
        self.reopened_with(mapped, |_| true)
    }

    /// As `reopened`, but one segment is not found.
    pub(crate) fn reopened_without(&self, lost: SegmentId) -> Arc<Catalogue> {
        self.reopened_with(true, |id| *id != lost.0)
    }

    fn reopened_with(&self, mapped: bool, found: impl Fn(&u32) -> bool) -> Arc<Catalogue> {
        let end = self.catalogue.watermark();
        let segments = (1..=end.segment().0).filter(found).map(|id| {
            let end = match id == end.segment().0 {
                true => end.offset(),
                false => self.ends(SegmentId(id)),
            };
            Segment::sealed(SegmentId(id), salt(SegmentId(id)), &path(SegmentId(id)), end)
        });
        let facts = facts(&self.disk, Shape { mapped, ..self.shape });
        Arc::new(Catalogue::new(facts, segments.collect(), end))
    }

    fn ends(&self, id: SegmentId) -> u32 {
        self.catalogue.segment_from(id, self.catalogue.watermark()).unwrap().1
    }

    /// Adds a write of one event to one aggregate.
    pub(crate) fn append(&mut self, key: &[u8], data: &[u8]) -> Position {
        self.write(&[Part { key, events: vec![Event::new("Event", data)] }])
    }

    /// Adds a write to the flush being built; begins one where there is none.
    pub(crate) fn write(&mut self, parts: &[Part<'_>]) -> Position {
        self.encoder.clear();
        for part in parts {
            let role = if part.events.is_empty() { Role::Check } else { Role::Append };
            self.encoder.begin_part(role, Expect::Any, part.key).unwrap();
            part.events.iter().for_each(|event| self.encoder.push_event(event).unwrap());
        }
        self.encoder.finish(Some((9, self.sequence))).unwrap();
        let (position, start) = self.place();
        for (index, part) in parts.iter().enumerate() {
            let mut placed = self.aggregates.get(part.key).copied().unwrap_or_default();
            if !part.events.is_empty() {
                placed.version += 1;
                set_links(&mut self.tail.built_mut()[start..], index, placed.last, placed.skip);
                placed.last = position;
                if placed.version.is_multiple_of(64) {
                    placed.skip = position;
                }
                self.aggregates.insert(part.key.to_vec(), placed);
                self.touched.push(part.key.to_vec());
            }
            let line = 64 + 48 * index;
            self.tail.built_mut()[start + line..][..8]
                .copy_from_slice(&placed.version.to_le_bytes());
        }
        self.seal(position, start);
        position
    }

    /// Adds a checkpoint that was moved, or a snapshot; `prev` is the one before.
    pub(crate) fn mark(
        &mut self,
        part: (Role, Expect, &[u8]),
        version: u64,
        bytes: Option<&[u8]>,
        prev: Position,
    ) -> Position {
        self.encoder.clear();
        self.encoder.begin_part(part.0, part.1, part.2).unwrap();
        if let Some(bytes) = bytes {
            self.encoder.push_event(&Event::new("snapshot", bytes)).unwrap();
        }
        self.encoder.finish(None).unwrap();
        self.encoder.set_version(0, version);
        let (position, start) = self.place();
        set_links(&mut self.tail.built_mut()[start..], 0, prev, Position::START);
        self.seal(position, start);
        position
    }

    /// Copies the encoder's record into the flush being built. Returns its position, and where in the flush it starts.
    fn place(&mut self) -> (Position, usize) {
        let bytes = self.encoder.record_bytes();
        if self.tail.filled() > 0
            && (self.tail.room() < bytes || !self.fits(self.tail.filled() + bytes))
        {
            self.flush();
        }
        if self.tail.filled() == 0 {
            self.begin(bytes);
        }
        let position = Position::new(self.segment, self.offset + self.tail.filled() as u32);
        let start = self.tail.filled();
        let head_bytes = self.encoder.head().len();
        let out = self.tail.extend(bytes).unwrap();
        out[..head_bytes].copy_from_slice(self.encoder.head());
        out[head_bytes..].copy_from_slice(self.encoder.body());
        (position, start)
    }

    fn seal(&mut self, position: Position, start: usize) {
        let head_bytes = self.encoder.head().len();
        let head = &mut self.tail.built_mut()[start..start + head_bytes];
        let checksum = seal(head, position.get() as i64, salt(self.segment), position);
        self.chained = chain(self.chained, checksum);
        self.records += 1;
    }

    fn fits(&self, content: usize) -> bool {
        self.offset as usize + content.next_multiple_of(self.shape.block_bytes as usize)
            <= self.shape.segment_bytes as usize
    }

    fn begin(&mut self, bytes: usize) {
        let need = FLUSH_HEADER_BYTES + bytes;
        if !self.fits(need) {
            self.segment = SegmentId(self.segment.0 + 1);
            let path = path(self.segment);
            let file = self.disk.create(&path).unwrap();
            file.prepare(self.shape.segment_bytes.into()).unwrap();
            let active =
                Segment::active(self.segment, salt(self.segment), &path, Arc::clone(&file));
            self.catalogue.add_segment(active);
            self.file = Some(file);
            self.offset = self.shape.block_bytes;
        }
        self.tail.begin(self.segment, self.offset, need).unwrap();
        self.tail.extend(FLUSH_HEADER_BYTES).unwrap();
    }

    /// Writes the flush being built, which is then durable and not published.
    pub(crate) fn flush(&mut self) {
        if self.tail.filled() == 0 {
            return;
        }
        let header = FlushHeader {
            origin: Origin {
                store: STORE,
                shard: SHARD,
                segment: self.segment,
                salt: salt(self.segment),
            },
            offset: self.offset,
            sequence: FlushSequence(self.sequence),
            frontier: self.catalogue.watermark(),
            previous: self.previous,
            content_bytes: self.tail.filled() as u32,
            records: self.records,
            records_checksum: self.chained,
            time: 5,
        };
        self.previous = header.encode(self.tail.built_mut());
        self.sequence += 1;
        (self.records, self.chained) = (0, CHAIN_START);
        let built = self.tail.finish().unwrap();
        // SAFETY: a finished flush is never written again.
        let bytes = unsafe { built.chunk.slice(built.start..built.start + built.bytes) };
        let file = self.file.as_ref().unwrap();
        file.write_at(self.offset.into(), bytes).unwrap();
        file.sync().unwrap();
        self.offset += built.bytes as u32;
        let touched = std::mem::take(&mut self.touched);
        self.pending.push((Position::new(self.segment, self.offset), touched));
    }

    /// Writes a flush without records, which states the frontier.
    pub(crate) fn frontier(&mut self) {
        self.flush();
        self.begin(0);
        self.flush();
    }

    /// Publishes what is durable; `slot` is called for every aggregate before the watermark moves over its flush.
    pub(crate) fn publish_with(&mut self, mut slot: impl FnMut(&[u8], Placed)) {
        self.flush();
        for (end, touched) in self.pending.drain(..) {
            for key in touched {
                slot(&key, self.aggregates[&key]);
            }
            self.catalogue.publish(end);
        }
    }

    pub(crate) fn publish(&mut self) {
        self.publish_with(|_, _| {});
    }

    /// The path of the file that has a position.
    pub(crate) fn path_of(position: Position) -> String {
        path(position.segment())
    }

    /// Cuts the file of a segment.
    pub(crate) fn cut(&self, segment: u32, bytes: u64) {
        let file = self.disk.open(&path(SegmentId(segment)), Access::Write).unwrap();
        file.set_len(bytes).unwrap();
    }
}

fn facts(disk: &Arc<dyn Disk>, shape: Shape) -> ShardFacts {
    ShardFacts {
        store: STORE,
        shard: SHARD,
        block_bytes: shape.block_bytes,
        disk: Arc::clone(disk),
        mapped: shape.mapped,
    }
}

fn path(segment: SegmentId) -> String {
    format!("shard-0000/{}", FileName::Segment(segment))
}

fn salt(segment: SegmentId) -> u64 {
    0x5a17 ^ u64::from(segment.0) << 20
}
