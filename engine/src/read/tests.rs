//! Reads of logs that are built by hand, from the tail image, from maps and from files.

use std::sync::Arc;

use crate::disk::sim::{Op, SimDisk};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::expect::Expect;
use crate::id::Position;
use crate::index::{Index, SlotKey};
use crate::log::catalogue::Catalogue;
use crate::log::fixture::{Log, Part, Placed, Shape};
use crate::read::{Decided, LogRead, Pending, Read, ReadSide, Recorded};
use crate::reserve::slot_ref::SlotRef;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread;

/// A log with slots beside it.
struct Shard {
    log: Log,
    disk: Arc<SimDisk>,
    index: Arc<Index>,
    side: Arc<ReadSide>,
}

impl Shard {
    fn new(shape: Shape) -> Shard {
        let (log, disk) = Log::sim(shape);
        let index = Arc::new(Index::new(3));
        let side = side(Arc::clone(&log.catalogue), Arc::clone(&index));
        Shard { log, disk, index, side }
    }

    fn publish(&mut self) {
        let index = &self.index;
        self.log.publish_with(|key, placed| set_head(index, key, placed));
    }

    /// Publishes the slots of what is durable, and lets the watermark be where it is.
    fn publish_slots_alone(&mut self) {
        self.log.flush();
        for (key, placed) in &self.log.aggregates {
            set_head(&self.index, key, *placed);
        }
    }

    /// The three ways to read what is published: from memory, through maps, from files.
    fn sides(&self) -> [Arc<ReadSide>; 3] {
        let index = || Arc::clone(&self.index);
        [
            side(Arc::clone(&self.log.catalogue), index()),
            side(self.log.reopened(true), index()),
            side(self.log.reopened(false), index()),
        ]
    }
}

/// A log that nobody writes to has nothing pending.
#[derive(Debug)]
struct Nothing;

impl Decided for Nothing {
    fn decided(&self, slot: SlotRef, above: u64) -> Result<Pending, Error> {
        let published = slot.version();
        let below = published.max(above);
        Ok(Pending { below, ..Pending::nothing(published) })
    }
}

pub(super) fn side(catalogue: Arc<Catalogue>, index: Arc<Index>) -> Arc<ReadSide> {
    ReadSide::new(catalogue, index, Arc::new(Nothing))
}

fn set_head(index: &Index, key: &[u8], placed: Placed) {
    let key = SlotKey::Aggregate(key);
    let (slot, _) = index.insert(index.hash(key), key).unwrap();
    slot.publish_version(placed.version, placed.last);
}

/// Version v of an aggregate has 1 + v % 3 events, which say which they are.
fn batch(version: u64) -> Vec<Event> {
    let events = 1 + version % 3;
    (0..events).map(|index| Event::new("Event", format!("{version}/{index}"))).collect()
}

fn all_of(versions: u64) -> Vec<(u64, u32)> {
    (1..=versions).flat_map(|v| (0..batch(v).len() as u32).map(move |index| (v, index))).collect()
}

fn ids(read: Read) -> Vec<(u64, u32)> {
    read.map(|event| id(&event.unwrap())).collect()
}

fn id(event: &Recorded) -> (u64, u32) {
    assert_eq!(event.key(), b"order-1");
    let id = (event.version(), event.index());
    assert_eq!(event.data(), format!("{}/{}", id.0, id.1).as_bytes());
    assert_eq!(event.batch_events() as usize, batch(id.0).len());
    id
}

/// An aggregate at so many versions, between those of others.
fn aggregate(versions: u64) -> Shard {
    let mut shard = Shard::new(Shape { segment_bytes: 16 << 10, ..Shape::default() });
    for version in 1..=versions {
        shard.log.write(&[Part { key: b"order-1", events: batch(version) }]);
        if version % 5 == 0 {
            shard.log.append(b"order-2", b"between");
        }
        if version % 7 == 0 {
            shard.publish();
        }
    }
    shard.publish();
    shard
}

#[test]
fn every_version_is_a_start_in_both_directions() {
    for versions in [1, 2, 63, 64, 65, 127, 128, 129, 193] {
        let shard = aggregate(versions);
        let all = all_of(versions);
        for side in shard.sides() {
            let read = || side.read(b"order-1");
            assert_eq!(read().version(), versions);
            assert_eq!(side.version(b"order-1").unwrap(), versions);
            assert_eq!(ids(read()), all);
            let reversed: Vec<_> = all.iter().rev().copied().collect();
            assert_eq!(ids(read().backwards()), reversed);
            let near_an_edge = |from: &u64| *from < 3 || (*from + 2) % 64 < 5 || *from >= versions;
            for from in (0..=versions + 2).filter(near_an_edge) {
                let up: Vec<_> = all.iter().filter(|id| id.0 >= from).copied().collect();
                assert_eq!(ids(read().from(from)), up, "from {from} of {versions}");
                let down: Vec<_> = reversed.iter().filter(|id| id.0 <= from).copied().collect();
                assert_eq!(ids(read().from(from).backwards()), down, "down from {from}");
            }
        }
    }
}

#[test]
fn pages_of_any_size_go_on_where_the_last_one_ended() {
    let shard = aggregate(130);
    for side in shard.sides() {
        for page in [1, 2, 3, 7, 64, 1_000] {
            for backwards in [false, true] {
                let mut found = Vec::new();
                let mut last = None;
                loop {
                    let read = side.read(b"order-1").limit(page);
                    let read = if backwards { read.backwards() } else { read };
                    let more = ids(match last {
                        Some((version, index)) => read.after(version, index),
                        None => read,
                    });
                    assert!(more.len() <= page);
                    let Some(end) = more.last() else { break };
                    last = Some(*end);
                    found.extend(more);
                }
                if backwards {
                    found.reverse();
                }
                assert_eq!(found, all_of(130), "pages of {page}");
            }
        }
        assert_eq!(ids(side.read(b"order-1").limit(0)), []);
    }
}

#[test]
fn an_unknown_aggregate_is_empty_and_stays_unknown() {
    let shard = aggregate(3);
    let slots = shard.index.len();
    for key in [b"nobody".as_slice(), &[0], &[0xff; 1024]] {
        let read = shard.side.read(key);
        assert_eq!(read.version(), 0);
        assert_eq!(read.count(), 0);
        assert_eq!(shard.side.read(key).backwards().count(), 0);
        assert_eq!(shard.side.version(key).unwrap(), 0);
    }
    assert_eq!(shard.index.len(), slots);
}

#[test]
fn a_version_is_known_when_the_options_leave_all_events_out() {
    let shard = aggregate(3);
    let read = shard.side.read(b"order-1").from(9).limit(5);
    assert_eq!(read.version(), 3);
    assert_eq!(read.count(), 0);
}

#[test]
fn keys_that_none_can_have_are_told_once() {
    let shard = aggregate(1);
    for (key, kind) in [(vec![], ErrorKind::Invalid), (vec![b'k'; 1025], ErrorKind::TooLarge)] {
        assert_eq!(shard.side.version(&key).unwrap_err().kind(), kind);
        let mut read = shard.side.read(&key);
        assert_eq!(read.version(), 0);
        assert_eq!(read.next().unwrap().unwrap_err().kind(), kind);
        assert!(read.next().is_none());
    }
    let mut log = LogRead::failed(Error::invalid("there is no such shard"));
    assert_eq!(log.next().unwrap().unwrap_err().kind(), ErrorKind::Invalid);
    assert!(log.next().is_none());
    let mut writes = LogRead::failed(Error::invalid("there is no such shard")).writes();
    assert!(writes.next().unwrap().is_err());
    assert!(writes.next().is_none());
}

#[test]
fn a_head_above_the_watermark_is_not_shown() {
    for above in [1, 2, 64, 200] {
        let mut shard = aggregate(70);
        for version in 71..=70 + above {
            shard.log.write(&[Part { key: b"order-1", events: batch(version) }]);
        }
        shard.log.append(b"new", b"not yet");
        shard.publish_slots_alone();
        assert_eq!(shard.side.read(b"order-1").version(), 70);
        assert_eq!(ids(shard.side.read(b"order-1")), all_of(70));
        assert_eq!(shard.side.version(b"new").unwrap(), 0);
        assert_eq!(shard.side.read(b"new").count(), 0);

        let before = shard.side.read(b"order-1");
        shard.publish();
        assert_eq!(shard.side.read(b"order-1").version(), 70 + above);
        assert_eq!(shard.side.version(b"new").unwrap(), 1);
        // The snapshot of a read does not move.
        assert_eq!(before.version(), 70);
        assert_eq!(ids(before), all_of(70));
    }
}

#[test]
fn a_page_in_a_long_aggregate_costs_a_hop_for_every_64_versions() {
    let versions = 64 * 40;
    let shard = aggregate(versions);
    let [_, _, side] = shard.sides();
    let cost = |read: Read, events| {
        let before = shard.disk.count(Op::Read);
        assert_eq!(ids(read).len(), events);
        shard.disk.count(Op::Read) - before
    };
    assert!(cost(side.read(b"order-1").from(100).limit(1), 1) <= 40 + 64 + 1);
    assert!(cost(side.read(b"order-1").backwards().limit(1), 1) <= 1);
    // The whole of it: every record once, and the last one of each page once more.
    assert!(cost(side.read(b"order-1"), all_of(versions).len()) <= versions + 64);
}

#[test]
fn large_records_are_not_all_kept_by_a_page() {
    let mut shard = Shard::new(Shape { segment_bytes: 32 << 20, ..Shape::default() });
    for n in 0..70_u8 {
        shard.log.append(b"a", &vec![n; 100_000]);
        shard.publish();
    }
    for side in shard.sides() {
        for (n, event) in side.read(b"a").enumerate() {
            assert_eq!(event.unwrap().data(), vec![n as u8; 100_000]);
        }
    }
}

#[test]
fn damaged_events_are_told_and_the_others_are_read() {
    let mut shard = Shard::new(Shape::default());
    let mut positions = Vec::new();
    for version in 1..=10 {
        positions.push(shard.log.write(&[Part { key: b"order-1", events: batch(version) }]));
        shard.log.append(b"order-2", b"other");
    }
    shard.publish();
    let body = 64 + 48 + 8 + 20;
    shard.disk.flip(&Log::path_of(positions[3]), u64::from(positions[3].offset()) + body).unwrap();
    let [memory, mapped, files] = shard.sides();
    assert_eq!(ids(memory.read(b"order-1")), all_of(10));
    for side in [mapped, files] {
        for backwards in [false, true] {
            let read = side.read(b"order-1");
            assert_eq!(read.version(), 10);
            let read = if backwards { read.backwards() } else { read };
            let (good, bad): (Vec<_>, Vec<_>) = read.partition(Result::is_ok);
            assert_eq!(good.len(), all_of(10).len() - batch(4).len());
            let [Err(error)] = bad.as_slice() else { panic!("{bad:?}") };
            assert_eq!(
                (error.kind(), error.key()),
                (ErrorKind::Corrupt, Some(b"order-1".as_slice()))
            );
        }
        // The log goes on behind it as well, and so do whole writes.
        let (good, bad): (Vec<_>, Vec<_>) = side.log().partition(Result::is_ok);
        assert_eq!((good.len(), bad.len()), (all_of(10).len() - batch(4).len() + 10, 1));
        let (good, bad): (Vec<_>, Vec<_>) = side.log().writes().partition(Result::is_ok);
        assert_eq!((good.len(), bad.len()), (19, 1));
        assert_eq!(side.write_at(positions[3]).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn a_damaged_head_ends_what_leads_through_it() {
    let mut shard = Shard::new(Shape::default());
    let mut positions = Vec::new();
    for version in 1..=100 {
        positions.push(shard.log.write(&[Part { key: b"order-1", events: batch(version) }]));
    }
    shard.publish();
    // Version 40.
    shard.disk.flip(&Log::path_of(positions[39]), u64::from(positions[39].offset()) + 70).unwrap();
    let [_, mapped, files] = shard.sides();
    for side in [mapped, files] {
        let mut read = side.read(b"order-1").backwards();
        let mut good = 0;
        let error = loop {
            match read.next().unwrap() {
                Ok(event) => good = event.version(),
                Err(error) => break error,
            }
        };
        assert_eq!(good, 41);
        assert_eq!((error.kind(), error.key()), (ErrorKind::Corrupt, Some(b"order-1".as_slice())));
        assert!(read.next().is_none());
        // What does not lead through it is read.
        assert_eq!(ids(side.read(b"order-1").from(41)).len(), all_of(100).len() - all_of(40).len());
        assert!(side.read(b"order-1").next().unwrap().is_err());
    }
}

#[test]
fn links_that_lead_astray_are_corruption() {
    let mut shard = aggregate(10);
    let other = shard.log.aggregates[b"order-2".as_slice()];
    set_head(&shard.index, b"order-1", other);
    for side in shard.sides() {
        let mut read = side.read(b"order-1");
        assert_eq!(read.version(), 0);
        let error = read.next().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.key()), (ErrorKind::Corrupt, Some(b"order-1".as_slice())));
        assert!(read.next().is_none());
        assert_eq!(side.version(b"order-1").unwrap_err().kind(), ErrorKind::Corrupt);
    }
    let nowhere = Placed { last: Position::from_raw(5 << 32 | 4096), ..other };
    set_head(&shard.index, b"order-1", nowhere);
    assert_eq!(shard.side.version(b"order-1").unwrap_err().kind(), ErrorKind::Corrupt);
    // The record before version 11 is said to be version 10's, and is version 3's.
    let third = ReadSide::read(&shard.side, b"order-2").next().unwrap().unwrap().position();
    shard.log.aggregates.insert(b"order-2".to_vec(), Placed { last: third, ..other });
    shard.log.append(b"order-2", b"linked past version 2");
    shard.publish();
    for side in shard.sides() {
        let read = side.read(b"order-2").backwards();
        assert_eq!(read.version(), 3);
        let items: Vec<_> = read.collect();
        assert!(items[0].is_ok());
        let error = items[1].as_ref().unwrap_err();
        assert!(error.to_string().contains("version 1, where 2 should be"), "{error}");
        assert_eq!(items.len(), 2);
    }
}

#[test]
fn an_event_comes_back_with_all_that_it_had() {
    let mut shard = Shard::new(Shape::default());
    let events = vec![
        Event::new("Größe", [0, 255, 0]).metadata(b"who").id(7).time(-5),
        Event::new("T", Vec::new()),
    ];
    let key = [0, 0xff, b'/', 0];
    let position = shard.log.write(&[Part { key: &key, events }]);
    shard.publish();
    for side in shard.sides() {
        let read: Vec<_> = side.read(&key).map(Result::unwrap).collect();
        let [first, second] = &read[..] else { panic!("{read:?}") };
        for first in [first.clone(), first.detached()] {
            assert_eq!((first.key(), first.event_type()), (key.as_slice(), "Größe"));
            assert_eq!(
                (first.data(), first.metadata()),
                ([0, 255, 0].as_slice(), b"who".as_slice())
            );
            assert_eq!((first.id(), first.time()), (Some(7), Some(-5)));
            assert_eq!((first.version(), first.index(), first.batch_events()), (1, 0, 2));
            assert_eq!((first.position(), first.commit_time()), (position, position.get() as i64));
        }
        assert_eq!(
            (second.event_type(), second.data(), second.metadata()),
            ("T", &[][..], &[][..])
        );
        assert_eq!((second.id(), second.time(), second.index()), (None, None, 1));
        assert!(!format!("{first:?}").contains("who"));
    }
}

#[test]
fn the_log_is_read_event_by_event_and_write_by_write() {
    let mut shard = Shard::new(Shape { segment_bytes: 16 << 10, ..Shape::default() });
    let mut expected = Vec::new();
    let mut positions = Vec::new();
    for n in 1..=300_u64 {
        let position = shard.log.write(&[
            Part { key: b"a", events: batch(n) },
            Part { key: b"order", events: Vec::new() },
            Part { key: b"b", events: batch(n + 1) },
        ]);
        positions.push(position);
        expected.extend((0..batch(n).len()).map(|i| (position, b'a', i as u32)));
        expected.extend((0..batch(n + 1).len()).map(|i| (position, b'b', i as u32)));
        if n % 11 == 0 {
            shard.publish();
        }
    }
    shard.publish();
    for side in shard.sides() {
        let events = |read: LogRead| -> Vec<_> {
            read.map(Result::unwrap).map(|e| (e.position(), e.key()[0], e.index())).collect()
        };
        assert_eq!(events(side.log()), expected);
        assert_eq!(events(side.log().limit(5)), expected[..5]);
        for position in positions.iter().step_by(17) {
            let first = expected.iter().position(|event| event.0 == *position).unwrap();
            let behind = expected.iter().position(|event| event.0 > *position);
            let behind = behind.map_or(&[][..], |at| &expected[at..]);
            assert_eq!(events(side.log().from(*position)), expected[first..]);
            assert_eq!(events(side.log().after(*position)), behind);
        }
        let writes: Vec<_> = side.log().writes().map(Result::unwrap).collect();
        assert_eq!(writes.iter().map(|w| w.position()).collect::<Vec<_>>(), positions);
        assert_eq!(side.log().limit(3).writes().count(), 3);
        let write = side.write_at(positions[41]).unwrap();
        assert_eq!(write.commit_time(), positions[41].get() as i64);
        assert!(write.client().is_some_and(|(client, _)| client == 9));
        assert_eq!((write.version_of(b"b"), write.version_of(b"c")), (Some(42), None));
        let parts: Vec<_> = write
            .parts()
            .map(|part| {
                assert_eq!(part.expected(), Expect::Any);
                (part.key()[0], part.is_check(), part.version(), part.events().count())
            })
            .collect();
        assert_eq!(parts, [(b'a', false, 42, 1), (b'o', true, 0, 0), (b'b', false, 42, 2)]);
    }
}

#[test]
fn reads_beside_a_writer_see_whole_prefixes() {
    const VERSIONS: u64 = if cfg!(miri) { 12 } else { 2_000 };
    let mut shard = Shard::new(Shape::default());
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|reader| {
            let catalogue = Arc::clone(&shard.log.catalogue);
            let side = side(catalogue, Arc::clone(&shard.index));
            let done = Arc::clone(&done);
            thread::spawn(move || {
                let mut seen = 0;
                loop {
                    let last = done.load(Ordering::Acquire);
                    let read = side.read(b"order-1");
                    let version = read.version();
                    assert!(version >= seen, "{version} after {seen}");
                    let from = seen.saturating_sub(70 * reader) + 1;
                    seen = version;
                    let expected: Vec<_> =
                        all_of(version).into_iter().filter(|id| id.0 >= from).collect();
                    assert_eq!(ids(read.from(from)), expected);
                    if last {
                        return seen;
                    }
                }
            })
        })
        .collect();
    for version in 1..=VERSIONS {
        shard.log.write(&[Part { key: b"order-1", events: batch(version) }]);
        if version % 9 == 0 {
            shard.log.append(b"other", &[1; 3_000]);
            shard.publish();
        }
    }
    shard.publish();
    done.store(true, Ordering::Release);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), VERSIONS);
    }
}
