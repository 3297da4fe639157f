//! Fills the index from the log: what the slots say after an opening is what they said before.

use super::walk::{Objection, Visit};
use crate::error::Error;
use crate::expect::Expect;
use crate::format::{PartView, RecordView, Role};
use crate::id::Position;
use crate::index::{Index, SlotKey};
use crate::key::Shown;
use crate::reserve::slot::client_version;
use crate::reserve::slot_ref::SlotRef;
use crate::sync::broken;

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

    /// Moves a checkpoint, wherever it stood. The inner error says that it was not where the record says.
    fn checkpoint(
        &self,
        part: &PartView<'_>,
        at: Position,
    ) -> Result<Result<(), Objection>, Objection> {
        let slot = self.slot(SlotKey::Checkpoint(part.key))?;
        let before = slot.version();
        place(slot, part.version, at);
        if part.expect == Expect::Version(before) {
            return Ok(Ok(()));
        }
        let (stood, to) = (Position::from_raw(before), Position::from_raw(part.version));
        let name = Shown(part.key);
        let what =
            format!("checkpoint {name} stood at {stood} and is moved to {to} from elsewhere");
        Ok(Err(Objection::Damage { key: None, what }))
    }
}

impl Visit for Replay<'_> {
    fn record(&mut self, record: &RecordView<'_>, at: Position) -> Result<(), Objection> {
        self.records += 1;
        self.events += u64::from(record.events());
        let mut jumped = Ok(());
        let most = if broken!(RecoversHalf) { 1 } else { usize::MAX };
        for part in record.parts().take(most) {
            match part.role {
                Role::Append => {}
                Role::Check => continue,
                Role::Checkpoint if broken!(ForgetsCheckpoints) => continue,
                Role::Checkpoint => {
                    let moved = self.checkpoint(&part, at)?;
                    jumped = jumped.and(moved);
                    continue;
                }
                Role::Snapshot => {
                    let slot = self.slot(SlotKey::Snapshot(part.key))?;
                    place(slot, slot.version().saturating_add(1), at);
                    continue;
                }
            }
            if let Some((client, sequence)) = record.client()
                && !broken!(ForgetsClients)
                && let Some(version) = client_version(sequence)
            {
                self.slot(SlotKey::Client(client, part.key))?.publish_version(version, at);
            }
            let slot = self.slot(SlotKey::Aggregate(part.key))?;
            let before = slot.version();
            if Some(part.version) != before.checked_add(1) {
                let what = format!("version {} follows version {before}", part.version);
                jumped = jumped.and(Err(Objection::Damage { key: Some(part.key.to_vec()), what }));
            }
            place(slot, part.version, at);
        }
        jumped
    }
}

fn place(slot: SlotRef, version: u64, at: Position) {
    slot.place_version(version, at);
    slot.publish_version(version, at);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::expect::Expect;
    use crate::format::RecordEncoder;
    use crate::id::SegmentId;

    /// A record of one part, with an event if it takes one.
    fn one(role: Role, expect: Expect, key: &[u8], version: u64) -> Vec<u8> {
        let mut encoder = RecordEncoder::new();
        encoder.begin_part(role, expect, key).unwrap();
        if matches!(role, Role::Append | Role::Snapshot) {
            encoder.push_event(&Event::new("Happened", "x")).unwrap();
        }
        encoder.finish(None).unwrap();
        encoder.set_version(0, version);
        [encoder.head(), encoder.body()].concat()
    }

    #[test]
    fn checkpoints_and_snapshots_have_slots_of_their_own() {
        let index = Index::new(3);
        let mut replay = Replay::new(&index);
        let at = |nth: u64| Position::new(SegmentId(1), nth as u32 * 8);
        for (nth, record) in (1..).zip([
            one(Role::Checkpoint, Expect::Version(0), b"k", 500),
            one(Role::Append, Expect::Absent, b"k", 1),
            one(Role::Snapshot, Expect::Any, b"k", 1),
            one(Role::Checkpoint, Expect::Version(500), b"k", 700),
            one(Role::Snapshot, Expect::Any, b"k", 1),
        ]) {
            replay.record(&RecordView::parse_trusted(&record).unwrap(), at(nth)).unwrap();
        }
        assert_eq!((replay.records, replay.events), (5, 1));
        let stands = |key: SlotKey<'_>| {
            let slot = index.find(index.hash(key), key).unwrap();
            (slot.version(), slot.head(), slot.last())
        };
        assert_eq!(stands(SlotKey::Aggregate(b"k")), (1, at(2), at(2)));
        assert_eq!(stands(SlotKey::Checkpoint(b"k")), (700, at(4), at(4)));
        assert_eq!(stands(SlotKey::Snapshot(b"k")), (2, at(5), at(5)));
        assert_eq!(index.len(), 3);

        let jump = one(Role::Checkpoint, Expect::Version(600), b"k", 900);
        let objection = replay.record(&RecordView::parse_trusted(&jump).unwrap(), at(6));
        let Err(Objection::Damage { what, .. }) = objection else { panic!("{objection:?}") };
        assert!(what.contains("checkpoint \"k\" stood at 0:700"), "{what}");
        assert_eq!(stands(SlotKey::Checkpoint(b"k")).0, 900);
    }

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
