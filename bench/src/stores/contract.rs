//! What every store under test must do, checked the same way for each: the tests of all of them call [`check`].

use std::{collections::HashMap, path::Path};

use tempfile::TempDir;

use crate::store::{Append, Outcome, Session, Setup, Store, Ticket, key};

/// A new folder on a disk: the system's folder for temporary files is often in memory.
pub fn folder() -> TempDir {
    tempfile::tempdir_in("/var/tmp").expect("a folder in /var/tmp can be made")
}

/// Checks that a store keeps the contract.
///
/// # Panics
///
/// Where it does not.
pub fn check<S: Store>() {
    let dir = folder();
    let dir = dir.path();
    conditions::<S>(dir);
    all_or_nothing::<S>(dir);
    reads::<S>(dir);
    counters::<S>(dir);
    tasks::<S>(dir);
    filled::<S>(dir);
}

/// Checks what a bare log without conditions promises: what it acknowledged is there when it is opened again, once and in order.
///
/// # Panics
///
/// Where it is not.
pub fn check_bound<S: Store>() {
    let dir = folder();
    let store = open::<S>(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let mut session = store.session().expect("a session");
            scope.spawn(move || {
                for number in 0..25_u64 {
                    let payload = [thread as u8, number as u8];
                    let outcome =
                        session.append(&[append(thread, None, &payload)]).expect("a write");
                    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
                }
            });
        }
    });
    store.close().expect("it closes");
    let store = open::<S>(dir.path());
    let mut session = store.session().expect("a session");
    let mut found: HashMap<u8, Vec<u8>> = HashMap::new();
    let all = session.read_all(&mut |event| found.entry(event[0]).or_default().push(event[1]));
    assert_eq!(all.expect("all events"), 100);
    assert_eq!(found.len(), 4);
    assert!(found.values().all(|numbers| numbers.iter().copied().eq(0..25)), "{found:?}");
}

fn open<S: Store>(dir: &Path) -> S {
    S::open(dir, &Setup::default()).expect("it opens")
}

fn append(number: u64, expected: Option<u64>, payload: &[u8]) -> Append<'_> {
    Append { key: key(number), expected, payload }
}

/// A condition that holds makes the next version; one that fails names the version there is; both are so after opening it again.
fn conditions<S: Store>(dir: &Path) {
    let store = open::<S>(dir);
    let mut session = store.session().expect("a session");
    for (expected, outcome) in [
        (Some(1), Outcome::Conflict(0)),
        (Some(0), Outcome::Committed(1)),
        (Some(0), Outcome::Conflict(1)),
        (None, Outcome::Committed(2)),
        (Some(1), Outcome::Conflict(2)),
        (Some(2), Outcome::Committed(3)),
        (Some(7), Outcome::Conflict(3)),
    ] {
        let found = session.append(&[append(1, expected, b"event")]).expect("a write");
        assert_eq!(found, outcome, "expected version {expected:?}");
    }
    let handle = session.handle(key(1)).expect("a handle");
    for (expected, outcome) in [
        (Some(2), Outcome::Conflict(3)),
        (Some(3), Outcome::Committed(4)),
        (None, Outcome::Committed(5)),
    ] {
        let ticket = session.submit_to(&handle, expected, b"event").expect("a write by handle");
        assert_eq!(ticket.wait().expect("its outcome"), outcome, "expected version {expected:?}");
    }
    drop((session, handle));
    store.close().expect("it closes");

    let store = open::<S>(dir);
    let mut session = store.session().expect("a session");
    assert_eq!(session.version(key(1)).expect("a version"), 5);
    assert_eq!(session.version(key(2)).expect("a version"), 0);
    let stale = session.append(&[append(1, Some(4), b"event")]).expect("a write");
    assert_eq!(stale, Outcome::Conflict(5));
    drop(session);
    store.close().expect("it closes");
}

/// A write of two aggregates changes both or none, whichever condition fails.
fn all_or_nothing<S: Store>(dir: &Path) {
    let store = open::<S>(dir);
    let mut session = store.session().expect("a session");
    let steps: [([Option<u64>; 2], Outcome); 5] = [
        ([Some(0), Some(0)], Outcome::Committed(1)),
        ([Some(1), Some(0)], Outcome::Conflict(1)),
        ([Some(0), Some(1)], Outcome::Conflict(1)),
        ([Some(1), Some(1)], Outcome::Committed(2)),
        ([None, None], Outcome::Committed(3)),
    ];
    let mut committed = 0;
    for (expected, outcome) in steps {
        let two = [append(10, expected[0], b"from"), append(11, expected[1], b"to")];
        assert_eq!(session.append(&two).expect("a write"), outcome, "expected {expected:?}");
        committed += u64::from(matches!(outcome, Outcome::Committed(_)));
        for number in [10, 11] {
            assert_eq!(session.version(key(number)).expect("a version"), committed);
        }
    }
    // The other way round: the version of the first in the write, and a second with another version.
    assert_eq!(
        session.append(&[append(11, None, b"more")]).expect("a write"),
        Outcome::Committed(4)
    );
    let two = [append(11, Some(4), b"from"), append(10, Some(3), b"to")];
    assert_eq!(session.append(&two).expect("a write"), Outcome::Committed(5));
    let two = [append(10, Some(4), b"from"), append(11, Some(4), b"to")];
    assert_eq!(session.append(&two).expect("a write"), Outcome::Conflict(5));
    drop(session);
    store.close().expect("it closes");
    let store = open::<S>(dir);
    let mut session = store.session().expect("a session");
    let versions = [10, 11].map(|number| session.version(key(number)).expect("a version"));
    assert_eq!(versions, [4, 5]);
    drop(session);
    store.close().expect("it closes");
}

/// Events come back byte for byte and in order, the last ones and all, before and after opening it again.
fn reads<S: Store>(dir: &Path) {
    let payload = |number: u64, version: u64| -> Vec<u8> {
        let mut bytes = format!("reads {number} {version:03} ").into_bytes();
        bytes.resize(32 + 700 * (version as usize % 7), version as u8);
        bytes
    };
    let store = open::<S>(dir);
    let mut session = store.session().expect("a session");
    for version in 0..30 {
        for number in [20, 21] {
            let event = payload(number, version);
            let outcome = session.append(&[append(number, Some(version), &event)]);
            assert_eq!(outcome.expect("a write"), Outcome::Committed(version + 1));
        }
    }
    let look = |session: &mut S::Session| {
        for (events, first) in [(10, 20), (1, 29), (30, 0), (1000, 0)] {
            let mut last = Vec::new();
            let found = session
                .read_last(key(21), events, &mut |event| last.push(event.to_vec()))
                .expect("the last events");
            let wanted: Vec<_> = (first..30).map(|version| payload(21, version)).collect();
            assert_eq!(last, wanted, "the last {events}");
            assert_eq!(found, last.len() as u64);
        }
        let nothing = session.read_last(key(22), 10, &mut |_| panic!("there is no event"));
        assert_eq!(nothing.expect("no events"), 0);

        let (mut all, mut count) = (HashMap::<u8, Vec<Vec<u8>>>::new(), 0);
        let found = session
            .read_all(&mut |event| {
                count += 1;
                if event.starts_with(b"reads ") {
                    all.entry(event[7]).or_default().push(event.to_vec());
                }
            })
            .expect("all events");
        assert_eq!(found, count);
        for (digit, number) in [(b'0', 20), (b'1', 21)] {
            let wanted: Vec<_> = (0..30).map(|version| payload(number, version)).collect();
            assert_eq!(all[&digit], wanted);
        }
        found
    };
    let before = look(&mut session);
    drop(session);
    store.close().expect("it closes");
    let store = open::<S>(dir);
    let mut session = store.session().expect("a session");
    assert_eq!(look(&mut session), before);
    drop(session);
    store.close().expect("it closes");
}

/// Threads that count on the same aggregates, one or two at a time, lose no count and see only versions that are there.
fn counters<S: Store>(dir: &Path) {
    const THREADS: u64 = 4;
    const COUNTS: u64 = 25;
    let store = open::<S>(dir);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mut session = store.session().expect("a session");
            scope.spawn(move || {
                let mut known = [0, 0];
                for count in 0..COUNTS {
                    // Half of the threads take the two in the other order.
                    let pair = if thread % 2 == 0 { [0, 1] } else { [1, 0] };
                    let aggregates = if count % 5 == 0 { &pair[..] } else { &pair[..1] };
                    loop {
                        let write: Vec<_> = aggregates
                            .iter()
                            .map(|&each| append(30 + each as u64, Some(known[each]), b"count"))
                            .collect();
                        match session.append(&write).expect("a write") {
                            Outcome::Committed(version) => {
                                assert_eq!(version, known[aggregates[0]] + 1);
                                aggregates.iter().for_each(|&each| known[each] += 1);
                                break;
                            }
                            // A store may name a version that is accepted and not yet durable. It becomes so, or this waits for ever.
                            Outcome::Conflict(actual) => loop {
                                for &each in aggregates {
                                    let version = session.version(key(30 + each as u64));
                                    known[each] = version.expect("a version").max(known[each]);
                                }
                                if aggregates.iter().any(|&each| actual <= known[each]) {
                                    break;
                                }
                                std::thread::yield_now();
                            },
                        }
                    }
                }
            });
        }
    });
    let both = THREADS * COUNTS.div_ceil(5);
    let alone = THREADS / 2 * (COUNTS - COUNTS.div_ceil(5));
    store.close().expect("it closes");
    let store = open::<S>(dir);
    let mut session = store.session().expect("a session");
    for number in [30, 31] {
        assert_eq!(session.version(key(number)).expect("a version"), both + alone);
        let events = session.read_last(key(number), 1000, &mut |_| ()).expect("its events");
        assert_eq!(events, both + alone);
    }
    drop(session);
    store.close().expect("it closes");
}

/// Tickets resolve for tasks as they do for threads, also when many are in flight.
fn tasks<S: Store>(dir: &Path) {
    let store = open::<S>(dir);
    let mut session = store.session().expect("a session");
    let tickets: Vec<_> = (0..200)
        .map(|number| session.submit(&[append(40 + number % 100, Some(number / 100), b"task")]))
        .collect();
    for (number, ticket) in tickets.into_iter().enumerate() {
        let outcome = block_on(ticket.expect("a write")).expect("its outcome");
        assert_eq!(outcome, Outcome::Committed(number as u64 / 100 + 1));
    }
    drop(session);
    store.close().expect("it closes");
}

/// A store that was filled holds what it would hold after as many writes.
fn filled<S: Store>(dir: &Path) {
    const AGGREGATES: u64 = 700;
    let store = open::<S>(dir);
    let mut session = store.session().expect("a session");
    let mut events =
        (0..AGGREGATES + 1).map(|number| (key(1000 + number % AGGREGATES), &b"filled"[..]));
    let events = session.load(&mut events).expect("it is filled");
    assert_eq!(events, AGGREGATES + 1);
    drop(session);
    store.close().expect("it closes");
    let store = open::<S>(dir);
    let mut session = store.session().expect("a session");
    for (number, version) in [(0, 2), (1, 1), (AGGREGATES - 1, 1), (AGGREGATES, 0)] {
        assert_eq!(session.version(key(1000 + number)).expect("a version"), version);
        let each = &mut |event: &[u8]| assert_eq!(event, b"filled");
        assert_eq!(session.read_last(key(1000 + number), 10, each).expect("its events"), version);
    }
    drop(session);
    store.close().expect("it closes");
}

/// Runs a future on this thread, which sleeps until the future's waker is called.
fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        if let std::task::Poll::Ready(output) = std::pin::Pin::new(&mut future).poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}
