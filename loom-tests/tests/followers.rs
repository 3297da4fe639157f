//! M17: following a log, and watching a slot.

#![cfg(loom)]

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::task::Waker;

use annals::internals::id::Position;
use annals::internals::sync::followers::{self, Bell, Followers, Seat};
use annals::internals::sync::watermark::Watermark;
use loom::thread::{self, JoinHandle};
use loom_tests::{Fault, Shard, block_on, broken, holds};

/// A watermark, and who waits for it to move.
struct Log {
    watermark: Watermark,
    /// Dropped unless the model has failed: its threads are then taken down where they stand, outside of the model.
    followers: ManuallyDrop<Followers>,
}

impl Log {
    fn new() -> Arc<Log> {
        let followers = ManuallyDrop::new(Followers::new());
        Arc::new(Log { watermark: Watermark::new(Position::START), followers })
    }

    /// Log writer: makes something durable, and wakes whoever waits.
    fn publish(&self, end: u64) {
        self.watermark.publish(Position::from_raw(end));
        followers::published();
        ring(&self.followers);
    }

    /// Whether the watermark has come so far.
    fn look(&self, end: u64) -> Option<()> {
        (self.watermark.get().get() >= end).then_some(())
    }

    /// A thread waits.
    fn wait(&self, end: u64) {
        let bell = Arc::new(Bell::new());
        let seat = Seat::new(&bell);
        let found =
            followers::wait(&bell, None, || self.followers.enlist(&seat), || self.look(end));
        assert_eq!(found, Some(()));
    }

    /// A task waits.
    fn poll(&self, bell: &Bell, seat: &Arc<Seat>, waker: &Waker, end: u64) -> Option<()> {
        self.look(end).or_else(|| {
            bell.register(waker);
            self.followers.enlist(seat);
            self.look(end)
        })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: it is not used again.
            unsafe { ManuallyDrop::drop(&mut self.followers) };
        }
    }
}

fn ring(followers: &Followers) {
    let mut wakers = Vec::new();
    followers.ring(&mut wakers);
    wakers.into_iter().for_each(Waker::wake);
}

fn spawn(log: &Arc<Log>, run: impl FnOnce(&Log) + 'static) -> JoinHandle<()> {
    let log = Arc::clone(log);
    thread::spawn(move || run(&log))
}

/// M17. A thread waits for the watermark, which moves twice.
fn a_thread_waits() {
    let log = Log::new();
    let follower = spawn(&log, |log| {
        log.wait(1);
        log.wait(2);
    });
    log.publish(1);
    log.publish(2);
    follower.join().unwrap();
}

#[test]
fn m17_a_thread_waits() {
    holds(3, a_thread_waits);
}

#[test]
fn m17_broken_a_ring_without_a_fence() {
    broken(Fault::RingsFollowersUnfenced, 3, "deadlock", a_thread_waits);
}

#[test]
fn m17_broken_enlisted_without_a_fence() {
    broken(Fault::EnlistsUnfenced, 3, "deadlock", a_thread_waits);
}

/// M17. A task waits for the watermark, which moves twice: for the first, it may be rung when its seat is listed already.
fn a_task_waits() {
    let log = Log::new();
    let follower = spawn(&log, |log| {
        let bell = Arc::new(Bell::new());
        let seat = Seat::new(&bell);
        block_on(|waker| log.poll(&bell, &seat, waker, 2));
    });
    log.publish(1);
    log.publish(2);
    follower.join().unwrap();
}

#[test]
fn m17_a_task_waits() {
    holds(3, a_task_waits);
}

#[test]
fn m17_broken_a_task_enlisted_without_a_fence() {
    broken(Fault::EnlistsUnfenced, 3, "deadlock", a_task_waits);
}

/// M17. A task is polled twice without need while the list is rung: its seat is pushed again, or found listed.
fn a_task_is_polled_without_need() {
    let log = Log::new();
    let follower = spawn(&log, |log| {
        let bell = Arc::new(Bell::new());
        let seat = Seat::new(&bell);
        for _ in 0..2 {
            log.poll(&bell, &seat, Waker::noop(), 2);
        }
    });
    log.publish(1);
    follower.join().unwrap();
}

#[test]
fn m17_a_task_is_polled_without_need() {
    holds(3, a_task_is_polled_without_need);
}

#[test]
fn m17_broken_a_seat_found_off_the_list_without_acquiring_it() {
    broken(Fault::ListsRelaxed, 3, "Causality violation", a_task_is_polled_without_need);
}

#[test]
fn m17_broken_a_seat_is_off_the_list_before_it_is_read() {
    broken(Fault::ClearsFirst, 3, "Causality violation", a_task_is_polled_without_need);
}

/// M17. Two followers, two rings: each is woken for what it waits for.
#[test]
fn m17_two_followers_and_two_rings() {
    holds(2, || {
        let log = Log::new();
        let followers = [spawn(&log, |log| log.wait(1)), spawn(&log, |log| log.wait(2))];
        log.publish(1);
        log.publish(2);
        for follower in followers {
            follower.join().unwrap();
        }
    });
}

/// M17. Two ring the list at once, which is more than one log writer does: whoever waits is woken for nothing, or for
/// something.
#[test]
fn m17_two_ring() {
    holds(2, || {
        let log = Log::new();
        let follower = spawn(&log, |log| log.wait(1));
        let other = spawn(&log, |log| ring(&log.followers));
        log.publish(1);
        follower.join().unwrap();
        other.join().unwrap();
    });
}

/// M17. A slot is watched while two versions of it are published: head and version, the watermark, the fence, the ring. The
/// watch may leave out the first, and never ends with less than the second.
fn a_slot_is_watched() {
    let shard = Arc::new(Shard::new(1));
    let watcher = {
        let shard = Arc::clone(&shard);
        thread::spawn(move || {
            let slot = shard.slots[0];
            let bell = Arc::new(Bell::new());
            let seat = Seat::new(&bell);
            let mut given = 0;
            while given < 2 {
                let news = || {
                    let watermark = shard.watermark.get().get();
                    // What stands behind the watermark is looked for at the record's predecessor.
                    let version = slot.head().get().min(watermark.saturating_sub(1));
                    (version > given).then_some(version)
                };
                let found = followers::wait(&bell, None, || slot.watchers.enlist(&seat), news);
                given = found.expect("the wait has no limit");
            }
        })
    };
    let slot = shard.slots[0];
    for version in 1..=2 {
        slot.publish_version(version, Position::from_raw(version));
        shard.watermark.publish(Position::from_raw(version + 1));
        followers::published();
        ring(&slot.watchers);
    }
    watcher.join().unwrap();
}

#[test]
fn m17_a_slot_is_watched() {
    holds(3, a_slot_is_watched);
}

#[test]
fn m17_broken_a_slot_is_rung_without_a_fence() {
    broken(Fault::RingsFollowersUnfenced, 3, "deadlock", a_slot_is_watched);
}
