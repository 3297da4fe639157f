//! The newest record of a checkpoint, or of an aggregate's snapshots, below a watermark.
//!
//! Their slots name the newest record, as an aggregate's does, just before the watermark passes it. A reader that comes in
//! between goes back by `prev` to what its watermark covers.

use std::sync::Arc;

use crate::error::Error;
use crate::format::Role;
use crate::id::Position;
use crate::log::catalogue::{Catalogue, Record};

/// What was found.
#[derive(Debug)]
pub(super) struct Newest {
    /// The position of the checkpoint, as a number, or the version that the snapshot stands for.
    pub(super) version: u64,
    /// Which part of the record says so.
    pub(super) part: usize,
    pub(super) record: Record,
}

/// `watermark` was taken before `head` was read from the slot.
pub(super) fn newest(
    catalogue: &Arc<Catalogue>,
    role: Role,
    key: &[u8],
    head: Position,
    watermark: Position,
) -> Result<Option<Newest>, Error> {
    let named = |error: Error| error.with_keys([key]);
    let mut at = head;
    while !at.is_none() {
        let record = catalogue.published(at).map_err(named)?;
        let Some(part) = record.view().find_role(role, key) else {
            let what = "the record has no such checkpoint or snapshot as should be here";
            return Err(named(catalogue.corrupt(at, what)));
        };
        let (version, index, prev) = (part.version, part.index, part.prev);
        if at < watermark {
            return Ok(Some(Newest { version, part: index, record }));
        }
        at = prev;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::disk::sim::{Op, SimDisk};
    use crate::error::ErrorKind;
    use crate::expect::Expect;
    use crate::format::Role;
    use crate::id::Position;
    use crate::index::{Index, SlotKey};
    use crate::log::fixture::{Log, Shape};
    use crate::read::ReadSide;
    use crate::read::tests::side;

    /// A log with a checkpoint and with snapshots, each named `k`, that are added in turn.
    struct Shard {
        log: Log,
        disk: Arc<SimDisk>,
        index: Arc<Index>,
        moved: (u64, Position),
        saved: (u64, Position),
    }

    impl Shard {
        fn new() -> Shard {
            let (log, disk) = Log::sim(Shape::default());
            let none = (0, Position::START);
            Shard { log, disk, index: Arc::new(Index::new(3)), moved: none, saved: none }
        }

        /// Adds one of both and publishes their slots; not what the watermark says.
        fn add(&mut self) {
            let (from, prev) = self.moved;
            let part = (Role::Checkpoint, Expect::Version(from), &b"k"[..]);
            self.moved = (from + 100, self.log.mark(part, from + 100, None, prev));
            let (version, prev) = self.saved;
            let bytes = format!("state {}", version + 1);
            let part = (Role::Snapshot, Expect::Any, &b"k"[..]);
            let at = self.log.mark(part, version + 1, Some(bytes.as_bytes()), prev);
            self.saved = (version + 1, at);
            self.log.flush();
            let publish = |key: SlotKey<'_>, (version, head)| {
                let (slot, _) = self.index.insert(self.index.hash(key), key).unwrap();
                slot.publish_version(version, head);
            };
            publish(SlotKey::Checkpoint(b"k"), self.moved);
            publish(SlotKey::Snapshot(b"k"), self.saved);
        }

        /// From memory, through maps, from files.
        fn sides(&self) -> [Arc<ReadSide>; 3] {
            let sides = [
                Arc::clone(&self.log.catalogue),
                self.log.reopened(true),
                self.log.reopened(false),
            ];
            sides.map(|catalogue| side(catalogue, Arc::clone(&self.index)))
        }
    }

    #[test]
    fn the_newest_below_the_watermark_is_shown() {
        let mut shard = Shard::new();
        for side in shard.sides() {
            assert_eq!(side.checkpoint(b"k").unwrap(), Position::START);
            assert!(side.snapshot(b"k").unwrap().is_none());
        }
        for (below, above) in [(0, 1), (0, 3), (2, 1), (1, 5)] {
            for _ in 0..below {
                shard.add();
            }
            shard.log.publish();
            let (moved, saved) = (shard.moved, shard.saved);
            for _ in 0..above {
                shard.add();
            }
            let side = side(Arc::clone(&shard.log.catalogue), Arc::clone(&shard.index));
            assert_eq!(side.checkpoint(b"k").unwrap().get(), moved.0);
            let snapshot = side.snapshot(b"k").unwrap();
            let seen = snapshot.map_or((0, Position::START), |s| (s.version(), s.position()));
            assert_eq!(seen, saved);

            shard.log.publish();
            for side in shard.sides() {
                assert_eq!(side.checkpoint(b"k").unwrap().get(), shard.moved.0);
                let snapshot = side.snapshot(b"k").unwrap().unwrap();
                assert_eq!((snapshot.version(), snapshot.position()), shard.saved);
                assert_eq!(snapshot.bytes(), format!("state {}", shard.saved.0).as_bytes());
                assert_eq!(side.version(b"k").unwrap(), 0);
                assert_eq!(side.log().count(), 0);
            }
        }
    }

    #[test]
    fn damage_names_the_key() {
        let mut shard = Shard::new();
        shard.add();
        shard.log.publish();
        let path = Log::path_of(shard.saved.1);
        shard.disk.flip(&path, u64::from(shard.saved.1.offset()) + 120 + 30).unwrap();
        for side in &shard.sides()[1..] {
            let error = side.snapshot(b"k").unwrap_err();
            assert_eq!((error.kind(), error.key()), (ErrorKind::Corrupt, Some(&b"k"[..])));
            assert_eq!(side.checkpoint(b"k").unwrap().get(), 100);
        }
        // A slot that leads to another record.
        let key = SlotKey::Checkpoint(b"k");
        let slot = shard.index.find(shard.index.hash(key), key).unwrap();
        slot.publish_version(100, shard.saved.1);
        for side in shard.sides() {
            let error = side.checkpoint(b"k").unwrap_err();
            assert_eq!((error.kind(), error.key()), (ErrorKind::Corrupt, Some(&b"k"[..])));
        }
        assert_eq!(shard.disk.count(Op::Create), 1, "all of it is in one segment");
    }
}
