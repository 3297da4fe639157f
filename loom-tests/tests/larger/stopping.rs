//! The whole engine, closed or struck by a failing disk while callers write.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals::{ErrorKind, Expect};
use loom_tests::{Fault, Hosted, Kind, broken_engine, engine, numbered};

use crate::stores::{HANGS, LOST, Rig, draw, fail, open};

/// Two threads close the store while two append: each write is durable or refused, none waits for ever, none is lost.
fn closed(system: &Rc<Hosted>) {
    let rig = Rig::new();
    let callers: Vec<_> = (0..2_u64)
        .map(|caller| {
            let Rig { store, history, .. } = rig.clone();
            system.start(move || {
                for number in [caller, caller + 10, caller + 20] {
                    let told = store.append("a", Expect::Any, [numbered(number)]);
                    history.note(number, &told.and_then(|ticket| ticket.wait()));
                }
            })
        })
        .collect();
    let closers: Vec<_> = (0..2)
        .map(|_| {
            let Rig { store, .. } = rig.clone();
            system.start(move || store.close().expect("it closes cleanly"))
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join());
    closers.into_iter().for_each(|closer| closer.join());
    let Rig { disk, store, history } = rig;
    for kind in history.kinds() {
        let clean = matches!(
            kind,
            Kind::Committed(..) | Kind::Not(ErrorKind::Closed | ErrorKind::NotWritten)
        );
        assert!(clean, "told {kind:?} by a store that closes");
    }
    history.check(&store, true);
    drop(store);
    history.check(&open(&disk.crash(draw())), true);
}

#[test]
fn a_close_among_appends() {
    engine(2_000, closed);
}

#[test]
fn broken_a_stack_left_open_by_a_close() {
    broken_engine(Fault::HaltsOpen, &HANGS, closed);
}

/// A write fails while three threads append: from the first that is told on, nobody's new write is acknowledged; what was
/// acknowledged before is there after a power cut, and what was called not written is not.
fn struck(system: &Rc<Hosted>, rig: Rig) {
    let failed = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..3_u64)
        .map(|caller| {
            let (Rig { store, history, .. }, failed) = (rig.clone(), Arc::clone(&failed));
            system.start(move || {
                for number in [caller, caller + 10, caller + 20] {
                    let late = failed.load(Ordering::Relaxed);
                    let key = ["a", "b"][number as usize % 2];
                    let told = store.append(key, Expect::Any, [numbered(number)]);
                    let told = told.and_then(|ticket| ticket.wait());
                    assert!(!(late && told.is_ok()), "acknowledged after a failure");
                    history.note(number, &told);
                    if let Err(error) = told {
                        let kinds =
                            [ErrorKind::OutcomeUnknown, ErrorKind::NotWritten, ErrorKind::Stopped];
                        let stopped = kinds.contains(&error.kind());
                        failed.fetch_or(stopped, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join());
    let Rig { disk, store, history } = rig;
    history.check(&store, false);
    let image = disk.crash(draw());
    // What states the frontier may fail too, and nobody waits for that.
    assert!(
        store.close().is_err() || !failed.load(Ordering::Relaxed),
        "it closes as if nothing were"
    );
    drop(store);
    history.check(&open(&disk), false);
    history.check(&open(&image), false);
}

#[test]
fn a_failed_write_among_appends() {
    engine(2_000, |system| {
        let rig = Rig::new();
        fail(&rig.disk, 1 + draw() % 8);
        struck(system, rig);
    });
}

#[test]
fn broken_a_failed_write_that_is_called_durable() {
    broken_engine(None, &LOST, |system| struck(system, Rig::lying()));
}
