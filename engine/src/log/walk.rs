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
//!
//! A walk that *follows* lasts: it goes on when the watermark has moved, and between two records it must not keep a
//! chunk of the tail image. So it looks at a flush through a *window*, a copy of at most 64 KiB or one record, and fetches
//! the next one from wherever the log then is. What is mapped is not copied. It also holds the first flush to the one
//! before, so that it never begins behind a gap.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::format::{Damage, FLUSH_HEADER_BYTES, FlushHeader, Lengths, RecordView};
use crate::id::{FlushSequence, Position, SegmentId};
use crate::log::bytes::LogBytes;
use crate::log::catalogue::{Catalogue, Fetched, Record};
use crate::sync::broken;

/// How much of a flush a walk that follows looks at, unless one record is larger.
const WINDOW_BYTES: usize = 64 << 10;

/// A walk up to where the log was durable when it began, or was [refreshed](Walk::refresh). See the module.
///
/// It ends after the first error: where the next record would be is then not known.
pub struct Walk {
    catalogue: Arc<Catalogue>,
    /// Records below it are left out.
    from: Position,
    /// A record that is likely to stand here is at or right before `from`: records before it need not be read.
    near: Position,
    /// The watermark when the walk began, or was refreshed.
    end: Position,
    follows: bool,
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
    /// Something was damaged: where the log goes on is not known.
    Lost,
}

/// A flush that the walk is in.
struct OpenFlush {
    position: Position,
    /// The length of its header and its records.
    content_bytes: usize,
    /// The part of it that is at hand: all of it, unless the walk follows.
    window: LogBytes,
    /// Where in it the window starts.
    window_at: usize,
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
        let (near, place, before) = (from, Place::Start, None);
        Walk { catalogue, from, near, end, follows: false, place, before }
    }

    /// A walk over the same records that follows.
    pub fn following(catalogue: Arc<Catalogue>, from: Position) -> Walk {
        Walk { follows: true, ..Walk::new(catalogue, from) }
    }

    /// Takes the newest watermark. Whether there may be more records now.
    pub fn refresh(&mut self) -> bool {
        let before = std::mem::replace(&mut self.end, self.catalogue.watermark());
        before != self.end
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

    /// The next record; `None` where the walk ends for now.
    fn step(&mut self) -> Result<Option<Record>, Error> {
        loop {
            self.place = match &mut self.place {
                Place::Lost => return Ok(None),
                Place::Start => match self.first_flush()? {
                    Some(position) => Place::Between(position),
                    None => return Ok(None),
                },
                Place::Between(position) => {
                    let position = *position;
                    match self.settle(position) {
                        Some(next) if next != position && broken!(SkipsAtSegmentChange) => {
                            Place::Between(self.open(next)?.next)
                        }
                        Some(position) => Place::In(self.open(position)?),
                        None => return Ok(None),
                    }
                }
                Place::In(flush) => match flush.next_record(&self.catalogue, self.end)? {
                    Some(record) if record.position() < self.from => continue,
                    Some(record) => return Ok(Some(record)),
                    None => Place::Between(flush.next),
                },
            };
        }
    }

    /// Where the flush begins that has `from`, or the first one behind it. A walk that follows begins no later than with
    /// the last flush that there is, so that the next one is held to it.
    fn first_flush(&mut self) -> Result<Option<Position>, Error> {
        let Some((id, durable)) = self.catalogue.segment_from(self.from.segment(), self.end) else {
            return Ok(None);
        };
        let block = self.catalogue.block_bytes();
        if id != self.from.segment() {
            if self.from.segment() == Position::START.segment() {
                // Where the first segments are lost, what is left does not begin with the first flush.
                self.before = Some(BEFORE_FIRST);
            } else if self.follows {
                return Err(self.catalogue.corrupt(self.from, "the segment is missing"));
            }
            return Ok(Some(Position::new(id, block)));
        }
        if self.from.offset() >= durable && !self.follows {
            return Ok(self.settle(self.from));
        }
        let mut offset = self.from.offset().min(durable - 1) / block * block;
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
        let content_bytes = header.content_bytes as usize;
        let window = match self.follows {
            true => Fetched { bytes: LogBytes::of_memory(Box::default()), ..head },
            false => self.catalogue.fetch(position, content_bytes, self.end)?,
        };
        let mut flush = OpenFlush {
            position,
            content_bytes,
            window: window.bytes,
            window_at: 0,
            trusted: window.trusted,
            salt: window.origin.salt,
            at: FLUSH_HEADER_BYTES,
            records_left: Some(header.records),
            next: header.end_position(self.catalogue.block_bytes()),
        };
        flush.skip_to(self.near, &self.catalogue, self.end)?;
        Ok(flush)
    }
}

/// What the first flush of a log names as the one before it.
const BEFORE_FIRST: (FlushSequence, u64) = (FlushSequence(0), 0);

/// Why a place has no flush header.
enum NoHeader {
    NotOne,
    Unreadable(Error),
}

impl OpenFlush {
    /// Goes on at `near` if a record starts there. The checksum knows: nothing else has it at that position.
    fn skip_to(
        &mut self,
        near: Position,
        catalogue: &Catalogue,
        end: Position,
    ) -> Result<(), Error> {
        let offset = near.offset().saturating_sub(self.position.offset()) as usize;
        let inside = self.at < offset && offset < self.content_bytes;
        if near.segment() != self.position.segment() || !inside {
            return Ok(());
        }
        let first = std::mem::replace(&mut self.at, offset);
        if !self.is_at_hand() {
            self.fill(catalogue, end)?;
        }
        match RecordView::parse(self.rest(), self.salt, near) {
            Ok(_) => self.records_left = None,
            Err(_) => self.at = first,
        }
        Ok(())
    }

    /// What is at hand from the next record on.
    fn rest(&self) -> &[u8] {
        let at = self.at.checked_sub(self.window_at);
        at.and_then(|at| self.window.get(at..)).unwrap_or_default()
    }

    /// Whether the next record is wholly at hand, as far as the flush has it.
    #[inline]
    fn is_at_hand(&self) -> bool {
        let to_the_end = self.window_at + self.window.len() >= self.content_bytes;
        if to_the_end && self.window_at <= self.at {
            return true;
        }
        Lengths::read(self.rest()).is_ok_and(|length| length.record <= self.rest().len())
    }

    /// Moves the window over the next record.
    fn fill(&mut self, catalogue: &Catalogue, end: Position) -> Result<(), Error> {
        let left = self.content_bytes.saturating_sub(self.at);
        let fetch = |bytes| catalogue.fetch(self.place(), left.min(bytes), end);
        let mut fetched = fetch(WINDOW_BYTES)?;
        if let Ok(length) = Lengths::read(&fetched.bytes)
            && length.record > fetched.bytes.len()
        {
            fetched = fetch(length.record)?;
        }
        self.window = fetched.bytes.off_the_tail()?;
        self.window_at = self.at;
        (self.trusted, self.salt) = (fetched.trusted, fetched.origin.salt);
        Ok(())
    }

    /// Where in the log the next record starts.
    fn place(&self) -> Position {
        let offset = self.position.offset().saturating_add(self.at as u32);
        Position::new(self.position.segment(), offset)
    }

    fn next_record(
        &mut self,
        catalogue: &Catalogue,
        end: Position,
    ) -> Result<Option<Record>, Error> {
        if self.at >= self.content_bytes && self.records_left.is_none_or(|left| left == 0) {
            return Ok(None);
        }
        let position = self.place();
        if let Some(left) = &mut self.records_left {
            *left = left.checked_sub(1).ok_or_else(|| {
                catalogue.corrupt(position, "the flush has more records than it states")
            })?;
        }
        if !self.is_at_hand() {
            self.fill(catalogue, end)?;
        }
        let rest = self.rest();
        let view = match self.trusted {
            true => RecordView::parse_trusted(rest),
            false => RecordView::parse(rest, self.salt, position),
        };
        let view = view.map_err(|damage| catalogue.damaged(position, &damage))?;
        let shape = view.shape();
        let length = view.length();
        let start = self.at - self.window_at;
        let bytes = self.window.slice(start..start + length);
        let outside = || catalogue.corrupt(position, "the record ends outside its flush");
        let bytes = bytes.ok_or_else(outside)?;
        self.at += length;
        Ok(Some(Record::new(bytes, position, shape, self.trusted)))
    }
}

impl Iterator for Walk {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.place = Place::Lost;
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
