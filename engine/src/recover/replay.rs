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
        let hash = self.index.hash(key);
        if let Some(slot) = self.index.find(hash, key) {
            return Ok(slot);
        }
        self.index
            .insert(hash, key)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::expect::Expect;
    use crate::format::RecordEncoder;
    use crate::id::SegmentId;

    #[test]
    fn slots_stand_as_the_log_left_them() {
        let index = Index::new(3);
        let mut replay = Replay::new(&index);
        let at = |nth: u64| Position::new(SegmentId(1), nth as u32 * 8);
        for version in 1..=130 {
            let mut encoder = RecordEncoder::new();
            encoder.begin_part(Role::Append, Expect::Any, b"a").unwrap();
            encoder.push_event(&Event::new("Happened", "x")).unwrap();
            encoder.begin_part(Role::Check, Expect::Absent, b"b").unwrap();
            encoder.finish(Some((9, version + 1000))).unwrap();
            encoder.set_version(0, version);
            let bytes = [encoder.head(), encoder.body()].concat();
            replay.record(&RecordView::parse_trusted(&bytes).unwrap(), at(version)).unwrap();
        }
        assert_eq!((replay.records, replay.events), (130, 130));
        let find = |key: SlotKey<'_>| index.find(index.hash(key), key);
        let slot = find(SlotKey::Aggregate(b"a")).unwrap();
        assert_eq!((slot.version(), slot.head()), (130, at(130)));
        assert_eq!((slot.last(), slot.skip()), (at(130), at(128)));
        let client = find(SlotKey::Client(9, b"a")).unwrap();
        assert_eq!(Some(client.version()), client_version(1130));
        assert_eq!(client.head(), at(130));
        // What was only checked leaves no trace.
        assert!(find(SlotKey::Aggregate(b"b")).is_none());
        assert!(find(SlotKey::Client(9, b"b")).is_none());
        assert_eq!(index.len(), 2);
    }
}
