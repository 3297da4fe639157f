//! Fills the index from the log: what the slots say after an opening is what they said before.

use super::walk::{Objection, Visit};
use crate::error::Error;
use crate::format::{RecordView, Role};
use crate::id::Position;
use crate::index::{Index, SlotKey};
use crate::reserve::slot::client_version;
use crate::reserve::slot_ref::SlotRef;

/// Replays records into an index that nobody else uses yet. The ticks of the slots stay 0: they count operations of
/// one opening.
#[derive(Debug)]
pub(super) struct Replay<'a> {
    index: &'a Index,
    pub(super) records: u64,
    pub(super) events: u64,
}

impl<'a> Replay<'a> {
    pub(super) fn new(index: &'a Index) -> Replay<'a> {
        Replay { index, records: 0, events: 0 }
    }

    fn slot(&self, key: SlotKey<'_>) -> Result<SlotRef, Objection> {
        self.index
            .insert(self.index.hash(key), key)
            .map(|(slot, _)| slot)
            .map_err(|_| Objection::Failed(Error::out_of_memory("the index")))
    }
}

impl Visit for Replay<'_> {
    fn record(&mut self, record: &RecordView<'_>, at: Position) -> Result<(), Objection> {
        self.records += 1;
        self.events += u64::from(record.events());
        let mut jumped = Ok(());
        for part in record.parts() {
            if part.role == Role::Check {
                continue;
            }
            if let Some((client, sequence)) = record.client()
                && let Some(version) = client_version(sequence)
            {
                self.slot(SlotKey::Client(client, part.key))?.publish_version(version, at);
            }
            let slot = self.slot(SlotKey::Aggregate(part.key))?;
            let before = slot.version();
            if Some(part.version) != before.checked_add(1) {
                let what = format!("version {} follows version {before}", part.version);
                jumped = Err(Objection::Damage { key: Some(part.key.to_vec()), what });
            }
            slot.place_version(part.version, at);
            slot.publish_version(part.version, at);
        }
        jumped
    }
}
