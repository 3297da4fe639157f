//! Makes the checksums of a mutated segment right again, so that what they cover is looked at.
//!
//! Written from `docs/FORMAT.md` alone and not with the code under test, whose checksums it thereby confirms.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const CHAIN_FACTOR: u64 = 0xd6e8_feb8_6659_fd93;
const FLUSH_HEADER: usize = 104;

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().unwrap()
}

fn length(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(number(bytes, at)) as usize
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn seed(salt: [u8; 8], position: u64) -> u64 {
    u64::from_le_bytes(salt) ^ position.wrapping_mul(SPREAD)
}

/// Where a log ends, as the flush behind it and the header of a segment state it.
#[derive(Clone, Copy, Default)]
pub struct End {
    /// Behind the last flush.
    pub position: u64,
    /// Of the last flush.
    pub sequence: u64,
    /// Of the header of the last flush.
    pub checksum: u64,
}

/// Repairs the segment's header and whatever begins as a flush at the start of a block.
pub fn repair(segment: &mut [u8]) {
    repair_all(segment, None);
}

/// As [`repair`], and each flush goes on from the one before it, the first one from where the log ended before this
/// segment. Returns where it ends now.
#[allow(dead_code, reason = "of those that include this file some repair segments alone")]
pub fn repair_chained(segment: &mut [u8], before: Option<End>) -> End {
    let before = before.unwrap_or_default();
    if segment.len() >= 512 && segment[46] == 1 && segment[47] == 1 {
        put(segment, 64, &before.position.to_le_bytes());
        put(segment, 72, &before.sequence.to_le_bytes());
        put(segment, 80, &before.checksum.to_le_bytes());
    }
    repair_all(segment, Some(before)).unwrap_or(before)
}

/// Repairs one copy of an identity, of 512 bytes.
#[allow(dead_code, reason = "of those that include this file some repair segments alone")]
pub fn repair_identity(copy: &mut [u8]) {
    put(copy, 8, b"ANNIDENT");
    put(copy, 16, &1_u32.to_le_bytes());
    let sum = xxh3_64(&copy[8..512]);
    put(copy, 0, &sum.to_le_bytes());
}

/// Repairs header and flushes, which are chained if it is said where the log ended before. Returns where it ends then.
fn repair_all(segment: &mut [u8], mut end: Option<End>) -> Option<End> {
    if segment.len() < 512 {
        return end;
    }
    put(segment, 8, b"ANNSEGMT");
    put(segment, 16, &1_u32.to_le_bytes());
    let sum = xxh3_64(&segment[8..512]);
    put(segment, 0, &sum.to_le_bytes());

    let block = length(segment, 20);
    if !block.is_power_of_two() || !(512..=65_536).contains(&block) {
        return end;
    }
    let mut at = block;
    while at + FLUSH_HEADER <= segment.len() {
        if &segment[at + 8..at + 16] == b"ANNFLUSH" {
            if let Some(end) = end {
                put(segment, at + 48, &(end.sequence.wrapping_add(1)).to_le_bytes());
                put(segment, at + 64, &end.checksum.to_le_bytes());
            }
            repair_flush(segment, at);
            if let Some(end) = &mut end {
                let first = (length(segment, 40) as u64) << 32;
                let blocks = length(segment, at + 88).div_ceil(block).max(1);
                end.position = first | (at + blocks * block) as u64;
                end.sequence = end.sequence.wrapping_add(1);
                end.checksum = u64::from_le_bytes(number(segment, at));
                at += (blocks - 1).min(segment.len() / block) * block;
            }
        }
        at += block;
    }
    end
}

fn repair_flush(segment: &mut [u8], at: usize) {
    let store: [u8; 16] = number(segment, 24);
    let shard: [u8; 2] = number(segment, 44);
    let salt: [u8; 8] = number(segment, 48);
    let first = (length(segment, 40) as u64) << 32;

    let mut chained = 0_u64;
    let end = at.saturating_add(length(segment, at + 88)).min(segment.len());
    let mut record = at + FLUSH_HEADER;
    while record + 64 <= end {
        let (bytes, head) = (length(segment, record + 8), length(segment, record + 12));
        if head < 64 || bytes < head || bytes > end - record {
            break;
        }
        let sum = xxh3_64(&segment[record + head..record + bytes]);
        put(segment, record + 16, &sum.to_le_bytes());
        let head = &segment[record + 8..record + head];
        let sum = xxh3_64_with_seed(head, seed(salt, first | record as u64));
        put(segment, record, &sum.to_le_bytes());
        chained = (chained.rotate_left(23) ^ sum).wrapping_mul(CHAIN_FACTOR);
        record += bytes;
    }

    let position = first | at as u64;
    put(segment, at + 16, &store);
    put(segment, at + 32, &position.to_le_bytes());
    put(segment, at + 40, &salt);
    put(segment, at + 72, &chained.to_le_bytes());
    put(segment, at + 96, &shard);
    let header = &segment[at + 8..at + FLUSH_HEADER];
    let sum = xxh3_64_with_seed(header, seed(salt, position));
    put(segment, at, &sum.to_le_bytes());
}
