//! Forward through the log of a shard: every record from a position on, in log order.
//!
//! ```text
//! segment   [ block: segment header ][ flush ][ flush ] …           then the next segment's first flush
//! flush     header, records, zeros to the end of the block          a flush without records states a frontier
//! ```
//!
//! A [`Walk`] always knows the header of the flush it is in, so where the records end is never guessed. To start in the
//! middle of a segment it looks for that header block by block towards the segment's start. From one flush to the next it
//! checks that the sequence rises by one and that the next names the checksum of the one before: a flush that is
//! missing below the watermark is damage and never skipped.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::format::{Damage, FLUSH_HEADER_BYTES, FlushHeader, RecordView};
use crate::id::{FlushSequence, Position, SegmentId};
use crate::log::bytes::LogBytes;
use crate::log::catalogue::{Catalogue, Record};

/// A walk up to where the log was durable when it began. See the module.
///
/// It ends after the first error: where the next record would be is then not known.
pub struct Walk {
    catalogue: Arc<Catalogue>,
    /// Records below it are left out.
    from: Position,
    /// A record that is likely to stand here is at or right before `from`: records before it need not be read.
    near: Position,
    /// The watermark when the walk began.
    end: Position,
    place: Place,
    /// Sequence and checksum of the flush before.
    before: Option<(FlushSequence, u64)>,
}

enum Place {
    /// Nothing was read yet.
    Start,
    /// Behind the last record of a flush; the next one stands here.
    Between(Position),
    In(OpenFlush),
    Done,
}

/// A flush that the walk is in.
struct OpenFlush {
    position: Position,
    /// Its header and its records.
    content: LogBytes,
    trusted: bool,
    salt: u64,
    /// Where in it the next record starts.
    at: usize,
    /// `None` if the walk did not come from its first record.
    records_left: Option<u32>,
    next: Position,
}

impl Walk {
    /// A walk over the records at or behind `from` that are durable now.
    pub fn new(catalogue: Arc<Catalogue>, from: Position) -> Walk {
        let end = catalogue.watermark();
        Walk { catalogue, from, near: from, end, place: Place::Start, before: None }
    }

    /// What it walks through.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// Starts at or behind a position instead. Only before the first record is read.
    pub fn start_from(&mut self, from: Position) {
        (self.from, self.near) = (from, from);
    }

    /// Starts behind the record at a position instead. Only before the first record is read.
    pub fn start_after(&mut self, after: Position) {
        self.from = Position::from_raw(after.get().saturating_add(1));
        self.near = after;
    }

    fn step(&mut self) -> Result<Option<Record>, Error> {
        loop {
            self.place = match &mut self.place {
                Place::Done => return Ok(None),
                Place::Start => match self.first_flush()? {
                    Some(position) => Place::Between(position),
                    None => Place::Done,
                },
                Place::Between(position) => {
                    let position = *position;
                    match self.settle(position) {
                        Some(position) => Place::In(self.open(position)?),
                        None => Place::Done,
                    }
                }
                Place::In(flush) => match flush.next_record(&self.catalogue)? {
                    Some(record) if record.position() < self.from => continue,
                    Some(record) => return Ok(Some(record)),
                    None => Place::Between(flush.next),
                },
            };
        }
    }

    /// Where the flush begins that has `from`, or the first one behind it.
    fn first_flush(&self) -> Result<Option<Position>, Error> {
        let Some((id, durable)) = self.catalogue.segment_from(self.from.segment(), self.end) else {
            return Ok(None);
        };
        let block = self.catalogue.block_bytes();
        if id != self.from.segment() {
            return Ok(Some(Position::new(id, block)));
        }
        if self.from.offset() >= durable {
            return Ok(self.settle(self.from));
        }
        let mut offset = self.from.offset() / block * block;
        while offset > block {
            let position = Position::new(id, offset);
            match self.header(position, durable) {
                Ok(_) => return Ok(Some(position)),
                Err(NoHeader::NotOne) => offset -= block,
                Err(NoHeader::Unreadable(error)) => return Err(error),
            }
        }
        Ok(Some(Position::new(id, block)))
    }

    fn header(&self, position: Position, durable: u32) -> Result<FlushHeader, NoHeader> {
        let room = durable.saturating_sub(position.offset()) as usize;
        let fetched = self
            .catalogue
            .fetch(position, FLUSH_HEADER_BYTES.min(room), self.end)
            .map_err(NoHeader::Unreadable)?;
        FlushHeader::decode(&fetched.bytes, &fetched.origin, position.offset())
            .map(|(header, _)| header)
            .map_err(|_| NoHeader::NotOne)
    }

    /// Where the next flush is if everything before `position` was read: there, in a later segment, or nowhere.
    fn settle(&self, position: Position) -> Option<Position> {
        let (id, durable) = self.catalogue.segment_from(position.segment(), self.end)?;
        if id != position.segment() {
            return Some(Position::new(id, self.catalogue.block_bytes()));
        }
        if position.offset() < durable {
            return Some(position);
        }
        let next = SegmentId(id.0.checked_add(1)?);
        let (id, _) = self.catalogue.segment_from(next, self.end)?;
        Some(Position::new(id, self.catalogue.block_bytes()))
    }

    fn open(&mut self, position: Position) -> Result<OpenFlush, Error> {
        let head = self.catalogue.fetch(position, FLUSH_HEADER_BYTES, self.end)?;
        let (header, checksum) = FlushHeader::decode(&head.bytes, &head.origin, position.offset())
            .map_err(|damage| self.catalogue.damaged(position, &damage))?;
        if let Some((sequence, previous)) = self.before {
            let mismatch = |what, expected, found| {
                Err(self.catalogue.damaged(position, &Damage::Mismatch { what, expected, found }))
            };
            let expected = sequence.0.wrapping_add(1);
            if header.sequence.0 != expected {
                return mismatch("flush sequence", expected, header.sequence.0);
            }
            if header.previous != previous {
                return mismatch("checksum of the flush before", previous, header.previous);
            }
        }
        self.before = Some((header.sequence, checksum));
        let content = header.content_bytes as usize;
        let whole = self.catalogue.fetch(position, content, self.end)?;
        let mut flush = OpenFlush {
            position,
            content: whole.bytes,
            trusted: whole.trusted,
            salt: whole.origin.salt,
            at: FLUSH_HEADER_BYTES,
            records_left: Some(header.records),
            next: header.end_position(self.catalogue.block_bytes()),
        };
        flush.skip_to(self.near);
        Ok(flush)
    }
}

/// Why a place has no flush header.
enum NoHeader {
    NotOne,
    Unreadable(Error),
}

impl OpenFlush {
    /// Goes on at `near` if a record starts there. The checksum knows: nothing else has it at that position.
    fn skip_to(&mut self, near: Position) {
        let offset = near.offset().saturating_sub(self.position.offset()) as usize;
        if near.segment() != self.position.segment() || offset <= self.at {
            return;
        }
        let rest = self.content.get(offset..).unwrap_or_default();
        if RecordView::parse(rest, self.salt, near).is_ok() {
            self.at = offset;
            self.records_left = None;
        }
    }

    fn next_record(&mut self, catalogue: &Catalogue) -> Result<Option<Record>, Error> {
        let rest = self.content.get(self.at..).unwrap_or_default();
        if rest.is_empty() && self.records_left.is_none_or(|left| left == 0) {
            return Ok(None);
        }
        let offset = self.position.offset().saturating_add(self.at as u32);
        let position = Position::new(self.position.segment(), offset);
        if let Some(left) = &mut self.records_left {
            *left = left.checked_sub(1).ok_or_else(|| {
                catalogue.corrupt(position, "the flush has more records than it states")
            })?;
        }
        let view = match self.trusted {
            true => RecordView::parse_trusted(rest),
            false => RecordView::parse(rest, self.salt, position),
        };
        let view = view.map_err(|damage| catalogue.damaged(position, &damage))?;
        let shape = view.shape();
        let end = self.at + view.length();
        let bytes = self.content.slice(self.at..end);
        let outside = || catalogue.corrupt(position, "the record ends outside its flush");
        let bytes = bytes.ok_or_else(outside)?;
        self.at = end;
        Ok(Some(Record::new(bytes, position, shape, self.trusted)))
    }
}

impl Iterator for Walk {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.place = Place::Done;
        }
        step.transpose()
    }
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk")
            .field("from", &self.from)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
