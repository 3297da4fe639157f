//! What the books say of logs that the store's own encoder made.

use super::books::Books;
use super::record::Record;
use super::walk::Visit;
use crate::event::Event;
use crate::expect::Expect;
use crate::format::{RecordEncoder, Role, seal, set_links};
use crate::id::{Position, SegmentId};

const SALT: u64 = 4;

fn at(nth: u32) -> Position {
    Position::new(SegmentId(1), nth * 4096)
}

/// One part of a record, as it is written.
#[derive(Clone, Copy)]
struct Part {
    role: Role,
    expect: Expect,
    key: &'static [u8],
    version: u64,
    prev: Position,
    skip: Position,
}

fn append(key: &'static [u8], expect: Expect, version: u64, prev: Position) -> Part {
    Part { role: Role::Append, expect, key, version, prev, skip: Position::START }
}

fn check(key: &'static [u8], expect: Expect, version: u64) -> Part {
    let none = Position::START;
    Part { role: Role::Check, expect, key, version, prev: none, skip: none }
}

/// A checkpoint named `c` that is moved from one position to another.
fn moves(from: Position, to: Position, prev: Position) -> Part {
    let (expect, version) = (Expect::Version(from.get()), to.get());
    Part { role: Role::Checkpoint, expect, key: b"c", version, prev, skip: Position::START }
}

fn snapshot(key: &'static [u8], version: u64, prev: Position) -> Part {
    let (expect, skip) = (Expect::Any, Position::START);
    Part { role: Role::Snapshot, expect, key, version, prev, skip }
}

/// The parts of a write, and its client's number and sequence.
type Write<'a> = (&'a [Part], Option<(u128, u64)>);

/// What the books say of these writes, which stand at 1, 2, 3….
fn objections(records: &[Write<'_>]) -> Vec<Option<String>> {
    let mut walked = |_: u64| {};
    let mut books = Books::new(0, &mut walked);
    let mut said = Vec::new();
    for (nth, (parts, client)) in (1..).zip(records) {
        let mut encoder = RecordEncoder::new();
        for part in *parts {
            encoder.begin_part(part.role, part.expect, part.key).unwrap();
            if matches!(part.role, Role::Append | Role::Snapshot) {
                encoder.push_event(&Event::new("Happened", "x")).unwrap();
            }
        }
        encoder.finish(*client).unwrap();
        for (index, part) in parts.iter().enumerate() {
            encoder.set_version(index, part.version);
        }
        let mut bytes = encoder.head().to_vec();
        for (index, part) in parts.iter().enumerate().filter(|(_, part)| part.role != Role::Check) {
            set_links(&mut bytes, index, part.prev, part.skip);
        }
        seal(&mut bytes, 0, SALT, at(nth));
        bytes.extend_from_slice(encoder.body());
        let record = Record::read(&bytes, SALT, at(nth)).unwrap();
        books.write(&record, at(nth), "").unwrap();
        assert!(books.problems.len() < 2, "{:?}", books.problems);
        said.push(books.problems.pop().map(|problem| problem.what));
    }
    said
}

#[test]
fn a_sound_log_is_not_objected_to() {
    let said = objections(&[
        (&[append(b"a", Expect::Absent, 1, Position::START)], Some((9, 1))),
        (
            &[
                append(b"a", Expect::Version(1), 2, at(1)),
                append(b"b", Expect::Any, 1, Position::START),
                check(b"c", Expect::Absent, 0),
            ],
            Some((9, 2)),
        ),
        (&[append(b"b", Expect::Exists, 2, at(2)), check(b"a", Expect::Version(2), 2)], None),
        (&[append(b"c", Expect::Absent, 1, Position::START)], Some((9, 7))),
    ]);
    assert_eq!(said, [None, None, None, None]);
}

#[test]
fn what_can_not_be_so_is_told_once() {
    let first: Write<'_> = (&[append(b"a", Expect::Any, 1, Position::START)], Some((9, 5)));
    let second = |part: Part| {
        let said =
            objections(&[first, (&[part, append(b"z", Expect::Any, 1, Position::START)], None)]);
        assert_eq!(said[0], None);
        said[1].clone().unwrap()
    };
    let told = |part, what: &str| {
        let said = second(part);
        assert!(said.contains(what), "{said}");
    };
    told(append(b"a", Expect::Any, 3, at(1)), "version 3 follows version 1");
    told(append(b"a", Expect::Any, 2, at(0)), "linked to");
    told(check(b"a", Expect::Exists, 2), "checked at version 2, and it was at 1");
    let skip = Part { skip: at(1), ..append(b"a", Expect::Any, 2, at(1)) };
    told(skip, "linked to");

    // What was told is believed from then on.
    let jump = append(b"a", Expect::Any, 3, at(1));
    let said =
        objections(&[first, (&[jump], None), (&[append(b"a", Expect::Any, 4, at(2))], None)]);
    assert!(said[1].is_some() && said[2].is_none(), "{said:?}");
}

#[test]
fn sequences_of_a_client_rise_on_each_aggregate() {
    let said = objections(&[
        (&[append(b"a", Expect::Any, 1, Position::START)], Some((9, 5))),
        // What is only checked does not count.
        (
            &[append(b"b", Expect::Any, 1, Position::START), check(b"a", Expect::Exists, 1)],
            Some((9, 5)),
        ),
        (&[append(b"a", Expect::Any, 2, at(1))], Some((8, 1))),
        (&[append(b"a", Expect::Any, 3, at(3))], Some((9, 5))),
    ]);
    assert_eq!(said[..3], [None, None, None]);
    assert!(said[3].as_ref().unwrap().contains("sequence 5 after 5"), "{said:?}");
}

#[test]
fn an_aggregate_stands_in_a_write_once() {
    let a = append(b"a", Expect::Any, 1, Position::START);
    let said = objections(&[(&[a, check(b"a", Expect::Exists, 1)], None)]);
    assert!(said[0].as_ref().unwrap().contains("twice"), "{said:?}");
}

#[test]
fn a_checkpoint_goes_on_from_where_it_stood() {
    let none = Position::START;
    let first = [moves(none, at(7), none), append(b"c", Expect::Absent, 1, none)];
    let said = |second: &[Part], third: Part| {
        let said = objections(&[(&first, None), (second, None), (&[third], None)]);
        assert_eq!(said[0], None);
        (said[1].clone(), said[2].clone())
    };
    let sound = moves(at(7), at(8), at(1));
    assert_eq!(said(&[sound], moves(at(8), at(9), at(2))), (None, None));

    let (jump, third) = said(&[moves(at(6), at(8), at(1))], moves(at(8), at(9), at(2)));
    assert!(jump.unwrap().contains("checkpoint \"c\": moved from 1:24576 to 1:32768, and it"));
    assert_eq!(third, None, "what was told is believed from then on");
    let (begun_again, _) = said(&[moves(none, at(8), none)], sound);
    assert!(begun_again.unwrap().contains("it stood at 1:28672"));
    let (back, _) = said(&[sound, append(b"c", Expect::Any, 2, at(1))], sound);
    assert_eq!(back, None, "an aggregate of the same key is another thing");
    let (linked, _) = said(&[Part { prev: at(0), ..sound }], moves(at(8), at(9), at(2)));
    assert!(linked.unwrap().contains("linked to 1:0"));
    let (twice, _) = said(&[sound, moves(at(8), at(9), at(1))], moves(at(9), at(10), at(2)));
    assert!(twice.unwrap().contains("twice"));
}

#[test]
fn a_snapshot_stands_for_a_version_that_was_reached() {
    let said = objections(&[
        (&[append(b"a", Expect::Any, 1, Position::START)], None),
        (&[snapshot(b"a", 1, Position::START)], None),
        (&[append(b"a", Expect::Any, 2, at(1))], None),
        (&[snapshot(b"a", 1, at(2))], None),
        (&[snapshot(b"a", 3, at(4))], None),
        (&[snapshot(b"a", 2, at(2))], None),
        (&[snapshot(b"b", 1, Position::START)], None),
    ]);
    assert_eq!(said[..4], [const { None }; 4]);
    let contains = |nth: usize, what: &str| said[nth].as_ref().unwrap().contains(what);
    assert!(contains(4, "a snapshot of version 3, and it was at 2"), "{said:?}");
    assert!(contains(5, "a snapshot linked to 1:8192"), "{said:?}");
    assert!(contains(6, "a snapshot of version 1, and it was at 0"), "{said:?}");
}

#[test]
fn links_over_many_versions() {
    let mut parts = Vec::new();
    let mut skip = Position::START;
    for version in 1..=130_u32 {
        let prev = if version == 1 { Position::START } else { at(version - 1) };
        parts.push([Part { skip, ..append(b"a", Expect::Any, version.into(), prev) }]);
        if version.is_multiple_of(64) {
            skip = at(version);
        }
    }
    let records: Vec<Write<'_>> = parts.iter().map(|part| (part.as_slice(), None)).collect();
    assert!(objections(&records).iter().all(Option::is_none));
}
