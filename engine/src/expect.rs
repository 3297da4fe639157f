//! The condition of a write on one aggregate.

use std::fmt;

/// What a write demands of an aggregate at the moment it takes effect.
///
/// ```
/// use annals::Expect;
///
/// assert_eq!(Expect::from(4), Expect::Version(4));
/// assert_eq!(Expect::Version(4).to_string(), "version 4");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Expect {
    /// Nothing: append, or create.
    Any,
    /// The aggregate exists, at whatever version: append, never create.
    Exists,
    /// The aggregate does not exist: create only. The same as `Version(0)`.
    Absent,
    /// The aggregate is at exactly this version. 0 means that it does not exist.
    Version(u64),
}

impl Expect {
    /// Whether an aggregate at this version satisfies the condition.
    pub(crate) const fn holds(self, version: u64) -> bool {
        match self {
            Expect::Any => true,
            Expect::Exists => version > 0,
            Expect::Absent => version == 0,
            Expect::Version(expected) => version == expected,
        }
    }
}

impl From<u64> for Expect {
    fn from(version: u64) -> Expect {
        Expect::Version(version)
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expect::Any => f.write_str("any version"),
            Expect::Exists => f.write_str("that it exists"),
            Expect::Absent => f.write_str("that it does not exist"),
            Expect::Version(version) => write!(f, "version {version}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Expect;

    #[test]
    fn conditions_hold_where_they_should() {
        for (expect, at_zero, at_one, at_two) in [
            (Expect::Any, true, true, true),
            (Expect::Exists, false, true, true),
            (Expect::Absent, true, false, false),
            (Expect::Version(0), true, false, false),
            (Expect::Version(1), false, true, false),
        ] {
            assert_eq!([0, 1, 2].map(|v| expect.holds(v)), [at_zero, at_one, at_two], "{expect}");
        }
    }
}
