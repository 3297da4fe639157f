//! Walks that follow a log that is built by hand.

use std::sync::Arc;

use crate::error::ErrorKind;
use crate::id::{Position, SegmentId};
use crate::log::catalogue::Catalogue;
use crate::log::fixture::{Log, Shape};
use crate::log::walk::Walk;

fn following(catalogue: &Arc<Catalogue>, from: Position) -> Walk {
    Walk::following(Arc::clone(catalogue), from)
}

fn positions(walk: &mut Walk) -> Vec<Position> {
    walk.map(|record| record.unwrap().position()).collect()
}

/// A log over several segments: flushes of many records, of one that is larger than a window, of none.
fn varied() -> (Log, Vec<Position>) {
    let shape = Shape { segment_bytes: 256 << 10, ..Shape::default() };
    let mut log = Log::sim(shape).0;
    let mut all = Vec::new();
    for n in 0..900_usize {
        let bytes = if n % 151 == 0 { 100_000 } else { n * 7 % 900 };
        all.push(log.append(format!("key-{}", n % 7).as_bytes(), &vec![n as u8; bytes]));
        if n % 200 == 0 || n % 13 == 5 {
            log.publish();
        }
        if n % 97 == 0 {
            log.frontier();
        }
    }
    log.publish();
    (log, all)
}

#[test]
fn it_gives_what_any_walk_gives_from_anywhere() {
    let (log, all) = varied();
    assert!(log.catalogue.segment_count() > 3);
    for catalogue in [Arc::clone(&log.catalogue), log.reopened(true), log.reopened(false)] {
        assert_eq!(positions(&mut following(&catalogue, Position::START)), all);
        for (n, position) in all.iter().enumerate() {
            let first = |walk: &mut Walk| walk.next().map(|record| record.unwrap().position());
            assert_eq!(first(&mut following(&catalogue, *position)), Some(*position));
            let behind = Position::from_raw(position.get() + 8);
            assert_eq!(first(&mut following(&catalogue, behind)), all.get(n + 1).copied());
            let mut after = following(&catalogue, Position::START);
            after.start_after(*position);
            assert_eq!(first(&mut after), all.get(n + 1).copied());
        }
        for record in following(&catalogue, Position::START) {
            let record = record.unwrap();
            record.verify_events(&record.view()).unwrap();
        }
    }
}

#[test]
fn at_its_end_it_waits_for_the_watermark_and_goes_on() {
    let mut log = Log::sim(Shape { segment_bytes: 64 << 10, ..Shape::default() }).0;
    let mut walks = vec![following(&log.catalogue, Position::START)];
    let mut given = vec![Vec::new()];
    let mut all = Vec::new();
    for n in 0..300_u32 {
        all.push(log.append(b"a", &[n as u8; 800]));
        if n % 60 == 7 {
            // One that starts at the end.
            walks.push(following(&log.catalogue, log.catalogue.watermark()));
            given.push(all.iter().copied().filter(|at| *at < log.catalogue.watermark()).collect());
        }
        if n % 3 == 0 {
            log.publish();
        }
        for (walk, given) in walks.iter_mut().zip(&mut given) {
            let moved = walk.refresh();
            let new = positions(walk);
            assert_eq!(moved, !new.is_empty());
            given.extend(new);
            assert!(walk.next().is_none() && !walk.refresh());
        }
    }
    assert!(log.catalogue.segment_count() > 3);
    log.publish();
    for (mut walk, mut given) in walks.into_iter().zip(given) {
        walk.refresh();
        given.extend(positions(&mut walk));
        assert_eq!(given, all);
    }
}

#[test]
fn between_two_records_it_keeps_nothing_of_the_tail() {
    let mut log = Log::sim(Shape { segment_bytes: 4 << 20, ..Shape::default() }).0;
    let mut all: Vec<_> = (0..200_u8).map(|n| log.append(b"a", &[n; 500])).collect();
    log.publish();
    let holders = |log: &Log| Arc::strong_count(log.tail.chunk().unwrap());
    let before = holders(&log);
    let mut walk = following(&log.catalogue, Position::START);
    let mut given = vec![walk.next().unwrap().unwrap()];
    assert_eq!(holders(&log), before);
    let plain = Walk::new(Arc::clone(&log.catalogue), Position::START).next();
    assert_eq!(holders(&log), before + 1, "another walk's record keeps it");
    drop(plain);

    // The tail image has gone on when the walk does, and the walk's windows come from the file.
    for n in 0..4_000_u32 {
        all.push(log.append(b"b", &[n as u8; 500]));
        if n % 100 == 0 {
            log.publish();
        }
    }
    log.publish();
    walk.refresh();
    given.extend(walk.by_ref().map(Result::unwrap));
    assert!(given.iter().map(|record| record.position()).eq(all));
    for record in &given {
        record.verify_events(&record.view()).unwrap();
    }
}

#[test]
fn a_segment_that_is_missing_is_damage_wherever_it_starts() {
    let (log, all) = varied();
    let in_segment = |id: u32| all.iter().copied().filter(move |at| at.segment() == SegmentId(id));
    let ends = |walk: &mut Walk| {
        let (last, before) = {
            let mut items: Vec<_> = walk.collect();
            (items.pop().unwrap(), items.len())
        };
        assert_eq!(last.unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(walk.next().is_none());
        before
    };
    let first = log.reopened_without(SegmentId(1));
    assert_eq!(ends(&mut following(&first, Position::START)), 0);
    assert_eq!(ends(&mut following(&first, in_segment(1).nth(3).unwrap())), 0);

    let second = log.reopened_without(SegmentId(2));
    assert_eq!(ends(&mut following(&second, Position::START)), in_segment(1).count());
    let mut after = following(&second, Position::START);
    after.start_after(in_segment(1).next_back().unwrap());
    assert_eq!(ends(&mut after), 0);
    let end_of_the_first = Position::new(SegmentId(1), u32::MAX);
    assert_eq!(ends(&mut following(&second, end_of_the_first)), 0);
    assert_eq!(ends(&mut following(&second, in_segment(2).next().unwrap())), 0);
    let third: Vec<_> = all.iter().copied().filter(|at| at.segment() >= SegmentId(3)).collect();
    assert_eq!(positions(&mut following(&second, third[0])), third);
}
