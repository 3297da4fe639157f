//! M9 and M16: from a push to a log writer that is awake.

#![cfg(loom)]

use std::sync::Arc;

use annals::internals::reserve::decide::Look;
use annals::internals::reserve::write::Status;
use annals::internals::sync::doorbell::Doorbell;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use loom_tests::{Bell, Fault, LogWriter, Part, Shard, broken, holds};

/// A shard whose log writer sleeps when it has nothing to do.
struct Sleepy {
    shard: Shard,
    doorbell: Doorbell,
    bell: Bell,
}

impl Sleepy {
    fn new(slots: usize) -> Arc<Sleepy> {
        Arc::new(Sleepy { shard: Shard::new(slots), doorbell: Doorbell::new(), bell: Bell::new() })
    }

    fn push(&self, name: &'static str) {
        self.shard.submit(self.shard.write(name, &[])).unwrap();
    }

    fn wake(&self) {
        if self.doorbell.must_wake() {
            self.bell.ring();
        }
    }

    /// The log writer's thread, until it has placed `last`.
    fn run_until(&self, last: &'static str) -> Vec<&'static str> {
        let mut writer = LogWriter::new(&self.shard);
        loop {
            writer.place();
            if writer.log().contains(&last) {
                return writer.log();
            }
            self.doorbell.sleep_unless(|| !self.shard.stack.is_empty(), || self.bell.sleep());
        }
    }
}

/// M9. A push beside a log writer that is about to sleep: it is woken, or it sees the push. It finds the write with all
/// that the submitter put into it.
fn a_push_beside_a_log_writer_going_to_sleep() {
    let sleepy = Sleepy::new(0);
    let pusher = {
        let sleepy = Arc::clone(&sleepy);
        thread::spawn(move || {
            sleepy.push("a");
            sleepy.wake();
        })
    };
    sleepy.run_until("a");
    pusher.join().unwrap();
}

/// The other way round.
fn a_log_writer_going_to_sleep_beside_a_push() {
    let sleepy = Sleepy::new(0);
    let writer = {
        let sleepy = Arc::clone(&sleepy);
        thread::spawn(move || sleepy.run_until("a"))
    };
    sleepy.push("a");
    sleepy.wake();
    writer.join().unwrap();
}

#[test]
fn m9_a_push_beside_a_log_writer_going_to_sleep() {
    holds(4, a_push_beside_a_log_writer_going_to_sleep);
    holds(4, a_log_writer_going_to_sleep_beside_a_push);
}

#[test]
fn m9_broken_a_push_without_a_fence() {
    broken(Fault::RingsUnfenced, 4, "deadlock", a_log_writer_going_to_sleep_beside_a_push);
}

#[test]
fn m9_broken_a_sleep_without_a_fence() {
    broken(Fault::SleepsUnfenced, 4, "deadlock", a_log_writer_going_to_sleep_beside_a_push);
}

#[test]
fn m9_broken_a_write_pushed_without_what_it_holds() {
    let model = a_log_writer_going_to_sleep_beside_a_push;
    broken(Fault::PushesRelaxed, 4, "Causality violation", model);
}

/// M9. One pusher stops after it saw the log writer asleep, before it calls. The other one's write is not left behind.
fn a_pusher_stopped_before_its_call() {
    let sleepy = Sleepy::new(0);
    let stopped = {
        let sleepy = Arc::clone(&sleepy);
        thread::spawn(move || {
            sleepy.push("stopped");
            let _it_calls_no_more = sleepy.doorbell.must_wake();
        })
    };
    let pusher = {
        let sleepy = Arc::clone(&sleepy);
        thread::spawn(move || {
            sleepy.push("a");
            sleepy.wake();
        })
    };
    sleepy.run_until("a");
    stopped.join().unwrap();
    pusher.join().unwrap();
}

#[test]
fn m9_a_pusher_stopped_before_its_call() {
    holds(3, a_pusher_stopped_before_its_call);
}

#[test]
fn m9_broken_one_calls_for_all() {
    broken(Fault::RingsOnce, 3, "deadlock", a_pusher_stopped_before_its_call);
}

/// M9. Two pushers at once, and a log writer that takes between them: everything is taken once, each pusher's in order.
#[test]
fn m9_nothing_is_lost_or_taken_twice() {
    holds(3, || {
        let shard = Arc::new(Shard::new(0));
        let other = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || {
                for name in ["a1", "a2"] {
                    shard.submit(shard.write(name, &[])).unwrap();
                }
            })
        };
        let pusher = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || {
                shard.submit(shard.write("b", &[])).unwrap();
            })
        };
        let mut writer = LogWriter::new(&shard);
        writer.place();
        other.join().unwrap();
        pusher.join().unwrap();
        writer.place();
        let log = writer.log();
        let at = |name| log.iter().position(|placed| *placed == name).unwrap();
        assert!(log.len() == 3 && at("a1") < at("a2") && at("b") < 3);
    });
}

/// What somebody does who waits for another's write.
#[derive(Clone, Copy, PartialEq)]
enum Waiter {
    /// Looks, then pushes a request of its own and waits for that.
    AsksAfterLooking,
    /// Pushes the request before it looks.
    AsksBeforeLooking,
    /// Waits for the other's write.
    Trusts,
}

/// M16. The owner of a write stops when it is decided, before it wakes the log writer. Somebody who saw the write waits
/// until it is durable: when the request is answered, the write is in the log before it.
///
/// Loom goes back to what stands before a load only for a store that no load of the storing thread precedes. The
/// `turn` is one: it lets the owner run before the look.
fn a_winner_whose_owner_stopped(waiter: Waiter) -> impl Fn() {
    move || {
        let sleepy = Sleepy::new(1);
        let turn = Arc::new(AtomicBool::new(false));
        let writer = {
            let sleepy = Arc::clone(&sleepy);
            let until = if waiter == Waiter::Trusts { "winner" } else { "request" };
            thread::spawn(move || sleepy.run_until(until))
        };
        let owner = {
            let (sleepy, turn) = (Arc::clone(&sleepy), Arc::clone(&turn));
            thread::spawn(move || {
                turn.store(true, Ordering::Relaxed);
                let shard = &sleepy.shard;
                let parts = [Part::Append(0, Look::NOTHING)];
                let status = shard.pinned(|guard| shard.append("winner", &parts, guard));
                assert_eq!(status, Status::Accepted);
            })
        };
        let shard = &sleepy.shard;
        if waiter == Waiter::AsksBeforeLooking {
            sleepy.push("request");
        }
        turn.load(Ordering::Relaxed);
        let seen = shard.pinned(|guard| shard.look(0, guard));
        if waiter == Waiter::AsksAfterLooking {
            sleepy.push("request");
        }
        if waiter != Waiter::Trusts {
            sleepy.wake();
        }
        let log = writer.join().unwrap();
        owner.join().unwrap();
        if seen.version > 0 {
            let at = |name| log.iter().position(|placed| *placed == name);
            assert!(at("winner").is_some(), "answered without what it waits for");
            assert!(waiter == Waiter::Trusts || at("winner") < at("request"), "answered too early");
        }
    }
}

#[test]
fn m16_a_winner_whose_owner_stopped() {
    holds(2, a_winner_whose_owner_stopped(Waiter::AsksAfterLooking));
}

#[test]
fn m16_broken_asked_before_the_look() {
    broken(None, 3, "answered too early", a_winner_whose_owner_stopped(Waiter::AsksBeforeLooking));
}

#[test]
fn m16_broken_nobody_asks() {
    broken(None, 2, "deadlock", a_winner_whose_owner_stopped(Waiter::Trusts));
}
