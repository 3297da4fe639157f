//! Numbers and checksums as the format draws them, and what can be wrong with bytes.
//!
//! The verifier decodes by itself, from `docs/FORMAT.md` alone: a mistake in the store's own decoder can't be in this one
//! for the same reason.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::id::Position;

/// What is wrong with some bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Flaw {
    /// In words.
    pub(crate) what: String,
    /// The bytes are whole; it is this version that does not know what they say.
    pub(crate) unknown: bool,
}

impl Flaw {
    pub(super) fn new(what: impl Into<String>) -> Flaw {
        Flaw { what: what.into(), unknown: false }
    }

    pub(super) fn unknown(what: &str, found: u64) -> Flaw {
        Flaw { what: format!("this version does not know the {what} {found}"), unknown: true }
    }
}

/// Refuses what does not hold.
pub(super) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Flaw> {
    if holds { Ok(()) } else { Err(Flaw::new(what())) }
}

/// Refuses a number that is not what the rest says.
pub(super) fn same(what: &str, found: u64, expected: u64) -> Result<(), Flaw> {
    ensure(found == expected, || format!("the {what} is {found}, where the rest says {expected}"))
}

/// Refuses a number outside its limits.
pub(super) fn between(what: &str, found: u64, least: u64, most: u64) -> Result<(), Flaw> {
    ensure((least..=most).contains(&found), || {
        format!("the {what} is {found}, which is not within {least} to {most}")
    })
}

/// Refuses bytes that do not give the checksum that they state.
pub(super) fn checksum(what: &str, stated: u64, given: u64) -> Result<(), Flaw> {
    ensure(stated == given, || {
        format!("the {what} states checksum {stated:016x}, its bytes give {given:016x}")
    })
}

/// So many bytes at this offset; fewer if there are fewer.
pub(super) fn slice(bytes: &[u8], at: usize, length: usize) -> &[u8] {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.get(..length).unwrap_or(rest)
}

macro_rules! numbers {
    ($($name:ident $number:ty),*) => {
        $(
            /// The number at this offset; 0 where the bytes end before it does.
            pub(super) fn $name(bytes: &[u8], at: usize) -> $number {
                let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
                found.copied().map_or(0, <$number>::from_le_bytes)
            }
        )*
    };
}

numbers!(u8_at u8, u16_at u16, u32_at u32, u64_at u64, u128_at u128, i64_at i64);

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

pub(super) fn plain(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The checksum of bytes that are bound to a place and to one use of a segment.
pub(super) fn placed(bytes: &[u8], salt: u64, position: Position) -> u64 {
    xxh3_64_with_seed(bytes, salt ^ position.get().wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// What a chain over checksums becomes by one more.
pub(super) fn link(chain: u64, checksum: u64) -> u64 {
    (chain.rotate_left(23) ^ checksum).wrapping_mul(0xd6e8_feb8_6659_fd93)
}
