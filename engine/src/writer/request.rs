//! What a caller hands to the log writer, and what it gets back.

use smallvec::SmallVec;
use triomphe::Arc;

use crate::error::Error;
use crate::expect::Expect;
use crate::format::{Buffer, EncodeError, RecordEncoder, Role};
use crate::id::Position;
use crate::index::SlotKey;
use crate::limits::AGGREGATES_PER_WRITE_MAX;
use crate::reserve::cell::Cell;
use crate::reserve::decide::Look;
use crate::reserve::slot_ref::SlotRef;
use crate::reserve::write::Write;
pub(crate) use crate::sync::permits::Taken;

/// A write as the log writer takes it off the stack.
pub(crate) type Request = Write<Payload>;

/// What a ticket waits on.
pub(crate) type TicketCell = Cell<Asked, Result<Done, Box<Error>>>;

/// What the log writer needs to know of a write beyond its entries.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) kind: Kind,
    /// The record, all but what the log writer fills in.
    pub(crate) record: RecordEncoder,
    pub(crate) cell: Arc<TicketCell>,
    /// What the submitter took from the permits.
    pub(crate) permits: Taken,
    /// The submitter's own notes.
    pub(crate) plan: Plan,
}

impl Payload {
    /// Takes over what another attempt of the same write was to do.
    pub(crate) fn copy_from(&mut self, other: &Payload) -> Result<(), EncodeError> {
        self.kind = other.kind;
        self.record.copy_from(&other.record)?;
        self.plan.copy_from(&other.plan)
    }
}

/// What a write asks of each aggregate and checkpoint, as its submitter notes it.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    keys: Buffer<36>,
    pub(crate) parts: SmallVec<[PlannedPart; 1]>,
}

/// What a write asks of one aggregate or checkpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedPart {
    key_start: u32,
    key_end: u32,
    /// That of the slot's key.
    pub(crate) hash: u64,
    pub(crate) expect: Expect,
    pub(crate) role: Role,
    /// Where a checkpoint is moved to, what a snapshot stands for; other versions are those of each attempt.
    pub(crate) stated: u64,
    /// The slot that it changes or checks, once there is one.
    pub(crate) slot: Option<SlotRef>,
    /// What it was at.
    pub(crate) seen: Look,
    /// The slot of the write's client on it, once there is one: clients are kept for what is appended to.
    pub(crate) client: Option<SlotRef>,
    /// What that was at.
    pub(crate) client_seen: Look,
}

impl PlannedPart {
    pub(crate) fn appends(&self) -> bool {
        self.role == Role::Append
    }

    pub(crate) fn checks(&self) -> bool {
        self.role == Role::Check
    }
}

impl Plan {
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.parts.clear();
    }

    pub(crate) fn push(
        &mut self,
        key: &[u8],
        hash: u64,
        expect: Expect,
        role: Role,
        stated: u64,
    ) -> Result<(), EncodeError> {
        let key_start = self.keys.len() as u32;
        self.keys.push(key)?;
        let key_end = self.keys.len() as u32;
        self.parts.push(PlannedPart {
            key_start,
            key_end,
            hash,
            expect,
            role,
            stated,
            slot: None,
            seen: Look::NOTHING,
            client: None,
            client_seen: Look::NOTHING,
        });
        Ok(())
    }

    pub(crate) fn key(&self, part: &PlannedPart) -> &[u8] {
        let keys = self.keys.as_slice();
        keys.get(part.key_start as usize..part.key_end as usize).unwrap_or_default()
    }

    /// What its slot is looked up by.
    pub(crate) fn slot_key(&self, part: &PlannedPart) -> SlotKey<'_> {
        let key = self.key(part);
        match part.role {
            Role::Append | Role::Check => SlotKey::Aggregate(key),
            Role::Checkpoint => SlotKey::Checkpoint(key),
            Role::Snapshot => SlotKey::Snapshot(key),
        }
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| self.key(part))
    }

    pub(crate) fn copy_from(&mut self, other: &Plan) -> Result<(), EncodeError> {
        self.clear();
        self.keys.push(other.keys.as_slice())?;
        self.parts.extend_from_slice(&other.parts);
        Ok(())
    }
}

/// What the log writer does with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Places its record.
    Record,
    /// It only checks, or only waits: it is settled when everything before it is durable.
    Watch,
}

impl Taken {
    /// What a request without a record takes: about its own memory.
    pub(crate) const WATCH: Taken = Taken { bytes: 512, blocks: 0 };
}

/// The result of a write that is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Done {
    /// Where its record is; none if it only checked.
    pub(crate) position: Position,
    /// When it was committed.
    pub(crate) time: i64,
}

/// What the submitter wrote into the cell: the versions of the aggregates of a write when it has taken effect, those
/// that it appends to first, then those that it only checks.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    keys: Buffer<28>,
    /// Where each key ends, and the version.
    ends: SmallVec<[(u32, u64); 1]>,
    appended: u16,
    /// The group that wakes it.
    pub(crate) group: u8,
}

impl Asked {
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.ends.clear();
        self.appended = 0;
    }

    pub(crate) fn push_appended(&mut self, key: &[u8], version: u64) -> Result<(), EncodeError> {
        debug_assert_eq!(usize::from(self.appended), self.ends.len());
        self.appended += 1;
        self.push(key, version)
    }

    pub(crate) fn push_checked(&mut self, key: &[u8], version: u64) -> Result<(), EncodeError> {
        self.push(key, version)
    }

    fn push(&mut self, key: &[u8], version: u64) -> Result<(), EncodeError> {
        self.keys.push(key)?;
        self.ends.push((self.keys.len() as u32, version));
        Ok(())
    }

    /// All of them.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let mut from = 0;
        self.ends.iter().map(move |&(end, version)| {
            let key = self.keys.as_slice().get(from..end as usize).unwrap_or_default();
            from = end as usize;
            (key, version)
        })
    }

    /// The version of the first aggregate that is appended to; 0 if there is none.
    pub(crate) fn first(&self) -> u64 {
        if self.appended == 0 { 0 } else { self.ends.first().map_or(0, |&(_, version)| version) }
    }
}

/// What an entry stands for: its tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tag {
    /// The part with this index appends to the slot's aggregate.
    Append(u32),
    /// The part with this index moves the slot's checkpoint.
    Checkpoint(u32),
    /// The part with this index is a snapshot of the slot's aggregate.
    Snapshot(u32),
    /// A part checks the slot's aggregate.
    Check,
    /// The write sets the slot of a client to its sequence.
    Client,
}

impl Tag {
    // What a part does stands above its index, which is below the most parts of a write.
    const CHECKPOINT: u32 = 1 << 16;
    const SNAPSHOT: u32 = 2 << 16;
    const CHECK: u32 = 3 << 16;
    const CLIENT: u32 = 4 << 16;
    const PART: u32 = (1 << 16) - 1;

    pub(crate) const fn encode(self) -> u32 {
        match self {
            Tag::Append(part) => part,
            Tag::Checkpoint(part) => Self::CHECKPOINT | part,
            Tag::Snapshot(part) => Self::SNAPSHOT | part,
            Tag::Check => Self::CHECK,
            Tag::Client => Self::CLIENT,
        }
    }

    pub(crate) const fn decode(tag: u32) -> Tag {
        let part = tag & Self::PART;
        match tag & !Self::PART {
            Self::CHECKPOINT => Tag::Checkpoint(part),
            Self::SNAPSHOT => Tag::Snapshot(part),
            Self::CHECK => Tag::Check,
            Self::CLIENT => Tag::Client,
            _ => Tag::Append(part),
        }
    }
}

const _: () = assert!(AGGREGATES_PER_WRITE_MAX <= Tag::PART as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_back_by_key() {
        let mut versions = Asked::default();
        versions.push_checked(b"seen", 9).unwrap();
        assert_eq!(versions.first(), 0);
        versions.clear();
        versions.push_appended(b"a", 3).unwrap();
        versions.push_checked(b"long key", 1).unwrap();
        assert_eq!(
            versions.versions().collect::<Vec<_>>(),
            [(b"a".as_slice(), 3), (b"long key".as_slice(), 1)]
        );
        assert_eq!(versions.first(), 3);
    }

    #[test]
    fn tags_come_back() {
        let parts = [Tag::Append, Tag::Checkpoint, Tag::Snapshot];
        let parts = parts.iter().flat_map(|tag| [tag(0), tag(255)]);
        for tag in parts.chain([Tag::Check, Tag::Client]) {
            assert_eq!(Tag::decode(tag.encode()), tag);
        }
    }
}
