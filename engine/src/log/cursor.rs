//! Many records of one read, one after the other: what the tail image has is found with one look at the catalogue.
//!
//! A cursor keeps alive what the tail image had when it was made, so it lives as long as one fold or one page of a
//! read, never as long as a read that its caller may leave lying about.

use std::sync::Arc;

use crate::error::Error;
use crate::format::{Lengths, RecordView};
use crate::id::Position;
use crate::log::bytes::LogBytes;
use crate::log::catalogue::{Catalogue, Record, Snapshot};
use crate::log::tail::Span;

/// See the module.
pub struct Cursor<'c> {
    catalogue: &'c Catalogue,
    /// Taken before the snapshot: below it nothing is written any more.
    built: Position,
    snapshot: Arc<Snapshot>,
    /// The span that had the record before.
    span: usize,
}

impl<'c> Cursor<'c> {
    pub(super) fn new(
        catalogue: &'c Catalogue,
        built: Position,
        snapshot: Arc<Snapshot>,
    ) -> Cursor<'c> {
        let span = snapshot.spans.len();
        Cursor { catalogue, built, snapshot, span }
    }

    /// As [`Catalogue::published`].
    #[inline]
    pub fn record(&mut self, position: Position) -> Result<Record, Error> {
        match self.in_memory(position) {
            Some(record) => Ok(record),
            None => self.catalogue.published(position),
        }
    }

    /// The record, if the tail image had it.
    fn in_memory(&mut self, position: Position) -> Option<Record> {
        let spans = &self.snapshot.spans;
        let span = match spans.get(self.span).filter(|span| span.has(position)) {
            Some(span) => span,
            None => {
                self.span = spans.iter().rposition(|span| span.has(position))?;
                spans.get(self.span)?
            }
        };
        let room = span.built_from(position, self.built)?;
        let start = span.start + (position.offset() - span.file_offset) as usize;
        let whole = span.chunk.len().checked_sub(start)?.min(room as usize);
        // SAFETY: the bytes lie below `built`, which only moves over flushes that are finished: the tail never writes
        // into them again as long as we hold the chunk. Its load acquired what was written.
        let bytes = unsafe { LogBytes::of_chunk(&span.chunk, start..start + whole) }?;
        let length = Lengths::read(&bytes).ok()?.record;
        let bytes = bytes.first(length)?;
        let shape = RecordView::parse_again(&bytes).ok()?.shape();
        Some(Record::new(bytes, position, shape, true))
    }
}

impl Span {
    fn has(&self, position: Position) -> bool {
        self.segment == position.segment()
            && (self.file_offset..self.end).contains(&position.offset())
    }

    /// How many bytes from a position on that the span has are built.
    fn built_from(&self, position: Position, built: Position) -> Option<u32> {
        let end = match built.segment() == self.segment {
            true => self.end.min(built.offset()),
            // What is built has gone on to a later segment, so all of this one is.
            false if built.segment() > self.segment => self.end,
            false => return None,
        };
        end.checked_sub(position.offset()).filter(|bytes| *bytes > 0)
    }
}
