//! Every limit on both sides of its edge, and every call that can't be right.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::limits::{
    AGGREGATES_PER_WRITE_MAX, EVENT_TYPE_BYTES_MAX, EVENTS_PER_WRITE_MAX, KEY_BYTES_MAX,
    WRITE_BYTES_MAX,
};
use annals::{Committed, Error, ErrorKind, Event, Expect, Options, Store, Ticket};
use common::{audit, directory, event, in_time, small};

fn wait(ticket: Result<Ticket, Error>) -> Committed {
    ticket.unwrap().wait().unwrap()
}

/// Checks that a call is refused as it should be, and changed nothing.
fn refused(store: &Store, call: &str, outcome: Result<Ticket, Error>, kind: ErrorKind) {
    let error = outcome.map(drop).expect_err(call);
    assert_eq!(error.kind(), kind, "{call}: {error}");
    assert_eq!(store.stats().shards[0].writes, 1, "{call}");
}

fn with_one_write() -> (tempfile::TempDir, Store) {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    wait(store.append("a", Expect::Any, [event("E")]));
    (dir, store)
}

#[test]
fn calls_that_cannot_be_right_are_invalid_and_change_nothing() {
    let (_dir, store) = with_one_write();
    let invalid = |call, outcome| refused(&store, call, outcome, ErrorKind::Invalid);
    let none = || std::iter::empty::<Event>();
    let write = || store.write().append("a", Expect::Any, [event("E")]);
    invalid("an empty key", store.append("", Expect::Any, [event("E")]));
    invalid("an empty key, tried", store.try_append("", Expect::Any, [event("E")]));
    invalid("an empty key in a write", write().append("", Expect::Any, [event("E")]).submit());
    invalid("an empty key in a check", write().check("", Expect::Exists).submit());
    invalid("no events", store.append("a", Expect::Any, none()));
    invalid("no events on a new key", store.append("new", Expect::Absent, none()));
    invalid("no events by handle", store.aggregate("a").unwrap().append(Expect::Any, none()));
    invalid("no events in a part", write().append("b", Expect::Any, none()).submit());
    invalid("an empty write", store.write().submit());
    invalid("an empty write, tried", store.write().try_submit());
    invalid("an empty write of a client", store.write().client(1, 1).submit());
    invalid("a check of any version", write().check("b", Expect::Any).submit());
    invalid("a check of any version alone", store.write().check("a", Expect::Any).submit());
    invalid("a key twice", write().append("a", Expect::Any, [event("E")]).submit());
    invalid("a key appended and checked", write().check("a", Expect::Exists).submit());
    let twice = store.write().check("b", Expect::Absent).check("b", Expect::Absent);
    invalid("a key checked twice", twice.submit());
    invalid("an empty event type", store.append("a", Expect::Any, [event("E"), event("")]));
    invalid(
        "an empty event type in a write",
        write().append("b", Expect::Any, [event("")]).submit(),
    );
    invalid("the last sequence", write().client(1, u64::MAX).submit());
    // What was wrong first is what is told, and what comes after does not mend it.
    let first = write().check("b", Expect::Any).append("c", Expect::Version(9), [event("E")]);
    invalid("a wrong call and a conflict", first.submit());
    assert_eq!(store.aggregate("").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.version("").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.read("").next().unwrap().unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.stats().shards[0].slots, 1);
    assert_eq!(wait(write().client(1, u64::MAX - 1).submit()).version(), 2);
}

#[test]
fn keys_are_1_to_1024_bytes_of_anything() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let longest = vec![0xFF; KEY_BYTES_MAX];
    let mut almost = longest.clone();
    almost.pop();
    let keys: [&[u8]; 10] = [
        b"\0",
        b"\0\0",
        b"a",
        b"a\0",
        b"a\0b",
        b"\xC3\x28",
        b"\xFF\xFE",
        b"../../etc/passwd",
        &almost,
        &longest,
    ];
    for (index, key) in keys.iter().enumerate() {
        for _ in 0..=index {
            wait(store.append(key, Expect::Any, [Event::new("E", *key)]));
        }
    }
    let too_long = vec![b'x'; KEY_BYTES_MAX + 1];
    for outcome in [
        store.append(&too_long, Expect::Any, [event("E")]),
        store.write().append(&too_long, Expect::Any, [event("E")]).submit(),
        store.write().check(&too_long, Expect::Absent).submit(),
        // The whole key counts, also far beyond the limit.
        store.append(vec![b'x'; 1 << 20], Expect::Any, [event("E")]),
    ] {
        let error = outcome.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        assert!(error.to_string().len() < 1000);
    }
    assert_eq!(store.version(&too_long).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(store.aggregate(&too_long).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(store.read(&too_long).next().unwrap().unwrap_err().kind(), ErrorKind::TooLarge);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(store.version(key).unwrap(), index as u64 + 1, "{key:?}");
        let last = store.read(key).backwards().limit(1).next().unwrap().unwrap();
        assert_eq!((last.key(), last.data()), (*key, *key));
    }
    assert_eq!(store.aggregates().count(), keys.len());
    // A client's slot for the longest key is the longest there is.
    let done = wait(
        store.write().append(&longest, Expect::Any, [event("E")]).client(u128::MAX, 0).submit(),
    );
    let again = wait(
        store.write().append(&longest, Expect::Any, [event("E")]).client(u128::MAX, 0).submit(),
    );
    assert!(again.is_replay() && again.position() == done.position());
}

#[test]
fn event_types_are_1_to_255_bytes_of_utf8() {
    let (_dir, store) = with_one_write();
    let wide = format!("{}a", "é".repeat(EVENT_TYPE_BYTES_MAX / 2));
    let longest = "x".repeat(EVENT_TYPE_BYTES_MAX);
    assert_eq!(wide.len(), EVENT_TYPE_BYTES_MAX);
    let too_long = format!("{longest}x");
    refused(
        &store,
        "a long type",
        store.append("a", Expect::Any, [event(&too_long)]),
        ErrorKind::TooLarge,
    );
    let hidden = store.append("a", Expect::Any, [event("E"), event(&format!("{wide}é"))]);
    refused(&store, "a long type behind", hidden, ErrorKind::TooLarge);
    for (name, version) in [("x", 2), (&wide, 3), (&longest, 4)] {
        wait(store.append("a", Expect::Any, [event(name)]));
        let last = store.read("a").from(version).next().unwrap().unwrap();
        assert_eq!(last.event_type(), name);
    }
}

#[test]
fn a_write_has_up_to_65535_events() {
    let (dir, store) = with_one_write();
    let events =
        |count: usize| (0..count).map(|number| Event::new("E", (number as u32).to_le_bytes()));
    let too_many = store.append("a", Expect::Any, events(EVENTS_PER_WRITE_MAX + 1));
    refused(&store, "one event too many", too_many, ErrorKind::TooLarge);
    let spread = store.write().append("a", Expect::Any, events(EVENTS_PER_WRITE_MAX - 10)).append(
        "b",
        Expect::Any,
        events(11),
    );
    refused(&store, "one too many over two aggregates", spread.submit(), ErrorKind::TooLarge);
    assert_eq!(wait(store.append("a", Expect::Any, events(EVENTS_PER_WRITE_MAX))).version(), 2);
    let spread = store.write().append("a", Expect::Any, events(EVENTS_PER_WRITE_MAX - 10)).append(
        "b",
        Expect::Any,
        events(10),
    );
    assert_eq!(wait(spread.submit()).version(), 3);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    let mut count = 0;
    for event in store.read("a").from(2) {
        let event = event.unwrap();
        if event.version() == 2 {
            assert_eq!(event.data(), event.index().to_le_bytes());
            assert_eq!(event.batch_events(), EVENTS_PER_WRITE_MAX as u32);
        }
        count += 1;
    }
    assert_eq!(count, 2 * EVENTS_PER_WRITE_MAX - 10);
}

#[test]
fn a_write_has_up_to_256_aggregates_those_it_checks_included() {
    let (dir, store) = with_one_write();
    let write = |appends: usize, checks: usize| {
        let mut write = store.write();
        for number in 0..appends {
            write = write.append(format!("k{number}"), Expect::Any, [event("E")]);
        }
        for number in 0..checks {
            write = write.check(format!("c{number}"), Expect::Absent);
        }
        write
    };
    let most = AGGREGATES_PER_WRITE_MAX;
    refused(&store, "appends", write(most + 1, 0).submit(), ErrorKind::TooLarge);
    refused(&store, "appends and checks", write(most, 1).submit(), ErrorKind::TooLarge);
    refused(&store, "checks", write(0, most + 1).submit(), ErrorKind::TooLarge);
    assert_eq!(wait(write(most, 0).submit()).versions().count(), most);
    let done = wait(write(most - 56, 56).client(3, 3).submit());
    assert_eq!((done.version_of("k199"), done.version_of("c55")), (Some(2), Some(0)));
    assert_eq!(wait(write(0, most).submit()).version(), 0);
    assert!(wait(write(most - 56, 56).client(3, 3).submit()).is_replay());
    drop(store);
    assert_eq!(audit(&Store::open(dir.path()).unwrap()).len(), 3);
}

/// The most data that fits into one event of a write to `key`, found from what a write is stored as.
fn largest_data(store: &Store, key: &str) -> usize {
    let most = store.limits().write_bytes;
    let (mut fits, mut too_much) = (most - 4096, most);
    while too_much - fits > 1 {
        let middle = (fits + too_much) / 2;
        // A condition that can't hold is looked at after the size is known to be right.
        let write = store.write().append(key, Expect::Any, [Event::new("E", vec![0; middle])]);
        let outcome = write.check("never", Expect::Exists).submit().map(drop).unwrap_err();
        match outcome.kind() {
            ErrorKind::TooLarge => too_much = middle,
            ErrorKind::NotFound => fits = middle,
            _ => panic!("{outcome}"),
        }
    }
    fits
}

#[test]
fn a_write_is_as_large_as_the_store_says_and_no_larger() {
    for segment_bytes in [1 << 20, 64 << 20] {
        let dir = directory();
        let store = Options::new().segment_bytes(segment_bytes).open(dir.path()).unwrap();
        let limits = store.limits();
        assert_eq!(
            limits.write_bytes,
            if segment_bytes == 1 << 20 { limits.write_bytes } else { WRITE_BYTES_MAX }
        );
        assert!(limits.write_bytes > (segment_bytes as usize).min(WRITE_BYTES_MAX) / 10 * 9);
        assert_eq!((limits.key_bytes, limits.event_type_bytes), (1024, 255));
        assert_eq!((limits.events_per_write, limits.aggregates_per_write), (65_535, 256));
        // The check is stored, too: without it there is room for as much more.
        let most = largest_data(&store, "k");
        let event = |bytes| [Event::new("E", vec![7; bytes])];
        let checked = |bytes| {
            let write = store.write().append("k", Expect::Any, event(bytes));
            write.check("never", Expect::Absent).submit()
        };
        assert_eq!(checked(most + 1).map(drop).unwrap_err().kind(), ErrorKind::TooLarge);
        let (first, second) = in_time("the largest write", {
            let first = checked(most);
            let second = checked(most - 1);
            move || (wait(first), wait(second))
        });
        assert_eq!((first.version(), second.version()), (1, 2));
        let far = store
            .append("k", Expect::Any, event(segment_bytes as usize * 2))
            .map(drop)
            .unwrap_err();
        assert_eq!(far.kind(), ErrorKind::TooLarge, "{far}");
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        let stored: Vec<_> = store.read("k").map(|event| event.unwrap().data().len()).collect();
        assert_eq!(stored, [most, most - 1]);
    }
}

/// Writes of the largest size in a row, small ones between them, so that every segment is left early.
fn roll(store: &Store, writes: usize, submit: impl Fn(&Store, &str, Arc<[u8]>) -> Ticket) {
    let most = store.limits().write_bytes - 200;
    let sizes = [most, 10, most, most, most / 2 + 1, 5000, most, 10, most / 2, most / 3, most];
    let data: Arc<[u8]> = vec![9; most].into();
    let mut tickets = Vec::new();
    for number in 0..writes {
        let bytes = sizes[number % sizes.len()];
        let data = if bytes == most { Arc::clone(&data) } else { data[..bytes].into() };
        tickets.push(submit(store, if number % 2 == 0 { "even" } else { "odd" }, data));
        if number % 7 == 3 {
            tickets.drain(..).for_each(|ticket| drop(ticket.wait().unwrap()));
        }
        if number % 11 == 10 {
            // Long enough for the log writer to state the frontier.
            std::thread::sleep(Duration::from_millis(60));
        }
    }
    tickets.iter().for_each(|ticket| drop(ticket.wait().unwrap()));
}

#[test]
fn many_of_the_largest_writes_in_a_row_never_hang() {
    for (options, writes) in [(small(), 66), (Options::new(), 7)] {
        let dir = directory();
        let store = options.open(dir.path()).unwrap();
        let stored = in_time("large writes", move || {
            roll(&store, writes, |store, key, data| {
                store.append(key, Expect::Any, [Event::new("E", data)]).unwrap()
            });
            store.version("even").unwrap() + store.version("odd").unwrap()
        });
        assert_eq!(stored, writes as u64);
        assert_eq!(audit(&options.open(dir.path()).unwrap()).len(), writes);
    }
}

#[test]
fn many_of_the_largest_writes_get_through_by_trying() {
    let dir = directory();
    let store = small().open(dir.path()).unwrap();
    in_time("large writes that are tried", move || {
        roll(&store, 33, |store, key, data| {
            let start = Instant::now();
            loop {
                match store.try_append(key, Expect::Any, [Event::new("E", Arc::clone(&data))]) {
                    Ok(ticket) => break ticket,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
                }
                assert!(start.elapsed() < Duration::from_secs(20), "it never gets through");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    });
    assert_eq!(audit(&small().open(dir.path()).unwrap()).len(), 33);
}

#[test]
fn large_writes_of_several_threads_never_hang() {
    let dir = directory();
    let store = small().in_flight_bytes(1 << 20).open(dir.path()).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            move || {
                roll(&store, 22, |store, key, data| {
                    store.append(key, Expect::Any, [Event::new("E", data)]).unwrap()
                });
            }
        })
        .collect();
    in_time("large writes of several threads", move || {
        let threads: Vec<_> = threads.into_iter().map(std::thread::spawn).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    drop(store);
    assert_eq!(audit(&small().open(dir.path()).unwrap()).len(), 88);
}
