//! Readers beside a live writer.

use std::sync::Arc;

use super::hand::*;
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::recover::Mode;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread;

fn furnished() -> Arc<dyn Disk> {
    let disk = SimDisk::with_block(1, BLOCK as u32);
    furnish(&*disk);
    disk
}

#[test]
fn a_reader_sees_what_is_durable_and_no_damage() {
    let disk = furnished();
    let mut hand = Hand::open(Arc::clone(&disk)).unwrap();
    hand.flush(2).unwrap();
    hand.prepare_next().unwrap();
    let records = || {
        let (found, index) = open(&*disk, Mode::Read).unwrap();
        assert_eq!(found.damage, []);
        check_versions(&index, found.records);
        found.records
    };
    assert_eq!(records(), 2);
    // A gap in flight, and behind it what has arrived.
    hand.start_lost(1);
    hand.start(1).unwrap();
    assert_eq!(records(), 2);
    assert_eq!(verified(&*disk).problems, []);
}

#[test]
fn readers_while_a_writer_writes_rolls_closes_and_opens_again() {
    const LIVES: u64 = 25;
    let disk = furnished();
    let acked = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (disk, acked, done) = (Arc::clone(&disk), Arc::clone(&acked), Arc::clone(&done));
        thread::spawn(move || {
            for life in 0..LIVES {
                let mut hand = Hand::open(Arc::clone(&disk)).unwrap();
                for _ in 0..4 {
                    hand.flush(1).unwrap();
                    acked.store(hand.writes, Ordering::Release);
                    hand.prepare_next().unwrap();
                    hand.roll().unwrap();
                    hand.flush(2).unwrap();
                    acked.store(hand.writes, Ordering::Release);
                }
                // Every other life ends in the middle and leaves a prepared segment behind.
                hand.prepare_next().unwrap();
                if life % 2 == 0 {
                    hand.close().unwrap();
                }
            }
            done.store(true, Ordering::Release);
        })
    };
    let mut looks = 0;
    loop {
        let over = done.load(Ordering::Acquire);
        let least = acked.load(Ordering::Acquire);
        let (found, index) = open(&*disk, Mode::Read).unwrap();
        assert_eq!(found.damage, []);
        assert!(found.records >= least, "{} of {least}", found.records);
        check_versions(&index, found.records);
        looks += 1;
        if looks % 4 == 0 {
            assert_eq!(verified(&*disk).problems, []);
        }
        if over {
            break;
        }
    }
    writer.join().unwrap();
    assert_eq!(acked.load(Ordering::Acquire), LIVES * 12);
}
