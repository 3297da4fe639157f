//! M13: the limit on what is in flight, and on prepared space.

#![cfg(loom)]

use std::sync::Arc;

use annals::internals::sync::permits::{Permits, Short, Taken};
use loom::cell::UnsafeCell;
use loom::thread::{self, JoinHandle};
use loom_tests::{Fault, broken, holds};

const ONE: Taken = Taken { bytes: 1, blocks: 1 };

fn permits(bytes: i64, blocks: i64) -> Arc<Permits> {
    let permits = Permits::new(bytes);
    permits.grant(blocks);
    Arc::new(permits)
}

fn spawn<R: 'static>(
    permits: &Arc<Permits>,
    run: impl FnOnce(&Permits) -> R + 'static,
) -> JoinHandle<R> {
    let permits = Arc::clone(permits);
    thread::spawn(move || run(&permits))
}

/// A caller that waits for permits.
fn wait(permits: &Permits, needed: Taken) {
    if permits.take(needed).is_ok() {
        return;
    }
    loop {
        let room = permits.room().register();
        if permits.take_after_look(needed).is_ok() {
            return;
        }
        room.sleep(None);
    }
}

/// M13. Callers that take, are refused for either reason, and give back: nothing is lost, and nothing is there twice.
fn takers_and_refused() {
    let permits = permits(2, 1);
    let run = |permits: &Permits| match permits.take(ONE) {
        Ok(()) => {
            assert!(permits.blocks_left() == 0, "taken twice");
            permits.give_back(ONE);
        }
        Err(short) => assert!(short != Short::Held),
    };
    let other = spawn(&permits, run);
    let third = spawn(&permits, run);
    run(&permits);
    other.join().unwrap();
    third.join().unwrap();
    assert_eq!((permits.bytes_left(), permits.blocks_left()), (2, 1), "a permit lost");
}

#[test]
fn m13_takers_and_refused() {
    holds(3, takers_and_refused);
}

#[test]
fn m13_broken_bytes_kept_by_who_got_no_blocks() {
    broken(Fault::KeepsBytes, 3, "a permit lost", takers_and_refused);
}

/// M13. A caller waits for what another one holds.
fn a_caller_waits() {
    let permits = permits(1, 1);
    permits.take(ONE).unwrap();
    let waiter = spawn(&permits, |permits| wait(permits, ONE));
    permits.give_back(ONE);
    waiter.join().unwrap();
}

#[test]
fn m13_a_caller_waits() {
    holds(4, a_caller_waits);
}

#[test]
fn m13_broken_given_back_silently() {
    broken(Fault::ReturnsSilently, 4, "deadlock", a_caller_waits);
}

/// M13. A caller is refused for want of blocks, which keeps another one out for a moment: that one needs none, and is
/// not left sleeping.
fn one_refused_beside_one_that_waits() {
    let permits = permits(1, 0);
    let refused = spawn(&permits, |permits| assert!(permits.take(ONE).is_err()));
    wait(&permits, Taken { bytes: 1, blocks: 0 });
    refused.join().unwrap();
}

#[test]
fn m13_one_refused_beside_one_that_waits() {
    holds(4, one_refused_beside_one_that_waits);
}

#[test]
fn m13_broken_refused_silently() {
    broken(Fault::RefusesSilently, 4, "deadlock", one_refused_beside_one_that_waits);
}

/// M13. Two callers wait for the same permit and for blocks that are granted later: the refused do not keep each other
/// awake, and both get through.
#[test]
fn m13_two_wait_for_blocks_that_are_granted_later() {
    holds(2, || {
        let permits = permits(2, 0);
        let run = |permits: &Permits| {
            wait(permits, ONE);
            permits.give_back(ONE);
        };
        let waiters = [spawn(&permits, run), spawn(&permits, run)];
        permits.grant(1);
        permits.room().wake_all();
        for waiter in waiters {
            waiter.join().unwrap();
        }
        assert_eq!((permits.bytes_left(), permits.blocks_left()), (2, 1), "a permit lost");
    });
}

struct Segment(UnsafeCell<u32>);

// SAFETY: who may use it when is what the model is about, and loom checks it.
unsafe impl Sync for Segment {}

/// M13. Blocks are granted for a segment: who takes them finds it.
fn a_segment_is_prepared() {
    let permits = permits(1, 0);
    let segment = Arc::new(Segment(UnsafeCell::new(0)));
    let preparer = {
        let (permits, segment) = (Arc::clone(&permits), Arc::clone(&segment));
        thread::spawn(move || {
            // SAFETY: nobody reads it before there are permits; the model checks that.
            segment.0.with_mut(|segment| unsafe { *segment = 7 });
            permits.grant(1);
        })
    };
    if permits.take(ONE).is_ok() {
        // SAFETY: nobody writes to it once there are permits; the model checks that.
        assert_eq!(segment.0.with(|segment| unsafe { *segment }), 7);
    }
    preparer.join().unwrap();
}

/// M13. The log writer takes blocks out of circulation while somebody takes permits: not both.
#[test]
fn m13_a_withdrawal_beside_a_taker() {
    holds(4, || {
        let permits = permits(1, 1);
        let withdrawn = spawn(&permits, |permits| permits.withdraw(1));
        let taken = permits.take(ONE).is_ok();
        assert!(withdrawn.join().unwrap() != taken, "one of them");
        assert_eq!(permits.blocks_left(), 0);
    });
}

#[test]
fn m13_a_segment_is_prepared() {
    holds(4, a_segment_is_prepared);
}

#[test]
fn m13_broken_blocks_without_their_segment() {
    broken(Fault::GrantsRelaxed, 4, "Causality violation", a_segment_is_prepared);
}
