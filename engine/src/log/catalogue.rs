//! From positions to bytes: where each part of a shard's log can be read right now.
//!
//! The log writer alone changes a [`Catalogue`]; anybody reads it, and nobody waits. Two things say what is there:
//!
//! * the **watermark**: all below it is durable and published. A reader takes it first and ignores what lies above;
//! * the **snapshot**: which segments there are, and which parts of them the tail image has ([`Span`]). It is replaced
//!   as a whole when a chunk or a segment changes, never for a flush.
//!
//! | word | written | read | says |
//! |---|---|---|---|
//! | `watermark` | Release, after the slots of a flush are published | Acquire | positions below it are durable |
//! | `built` | Release, when a flush is finished in the tail image | Acquire | bytes below it are never written again |
//! | `snapshot` | `ArcSwap` | `ArcSwap` | where bytes are |
//!
//! A reader that takes the watermark first and then the snapshot finds every position below that watermark:
//! 1. *A span shows it*: then the reader's reference keeps the chunk, whatever the writer drops meanwhile.
//! 2. *No span shows it*: spans are dropped only when they lie below the watermark, so the segment's file has it. If the
//!    watermark is in a later segment, the segment was sealed in the snapshot before that watermark was stored, so
//!    its end is known. Otherwise it is the watermark's own segment, and the watermark is its end.
//!
//! A slot's head is published just before the watermark passes it. [`Catalogue::published`] reads such a record too.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::disk::{Chunk, Disk};
use crate::error::{Error, ErrorKind};
use crate::format::{Damage, FileName, Lengths, Origin, RecordView, Shape};
use crate::id::{Position, SegmentId, ShardId, StoreId};
use crate::log::bytes::LogBytes;
use crate::log::cursor::Cursor;
use crate::log::following::Following;
use crate::log::segment::{Files, Segment};
use crate::log::tail::Span;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::broken;
use crate::sync::watermark::Watermark;

/// How much of a record is read at first from a file that is not mapped: most records whole.
const PROBE_BYTES: usize = 1024;

/// What a catalogue knows of its shard from the start.
#[derive(Clone, Debug)]
pub struct ShardFacts {
    /// The store.
    pub store: StoreId,
    /// The shard.
    pub shard: ShardId,
    /// What flushes are padded to.
    pub block_bytes: u32,
    /// The store's directory.
    pub disk: Arc<dyn Disk>,
    /// Whether sealed segments are mapped.
    pub mapped: bool,
}

/// See the module.
pub struct Catalogue {
    store: StoreId,
    shard: ShardId,
    block_bytes: u32,
    files: Files,
    snapshot: ArcSwap<Snapshot>,
    watermark: Watermark,
    built: AtomicU64,
    following: Following,
}

/// Which segments there are, and what the tail image has.
#[derive(Clone, Default)]
pub(super) struct Snapshot {
    /// By id. Behind a pointer of its own, since a store has many and they change more rarely than spans.
    segments: Arc<Vec<Arc<Segment>>>,
    /// By position, without overlaps.
    pub(super) spans: Vec<Span>,
}

impl Snapshot {
    fn segment(&self, id: SegmentId) -> Option<&Segment> {
        let at = self.segments.binary_search_by_key(&id, |segment| segment.id()).ok()?;
        self.segments.get(at).map(|segment| &**segment)
    }

    fn span(&self, position: Position) -> Option<&Span> {
        let after = self.spans.partition_point(|span| span.from() <= position);
        let span = self.spans.get(after.checked_sub(1)?)?;
        (span.segment == position.segment() && position.offset() < span.end).then_some(span)
    }
}

/// One write, as it stands in the log.
#[derive(Clone)]
pub struct Record {
    bytes: LogBytes,
    position: Position,
    shape: Shape,
    /// It never left our memory, so it needs no verification.
    trusted: bool,
}

impl Record {
    /// `shape` is that of a view of these bytes.
    pub(crate) fn new(bytes: LogBytes, position: Position, shape: Shape, trusted: bool) -> Record {
        Record { bytes, position, shape, trusted }
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The whole record.
    pub fn bytes(&self) -> &LogBytes {
        &self.bytes
    }

    /// The whole record, and nothing else of it.
    pub fn into_bytes(self) -> LogBytes {
        self.bytes
    }

    /// What it says. Its head was checked when the record was read.
    #[inline]
    pub fn view(&self) -> RecordView<'_> {
        RecordView::of_shape(&self.bytes, self.shape)
    }

    /// Verifies its events, unless they never left our memory.
    pub fn verify_events(&self, view: &RecordView<'_>) -> Result<(), Damage> {
        if self.trusted || broken!(ServesRot) { Ok(()) } else { view.verify_events() }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("position", &self.position)
            .field("bytes", &self.bytes)
            .finish()
    }
}

/// Where bytes of the log can be read.
struct Source<'a> {
    segment: &'a Segment,
    /// The part of the tail image that has them; otherwise the segment's file does.
    span: Option<&'a Span>,
    /// The offset in the file up to which they may be read.
    end: u32,
}

/// Bytes of the log, and what it takes to trust them.
pub(super) struct Fetched {
    pub(super) bytes: LogBytes,
    pub(super) trusted: bool,
    pub(super) origin: Origin,
}

impl Catalogue {
    /// A shard whose log ends at `end` and lies in these segments, sorted by id.
    pub fn new(facts: ShardFacts, segments: Vec<Segment>, end: Position) -> Catalogue {
        debug_assert!(segments.is_sorted_by_key(Segment::id));
        let segments = Arc::new(segments.into_iter().map(Arc::new).collect());
        Catalogue {
            store: facts.store,
            shard: facts.shard,
            block_bytes: facts.block_bytes,
            files: Files::new(facts.shard, facts.disk, facts.mapped),
            snapshot: ArcSwap::from_pointee(Snapshot { segments, spans: Vec::new() }),
            watermark: Watermark::new(end),
            built: AtomicU64::new(end.get()),
            following: Following::new(),
        }
    }

    /// Which shard this is.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// What flushes are padded to.
    pub fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// All below it is durable and published.
    #[inline]
    pub fn watermark(&self) -> Position {
        self.watermark.get()
    }

    /// Who follows the watermark.
    #[inline]
    pub fn following(&self) -> &Following {
        &self.following
    }

    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        self.snapshot.load().segments.len()
    }

    /// Log writer: adds the segment that it goes on in, before it begins a flush there.
    pub fn add_segment(&self, segment: Segment) {
        let now = self.snapshot.load_full();
        debug_assert!(now.segments.last().is_none_or(|last| last.id() < segment.id()));
        let segments = now.segments.iter().cloned().chain([Arc::new(segment)]).collect();
        self.replace(Snapshot { segments: Arc::new(segments), spans: now.spans.clone() });
    }

    /// Log writer: moves the watermark to the end of a flush that is durable, once its slots are published. In a new
    /// segment, that seals the one before.
    pub fn publish(&self, end: Position) {
        let before = self.watermark.get();
        debug_assert!(before <= end && end.get() <= self.built.load(Ordering::Relaxed));
        if before.segment() != end.segment() {
            self.seal(before);
        }
        self.watermark.publish(end);
    }

    /// Gives the active segment in which the log ended at `end` its sealed form.
    fn seal(&self, end: Position) {
        let now = self.snapshot.load_full();
        let id = end.segment();
        if now.segment(id).is_none_or(|segment| segment.end().is_some()) {
            return;
        }
        let sealed = |segment: &Arc<Segment>| match segment.id() == id {
            true => Arc::new(segment.seal(end.offset())),
            false => Arc::clone(segment),
        };
        let segments = Arc::new(now.segments.iter().map(sealed).collect());
        self.replace(Snapshot { segments, spans: now.spans.clone() });
    }

    /// Tail: all below this is built and never written again.
    pub(super) fn set_built(&self, end: Position) {
        // Release: pairs with the Acquire in `built`, so that the bytes are visible with it.
        self.built.store(end.get(), Ordering::Release);
    }

    fn built(&self) -> Position {
        Position::from_raw(self.built.load(Ordering::Acquire))
    }

    /// Tail: adds a span. What is built in the newest one ends at `newest_end` of its chunk. Only those that are kept
    /// stay.
    pub(super) fn show(&self, newest_end: usize, span: Span, keep: impl Fn(&Span) -> bool) {
        let now = self.snapshot.load_full();
        let mut spans = Vec::with_capacity(now.spans.len() + 1);
        spans.extend(now.spans.iter().filter(|span| keep(span)).cloned());
        if let Some(newest) = spans.last_mut().filter(|newest| newest.end == u32::MAX) {
            let bytes = newest_end.saturating_sub(newest.start) as u32;
            newest.end = newest.file_offset.saturating_add(bytes);
            if bytes == 0 {
                spans.pop();
            }
        }
        spans.push(span);
        self.replace(Snapshot { segments: Arc::clone(&now.segments), spans });
    }

    /// Tail: whether the newest span is like this.
    pub(super) fn newest_span(&self, like: impl Fn(&Span) -> bool) -> bool {
        self.snapshot.load().spans.last().is_some_and(like)
    }

    /// Tail: whether all that was built in a chunk is below the watermark.
    pub(super) fn is_durable(&self, chunk: &Arc<Chunk>) -> bool {
        let watermark = self.watermark();
        let snapshot = self.snapshot.load();
        snapshot
            .spans
            .iter()
            .filter(|span| Arc::ptr_eq(&span.chunk, chunk))
            .all(|span| Position::new(span.segment, span.end) <= watermark)
    }

    fn replace(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// The record at a position below the watermark. Unless it comes from our own memory, its head is verified.
    pub fn record(&self, position: Position) -> Result<Record, Error> {
        self.record_below(position, self.watermark())
    }

    /// As [`Catalogue::record`], for a position that was read from a slot: its flush is durable, and the watermark may
    /// not have passed it yet.
    pub fn published(&self, head: Position) -> Result<Record, Error> {
        let watermark = self.watermark();
        if head < watermark {
            return self.record_below(head, watermark);
        }
        // In this order: if what is built has gone on to a later segment, the spans before it are seen closed.
        let built = self.built();
        let snapshot = self.snapshot.load();
        if snapshot.span(head).is_none() {
            // It was dropped since, so the watermark has passed it.
            return self.record(head);
        }
        let end = match built.segment() > head.segment() {
            true => Position::new(head.segment(), u32::MAX),
            false => built,
        };
        self.record_in(&snapshot, head, end)
    }

    /// For looking at many records at once.
    pub fn cursor(&self) -> Cursor<'_> {
        // In this order, as in `published`.
        let built = self.built();
        Cursor::new(self, built, self.snapshot.load_full())
    }

    fn record_below(&self, position: Position, end: Position) -> Result<Record, Error> {
        self.record_in(&self.snapshot.load(), position, end)
    }

    /// `end` was taken before the snapshot, from the watermark or from `built`.
    fn record_in(
        &self,
        snapshot: &Snapshot,
        position: Position,
        end: Position,
    ) -> Result<Record, Error> {
        let source = self.source(snapshot, position, end)?;
        let available = source.end.saturating_sub(position.offset()) as usize;
        let probe = self.bytes_of(&source, position, PROBE_BYTES.min(available))?;
        let damaged = |damage: Damage| self.damaged(position, &damage);
        let length = Lengths::read(&probe).map_err(damaged)?.record;
        let bytes = match probe.first(length) {
            Some(bytes) => bytes,
            None => self.bytes_of(&source, position, length)?,
        };
        let trusted = source.span.is_some();
        let view = match trusted {
            true => RecordView::parse_again(&bytes),
            false => RecordView::parse(&bytes, source.segment.salt(), position),
        };
        let shape = view.map_err(damaged)?.shape();
        Ok(Record::new(bytes, position, shape, trusted))
    }

    /// `bytes` bytes from a position on, all below `end`, which is or was the watermark.
    pub(super) fn fetch(
        &self,
        position: Position,
        bytes: usize,
        end: Position,
    ) -> Result<Fetched, Error> {
        let snapshot = self.snapshot.load();
        let source = self.source(&snapshot, position, end)?;
        Ok(Fetched {
            bytes: self.bytes_of(&source, position, bytes)?,
            trusted: source.span.is_some(),
            origin: Origin {
                store: self.store,
                shard: self.shard,
                segment: position.segment(),
                salt: source.segment.salt(),
            },
        })
    }

    /// The first segment from `id` on that has bytes below `end`, and where these end in it.
    pub(super) fn segment_from(&self, id: SegmentId, end: Position) -> Option<(SegmentId, u32)> {
        let snapshot = self.snapshot.load();
        let first = snapshot.segments.partition_point(|segment| segment.id() < id);
        let segments = snapshot.segments.get(first..)?;
        segments
            .iter()
            .filter(|segment| segment.id() <= end.segment())
            .map(|segment| (segment.id(), durable_end(segment, end)))
            .find(|(_, durable)| *durable > self.block_bytes)
    }

    fn source<'a>(
        &self,
        snapshot: &'a Snapshot,
        position: Position,
        end: Position,
    ) -> Result<Source<'a>, Error> {
        let Some(segment) = snapshot.segment(position.segment()) else {
            return Err(self.corrupt(position, "the segment is missing"));
        };
        let durable = durable_end(segment, end);
        if position.offset() < self.block_bytes || position.offset() >= durable {
            return Err(self.corrupt(position, "there is no record: the log does not reach there"));
        }
        let span = snapshot.span(position);
        let end = span.map_or(durable, |span| span.end.min(durable));
        Ok(Source { segment, span, end })
    }

    fn bytes_of(
        &self,
        source: &Source<'_>,
        position: Position,
        bytes: usize,
    ) -> Result<LogBytes, Error> {
        let offset = position.offset();
        let beyond = || {
            let what = "part of the log";
            let found = source.end.saturating_sub(offset).into();
            self.damaged(position, &Damage::Truncated { what, expected: bytes as u64, found })
        };
        let end = u32::try_from(bytes).ok().and_then(|bytes| offset.checked_add(bytes));
        let end = end.filter(|end| *end <= source.end).ok_or_else(beyond)?;
        let Some(span) = source.span else {
            return source.segment.bytes(&self.files, offset..end);
        };
        let start = span.start + (offset - span.file_offset) as usize;
        // SAFETY: the bytes lie below the watermark or below `built`, both of which only move over flushes that
        // are finished: the tail never writes into them again as long as we hold the chunk. The load of either
        // acquired what was written.
        unsafe { LogBytes::of_chunk(&span.chunk, start..start + bytes) }.ok_or_else(beyond)
    }

    /// An error about bytes of the log.
    pub(crate) fn damaged(&self, position: Position, damage: &Damage) -> Error {
        let kind = match damage.is_unsupported() {
            true => ErrorKind::Unsupported,
            false => ErrorKind::Corrupt,
        };
        Error::new(kind, self.told(position, damage))
    }

    /// As [`Catalogue::damaged`], for what no decoder can tell.
    pub(crate) fn corrupt(&self, position: Position, what: impl fmt::Display) -> Error {
        Error::new(ErrorKind::Corrupt, self.told(position, what))
    }

    fn told(&self, position: Position, what: impl fmt::Display) -> String {
        let (shard, segment) = (self.shard, FileName::Segment(position.segment()));
        format!("shard {shard}, segment {segment}, byte {}: {what}", position.offset())
    }
}

/// Where a segment's bytes below `end` end. `end` was taken before the snapshot that has the segment.
fn durable_end(segment: &Segment, end: Position) -> u32 {
    match segment.end() {
        _ if segment.id() > end.segment() => 0,
        _ if segment.id() == end.segment() => end.offset(),
        Some(sealed) => sealed,
        None => 0,
    }
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.snapshot.load();
        f.debug_struct("Catalogue")
            .field("shard", &self.shard)
            .field("watermark", &self.watermark())
            .field("segments", &snapshot.segments.len())
            .field("spans", &snapshot.spans.len())
            .finish_non_exhaustive()
    }
}
