//! M14: when memory is used again.

#![cfg(loom)]

use std::sync::Arc;

use annals::internals::reserve::decide::Look;
use annals::internals::reserve::write::Status;
use annals::internals::sync::epoch::Domain;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use loom_tests::{Fault, LogWriter, Part, Shard, broken, holds};

/// A word that leads to one of two places, as a slot leads to an entry.
struct Places {
    domain: Domain,
    place: AtomicUsize,
    places: [UnsafeCell<u32>; 2],
}

// SAFETY: what is shared of the cells is what the models are about, and loom checks it.
unsafe impl Sync for Places {}

impl Places {
    fn new() -> Places {
        Places {
            domain: Domain::new(),
            place: AtomicUsize::new(0),
            places: [UnsafeCell::new(0), UnsafeCell::new(0)],
        }
    }

    fn look(&self) {
        let member = self.domain.join();
        let _guard = member.pin();
        // SAFETY: what was found under the guard is not written to while it lives; the model checks that.
        self.places[self.place.load(Ordering::Acquire)].with(|place| unsafe { *place });
    }

    /// Takes place 0 out of reach, and uses it again as soon as so many epochs have passed.
    fn reuse(&self, epochs: u64) {
        self.place.store(1, Ordering::Release);
        let noted = self.domain.epoch();
        for _ in 0..3 {
            if self.domain.advance() >= noted + epochs {
                // SAFETY: nobody can have found it any more; the model checks that.
                self.places[0].with_mut(|place| unsafe { *place = 1 });
                return;
            }
        }
    }
}

/// M14. A thread follows a word under a guard; another takes what it leads to out of reach, waits for the grace
/// period, and uses it again.
fn a_guard_beside_a_reuse(epochs: u64) -> impl Fn() {
    move || {
        let places = Arc::new(Places::new());
        let looker = {
            let places = Arc::clone(&places);
            thread::spawn(move || places.look())
        };
        places.reuse(epochs);
        looker.join().unwrap();
    }
}

/// As above, the other way round: loom then goes back to other places.
fn a_reuse_beside_a_guard(epochs: u64) -> impl Fn() {
    move || {
        let places = Arc::new(Places::new());
        let writer = {
            let places = Arc::clone(&places);
            thread::spawn(move || places.reuse(epochs))
        };
        places.look();
        writer.join().unwrap();
    }
}

#[test]
fn m14_a_guard_beside_a_reuse() {
    holds(4, a_guard_beside_a_reuse(2));
    holds(4, a_reuse_beside_a_guard(2));
}

#[test]
fn m14_broken_reused_after_one_epoch() {
    broken(None, 4, "Causality violation", a_reuse_beside_a_guard(1));
}

#[test]
fn m14_broken_an_announcement_without_a_fence() {
    broken(Fault::PinsUnfenced, 4, "Causality violation", a_reuse_beside_a_guard(2));
}

#[test]
fn m14_broken_the_end_of_a_guard_not_acquired() {
    broken(Fault::AdvancesBlindly, 4, "Causality violation", a_reuse_beside_a_guard(2));
}

/// M14. Another thread moves the epoch on twice meanwhile, so that the fences of the one that waits for the grace period
/// do not stand in for its own.
fn another_moves_the_epoch() {
    let places = Arc::new(Places::new());
    let writer = {
        let places = Arc::clone(&places);
        thread::spawn(move || places.reuse(2))
    };
    let mover = {
        let places = Arc::clone(&places);
        thread::spawn(move || {
            places.domain.advance();
            places.domain.advance();
        })
    };
    places.look();
    writer.join().unwrap();
    mover.join().unwrap();
}

#[test]
fn m14_another_moves_the_epoch() {
    holds(2, another_moves_the_epoch);
}

#[test]
fn m14_broken_an_epoch_taken_from_another_without_what_it_saw() {
    broken(Fault::LosesRelaxed, 2, "Causality violation", another_moves_the_epoch);
}

#[test]
fn m14_broken_the_epoch_noted_without_a_fence() {
    broken(Fault::NotesUnfenced, 2, "Causality violation", another_moves_the_epoch);
}

#[test]
fn m14_broken_announcements_looked_at_without_a_fence() {
    broken(Fault::AdvancesUnfenced, 2, "Causality violation", another_moves_the_epoch);
}

/// When the log writer of a model uses a published write again.
#[derive(Clone, Copy, PartialEq)]
enum Reuse {
    AfterGrace,
    AtOnce,
}

/// M14. The log writer places, publishes and clears a write while its owner still installs it. When the memory is
/// used again, the owner has let go of it, and it is in no slot.
fn an_owner_beside_the_log_writer(reuse: Reuse) -> impl Fn() {
    move || {
        let shard = Arc::new(Shard::with_epochs(2));
        let writer = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || {
                let mut writer = LogWriter::new(&shard);
                writer.place();
                for write in writer.publish() {
                    if reuse == Reuse::AtOnce || shard.grace_passes() {
                        shard.reuse(write);
                    }
                }
            })
        };
        let parts = [Part::Append(0, Look::NOTHING), Part::Append(1, Look::NOTHING)];
        let status = shard.pinned(|guard| shard.append("a", &parts, guard));
        assert_eq!(status, Status::Accepted);
        writer.join().unwrap();
        let out = shard.slots.iter().all(|slot| slot.plain_tick().is_some());
        assert!(out || !shard.has_reused(), "a spent write stands in a slot");
    }
}

#[test]
fn m14_an_owner_beside_the_log_writer() {
    holds(3, an_owner_beside_the_log_writer(Reuse::AfterGrace));
}

#[test]
fn m14_broken_reused_when_it_is_published() {
    broken(None, 3, "Causality violation", an_owner_beside_the_log_writer(Reuse::AtOnce));
}

/// M14. A thread looks twice, and may have begun its second guard when the epoch moves on: what it did under the first
/// is over all the same.
fn a_guard_after_a_guard() {
    let places = Arc::new(Places::new());
    let looker = {
        let places = Arc::clone(&places);
        thread::spawn(move || {
            places.look();
            places.look();
        })
    };
    places.reuse(2);
    looker.join().unwrap();
}

#[test]
fn m14_a_guard_after_a_guard() {
    holds(4, a_guard_after_a_guard);
}

#[test]
fn m14_broken_an_announcement_that_hides_the_end_before_it() {
    broken(Fault::AnnouncesRelaxed, 4, "Causality violation", a_guard_after_a_guard);
}

/// M14. A place in the domain that one thread leaves is taken by another, which announces itself there.
#[test]
fn m14_a_place_changes_hands() {
    holds(3, || {
        let places = Arc::new(Places::new());
        let looker = {
            let places = Arc::clone(&places);
            thread::spawn(move || {
                places.look();
                places.look();
            })
        };
        places.look();
        places.reuse(2);
        looker.join().unwrap();
    });
}
