//! The tail image: the newest part of the log in memory, where flushes are built, written from and read from.
//!
//! A [`Tail`] belongs to the log writer. It fills aligned [`Chunk`]s one after the other, each flush at the next
//! block, and tells the [`Catalogue`] which part of which segment stands where ([`Span`]).
//!
//! ```text
//!  chunk   ├ flush ┤├──── flush ────┤├ flush being built ┄┄┄ room ┄┄┄┤
//!          └──────── span: segment 7 from byte 90112 on ────────────┘
//!  below the watermark: read by anybody │ in flight: read by the disk │ written by the tail alone
//! ```
//!
//! Why this is sound, in the terms of [`Chunk`]: the tail is the chunks' one writer. It writes only from `start` on,
//! where the flush being built begins. `finish` moves `start` behind the flush before it hands it out and before it
//! tells the catalogue that the flush is built, and the catalogue shows readers only what is built. The tail goes back
//! to the beginning of a chunk only when it holds the last reference (`Arc::get_mut`).
//!
//! A chunk leaves the catalogue when the budget is used up, oldest first, once every flush in it is below the
//! watermark, so that the segments' files have it. It is then filled again as soon as its last reader has let go. What
//! readers hold back until then ([`Tail::held_bytes`]) is limited where writes are accepted: a write that is accepted
//! always gets its memory.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::disk::Chunk;
use crate::error::Error;
use crate::id::{Position, SegmentId};
use crate::log::catalogue::Catalogue;

/// The size of a chunk, unless a single flush needs more or the budget is small.
const CHUNK_BYTES_MAX: usize = 4 << 20;
const CHUNK_BYTES_MIN: usize = if cfg!(shuttle) { 32 << 10 } else { 256 << 10 };
/// How many chunks the budget is divided into, at least: what is dropped at a time.
const CHUNKS_PER_BUDGET: usize = 8;

/// A part of a segment that stands in one chunk, without gaps.
#[derive(Clone, Debug)]
pub struct Span {
    pub(super) segment: SegmentId,
    /// The offset in the file where it begins.
    pub(super) file_offset: u32,
    /// The offset in the file where it ends: `u32::MAX` for the newest, which the watermark bounds.
    pub(super) end: u32,
    pub(super) chunk: Arc<Chunk>,
    /// Where in the chunk it begins.
    pub(super) start: usize,
}

impl Span {
    pub(super) fn from(&self) -> Position {
        Position::new(self.segment, self.file_offset)
    }
}

/// A flush that is built and can be given to the disk.
pub struct Built {
    /// The memory it stands in.
    pub chunk: Arc<Chunk>,
    /// Where in the chunk: at a block.
    pub start: usize,
    /// How many bytes, in whole blocks.
    pub bytes: usize,
}

/// The tail image of one shard. See the module.
pub struct Tail {
    catalogue: Arc<Catalogue>,
    block_bytes: usize,
    chunk_bytes: usize,
    budget_bytes: usize,
    chunk: Option<Arc<Chunk>>,
    /// Where in the log the flush being built begins.
    position: Position,
    /// Where in the chunk the flush being built begins.
    start: usize,
    /// How many bytes it has.
    filled: usize,
    /// Chunks that the catalogue shows, oldest first; the last is `chunk`.
    shown: VecDeque<Arc<Chunk>>,
    /// Chunks that it shows no more, and that readers may still hold.
    retired: Vec<Arc<Chunk>>,
}

impl Tail {
    /// A tail that keeps about `tail_bytes` of the log once it is durable.
    pub fn new(catalogue: Arc<Catalogue>, block_bytes: u32, tail_bytes: usize) -> Tail {
        let chunk_bytes = (tail_bytes / CHUNKS_PER_BUDGET).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        let block_bytes = block_bytes as usize;
        Tail {
            catalogue,
            block_bytes,
            chunk_bytes: chunk_bytes.next_multiple_of(block_bytes),
            budget_bytes: tail_bytes,
            chunk: None,
            position: Position::START,
            start: 0,
            filled: 0,
            shown: VecDeque::new(),
            retired: Vec::new(),
        }
    }

    /// Begins a flush at `file_offset` of `segment`, a multiple of the block, with room for `need` bytes at least.
    /// One that was begun and not finished is given up. Returns where in its chunk it starts.
    ///
    /// Fails, without having changed anything, if there is no memory or readers hold back too much of it.
    pub fn begin(
        &mut self,
        segment: SegmentId,
        file_offset: u32,
        need: usize,
    ) -> Result<usize, Error> {
        debug_assert!((file_offset as usize).is_multiple_of(self.block_bytes));
        let need = need
            .checked_next_multiple_of(self.block_bytes)
            .ok_or_else(|| Error::out_of_memory("a flush"))?;
        let (chunk, start) = match &self.chunk {
            Some(chunk) if chunk.len() - self.start >= need => (Arc::clone(chunk), self.start),
            _ => (self.fresh_chunk(need)?, 0),
        };
        let rolls = self.chunk.as_ref().is_none_or(|old| !Arc::ptr_eq(old, &chunk));
        if rolls || !self.goes_on(segment, file_offset, start) {
            let dropped = if rolls { self.over_budget(chunk.len()) } else { 0 };
            let span =
                Span { segment, file_offset, end: u32::MAX, chunk: Arc::clone(&chunk), start };
            let retired: Vec<_> = self.shown.drain(..dropped).collect();
            self.catalogue.show(self.start, span, |span| {
                !retired.iter().any(|gone| Arc::ptr_eq(gone, &span.chunk))
            });
            self.retired.extend(retired);
        }
        if rolls {
            self.shown.push_back(Arc::clone(&chunk));
            self.chunk = Some(chunk);
        }
        self.position = Position::new(segment, file_offset);
        self.start = start;
        self.filled = 0;
        Ok(start)
    }

    /// How many bytes the flush being built has.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// How many more it can take.
    pub fn room(&self) -> usize {
        self.chunk.as_ref().map_or(0, |chunk| chunk.len() - self.start - self.filled)
    }

    /// The next `bytes` bytes of the flush being built, to be overwritten; `None` if there is no room.
    #[inline]
    pub fn extend(&mut self, bytes: usize) -> Option<&mut [u8]> {
        if bytes > self.room() {
            return None;
        }
        let from = self.filled;
        self.filled += bytes;
        self.built_mut().get_mut(from..)
    }

    /// What the flush being built has so far, to fill in and to patch.
    #[inline]
    pub fn built_mut(&mut self) -> &mut [u8] {
        match &self.chunk {
            // SAFETY: the tail is the chunk's one writer, nothing from `start` on was shown to anybody, and the
            // result borrows the tail, so there is no other.
            Some(chunk) => unsafe { chunk.slice_mut(self.start..self.start + self.filled) },
            None => &mut [],
        }
    }

    /// The chunk that flushes are being built in.
    #[cfg(test)]
    pub(super) fn chunk(&self) -> Option<&Arc<Chunk>> {
        self.chunk.as_ref()
    }

    /// Ends the flush being built: fills its last block with zeros. From here on it is never written again. `None`
    /// if it is empty.
    pub fn finish(&mut self) -> Option<Built> {
        let chunk = self.chunk.as_ref().filter(|_| self.filled > 0)?;
        let content = self.start + self.filled;
        let end = content.next_multiple_of(self.block_bytes).min(chunk.len());
        // SAFETY: the tail is the chunk's one writer, and nothing from `start` on was shown to anybody.
        unsafe { chunk.zero(content..end) };
        let built = Built { chunk: Arc::clone(chunk), start: self.start, bytes: end - self.start };
        let offset = self.position.offset().saturating_add(built.bytes as u32);
        self.position = Position::new(self.position.segment(), offset);
        self.start = end;
        self.filled = 0;
        self.catalogue.set_built(self.position);
        Some(built)
    }

    /// The memory that only readers keep alive.
    pub fn held_bytes(&self) -> u64 {
        let held = self.retired.iter().filter(|chunk| Arc::strong_count(chunk) > 1);
        held.map(|chunk| chunk.len() as u64).sum()
    }

    /// The memory of all chunks, those included that only readers keep alive.
    pub fn memory_bytes(&self) -> usize {
        self.shown.iter().chain(&self.retired).map(|chunk| chunk.len()).sum()
    }

    /// Whether a flush at this place continues the newest span.
    fn goes_on(&self, segment: SegmentId, file_offset: u32, start: usize) -> bool {
        self.catalogue.newest_span(|span| {
            span.segment == segment
                && start.checked_sub(span.start)
                    == file_offset.checked_sub(span.file_offset).map(|n| n as usize)
                && self.chunk.as_ref().is_some_and(|chunk| Arc::ptr_eq(chunk, &span.chunk))
        })
    }

    /// How many of the oldest chunks to drop so that a further one is within the budget: those that are durable.
    fn over_budget(&self, further_bytes: usize) -> usize {
        let mut bytes = further_bytes + self.shown.iter().map(|chunk| chunk.len()).sum::<usize>();
        let mut dropped = 0;
        // The newest chunk stays in any case: its last flushes may be in flight.
        while bytes > self.budget_bytes && dropped + 1 < self.shown.len() {
            let chunk = &self.shown[dropped];
            if !self.catalogue.is_durable(chunk) {
                break;
            }
            bytes -= chunk.len();
            dropped += 1;
        }
        dropped
    }

    /// A chunk that nobody else holds: a retired one, or new memory.
    fn fresh_chunk(&mut self, need: usize) -> Result<Arc<Chunk>, Error> {
        let mut found = None;
        let mut spare = 0;
        let mut at = 0;
        while at < self.retired.len() {
            // `get_mut` acquires what its last reader released: no read of it happens after this.
            if Arc::get_mut(&mut self.retired[at]).is_none() {
                at += 1;
                continue;
            }
            let fits = self.retired[at].len() >= need
                && self.retired[at].len() <= need.max(self.chunk_bytes);
            if fits && found.is_none() {
                found = Some(self.retired.swap_remove(at));
            } else if fits && spare == 0 {
                spare += 1;
                at += 1;
            } else {
                self.retired.swap_remove(at);
            }
        }
        if let Some(chunk) = found {
            return Ok(chunk);
        }
        let bytes = need.max(self.chunk_bytes);
        Chunk::aligned(bytes, self.block_bytes.max(Chunk::ALIGN))
            .map(Arc::new)
            .map_err(|_| Error::out_of_memory("the tail image"))
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("start", &self.start)
            .field("filled", &self.filled)
            .field("memory_bytes", &self.memory_bytes())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Built")
            .field("start", &self.start)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
