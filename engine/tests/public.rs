//! The store through its public face.

use std::time::Duration;

use annals::{Backend, ErrorKind, Event, Expect, Options, Position, Store};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

fn event(name: &str) -> Event {
    Event::new(name, format!("data of {name}"))
}

fn both(test: impl Fn(Options)) {
    for backend in [Backend::Uring, Backend::Blocking] {
        test(Options::new().backend(backend));
    }
}

#[test]
fn appended_events_are_read_back_also_after_reopening() {
    both(|options| {
        let dir = directory();
        let store = options.open(dir.path()).unwrap();
        for version in 0..10 {
            let ticket = store
                .append("order-1", Expect::Version(version), [event("A"), event("B")])
                .unwrap();
            let done = ticket.wait().unwrap();
            assert_eq!(done.version(), version + 1);
            assert!(!done.is_replay());
        }
        let check = |store: &Store| {
            let read = store.read("order-1");
            assert_eq!(read.version(), 10);
            let events: Vec<_> = read.map(Result::unwrap).collect();
            assert_eq!(events.len(), 20);
            assert_eq!(events[3].version(), 2);
            assert_eq!(events[3].event_type(), "B");
            assert_eq!(events[3].data(), b"data of B");
            assert_eq!(store.version("order-1").unwrap(), 10);
            assert_eq!(store.version("order-2").unwrap(), 0);
            assert_eq!(store.read("order-2").version(), 0);
            assert_eq!(store.read("order-2").count(), 0);
        };
        check(&store);
        store.close().unwrap();
        drop(store);
        check(&options.open(dir.path()).unwrap());
    });
}

#[test]
fn a_conflict_names_what_was_found() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    store.append("a", Expect::Absent, [event("E")]).unwrap().wait().unwrap();
    let error = store.append("a", Expect::Version(3), [event("E")]).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, 2003));
    assert_eq!((error.actual(), error.expected()), (Some(1), Some(Expect::Version(3))));
    let error = store.append("b", Expect::Exists, [event("E")]).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, 2005));
    let error = store.append("b", Expect::Version(1), [event("E")]).unwrap_err();
    assert_eq!((error.code(), error.actual()), (2003, Some(0)));
    let error = store.append("a", Expect::Absent, [event("E")]).unwrap_err();
    assert_eq!((error.code(), error.actual()), (2003, Some(1)));
    assert_eq!(store.log(0).count(), 1);
}

#[test]
fn several_aggregates_land_together_or_not_at_all() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let done = store
        .write()
        .append("account-1", Expect::Absent, [event("Opened")])
        .append("account-2", Expect::Any, [event("Opened"), event("Credited")])
        .check("customer-9", Expect::Absent)
        .submit()
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(done.version_of("account-2"), Some(1));
    assert_eq!(done.version_of("customer-9"), Some(0));
    assert_eq!(done.version_of("other"), None);

    let error = store
        .write()
        .append("account-1", Expect::Version(1), [event("Debited")])
        .append("account-2", Expect::Version(7), [event("Credited")])
        .submit()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.key(), Some(b"account-2".as_slice()));
    assert_eq!(store.version("account-1").unwrap(), 1);

    let done = store.write().check("account-1", Expect::Exists).submit().unwrap().wait().unwrap();
    assert_eq!(done.version(), 0);
    assert_eq!(done.position(), Position::START);
    assert_eq!(store.log(0).count(), 3);
}

#[test]
fn a_retry_returns_the_original_result() {
    let dir = directory();
    let write = |store: &Store, sequence, expect| {
        store
            .write()
            .append("a", expect, [event("E")])
            .append("b", Expect::Any, [event("E")])
            .client(7, sequence)
            .submit()
    };
    let store = Store::open(dir.path()).unwrap();
    let first = write(&store, 0, Expect::Absent).unwrap().wait().unwrap();
    let again = write(&store, 0, Expect::Absent).unwrap().wait().unwrap();
    assert!(again.is_replay() && !first.is_replay());
    assert_eq!(again.position(), first.position());
    assert_eq!(again.time(), first.time());
    assert_eq!(again.version_of("b"), Some(1));

    let original = write(&store, 5, Expect::Version(1)).unwrap();
    let in_flight = write(&store, 5, Expect::Version(1)).unwrap().wait().unwrap();
    assert!(in_flight.is_replay());
    assert_eq!(in_flight.position(), original.wait().unwrap().position());
    drop(store);

    let store = Store::open(dir.path()).unwrap();
    assert!(write(&store, 5, Expect::Version(1)).unwrap().wait().unwrap().is_replay());
    let stale = write(&store, 4, Expect::Any).unwrap_err();
    assert_eq!((stale.kind(), stale.code()), (ErrorKind::Duplicate, 2002));
    assert_eq!(stale.keys().collect::<Vec<_>>(), [b"a", b"b"]);
    let mixed = store
        .write()
        .append("a", Expect::Any, [event("E")])
        .append("c", Expect::Any, [event("E")])
        .client(7, 5)
        .submit()
        .unwrap_err();
    assert_eq!(mixed.kind(), ErrorKind::Duplicate);
    assert_eq!(store.version("a").unwrap(), 2);
}

#[test]
fn tickets_can_be_waited_for_with_a_limit_and_awaited() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let ticket = store.append("a", Expect::Any, [event("E")]).unwrap();
    let done = ticket.wait_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(done.version(), 1);
    let ticket = store.append("a", Expect::Any, [event("E")]).unwrap();
    assert_eq!(futures::executor::block_on(ticket).unwrap().version(), 2);
}

#[test]
fn a_pipeline_on_one_aggregate_fills_flushes_and_segments() {
    both(|options| {
        let dir = directory();
        let options = options.segment_bytes(1 << 20).tail_bytes(1 << 20);
        let store = options.open(dir.path()).unwrap();
        let data = vec![7u8; 1000];
        let mut tickets = Vec::new();
        for version in 0..20_000u64 {
            let event = Event::new("E", data.as_slice());
            tickets.push(store.append("hot", Expect::Version(version), [event]).unwrap());
        }
        for (index, ticket) in tickets.iter().enumerate() {
            assert_eq!(ticket.wait().unwrap().version(), index as u64 + 1);
        }
        assert!(store.stats().shards[0].segments > 10, "{:?}", store.stats());
        assert_eq!(store.read("hot").count(), 20_000);
        assert_eq!(store.log(0).count(), 20_000);
        drop(tickets);
        drop(store);
        let store = options.open(dir.path()).unwrap();
        assert_eq!(store.version("hot").unwrap(), 20_000);
        let last = store.read("hot").backwards().limit(1).next().unwrap().unwrap();
        assert_eq!(last.version(), 20_000);
    });
}

/// A write that needs more than the segment in use and the prepared one have left leaves the prepared one empty.
fn with_an_empty_segment(store: &Store) {
    let small = vec![1; 100 << 10];
    for _ in 0..6 {
        store
            .append("small", Expect::Any, [Event::new("E", small.as_slice())])
            .unwrap()
            .wait()
            .unwrap();
    }
    // The next segment is prepared once this one is half full.
    std::thread::sleep(Duration::from_millis(100));
    store
        .append("large", Expect::Any, [Event::new("E", vec![2; 3 << 20])])
        .unwrap()
        .wait()
        .unwrap();
}

#[test]
fn a_large_write_that_skips_a_segment_is_there_after_reopening() {
    let dir = directory();
    with_an_empty_segment(&Store::open(dir.path()).unwrap());
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.version("small").unwrap(), 6);
    assert_eq!(store.version("large").unwrap(), 1);
    with_an_empty_segment(&store);
    store.append("small", Expect::Version(12), [event("E")]).unwrap().wait().unwrap();
    drop(store);
    let found = annals::verify(dir.path(), |_, _| {}).unwrap();
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    assert_eq!(Store::open(dir.path()).unwrap().version("large").unwrap(), 2);
}

#[test]
fn a_large_write_that_skips_a_segment_survives_a_power_cut() {
    use annals::internals::disk::sim::SimDisk;
    use annals::internals::open_on;
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let store = open_on(&Options::new(), disk.clone()).unwrap();
        with_an_empty_segment(&store);
        let after = disk.crash(seed);
        let found = open_on(&Options::new(), after).unwrap();
        assert_eq!(found.version("small").unwrap(), 6, "seed {seed}");
        assert_eq!(found.version("large").unwrap(), 1, "seed {seed}");
    }
}

#[test]
fn a_segment_filled_to_its_last_block_still_states_its_frontier() {
    let dir = directory();
    let store = Options::new().segment_bytes(1 << 20).block_bytes(4096).open(dir.path()).unwrap();
    // Each write takes one block: the segment ends at every number of them sooner or later.
    for round in 0..254 {
        store.append("a", Expect::Version(round), [event("E")]).unwrap().wait().unwrap();
    }
    std::thread::sleep(Duration::from_millis(150));
    for round in 254..600 {
        store.append("a", Expect::Version(round), [event("E")]).unwrap().wait().unwrap();
    }
    drop(store);
    assert_eq!(Store::open(dir.path()).unwrap().version("a").unwrap(), 600);
}
