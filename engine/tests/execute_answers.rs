//! Refusals, and decisions on nothing: given when what they rest on is durable, and not given if that fails.

mod common;

use std::time::Duration;

use annals::internals::disk::sim::Order;
use annals::{ErrorKind, Event, Execution, States, Store};
use common::deciding::{Sum, held, refused};
use common::{LONG, audit, directory, fail_next_sync, in_time, numbered, open_sim, small};

fn eight(sum: &Sum) -> Result<Vec<Event>, u64> {
    if sum.0 + 8 > 40 { Err(sum.0) } else { Ok(vec![numbered(8)]) }
}

/// Everything that may rest on what is held: a refusal, no events, a write; of one and of several; with kept states.
fn rest_on_it(store: &Store) -> Vec<Execution<u64>> {
    let states: States<Sum> = store.states(8);
    let both = |sums: &[Sum]| eight(&sums[0]).map(|events| vec![events, vec![]]);
    let none = |_: &Sum| Ok(vec![]);
    vec![
        store.execute("sheet", eight),
        store.execute("sheet", none),
        states.execute("sheet", eight),
        // The state is of the newest version already.
        states.execute("sheet", eight),
        states.execute("sheet", none),
        store.execute_all(["sheet", "quiet"], both),
        store.execute_all(["quiet", "sheet"], |_: &[Sum]| Ok(vec![])),
        store.executor().client(9, 1).execute("sheet", eight),
        store.aggregate("sheet").unwrap().execute(eight),
        store.execute("sheet", |sum: &Sum| Ok(vec![numbered(sum.0)])),
    ]
}

#[test]
fn an_answer_waits_for_what_it_rests_on() {
    let (disk, store) = held(1);
    let mut executions = rest_on_it(&store);
    assert_eq!(refused(store.execute("quiet", eight)), 40, "what is durable is answered at once");
    let absent = |sum: &Sum| if sum.0 == 0 { Err(7) } else { Ok(vec![]) };
    assert_eq!(refused(store.execute("none", absent)), 7);
    for execution in &mut executions {
        assert!(!execution.is_resolved());
        assert!(execution.wait_timeout(Duration::from_millis(5)).is_none());
    }
    disk.set_order(Order::Random);
    for (nth, mut execution) in executions.into_iter().enumerate() {
        let answer = execution.wait_timeout(LONG).expect("in time").unwrap();
        assert!(store.version("sheet").unwrap() >= 2, "{nth}: told before it was durable");
        match nth {
            1 | 4 | 6 => assert!(answer.unwrap().is_none(), "{nth}"),
            9 => assert_eq!(answer.unwrap().unwrap().version(), 3),
            _ => assert_eq!(answer.unwrap_err(), 40, "{nth}"),
        }
        assert!(execution.is_resolved());
        let again = execution.wait_timeout(Duration::ZERO).expect("resolved");
        assert_eq!(again.unwrap_err().kind(), ErrorKind::Invalid, "it was given away");
    }
    assert_eq!(audit(&store).len(), 4);
}

#[test]
fn an_answer_that_rests_on_what_failed_is_not_given() {
    for seed in 0..10 {
        let (disk, store) = held(seed);
        let executions = rest_on_it(&store);
        fail_next_sync(&disk);
        for (nth, execution) in executions.into_iter().enumerate() {
            let error = in_time("an answer", move || execution.wait()).unwrap_err();
            let unknown = [ErrorKind::OutcomeUnknown, ErrorKind::NotWritten];
            assert!(unknown.contains(&error.kind()), "{nth}: {error}");
        }
        for (nth, execution) in rest_on_it(&store).into_iter().enumerate() {
            assert_eq!(execution.wait().unwrap_err().kind(), ErrorKind::Stopped, "{nth}");
        }
        assert_eq!(refused(store.execute("quiet", eight)), 40, "what is durable is answered still");
        drop(store);
        disk.repair();
        let store = open_sim(&small(), &disk).unwrap();
        let (sheet, version) = store.read("sheet").into_state::<Sum>().unwrap();
        assert_eq!(sheet.0, [0, 5, 40, 80][version as usize]);
    }
}

/// An execution that resolves while a time is about to be over is told as it is.
#[test]
fn a_time_that_is_over_is_never_taken_for_a_failure() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let states: States<Sum> = store.states(1);
    for round in 0..3000_u64 {
        let mut execution = states.execute("a", |_: &Sum| Ok::<_, ()>(vec![numbered(round)]));
        let mut limit = Duration::from_micros(20 + round % 150);
        let done = loop {
            match execution.wait_timeout(limit) {
                Some(done) => break done,
                None => limit = Duration::from_micros(3),
            }
        };
        assert_eq!(done.unwrap().unwrap().unwrap().version(), round + 1);
    }
}

#[test]
fn executions_outlive_their_store() {
    let (disk, store) = held(5);
    let executions = rest_on_it(&store);
    disk.set_order(Order::Random);
    drop(store);
    for execution in executions {
        drop(in_time("an execution", move || execution.wait()).unwrap());
    }
    let store = open_sim(&small(), &disk).unwrap();
    store.close().unwrap();
    let closed = store.execute("sheet", |_: &Sum| Ok::<_, ()>(vec![numbered(1)]));
    assert_eq!(closed.wait().unwrap_err().kind(), ErrorKind::Closed);
}
