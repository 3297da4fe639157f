//! The catalogue, the tail and the walk over a log that is built by hand.

use std::sync::Arc;

use crate::disk::sim::{Fault, Op};
use crate::error::ErrorKind;
use crate::event::Event;
use crate::id::{Position, SegmentId};
use crate::log::catalogue::{Catalogue, Record};
use crate::log::fixture::{Log, Part, Shape};
use crate::log::tail::Tail;
use crate::log::walk::Walk;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread;

const MODES: [bool; 2] = [true, false];

fn positions(catalogue: &Arc<Catalogue>, from: Position) -> Vec<Position> {
    Walk::new(Arc::clone(catalogue), from).map(|record| record.unwrap().position()).collect()
}

fn data(record: &Record) -> Vec<u8> {
    let view = record.view();
    record.verify_events(&view).unwrap();
    view.events_of(0).next().unwrap().unwrap().data.to_vec()
}

/// A log over several segments with flushes of all kinds: one record, many, one over many blocks, none.
fn varied(shape: Shape) -> (Log, Arc<crate::disk::sim::SimDisk>, Vec<Position>) {
    let (mut log, disk) = Log::sim(shape);
    let mut all = Vec::new();
    for n in 0..600_u32 {
        let bytes = match n % 50 {
            0 => 9_000,
            7 => 0,
            n => 20 + n as usize * 3,
        };
        let mut payload = n.to_le_bytes().to_vec();
        payload.resize(bytes.max(4), n as u8);
        all.push(log.append(format!("key-{}", n % 7).as_bytes(), &payload));
        if n % 13 == 0 || n % 13 > 9 {
            log.publish();
        }
        if n % 97 == 0 {
            log.frontier();
        }
    }
    log.publish();
    (log, disk, all)
}

fn small() -> Shape {
    Shape { segment_bytes: 64 << 10, ..Shape::default() }
}

#[test]
fn every_record_is_found_from_memory_from_maps_and_from_files() {
    let (log, _disk, all) = varied(small());
    assert!(log.catalogue.segment_count() > 3);
    let catalogues = [Arc::clone(&log.catalogue), log.reopened(true), log.reopened(false)];
    for catalogue in &catalogues {
        for (n, position) in all.iter().enumerate() {
            let record = catalogue.record(*position).unwrap();
            assert_eq!(data(&record)[..4], (n as u32).to_le_bytes());
            assert_eq!(record.view().time(), position.get() as i64);
        }
    }
}

#[test]
fn a_walk_starts_anywhere_and_gives_every_record_once() {
    let (log, _disk, all) = varied(small());
    for catalogue in [Arc::clone(&log.catalogue), log.reopened(true), log.reopened(false)] {
        assert_eq!(positions(&catalogue, Position::START), all);
        for (n, position) in all.iter().enumerate() {
            let next = |from| Walk::new(Arc::clone(&catalogue), from).next();
            let first = next(*position).unwrap().unwrap().position();
            assert_eq!(first, *position);
            for inside in [1, 8, 40] {
                let behind = Position::from_raw(position.get() + inside);
                let found = next(behind).map(|record| record.unwrap().position());
                assert_eq!(found, all.get(n + 1).copied(), "{inside} behind {position}");
            }
        }
        let beyond = Position::from_raw(u64::MAX);
        assert_eq!(positions(&catalogue, beyond), []);
        assert_eq!(
            positions(&catalogue, Position::new(SegmentId(2), u32::MAX))
                .first()
                .map(|p| p.segment()),
            Some(SegmentId(3))
        );
    }
}

#[test]
fn what_is_not_published_is_not_shown() {
    let (mut log, _disk) = Log::sim(Shape::default());
    let first = log.append(b"a", b"1");
    assert_eq!(positions(&log.catalogue, Position::START), []);
    log.publish();
    let second = log.append(b"a", b"2");
    log.flush();
    assert_eq!(positions(&log.catalogue, Position::START), [first]);
    assert_eq!(log.catalogue.record(second).unwrap_err().kind(), ErrorKind::Corrupt);
    // A slot's head may name it already.
    assert_eq!(data(&log.catalogue.published(second).unwrap()), b"2");
    log.publish();
    assert_eq!(positions(&log.catalogue, Position::START), [first, second]);
}

#[test]
fn a_head_in_a_segment_that_what_is_built_has_left_is_read() {
    let (mut log, _disk) = Log::sim(Shape { segment_bytes: 1 << 20, ..Shape::default() });
    let old = log.append(b"a", &[1; 700_000]);
    log.flush();
    let new = log.append(b"a", &[2; 700_000]);
    log.flush();
    assert!(new.segment() > old.segment());
    assert_eq!(data(&log.catalogue.published(old).unwrap()), [1; 700_000]);
    assert_eq!(data(&log.catalogue.published(new).unwrap()), [2; 700_000]);
}

#[test]
fn a_flipped_byte_is_told_and_its_neighbours_are_read() {
    for mapped in MODES {
        let (mut log, disk) = Log::sim(Shape::default());
        let all: Vec<_> = (0..20_u8).map(|n| log.append(b"order-1", &[n; 40])).collect();
        log.publish();
        // In the head, then in the events.
        for (hit, at) in [(5, 40), (9, 64 + 48 + 8 + 30)] {
            disk.flip(&Log::path_of(all[hit]), u64::from(all[hit].offset()) + at).unwrap();
        }
        let catalogue = log.reopened(mapped);
        for (n, position) in all.iter().enumerate() {
            let record = catalogue.record(*position);
            match n {
                5 => {
                    let error = record.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Corrupt);
                    let text = error.to_string();
                    let place = format!(
                        "shard 0, segment 0000000000000001.seg, byte {}",
                        position.offset()
                    );
                    assert!(text.starts_with(&place), "{text}");
                }
                9 => {
                    let record = record.unwrap();
                    assert!(record.verify_events(&record.view()).is_err());
                }
                _ => assert_eq!(data(&record.unwrap()), [n as u8; 40]),
            }
        }
        let walked: Vec<_> = Walk::new(catalogue, Position::START).map(|r| r.is_ok()).collect();
        assert_eq!(walked, [true, true, true, true, true, false]);
        // Behind the damage, though in the same flush.
        let catalogue = log.reopened(mapped);
        assert_eq!(positions(&catalogue, all[6]), all[6..]);
        let mut walk = Walk::new(Arc::clone(&catalogue), Position::START);
        walk.start_after(all[6]);
        assert_eq!(walk.next().unwrap().unwrap().position(), all[7]);
    }
}

#[test]
fn a_missing_or_misplaced_flush_is_damage() {
    for mapped in MODES {
        let (mut log, _disk) = Log::sim(Shape::default());
        let all: Vec<_> = (0..4_u8)
            .map(|n| {
                let position = log.append(b"a", &[n; 40]);
                log.publish();
                position
            })
            .collect();
        let file = log.disk.open(&Log::path_of(all[0]), crate::disk::Access::Write).unwrap();
        let mut block = [0; 512];
        // The third flush where the second should be.
        file.read_at(512 * 3, &mut block).unwrap();
        file.write_at(512 * 2, &block).unwrap();
        let walked: Vec<_> = Walk::new(log.reopened(mapped), Position::START).collect();
        assert_eq!(walked.len(), 2);
        let error = walked[1].as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("byte 1024"), "{error}");
        // From behind the damage the log can be read.
        assert_eq!(positions(&log.reopened(mapped), all[2]), all[2..]);
    }
}

#[test]
fn a_segment_left_out_in_the_middle_is_damage() {
    let (log, _disk, all) = varied(small());
    let middle = all[all.len() / 2].segment();
    let catalogue = log.reopened_without(middle);
    let walked: Vec<_> = Walk::new(catalogue, Position::START).collect();
    let (last, before) = walked.split_last().unwrap();
    assert!(before.iter().all(|record| record.as_ref().unwrap().position().segment() < middle));
    let error = last.as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("flush sequence"), "{error}");
}

#[test]
fn truncated_missing_and_unreadable_files_are_told_apart() {
    for mapped in MODES {
        let (mut log, disk) = Log::sim(Shape::default());
        let position = log.append(b"a", b"1");
        log.publish();

        let catalogue = log.reopened(mapped);
        disk.plan(Fault {
            op: Op::Read,
            nth: 1,
            lasting: false,
            kind: std::io::ErrorKind::Other,
            short: false,
        });
        assert_eq!(catalogue.record(position).unwrap_err().kind(), ErrorKind::Io);
        // A failure is not remembered.
        assert_eq!(data(&catalogue.record(position).unwrap()), b"1");

        log.cut(1, 600);
        let error = log.reopened(mapped).record(position).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("only 600 bytes"), "{error}");

        log.disk.remove(&Log::path_of(position)).unwrap();
        let error = log.reopened(mapped).record(position).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("missing"), "{error}");
    }
}

#[test]
fn positions_that_are_none_are_errors() {
    let (mut log, _disk) = Log::sim(Shape::default());
    let position = log.append(b"a", b"1");
    log.publish();
    for catalogue in [Arc::clone(&log.catalogue), log.reopened(true), log.reopened(false)] {
        let wrong = [
            Position::START,
            Position::new(SegmentId(1), 0),
            Position::from_raw(position.get() + 8),
            Position::new(SegmentId(1), 1 << 19),
            Position::new(SegmentId(2), 512),
            Position::from_raw(u64::MAX),
        ];
        for position in wrong {
            let error = catalogue.record(position).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{position}: {error}");
        }
    }
}

#[test]
fn the_tail_stays_within_its_budget_and_uses_its_memory_again() {
    let shape = Shape { segment_bytes: 32 << 20, tail_bytes: 1 << 20, ..Shape::default() };
    let (mut log, disk) = Log::sim(shape);
    let first = log.append(b"a", &[0; 100]);
    log.publish();
    let mut chunks = std::collections::HashSet::new();
    for n in 0..3_000_u32 {
        log.append(b"a", &[n as u8; 4_000]);
        log.publish();
        chunks.insert(log.tail.chunk().unwrap().as_ptr().addr());
        // The budget, and the chunk that is dropped only once the next one is shown.
        assert!(log.tail.memory_bytes() <= (1 << 20) + (512 << 10), "{}", log.tail.memory_bytes());
    }
    assert!(chunks.len() <= 6, "{} chunks", chunks.len());
    // What was dropped comes from the file, in which the segment is still active.
    let reads = disk.count(Op::Read);
    assert_eq!(data(&log.catalogue.record(first).unwrap()), [0; 100]);
    assert!(disk.count(Op::Read) > reads);
}

#[test]
fn what_is_not_durable_stays_in_the_tail_beyond_its_budget() {
    let shape = Shape { segment_bytes: 32 << 20, tail_bytes: 1 << 20, ..Shape::default() };
    let (mut log, disk) = Log::sim(shape);
    let all: Vec<_> = (0..800_u32)
        .map(|n| {
            let position = log.append(b"a", &[n as u8; 4_000]);
            log.flush();
            position
        })
        .collect();
    assert!(log.tail.memory_bytes() > 3 << 20);
    let reads = disk.count(Op::Read);
    for (n, position) in all.iter().enumerate() {
        assert_eq!(data(&log.catalogue.published(*position).unwrap()), [n as u8; 4_000]);
    }
    assert_eq!(disk.count(Op::Read), reads);
    log.publish();
    for n in 0..200 {
        log.append(b"a", &[n; 4_000]);
        log.publish();
    }
    assert!(log.tail.memory_bytes() < 2 << 20, "{}", log.tail.memory_bytes());
}

#[test]
fn what_readers_hold_is_never_overwritten_and_is_counted() {
    let shape = Shape { segment_bytes: 1 << 30, tail_bytes: 32 << 20, ..Shape::default() };
    let (log, _disk) = Log::sim(Shape::default());
    let mut tail = Tail::new(Arc::clone(&log.catalogue), shape.block_bytes, shape.tail_bytes);
    let segment = crate::log::segment::Segment::active(
        SegmentId(1),
        1,
        "none",
        log.disk.create("shard-0000/none").unwrap(),
    );
    log.catalogue.add_segment(segment);
    let mut held = Vec::new();
    let mut offset = shape.block_bytes;
    while tail.held_bytes() < 64 << 20 {
        tail.begin(SegmentId(1), offset, 4 << 20).unwrap();
        tail.extend(16).unwrap().fill(held.len() as u8);
        held.push(tail.finish().unwrap());
        assert!(held.len() < 100, "a chunk that is held was filled again");
        offset += 4 << 20;
        // Leave the chunk, so that the next flush takes another one.
        tail.begin(SegmentId(1), offset - (4 << 20) + 512, 512).unwrap();
        tail.extend((4 << 20) - 512).unwrap();
        let built = tail.finish().unwrap();
        log.catalogue.publish(Position::new(SegmentId(1), offset));
        drop(built);
    }
    assert!(held.len() * (4 << 20) >= 64 << 20);
    for (n, built) in held.iter().enumerate() {
        // SAFETY: a finished flush is never written again.
        assert_eq!(unsafe { built.chunk.slice(built.start..built.start + 16) }, [n as u8; 16]);
    }
    drop(held);
    assert_eq!(tail.held_bytes(), 0);
}

#[test]
fn a_flush_larger_than_a_chunk_has_one_of_its_own() {
    let shape = Shape { segment_bytes: 64 << 20, ..Shape::default() };
    let (mut log, _disk) = Log::sim(shape);
    let mut all = Vec::new();
    for bytes in [100, 9 << 20, 100, 3 << 20, 200] {
        all.push((log.append(b"a", &vec![bytes as u8; bytes]), bytes));
        log.publish();
    }
    for (position, bytes) in all {
        assert_eq!(data(&log.catalogue.record(position).unwrap()), vec![bytes as u8; bytes]);
    }
    assert!(log.tail.memory_bytes() <= 8 << 20, "{}", log.tail.memory_bytes());
}

#[test]
fn a_flush_given_up_leaves_nothing() {
    let (mut log, _disk) = Log::sim(Shape::default());
    let first = log.append(b"a", b"1");
    log.publish();
    let offset = log.catalogue.watermark().offset();
    log.tail.begin(SegmentId(1), offset, 1000).unwrap();
    log.tail.extend(1000).unwrap().fill(0xAA);
    assert_eq!(log.tail.filled(), 1000);
    log.tail.begin(SegmentId(1), offset, 1000).unwrap();
    assert!(log.tail.finish().is_none());
    let second = log.append(b"a", b"2");
    log.publish();
    assert_eq!(positions(&log.catalogue, Position::START), [first, second]);
}

#[test]
fn readers_beside_a_writer_that_rolls_drops_and_seals() {
    const WRITES: u32 = if cfg!(miri) { 60 } else { 6_000 };
    for mapped in MODES {
        let shape = Shape { mapped, ..Shape::default() };
        let (mut log, _disk) = Log::sim(shape);
        let catalogue = Arc::clone(&log.catalogue);
        let done = Arc::new(AtomicBool::new(false));
        let newest = Arc::new(AtomicU64::new(0));
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let (catalogue, done, newest) =
                    (Arc::clone(&catalogue), Arc::clone(&done), Arc::clone(&newest));
                thread::spawn(move || {
                    let mut rounds = 0;
                    let mut from = Position::START;
                    loop {
                        let last = done.load(Ordering::Acquire);
                        let mut number = None;
                        let mut positions = Vec::new();
                        for record in Walk::new(Arc::clone(&catalogue), from) {
                            let record = record.unwrap();
                            let found = data(&record);
                            let n = u32::from_le_bytes(found[..4].try_into().unwrap());
                            assert!(found[4..].iter().all(|byte| *byte == n as u8));
                            assert!(number.is_none_or(|before| before + 1 == n));
                            number = Some(n);
                            positions.push(record.position());
                        }
                        for position in positions.iter().step_by(101) {
                            assert_eq!(catalogue.record(*position).unwrap().position(), *position);
                        }
                        let head = Position::from_raw(newest.load(Ordering::Acquire));
                        if !head.is_none() {
                            assert_eq!(catalogue.published(head).unwrap().position(), head);
                        }
                        if reader == 0 {
                            from = positions.last().copied().unwrap_or(from);
                        }
                        rounds += 1;
                        if last {
                            return (number, rounds);
                        }
                    }
                })
            })
            .collect();
        for n in 0..WRITES {
            let mut payload = n.to_le_bytes().to_vec();
            payload.resize(4 + (n as usize * 7) % 1_500, n as u8);
            let head = log.append(b"a", &payload);
            if n % 3 == 0 {
                log.publish_with(|_, placed| newest.store(placed.last.get(), Ordering::Release));
                assert!(head < log.catalogue.watermark());
            }
        }
        log.publish();
        assert!(cfg!(miri) || log.catalogue.segment_count() > 3);
        done.store(true, Ordering::Release);
        for reader in readers {
            let (number, rounds) = reader.join().unwrap();
            assert_eq!(number, Some(WRITES - 1));
            assert!(rounds > 0);
        }
    }
}

#[test]
fn checks_and_several_parts_stand_in_one_record() {
    let (mut log, _disk) = Log::sim(Shape::default());
    log.append(b"a", b"1");
    let events = vec![Event::new("Two", "2"), Event::new("Three", "3")];
    let position = log.write(&[Part { key: b"b", events }, Part { key: b"a", events: Vec::new() }]);
    log.publish();
    let record = log.reopened(true).record(position).unwrap();
    let view = record.view();
    let versions: Vec<_> = view.parts().map(|part| (part.key, part.version, part.events)).collect();
    assert_eq!(versions, [(b"b".as_slice(), 1, 2), (b"a".as_slice(), 1, 0)]);
}
