//! The whole engine over a simulated disk: callers, log writer, preparing thread and waker thread, any of them stopped
//! between any two operations on shared words. At the end of each schedule the log is read and held against what the
//! callers were told (D A N G), then once more after a clean close, and after a power cut and recovery.

use std::collections::HashSet;
use std::rc::Rc;

use annals::{Error, Event, Expect, Read, Recorded, State, Store, Ticket};
use loom_tests::{Fault, History, Hosted, broken_engine, engine, numbered};

use crate::stores::{HANGS, LOST, Rig, check, draw, open};

/// A caller that waits for each write.
fn note(history: &History, number: u64, told: Result<Ticket, Error>) -> bool {
    history.note(number, &told.and_then(|ticket| ticket.wait()))
}

/// Three threads append to one aggregate, with a condition and without.
fn appends(system: &Rc<Hosted>, rig: Rig) {
    let callers: Vec<_> = (0..3_u64)
        .map(|caller| {
            let Rig { store, history, .. } = rig.clone();
            system.start(move || {
                let told = store.append("a", Expect::Any, [numbered(caller)]);
                let version = told.as_ref().map_or(0, |_| caller);
                note(&history, caller, told);
                let number = caller + 10;
                note(
                    &history,
                    number,
                    store.append("a", Expect::Version(version), [numbered(number)]),
                );
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join());
    check(rig);
}

#[test]
fn appends_to_one_aggregate() {
    engine(2_000, |system| appends(system, Rig::new()));
}

#[test]
fn broken_a_disk_that_lies_to_appends() {
    broken_engine(None, &LOST, |system| appends(system, Rig::lying()));
}

/// Three threads write to two of three aggregates each and check the third, crosswise.
fn transfers(system: &Rc<Hosted>) {
    const KEYS: [&str; 3] = ["a", "b", "c"];
    let rig = Rig::new();
    let callers: Vec<_> = (0..3_usize)
        .map(|caller| {
            let Rig { store, history, .. } = rig.clone();
            system.start(move || {
                for round in 0..2 {
                    let number = (caller + round * 10) as u64;
                    let [one, other, third] = [0, 1, 2].map(|nth| KEYS[(caller + nth) % 3]);
                    let seen = store.version_accepted(third).expect("it is known");
                    let write = store.write().append(one, Expect::Any, [numbered(number)]);
                    let write = write.append(other, Expect::Any, [numbered(number)]);
                    note(&history, number, write.check(third, Expect::Version(seen)).submit());
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join());
    check(rig);
}

#[test]
fn writes_to_several_aggregates_with_checks() {
    engine(1_000, transfers);
}

#[test]
fn broken_an_undecided_write_covered_by_another() {
    broken_engine(Fault::InstallsOverUndecided, &[""], transfers);
}

/// Two threads send the same write of one client, and a third one a newer one.
fn replays(system: &Rc<Hosted>, known: bool) {
    let rig = Rig::new();
    let senders: Vec<_> = (0..2)
        .map(|_| {
            let Rig { store, history, .. } = rig.clone();
            system.start(move || {
                let write = store.write().append("a", Expect::Version(0), [numbered(1)]);
                let write = write.append("b", Expect::Any, [numbered(1)]);
                let write = if known { write.client(7, 1) } else { write };
                note(&history, 1, write.submit())
            })
        })
        .collect();
    let Rig { store, history, .. } = rig.clone();
    let newer = system.start(move || {
        let write = store.write().append("b", Expect::Any, [numbered(2)]);
        note(&history, 2, write.client(7, 2).submit())
    });
    let landed: Vec<bool> = senders.into_iter().map(|sender| sender.join()).collect();
    assert!(newer.join(), "the newest was refused");
    assert!(landed[0] == landed[1] || known, "a conflict with itself");
    check(rig);
}

#[test]
fn a_write_that_is_sent_twice() {
    engine(1_000, |system| replays(system, true));
}

#[test]
fn broken_sent_twice_by_nobody_in_particular() {
    broken_engine(None, &["a conflict with itself"], |system| replays(system, false));
}

/// Counts its events.
#[derive(Default)]
struct Count(u64);

impl State for Count {
    fn apply(&mut self, event: &Recorded) {
        assert_eq!(event.version(), self.0 + 1, "a gap in what is folded");
        self.0 += 1;
    }
}

/// Three threads decide on one aggregate twice each: one event, unless there are four.
fn executes(system: &Rc<Hosted>) {
    let rig = Rig::new();
    let callers: Vec<_> = (0..3_u64)
        .map(|caller| {
            let Rig { store, history, .. } = rig.clone();
            system.start(move || {
                let mut made = 0;
                for number in [caller, caller + 10] {
                    let decide = |count: &Count| -> Result<Vec<Event>, u64> {
                        if count.0 < 4 { Ok(vec![numbered(number)]) } else { Err(count.0) }
                    };
                    match store.execute("a", decide).wait() {
                        Ok(Ok(Some(done))) => {
                            history.note(number, &Ok(done));
                            made += 1;
                        }
                        Ok(Err(count)) => assert_eq!(count, 4, "decided on what is not there"),
                        other => panic!("{other:?}"),
                    }
                }
                made
            })
        })
        .collect();
    let made: u64 = callers.into_iter().map(|caller| caller.join()).sum();
    assert_eq!(made, 4, "not as many as were decided on");
    check(rig);
}

#[test]
fn executions_on_one_aggregate() {
    engine(1_000, executes);
}

#[test]
fn broken_a_head_published_after_its_version_under_executions() {
    broken_engine(Fault::PublishesHeadLast, &[""], executes);
}

/// Two threads append, one follows from the start, and one watches the aggregate until its last version.
fn followed(system: &Rc<Hosted>) {
    let rig = Rig::new();
    let Rig { store, .. } = rig.clone();
    let follower = system.start(move || {
        let mut seen = HashSet::new();
        let mut last = None;
        for event in store.subscribe(0) {
            let event = event.expect("it is readable");
            assert!(last < Some(event.position()), "out of order");
            last = Some(event.position());
            assert!(seen.insert(event.data().to_vec()), "given twice");
            if seen.len() == 4 {
                return;
            }
        }
        panic!("the log ended early");
    });
    let Rig { store, .. } = rig.clone();
    let watcher = system.start(move || {
        let mut watch = store.watch("a").expect("it can be watched");
        while store.version("a").expect("it is readable") < 4 {
            watch.next().expect("it goes on").expect("it is readable");
        }
    });
    let callers: Vec<_> = (0..2_u64)
        .map(|caller| {
            let Rig { store, history, .. } = rig.clone();
            system.start(move || {
                for number in [caller, caller + 10] {
                    note(&history, number, store.append("a", Expect::Any, [numbered(number)]));
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join());
    follower.join();
    watcher.join();
    check(rig);
}

#[test]
fn a_subscription_and_a_watch() {
    engine(1_000, followed);
}

#[test]
fn broken_nobody_rings_who_follows() {
    broken_engine(Fault::RingsNobody, &HANGS, followed);
}

/// Two threads append, and two read what is accepted: versions without a gap, and no fewer than before.
fn read_accepted(system: &Rc<Hosted>, how: fn(Read) -> Read) {
    let rig = Rig::new();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let Rig { store, .. } = rig.clone();
            system.start(move || {
                let mut before = 0;
                for _ in 0..3 {
                    let told = store.version_accepted("a").expect("it is readable");
                    let read = how(store.read("a"));
                    let versions: Vec<u64> =
                        read.map(|event| event.expect("it is readable").version()).collect();
                    assert!(versions.iter().copied().eq(1..=versions.len() as u64), "a gap");
                    assert!(before <= told && told <= versions.len() as u64, "fewer than before");
                    before = versions.len() as u64;
                }
            })
        })
        .collect();
    let writers: Vec<_> = (0..2_u64)
        .map(|caller| {
            let Rig { store, history, .. } = rig.clone();
            system.start(move || {
                let numbers = [caller, caller + 10, caller + 20];
                let tickets =
                    numbers.map(|number| store.append("a", Expect::Any, [numbered(number)]));
                for (number, told) in numbers.into_iter().zip(tickets) {
                    note(&history, number, told);
                }
            })
        })
        .collect();
    readers.into_iter().for_each(|reader| reader.join());
    writers.into_iter().for_each(|writer| writer.join());
    check(rig);
}

#[test]
fn reads_of_what_is_accepted() {
    engine(1_000, |system| read_accepted(system, Read::accepted));
}

#[test]
fn broken_a_read_of_what_is_durable_alone() {
    broken_engine(None, &["fewer than before"], |system| read_accepted(system, |read| read));
}

/// The power fails while two threads append: what was told by then is there when the store opens again, and the store that
/// opened goes on.
fn cut(system: &Rc<Hosted>, rig: Rig) {
    let callers: Vec<_> = (0..2_u64)
        .map(|caller| {
            let Rig { store, history, .. } = rig.clone();
            system.start(move || {
                for number in [caller, caller + 10, caller + 20] {
                    note(&history, number, store.append("a", Expect::Any, [numbered(number)]));
                }
            })
        })
        .collect();
    let Rig { disk, history, .. } = rig.clone();
    let cutter = system.start(move || {
        for _ in 0..draw() % 50 {
            shuttle::thread::yield_now();
        }
        // What is told is told before the cut: no other thread runs between these two.
        let told = history.so_far();
        (told, disk.crash(draw()))
    });
    let (told, image) = cutter.join();
    let again = open(&image);
    told.check(&again, false);
    let next: Store = again.clone();
    assert!(note(&told, 99, next.append("a", Expect::Any, [numbered(99)])), "it does not go on");
    told.check(&again, false);
    drop((again, next));
    callers.into_iter().for_each(|caller| caller.join());
    check(rig);
}

#[test]
fn a_power_cut_among_appends() {
    engine(1_000, |system| cut(system, Rig::new()));
}

#[test]
fn broken_a_disk_that_lies_before_a_power_cut() {
    broken_engine(None, &LOST, |system| cut(system, Rig::lying()));
}

/// A caller's own code panics, one drops its tickets, one leaks them: whatever was accepted lands, whole, and nobody else
/// is held up.
fn careless(system: &Rc<Hosted>, rig: Rig) {
    let Rig { store, history, .. } = rig.clone();
    let dropper = system.start(move || {
        for number in [1, 2, 3] {
            let write = store.write().append("a", Expect::Any, [numbered(number)]);
            let write = write.append("b", Expect::Any, [numbered(number)]);
            match write.submit() {
                Ok(ticket) if number == 2 => std::mem::forget(ticket),
                Ok(ticket) => drop(ticket),
                Err(_) => continue,
            }
            history.dropped(number);
        }
    });
    let Rig { store, .. } = rig.clone();
    let panicker = system.start(move || {
        let events = (0..2).map(|nth| {
            if nth == 0 { numbered(4) } else { std::panic::resume_unwind(Box::new(())) }
        });
        let append = || store.append("a", Expect::Any, events);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(append)).expect_err("it panics");
    });
    let Rig { store, history, .. } = rig.clone();
    let waiter =
        system.start(move || note(&history, 5, store.append("b", Expect::Any, [numbered(5)])));
    dropper.join();
    panicker.join();
    waiter.join();
    check(rig);
}

#[test]
fn callers_that_drop_leak_and_panic() {
    engine(1_000, |system| careless(system, Rig::new()));
}

#[test]
fn broken_a_disk_that_lies_to_who_does_not_wait() {
    broken_engine(None, &LOST, |system| careless(system, Rig::lying()));
}
