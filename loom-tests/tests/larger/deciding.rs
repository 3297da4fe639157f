//! M1 to M7 with three to five threads: deciding on slots, and the order of the log.

use std::sync::Arc;

use annals::internals::reserve::decide::{self, Look};
use annals::internals::reserve::stack::Stack;
use annals::internals::reserve::write::Status;
use loom_tests::{Fault, LogWriter, Part, Shard, broken, holds};
use shuttle::thread::{self, JoinHandle};

const X: usize = 0;
const Y: usize = 1;
const Z: usize = 2;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn spawn<R: Send + 'static>(
    shard: &Arc<Shard>,
    run: impl FnOnce(&Shard) -> R + Send + 'static,
) -> JoinHandle<R> {
    let shard = Arc::clone(shard);
    thread::spawn(move || run(&shard))
}

fn accepted(threads: Vec<JoinHandle<Status>>) -> usize {
    let statuses = threads.into_iter().map(|thread| thread.join().unwrap());
    statuses.filter(|status| *status == Status::Accepted).count()
}

/// Places and publishes all there is: nothing stands in a slot afterwards.
fn settle(shard: &Shard) -> usize {
    let mut writer = LogWriter::new(shard);
    writer.place();
    writer.publish();
    for rejected in &writer.rejected {
        // SAFETY: it is never taken back here.
        decide::clear_rejected(unsafe { rejected.get() });
    }
    assert!(
        shard.slots.iter().all(|slot| slot.plain_tick().is_some()),
        "a spent write stands in a slot"
    );
    writer.log().len()
}

/// M1. Five writers of one slot, all on version 0: one wins.
fn one_slot_five_writers() {
    let shard = Arc::new(Shard::new(1));
    let writers = NAMES.map(|name| {
        spawn(&shard, move |shard| {
            shard.pinned(|guard| shard.append(name, &[Part::Append(X, Look::NOTHING)], guard))
        })
    });
    assert_eq!(accepted(writers.into()), 1, "not one winner");
    assert_eq!(settle(&shard), 1);
}

#[test]
fn m1_one_slot_five_writers_one_version() {
    holds(5_000, one_slot_five_writers);
}

#[test]
fn m1_broken_an_undecided_write_covered() {
    broken(Fault::InstallsOverUndecided, &["not one winner"], one_slot_five_writers);
}

/// M2. Four writes to two slots each, in either order, all on version 0: one wins.
fn four_writes_crossing() {
    let shard = Arc::new(Shard::new(2));
    let writers = [0, 1, 2, 3].map(|nth| {
        let slots = if nth % 2 == 0 { [X, Y] } else { [Y, X] };
        spawn(&shard, move |shard| {
            let parts = slots.map(|slot| Part::Append(slot, Look::NOTHING));
            shard.pinned(|guard| shard.append(NAMES[nth], &parts, guard))
        })
    });
    assert_eq!(accepted(writers.into()), 1, "not one winner");
    settle(&shard);
}

#[test]
fn m2_four_writes_crossing_on_two_slots() {
    holds(4_000, four_writes_crossing);
}

#[test]
fn m2_broken_an_undecided_write_covered() {
    broken(
        Fault::InstallsOverUndecided,
        &["not one winner", "a spent write stands in a slot"],
        four_writes_crossing,
    );
}

/// M3. A ring of three slots, each pair of which one write wants. The owner of the first stops when it has submitted it, and
/// three threads, a log writer among them, bring it to its decision meanwhile or do not: one write wins.
fn a_ring_of_three_with_a_stopped_owner() {
    let shard = Arc::new(Shard::new(3));
    let pairs =
        [[X, Y], [Y, Z], [Z, X]].map(|pair| pair.map(|slot| Part::Append(slot, Look::NOTHING)));
    let stopped = shard.submit(shard.write("stopped", &pairs[0])).unwrap();
    let helper = spawn(&shard, move |shard| shard.pinned(|guard| shard.decide(stopped, guard)));
    let writers = [1, 2].map(|nth| {
        spawn(&shard, move |shard| {
            shard.pinned(|guard| shard.append(NAMES[nth], &pairs[nth], guard))
        })
    });
    let mut writer = LogWriter::new(&shard);
    writer.place();
    writer.publish();
    let helped = helper.join().unwrap();
    assert_eq!(
        accepted(writers.into()) + usize::from(helped == Status::Accepted),
        1,
        "not one winner"
    );
    writer.place();
    assert_eq!(writer.log().len(), 1, "not one winner");
}

#[test]
fn m3_a_ring_of_three_with_a_stopped_owner() {
    holds(4_000, a_ring_of_three_with_a_stopped_owner);
}

#[test]
fn m3_broken_an_undecided_write_covered() {
    let complaints = ["not one winner", "placed out of order"];
    broken(Fault::InstallsOverUndecided, &complaints, a_ring_of_three_with_a_stopped_owner);
}

/// M4. A rejected write stands on an accepted one that is not published, and three threads look meanwhile: at all times they
/// see the accepted version.
fn a_rejected_write_over_an_unpublished_one() {
    let shard = Arc::new(Shard::new(2));
    let first = [Part::Append(X, Look::NOTHING)];
    shard.pinned(|guard| shard.append("first", &first, guard));
    let lookers = [0, 1, 2].map(|_| {
        spawn(&shard, |shard| {
            let look = shard.pinned(|guard| shard.look(X, guard));
            assert_eq!((look.tick, look.version), (1, 1), "a version that is not its tick's");
        })
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
    lookers.into_iter().for_each(|looker| looker.join().unwrap());
    assert!(decide::clear_rejected(rejected));
}

#[test]
fn m4_a_rejected_write_over_an_unpublished_one() {
    holds(4_000, a_rejected_write_over_an_unpublished_one);
}

#[test]
fn m4_broken_swept_while_a_predecessor_is_not_published() {
    let model = a_rejected_write_over_an_unpublished_one;
    broken(Fault::SweepsUnpublished, &["a version that is not its tick's"], model);
}

/// M5. Four writers, each on what it sees, and a log writer that takes between them: it places in the order of versions.
fn written_on_each_other(submits_late: bool) -> impl Fn() {
    move || {
        let shard = Arc::new(Shard::new(1));
        let writers = [0, 1, 2, 3].map(|nth| {
            spawn(&shard, move |shard| {
                shard.pinned(|guard| {
                    let write = shard.write(NAMES[nth], &[Part::Append(X, shard.look(X, guard))]);
                    if submits_late {
                        let aside = Stack::new().push(write).unwrap();
                        shard.decide(aside, guard);
                        // SAFETY: the stack it was pushed on is gone.
                        shard.submit(unsafe { aside.into_box() }).unwrap();
                    } else {
                        let write = shard.submit(write).unwrap();
                        shard.decide(write, guard);
                    }
                });
            })
        });
        let mut writer = LogWriter::new(&shard);
        for _ in 0..3 {
            writer.place();
            writer.publish();
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        writer.place();
        assert_eq!(writer.log().len() + writer.rejected.len(), 4);
    }
}

#[test]
fn m5_the_order_of_the_log_is_the_order_of_versions() {
    holds(4_000, written_on_each_other(false));
}

#[test]
fn m5_broken_submitted_after_the_installation() {
    broken(None, &["placed out of order"], written_on_each_other(true));
}

/// M6. Three writes in a ring, each of which appends where the next one only checks, on version 0: some order explains those
/// that are accepted, so never all three.
fn a_ring_of_checks() {
    let shard = Arc::new(Shard::new(3));
    let writers = [0, 1, 2].map(|nth| {
        spawn(&shard, move |shard| {
            let parts =
                [Part::Append(nth, Look::NOTHING), Part::Check((nth + 1) % 3, Look::NOTHING)];
            shard.pinned(|guard| shard.append(NAMES[nth], &parts, guard))
        })
    });
    let accepted = accepted(writers.into());
    assert!((1..3).contains(&accepted), "{accepted} of a ring");
    assert_eq!(settle(&shard), accepted);
}

#[test]
fn m6_a_ring_of_checks() {
    holds(4_000, a_ring_of_checks);
}

#[test]
fn m6_broken_an_undecided_write_covered() {
    let complaints = ["of a ring", "placed out of order"];
    broken(Fault::InstallsOverUndecided, &complaints, a_ring_of_checks);
}

/// M7. A client's write is sent four times at once: it takes effect once. The slot of the client is Y.
fn a_write_sent_four_times(with_client: bool) -> impl Fn() {
    move || {
        let shard = Arc::new(Shard::new(2));
        let senders = [0, 1, 2, 3].map(|nth| {
            spawn(&shard, move |shard| {
                loop {
                    let done = shard.pinned(|guard| {
                        let client = shard.look(Y, guard);
                        if client.version == 1 {
                            return Some(false);
                        }
                        let mut parts = vec![Part::Append(X, shard.look(X, guard))];
                        if with_client {
                            parts.push(Part::Set(Y, client, 1));
                        }
                        let status = shard.append(NAMES[nth], &parts, guard);
                        (status == Status::Accepted).then_some(true)
                    });
                    if let Some(made) = done {
                        return made;
                    }
                }
            })
        });
        let made = senders.map(|sender| sender.join().unwrap());
        assert_eq!(made.iter().filter(|made| **made).count(), 1, "a write made twice");
        assert_eq!(settle(&shard), 1);
    }
}

#[test]
fn m7_a_write_sent_four_times() {
    holds(3_000, a_write_sent_four_times(true));
}

#[test]
fn m7_broken_the_client_is_only_looked_at() {
    broken(None, &["a write made twice"], a_write_sent_four_times(false));
}
