//! What an accepted read adds to a durable one: writes that are decided and on their way to the disk.
//!
//! Their records are copied out of the requests. One who folds them as they come, execution after execution, uses the
//! memory of the last one again.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt::Debug;

use smallvec::SmallVec;

use crate::error::{Error, ErrorKind};
use crate::format::RecordView;
use crate::id::Position;
use crate::log::bytes::{LogBytes, Memory};
use crate::log::catalogue::Record;
use crate::read::fold::append_part;
use crate::reserve::slot_ref::SlotRef;

/// Memory of this size is used again.
const SPARE_BYTES: usize = 2 << 10;

thread_local! {
    static SPARE: Cell<Option<Memory>> = const { Cell::new(None) };
}

/// Who knows what is decided and not yet durable: the side of a shard that takes writes.
pub trait Decided: Debug + Send + Sync {
    /// The writes that bring a slot to versions above this one and are not yet published. A shard that failed says so
    /// instead: they never become durable.
    fn decided(&self, slot: SlotRef, above: u64) -> Result<Pending, Error>;
}

/// Records of accepted writes.
pub type Records = SmallVec<[Record; 1]>;

/// One look at an aggregate beyond what is durable.
#[derive(Debug)]
pub struct Pending {
    /// The version that was published.
    pub published: u64,
    /// The version before the oldest of the records: the published one, or the one they were asked for above.
    pub below: u64,
    /// Nothing was pending, and the published version is below the watermark.
    pub quiet: bool,
    /// The records of the versions from there on, newest first.
    pub records: Records,
}

impl Pending {
    /// Nothing is pending above this version.
    pub fn nothing(published: u64) -> Pending {
        Pending { published, below: published, quiet: true, records: Records::new() }
    }

    /// The records with their versions, oldest first.
    pub(super) fn versions(self, key: &[u8]) -> Result<VecDeque<(u64, Record)>, Error> {
        let mut version = self.below;
        let mut versions = VecDeque::with_capacity(self.records.len());
        for record in self.records.into_iter().rev() {
            version += 1;
            if append_part(&record, key).map(|part| part.version) != Some(version) {
                return Err(misplaced(version));
            }
            versions.push_back((version, record));
        }
        Ok(versions)
    }
}

/// The invariants exclude it: see [`crate::reserve::accepted`].
#[cold]
pub(super) fn misplaced(version: u64) -> Error {
    Error::new(
        ErrorKind::Stopped,
        format!(
            "no accepted write has version {version}, where one should be: open the store again"
        ),
    )
}

/// A record that has no place in the log yet, in memory of its own.
pub fn unplaced(head: &[u8], body: &[u8]) -> Result<Record, Error> {
    let length = head.len() + body.len();
    let spare = match length <= SPARE_BYTES {
        true => SPARE.try_with(Cell::take).ok().flatten(),
        false => None,
    };
    let mut memory = match spare {
        Some(spare) => spare,
        None => Memory::new(length.max(SPARE_BYTES))
            .ok_or_else(|| Error::out_of_memory("a read of accepted writes"))?,
    };
    if let Some((place, _)) = memory.get_mut().and_then(|all| all.split_at_mut_checked(length)) {
        let (place_head, place_body) = place.split_at_mut(head.len());
        place_head.copy_from_slice(head);
        place_body.copy_from_slice(body);
    }
    let bytes = LogBytes::of_shared(memory, length);
    let shape = match RecordView::parse_again(&bytes) {
        Ok(view) => view.shape(),
        Err(damage) => return Err(Error::invalid(format!("a write was not encoded: {damage}"))),
    };
    Ok(Record::new(bytes, Position::START, shape, true))
}

/// Takes the memory of a record back, unless somebody has kept it.
pub(super) fn recycle(bytes: LogBytes) {
    if let Some(mut memory) = bytes.into_memory()
        && memory.get_mut().is_some_and(|all| all.len() == SPARE_BYTES)
    {
        let _torn_down = SPARE.try_with(|spare| spare.set(Some(memory)));
    }
}
