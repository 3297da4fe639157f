//! For each mutant that a random run seldom meets, the shortest run that exposes it: what holds without it does not with
//! it.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::hand::*;
use crate::disk::sim::{Fault as SyncFails, Loss, Op, SimDisk};
use crate::disk::{Access, Disk};
use crate::format::SegmentHeader;
use crate::recover::Mode;
use crate::sync::fault::{self, Fault};

fn disk() -> (Arc<SimDisk>, Arc<dyn Disk>) {
    let sim = SimDisk::with_block(1, BLOCK as u32);
    furnish(&*sim);
    (Arc::clone(&sim), sim)
}

fn segment(id: u32) -> String {
    format!("shard-0000/{id:016x}.seg")
}

/// Holds that the run ends well, and not with the mutant.
#[track_caller]
fn exposes(mutant: Fault, holds: impl Fn() -> bool) {
    assert!(holds(), "without {mutant:?}");
    fault::set(Some(mutant));
    let held = catch_unwind(AssertUnwindSafe(&holds));
    fault::set(None);
    assert!(!held.is_ok_and(|held| held), "{mutant:?} is not seen");
}

/// How many writes an opening for writing finds; `None` if it is refused.
fn records(disk: &dyn Disk) -> Option<u64> {
    open(disk, Mode::Write).ok().map(|(found, _)| found.records)
}

fn after(sim: &SimDisk, loss: Loss) -> Arc<SimDisk> {
    sim.set_loss(loss);
    sim.crash(1)
}

#[test]
fn what_was_shown_after_a_death_is_there_after_a_power_cut() {
    exposes(Fault::RecoversUnsynced, || {
        let (sim, disk) = disk();
        let mut hand = Hand::open(disk).unwrap();
        hand.flush(1).unwrap();
        hand.start(1).unwrap();
        let dead = after(&sim, Loss::Nothing);
        let shown = records(&*dead);
        shown == Some(2) && records(&*after(&dead, Loss::All)) == shown
    });
}

#[test]
fn what_was_shown_after_a_failed_sync_is_there_after_a_power_cut() {
    exposes(Fault::TrustsCache, || {
        let (sim, disk) = disk();
        let mut hand = Hand::open(disk).unwrap();
        hand.flush(1).unwrap();
        hand.start(1).unwrap();
        sim.plan(SyncFails {
            op: Op::Sync,
            nth: 1,
            lasting: false,
            kind: ErrorKind::Other,
            short: false,
        });
        assert_eq!(records(&*sim), None);
        let shown = records(&*sim);
        records(&*after(&sim, Loss::All)) == shown
    });
}

#[test]
fn damage_below_the_proven_end_is_told() {
    for mutant in [Fault::CutsOnRot, Fault::ProvesTooLittle] {
        exposes(mutant, || {
            let (sim, disk) = disk();
            life(&disk, &[1, 1]);
            // The last flush before the one that states the frontier.
            sim.flip(&segment(1), 2 * BLOCK).unwrap();
            records(&*sim).is_none()
        });
    }
}

#[test]
fn a_whole_log_opens() {
    for mutant in [Fault::ProvesTooMuch, Fault::ForgetsAcceptedEnd] {
        exposes(mutant, || {
            let (sim, disk) = disk();
            life(&disk, &[1, 1]);
            // A life that writes nothing.
            Hand::open(disk).unwrap().roll().unwrap();
            records(&*sim) == Some(2)
        });
    }
}

#[test]
fn a_torn_flush_is_not_taken() {
    exposes(Fault::AcceptsTornRecords, || {
        let (sim, disk) = disk();
        let mut hand = Hand::open(disk).unwrap();
        hand.flush(1).unwrap();
        let second = u64::from(hand.at) + BLOCK;
        hand.start(4).unwrap();
        let file = sim.open(&segment(1), Access::Write).unwrap();
        file.write_at(second, &[0; BLOCK as usize]).unwrap();
        records(&*sim) == Some(1)
    });
    exposes(Fault::AcceptsTornEvents, || {
        let (sim, disk) = disk();
        let mut hand = Hand::open(disk).unwrap();
        hand.flush(1).unwrap();
        let event = u64::from(hand.at) + 250;
        hand.start(1).unwrap();
        sim.flip(&segment(1), event).unwrap();
        records(&*sim) == Some(1)
    });
}

#[test]
fn a_twin_is_not_taken_for_oneself() {
    exposes(Fault::ForgetsSalt, || {
        let (sim, disk) = disk();
        life(&disk, &[1]);
        let twin = sim.clone_durable();
        for disk in [&sim, &twin] {
            let mut hand = Hand::open(Arc::clone(disk) as _).unwrap();
            hand.flush(1).unwrap();
        }
        sim.graft(&twin, &segment(2), BLOCK..2 * BLOCK).unwrap();
        records(&*sim) == Some(1)
    });
}

#[test]
fn a_flush_that_landed_elsewhere_is_not_shown() {
    exposes(Fault::IgnoresPlace, || {
        let (sim, disk) = disk();
        let mut hand = Hand::open(disk).unwrap();
        hand.flush(1).unwrap();
        hand.start(1).unwrap();
        // One block behind its place. The next flush stands behind that, and says that all before it is durable.
        let file = sim.open(&segment(1), Access::Write).unwrap();
        let mut flush = [0; BLOCK as usize];
        file.read_at(2 * BLOCK, &mut flush).unwrap();
        file.write_at(3 * BLOCK, &flush).unwrap();
        file.write_at(2 * BLOCK, &[0; BLOCK as usize]).unwrap();
        hand.publish().unwrap();
        hand.at += BLOCK as u32;
        hand.flush(0).unwrap();
        let (found, _) = open(&*sim, Mode::Read).unwrap();
        found.records == 1 && !found.damage.is_empty()
    });
}

#[test]
fn a_segment_is_durable_before_it_is_used() {
    exposes(Fault::SkipsHeaderSync, || {
        let (sim, disk) = disk();
        let mut hand = Hand::open(disk).unwrap();
        hand.roll().unwrap();
        let file = sim.clone_durable().open(&segment(1), Access::Read);
        let mut block = [0; BLOCK as usize];
        file.unwrap().read_at(0, &mut block).unwrap();
        SegmentHeader::decode(&block).is_ok()
    });
    exposes(Fault::SkipsDirectorySync, || {
        let (sim, disk) = disk();
        let mut hand = Hand::open(disk).unwrap();
        hand.flush(1).unwrap();
        records(&*sim.clone_durable()) == Some(1)
    });
}

/// A disk on which a life has ended and left a segment above the end of its log.
fn with_leftover() -> Arc<SimDisk> {
    let (sim, disk) = disk();
    let mut hand = Hand::open(disk).unwrap();
    hand.flush(1).unwrap();
    hand.flush(1).unwrap();
    hand.roll().unwrap();
    hand.start_lost(1);
    // Whole, but behind one that was lost. It says that the second flush is durable.
    hand.start(1).unwrap();
    after(&sim, Loss::Nothing)
}

/// What the next life leaves if it ends at its n-th operation, once it has been opened.
fn cut_short(nth: u64, loss: Loss) -> Option<Arc<SimDisk>> {
    let sim = with_leftover();
    let mut hand = Hand::open(Arc::clone(&sim) as _).unwrap();
    sim.set_loss(loss);
    sim.plan_cut(nth, 1);
    let _ = hand.roll().and_then(|()| hand.prepare_next());
    sim.take_cut()
}

#[test]
fn leftovers_are_spares_when_nothing_depends_on_them() {
    exposes(Fault::TrustsSpareNames, || {
        let cuts = (1..).map_while(|nth| cut_short(nth, Loss::All));
        cuts.into_iter().all(|disk| records(&*disk) == Some(2))
    });
    exposes(Fault::TidiesFirst, || {
        let cuts = (1..).map_while(|nth| cut_short(nth, Loss::Nothing));
        cuts.into_iter().all(|disk| {
            disk.flip(&segment(1), 2 * BLOCK).unwrap();
            records(&*disk).is_none()
        })
    });
}
