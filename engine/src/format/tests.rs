//! What holds over records, flushes and segments together: all that is encoded decodes to itself, and no damage passes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{
    AcceptedEnd, CHAIN_START, Damage, Depth, EncodeError, EventView, FLUSH_HEADER_BYTES,
    FlushHeader, Found, Lengths, Origin, RecordEncoder, RecordView, Role, Scan, SegmentHeader,
    SegmentKind, bytes, chain, checksum, records, records_verified, seal, set_links,
};
use crate::event::Event;
use crate::expect::Expect;
use crate::id::{FlushSequence, Position, SegmentId, ShardId, StoreId};
use crate::limits::{
    AGGREGATES_PER_WRITE_MAX, EVENT_TYPE_BYTES_MAX, EVENTS_PER_WRITE_MAX, KEY_BYTES_MAX,
    WRITE_BYTES_MAX,
};

#[path = "../../tests/scanner/samples.rs"]
mod samples;

use samples::{Part, Record, Segment};

const SALT: u64 = 77;
const HERE: Position = Position::from_raw(5 << 32 | 4096);

fn same(event: &Event, view: &EventView<'_>) -> bool {
    event.event_type() == view.event_type
        && event.data() == view.data
        && event.metadata_given() == view.metadata
        && event.id_given() == view.id
        && event.time_given() == view.time
}

fn event() -> impl Strategy<Value = Event> {
    let parts = ("\\PC{1,60}", vec(any::<u8>(), 0..200), vec(any::<u8>(), 0..40));
    (parts, any::<Option<u128>>(), any::<Option<i64>>()).prop_map(
        |((name, data, meta), id, time)| {
            let event = Event::new(name, data).metadata(meta);
            let event = id.map_or(event.clone(), |id| event.id(id));
            time.map_or(event.clone(), |time| event.time(time))
        },
    )
}

fn part() -> impl Strategy<Value = Part> {
    let key = vec(any::<u8>(), 1..40);
    // Behind any record of a sample segment, the third.
    let links = (1..3_u64 << 32, 0_u64..=1000);
    (key, vec(event(), 0..4), 1..u64::MAX, 0..4, links).prop_map(
        |(key, events, version, condition, (prev, back))| {
            let before = if events.is_empty() { version } else { version - 1 };
            let expect = match condition {
                1 if before == 0 => Expect::Absent,
                1 => Expect::Exists,
                2 => Expect::Version(before),
                _ => Expect::Any,
            };
            let prev = Position::from_raw(if version == 1 { 0 } else { prev });
            if events.is_empty() {
                return Part::check(&key, expect, version);
            }
            let skip = Position::from_raw(prev.get().saturating_sub(back));
            Part { skip, ..Part::append(&key, expect, version, prev, events) }
        },
    )
}

fn checkpoint() -> impl Strategy<Value = Part> {
    let positions = (prop_oneof![Just(0), any::<u64>()], any::<u64>());
    let positions = positions.prop_filter("they differ", |(one, other)| one != other);
    (vec(any::<u8>(), 1..40), positions, 1..3_u64 << 32).prop_map(|(name, (one, other), prev)| {
        let (from, to) = (one.min(other), one.max(other));
        let prev = Position::from_raw(if from == 0 { 0 } else { prev });
        Part::checkpoint(&name, Position::from_raw(from), Position::from_raw(to), prev)
    })
}

fn snapshot() -> impl Strategy<Value = Part> {
    let key = vec(any::<u8>(), 1..40);
    (key, 1..=u64::MAX, 0..3_u64 << 32, vec(any::<u8>(), 0..300)).prop_map(
        |(key, version, prev, bytes)| {
            Part::snapshot(&key, version, Position::from_raw(prev), &bytes)
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    let parts = vec(prop_oneof![3 => part(), 1 => checkpoint()], 1..6);
    let parts = parts.prop_filter("something is changed", |parts| {
        parts.iter().any(|part| part.role != Role::Check)
    });
    let write = (parts, any::<Option<(u128, u64)>>());
    let snapshot = snapshot().prop_map(|part| (vec![part], None));
    (prop_oneof![9 => write, 1 => snapshot], any::<i64>())
        .prop_map(|((parts, client), time)| Record { parts, client, time })
}

fn assert_same(record: &Record, view: &RecordView<'_>) {
    assert_eq!(view.client(), record.client);
    assert_eq!(view.time(), record.time);
    assert_eq!(view.part_count(), record.parts.len());
    assert_eq!(view.verify_events(), Ok(()));
    let appended = record.parts.iter().filter(|part| part.role == Role::Append);
    let total = appended.map(|part| part.events.len()).sum::<usize>();
    assert_eq!(view.events() as usize, total);
    for (index, part) in record.parts.iter().enumerate() {
        let found = view.part(index).unwrap();
        assert_eq!((found.index, found.role, found.expect), (index, part.role, part.expect));
        assert_eq!((found.key, found.version), (part.key.as_slice(), part.version));
        assert_eq!((found.prev, found.skip), (part.prev, part.skip));
        assert_eq!(found.events as usize, part.events.len());
        let events = view.events_of(index).collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(events.len(), part.events.len());
        for (event, found) in part.events.iter().zip(&events) {
            assert!(same(event, found), "{event:?} came back as {found:?}");
            assert_eq!(&view.bytes()[found.data_range.clone()], event.data());
            assert_eq!(&view.bytes()[found.metadata_range.clone()], event.metadata_given());
            assert_eq!(&view.bytes()[found.type_range.clone()], event.event_type().as_bytes());
        }
    }
    assert!(view.part(record.parts.len()).is_none());
    assert_eq!(view.events_of(record.parts.len()).count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_record_comes_back(record in record(), behind in vec(any::<u8>(), 0..50)) {
        let mut bytes = record.encode(SALT, HERE);
        let length = bytes.len();
        bytes.extend(behind);
        let view = RecordView::parse(&bytes, SALT, HERE).unwrap();
        prop_assert_eq!(view.length(), length);
        assert_same(&record, &view);
        assert_same(&record, &RecordView::parse_trusted(&bytes).unwrap());
        for part in view.parts() {
            let found = view.find_role(part.role, part.key).unwrap();
            prop_assert_eq!((found.role, found.key), (part.role, part.key));
            if let Some(found) = view.find_part(part.key) {
                prop_assert!(found.key == part.key && found.role.is_versioned());
            } else {
                prop_assert!(!part.role.is_versioned());
            }
        }
        prop_assert!(view.find_part(b"no such key, longer than any that is drawn for a test").is_none());
    }

    #[test]
    fn a_record_cut_anywhere_is_refused(record in record()) {
        let bytes = record.encode(SALT, HERE);
        for length in 0..bytes.len() {
            let refused = RecordView::parse(&bytes[..length], SALT, HERE);
            assert!(matches!(refused, Err(Damage::Truncated { .. })), "{length}: {refused:?}");
        }
    }

    #[test]
    fn any_bytes_are_refused_or_walked(mut bytes in vec(any::<u8>(), 0..400), small in any::<bool>()) {
        // Lengths that fit let the rest be looked at.
        if small && bytes.len() >= 128 {
            let length = bytes.len() as u32 & !7;
            bytes::put(&mut bytes, 8, length.to_le_bytes());
            bytes::put(&mut bytes, 12, 120_u32.to_le_bytes());
        }
        if let Ok(view) = RecordView::parse_trusted(&bytes) {
            for part in view.parts() {
                let _ = view.events_of(part.index).count();
            }
        }
    }

    #[test]
    fn a_segment_comes_back(flushes in vec(vec(record(), 0..4), 0..6)) {
        let mut segment = Segment::new(512, 400);
        let placed: Vec<_> = flushes.iter().map(|records| segment.flush(records)).collect();
        let mut scan = Scan::new(&segment.bytes, &segment.header, Depth::Everything);
        for (number, (flush, positions)) in flushes.iter().zip(&placed).enumerate() {
            let Some(Found::Flush { header, .. }) = scan.next() else {
                return Err(TestCaseError::fail("no flush"));
            };
            prop_assert_eq!(header.sequence.0, 42 + number as u64);
            for walk in [records(&segment.bytes, &header), records_verified(&segment.bytes, &header)] {
                let found = walk.collect::<Result<Vec<_>, _>>().unwrap();
                prop_assert_eq!(found.len(), flush.len());
                for ((record, position), (at, view)) in flush.iter().zip(positions).zip(&found) {
                    prop_assert_eq!(at, position);
                    assert_same(record, view);
                }
            }
        }
        let rest = scan.next();
        assert!(matches!(rest, Some(Found::Unused { .. })), "{rest:?}");
        prop_assert_eq!(scan.next(), None);
    }
}

#[test]
fn no_flipped_bit_in_a_flush_passes() {
    for segment in [samples::one_of_everything(), samples::checkpoints_and_snapshots()] {
        no_flipped_bit_passes(&segment);
    }
}

fn no_flipped_bit_passes(segment: &Segment) {
    let intact: Vec<_> = Scan::new(&segment.bytes, &segment.header, Depth::Everything).collect();
    for bit in 512 * 8..segment.at * 8 {
        let mut bytes = segment.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let found: Vec<_> = Scan::new(&bytes, &segment.header, Depth::Everything).collect();
        let block = |found: &Found| found.offset() as usize / 512;
        let hit = bit / 8 / 512;
        for (before, after) in intact.iter().zip(&found) {
            let covers = block(before) + before.blocks() as usize > hit && block(before) <= hit;
            if !covers {
                continue;
            }
            assert!(matches!(after, Found::Invalid { .. }), "bit {bit}: {before:?} is {after:?}");
        }
        // All other flushes are found as before.
        let valid = |found: &&Found| matches!(found, Found::Flush { .. });
        assert_eq!(found.iter().filter(valid).count() + 1, intact.iter().filter(valid).count());
    }
}

#[test]
fn no_flipped_bit_in_a_header_passes() {
    let segment = samples::one_of_everything();
    assert_eq!(SegmentHeader::decode(&segment.bytes), Ok(segment.header));
    for bit in 0..512 * 8 {
        let mut bytes = segment.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn a_segment_cut_anywhere_is_scanned() {
    let segment = samples::one_of_everything();
    let whole: Vec<_> = Scan::new(&segment.bytes, &segment.header, Depth::Everything).collect();
    for length in 0..segment.bytes.len() {
        let cut = &segment.bytes[..length];
        let mut next = 512;
        for found in Scan::new(cut, &segment.header, Depth::Everything) {
            assert_eq!(found.offset(), next);
            next += found.blocks() * 512;
            let was = whole.iter().find(|was| was.offset() == found.offset());
            match found {
                Found::Flush { .. } => assert_eq!(was, Some(&found), "{length}"),
                Found::Invalid { .. } => {
                    let was = was.unwrap();
                    assert!(
                        (was.offset() + was.blocks() * 512) as usize > length,
                        "{length}: {was:?}"
                    );
                }
                Found::Unused { .. } => {}
            }
        }
        assert!(next as usize >= length);
    }
}

#[test]
fn a_bad_flush_hides_no_other() {
    let mut segment = samples::one_of_everything();
    segment.bytes[512 + FLUSH_HEADER_BYTES + 4] ^= 1;
    let found: Vec<_> = Scan::new(&segment.bytes, &segment.header, Depth::Heads).collect();
    let Found::Invalid { at, damage, header: Some(header), .. } = found[0] else {
        panic!("{found:?}");
    };
    assert_eq!(at as usize, 512 + FLUSH_HEADER_BYTES);
    assert!(matches!(damage, Damage::Checksum { what: "record head", .. }), "{damage}");
    assert_eq!(header.sequence.0, 42);
    assert!(matches!(found[1], Found::Flush { header, .. } if header.sequence.0 == 43));
    assert!(matches!(found[2], Found::Flush { header, .. } if header.records == 0));
    // The header gone as well: its blocks are walked one by one, and still nothing else is lost.
    segment.bytes[512..520].fill(0xee);
    let again: Vec<_> = Scan::new(&segment.bytes, &segment.header, Depth::Heads).collect();
    assert!(matches!(again[0], Found::Invalid { header: None, .. }));
    assert_eq!(found[1..], again[1..]);
}

#[test]
fn a_record_that_is_valid_and_not_the_one_written_is_refused() {
    let written = |data: &str| Record::new(vec![Part::create(b"k", vec![Event::new("E", data)])]);
    let mut segment = Segment::new(512, 8);
    let at = segment.flush(&[written("this")])[0];
    let other = written("that").encode(segment.header.origin.salt, at);
    segment.bytes[at.offset() as usize..][..other.len()].copy_from_slice(&other);
    for depth in [Depth::Heads, Depth::Everything] {
        let found = Scan::new(&segment.bytes, &segment.header, depth).next().unwrap();
        let Found::Invalid { damage, .. } = found else { panic!("{found:?}") };
        let Damage::Mismatch { what, .. } = damage else { panic!("{damage}") };
        assert_eq!(what, "chain over the records");
    }
}

#[test]
fn damaged_events_are_seen_only_when_looked_at() {
    let mut segment = Segment::new(512, 8);
    let at = segment.flush(&[Record::new(vec![Part::create(b"k", vec![Event::new("E", "data")])])]);
    let data = segment.bytes.windows(4).position(|bytes| bytes == b"data").unwrap();
    segment.bytes[data] ^= 0x20;
    let first = |depth| Scan::new(&segment.bytes, &segment.header, depth).next().unwrap();
    assert!(matches!(first(Depth::Heads), Found::Flush { .. }));
    let Found::Invalid { at: noticed, damage, .. } = first(Depth::Everything) else { panic!() };
    assert_eq!(noticed, at[0].offset());
    assert!(matches!(damage, Damage::Checksum { what: "events", .. }), "{damage}");
}

#[test]
fn a_flush_of_another_place_use_or_store_says_so() {
    let segment = samples::one_of_everything();
    let header = &segment.bytes[512..1024];
    let origin = segment.header.origin;
    let refused =
        |origin: Origin, offset| FlushHeader::decode(header, &origin, offset).unwrap_err();
    assert!(matches!(refused(origin, 1024), Damage::Misplaced { .. }));
    let other = Origin { segment: SegmentId(4), ..origin };
    assert!(matches!(refused(other, 512), Damage::Misplaced { .. }));
    assert!(matches!(refused(Origin { salt: 1, ..origin }, 512), Damage::Stale { .. }));
    let other = Origin { store: StoreId(1), ..origin };
    assert!(matches!(refused(other, 512), Damage::Foreign { .. }));
    let other = Origin { shard: ShardId(0), ..origin };
    assert!(matches!(refused(other, 512), Damage::Mismatch { what: "shard", .. }));
}

#[test]
fn a_record_of_another_place_or_use_is_refused() {
    let bytes = Record::new(vec![Part::create(b"k", vec![Event::new("E", "")])]).encode(SALT, HERE);
    let there = Position::from_raw(HERE.get() + 8);
    for (salt, position) in [(SALT, there), (SALT + 1, HERE)] {
        let refused = RecordView::parse(&bytes, salt, position).unwrap_err();
        assert!(matches!(refused, Damage::Checksum { .. }), "{refused}");
    }
}

/// Changes one field of a record's head, seals it again, and says what the reader makes of it.
fn changed(record: &Record, at: usize, value: &[u8]) -> Damage {
    let mut bytes = record.encode(SALT, HERE);
    assert!(RecordView::parse(&bytes, SALT, HERE).is_ok());
    bytes[at..at + value.len()].copy_from_slice(value);
    let head_bytes = Lengths::read(&bytes).unwrap().head;
    seal(&mut bytes[..head_bytes], record.time, SALT, HERE);
    RecordView::parse(&bytes, SALT, HERE).unwrap_err()
}

/// The first part's line in a head.
const FIRST: usize = 64;

#[test]
fn what_a_valid_checksum_covers_is_checked_too() {
    const SECOND: usize = FIRST + 48;
    const KEYS: usize = SECOND + 48;
    let record = Record::new(vec![
        Part::append(
            b"k",
            Expect::Version(4),
            5,
            Position::from_raw(99),
            vec![Event::new("E", "")],
        ),
        Part::check(b"l", Expect::Absent, 0),
    ]);
    for (at, value, unsupported) in [
        (56, &[2][..], true),                          // record kind
        (57, &[2], true),                              // record flags
        (40, &[1], false),                             // a client without the flag
        (58, &1_u16.to_le_bytes(), false),             // fewer parts
        (58, &3_u16.to_le_bytes(), false),             // more parts
        (58, &257_u16.to_le_bytes(), false),           // too many parts
        (60, &2_u32.to_le_bytes(), false),             // more events
        (60, &0_u32.to_le_bytes(), false),             // no events
        (FIRST, &0_u64.to_le_bytes(), false),          // version 0
        (FIRST, &7_u64.to_le_bytes(), false),          // a version its condition excludes
        (FIRST + 8, &HERE.get().to_le_bytes(), false), // a link to itself
        (FIRST + 16, &100_u64.to_le_bytes(), false),   // a skip behind prev
        (FIRST + 32, &161_u32.to_le_bytes(), false),   // a key elsewhere
        (FIRST + 36, &24_u32.to_le_bytes(), false),    // more bytes of events
        (FIRST + 36, &12_u32.to_le_bytes(), false),    // too few for its events
        (FIRST + 40, &0_u32.to_le_bytes(), false),     // an append without events
        (FIRST + 44, &0_u16.to_le_bytes(), false),     // no key
        (FIRST + 44, &2000_u16.to_le_bytes(), false),  // a key too long
        (FIRST + 46, &[5], true),                      // role
        (FIRST + 46, &[2], false),                     // events of a check
        (FIRST + 46, &[3], false),                     // events of a checkpoint
        (FIRST + 46, &[4], false),                     // a snapshot beside a check
        (FIRST + 47, &[4], true),                      // condition
        (FIRST + 47, &[0], false),                     // a number without its condition
        (SECOND, &1_u64.to_le_bytes(), false),         // a check whose condition fails
        (SECOND + 8, &9_u64.to_le_bytes(), false),     // a link of a check
        (SECOND + 32, &160_u32.to_le_bytes(), false),  // keys that overlap
        (SECOND + 36, &8_u32.to_le_bytes(), false),    // bytes of events of a check
        (SECOND + 40, &1_u32.to_le_bytes(), false),    // events of a check
        (KEYS + 2, &[1], false),                       // padding
    ] {
        let damage = changed(&record, at, value);
        assert!(!matches!(damage, Damage::Checksum { .. }), "{at}: {damage}");
        assert_eq!(damage.is_unsupported(), unsupported, "{at}: {damage}");
    }
}

#[test]
fn a_checkpoint_and_a_snapshot_are_checked_too() {
    let position = Position::from_raw;
    let none = Position::START;
    let moved = Part::checkpoint(b"c", position(70), position(90), position(99));
    for (at, value, what) in [
        (60, &1_u32.to_le_bytes()[..], "number of events"),
        (FIRST, &70_u64.to_le_bytes(), "checkpoint's position"),
        (FIRST, &0_u64.to_le_bytes(), "checkpoint's position"),
        (FIRST + 8, &0_u64.to_le_bytes(), "link before a checkpoint's first record"),
        (FIRST + 8, &HERE.get().to_le_bytes(), "link to the version before"),
        (FIRST + 16, &9_u64.to_le_bytes(), "link to a version divisible by 64"),
        (FIRST + 24, &90_u64.to_le_bytes(), "checkpoint's position"),
        (FIRST + 24, &0_u64.to_le_bytes(), "link before a checkpoint's first record"),
        (FIRST + 36, &8_u32.to_le_bytes(), "length of the events"),
        (FIRST + 40, &1_u32.to_le_bytes(), "number of events"),
        (FIRST + 46, &[2], "link of a check"),
        (FIRST + 46, &[4], "number of events"),
        (FIRST + 47, &[0], "number of a condition"),
    ] {
        let damage = changed(&Record::new(vec![moved.clone()]), at, value);
        assert!(damage.to_string().contains(what), "{at}: {damage}");
    }
    let any = changed(
        &Record::new(vec![Part::checkpoint(b"c", none, position(9), none)]),
        FIRST + 47,
        &[0],
    );
    assert!(matches!(any, Damage::Condition { expected: Expect::Any, .. }), "{any}");
    let last = Part::checkpoint(b"c", position(70), position(u64::MAX), position(99));
    let at_the_end = changed(&Record::new(vec![last]), FIRST + 24, &u64::MAX.to_le_bytes());
    assert!(matches!(at_the_end, Damage::Bounds { .. }), "{at_the_end}");

    let kept = Part::snapshot(b"k", 5, position(99), b"state");
    for (at, value, what) in [
        (57, &[1_u8][..], "client of a snapshot"),
        (FIRST, &0_u64.to_le_bytes(), "version of a snapshot"),
        (FIRST + 8, &HERE.get().to_le_bytes(), "link to the version before"),
        (FIRST + 16, &9_u64.to_le_bytes(), "link to a version divisible by 64"),
        (FIRST + 40, &2_u32.to_le_bytes(), "number of events"),
        (FIRST + 40, &0_u32.to_le_bytes(), "number of events"),
        (FIRST + 46, &[2], "number of events"),
        (FIRST + 46, &[3], "number of events"),
        (FIRST + 47, &[1], "condition of a snapshot"),
    ] {
        let damage = changed(&Record::new(vec![kept.clone()]), at, value);
        assert!(damage.to_string().contains(what), "{at}: {damage}");
    }

    // What only checks is no record.
    let mut both = Record::new(vec![
        Part::check(b"a", Expect::Absent, 0),
        Part::checkpoint(b"c", none, position(9), none),
    ]);
    both.client = Some((1, 2));
    let second = FIRST + 48;
    let mut checks = both.encode(SALT, HERE);
    checks[second + 24..second + 32].fill(0);
    checks[second + 46..second + 48].copy_from_slice(&[2, 0]);
    let damage = RecordView::parse_trusted(&checks).unwrap_err();
    assert!(damage.to_string().contains("more than check"), "{damage}");
}

#[test]
fn events_are_checked_as_they_are_walked() {
    let events = vec![Event::new("Ab", "xyz"), Event::new("Cd", "")];
    let bytes = Record::new(vec![Part::create(b"k", events)]).encode(SALT, HERE);
    let body = Lengths::read(&bytes).unwrap().head;
    for (at, value) in [
        (0, &u32::MAX.to_le_bytes()[..]), // data that does not fit
        (4, &u32::MAX.to_le_bytes()),     // metadata that does not fit
        (8, &[0]),                        // no type
        (9, &[4]),                        // unknown flags
        (9, &[3]),                        // id and time that do not fit
        (10, &[1]),                       // reserved
        (12, &[0xff]),                    // not UTF-8
        (17, &[1]),                       // padding
    ] {
        let mut bytes = bytes.clone();
        bytes[body + at..body + at + value.len()].copy_from_slice(value);
        let view = RecordView::parse(&bytes, SALT, HERE).unwrap();
        assert!(view.verify_events().is_err());
        let found: Vec<_> = view.events_of(0).collect();
        assert_eq!(found.len(), 2, "an event that can't be read is not left out");
        assert!(found[0].is_err() && found[0] == found[1], "{at}: {found:?}");
    }
    // An event that ends early leaves bytes behind the last one.
    let events = vec![Event::new("Ab", "xyz"), Event::new("Cd", "12345678")];
    let mut long = Record::new(vec![Part::create(b"k", events)]).encode(SALT, HERE);
    let second = long.len() - 24;
    long[second..second + 4].copy_from_slice(&0_u32.to_le_bytes());
    let last = long.len() - 10;
    long[last..].fill(0);
    let view = RecordView::parse(&long, SALT, HERE).unwrap();
    assert!(matches!(view.events_of(0).last(), Some(Err(Damage::Mismatch { .. }))));
}

fn encoded(
    build: impl FnOnce(&mut RecordEncoder) -> Result<(), EncodeError>,
) -> Result<usize, EncodeError> {
    let mut encoder = RecordEncoder::new();
    build(&mut encoder)?;
    encoder.finish(None)?;
    Ok(encoder.record_bytes())
}

#[test]
fn limits_hold_on_both_sides() {
    let small = Event::new("E", "");
    let one = |encoder: &mut RecordEncoder, key: &[u8], event: &Event| {
        encoder.begin_part(Role::Append, Expect::Any, key)?;
        encoder.push_event(event)
    };
    let limit = |result| assert!(matches!(result, Err(EncodeError::Limit(_))), "{result:?}");

    assert!(encoded(|encoder| one(encoder, &[1; KEY_BYTES_MAX], &small)).is_ok());
    limit(encoded(|encoder| one(encoder, &[1; KEY_BYTES_MAX + 1], &small)));
    limit(encoded(|encoder| one(encoder, &[], &small)));

    let typed = |length: usize| Event::new("t".repeat(length), "");
    assert!(encoded(|encoder| one(encoder, b"k", &typed(EVENT_TYPE_BYTES_MAX))).is_ok());
    limit(encoded(|encoder| one(encoder, b"k", &typed(EVENT_TYPE_BYTES_MAX + 1))));
    limit(encoded(|encoder| one(encoder, b"k", &typed(0))));

    let events = |count: usize| {
        encoded(|encoder| {
            encoder.begin_part(Role::Append, Expect::Any, b"k")?;
            (0..count).try_for_each(|_| encoder.push_event(&small))
        })
    };
    assert!(events(EVENTS_PER_WRITE_MAX).is_ok());
    limit(events(EVENTS_PER_WRITE_MAX + 1));

    let parts = |count: usize| {
        encoded(|encoder| (0..count).try_for_each(|part| one(encoder, &part.to_le_bytes(), &small)))
    };
    assert!(parts(AGGREGATES_PER_WRITE_MAX).is_ok());
    limit(parts(AGGREGATES_PER_WRITE_MAX + 1));

    // Fixed header, one line, the key padded; event header and type.
    let data =
        |length: usize| encoded(|encoder| one(encoder, b"k", &Event::new("E", vec![0; length])));
    let room = WRITE_BYTES_MAX - (64 + 48 + 8) - (12 + 1);
    assert_eq!(data(room), Ok(WRITE_BYTES_MAX));
    limit(data(room + 1));
    limit(encoded(|encoder| {
        one(encoder, b"k", &Event::new("E", vec![0; room - 40]))?;
        one(encoder, b"l", &small)
    }));
}

#[test]
fn the_largest_record_is_read() {
    let event = Event::new("E", vec![7; WRITE_BYTES_MAX - (64 + 48 + 8) - (12 + 1)]);
    let record = Record::new(vec![Part::create(b"k", vec![event])]);
    let bytes = record.encode(SALT, HERE);
    assert_eq!(bytes.len(), WRITE_BYTES_MAX);
    assert_same(&record, &RecordView::parse(&bytes, SALT, HERE).unwrap());
    let mut longer = bytes;
    bytes::put(&mut longer, 8, (WRITE_BYTES_MAX as u32 + 8).to_le_bytes());
    longer.resize(WRITE_BYTES_MAX + 8, 0);
    assert!(matches!(RecordView::parse_trusted(&longer), Err(Damage::Bounds { .. })));
}

#[test]
fn an_encoder_refuses_what_is_no_record_and_is_used_again() {
    let mut encoder = RecordEncoder::new();
    let event = Event::new("E", "");
    let incomplete =
        |result| assert!(matches!(result, Err(EncodeError::Incomplete(_))), "{result:?}");
    incomplete(encoder.push_event(&event));
    incomplete(encoder.finish(None));
    encoder.begin_part(Role::Check, Expect::Any, b"k").unwrap();
    incomplete(encoder.push_event(&event));
    incomplete(encoder.finish(None));
    encoder.begin_part(Role::Append, Expect::Any, b"l").unwrap();
    incomplete(encoder.finish(None));
    incomplete(encoder.begin_part(Role::Check, Expect::Any, b"m"));
    encoder.clear();
    incomplete(encoder.begin_part(Role::Checkpoint, Expect::Any, b"c"));
    encoder.begin_part(Role::Checkpoint, Expect::Version(0), b"c").unwrap();
    incomplete(encoder.push_event(&event));
    incomplete(encoder.begin_part(Role::Snapshot, Expect::Any, b"k"));
    encoder.clear();
    incomplete(encoder.begin_part(Role::Snapshot, Expect::Exists, b"k"));
    encoder.begin_part(Role::Snapshot, Expect::Any, b"k").unwrap();
    incomplete(encoder.finish(None));
    encoder.push_event(&event).unwrap();
    incomplete(encoder.push_event(&event));
    incomplete(encoder.begin_part(Role::Check, Expect::Any, b"l"));
    incomplete(encoder.finish(Some((1, 2))));
    encoder.clear();
    let mut first = None;
    for _ in 0..3 {
        encoder.begin_part(Role::Append, Expect::Absent, b"k").unwrap();
        encoder.push_event(&event).unwrap();
        encoder.finish(Some((1, 2))).unwrap();
        encoder.set_version(0, 1);
        incomplete(encoder.finish(None));
        incomplete(encoder.begin_part(Role::Append, Expect::Any, b"l"));
        assert_eq!(encoder.record_bytes(), encoder.head().len() + encoder.body().len());
        let bytes = [encoder.head(), encoder.body()].concat();
        assert_eq!(*first.get_or_insert(bytes.clone()), bytes);
        encoder.clear();
    }
}

#[test]
fn headers_with_a_valid_checksum_are_checked_too() {
    let segment = samples::one_of_everything();
    for (at, value, unsupported) in [
        (16, &2_u32.to_le_bytes()[..], true),      // format
        (20, &1000_u32.to_le_bytes(), false),      // a block that is no power of two
        (20, &256_u32.to_le_bytes(), false),       // a small block
        (40, &0_u32.to_le_bytes(), false),         // segment 0
        (44, &1024_u16.to_le_bytes(), false),      // shard
        (46, &[3], true),                          // kind
        (46, &[2], true),                          // a rolled segment that states an end
        (47, &[0], false),                         // an end without the flag
        (56, &513_u64.to_le_bytes(), false),       // not whole blocks
        (56, &u64::MAX.to_le_bytes(), false),      // too long
        (64, &(3_u64 << 32).to_le_bytes(), false), // an end in the segment itself
        (72, &0_u64.to_le_bytes(), false),         // sequence 0
        (100, &[1], false),                        // padding
    ] {
        let mut bytes = segment.bytes[..512].to_vec();
        bytes[at..at + value.len()].copy_from_slice(value);
        let sum = checksum::plain(&bytes[8..]);
        bytes::put(&mut bytes, 0, sum.to_le_bytes());
        let damage = SegmentHeader::decode(&bytes).unwrap_err();
        assert!(!matches!(damage, Damage::Checksum { .. }), "{at}: {damage}");
        assert_eq!(damage.is_unsupported(), unsupported, "{at}: {damage}");
    }

    let origin = segment.header.origin;
    for (at, value, unsupported) in [
        (48, &0_u64.to_le_bytes()[..], false),           // sequence 0
        (56, &(3_u64 << 32 | 513).to_le_bytes(), false), // a frontier beyond the flush
        (88, &104_u32.to_le_bytes(), false),             // shorter than its records
        (88, &u32::MAX.to_le_bytes(), false),            // longer than any segment
        (92, &0_u32.to_le_bytes(), false),               // no records, and still some length
        (98, &[1], true),                                // reserved
    ] {
        let mut bytes = segment.bytes[512..512 + FLUSH_HEADER_BYTES].to_vec();
        bytes[at..at + value.len()].copy_from_slice(value);
        let sum = checksum::placed(&bytes[8..], origin.salt, segment.position(512));
        bytes::put(&mut bytes, 0, sum.to_le_bytes());
        let damage = FlushHeader::decode(&bytes, &origin, 512).unwrap_err();
        assert!(!matches!(damage, Damage::Checksum { .. }), "{at}: {damage}");
        assert_eq!(damage.is_unsupported(), unsupported, "{at}: {damage}");
    }
}
