//! The numbers that name things, each a type of its own.

use std::fmt;

/// Where a write was first recorded in the log of its shard.
///
/// Positions of one shard are ordered as its log is, and can be stored as the number that [`Position::get`]
/// returns. Positions of different shards can't be compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(u64);

impl Position {
    /// Before every record.
    pub const START: Position = Position(0);

    /// The position as one ordered number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position that [`Position::get`] returned this number for.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Position {
        Position(raw)
    }

    pub(crate) const fn new(segment: SegmentId, offset: u32) -> Position {
        Position((segment.0 as u64) << 32 | offset as u64)
    }

    pub(crate) const fn segment(self) -> SegmentId {
        SegmentId((self.0 >> 32) as u32)
    }

    pub(crate) const fn offset(self) -> u32 {
        self.0 as u32
    }

    /// Whether this is no record's position: what `prev` says in the record of version 1.
    pub(crate) const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 32, self.0 as u32)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// A segment of one shard. Ids start at 1 and only grow.
    SegmentId(u32)
}
number! {
    /// A flush of one shard. Sequences start at 1, rise by one, and go on across segments and openings.
    FlushSequence(u64)
}
number! {
    /// A shard of a store, counted from 0.
    ShardId(u16)
}
number! {
    /// Random, drawn when a store is created; in every header, so that no file of another store is taken for one
    /// of ours.
    StoreId(u128)
}
