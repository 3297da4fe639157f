//! Checksums: xxh3 of 64 bits, told apart by where the bytes belong.
//!
//! A record's head and a flush header are hashed with a seed made of the random salt that the segment drew for this use
//! and of their own position. So bytes left from an earlier use, and bytes written to or read from the wrong
//! place, fail as surely as damaged ones. A record's events are hashed without a seed: the caller's thread does
//! that before it is known where the record will stand, and the result lies in the head.

use xxhash_rust::xxh3;

use crate::id::Position;
use crate::sync::broken;

/// Odd, so that different positions give different seeds.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Odd, so that no step of the chain loses anything.
const CHAIN_FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

/// What a chain starts from, and what a flush without records states.
pub const CHAIN_START: u64 = 0;

/// Adds one record's checksum to the chain over the records of a flush. The order counts.
#[must_use]
pub const fn chain(so_far: u64, checksum: u64) -> u64 {
    (so_far.rotate_left(23) ^ checksum).wrapping_mul(CHAIN_FACTOR)
}

/// The checksum of bytes that belong to one place in one use of one segment.
pub(super) fn placed(bytes: &[u8], salt: u64, position: Position) -> u64 {
    let salt = if broken!(ForgetsSalt) { 0 } else { salt };
    let position = if broken!(IgnoresPlace) { Position::START } else { position };
    xxh3::xxh3_64_with_seed(bytes, salt ^ position.get().wrapping_mul(SPREAD))
}

/// The checksum of bytes wherever they stand.
pub(super) fn plain(bytes: &[u8]) -> u64 {
    xxh3::xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_and_the_salt_count() {
        let here = placed(b"bytes", 7, Position::from_raw(4096));
        assert_ne!(here, placed(b"bytes", 7, Position::from_raw(4104)));
        assert_ne!(here, placed(b"bytes", 8, Position::from_raw(4096)));
        assert_ne!(here, placed(b"byteS", 7, Position::from_raw(4096)));
    }

    #[test]
    fn the_order_counts() {
        let two = |first, second| chain(chain(CHAIN_START, first), second);
        assert_ne!(two(1, 2), two(2, 1));
        assert_ne!(two(1, 2), two(1, 3));
    }
}
