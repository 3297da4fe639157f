//! A flush: the unit that becomes durable at once. A header, records end to end, and zeros to a whole block.
//!
//! ```text
//!   0  u64   checksum of bytes 8 to 104, seeded with salt and position
//!   8  8     "ANNFLUSH"
//!  16  u128  store
//!  32  u64   position: segment and offset of this header
//!  40  u64   salt of the segment
//!  48  u64   sequence
//!  56  u64   frontier: everything below this position was durable when the flush was made
//!  64  u64   checksum of the header of the flush before; 0 in the first of a log
//!  72  u64   chain over the checksums of the records; 0 if there are none
//!  80  i64   when it was made, in microseconds since 1970
//!  88  u32   length of header and records
//!  92  u32   number of records; 0 in a flush that only states the frontier
//!  96  u16   shard
//!  98  6     zero
//! ```
//!
//! The header names its own place, so that one that is whole but stands elsewhere can be told from a damaged one.

use crate::format::bytes::{ALIGN, i64_at, put, u16_at, u32_at, u64_at, u128_at};
use crate::format::checksum::{self, CHAIN_START};
use crate::format::damage::{Damage, matches, within};
use crate::format::record::RECORD_BYTES_MIN;
use crate::format::segment::Origin;
use crate::id::{FlushSequence, Position, ShardId, StoreId};
use crate::limits::SEGMENT_BYTES_MAX;
use crate::sync::broken;

/// How long a flush header is.
pub const FLUSH_HEADER_BYTES: usize = 104;
const MAGIC: [u8; 8] = *b"ANNFLUSH";

/// What stands before the records of a flush.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlushHeader {
    /// The use of a segment that it was written in.
    pub origin: Origin,
    /// Where in the segment's file it stands.
    pub offset: u32,
    /// Its number in the shard's log.
    pub sequence: FlushSequence,
    /// Everything below it was durable when the flush was made.
    pub frontier: Position,
    /// The checksum of the header of the flush before; 0 in the first of a log.
    pub previous: u64,
    /// The length of header and records.
    pub content_bytes: u32,
    /// How many records. None: the flush only states the frontier.
    pub records: u32,
    /// The [`chain`](crate::format::chain) over their checksums.
    pub records_checksum: u64,
    /// When it was made, in microseconds since 1970.
    pub time: i64,
}

impl FlushHeader {
    /// Where it stands.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::new(self.origin.segment, self.offset)
    }

    /// How many blocks the flush covers.
    #[must_use]
    pub fn blocks(&self, block_bytes: u32) -> u32 {
        self.content_bytes.div_ceil(block_bytes.max(1))
    }

    /// Where in the file the next flush starts.
    #[must_use]
    pub fn end(&self, block_bytes: u32) -> u32 {
        self.offset.saturating_add(self.blocks(block_bytes).saturating_mul(block_bytes))
    }

    /// Where the next flush starts, as a position: what a frontier states when all up to this flush is durable.
    #[must_use]
    pub fn end_position(&self, block_bytes: u32) -> Position {
        Position::new(self.origin.segment, self.end(block_bytes))
    }

    /// Writes the header to the start of `out` and returns its checksum, which the next flush states.
    pub fn encode(&self, out: &mut [u8]) -> u64 {
        debug_assert!(out.len() >= FLUSH_HEADER_BYTES);
        let mut header = [0; FLUSH_HEADER_BYTES];
        put(&mut header, 8, MAGIC);
        put(&mut header, 16, self.origin.store.0.to_le_bytes());
        put(&mut header, 32, self.position().get().to_le_bytes());
        put(&mut header, 40, self.origin.salt.to_le_bytes());
        put(&mut header, 48, self.sequence.0.to_le_bytes());
        put(&mut header, 56, self.frontier.get().to_le_bytes());
        put(&mut header, 64, self.previous.to_le_bytes());
        put(&mut header, 72, self.records_checksum.to_le_bytes());
        put(&mut header, 80, self.time.to_le_bytes());
        put(&mut header, 88, self.content_bytes.to_le_bytes());
        put(&mut header, 92, self.records.to_le_bytes());
        put(&mut header, 96, self.origin.shard.0.to_le_bytes());
        let checksum = checksum::placed(&header[8..], self.origin.salt, self.position());
        put(&mut header, 0, checksum.to_le_bytes());
        put(out, 0, header);
        checksum
    }

    /// Reads the header at the start of these bytes, which stand at `offset` of the segment in this use of it. Returns it
    /// and its checksum. Its records are not looked at.
    pub fn decode(
        bytes: &[u8],
        origin: &Origin,
        offset: u32,
    ) -> Result<(FlushHeader, u64), Damage> {
        let Some(header) = bytes.get(..FLUSH_HEADER_BYTES) else {
            return Err(Damage::Truncated {
                what: "flush header",
                expected: FLUSH_HEADER_BYTES as u64,
                found: bytes.len() as u64,
            });
        };
        if header[8..16] != MAGIC {
            return Err(Damage::Magic { what: "flush header" });
        }
        let position = Position::from_raw(u64_at(header, 32));
        let salt = u64_at(header, 40);
        let checksum = u64_at(header, 0);
        let found = checksum::placed(&header[8..], salt, position);
        if found != checksum {
            return Err(Damage::Checksum { what: "flush header", expected: checksum, found });
        }
        let mut flush = FlushHeader {
            origin: Origin {
                store: StoreId(u128_at(header, 16)),
                shard: ShardId(u16_at(header, 96)),
                segment: position.segment(),
                salt,
            },
            offset: position.offset(),
            sequence: FlushSequence(u64_at(header, 48)),
            frontier: Position::from_raw(u64_at(header, 56)),
            previous: u64_at(header, 64),
            content_bytes: u32_at(header, 88),
            records: u32_at(header, 92),
            records_checksum: u64_at(header, 72),
            time: i64_at(header, 80),
        };
        let reserved = u64_at(header, 96) >> 16;
        if reserved != 0 {
            return Err(Damage::Unsupported { what: "flush flags", found: reserved });
        }
        if broken!(IgnoresPlace) {
            (flush.origin, flush.offset) = (Origin { salt, ..*origin }, offset);
        }
        flush.belongs(origin, offset)?;
        flush.check()?;
        Ok((flush, checksum))
    }

    fn belongs(&self, origin: &Origin, offset: u32) -> Result<(), Damage> {
        if self.origin.store != origin.store {
            return Err(Damage::Foreign { expected: origin.store, found: self.origin.store });
        }
        matches("shard", self.origin.shard.0.into(), origin.shard.0.into())?;
        let expected = Position::new(origin.segment, offset);
        if self.position() != expected {
            return Err(Damage::Misplaced { expected, found: self.position() });
        }
        if self.origin.salt != origin.salt && !broken!(ForgetsSalt) {
            return Err(Damage::Stale { expected: origin.salt, found: self.origin.salt });
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Damage> {
        within("flush sequence", self.sequence.0, 1, u64::MAX)?;
        within("frontier", self.frontier.get(), 0, self.position().get())?;
        let content = u64::from(self.content_bytes);
        let records = u64::from(self.records);
        // Below 2^32 times a small number: no overflow.
        let least = FLUSH_HEADER_BYTES as u64 + records * RECORD_BYTES_MIN as u64;
        within("flush length", content, least, SEGMENT_BYTES_MAX)?;
        matches("alignment of the flush", content % ALIGN as u64, 0)?;
        if records == 0 {
            matches("length of a flush without records", content, FLUSH_HEADER_BYTES as u64)?;
            matches("chain over no records", self.records_checksum, CHAIN_START)?;
        }
        Ok(())
    }
}

/// Whether these bytes begin as a flush header does.
pub(super) fn begins(bytes: &[u8]) -> bool {
    bytes.get(8..16).is_some_and(|magic| magic == MAGIC)
}

const _: () = assert!(FLUSH_HEADER_BYTES.is_multiple_of(ALIGN));
