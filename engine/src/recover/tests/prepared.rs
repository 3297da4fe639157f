//! Preparing segments: sizes, spares, thrift, a full disk.

use std::sync::Arc;

use super::hand::*;
use crate::disk::sim::{Fault, Op, SimDisk};
use crate::disk::{Access, Disk};
use crate::error::ErrorKind;
use crate::format::{Identity, SegmentHeader, SegmentKind};
use crate::id::SegmentId;
use crate::limits::{SEGMENT_BYTES_FIRST, SEGMENT_BYTES_MAX};
use crate::log::prepare::{Prepared, Preparer, Start};
use crate::recover::Mode;

fn disk() -> Arc<SimDisk> {
    let disk = SimDisk::with_block(1, BLOCK as u32);
    furnish(&*disk);
    disk
}

fn preparer(disk: &Arc<SimDisk>, segment_bytes: u64) -> Preparer {
    let identity = Identity { segment_bytes, ..identity() };
    Preparer::new(Arc::clone(disk) as _, &identity, SHARD, Start::default())
}

fn header(prepared: &Prepared) -> SegmentHeader {
    let mut block = vec![0; BLOCK as usize];
    prepared.file.read_at(0, &mut block).unwrap();
    SegmentHeader::decode(&block).unwrap()
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list("shard-0000").unwrap().into_iter().map(|entry| entry.name).collect()
}

fn bytes(disk: &SimDisk) -> u64 {
    disk.list("shard-0000").unwrap().into_iter().map(|entry| entry.bytes).sum()
}

#[test]
fn sizes_double_up_to_what_the_store_says() {
    let disk = disk();
    let mut preparer = preparer(&disk, 5 << 20);
    let sizes: Vec<u64> = (0..5).map(|_| preparer.prepare(BLOCK).unwrap().bytes >> 20).collect();
    assert_eq!(sizes, [1, 2, 4, 5, 5]);
    // A write that is larger than that gets what it needs, its header's block too.
    let large = preparer.prepare((6 << 20) + 1).unwrap();
    assert_eq!(large.bytes, (6 << 20) + 2 * BLOCK);
    assert_eq!(large.file.len().unwrap(), large.bytes);
}

#[test]
fn sizes_at_the_limit() {
    let disk = disk();
    let mut preparer = preparer(&disk, 16 * BLOCK);
    let error = preparer.prepare(SEGMENT_BYTES_MAX - BLOCK + 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(preparer.prepare(u64::MAX).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(preparer.prepare(0).unwrap().id, SegmentId(1));
}

#[test]
fn numbers_do_not_wrap() {
    let start = Start { highest: SegmentId(u32::MAX - 1), ..Start::default() };
    let mut preparer = Preparer::new(disk(), &identity(), SHARD, start);
    assert_eq!(preparer.prepare(1).unwrap().id, SegmentId(u32::MAX));
    assert_eq!(preparer.prepare(1).unwrap_err().kind(), ErrorKind::TooLarge);
}

#[test]
fn the_first_states_the_end_and_the_others_go_on() {
    let disk = disk();
    let whole: Arc<dyn Disk> = Arc::clone(&disk) as _;
    life(&whole, &[1]);
    let (found, _) = open(&*disk, Mode::Write).unwrap();
    let mut preparer = Preparer::new(whole, &identity(), SHARD, found.start.clone());
    let [first, second] = [(); 2].map(|()| preparer.prepare(1).unwrap());
    assert_eq!((first.id, second.id), (SegmentId(2), SegmentId(3)));
    assert_ne!(first.salt, second.salt);
    assert_eq!(header(&first).kind, SegmentKind::Opened { accepted: found.accepted });
    assert_eq!(header(&second).kind, SegmentKind::Rolled);
    assert_eq!((header(&second).origin.salt, header(&second).bytes), (second.salt, second.bytes));
    assert_eq!(first.path, "shard-0000/0000000000000002.seg");
}

#[test]
fn a_prepared_segment_is_durable_with_two_syncs() {
    let disk = disk();
    let counts = || (disk.count(Op::Sync), disk.count(Op::SyncDir));
    let mut preparer = preparer(&disk, 16 * BLOCK);
    let before = counts();
    let prepared = preparer.prepare(1).unwrap();
    assert_eq!(counts(), (before.0 + 1, before.1 + 1));
    let durable = disk.clone_durable();
    let file = durable.open(&prepared.path, Access::Read).unwrap();
    assert_eq!(file.len().unwrap(), prepared.bytes);
    let mut block = vec![0; BLOCK as usize];
    file.read_at(0, &mut block).unwrap();
    SegmentHeader::decode(&block).unwrap();
}

#[test]
fn a_full_disk_leaves_nothing_and_can_be_tried_again() {
    let disk = disk();
    let mut preparer = preparer(&disk, 16 * BLOCK);
    let first = preparer.prepare(1).unwrap();
    let before = (names(&disk), bytes(&disk));
    let taken = disk.list("").unwrap().iter().map(|entry| entry.bytes).sum::<u64>() + before.1;
    disk.set_capacity(taken + 10 * BLOCK);
    for _ in 0..3 {
        assert_eq!(preparer.prepare(1).unwrap_err().kind(), ErrorKind::Full);
        assert_eq!((names(&disk), bytes(&disk)), before);
    }
    disk.set_capacity(u64::MAX);
    assert_eq!(preparer.prepare(1).unwrap().id.0, first.id.0 + 1);
}

#[test]
fn any_operation_may_fail_once_and_the_next_attempt_works() {
    for op in [Op::Create, Op::Prepare, Op::Write, Op::Sync, Op::SyncDir] {
        for already in 0..3 {
            let disk = disk();
            let whole: Arc<dyn Disk> = Arc::clone(&disk) as _;
            life(&whole, &[1, 2]);
            let (found, _) = open(&*disk, Mode::Write).unwrap();
            let mut preparer = Preparer::new(Arc::clone(&whole), &identity(), SHARD, found.start);
            for _ in 0..already {
                preparer.prepare(1).unwrap();
            }
            let kind = std::io::ErrorKind::Other;
            disk.plan(Fault { op, nth: 1, lasting: false, kind, short: true });
            assert_eq!(preparer.prepare(1).unwrap_err().kind(), ErrorKind::Io, "{op:?}");
            let (found, _) = open(&*disk.crash(3), Mode::Write).unwrap();
            assert_eq!(found.records, 3);
            preparer.prepare(1).unwrap();
            let (found, _) = open(&*disk, Mode::Write).unwrap();
            assert_eq!(found.records, 3);
            let spares = names(&disk).iter().filter(|name| name.ends_with(".spare")).count();
            assert_eq!(spares, 0, "{op:?} {:?}", names(&disk));
        }
    }
}

#[test]
fn what_was_prepared_and_never_used_is_used_again() {
    let disk = disk();
    let whole: Arc<dyn Disk> = Arc::clone(&disk) as _;
    let mut hand = Hand::open(Arc::clone(&whole)).unwrap();
    hand.flush(1).unwrap();
    hand.prepare_next().unwrap();
    drop(hand);
    let (found, _) = open(&*disk, Mode::Write).unwrap();
    assert_eq!(found.start.leftovers.len(), 1);
    let mut preparer = Preparer::new(whole, &identity(), SHARD, found.start);
    let old_tail = disk.open("shard-0000/0000000000000001.seg", Access::Read).unwrap();
    let first = preparer.prepare(1).unwrap();
    // The old tail is cut to what the log has of it, and the leftover waits for its turn.
    assert_eq!(old_tail.len().unwrap(), 2 * BLOCK);
    assert_eq!(names(&disk).len(), 3, "{:?}", names(&disk));
    let created = disk.count(Op::Create);
    let second = preparer.prepare(1).unwrap();
    assert_eq!(disk.count(Op::Create), created);
    assert_eq!((first.id, second.id), (SegmentId(3), SegmentId(4)));
    assert_eq!(header(&second).origin.salt, second.salt);
    let left: Vec<String> = names(&disk);
    assert_eq!(left, [1, 3, 4].map(|id| format!("{id:016x}.seg")));
    // Nothing of its earlier use is taken for the new one's.
    let (found, _) = open(&*disk, Mode::Write).unwrap();
    assert_eq!(found.records, 1);
}

#[test]
fn leftovers_stay_until_the_header_that_replaces_them_is_durable() {
    for op in [Op::Sync, Op::SyncDir] {
        let disk = disk();
        let mut hand = Hand::open(Arc::clone(&disk) as _).unwrap();
        hand.flush(1).unwrap();
        hand.prepare_next().unwrap();
        drop(hand);
        let (found, _) = open(&*disk, Mode::Write).unwrap();
        let mut preparer = Preparer::new(Arc::clone(&disk) as _, &identity(), SHARD, found.start);
        let kind = std::io::ErrorKind::Other;
        disk.plan(Fault { op, nth: 1, lasting: false, kind, short: false });
        let leftover = format!("{:016x}.seg", 2);
        preparer.prepare(1).unwrap_err();
        assert!(names(&disk).contains(&leftover), "{op:?}");
        preparer.prepare(1).unwrap();
        assert!(!names(&disk).contains(&leftover));
    }
}

#[test]
fn a_spare_that_is_too_small_is_left_and_few_are_kept() {
    let disk = disk();
    for id in 1..=5_u64 {
        let file = disk.create(&format!("shard-0000/{:016x}.spare", id + 10)).unwrap();
        file.set_len(id * 4 * BLOCK).unwrap();
    }
    let (found, _) = open(&*disk, Mode::Write).unwrap();
    assert_eq!((found.start.spares.len(), found.start.highest), (5, SegmentId(15)));
    let mut preparer = Preparer::new(Arc::clone(&disk) as _, &identity(), SHARD, found.start);
    // The smallest that is large enough: 16 blocks.
    let first = preparer.prepare(1).unwrap();
    assert_eq!((first.id, first.bytes), (SegmentId(16), 16 * BLOCK));
    assert_eq!(names(&disk).len(), 3, "{:?}", names(&disk));
    let second = preparer.prepare(30 * BLOCK).unwrap();
    assert_eq!(second.bytes, 31 * BLOCK);
    let third = preparer.prepare(1).unwrap();
    assert_eq!(third.bytes, 20 * BLOCK);
}

#[test]
fn short_lives_take_little() {
    let disk = disk();
    let identity = Identity { segment_bytes: 64 << 20, ..identity() };
    let whole: Arc<dyn Disk> = Arc::clone(&disk) as _;
    let counts = || disk.count(Op::Sync) + disk.count(Op::SyncDir);
    for life in 0..20 {
        let index = crate::index::Index::new(identity.hash_key);
        let before = counts();
        let found = crate::recover::recover(&*disk, &identity, SHARD, Mode::Write, &index).unwrap();
        assert_eq!(found.records, 0);
        let mut preparer = Preparer::new(Arc::clone(&whole), &identity, SHARD, found.start);
        let active = preparer.prepare(BLOCK).unwrap();
        assert_eq!(active.bytes, SEGMENT_BYTES_FIRST);
        let next = preparer.prepare(BLOCK).unwrap();
        preparer.finish(Some((&*active.file, 4 * BLOCK)), Some(next)).unwrap();
        // Two for each prepared segment, one for the old tail.
        assert!(counts() - before <= 5, "{}", counts() - before);
        assert!(bytes(&disk) <= 20 * 4 * BLOCK, "{} bytes after {life} lives", bytes(&disk));
    }
}

#[test]
fn a_large_store_keeps_what_it_prepared() {
    let disk = disk();
    let mut preparer = preparer(&disk, 16 * BLOCK);
    let mut active = preparer.prepare(1).unwrap();
    for _ in 0..3 {
        active = preparer.prepare(1).unwrap();
    }
    let next = preparer.prepare(1).unwrap();
    preparer.finish(Some((&*active.file, 3 * BLOCK)), Some(next)).unwrap();
    let spares: Vec<_> = names(&disk).into_iter().filter(|name| name.ends_with(".spare")).collect();
    assert_eq!(spares, [format!("{:016x}.spare", 5)]);
    assert_eq!(active.file.len().unwrap(), 3 * BLOCK);
}
