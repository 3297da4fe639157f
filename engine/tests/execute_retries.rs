//! Executions of a client that are sent again: the original result, and nothing is decided twice.

mod common;

use std::thread;

use annals::{Committed, ErrorKind, Event, Expect, Store};
use common::deciding::{Sum, refused, written};
use common::{audit, directory, numbered};

/// A client's retry: the original result, and nothing is decided.
#[test]
fn a_retry_gives_the_original_result_and_decides_nothing() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let empty = |sum: &Sum| if sum.0 == 0 { Ok(vec![numbered(5)]) } else { Err("not empty") };
    let again = |_: &Sum| -> Result<Vec<Event>, &str> { panic!("a retry was decided") };
    let executor = |client, sequence| store.executor::<Sum>().client(client, sequence);
    let first = written(executor(1, 7).execute("a", empty));
    // The state would refuse it now.
    assert_eq!(refused(executor(2, 7).execute("a", empty)), "not empty");
    for _ in 0..2 {
        let retried = written(executor(1, 7).execute("a", again));
        assert!(retried.is_replay() && !first.is_replay());
        assert_eq!((retried.position(), retried.version()), (first.position(), 1));
        // A write's retry finds it too, and the other way round.
        let write = store.write().append("a", Expect::Absent, [numbered(9)]).client(1, 7);
        assert_eq!(write.submit().unwrap().wait().unwrap().position(), first.position());
    }
    let more = |_: &Sum| Ok::<_, &str>(vec![numbered(1)]);
    assert_eq!(written(executor(1, 8).execute("a", more)).version(), 2);
    for sequence in [0, 6, 7] {
        let error = executor(1, sequence).execute("a", again).wait().unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Duplicate, 2002));
        let write = store.write().append("a", Expect::Any, [numbered(9)]).client(1, sequence);
        assert_eq!(write.submit().unwrap_err().code(), 2002);
    }
    // Nothing was written, so there is nothing to replay: it decides again.
    let mut calls = 0;
    for _ in 0..2 {
        let nothing = |_: &Sum| {
            calls += 1;
            Ok::<Vec<Event>, ()>(vec![])
        };
        assert!(executor(3, 1).execute("a", nothing).wait().unwrap().unwrap().is_none());
    }
    assert_eq!(calls, 2);
    assert_eq!(audit(&store).len(), 2);
}

#[test]
fn a_retry_of_several_finds_its_original_wherever_that_wrote() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let keys = ["a", "b", "c"];
    let again = |_: &[Sum]| -> Result<Vec<Vec<Event>>, ()> { panic!("a retry was decided") };
    for (sequence, wrote) in
        [[true, true, false], [false, true, false], [true, true, true]].into_iter().enumerate()
    {
        let executor = store.executor::<Sum>().client(4, sequence as u64);
        let decide = |_: &[Sum]| {
            Ok::<_, ()>(wrote.map(|wrote| if wrote { vec![numbered(1)] } else { vec![] }).to_vec())
        };
        let first = written(executor.execute_all(keys, decide));
        // Whatever changes in between.
        drop(store.append("c", Expect::Any, [numbered(2)]).unwrap());
        let retried = written(executor.execute_all(keys, again));
        assert!(retried.is_replay());
        assert_eq!(retried.position(), first.position());
        for key in keys {
            assert_eq!(retried.version_of(key), first.version_of(key));
        }
    }
    let stale = store.executor::<Sum>().client(4, 1).execute_all(keys, again).wait().unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Duplicate);
    audit(&store);
}

/// A retry and its original at once: one of them writes, both are told of it.
#[test]
fn a_retry_that_races_its_original_is_written_once() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    for sequence in 0..300 {
        let once = |sum: &Sum| match sum.0 {
            taken if taken > sequence => Err("taken"),
            _ => Ok(vec![numbered(1)]),
        };
        let send = || {
            let executor = store.executor::<Sum>().client(5, sequence);
            if sequence % 2 == 0 {
                return executor.execute("one", once).wait();
            }
            let both = |sums: &[Sum]| once(&sums[0]).map(|events| vec![events, vec![numbered(1)]]);
            executor.execute_all(["one", "two"], both).wait()
        };
        let told: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(send)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let told: Vec<Committed> =
            told.into_iter().map(|one| one.unwrap().unwrap().unwrap()).collect();
        assert!(told.iter().all(|one| one.position() == told[0].position()), "{told:?}");
        assert_eq!(told.iter().filter(|one| !one.is_replay()).count(), 1, "{told:?}");
    }
    assert_eq!(audit(&store).len(), 300);
}
