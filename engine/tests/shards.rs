//! Shards: where keys go, what may be written together, and the order within each.

mod common;

use std::collections::HashSet;
use std::thread;

use annals::{ErrorKind, Event, Expect, Options, Store, Ticket};
use common::{audit_shard, directory, event, numbered};

#[test]
fn keys_spread_over_shards_and_stay_where_they_are() {
    let dir = directory();
    let store = Options::new().shards(4).open(dir.path()).unwrap();
    assert_eq!((store.shards(), store.stats().shards.len()), (4, 4));
    let keys: Vec<String> = (0..400).map(|number| format!("key-{number}")).collect();
    let mut counts = [0; 4];
    for key in &keys {
        counts[usize::from(store.shard_of(key))] += 1;
        store.append(key, Expect::Absent, [event("E")]).unwrap().wait().unwrap();
    }
    assert!(counts.iter().all(|count| (50..=150).contains(count)), "{counts:?}");
    let before: Vec<u16> = keys.iter().map(|key| store.shard_of(key)).collect();
    for (shard, count) in counts.into_iter().enumerate() {
        assert_eq!(store.log(shard as u16).count(), count);
        assert!(
            store.log(shard as u16).all(|e| usize::from(store.shard_of(e.unwrap().key())) == shard)
        );
    }
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(before, keys.iter().map(|key| store.shard_of(key)).collect::<Vec<_>>());
    assert!(keys.iter().all(|key| store.version(key).unwrap() == 1));
    assert_eq!(store.aggregates().count(), 400);
    let error = store.log(4).next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// Two keys of different shards.
fn apart(store: &Store) -> (String, String) {
    let other = (0..).map(|number| format!("other-{number}"));
    let other = other.into_iter().find(|key| store.shard_of(key) != store.shard_of("one")).unwrap();
    ("one".to_owned(), other)
}

#[test]
fn a_write_across_shards_is_refused_with_its_keys_before_anything_happens() {
    let dir = directory();
    let store = Options::new().shards(2).open(dir.path()).unwrap();
    let (one, other) = apart(&store);
    let appends = store.write().append(&one, Expect::Any, [event("E")]).append(
        &other,
        Expect::Any,
        [event("E")],
    );
    let checks =
        store.write().append(&one, Expect::Any, [event("E")]).check(&other, Expect::Absent);
    // The conditions do not matter, nor does a client.
    let contradicting = store
        .write()
        .append(&one, Expect::Version(9), [event("E")])
        .append(&other, Expect::Exists, [event("E")])
        .client(1, 1);
    for write in [appends, checks, contradicting] {
        let error = write.submit().unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::CrossShard, 9001));
        assert_eq!(error.keys().collect::<Vec<_>>(), [one.as_bytes(), other.as_bytes()]);
        assert!(error.to_string().contains(&other), "{error}");
    }
    assert_eq!(store.version(&one).unwrap(), 0);
    assert!(store.stats().shards.iter().all(|shard| shard.slots == 0 && shard.writes == 0));
    let done = store.write().append(&one, Expect::Any, [event("E")]).client(1, 1).submit().unwrap();
    assert!(!done.wait().unwrap().is_replay());
}

#[test]
fn keys_that_share_a_prefix_are_written_together() {
    let dir = directory();
    let store = Options::new().shards(8).route_by_prefix(b'/').open(dir.path()).unwrap();
    let mut used = HashSet::new();
    for tenant in 0..40 {
        let key = |rest: &str| format!("tenant-{tenant}{rest}");
        let shard = store.shard_of(key(""));
        used.insert(shard);
        for rest in ["/", "/a", "/b/c", "/\0"] {
            assert_eq!(store.shard_of(key(rest)), shard);
        }
        let write = store.write().append(key("/a"), Expect::Absent, [event("E")]);
        let write =
            write.append(key("/b/c"), Expect::Absent, [event("E")]).check(key(""), Expect::Absent);
        write.submit().unwrap().wait().unwrap();
    }
    assert!(used.len() > 4, "{used:?}");
    assert_eq!(store.shard_of("/a"), store.shard_of("/b"), "an empty prefix is one, too");
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    for tenant in 0..40 {
        assert_eq!(store.version(format!("tenant-{tenant}/b/c")).unwrap(), 1);
        assert_eq!(
            store.shard_of(format!("tenant-{tenant}/x")),
            store.shard_of(format!("tenant-{tenant}"))
        );
    }
}

#[test]
fn options_that_contradict_the_stored_ones_are_refused_with_both() {
    let dir = directory();
    let fixed =
        Options::new().shards(3).route_by_prefix(b'/').segment_bytes(2 << 20).block_bytes(8192);
    drop(fixed.open(dir.path()).unwrap());
    for (wrong, stored, given) in [
        (Options::new().shards(4), "3", "4"),
        (Options::new().segment_bytes(4 << 20), "2097152", "4194304"),
        (Options::new().block_bytes(4096), "8192", "4096"),
        (Options::new().route_by_prefix(b':'), "/", ":"),
    ] {
        for wrong in [wrong.clone(), wrong.read_only(true)] {
            let error = wrong.open(dir.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            let text = error.to_string();
            assert!(text.contains(stored) && text.contains(given), "{text}");
        }
    }
    let store = fixed.open(dir.path()).unwrap();
    assert_eq!(
        (store.shards(), store.stats().segment_bytes, store.stats().block_bytes),
        (3, 2 << 20, 8192)
    );

    let plain = directory();
    drop(Store::open(plain.path()).unwrap());
    let error = Options::new().route_by_prefix(b'/').open(plain.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[test]
fn four_shards_under_load_keep_the_order_of_each() {
    let dir = directory();
    let options = Options::new().shards(4).route_by_prefix(b'/').segment_bytes(1 << 20);
    let store = options.open(dir.path()).unwrap();
    let threads: Vec<_> = (0..6u64)
        .map(|thread| {
            let store = store.clone();
            thread::spawn(move || {
                let mut tickets: Vec<Ticket> = Vec::new();
                for number in 0..3000u64 {
                    let tenant = number % 7;
                    let event = Event::new("E", (thread << 32 | number).to_le_bytes());
                    let own = format!("{tenant}/own-{thread}");
                    tickets.push(if number % 5 == 0 {
                        let write = store.write().append(own, Expect::Version(number / 7), [event]);
                        let write = write.append(
                            format!("{tenant}/shared"),
                            Expect::Any,
                            [numbered(number)],
                        );
                        write.submit().unwrap()
                    } else {
                        store.append(own, Expect::Version(number / 7), [event]).unwrap()
                    });
                }
                tickets.iter().map(|ticket| ticket.wait().unwrap()).collect::<Vec<_>>()
            })
        })
        .collect();
    let acknowledged: usize = threads.into_iter().map(|thread| thread.join().unwrap().len()).sum();
    let check = |store: &Store| {
        let writes: Vec<_> = (0..4).map(|shard| audit_shard(store, shard)).collect();
        assert_eq!(writes.iter().map(Vec::len).sum::<usize>(), acknowledged);
        for shard in writes {
            let mut last = [None; 6];
            for write in shard {
                let (thread, number) = ((write.number() >> 32) as usize, write.number() as u32);
                assert!(last[thread] < Some(number), "one thread's writes are in its order");
                last[thread] = Some(number);
            }
        }
    };
    check(&store);
    drop(store);
    check(&options.open(dir.path()).unwrap());
}
