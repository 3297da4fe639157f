//! One whole write as it is stored.

use std::fmt;

use crate::error::Error;
use crate::expect::Expect;
use crate::format::{Damage, PartView, RecordView, Role};
use crate::id::Position;
use crate::log::bytes::LogBytes;
use crate::log::catalogue::{Catalogue, Record};
use crate::read::damaged;
use crate::read::recorded::Recorded;

/// One write as it is stored: its parts with their conditions, versions and events. A snapshot is stored as a write of its
/// own, with one part.
#[derive(Clone)]
pub struct RecordedWrite {
    /// Verified and decoded from end to end when this was made.
    record: Record,
}

impl RecordedWrite {
    pub(super) fn new(catalogue: &Catalogue, record: Record) -> Result<RecordedWrite, Error> {
        if let Err(damage) = check(&record) {
            return Err(damaged(catalogue, &record, &damage));
        }
        Ok(RecordedWrite { record })
    }

    /// A write that was read and verified elsewhere, with a copy of its bytes; `None` if they are none.
    pub(crate) fn of_bytes(bytes: &[u8], position: Position) -> Option<RecordedWrite> {
        let shape = RecordView::parse_trusted(bytes).ok()?.shape();
        let record = Record::new(LogBytes::of_memory(bytes.into()), position, shape, false);
        check(&record).ok()?;
        Some(RecordedWrite { record })
    }

    /// Its position in the log of its shard.
    #[must_use]
    pub fn position(&self) -> Position {
        self.record.position()
    }

    /// When it was committed, in microseconds since 1970.
    #[must_use]
    pub fn commit_time(&self) -> i64 {
        self.view().time()
    }

    /// The client and its sequence, if the write carried them.
    #[must_use]
    pub fn client(&self) -> Option<(u128, u64)> {
        self.view().client()
    }

    /// Its parts, one for each aggregate and each checkpoint, in the order in which the caller gave them.
    pub fn parts(&self) -> impl Iterator<Item = RecordedPart<'_>> {
        let view = self.view();
        view.parts().map(move |part| RecordedPart { record: &self.record, view, part })
    }

    /// The version of one of its aggregates: after the write, or as a check has seen it. `None` if it neither appends to
    /// the aggregate nor checks it.
    #[must_use]
    pub fn version_of(&self, key: &[u8]) -> Option<u64> {
        self.view().find_part(key).map(|part| part.version)
    }

    fn view(&self) -> RecordView<'_> {
        self.record.view()
    }
}

fn check(record: &Record) -> Result<(), Damage> {
    let view = record.view();
    record.verify_events(&view)?;
    view.parts().flat_map(|part| view.events_in(&part)).try_for_each(|event| event.map(|_| ()))
}

impl fmt::Debug for RecordedWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedWrite")
            .field("position", &self.position())
            .field("client", &self.client())
            .field("parts", &self.parts().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// What a write did to one aggregate or checkpoint, or demanded of it.
#[derive(Clone, Copy)]
pub struct RecordedPart<'a> {
    record: &'a Record,
    view: RecordView<'a>,
    part: PartView<'a>,
}

impl<'a> RecordedPart<'a> {
    /// What the part is for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.part.role
    }

    /// The key of the aggregate, or the name of the checkpoint.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        self.part.key
    }

    /// Whether the part only demanded something, and appended nothing.
    #[must_use]
    pub fn is_check(&self) -> bool {
        self.part.role == Role::Check
    }

    /// From where to where the part moved its checkpoint; `None` if it is none.
    #[must_use]
    pub fn moved(&self) -> Option<(Position, Position)> {
        match (self.part.role, self.part.expect) {
            (Role::Checkpoint, Expect::Version(from)) => {
                Some((Position::from_raw(from), Position::from_raw(self.part.version)))
            }
            _ => None,
        }
    }

    /// What it demanded. Of a checkpoint, the number of the position where it stood; see [`moved`](Self::moved).
    #[must_use]
    pub fn expected(&self) -> Expect {
        self.part.expect
    }

    /// The version after the write, the one that a check has seen, or that a snapshot stands for. Of a checkpoint, the
    /// number of the position where it then stood; see [`moved`](Self::moved).
    #[must_use]
    pub fn version(&self) -> u64 {
        self.part.version
    }

    /// The events that it appended; none if it did something else.
    pub fn events(&self) -> impl Iterator<Item = Recorded> + use<'a> {
        let (record, view, mut part) = (self.record, self.view, self.part);
        if part.role != Role::Append {
            part.events = 0;
        }
        // They were decoded when the write was read, so none fails.
        view.events_in(&part)
            .flatten()
            .zip(0_u32..)
            .map(move |(event, index)| Recorded::new(record, &view, &part, index, &event))
    }
}

impl fmt::Debug for RecordedPart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.part.fmt(f)
    }
}
