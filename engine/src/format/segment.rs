//! A segment file: its name, and the header that fills its first block.
//!
//! ```text
//!   0  u64   checksum of bytes 8 to 512
//!   8  8     "ANNSEGMT"
//!  16  u32   format
//!  20  u32   bytes of a block
//!  24  u128  store
//!  40  u32   segment
//!  44  u16   shard
//!  46  u8    kind: 1 = opened, 2 = rolled
//!  47  u8    flags: 1 = states an accepted end
//!  48  u64   salt of this use of the segment
//!  56  u64   bytes prepared, the header's block included
//!  64  u64   accepted end: position
//!  72  u64   accepted end: sequence
//!  80  u64   accepted end: checksum
//!  88  i64   when it was made, in microseconds since 1970
//!  96  …     zeros to the end of the block
//! ```
//!
//! Checksum, magic and format keep their place and the checksum its range in every format to come. So a whole header of a
//! newer format can be told from a damaged one.

use std::fmt;

use crate::format::FORMAT;
use crate::format::bytes::{i64_at, is_zero, put, u8_at, u16_at, u32_at, u64_at, u128_at};
use crate::format::checksum;
use crate::format::damage::{Damage, matches, within};
use crate::id::{FlushSequence, Position, SegmentId, ShardId, StoreId};
use crate::limits::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, SEGMENT_BYTES_MAX, SHARDS_MAX};

/// How many bytes a segment header writes; the rest of its block is zero.
pub const SEGMENT_HEADER_BYTES: usize = 512;
const MAGIC: [u8; 8] = *b"ANNSEGMT";
const FIELDS_END: usize = 96;

const KIND_OPENED: u8 = 1;
const KIND_ROLLED: u8 = 2;
const HAS_ACCEPTED: u8 = 1;

/// One use of one segment: what every flush in it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The store.
    pub store: StoreId,
    /// The shard.
    pub shard: ShardId,
    /// The segment.
    pub segment: SegmentId,
    /// Random, drawn when the segment's header was made.
    pub salt: u64,
}

/// Where the accepted log ended when a store was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AcceptedEnd {
    /// Where the last accepted flush ends. All that is accepted lies below it, as below a frontier.
    pub position: Position,
    /// The sequence of that flush.
    pub sequence: FlushSequence,
    /// The checksum of its header.
    pub checksum: u64,
}

/// Why a segment was begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    /// To be the first after an opening. What lies between the accepted end and this segment is never read again.
    Opened {
        /// Where the log ended; `None` if it held nothing.
        accepted: Option<AcceptedEnd>,
    },
    /// To go on where the segment before it was full.
    Rolled,
}

/// What the first block of a segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Store, shard, segment and salt.
    pub origin: Origin,
    /// What flushes are padded to.
    pub block_bytes: u32,
    /// How many bytes were prepared, the header's block included.
    pub bytes: u64,
    /// Why it was begun.
    pub kind: SegmentKind,
    /// When it was made, in microseconds since 1970.
    pub time: i64,
}

impl SegmentHeader {
    /// Fills `block`, the segment's first one.
    pub fn encode(&self, block: &mut [u8]) {
        debug_assert_eq!(block.len(), self.block_bytes as usize);
        let (kind, accepted) = match self.kind {
            SegmentKind::Opened { accepted } => (KIND_OPENED, accepted),
            SegmentKind::Rolled => (KIND_ROLLED, None),
        };
        let mut header = [0; SEGMENT_HEADER_BYTES];
        put(&mut header, 8, MAGIC);
        put(&mut header, 16, FORMAT.to_le_bytes());
        put(&mut header, 20, self.block_bytes.to_le_bytes());
        put(&mut header, 24, self.origin.store.0.to_le_bytes());
        put(&mut header, 40, self.origin.segment.0.to_le_bytes());
        put(&mut header, 44, self.origin.shard.0.to_le_bytes());
        put(&mut header, 46, [kind]);
        put(&mut header, 48, self.origin.salt.to_le_bytes());
        put(&mut header, 56, self.bytes.to_le_bytes());
        if let Some(end) = accepted {
            put(&mut header, 47, [HAS_ACCEPTED]);
            put(&mut header, 64, end.position.get().to_le_bytes());
            put(&mut header, 72, end.sequence.0.to_le_bytes());
            put(&mut header, 80, end.checksum.to_le_bytes());
        }
        put(&mut header, 88, self.time.to_le_bytes());
        let checksum = checksum::plain(&header[8..]);
        put(&mut header, 0, checksum.to_le_bytes());
        block.fill(0);
        put(block, 0, header);
    }

    /// Reads the header at the start of a segment. `bytes` may be the first [`SEGMENT_HEADER_BYTES`] alone, or more: then
    /// the rest of the first block is checked too. Whether the name fits is the caller's to ask.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, Damage> {
        let header = begins("segment header", MAGIC, bytes)?;
        let kind = match (u8_at(header, 46), u8_at(header, 47)) {
            (KIND_OPENED, 0) => SegmentKind::Opened { accepted: None },
            (KIND_OPENED, HAS_ACCEPTED) => SegmentKind::Opened {
                accepted: Some(AcceptedEnd {
                    position: Position::from_raw(u64_at(header, 64)),
                    sequence: FlushSequence(u64_at(header, 72)),
                    checksum: u64_at(header, 80),
                }),
            },
            (KIND_ROLLED, 0) => SegmentKind::Rolled,
            (KIND_OPENED | KIND_ROLLED, flags) => {
                return Err(Damage::Unsupported { what: "segment flags", found: flags.into() });
            }
            (kind, _) => {
                return Err(Damage::Unsupported { what: "segment kind", found: kind.into() });
            }
        };
        let segment = SegmentHeader {
            origin: Origin {
                store: StoreId(u128_at(header, 24)),
                shard: ShardId(u16_at(header, 44)),
                segment: SegmentId(u32_at(header, 40)),
                salt: u64_at(header, 48),
            },
            block_bytes: u32_at(header, 20),
            bytes: u64_at(header, 56),
            kind,
            time: i64_at(header, 88),
        };
        segment.check()?;
        let block = segment.block_bytes as usize;
        let padding = bytes.get(FIELDS_END..bytes.len().min(block)).unwrap_or_default();
        let unstated = header.get(64..88).unwrap_or_default();
        let states_end = matches!(kind, SegmentKind::Opened { accepted: Some(_) });
        if !is_zero(padding) || !states_end && !is_zero(unstated) {
            return Err(Damage::Padding { what: "segment header" });
        }
        Ok(segment)
    }

    fn check(&self) -> Result<(), Damage> {
        check_block("block length", self.block_bytes)?;
        let block = u64::from(self.block_bytes);
        within("segment length", self.bytes, 2 * block, SEGMENT_BYTES_MAX)?;
        matches("alignment of the segment length", self.bytes % block, 0)?;
        within("segment id", self.origin.segment.0.into(), 1, u32::MAX.into())?;
        within("shard", self.origin.shard.0.into(), 0, u64::from(SHARDS_MAX) - 1)?;
        if let SegmentKind::Opened { accepted: Some(end) } = self.kind {
            within("accepted sequence", end.sequence.0, 1, u64::MAX)?;
            let most = Position::new(self.origin.segment, 0).get() - 1;
            within("accepted end", end.position.get(), 1 << 32, most)?;
        }
        Ok(())
    }
}

/// Checks what every first block of 512 bytes has in common in all formats, and that it is of ours.
pub(super) fn begins<'a>(
    what: &'static str,
    magic: [u8; 8],
    bytes: &'a [u8],
) -> Result<&'a [u8], Damage> {
    let Some(header) = bytes.get(..SEGMENT_HEADER_BYTES) else {
        let (expected, found) = (SEGMENT_HEADER_BYTES as u64, bytes.len() as u64);
        return Err(Damage::Truncated { what, expected, found });
    };
    if header[8..16] != magic {
        return Err(Damage::Magic { what });
    }
    let expected = u64_at(header, 0);
    let found = checksum::plain(&header[8..]);
    if found != expected {
        return Err(Damage::Checksum { what, expected, found });
    }
    let format = u32_at(header, 16);
    if format != FORMAT {
        return Err(Damage::Format { expected: FORMAT, found: format });
    }
    Ok(header)
}

pub(super) fn check_block(what: &'static str, block_bytes: u32) -> Result<(), Damage> {
    within(what, block_bytes.into(), BLOCK_BYTES_MIN.into(), BLOCK_BYTES_MAX.into())?;
    matches(what, block_bytes.into(), block_bytes.next_power_of_two().into())
}

/// What a file in a shard's directory is called. Any other name is not ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileName {
    /// A segment: `0000000000000001.seg`.
    Segment(SegmentId),
    /// A segment that is being prepared, or waits for its turn: `0000000000000001.spare`.
    Spare(SegmentId),
}

impl FileName {
    /// Reads a name: exactly what [`Display`](fmt::Display) writes, and nothing else.
    #[must_use]
    pub fn parse(name: &str) -> Option<FileName> {
        let (digits, extension) = name.split_at_checked(16)?;
        if !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let number = u32::try_from(u64::from_str_radix(digits, 16).ok()?).ok()?;
        let segment = SegmentId(number);
        match extension {
            _ if number == 0 => None,
            ".seg" => Some(FileName::Segment(segment)),
            ".spare" => Some(FileName::Spare(segment)),
            _ => None,
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileName::Segment(segment) => write!(f, "{:016x}.seg", segment.0),
            FileName::Spare(segment) => write!(f, "{:016x}.spare", segment.0),
        }
    }
}

const _: () = assert!(SEGMENT_HEADER_BYTES <= BLOCK_BYTES_MIN as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_names() {
        for (name, expected) in [
            ("0000000000000001.seg", Some(FileName::Segment(SegmentId(1)))),
            ("00000000ffffffff.seg", Some(FileName::Segment(SegmentId(u32::MAX)))),
            ("00000000000000ab.spare", Some(FileName::Spare(SegmentId(0xab)))),
            ("0000000000000000.seg", None),
            ("0000000100000000.seg", None),
            ("00000000000000AB.seg", None),
            ("+000000000000001.seg", None),
            ("000000000000001.seg", None),
            ("00000000000000001.seg", None),
            ("0000000000000001.SEG", None),
            ("0000000000000001.seg~", None),
            ("0000000000000001", None),
            ("00000000000000é1.seg", None),
            ("000000000000000é.seg", None),
            (".DS_Store", None),
            ("", None),
        ] {
            assert_eq!(FileName::parse(name), expected, "{name}");
            if let Some(parsed) = expected {
                assert_eq!(parsed.to_string(), name);
            }
        }
    }

    #[test]
    fn a_header_of_every_kind_comes_back() {
        let origin =
            Origin { store: StoreId(7), shard: ShardId(2), segment: SegmentId(9), salt: u64::MAX };
        let accepted = AcceptedEnd {
            position: Position::new(SegmentId(8), 4096),
            sequence: FlushSequence(3),
            checksum: 5,
        };
        for kind in [
            SegmentKind::Rolled,
            SegmentKind::Opened { accepted: None },
            SegmentKind::Opened { accepted: Some(accepted) },
        ] {
            let header =
                SegmentHeader { origin, block_bytes: 4096, bytes: 1 << 20, kind, time: -1 };
            let mut block = [0xff; 4096];
            header.encode(&mut block);
            assert_eq!(SegmentHeader::decode(&block), Ok(header));
            assert_eq!(SegmentHeader::decode(&block[..SEGMENT_HEADER_BYTES]), Ok(header));
            let short = SegmentHeader::decode(&block[..SEGMENT_HEADER_BYTES - 1]);
            assert!(matches!(short, Err(Damage::Truncated { .. })));
            block[4095] = 1;
            assert!(matches!(SegmentHeader::decode(&block), Err(Damage::Padding { .. })));
        }
    }
}
