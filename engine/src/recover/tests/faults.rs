//! Each kind of damage and loss, on small logs.

use std::sync::Arc;

use super::hand::*;
use crate::disk::sim::{Chance, Fault, FaultKind, Op, SimDisk};
use crate::disk::{Access, Disk};
use crate::error::{Error, ErrorKind};
use crate::format::{AcceptedEnd, Origin, SegmentHeader, SegmentKind};
use crate::id::{FlushSequence, Position, SegmentId, StoreId};
use crate::recover::{Mode, Recovered};

fn disk() -> (Arc<SimDisk>, Arc<dyn Disk>) {
    let sim = SimDisk::with_block(1, BLOCK as u32);
    furnish(&*sim);
    (Arc::clone(&sim), sim)
}

fn segment(id: u32) -> String {
    format!("shard-0000/{id:016x}.seg")
}

fn refused(disk: &dyn Disk) -> Error {
    open(disk, Mode::Write).map(|(found, _)| found).expect_err("the damage is not noticed")
}

/// Where it is refused, what a reader and the verifier say of it.
fn damaged(disk: &dyn Disk) -> (Error, Recovered) {
    let error = refused(disk);
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let (found, _) = open(disk, Mode::Read).unwrap();
    assert!(!found.damage.is_empty(), "{error}");
    let problems = verified(disk).problems;
    assert!(!problems.is_empty(), "{error}");
    assert_eq!(problems[0].what, found.damage[0].what);
    (error, found)
}

/// Opens for writing, expects so many writes, and goes on.
fn accepted(disk: &Arc<dyn Disk>, writes: u64) -> Recovered {
    let (read, _) = open(&**disk, Mode::Read).unwrap();
    assert_eq!((read.records, read.damage.as_slice()), (writes, [].as_slice()));
    let (found, index) = open(&**disk, Mode::Write).unwrap();
    assert_eq!(found.records, writes);
    check_versions(&index, writes);
    life(disk, &[2, 1]);
    let (after, index) = open(&**disk, Mode::Write).unwrap();
    assert_eq!(after.records, writes + 3);
    check_versions(&index, writes + 3);
    assert_eq!(verified(&**disk).problems, []);
    found
}

#[test]
fn an_empty_store_and_one_life_after_another() {
    let (_, disk) = disk();
    let (found, _) = open(&*disk, Mode::Write).unwrap();
    assert_eq!((found.accepted, found.end, found.segments.len()), (None, Position::START, 0));
    for nth in 0..5 {
        life(&disk, &[1, 3]);
        let (found, index) = open(&*disk, Mode::Write).unwrap();
        assert_eq!(found.records, (nth + 1) * 4);
        assert_eq!(found.events, found.records);
        assert_eq!(found.segments.len() as u64, nth + 1);
        // Two flushes and the one that states the frontier.
        assert_eq!(found.accepted.unwrap().sequence, FlushSequence(3 * (nth + 1)));
        check_versions(&index, found.records);
    }
    let found = verified(&*disk);
    assert_eq!((found.writes, found.events, found.flushes), (20, 20, 15));
    assert_eq!((found.shards, found.segments, found.aggregates), (1, 5, 3));
    assert_eq!(found.problems, []);
}

#[test]
fn a_torn_tail_is_cut_and_nothing_behind_it_is_taken() {
    for torn in [0, 110, 250, 400] {
        let (sim, disk) = disk();
        let mut hand = Hand::open(Arc::clone(&disk)).unwrap();
        hand.flush(2).unwrap();
        // In the flush header, in the record's head, in its event, in the padding.
        let torn_at = u64::from(hand.at) + torn;
        hand.start(1).unwrap();
        // Whole, and never acknowledged, because the one before was not.
        hand.start(1).unwrap();
        sim.flip(&segment(1), torn_at).unwrap();
        accepted(&disk, 2);
    }
}

#[test]
fn a_flush_of_the_right_sequence_and_another_past_is_not_taken() {
    let (_, disk) = disk();
    let mut hand = Hand::open(Arc::clone(&disk)).unwrap();
    hand.flush(2).unwrap();
    hand.break_chain();
    hand.start(1).unwrap();
    accepted(&disk, 2);

    let (_, disk) = self::disk();
    let mut hand = Hand::open(Arc::clone(&disk)).unwrap();
    hand.flush(2).unwrap();
    hand.break_chain();
    hand.flush(1).unwrap();
    hand.flush(1).unwrap();
    let (error, _) = damaged(&*disk);
    assert!(error.to_string().contains("flush 2 was durable and is missing"), "{error}");
}

#[test]
fn what_was_in_flight_and_arrived_whole_is_kept() {
    let (_, disk) = disk();
    let mut hand = Hand::open(Arc::clone(&disk)).unwrap();
    hand.flush(2).unwrap();
    hand.start(1).unwrap();
    hand.start(2).unwrap();
    accepted(&disk, 5);
}

#[test]
fn a_hole_below_the_frontier_is_damage_and_above_it_the_end() {
    // The frontier that the last flush states covers so many of the four before it.
    for covered in 0..4_u32 {
        for hole in 0..4_u32 {
            let (_, disk) = disk();
            let mut hand = Hand::open(Arc::clone(&disk)).unwrap();
            let mut ends = vec![hand.frontier];
            for _ in 0..4 {
                hand.start(1).unwrap();
                ends.push(Position::new(SegmentId(1), hand.at));
            }
            hand.frontier = ends[covered as usize];
            hand.start(1).unwrap();
            let file = disk.open(&segment(1), Access::Write).unwrap();
            file.write_at(BLOCK * u64::from(1 + hole), &[0; BLOCK as usize]).unwrap();
            if hole < covered {
                let (error, found) = damaged(&*disk);
                let place = format!("{} at byte {}", segment(1), BLOCK * u64::from(1 + hole));
                assert!(error.to_string().contains(&place), "{error}");
                // What is whole behind the hole is shown.
                assert_eq!(found.records, 4);
            } else {
                accepted(&disk, hole.into());
            }
        }
    }
}

#[test]
fn every_flipped_byte_below_the_frontier_is_noticed_or_in_events() {
    let (_, written) = disk();
    life(&written, &[2, 1]);
    let whole = verified(&*written);
    let bytes = bytes_of(&written, 1);
    let length = bytes.len() as u64;
    for at in 0..length {
        let (sim, disk) = disk();
        copy(&*sim, 1, &bytes);
        sim.flip(&segment(1), at).unwrap();
        match open(&*disk, Mode::Write) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
            }
            // The events of what is proven are verified when they are read, and by the verifier. The last flush
            // is the one that states the frontier: nothing proves it.
            Ok(_) => {
                let found = verified(&*disk);
                let last = at >= length - BLOCK;
                assert!(last || !found.problems.is_empty(), "byte {at}");
                assert_eq!(found.writes, whole.writes, "byte {at}");
            }
        }
    }
}

fn bytes_of(disk: &Arc<dyn Disk>, id: u32) -> Vec<u8> {
    let file = disk.open(&segment(id), Access::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

fn copy(disk: &dyn Disk, id: u32, bytes: &[u8]) {
    let file = disk.create(&segment(id)).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir("shard-0000").unwrap();
}

#[test]
fn damage_names_the_aggregate() {
    let (sim, disk) = disk();
    life(&disk, &[1, 1]);
    // In the head of the first record: a link.
    sim.flip(&segment(1), BLOCK + 104 + 64 + 8).unwrap();
    let (error, found) = damaged(&*disk);
    assert_eq!(error.key(), Some(key(0).as_slice()), "{error}");
    assert!(error.to_string().contains(&segment(1)), "{error}");
    assert_eq!(found.records, 1);
}

#[test]
fn rot_in_an_event_is_told_by_the_verifier_and_stops_nobody() {
    let (sim, disk) = disk();
    life(&disk, &[1, 1]);
    sim.flip(&segment(1), BLOCK + 104 + 160).unwrap();
    let problems = verified(&*disk).problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].aggregate.as_deref(), Some(key(0).as_slice()));
    assert_eq!(problems[0].offset, BLOCK + 104);
    assert!(problems[0].to_string().contains("\"key-0\""), "{}", problems[0]);
    let (found, index) = open(&*disk, Mode::Write).unwrap();
    assert_eq!(found.records, 2);
    check_versions(&index, 2);
}

#[test]
fn a_missing_segment_is_named() {
    for missing in 1..=3 {
        let (_, disk) = disk();
        life_in_segments(&disk, &[1, 1, 1, 1]);
        disk.remove(&segment(missing)).unwrap();
        let (error, _) = damaged(&*disk);
        assert!(error.to_string().contains(&segment(missing)), "{missing}: {error}");
        assert!(error.to_string().contains("missing"), "{error}");
    }
}

#[test]
fn a_missing_segment_of_an_earlier_opening_is_named() {
    for missing in 1..=2 {
        let (_, disk) = disk();
        for _ in 0..3 {
            life(&disk, &[1]);
        }
        disk.remove(&segment(missing)).unwrap();
        let (error, _) = damaged(&*disk);
        assert!(error.to_string().contains(&segment(missing)), "{missing}: {error}");
    }
}

#[test]
fn a_missing_newest_segment_can_not_be_told_from_one_never_written() {
    let (_, disk) = disk();
    life(&disk, &[1]);
    life(&disk, &[1]);
    disk.remove(&segment(2)).unwrap();
    accepted(&disk, 1);
}

#[test]
fn a_damaged_header_with_flushes_behind_it_is_damage() {
    for newest in [1, 2] {
        let (sim, disk) = disk();
        life_in_segments(&disk, &[1, 1]);
        sim.flip(&segment(newest), 60).unwrap();
        let (error, _) = damaged(&*disk);
        assert!(error.to_string().contains("segment header is damaged"), "{error}");
        assert!(error.to_string().contains(&segment(newest)), "{error}");
    }
}

#[test]
fn an_empty_or_unwritten_newest_segment_prevents_nothing() {
    for bytes in [0, 100, 512, 4096] {
        let (_, disk) = disk();
        life(&disk, &[1]);
        let file = disk.create(&segment(2)).unwrap();
        file.set_len(bytes).unwrap();
        let found = accepted(&disk, 1);
        assert_eq!(found.start.leftovers.len(), 1);
    }
}

#[test]
fn a_segment_prepared_and_never_used_is_a_leftover() {
    let (_, disk) = disk();
    let mut hand = Hand::open(Arc::clone(&disk)).unwrap();
    hand.flush(1).unwrap();
    hand.prepare_next().unwrap();
    drop(hand);
    let found = accepted(&disk, 1);
    assert_eq!((found.start.leftovers.len(), found.start.highest), (1, SegmentId(2)));
}

#[test]
fn a_prepared_segment_whose_predecessor_is_gone_is_damage() {
    let (_, disk) = disk();
    let mut hand = Hand::open(Arc::clone(&disk)).unwrap();
    hand.flush(1).unwrap();
    hand.prepare_next().unwrap();
    disk.remove(&segment(1)).unwrap();
    let (error, _) = damaged(&*disk);
    assert!(error.to_string().contains(&segment(1)), "{error}");
}

#[test]
fn renamed_copied_and_foreign_segments_are_told_apart() {
    let (_, disk) = disk();
    life_in_segments(&disk, &[1, 1]);
    disk.rename(&segment(2), &segment(7)).unwrap();
    let (error, _) = damaged(&*disk);
    assert!(
        error.to_string().contains("this is segment 2, under the name of segment 7"),
        "{error}"
    );

    disk.rename(&segment(7), &segment(2)).unwrap();
    let copied = bytes_of(&disk, 1);
    copy(&*disk, 9, &copied);
    let (error, _) = damaged(&*disk);
    assert!(
        error.to_string().contains("this is segment 1, under the name of segment 9"),
        "{error}"
    );
    disk.remove(&segment(9)).unwrap();

    for (at, part) in [("of store", 0), ("shard 5", 1), ("blocks of 4096", 2)] {
        let file = disk.create(&segment(9)).unwrap();
        let mut origin =
            Origin { store: identity().store, shard: SHARD, segment: SegmentId(9), salt: 3 };
        let mut block_bytes = BLOCK as u32;
        match part {
            0 => origin.store = StoreId(78),
            1 => origin.shard.0 = 5,
            _ => block_bytes = 4096,
        }
        let kind = SegmentKind::Rolled;
        let header = SegmentHeader { origin, block_bytes, bytes: 8192, kind, time: 0 };
        let mut block = vec![0; block_bytes as usize];
        header.encode(&mut block);
        file.write_at(0, &block).unwrap();
        let (error, _) = damaged(&*disk);
        assert!(error.to_string().contains(at), "{error}");
        disk.remove(&segment(9)).unwrap();
    }
    accepted(&disk, 2);
}

#[test]
fn swapped_segments_are_damage() {
    let (_, disk) = disk();
    life_in_segments(&disk, &[1, 1, 1]);
    disk.rename(&segment(1), "shard-0000/aside").unwrap();
    disk.rename(&segment(2), &segment(1)).unwrap();
    disk.rename("shard-0000/aside", &segment(2)).unwrap();
    damaged(&*disk);
}

#[test]
fn strays_are_ignored_and_what_is_no_file_is_refused() {
    let (_, disk) = disk();
    life(&disk, &[1]);
    for stray in [".DS_Store", "0000000000000002.SEG", "2.seg", "0000000000000002.seg~", "x.spare"]
    {
        disk.create(&format!("shard-0000/{stray}")).unwrap();
    }
    accepted(&disk, 1);
    disk.create_dir(&segment(9)).unwrap();
    let (error, _) = damaged(&*disk);
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

#[test]
fn a_segment_of_a_newer_format_is_unsupported() {
    let (_, disk) = disk();
    life_in_segments(&disk, &[1, 1]);
    let mut bytes = bytes_of(&disk, 2);
    bytes[16..20].copy_from_slice(&9_u32.to_le_bytes());
    let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[8..512]);
    bytes[..8].copy_from_slice(&checksum.to_le_bytes());
    disk.open(&segment(2), Access::Write).unwrap().write_at(0, &bytes).unwrap();
    for mode in [Mode::Write, Mode::Read] {
        let error = open(&*disk, mode).map(|(found, _)| found).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("format 9"), "{error}");
    }
}

#[test]
fn a_truncated_segment_is_damage_below_the_proven_end_alone() {
    let (_, disk) = disk();
    life(&disk, &[1, 1, 1]);
    let file = disk.open(&segment(1), Access::Write).unwrap();
    let length = file.len().unwrap();
    assert_eq!(length, 5 * BLOCK);
    // The frontier's own flush is proven by nothing.
    file.set_len(length - BLOCK).unwrap();
    let (found, _) = open(&*disk, Mode::Write).unwrap();
    assert_eq!(found.records, 3);
    life(&disk, &[1]);
    for blocks in (0..4).rev() {
        file.set_len(blocks * BLOCK).unwrap();
        damaged(&*disk);
    }
}

#[test]
fn a_whole_segment_lost_in_the_middle_of_a_stretch_shows_what_is_left() {
    let (_, disk) = disk();
    life_in_segments(&disk, &[1, 1, 1, 1]);
    disk.open(&segment(2), Access::Write).unwrap().write_at(BLOCK, &[0; BLOCK as usize]).unwrap();
    let (error, found) = damaged(&*disk);
    assert!(error.to_string().contains("flush 2 was durable and is missing"), "{error}");
    assert_eq!(found.records, 3);
}

#[test]
fn zeros_before_the_next_segment_are_no_damage() {
    let (_, disk) = disk();
    // Each segment has a dozen unused blocks behind its one flush.
    life_in_segments(&disk, &[1, 2, 3]);
    accepted(&disk, 6);
}

#[test]
fn what_lies_behind_an_accepted_end_is_never_read_again() {
    let (sim, disk) = disk();
    let mut hand = Hand::open(Arc::clone(&disk)).unwrap();
    hand.flush(1).unwrap();
    let torn_at = hand.at;
    hand.start(1).unwrap();
    hand.start(1).unwrap();
    sim.flip(&segment(1), torn_at.into()).unwrap();
    let whole = bytes_of(&disk, 1);
    life(&disk, &[1]);
    // As it was before it was cut, and with the torn flush whole again.
    let file = disk.open(&segment(1), Access::Write).unwrap();
    assert_eq!(file.len().unwrap(), u64::from(torn_at));
    file.write_at(0, &whole).unwrap();
    sim.flip(&segment(1), torn_at.into()).unwrap();
    accepted(&disk, 2);
}

#[test]
fn an_accepted_end_that_the_log_does_not_reach_is_damage() {
    for wrong in 0..3 {
        let (_, disk) = disk();
        life(&disk, &[1, 1]);
        let (found, _) = open(&*disk, Mode::Write).unwrap();
        let end = found.accepted.unwrap();
        let accepted = match wrong {
            0 => AcceptedEnd { checksum: end.checksum ^ 1, ..end },
            1 => AcceptedEnd { sequence: FlushSequence(end.sequence.0 + 1), ..end },
            _ => AcceptedEnd {
                position: Position::new(end.position.segment(), end.position.offset() - 512),
                ..end
            },
        };
        let origin =
            Origin { store: identity().store, shard: SHARD, segment: SegmentId(2), salt: 3 };
        let kind = SegmentKind::Opened { accepted: Some(accepted) };
        let bytes = 16 * BLOCK;
        let header = SegmentHeader { origin, block_bytes: BLOCK as u32, bytes, kind, time: 0 };
        let mut block = vec![0; BLOCK as usize];
        header.encode(&mut block);
        copy(&*disk, 2, &block);
        let (error, _) = damaged(&*disk);
        assert!(error.to_string().contains("does not end where"), "{wrong}: {error}");
    }
}

#[test]
fn a_read_that_fails_is_not_the_end_of_the_log() {
    let (sim, disk) = disk();
    life_in_segments(&disk, &[1, 1]);
    let before = sim.count(Op::Read);
    open(&*disk, Mode::Write).unwrap();
    let reads = sim.count(Op::Read) - before;
    for nth in 1..=reads {
        let kind = std::io::ErrorKind::Other;
        sim.plan(Fault { op: Op::Read, nth, lasting: true, kind, short: false });
        assert_eq!(refused(&*disk).kind(), ErrorKind::Io, "read {nth}");
        sim.repair();
    }
    accepted(&disk, 2);
}

#[test]
fn a_tail_that_can_not_be_made_durable_is_not_served() {
    let (sim, disk) = disk();
    let mut hand = Hand::open(Arc::clone(&disk)).unwrap();
    hand.flush(1).unwrap();
    hand.start(1).unwrap();
    hand.start(1).unwrap();
    let kind = std::io::ErrorKind::Other;
    sim.plan(Fault { op: Op::Sync, nth: 1, lasting: true, kind, short: false });
    // A reader shows what is proven: the third flush states that the first was durable.
    let (found, _) = open(&*disk, Mode::Read).unwrap();
    assert_eq!((found.records, found.damage.as_slice()), (1, [].as_slice()));
    assert_eq!(refused(&*disk).kind(), ErrorKind::Io);
    // What the system gave up with the sync that failed is not taken for durable because a later one succeeds.
    sim.repair();
    accepted(&disk, 1);
}

#[test]
fn a_store_without_a_beginning_is_not_an_empty_store() {
    let (_, disk) = disk();
    life_in_segments(&disk, &[1, 1]);
    disk.remove(&segment(1)).unwrap();
    let (_, found) = damaged(&*disk);
    assert_eq!(found.records, 1);
}

#[test]
fn versions_that_jump_are_damage() {
    let (_, disk) = disk();
    let mut hand = Hand::open(Arc::clone(&disk)).unwrap();
    hand.flush(1).unwrap();
    hand.skip_version();
    hand.flush(3).unwrap();
    let error = refused(&*disk);
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("version 3 follows version 1"), "{error}");
    assert_eq!(error.key(), Some(key(0).as_slice()));
    let problems = verified(&*disk).problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].what.contains("version 3 follows version 1"));
}

#[test]
fn a_read_that_ends_early_is_not_the_end_of_the_log() {
    let log = |seed| {
        let sim = SimDisk::with_block(seed, BLOCK as u32);
        furnish(&*sim);
        let mut hand = Hand::open(Arc::clone(&sim) as _).unwrap();
        hand.flush(1).unwrap();
        hand.roll().unwrap();
        // What is in the second segment nothing proves.
        hand.start(2).unwrap();
        sim
    };
    let mut told = 0;
    for seed in 1..=300 {
        let sim = log(seed);
        let (kind, per_million) = (FaultKind::ShortRead, 300_000);
        sim.allow(Chance { kind, per_million, lasting: false, most: 1 });
        match open(&*sim, Mode::Write) {
            Ok((found, _)) => assert_eq!(found.records, 3, "seed {seed}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "seed {seed}: {error}"),
        }
        told += sim.faults().get(&kind).copied().unwrap_or(0);
    }
    assert!(told > 100, "only {told} reads ended early");
}
