//! What stands round the records: the identity, the header of a segment, the header of a flush.

use super::bytes::{
    Flaw, between, checksum, ensure, is_zero, placed, plain, same, slice, u8_at, u16_at, u32_at,
    u64_at, u128_at,
};
use crate::id::{Position, SegmentId};
use crate::limits::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, SEGMENT_BYTES_MAX, SHARDS_MAX};

const FORMAT: u32 = 1;
/// How much of an identity copy and of a segment header the checksum covers, itself included.
pub(super) const HEADER_BYTES: usize = 512;
/// How long a flush header is.
pub(super) const FLUSH_BYTES: usize = 104;
/// The least a record takes: a head of one part with a key of one byte, padded.
const RECORD_BYTES_MIN: u64 = 120;

/// What the identity file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    pub(crate) store: u128,
    pub(crate) block: u32,
    pub(crate) shards: u16,
    pub(crate) hash_key: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) route: Option<u8>,
    /// A write, then a sync; else one write that is durable when it returns.
    pub(crate) syncs: bool,
    pub(super) generation: u64,
}

/// Where a log ended: behind which flush, with its sequence and the checksum of its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    pub(crate) position: Position,
    pub(crate) sequence: u64,
    pub(crate) checksum: u64,
}

/// The header of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) store: u128,
    pub(crate) block: u32,
    pub(crate) id: SegmentId,
    pub(crate) shard: u16,
    /// It begins what an opening wrote; else it goes on where the segment before was full.
    pub(crate) opened: bool,
    pub(crate) accepted: Option<End>,
    pub(crate) salt: u64,
    pub(crate) bytes: u64,
}

/// The header of a flush.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FlushHeader {
    pub(crate) checksum: u64,
    pub(crate) position: Position,
    pub(crate) salt: u64,
    pub(crate) sequence: u64,
    pub(crate) frontier: Position,
    pub(crate) previous: u64,
    pub(crate) chain: u64,
    pub(crate) length: u32,
    pub(crate) records: u32,
}

impl FlushHeader {
    /// How many bytes it takes with its padding.
    pub(super) fn stored(&self, block: u32) -> u64 {
        u64::from(self.length).next_multiple_of(block.into())
    }

    /// Where the next flush starts.
    pub(super) fn end(&self, block: u32) -> Position {
        let offset = u64::from(self.position.offset()) + self.stored(block);
        Position::new(self.position.segment(), u32::try_from(offset).unwrap_or(u32::MAX))
    }
}

/// What identity copies and segment headers have in common in every format.
fn opens<'a>(what: &str, magic: &[u8; 8], bytes: &'a [u8]) -> Result<&'a [u8], Flaw> {
    let bytes = bytes.get(..HEADER_BYTES).ok_or_else(|| {
        let there = bytes.len();
        Flaw::new(format!("the {what} takes {HEADER_BYTES} bytes and only {there} are there"))
    })?;
    ensure(slice(bytes, 8, 8) == magic, || format!("there is no {what} here"))?;
    checksum(what, u64_at(bytes, 0), plain(slice(bytes, 8, HEADER_BYTES)))?;
    match u32_at(bytes, 16) {
        FORMAT => Ok(bytes),
        found => Err(Flaw {
            what: format!("written in format {found}, while this version reads format {FORMAT}"),
            unknown: true,
        }),
    }
}

fn check_lengths(block: u32, bytes: u64) -> Result<(), Flaw> {
    between("block length", block.into(), BLOCK_BYTES_MIN.into(), BLOCK_BYTES_MAX.into())?;
    ensure(block.is_power_of_two(), || {
        format!("the block length is {block}, which is no power of two")
    })?;
    between("segment length", bytes, 2 * u64::from(block), SEGMENT_BYTES_MAX)?;
    same("rest of the segment length over whole blocks", bytes % u64::from(block), 0)
}

fn copy(bytes: &[u8]) -> Result<Facts, Flaw> {
    let bytes = opens("identity", b"ANNIDENT", bytes)?;
    let syncs = match u8_at(bytes, 66) {
        0 => false,
        1 => true,
        found => return Err(Flaw::unknown("durability method", found.into())),
    };
    let route = match (u8_at(bytes, 67), u8_at(bytes, 68)) {
        (0, 0) => None,
        (0, _) => return Err(Flaw::new("a route without the flag for it")),
        (1, route) => Some(route),
        (flags, _) => return Err(Flaw::unknown("identity flags", flags.into())),
    };
    let facts = Facts {
        block: u32_at(bytes, 20),
        store: u128_at(bytes, 24),
        hash_key: u64_at(bytes, 40),
        segment_bytes: u64_at(bytes, 48),
        generation: u64_at(bytes, 56),
        shards: u16_at(bytes, 64),
        route,
        syncs,
    };
    check_lengths(facts.block, facts.segment_bytes)?;
    between("number of shards", facts.shards.into(), 1, SHARDS_MAX.into())?;
    ensure(is_zero(slice(bytes, 69, HEADER_BYTES)), || {
        "the padding of the identity is not zero".into()
    })?;
    Ok(facts)
}

/// Where the copies stand in the identity file.
const COPIES: [usize; 2] = [0, 65_536];
/// How much of the file is looked at.
pub(super) const IDENTITY_BYTES: u64 = 66_048;

/// Reads the identity file, given whole.
pub(super) fn identity(file: &[u8]) -> Result<Facts, Flaw> {
    let copies = COPIES.map(|at| copy(file.get(at..).unwrap_or_default()));
    if let Some(flaw) = copies.iter().find_map(|copy| copy.as_ref().err().filter(|f| f.unknown)) {
        // One whole copy of a newer version is enough for the store to be its own; of what is unknown within this
        // format the other copy may still tell.
        let newer = flaw.what.starts_with("written in format");
        if newer || copies.iter().all(Result::is_err) {
            return Err(flaw.clone());
        }
    }
    match copies {
        [Ok(first), Ok(second)] => {
            let apart = first.generation != second.generation || first == second;
            ensure(first.store == second.store && apart, || {
                "the two copies are not of one store".into()
            })?;
            Ok(if first.generation >= second.generation { first } else { second })
        }
        [Ok(one), Err(_)] | [Err(_), Ok(one)] => Ok(one),
        [Err(first), Err(second)] => {
            let what = format!("both copies are damaged: {}; {}", first.what, second.what);
            Err(Flaw::new(what))
        }
    }
}

/// Reads the header of a segment from its first block, or as much of that as there is.
pub(super) fn segment(bytes: &[u8]) -> Result<SegmentHeader, Flaw> {
    let header = opens("segment header", b"ANNSEGMT", bytes)?;
    let opened = match u8_at(header, 46) {
        1 => true,
        2 => false,
        found => return Err(Flaw::unknown("segment kind", found.into())),
    };
    let states = match u8_at(header, 47) {
        0 => false,
        1 if opened => true,
        found => return Err(Flaw::unknown("segment flags", found.into())),
    };
    let found = SegmentHeader {
        block: u32_at(header, 20),
        store: u128_at(header, 24),
        id: SegmentId(u32_at(header, 40)),
        shard: u16_at(header, 44),
        opened,
        accepted: states.then(|| End {
            position: Position::from_raw(u64_at(header, 64)),
            sequence: u64_at(header, 72),
            checksum: u64_at(header, 80),
        }),
        salt: u64_at(header, 48),
        bytes: u64_at(header, 56),
    };
    check_lengths(found.block, found.bytes)?;
    between("segment id", found.id.0.into(), 1, u32::MAX.into())?;
    between("shard", found.shard.into(), 0, u64::from(SHARDS_MAX) - 1)?;
    if let Some(end) = found.accepted {
        between("accepted sequence", end.sequence, 1, u64::MAX)?;
        ensure((1..found.id.0).contains(&end.position.segment().0), || {
            format!("the accepted end is {}, which lies in no segment before", end.position)
        })?;
    }
    let unstated = if states { &[] } else { slice(header, 64, 24) };
    let rest = slice(bytes, 96, found.block as usize - 96);
    ensure(is_zero(unstated) && is_zero(rest), || {
        "the padding of the segment header is not zero".into()
    })?;
    Ok(found)
}

/// Where a flush header is read, and in which use of which segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) store: u128,
    pub(super) shard: u16,
    pub(super) position: Position,
    /// Unknown where the segment's own header is damaged: then the flush tells it.
    pub(super) salt: Option<u64>,
}

/// Whether a flush header might begin here.
pub(super) fn flush_begins(bytes: &[u8]) -> bool {
    slice(bytes, 8, 8) == b"ANNFLUSH"
}

/// Reads the header of a flush. Its records are not looked at.
pub(super) fn flush(bytes: &[u8], place: &Place) -> Result<FlushHeader, Flaw> {
    let bytes = bytes.get(..FLUSH_BYTES).ok_or_else(|| {
        let there = bytes.len();
        Flaw::new(format!("the flush header takes {FLUSH_BYTES} bytes and only {there} are there"))
    })?;
    ensure(flush_begins(bytes), || "there is no flush header here".into())?;
    let found = FlushHeader {
        checksum: u64_at(bytes, 0),
        position: Position::from_raw(u64_at(bytes, 32)),
        salt: u64_at(bytes, 40),
        sequence: u64_at(bytes, 48),
        frontier: Position::from_raw(u64_at(bytes, 56)),
        previous: u64_at(bytes, 64),
        chain: u64_at(bytes, 72),
        length: u32_at(bytes, 88),
        records: u32_at(bytes, 92),
    };
    let given = placed(slice(bytes, 8, FLUSH_BYTES - 8), found.salt, found.position);
    checksum("flush header", found.checksum, given)?;
    if !is_zero(slice(bytes, 98, 6)) {
        return Err(Flaw::unknown("flush flags", u64_at(bytes, 96) >> 16));
    }
    let store = u128_at(bytes, 16);
    ensure(store == place.store, || {
        format!("of store {store:032x}, while this is store {:032x}", place.store)
    })?;
    same("shard", u16_at(bytes, 96).into(), place.shard.into())?;
    ensure(found.position == place.position, || {
        format!("written for position {}, found at {}", found.position, place.position)
    })?;
    ensure(place.salt.is_none_or(|salt| salt == found.salt), || {
        let (theirs, ours) = (found.salt, place.salt.unwrap_or_default());
        format!("left from an earlier use of the segment (salt {theirs:016x}, now {ours:016x})")
    })?;
    between("flush sequence", found.sequence, 1, u64::MAX)?;
    between("frontier", found.frontier.get(), 0, found.position.get())?;
    let least = FLUSH_BYTES as u64 + u64::from(found.records) * RECORD_BYTES_MIN;
    between("flush length", found.length.into(), least, SEGMENT_BYTES_MAX)?;
    same("alignment of the flush", u64::from(found.length) % 8, 0)?;
    if found.records == 0 {
        same("length of a flush without records", found.length.into(), FLUSH_BYTES as u64)?;
        same("chain over no records", found.chain, 0)?;
    }
    Ok(found)
}
