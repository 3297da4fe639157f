//! M1 to M7: how writes are decided.

#![cfg(loom)]

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::Arc;

use annals::internals::reserve::decide::{self, Look};
use annals::internals::reserve::stack::Stack;
use annals::internals::reserve::write::Status;
use annals::internals::sync::epoch::Domain;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread::{self, JoinHandle};
use loom_tests::{Fault, LogWriter, Part, Shard, broken, holds, stop_at};

const X: usize = 0;
const Y: usize = 1;
const Z: usize = 2;

fn spawn<R: 'static>(shard: &Arc<Shard>, run: impl FnOnce(&Shard) -> R + 'static) -> JoinHandle<R> {
    let shard = Arc::clone(shard);
    thread::spawn(move || run(&shard))
}

fn accepted(statuses: &[Status]) -> usize {
    statuses.iter().filter(|status| **status == Status::Accepted).count()
}

/// Runs an append that was decided on nothing, by a thread of its own.
fn appends(shard: &Arc<Shard>, name: &'static str, slots: &'static [usize]) -> JoinHandle<Status> {
    spawn(shard, move |shard| {
        let parts: Vec<Part> =
            slots.iter().map(|slot| Part::Append(*slot, Look::NOTHING)).collect();
        shard.pinned(|guard| shard.append(name, &parts, guard))
    })
}

/// Takes, places and publishes everything, and checks that each slot is at the version of its tick.
fn settle(shard: &Shard) -> Vec<&'static str> {
    let mut writer = LogWriter::new(shard);
    writer.place();
    writer.publish();
    for slot in 0..shard.slots.len() {
        let look = shard.pinned(|guard| shard.look(slot, guard));
        assert_eq!(look.tick, look.version, "a version that is not its tick's");
    }
    writer.log()
}

/// M1. Two threads append where there is nothing. One wins, and the other is told so, now or when it looked.
fn one_slot_two_writers() {
    let append = |shard: &Shard, name| {
        shard.pinned(|guard| {
            let seen = shard.look(X, guard);
            if seen.version > 0 {
                return Status::Rejected;
            }
            shard.append(name, &[Part::Append(X, seen)], guard)
        })
    };
    let shard = Arc::new(Shard::new(1));
    let a = spawn(&shard, move |shard| append(shard, "a"));
    let b = append(&shard, "b");
    assert_eq!(accepted(&[a.join().unwrap(), b]), 1, "not one winner");
    assert_eq!(settle(&shard).len(), 1);
}

#[test]
fn m1_one_slot_two_writers_one_version() {
    holds(4, one_slot_two_writers);
}

#[test]
fn m1_broken_an_undecided_write_covered() {
    broken(Fault::InstallsOverUndecided, 3, "not one winner", one_slot_two_writers);
}

#[test]
fn m1_broken_an_entry_published_without_its_write() {
    broken(Fault::InstallsRelaxed, 3, "Causality violation", one_slot_two_writers);
}

/// M1. The log writer decides a write before its owner does. The owner sees its own write all the same.
///
/// Loom goes back to what stands before a load only for a store that no load of the storing thread precedes. The
/// `turn` is one: it lets the log writer decide before the owner looks at the status for the first time.
fn decided_by_another() {
    let shard = Arc::new(Shard::new(1));
    let turn = Arc::new(AtomicBool::new(false));
    shard.pinned(|guard| {
        let write = shard.submit(shard.write("a", &[Part::Append(X, Look::NOTHING)])).unwrap();
        let writer = spawn(&shard, {
            let turn = Arc::clone(&turn);
            move |shard| {
                turn.load(Ordering::Relaxed);
                LogWriter::new(shard).place();
            }
        });
        turn.store(true, Ordering::Relaxed);
        assert_eq!(shard.decide(write, guard), Status::Accepted);
        assert_eq!(shard.look(X, guard).version, 1, "an owner that misses its own write");
        writer.join().unwrap();
    });
}

#[test]
fn m1_an_owner_sees_its_write_though_another_decided_it() {
    holds(4, decided_by_another);
}

#[test]
fn m1_broken_a_decision_seen_without_its_reasons() {
    broken(Fault::DecidesRelaxed, 3, "an owner that misses its own write", decided_by_another);
}

/// M1. A look beside a write that is installed, accepted, published and cleared: the version is always its tick's.
fn look_beside_a_write() {
    let shard = Arc::new(Shard::new(1));
    let looker = spawn(&shard, |shard| {
        let look = shard.pinned(|guard| shard.look(X, guard));
        assert_eq!(look.tick, look.version, "a version that is not its tick's");
    });
    shard.pinned(|guard| shard.append("a", &[Part::Append(X, Look::NOTHING)], guard));
    settle(&shard);
    looker.join().unwrap();
}

#[test]
fn m1_a_look_beside_a_write() {
    holds(4, look_beside_a_write);
}

#[test]
fn m1_broken_a_word_read_once() {
    broken(Fault::LooksOnce, 3, "a version that is not its tick's", look_beside_a_write);
}

#[test]
fn m1_broken_a_version_shown_without_its_entry() {
    broken(Fault::PublishesRelaxed, 3, "a version that is not its tick's", look_beside_a_write);
}

/// M2. Two writes to the same two slots, given in opposite order. One wins, in both slots.
fn two_writes_crossing() {
    let shard = Arc::new(Shard::new(2));
    let a = appends(&shard, "a", &[X, Y]);
    let b = appends(&shard, "b", &[Y, X]);
    let statuses = [a.join().unwrap(), b.join().unwrap()];
    assert_eq!(accepted(&statuses), 1, "not one winner");
    assert_eq!(settle(&shard).len(), 1);
}

#[test]
fn m2_two_writes_crossing_on_two_slots() {
    holds(3, two_writes_crossing);
}

#[test]
fn m2_broken_each_in_its_own_order() {
    broken(Fault::LeavesUnsorted, 2, "exceeded maximum number of branches", two_writes_crossing);
}

#[test]
fn m2_broken_an_undecided_write_covered() {
    broken(Fault::InstallsOverUndecided, 2, "not one winner", two_writes_crossing);
}

/// M3. Three writes, each sharing a slot with each other one. One wins.
#[test]
fn m3_a_chain_of_three() {
    holds(2, || {
        let shard = Arc::new(Shard::new(3));
        let a = appends(&shard, "a", &[X, Y]);
        let b = appends(&shard, "b", &[Y, Z]);
        let parts = [Part::Append(Z, Look::NOTHING), Part::Append(X, Look::NOTHING)];
        let c = shard.pinned(|guard| shard.append("c", &parts, guard));
        assert_eq!(accepted(&[a.join().unwrap(), b.join().unwrap(), c]), 1, "not one winner");
    });
}

/// M3. As above, and the owner of the first write has stopped for good at a step. Whoever meets its write carries on
/// without it: one wins, and nobody waits.
fn a_chain_with_a_stopped_owner(step: &'static str, times: usize) -> impl Fn() {
    move || {
        let shard = Arc::new(Shard::new(3));
        let domain = Domain::new();
        let member = domain.join();
        let guard = member.pin();
        stop_at(step, times, || {
            let parts = [Part::Append(X, Look::NOTHING), Part::Append(Y, Look::NOTHING)];
            shard.append("a", &parts, &guard);
        });
        let b = appends(&shard, "b", &[Y, Z]);
        let parts = [Part::Append(Z, Look::NOTHING), Part::Append(X, Look::NOTHING)];
        let c = shard.pinned(|guard| shard.append("c", &parts, guard));
        let b = b.join().unwrap();
        let log = settle(&shard);
        assert_eq!(log.len(), 1, "not one winner");
        assert_eq!(log.contains(&"b"), b == Status::Accepted);
        assert_eq!(log.contains(&"c"), c == Status::Accepted);
    }
}

#[test]
fn m3_a_chain_of_three_the_first_stopped_before_it_installs() {
    holds(3, a_chain_with_a_stopped_owner("install", 1));
}

#[test]
fn m3_a_chain_of_three_the_first_stopped_between_two_slots() {
    holds(3, a_chain_with_a_stopped_owner("install", 2));
}

#[test]
fn m3_a_chain_of_three_the_first_stopped_before_it_is_accepted() {
    holds(3, a_chain_with_a_stopped_owner("accept", 1));
}

#[test]
fn m3_broken_an_undecided_write_covered() {
    let model = a_chain_with_a_stopped_owner("install", 2);
    broken(Fault::InstallsOverUndecided, 2, "placed out of order", model);
}

/// What the log writer of a model does with a rejected write.
#[derive(Clone, Copy, PartialEq)]
enum Sweep {
    /// Takes it out of its slots a grace period after the decision.
    AfterGrace,
    /// Takes it out at the decision.
    AtTheDecision,
}

/// M4. The log writer rejects a write while its owner stands before a swap. What the owner installs late is taken out
/// before the memory is used again.
fn a_late_owner_of_a_rejected_write(sweep: Sweep) -> impl Fn() {
    move || {
        let shard = Arc::new(Shard::with_epochs(2));
        shard.pinned(|guard| shard.append("first", &[Part::Append(Y, Look::NOTHING)], guard));
        settle(&shard);
        let writer = spawn(&shard, move |shard| {
            let Some(write) = shard.stack.take().next() else { return };
            shard.pinned(|guard| shard.decide(write, guard));
            if sweep == Sweep::AfterGrace && !shard.grace_passes() {
                return;
            }
            // SAFETY: it is not taken back before the second grace period.
            assert!(decide::clear_rejected(unsafe { write.get() }));
            if shard.grace_passes() {
                shard.reuse(write);
            }
        });
        let parts = [Part::Append(X, Look::NOTHING), Part::Append(Y, Look::NOTHING)];
        let status = shard.pinned(|guard| shard.append("late", &parts, guard));
        assert_eq!(status, Status::Rejected);
        writer.join().unwrap();
        assert_spent_ones_are_out(&shard);
    }
}

/// At the end, with nobody left: a slot that is not plain leads to a write that is not taken back.
fn assert_spent_ones_are_out(shard: &Shard) {
    let reused = shard.has_reused();
    for slot in &shard.slots {
        assert!(!reused || slot.plain_tick().is_some(), "a spent write stands in a slot");
    }
}

#[test]
fn m4_a_late_owner_of_a_rejected_write() {
    holds(4, a_late_owner_of_a_rejected_write(Sweep::AfterGrace));
}

#[test]
fn m4_broken_swept_at_the_decision() {
    let model = a_late_owner_of_a_rejected_write(Sweep::AtTheDecision);
    broken(None, 3, "a spent write stands in a slot", model);
}

/// M4. A rejected write covers an accepted one that is not yet published. A look says the accepted version at all times.
fn a_rejected_write_over_an_unpublished_one() {
    let shard = Arc::new(Shard::new(2));
    let first = Part::Append(X, Look::NOTHING);
    shard.pinned(|guard| shard.append("first", &[first], guard));
    let looker = spawn(&shard, |shard| {
        let look = shard.pinned(|guard| shard.look(X, guard));
        assert_eq!((look.tick, look.version), (1, 1), "a version that is not its tick's");
    });
    shard.pinned(|guard| {
        let seen = shard.look(X, guard);
        shard.append("other", &[Part::Append(Y, Look::NOTHING)], guard);
        let parts = [Part::Append(X, seen), Part::Append(Y, Look::NOTHING)];
        assert_eq!(shard.append("late", &parts, guard), Status::Rejected);
    });
    let mut writer = LogWriter::new(&shard);
    writer.place();
    let rejected = writer.rejected.pop().unwrap();
    // SAFETY: it is never taken back here.
    let rejected = unsafe { rejected.get() };
    decide::clear_rejected(rejected);
    writer.publish();
    // The looker may be a late helper of it.
    looker.join().unwrap();
    assert!(decide::clear_rejected(rejected));
    assert_eq!(shard.slots[X].plain_tick(), Some(1));
}

#[test]
fn m4_a_rejected_write_over_an_unpublished_one() {
    holds(4, a_rejected_write_over_an_unpublished_one);
}

#[test]
fn m4_broken_swept_while_a_predecessor_is_not_published() {
    let model = a_rejected_write_over_an_unpublished_one;
    broken(Fault::SweepsUnpublished, 3, "a version that is not its tick's", model);
}

/// When a write is pushed.
#[derive(Clone, Copy)]
enum Submission {
    BeforeInstallation,
    AfterInstallation,
}

/// M5. One thread writes; another looks and writes on what it sees; the log writer takes what is there meanwhile. It
/// places both in the order of their versions.
fn one_write_decided_on_another(submission: Submission) -> impl Fn() {
    move || {
        let shard = Arc::new(Shard::new(1));
        let append = move |shard: &Shard, name| {
            shard.pinned(|guard| {
                let write = shard.write(name, &[Part::Append(X, shard.look(X, guard))]);
                match submission {
                    Submission::BeforeInstallation => {
                        let write = shard.submit(write).unwrap();
                        shard.decide(write, guard);
                    }
                    Submission::AfterInstallation => {
                        let aside = Stack::new().push(write).unwrap();
                        shard.decide(aside, guard);
                        // SAFETY: the stack it was pushed on is gone.
                        shard.submit(unsafe { aside.into_box() }).unwrap();
                    }
                }
            });
        };
        let a = spawn(&shard, move |shard| append(shard, "a"));
        let b = spawn(&shard, move |shard| append(shard, "b"));
        let mut writer = LogWriter::new(&shard);
        writer.place();
        a.join().unwrap();
        b.join().unwrap();
        writer.place();
        assert_eq!(writer.log().len() + writer.rejected.len(), 2);
        assert!(!writer.log().is_empty());
    }
}

#[test]
fn m5_the_order_of_the_log_is_the_order_of_versions() {
    holds(3, one_write_decided_on_another(Submission::BeforeInstallation));
}

#[test]
fn m5_broken_submitted_after_the_installation() {
    let model = one_write_decided_on_another(Submission::AfterInstallation);
    broken(None, 2, "placed out of order", model);
}

/// M6. Two writes, each of which appends where the other only checks: if both were accepted, neither could have come
/// first.
fn two_writes_each_checking_the_other() {
    let shard = Arc::new(Shard::new(2));
    let a = spawn(&shard, |shard| {
        let parts = [Part::Check(X, Look::NOTHING), Part::Append(Y, Look::NOTHING)];
        shard.pinned(|guard| shard.append("a", &parts, guard))
    });
    let parts = [Part::Append(X, Look::NOTHING), Part::Check(Y, Look::NOTHING)];
    let b = shard.pinned(|guard| shard.append("b", &parts, guard));
    assert_eq!(accepted(&[a.join().unwrap(), b]), 1, "not one winner");
}

#[test]
fn m6_two_writes_each_checking_the_other() {
    holds(4, two_writes_each_checking_the_other);
}

#[test]
fn m6_broken_an_undecided_write_covered() {
    let model = two_writes_each_checking_the_other;
    broken(Fault::InstallsOverUndecided, 3, "not one winner", model);
}

/// M6. The log writer accepts, publishes and clears a write that checks a slot, while the owner stands before its
/// swap there. What counts no tick could be installed again.
fn a_late_owner_of_a_check() {
    let shard = Arc::new(Shard::new(2));
    let writer = spawn(&shard, |shard| {
        let mut writer = LogWriter::new(shard);
        writer.place();
        !writer.publish().is_empty()
    });
    let parts = [Part::Check(X, Look::NOTHING), Part::Append(Y, Look::NOTHING)];
    let status = shard.pinned(|guard| shard.append("a", &parts, guard));
    assert_eq!(status, Status::Accepted);
    if writer.join().unwrap() {
        let out = shard.slots.iter().all(|slot| slot.plain_tick() == Some(1));
        assert!(out, "a published write stands in a slot");
    }
}

#[test]
fn m6_a_late_owner_of_a_check() {
    holds(4, a_late_owner_of_a_check);
}

#[test]
fn m6_broken_a_check_that_counts_no_tick() {
    broken(
        Fault::ChecksWithoutTick,
        3,
        "a published write stands in a slot",
        a_late_owner_of_a_check,
    );
}

/// The slot of a client on X.
const CLIENT: usize = Y;

/// What a client is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Committed,
    Replay,
    Duplicate,
    Conflict,
}

/// What is left out of a client's write.
#[derive(Clone, Copy, PartialEq)]
enum Without {
    Nothing,
    /// The second look at the client, before a conflict is told.
    SecondLook,
    /// The entry in the client's slot.
    ClientEntry,
}

/// A client's write: looks, submits and decides, until a condition fails.
fn send(
    shard: &Shard,
    name: &'static str,
    expected: Option<u64>,
    sequence: u64,
    without: Without,
) -> Told {
    let client_says = |look: Look| match look.version.cmp(&(sequence + 1)) {
        Less => None,
        Equal => Some(Told::Replay),
        Greater => Some(Told::Duplicate),
    };
    loop {
        let told = shard.pinned(|guard| {
            let client = shard.look(CLIENT, guard);
            if let Some(told) = client_says(client) {
                return Some(told);
            }
            let seen = shard.look(X, guard);
            if expected.is_some_and(|expected| expected != seen.version) {
                let again = shard.look(CLIENT, guard);
                let told = if without == Without::SecondLook { None } else { client_says(again) };
                return Some(told.unwrap_or(Told::Conflict));
            }
            let mut parts = vec![Part::Append(X, seen)];
            if without != Without::ClientEntry {
                parts.push(Part::Set(CLIENT, client, sequence + 1));
            }
            let decided = shard.append(name, &parts, guard);
            (decided == Status::Accepted).then_some(Told::Committed)
        });
        if let Some(told) = told {
            return told;
        }
    }
}

/// M7. A write is sent twice at once. It takes effect once, and the other is told of a replay.
fn a_replay_racing_its_original(expected: Option<u64>, without: Without) -> impl Fn() {
    move || {
        let shard = Arc::new(Shard::new(2));
        let other = spawn(&shard, move |shard| send(shard, "a", expected, 0, without));
        let told = [send(&shard, "b", expected, 0, without), other.join().unwrap()];
        assert!(!told.contains(&Told::Conflict), "a conflict with itself");
        assert!(
            told == [Told::Committed, Told::Replay] || told == [Told::Replay, Told::Committed],
            "a write made twice"
        );
    }
}

#[test]
fn m7_a_replay_racing_its_original() {
    holds(3, a_replay_racing_its_original(None, Without::Nothing));
}

#[test]
fn m7_a_replay_racing_its_original_with_an_expected_version() {
    holds(3, a_replay_racing_its_original(Some(0), Without::Nothing));
}

#[test]
fn m7_broken_no_second_look_at_the_client() {
    let model = a_replay_racing_its_original(Some(0), Without::SecondLook);
    broken(None, 2, "a conflict with itself", model);
}

#[test]
fn m7_broken_the_client_is_only_looked_at() {
    let model = a_replay_racing_its_original(None, Without::ClientEntry);
    broken(None, 2, "a write made twice", model);
}

/// M7. A write is sent while a newer one of its client is on its way: it lands before that one, or not at all.
fn an_older_sequence_racing_a_newer_one(without: Without) -> impl Fn() {
    move || {
        let shard = Arc::new(Shard::new(2));
        let older = spawn(&shard, move |shard| send(shard, "older", None, 0, without));
        assert_eq!(send(&shard, "newer", None, 1, without), Told::Committed);
        let older = older.join().unwrap();
        let mut writer = LogWriter::new(&shard);
        writer.place();
        let expected: &[&str] = match older {
            Told::Committed => &["older", "newer"],
            Told::Duplicate => &["newer"],
            told => panic!("told {told:?}"),
        };
        assert_eq!(writer.log(), expected, "an older write after a newer one");
    }
}

#[test]
fn m7_an_older_sequence_racing_a_newer_one() {
    holds(3, an_older_sequence_racing_a_newer_one(Without::Nothing));
}

#[test]
fn m7_broken_the_client_is_only_looked_at_by_the_newer_one() {
    let model = an_older_sequence_racing_a_newer_one(Without::ClientEntry);
    broken(None, 2, "an older write after a newer one", model);
}
