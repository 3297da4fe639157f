//! Losers that wait for the winner.

mod common;

use std::thread;
use std::time::Duration;

use annals::internals::disk::sim::Order;
use annals::{Error, ErrorKind, Expect, Store};
use common::deciding::held;
use common::{LONG, directory, fail_next_sync, in_time, numbered};

fn conflict(store: &Store) -> Error {
    let error = store.append("sheet", Expect::Version(1), [numbered(1)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    error
}

#[test]
fn a_loser_waits_for_the_winner() {
    let (disk, store) = held(3);
    let error = conflict(&store);
    assert_eq!(error.winner_is_durable(), Some(false));
    let winner = error.winner().expect("a conflict has one");
    let timed = winner.wait_timeout(Duration::from_millis(10)).unwrap_err();
    assert_eq!(timed.kind(), ErrorKind::OutcomeUnknown);
    assert!(!winner.is_resolved());
    assert_eq!(store.version("sheet").unwrap(), 1);
    // A clone of the error has one too; a write of several as well.
    let wide =
        store.write().check("quiet", Expect::Exists).append("sheet", Expect::Absent, [numbered(1)]);
    let winners = [error.clone().winner().unwrap(), wide.submit().unwrap_err().winner().unwrap()];
    let awaited = thread::spawn(|| winners.map(futures::executor::block_on));
    thread::sleep(Duration::from_millis(10));
    assert!(!awaited.is_finished());
    disk.set_order(Order::Fifo);
    winner.wait_timeout(LONG).unwrap();
    assert_eq!(store.version("sheet").unwrap(), 2);
    winner.wait().unwrap();
    assert!(winner.is_resolved());
    assert!(awaited.join().unwrap().iter().all(Result::is_ok));

    // What does not exist was decided by nobody; other errors are no races.
    let missing = store.append("none", Expect::Exists, [numbered(1)]).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.winner().is_none());
    for error in [
        store.append("", Expect::Any, [numbered(1)]).unwrap_err(),
        store.append("sheet", Expect::Any, []).unwrap_err(),
        store.write().submit().unwrap_err(),
    ] {
        assert!(error.winner().is_none(), "{error}");
    }
}

#[test]
fn a_loser_is_told_that_the_winner_failed() {
    let (disk, store) = held(4);
    let (early, late) = (conflict(&store), conflict(&store));
    let winner = early.winner().unwrap();
    fail_next_sync(&disk);
    let failed = in_time("the winner", move || winner.wait()).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::OutcomeUnknown, "{failed}");
    let stopped = late.winner().unwrap();
    assert_eq!(stopped.wait().unwrap_err().kind(), ErrorKind::Stopped);
    assert_eq!(futures::executor::block_on(stopped).unwrap_err().kind(), ErrorKind::Stopped);
}

#[test]
fn a_loser_may_ask_when_the_store_is_gone() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    drop(store.append("sheet", Expect::Absent, [numbered(1)]).unwrap());
    drop(store.append("sheet", Expect::Any, [numbered(1)]).unwrap());
    let (error, pending) = (conflict(&store), conflict(&store).winner().unwrap());
    store.close().unwrap();
    pending.wait().unwrap();
    assert_eq!(error.winner().unwrap().wait().unwrap_err().kind(), ErrorKind::Closed);
    drop(store);
    assert_eq!(error.winner().unwrap().wait().unwrap_err().kind(), ErrorKind::Closed);
    // The error keeps nothing open.
    Store::open(dir.path()).unwrap();
}
