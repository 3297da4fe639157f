//! The identity file: what a store is, written when it is created and seldom again. Two copies, written in turn and far
//! enough apart that no torn write harms both.
//!
//! ```text
//!   0  u64   checksum of bytes 8 to 512
//!   8  8     "ANNIDENT"
//!  16  u32   format
//!  20  u32   bytes of a block
//!  24  u128  store
//!  40  u64   key of the hash that spreads the aggregates
//!  48  u64   bytes of a segment
//!  56  u64   generation: rises with every write of a copy
//!  64  u16   shards
//!  66  u8    durability method: 0 = write that is durable when it returns, 1 = write, then sync
//!  67  u8    flags: 1 = has a route
//!  68  u8    route, else 0
//!  69  …     zeros to 512
//! ```
//!
//! The file is [`IDENTITY_BYTES`] long, the copies stand at [`IDENTITY_OFFSETS`], all else is zero and not looked at.

use std::error::Error;
use std::fmt;

use crate::format::FORMAT;
use crate::format::bytes::{is_zero, put, u8_at, u16_at, u32_at, u64_at, u128_at};
use crate::format::checksum;
use crate::format::damage::{Damage, matches, within};
use crate::format::segment::{SEGMENT_HEADER_BYTES, begins, check_block};
use crate::id::StoreId;
use crate::limits::{SEGMENT_BYTES_MAX, SHARDS_MAX};

/// Where the two copies stand in the file.
pub const IDENTITY_OFFSETS: [usize; 2] = [0, 64 << 10];
/// How long the file is.
pub const IDENTITY_BYTES: usize = IDENTITY_OFFSETS[1] + COPY_BYTES;

const COPY_BYTES: usize = SEGMENT_HEADER_BYTES;
const MAGIC: [u8; 8] = *b"ANNIDENT";
const FIELDS_END: usize = 69;
const HAS_ROUTE: u8 = 1;

/// How flushes are made durable, as probed or chosen for the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum SyncChoice {
    /// One write that is durable when it returns.
    WriteDsync = 0,
    /// A write, then a sync.
    WriteThenSync = 1,
}

/// What a store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Random, drawn when the store was created; every header names it.
    pub store: StoreId,
    /// The key of the hash that spreads the aggregates.
    pub hash_key: u64,
    /// How many shards.
    pub shards: u16,
    /// The byte up to which a key decides about its shard, if not all of it does.
    pub route: Option<u8>,
    /// How large segments become.
    pub segment_bytes: u64,
    /// What flushes are padded to.
    pub block_bytes: u32,
    /// How flushes are made durable.
    pub sync: SyncChoice,
    /// Rises with every write of a copy: the higher one is the newer.
    pub generation: u64,
}

/// What an identity file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// The newest whole copy.
    pub identity: Identity,
    /// Which of [`IDENTITY_OFFSETS`] the next write replaces: the copy that is older, or damaged.
    pub replace: usize,
    /// What is wrong with that copy, if anything is.
    pub damaged: Option<Damage>,
}

/// Why an identity file says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdentityError {
    /// Neither copy begins as one does: the file is something else, or empty.
    NotIdentity,
    /// A whole copy is of a format that this version does not know.
    Format {
        /// The format of the file.
        found: u32,
        /// The format that is known.
        supported: u32,
    },
    /// Neither copy can be used.
    Damaged {
        /// What is wrong with each.
        copies: [Damage; 2],
    },
    /// Two whole copies do not belong together: parts of two files.
    Disagree,
}

impl Error for IdentityError {}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::NotIdentity => f.write_str("this is not an identity file"),
            IdentityError::Format { found, supported } => {
                write!(
                    f,
                    "the store is of format {found}, while this version reads format {supported}"
                )
            }
            IdentityError::Damaged { copies: [first, second] } => {
                write!(f, "both copies are damaged: {first}; {second}")
            }
            IdentityError::Disagree => f.write_str("the two copies are not of one store"),
        }
    }
}

impl Identity {
    /// The bytes of one copy.
    #[must_use]
    pub fn encode(&self) -> [u8; COPY_BYTES] {
        let mut copy = [0; COPY_BYTES];
        put(&mut copy, 8, MAGIC);
        put(&mut copy, 16, FORMAT.to_le_bytes());
        put(&mut copy, 20, self.block_bytes.to_le_bytes());
        put(&mut copy, 24, self.store.0.to_le_bytes());
        put(&mut copy, 40, self.hash_key.to_le_bytes());
        put(&mut copy, 48, self.segment_bytes.to_le_bytes());
        put(&mut copy, 56, self.generation.to_le_bytes());
        put(&mut copy, 64, self.shards.to_le_bytes());
        put(&mut copy, 66, [self.sync as u8]);
        if let Some(route) = self.route {
            put(&mut copy, 67, [HAS_ROUTE, route]);
        }
        let checksum = checksum::plain(&copy[8..]);
        put(&mut copy, 0, checksum.to_le_bytes());
        copy
    }

    fn decode(bytes: &[u8]) -> Result<Identity, Damage> {
        let copy = begins("identity", MAGIC, bytes)?;
        let sync = match u8_at(copy, 66) {
            0 => SyncChoice::WriteDsync,
            1 => SyncChoice::WriteThenSync,
            found => {
                return Err(Damage::Unsupported { what: "durability method", found: found.into() });
            }
        };
        let route = match (u8_at(copy, 67), u8_at(copy, 68)) {
            (0, 0) => None,
            (0, _) => return Err(Damage::Padding { what: "identity" }),
            (HAS_ROUTE, route) => Some(route),
            (flags, _) => {
                return Err(Damage::Unsupported { what: "identity flags", found: flags.into() });
            }
        };
        let identity = Identity {
            store: StoreId(u128_at(copy, 24)),
            hash_key: u64_at(copy, 40),
            shards: u16_at(copy, 64),
            route,
            segment_bytes: u64_at(copy, 48),
            block_bytes: u32_at(copy, 20),
            sync,
            generation: u64_at(copy, 56),
        };
        check_block("block length", identity.block_bytes)?;
        within("number of shards", identity.shards.into(), 1, SHARDS_MAX.into())?;
        let block = u64::from(identity.block_bytes);
        within("segment length", identity.segment_bytes, 2 * block, SEGMENT_BYTES_MAX)?;
        matches("alignment of the segment length", identity.segment_bytes % block, 0)?;
        if !is_zero(&copy[FIELDS_END..]) {
            return Err(Damage::Padding { what: "identity" });
        }
        Ok(identity)
    }
}

/// Reads an identity file, given whole.
pub fn decode_pair(file: &[u8]) -> Result<Decoded, IdentityError> {
    let [first, second] =
        IDENTITY_OFFSETS.map(|at| Identity::decode(file.get(at..).unwrap_or_default()));
    for copy in [&first, &second] {
        // A newer version may have written one copy and not yet the other: the store is its own from then on.
        if let Err(Damage::Format { found, expected }) = *copy {
            return Err(IdentityError::Format { found, supported: expected });
        }
    }
    match (first, second) {
        (Ok(first), Ok(second)) if first.store != second.store => Err(IdentityError::Disagree),
        (Ok(first), Ok(second)) if first.generation == second.generation && first != second => {
            Err(IdentityError::Disagree)
        }
        (Ok(first), Ok(second)) => {
            let newest_first = first.generation >= second.generation;
            Ok(Decoded {
                identity: if newest_first { first } else { second },
                replace: usize::from(newest_first),
                damaged: None,
            })
        }
        (Ok(identity), Err(damage)) => Ok(Decoded { identity, replace: 1, damaged: Some(damage) }),
        (Err(damage), Ok(identity)) => Ok(Decoded { identity, replace: 0, damaged: Some(damage) }),
        (Err(first), Err(second)) => {
            let alien = |damage| matches!(damage, Damage::Magic { .. } | Damage::Truncated { .. });
            if alien(first) && alien(second) {
                return Err(IdentityError::NotIdentity);
            }
            Err(IdentityError::Damaged { copies: [first, second] })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::SyncChoice::{WriteDsync, WriteThenSync};

    fn identity(generation: u64) -> Identity {
        Identity {
            store: StoreId(7),
            hash_key: 8,
            shards: 3,
            route: None,
            segment_bytes: 1 << 20,
            block_bytes: 512,
            sync: WriteDsync,
            generation,
        }
    }

    fn file(copies: [[u8; COPY_BYTES]; 2]) -> Vec<u8> {
        let mut file = vec![0; IDENTITY_BYTES];
        for (at, copy) in IDENTITY_OFFSETS.into_iter().zip(copies) {
            file[at..at + COPY_BYTES].copy_from_slice(&copy);
        }
        file
    }

    fn resealed(mut copy: [u8; COPY_BYTES], at: usize, value: &[u8]) -> [u8; COPY_BYTES] {
        copy[at..at + value.len()].copy_from_slice(value);
        let checksum = checksum::plain(&copy[8..]);
        put(&mut copy, 0, checksum.to_le_bytes());
        copy
    }

    #[test]
    fn the_newer_copy_counts() {
        let (old, new) = (identity(4), Identity { sync: WriteThenSync, ..identity(5) });
        for (copies, replace) in
            [([old.encode(), new.encode()], 0), ([new.encode(), old.encode()], 1)]
        {
            let expected = Decoded { identity: new, replace, damaged: None };
            assert_eq!(decode_pair(&file(copies)), Ok(expected));
        }
    }

    #[test]
    fn no_flipped_bit_passes_and_the_other_copy_stands_in() {
        for damaged in [0, 1] {
            let whole = file([identity(1 + damaged as u64).encode(), identity(2).encode()]);
            for bit in 0..COPY_BYTES * 8 {
                let mut file = whole.clone();
                file[IDENTITY_OFFSETS[damaged] + bit / 8] ^= 1 << (bit % 8);
                let decoded = decode_pair(&file).unwrap();
                assert_eq!(decoded.replace, damaged);
                assert!(decoded.damaged.is_some());
            }
        }
    }

    #[test]
    fn what_is_no_identity_is_told_apart() {
        let one = identity(1);
        let mut torn = one.encode();
        torn[50] ^= 1;
        let newer = resealed(identity(2).encode(), 16, &2_u32.to_le_bytes());

        for bytes in [vec![], vec![0; IDENTITY_BYTES], b"#!/bin/sh".repeat(10_000)] {
            assert_eq!(decode_pair(&bytes), Err(IdentityError::NotIdentity));
        }
        let format = Err(IdentityError::Format { found: 2, supported: FORMAT });
        assert_eq!(decode_pair(&file([newer, newer])), format);
        assert_eq!(decode_pair(&file([one.encode(), newer])), format);
        assert_eq!(decode_pair(&file([newer, torn])), format);
        let damaged = decode_pair(&file([torn, torn]));
        assert!(matches!(damaged, Err(IdentityError::Damaged { .. })), "{damaged:?}");
        let half = file([torn, [0; COPY_BYTES]]);
        assert!(matches!(decode_pair(&half), Err(IdentityError::Damaged { .. })));
        let other = Identity { store: StoreId(8), ..identity(2) };
        assert_eq!(
            decode_pair(&file([one.encode(), other.encode()])),
            Err(IdentityError::Disagree)
        );
        let other = Identity { shards: 4, ..identity(1) };
        assert_eq!(
            decode_pair(&file([one.encode(), other.encode()])),
            Err(IdentityError::Disagree)
        );
    }

    #[test]
    fn a_file_cut_anywhere_is_decided() {
        let whole = file([identity(2).encode(), identity(1).encode()]);
        for length in (0..=COPY_BYTES).chain([IDENTITY_BYTES - 1, IDENTITY_BYTES]) {
            let decoded = decode_pair(&whole[..length]);
            assert_eq!(decoded.is_ok(), length >= COPY_BYTES, "{length}: {decoded:?}");
            if length < COPY_BYTES {
                assert_eq!(decoded, Err(IdentityError::NotIdentity));
            }
        }
    }

    #[test]
    fn what_a_valid_checksum_covers_is_checked_too() {
        for (at, value) in [
            (20, &100_u32.to_le_bytes()[..]),
            (48, &(1_u64 << 60).to_le_bytes()),
            (48, &1000_u64.to_le_bytes()),
            (64, &0_u16.to_le_bytes()),
            (64, &2000_u16.to_le_bytes()),
            (66, &[2]),
            (67, &[2]),
            (68, &[1]),
            (300, &[1]),
        ] {
            let copy = resealed(identity(1).encode(), at, value);
            let Err(IdentityError::Damaged { copies: [damage, _] }) =
                decode_pair(&file([copy, copy]))
            else {
                panic!("byte {at} passes");
            };
            assert!(!matches!(damage, Damage::Checksum { .. }), "{at}: {damage}");
        }
    }
}
