//! What can be wrong with bytes from disk.

use std::error::Error;
use std::fmt;

use crate::expect::Expect;
use crate::id::{Position, StoreId};

/// What is wrong with bytes that were read. Where they stood is told beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Damage {
    /// They end before the thing does.
    Truncated {
        /// The thing.
        what: &'static str,
        /// The bytes it takes.
        expected: u64,
        /// The bytes there are.
        found: u64,
    },
    /// They do not begin as the thing does.
    Magic {
        /// The thing.
        what: &'static str,
    },
    /// They are not the bytes that were written, or they were written elsewhere.
    Checksum {
        /// Whose checksum.
        what: &'static str,
        /// What is stated.
        expected: u64,
        /// What the bytes give.
        found: u64,
    },
    /// They are whole, and of a format that this version of Annals does not know.
    Format {
        /// The format that is known.
        expected: u32,
        /// The format that they are of.
        found: u32,
    },
    /// They are whole, and use something that this version of Annals does not know.
    Unsupported {
        /// What it is used for.
        what: &'static str,
        /// Its number.
        found: u64,
    },
    /// A number is outside its limits.
    Bounds {
        /// The number's name.
        what: &'static str,
        /// The number.
        found: u64,
        /// The least it can be.
        least: u64,
        /// The most it can be.
        most: u64,
    },
    /// Two facts that belong together differ.
    Mismatch {
        /// The fact's name.
        what: &'static str,
        /// What follows from the rest.
        expected: u64,
        /// What is stated.
        found: u64,
    },
    /// A record could not have been written under its own condition.
    Condition {
        /// The condition.
        expected: Expect,
        /// The version that the write found.
        found: u64,
    },
    /// Something that is always zero is not.
    Padding {
        /// Whose.
        what: &'static str,
    },
    /// A text is not UTF-8.
    Text {
        /// The text.
        what: &'static str,
    },
    /// They are of another store.
    Foreign {
        /// The store that was asked for.
        expected: StoreId,
        /// The store they are of.
        found: StoreId,
    },
    /// They are whole and belong elsewhere in the shard.
    Misplaced {
        /// Where they were read.
        expected: Position,
        /// Where they belong.
        found: Position,
    },
    /// They are whole and left from an earlier use of the segment.
    Stale {
        /// The salt of this use.
        expected: u64,
        /// Theirs.
        found: u64,
    },
}

impl Damage {
    /// Whether the bytes are whole, and only this version of Annals can't read them: never a torn write.
    #[must_use]
    pub const fn is_unsupported(&self) -> bool {
        matches!(self, Damage::Format { .. } | Damage::Unsupported { .. })
    }
}

impl Error for Damage {}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Damage::Truncated { what, expected, found } => {
                write!(f, "the {what} takes {expected} bytes and only {found} are there")
            }
            Damage::Magic { what } => write!(f, "there is no {what} here"),
            Damage::Checksum { what, expected, found } => {
                write!(f, "the {what} states checksum {expected:016x}, its bytes give {found:016x}")
            }
            Damage::Format { expected, found } => {
                write!(f, "written in format {found}, while this version reads format {expected}")
            }
            Damage::Unsupported { what, found } => {
                write!(f, "this version does not know the {what} {found}")
            }
            Damage::Bounds { what, found, least, most } => {
                write!(f, "the {what} is {found}, which is not within {least} to {most}")
            }
            Damage::Mismatch { what, expected, found } => {
                write!(f, "the {what} is {found}, where the rest says {expected}")
            }
            Damage::Condition { expected, found } => {
                write!(f, "a write at version {found} whose condition was {expected}")
            }
            Damage::Padding { what } => write!(f, "the padding of the {what} is not zero"),
            Damage::Text { what } => write!(f, "the {what} is not UTF-8"),
            Damage::Foreign { expected, found } => {
                write!(f, "of store {:032x}, while this is store {:032x}", found.0, expected.0)
            }
            Damage::Misplaced { expected, found } => {
                write!(f, "written for position {found}, found at {expected}")
            }
            Damage::Stale { expected, found } => write!(
                f,
                "left from an earlier use of the segment (salt {found:016x}, now {expected:016x})"
            ),
        }
    }
}

/// Refuses a number outside its limits.
pub(super) fn within(what: &'static str, found: u64, least: u64, most: u64) -> Result<(), Damage> {
    if found < least || found > most {
        return Err(Damage::Bounds { what, found, least, most });
    }
    Ok(())
}

/// Refuses a number that is not what the rest says.
pub(super) fn matches(what: &'static str, found: u64, expected: u64) -> Result<(), Damage> {
    if found != expected {
        return Err(Damage::Mismatch { what, expected, found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_understands_it() {
        let shown = Damage::Misplaced {
            expected: Position::from_raw(1 << 32 | 512),
            found: Position::from_raw(3 << 32 | 4096),
        };
        assert_eq!(shown.to_string(), "written for position 3:4096, found at 1:512");
        let shown = within("key length", 2000, 1, 1024).unwrap_err();
        assert_eq!(shown.to_string(), "the key length is 2000, which is not within 1 to 1024");
    }
}
