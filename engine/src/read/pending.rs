//! What an accepted read adds to a durable one: writes that are decided and on their way to the disk.

use std::collections::VecDeque;
use std::fmt::Debug;

use crate::error::{Error, ErrorKind};
use crate::format::RecordView;
use crate::id::Position;
use crate::log::bytes::LogBytes;
use crate::log::catalogue::Record;
use crate::read::chain::Chain;
use crate::reserve::slot_ref::SlotRef;

/// Who knows what is decided and not yet durable: the side of a shard that takes writes.
pub trait Decided: Debug + Send + Sync {
    /// The writes that bring a slot to versions above this one and are not yet published. A shard that failed says so
    /// instead: they never become durable.
    fn decided(&self, slot: SlotRef, above: u64) -> Result<Pending, Error>;
}

/// One look at an aggregate beyond what is durable.
#[derive(Debug)]
pub struct Pending {
    /// The version that was published.
    pub published: u64,
    /// The version before the oldest of the records: the published one, or the one they were asked for above.
    pub below: u64,
    /// Nothing was pending, and the published version is below the watermark.
    pub quiet: bool,
    /// The records of the versions above it, newest first.
    pub records: Vec<Record>,
}

impl Pending {
    /// The version that is accepted.
    pub(super) fn accepted(&self) -> u64 {
        self.below + self.records.len() as u64
    }

    /// The records with their versions, oldest first.
    pub(super) fn versions(self, chain: &Chain) -> Result<VecDeque<(u64, Record)>, Error> {
        let mut expected = self.below;
        let mut versions = VecDeque::with_capacity(self.records.len());
        for record in self.records.into_iter().rev() {
            expected += 1;
            let version = chain.part(&record.view()).map(|part| part.version);
            if version != Some(expected) {
                return Err(Error::new(
                    ErrorKind::Stopped,
                    format!(
                        "an accepted write has version {version:?}, where {expected} should be: open the store again"
                    ),
                ));
            }
            versions.push_back((expected, record));
        }
        Ok(versions)
    }
}

/// A record that has no place in the log yet, in memory of its own.
pub fn unplaced(head: &[u8], body: &[u8]) -> Result<Record, Error> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(head.len() + body.len())
        .map_err(|_| Error::out_of_memory("a read of accepted writes"))?;
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(body);
    let bytes = LogBytes::of_memory(bytes.into());
    let shape = match RecordView::parse_again(&bytes) {
        Ok(view) => view.shape(),
        Err(damage) => return Err(Error::invalid(format!("a write was not encoded: {damage}"))),
    };
    Ok(Record::new(bytes, Position::START, shape, true))
}
