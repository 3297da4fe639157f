//! Walks one segment, flush by flush and block by block, to its end.
//!
//! The walk never stops: not at zeros, behind which a later flush may stand whose predecessor was lost, and not at damage. What
//! it finds covers every block behind the header exactly once, in order. It decides nothing: whether an invalid
//! flush is a torn tail or corruption is a question of frontiers and sequences.
//!
//! Behind a valid flush header the walk goes on where that flush ends, also if its records are damaged: the header was
//! written here, in this use of the segment, so these blocks are that flush's. Where there is no valid header it looks
//! at every block. So each byte is visited a bounded number of times, whatever the bytes say.

use crate::format::bytes::is_zero;
use crate::format::checksum::{CHAIN_START, chain};
use crate::format::damage::{Damage, matches};
use crate::format::flush::{FLUSH_HEADER_BYTES, FlushHeader, begins};
use crate::format::record::RecordView;
use crate::format::segment::SegmentHeader;
use crate::id::Position;
use crate::sync::broken;

/// How much of a flush is verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// The flush header and the heads of its records: all that replaying needs.
    Heads,
    /// The events too.
    Everything,
}

/// What stands in a run of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A flush, verified to the depth asked for.
    Flush {
        /// Where it starts in the file.
        offset: u32,
        /// Its header.
        header: FlushHeader,
        /// The checksum of its header.
        checksum: u64,
        /// How many blocks it covers.
        blocks: u32,
    },
    /// Something that is no valid flush.
    Invalid {
        /// Where it starts in the file.
        offset: u32,
        /// How many blocks it covers.
        blocks: u32,
        /// Where in the file the damage was noticed: at a record of the flush, or at `offset`.
        at: u32,
        /// What is wrong.
        damage: Damage,
        /// The flush's header, if that is valid and only what it heads is not.
        header: Option<FlushHeader>,
    },
    /// Zeros.
    Unused {
        /// Where they start in the file.
        offset: u32,
        /// How many blocks they cover.
        blocks: u32,
    },
}

impl Found {
    /// Where it starts in the file.
    #[must_use]
    pub const fn offset(&self) -> u32 {
        match *self {
            Found::Flush { offset, .. }
            | Found::Invalid { offset, .. }
            | Found::Unused { offset, .. } => offset,
        }
    }

    /// How many blocks it covers.
    #[must_use]
    pub const fn blocks(&self) -> u32 {
        match *self {
            Found::Flush { blocks, .. }
            | Found::Invalid { blocks, .. }
            | Found::Unused { blocks, .. } => blocks,
        }
    }
}

/// A walk over one segment.
#[derive(Clone, Debug)]
pub struct Scan<'a> {
    /// The segment from its first byte on, and no more than it says it has.
    bytes: &'a [u8],
    segment: SegmentHeader,
    depth: Depth,
    at: usize,
}

impl<'a> Scan<'a> {
    /// A walk over the bytes of a segment, its header's block included. They may be fewer than the header says: a flush that
    /// goes beyond them is invalid, and what is missing otherwise is not found.
    #[must_use]
    pub fn new(bytes: &'a [u8], segment: &SegmentHeader, depth: Depth) -> Scan<'a> {
        let prepared = usize::try_from(segment.bytes).unwrap_or(usize::MAX).min(bytes.len());
        Scan {
            bytes: bytes.get(..prepared).unwrap_or_default(),
            segment: *segment,
            depth,
            at: segment.block_bytes as usize,
        }
    }

    fn block_bytes(&self) -> usize {
        self.segment.block_bytes.max(1) as usize
    }

    fn rest(&self, at: usize) -> &'a [u8] {
        self.bytes.get(at..).unwrap_or_default()
    }

    fn block(&self, at: usize) -> &'a [u8] {
        let rest = self.rest(at);
        rest.get(..self.block_bytes()).unwrap_or(rest)
    }

    /// The flush whose header is valid and stands at `at`.
    fn flush(&self, at: usize, header: FlushHeader, checksum: u64) -> Found {
        let offset = at as u32;
        let blocks = header.blocks(self.segment.block_bytes);
        match self.verify(at, &header) {
            Ok(()) => Found::Flush { offset, header, checksum, blocks },
            Err((damaged_at, damage)) => {
                let there = self.rest(at).len().div_ceil(self.block_bytes());
                Found::Invalid {
                    offset,
                    blocks: blocks.min(there as u32),
                    at: damaged_at,
                    damage,
                    header: Some(header),
                }
            }
        }
    }

    /// Verifies what stands behind a valid header; says where the damage is and what.
    fn verify(&self, at: usize, header: &FlushHeader) -> Result<(), (u32, Damage)> {
        if broken!(AcceptsTornRecords) {
            return Ok(());
        }
        let offset = at as u32;
        let stored = header.blocks(self.segment.block_bytes) as usize * self.block_bytes();
        let Some(flush) = self.rest(at).get(..stored) else {
            let found = self.rest(at).len() as u64;
            return Err((
                offset,
                Damage::Truncated { what: "flush", expected: stored as u64, found },
            ));
        };
        let mut records = records_verified(self.bytes, header);
        let mut found = 0_u32;
        let mut chained = CHAIN_START;
        while let Some(record) = records.next() {
            let (position, record) = record.map_err(|damage| (records.offset(), damage))?;
            if self.depth == Depth::Everything {
                verify_events(&record).map_err(|damage| (position.offset(), damage))?;
            }
            chained = chain(chained, record.checksum());
            found += 1;
        }
        matches("number of records", header.records.into(), found.into())
            .and_then(|()| matches("chain over the records", header.records_checksum, chained))
            .map_err(|damage| (offset, damage))?;
        if !is_zero(flush.get(header.content_bytes as usize..).unwrap_or_default()) {
            return Err((offset, Damage::Padding { what: "flush" }));
        }
        Ok(())
    }

    /// The run of blocks from `at` on that are zero.
    fn unused(&self, at: usize) -> Found {
        let more = self.run(at, is_zero);
        Found::Unused { offset: at as u32, blocks: more }
    }

    /// The run of blocks from `at` on that neither are zero nor could begin a flush.
    fn invalid(&self, at: usize, damage: Damage) -> Found {
        let offset = at as u32;
        let next = at + self.block_bytes();
        let blocks = 1 + self.run(next, |block| !is_zero(block) && !begins(block));
        Found::Invalid { offset, blocks, at: offset, damage, header: None }
    }

    /// How many blocks from `at` on are like this, one after the other.
    fn run(&self, at: usize, like: impl Fn(&[u8]) -> bool) -> u32 {
        self.rest(at).chunks(self.block_bytes()).take_while(|block| like(block)).count() as u32
    }
}

impl Iterator for Scan<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        let at = self.at;
        let block = self.block(at);
        if block.is_empty() {
            return None;
        }
        let found = if is_zero(block) {
            self.unused(at)
        } else {
            match FlushHeader::decode(block, &self.segment.origin, at as u32) {
                Ok((header, checksum)) => self.flush(at, header, checksum),
                Err(damage) => self.invalid(at, damage),
            }
        };
        self.at = at.saturating_add(found.blocks() as usize * self.block_bytes());
        Some(found)
    }
}

fn verify_events(record: &RecordView<'_>) -> Result<(), Damage> {
    record.verify_events()?;
    (0..record.part_count())
        .flat_map(|part| record.events_of(part))
        .try_for_each(|event| event.map(|_| ()))
}

/// The records of a flush that a scan of these bytes has found valid. `segment` is the segment from its first byte on.
#[must_use]
pub fn records<'a>(segment: &'a [u8], flush: &FlushHeader) -> Records<'a> {
    Records::new(segment, flush, false)
}

/// The records of a flush whose header is valid, each head verified: for what is left of a damaged one.
#[must_use]
pub fn records_verified<'a>(segment: &'a [u8], flush: &FlushHeader) -> Records<'a> {
    Records::new(segment, flush, true)
}

/// The records of a flush, each with its position. Ends after the first that can't be read, because where the next one
/// starts is then unknown.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    segment: &'a [u8],
    flush: FlushHeader,
    verified: bool,
    /// Where in the segment the next record starts, and where the flush's content ends.
    at: usize,
    end: usize,
}

impl<'a> Records<'a> {
    fn new(segment: &'a [u8], flush: &FlushHeader, verified: bool) -> Records<'a> {
        let start = flush.offset as usize;
        Records {
            segment,
            flush: *flush,
            verified,
            at: start + FLUSH_HEADER_BYTES,
            end: start + flush.content_bytes as usize,
        }
    }

    /// Where in the file the next record starts, or the one that could not be read.
    #[must_use]
    pub fn offset(&self) -> u32 {
        self.at as u32
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(Position, RecordView<'a>), Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let position = Position::new(self.flush.origin.segment, self.at as u32);
        let bytes = self.segment.get(self.at..self.end.min(self.segment.len())).unwrap_or_default();
        let record = if self.verified {
            RecordView::parse(bytes, self.flush.origin.salt, position)
        } else {
            RecordView::parse_again(bytes)
        };
        match record {
            Ok(record) => {
                self.at += record.length();
                Some(Ok((position, record)))
            }
            Err(damage) => {
                self.end = self.at;
                Some(Err(damage))
            }
        }
    }
}
