//! A log writer without threads: flushes are written when the test says so, and synced when it says so.

use std::collections::HashMap;
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::Error;
use crate::event::Event;
use crate::expect::Expect;
use crate::format::{
    CHAIN_START, FLUSH_HEADER_BYTES, FlushHeader, Identity, Origin, RecordEncoder, Role,
    SyncChoice, chain, seal, set_links,
};
use crate::id::{FlushSequence, Position, ShardId, StoreId};
use crate::index::{Index, SlotKey};
use crate::log::prepare::{Prepared, Preparer};
use crate::recover::{Mode, Recovered, recover};
use crate::verify::{Verification, verify_on};

pub(crate) const BLOCK: u64 = 512;
pub(crate) const SHARD: ShardId = ShardId(0);

pub(crate) fn identity() -> Identity {
    Identity {
        store: StoreId(77),
        hash_key: 5,
        shards: 1,
        route: None,
        segment_bytes: 16 * BLOCK,
        block_bytes: BLOCK as u32,
        sync: SyncChoice::WriteDsync,
        generation: 1,
    }
}

/// Makes a disk with an identity file and a shard directory.
pub(crate) fn furnish(disk: &dyn Disk) {
    crate::identity_file::create_as(disk, &identity()).unwrap();
}

#[derive(Clone, Copy, Default)]
struct Placed {
    version: u64,
    last: Position,
    skip: Position,
}

/// Opens a shard and keeps the index.
pub(crate) fn open(disk: &dyn Disk, mode: Mode) -> Result<(Recovered, Index), Error> {
    let index = Index::new(identity().hash_key);
    let recovered = recover(disk, &identity(), SHARD, mode, &index)?;
    Ok((recovered, index))
}

pub(crate) fn verified(disk: &dyn Disk) -> Verification {
    verify_on(disk, &mut |_, _| {}).unwrap()
}

pub(crate) fn version(index: &Index, key: &[u8]) -> u64 {
    let key = SlotKey::Aggregate(key);
    index.find(index.hash(key), key).map_or(0, |slot| slot.version())
}

/// The key of the n-th write of every test log, counted from 0.
pub(crate) fn key(write: u64) -> Vec<u8> {
    format!("key-{}", write % 3).into_bytes()
}

/// A shard's log, open for writing.
pub(crate) struct Hand {
    pub(crate) preparer: Preparer,
    pub(crate) active: Option<Prepared>,
    next: Option<Prepared>,
    /// Where the next flush starts in the active segment.
    pub(crate) at: u32,
    sequence: u64,
    previous: u64,
    /// What the next flush states as its frontier.
    pub(crate) frontier: Position,
    end: Position,
    aggregates: HashMap<Vec<u8>, Placed>,
    /// Writes in the log, those in flight included.
    pub(crate) writes: u64,
}

impl Hand {
    pub(crate) fn open(disk: Arc<dyn Disk>) -> Result<Hand, Error> {
        let (found, index) = open(&*disk, Mode::Write)?;
        let mut aggregates = HashMap::new();
        for slot in index.iter() {
            let (version, last, skip) = (slot.version(), slot.last(), slot.skip());
            aggregates.insert(slot.key().to_vec(), Placed { version, last, skip });
        }
        Ok(Hand {
            preparer: Preparer::new(disk, &identity(), SHARD, found.start),
            active: None,
            next: None,
            at: 0,
            sequence: found.accepted.map_or(0, |end| end.sequence.0) + 1,
            previous: found.accepted.map_or(0, |end| end.checksum),
            frontier: found.end,
            end: found.end,
            aggregates,
            writes: found.records,
        })
    }

    /// Goes on in a new segment.
    pub(crate) fn roll(&mut self) -> Result<(), Error> {
        let prepared = match self.next.take() {
            Some(prepared) => prepared,
            None => self.preparer.prepare(BLOCK)?,
        };
        self.at = prepared.header_bytes;
        self.active = Some(prepared);
        Ok(())
    }

    /// Prepares the segment behind the active one.
    pub(crate) fn prepare_next(&mut self) -> Result<(), Error> {
        self.next = Some(self.preparer.prepare(BLOCK)?);
        Ok(())
    }

    /// Writes a flush of so many writes, and does not wait for it.
    pub(crate) fn start(&mut self, writes: u64) -> Result<(), Error> {
        if self.active.is_none() {
            self.roll()?;
        }
        let active = self.active.as_ref().unwrap();
        let origin =
            Origin { store: identity().store, shard: SHARD, segment: active.id, salt: active.salt };
        let mut bytes = vec![0; FLUSH_HEADER_BYTES];
        let mut chained = CHAIN_START;
        for _ in 0..writes {
            let key = key(self.writes);
            let position = Position::new(active.id, self.at + bytes.len() as u32);
            let placed = self.aggregates.entry(key.clone()).or_default();
            let mut encoder = RecordEncoder::new();
            encoder.begin_part(Role::Append, Expect::Version(placed.version), &key).unwrap();
            encoder.push_event(&Event::new("Happened", vec![b'x'; 40])).unwrap();
            encoder.finish(None).unwrap();
            placed.version += 1;
            encoder.set_version(0, placed.version);
            let mut head = encoder.head().to_vec();
            set_links(&mut head, 0, placed.last, placed.skip);
            placed.last = position;
            if placed.version.is_multiple_of(64) {
                placed.skip = position;
            }
            chained = chain(chained, seal(&mut head, 0, active.salt, position));
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(encoder.body());
            self.writes += 1;
        }
        let header = FlushHeader {
            origin,
            offset: self.at,
            sequence: FlushSequence(self.sequence),
            frontier: self.frontier,
            previous: self.previous,
            content_bytes: bytes.len() as u32,
            records: writes as u32,
            records_checksum: chained,
            time: 0,
        };
        self.previous = header.encode(&mut bytes);
        self.sequence += 1;
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        let at = self.at;
        self.at += bytes.len() as u32;
        assert!(u64::from(self.at) <= active.bytes, "the test writes too much into a segment");
        self.end = header.end_position(BLOCK as u32);
        active.file.write_at(at.into(), &bytes).map_err(|error| Error::io("writing", error))
    }

    /// Counts a version of the first aggregate that is in no record.
    pub(crate) fn skip_version(&mut self) {
        self.aggregates.get_mut(&key(0)).unwrap().version += 1;
    }

    /// Makes the next flush follow one that there never was.
    pub(crate) fn break_chain(&mut self) {
        self.previous ^= 1;
    }

    /// Starts a flush of which nothing arrives.
    pub(crate) fn start_lost(&mut self, writes: u64) {
        let at = self.at;
        self.start(writes).unwrap();
        let active = self.active.as_ref().unwrap();
        active.file.write_at(at.into(), &vec![0; (self.at - at) as usize]).unwrap();
    }

    /// Waits for what was started: it is acknowledged then.
    pub(crate) fn publish(&mut self) -> Result<(), Error> {
        let active = self.active.as_ref().unwrap();
        active.file.sync().map_err(|error| Error::io("syncing", error))?;
        self.frontier = self.end;
        Ok(())
    }

    /// A flush that is durable.
    pub(crate) fn flush(&mut self, writes: u64) -> Result<(), Error> {
        self.start(writes)?;
        self.publish()
    }

    /// States the frontier and closes.
    pub(crate) fn close(mut self) -> Result<(), Error> {
        if self.active.is_some() {
            self.flush(0)?;
        }
        let active = self.active.take();
        let active = active.as_ref().map(|active| (&*active.file, u64::from(self.at)));
        self.preparer.finish(active, self.next.take())
    }
}

/// Opens, writes one flush for each number given, closes.
pub(crate) fn life(disk: &Arc<dyn Disk>, flushes: &[u64]) {
    let mut hand = Hand::open(Arc::clone(disk)).unwrap();
    for writes in flushes {
        hand.flush(*writes).unwrap();
    }
    hand.close().unwrap();
}

/// As `life`, with each flush in a segment of its own.
pub(crate) fn life_in_segments(disk: &Arc<dyn Disk>, flushes: &[u64]) {
    let mut hand = Hand::open(Arc::clone(disk)).unwrap();
    for writes in flushes {
        hand.roll().unwrap();
        hand.flush(*writes).unwrap();
    }
    hand.close().unwrap();
}

/// Every aggregate is at the version that so many writes give it.
pub(crate) fn check_versions(index: &Index, writes: u64) {
    for nth in 0..3 {
        let expected = (0..writes).filter(|write| write % 3 == nth).count() as u64;
        assert_eq!(version(index, &key(nth)), expected, "after {writes} writes");
    }
}
