//! Watches of one aggregate and of all whose keys begin alike: what is coalesced, when they wake, how they end.

mod common;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self};
use std::time::Duration;

use annals::internals::disk::sim::{Op, Order, SimDisk};
use annals::{Error, ErrorKind, Expect, Options, PrefixWatch, Store, Watch};
use common::{
    Rings, block_on, directory, event, eventually, fail_next_sync, in_time, numbered, open_sim,
    poll, small,
};
use futures::Stream as _;

const SHORT: Duration = Duration::from_millis(30);

fn append(store: &Store, key: &str) -> u64 {
    store.append(key, Expect::Any, [event("E")]).unwrap().wait().unwrap().version()
}

#[test]
fn versions_are_coalesced_and_each_is_given_once() {
    fn may_move<T: Send + Unpin + 'static>() {}
    may_move::<Watch>();
    may_move::<PrefixWatch>();
    let dir = directory();
    let store = small().open(dir.path()).unwrap();
    let slots = store.stats().shards[0].slots;
    let mut watch = store.watch("a").unwrap();
    assert_eq!(store.stats().shards[0].slots, slots + 1, "it has a place from now on");
    assert_eq!(store.aggregates().count(), 0);
    assert_eq!((watch.key(), watch.version().unwrap()), (b"a".as_slice(), 0));
    assert!(watch.try_next().is_none() && watch.next_timeout(SHORT).is_none());
    for _ in 0..5 {
        append(&store, "a");
    }
    append(&store, "b");
    assert_eq!(watch.version().unwrap(), 5);
    assert_eq!(watch.next().unwrap().unwrap(), 5);
    assert!(watch.try_next().is_none() && watch.next_timeout(SHORT).is_none());
    append(&store, "a");
    assert_eq!(watch.try_next().unwrap().unwrap(), 6);
    assert_eq!(store.watch("a").unwrap().next().unwrap().unwrap(), 6, "what there is comes first");
    // What only checks it is no news.
    store
        .write()
        .append("b", Expect::Any, [event("E")])
        .check("a", Expect::Version(6))
        .submit()
        .unwrap()
        .wait()
        .unwrap();
    assert!(watch.next_timeout(SHORT).is_none() && !watch.is_ended());

    for (key, kind) in [("", ErrorKind::Invalid), (&"k".repeat(1025), ErrorKind::TooLarge)] {
        assert_eq!(store.watch(key).unwrap_err().kind(), kind);
    }
}

#[test]
fn those_who_wait_see_the_newest_version_in_the_end() {
    const VERSIONS: u64 = 3_000;
    let dir = directory();
    let store = small().shards(2).open(dir.path()).unwrap();
    let follow = |given: &mut Vec<u64>, version: u64| {
        assert!(given.last().is_none_or(|last| *last < version), "{given:?}, then {version}");
        given.push(version);
        version < VERSIONS
    };
    in_time("watching", move || {
        thread::scope(|scope| {
            for nth in 0..6 {
                let mut watch = store.watch("hot").unwrap();
                let mut prefix = store.watch_prefix(["h", "hot", ""][nth / 2]).unwrap();
                scope.spawn(move || {
                    let mut given = Vec::new();
                    while follow(
                        &mut given,
                        match nth % 2 {
                            0 => watch.next().unwrap().unwrap(),
                            _ => block_on(watch.next_async()).unwrap().unwrap(),
                        },
                    ) {}
                });
                scope.spawn(move || {
                    let mut given = Vec::new();
                    loop {
                        let (key, version) = match nth % 2 {
                            0 => prefix.next().unwrap().unwrap(),
                            _ => block_on(prefix.next_async()).unwrap().unwrap(),
                        };
                        assert!(nth > 3 || key.starts_with(b"h"));
                        if *key == *b"hot" && !follow(&mut given, version) {
                            return;
                        }
                    }
                });
            }
            let mut tickets = Vec::new();
            for version in 0..VERSIONS {
                tickets.push(store.append("hot", Expect::Version(version), [event("E")]).unwrap());
                if version % 10 == 0 {
                    append(&store, "cold");
                    append(&store, "hat");
                }
            }
        });
    });
}

#[test]
fn an_aggregate_that_comes_to_be_wakes_who_waited_for_it() {
    let dir = directory();
    let store = small().open(dir.path()).unwrap();
    let mut watch = store.watch("new").unwrap();
    let waiting = thread::spawn(move || watch.next().unwrap().unwrap());
    let mut task = store.watch("new").unwrap();
    let mut others = store.watch("other").unwrap();
    let (rings, other_rings) = (Arc::new(Rings::default()), Arc::new(Rings::default()));
    assert!(poll(&mut task, &rings).is_pending() && poll(&mut others, &other_rings).is_pending());
    thread::sleep(SHORT);
    store.append("new", Expect::Absent, [event("E")]).unwrap().wait().unwrap();
    assert_eq!(in_time("a thread that watches", move || waiting.join().unwrap()), 1);
    eventually("the task is woken", || rings.count() == 1);
    assert!(matches!(poll(&mut task, &rings), Poll::Ready(Some(Ok(1)))));
    assert_eq!(other_rings.count(), 0, "nobody else is");
}

#[test]
fn a_prefix_is_watched_on_every_shard_from_the_moment_on() {
    let dir = directory();
    let store = small().shards(3).open(dir.path()).unwrap();
    append(&store, "order-1");
    let mut orders = store.watch_prefix("order-").unwrap();
    let mut all = store.watch_prefix("").unwrap();
    assert_eq!(orders.prefix(), b"order-");
    assert!(orders.try_next().is_none() && all.next_timeout(SHORT).is_none());
    let mut expected = HashMap::new();
    for number in 0..60 {
        let key = format!("order-{}", number % 20);
        let version = append(&store, &key);
        expected.insert(key.into_bytes().into_boxed_slice(), version);
        append(&store, "cart");
    }
    let check = store.write().check("order-1", Expect::Exists).check("order-none", Expect::Absent);
    drop(check.submit());
    let changes = |watch: &mut PrefixWatch| -> Vec<(Box<[u8]>, u64)> {
        std::iter::from_fn(|| watch.try_next()).map(Result::unwrap).collect()
    };
    let given = changes(&mut orders);
    assert_eq!(given.len(), 20, "once each: {given:?}");
    assert_eq!(given.into_iter().collect::<HashMap<_, _>>(), expected);
    expected.insert(b"cart".as_slice().into(), 60);
    assert_eq!(changes(&mut all).into_iter().collect::<HashMap<_, _>>(), expected);

    // Woken by its own kind alone.
    let rings = Arc::new(Rings::default());
    assert!(poll(&mut orders, &rings).is_pending());
    append(&store, "cart");
    append(&store, "order");
    thread::sleep(SHORT);
    assert_eq!(rings.count(), 0);
    append(&store, "order-new");
    eventually("the task is woken", || rings.count() > 0);
    let Poll::Ready(Some(Ok(change))) = poll(&mut orders, &rings) else { panic!("not ready") };
    assert_eq!(change, (b"order-new".as_slice().into(), 1));

    assert_eq!(store.watch_prefix("k".repeat(1025)).unwrap_err().kind(), ErrorKind::TooLarge);
    let longest = "k".repeat(1024);
    let mut watch = store.watch_prefix(&longest).unwrap();
    append(&store, &longest);
    assert_eq!(watch.next().unwrap().unwrap(), (longest.into_bytes().into(), 1));
}

#[test]
fn one_that_nobody_asked_for_long_reads_on_piece_by_piece() {
    let dir = directory();
    let store = small().open(dir.path()).unwrap();
    let mut watch = store.watch_prefix("k").unwrap();
    let mut tickets = Vec::new();
    for number in 0..12_000 {
        tickets.push(store.append(format!("k{}", number % 5), Expect::Any, [event("E")]).unwrap());
    }
    store.close().unwrap();
    let mut last = HashMap::new();
    let mut items = 0;
    for change in watch.by_ref() {
        let (key, version) = change.unwrap();
        assert!(last.insert(key, version).is_none_or(|before| before < version));
        items += 1;
    }
    assert!(watch.is_ended());
    assert_eq!(last.into_values().collect::<Vec<_>>(), [2_400; 5]);
    assert!((10..=20).contains(&items), "{items} items for three pieces");
}

#[test]
fn a_watch_ends_with_its_store() {
    let dir = directory();
    let store = small().shards(2).open(dir.path()).unwrap();
    let mut watch = store.watch("a").unwrap();
    let mut prefix = store.watch_prefix("").unwrap();
    let (mut waiting, mut waiting_prefix) =
        (store.watch("b").unwrap(), store.watch_prefix("b").unwrap());
    let waiting =
        thread::spawn(move || waiting.next().is_none() && waiting_prefix.next().is_none());
    append(&store, "a");
    thread::sleep(SHORT);
    store.close().unwrap();
    assert!(in_time("waiting for the end", move || waiting.join().unwrap()));
    assert_eq!(watch.next().unwrap().unwrap(), 1, "what was not given comes before the end");
    assert_eq!(prefix.next().unwrap().unwrap(), (b"a".as_slice().into(), 1));
    assert!(watch.next().is_none() && watch.is_ended());
    assert!(prefix.next().is_none() && prefix.is_ended());
    assert_eq!(watch.version().unwrap(), 1);
    drop(store);
    assert_eq!(watch.version().unwrap(), 1, "it keeps what it looks at");

    let reading = Options::new().read_only(true).open(dir.path()).unwrap();
    assert_eq!(reading.watch("a").unwrap().collect::<Vec<_>>().len(), 1);
    assert_eq!(
        reading.watch("none").unwrap().count() + reading.watch_prefix("").unwrap().count(),
        0
    );
}

#[test]
fn a_watch_shows_nothing_that_is_not_durable_and_tells_why_there_is_no_more() {
    let disk = SimDisk::new(8);
    let store = open_sim(&small(), &disk).unwrap();
    append(&store, "a");
    let mut watch = store.watch("a").unwrap();
    let mut prefix = store.watch_prefix("a").unwrap();
    let rings = Arc::new(Rings::default());
    assert_eq!(watch.next().unwrap().unwrap(), 1);
    assert!(poll(&mut watch, &rings).is_pending() && poll(&mut prefix, &rings).is_pending());
    disk.set_order(Order::Never);
    let before = disk.count(Op::Write);
    let ticket = store.append("a", Expect::Version(1), [numbered(1)]).unwrap();
    eventually("the flush is written", || disk.count(Op::Write) > before);
    assert!(watch.next_timeout(SHORT).is_none() && prefix.next_timeout(SHORT).is_none());
    assert_eq!((watch.version().unwrap(), rings.count()), (1, 0));
    fail_next_sync(&disk);
    ticket.wait().unwrap_err();
    let stopped = |error: Error| assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
    stopped(watch.next().unwrap().unwrap_err());
    stopped(prefix.next().unwrap().unwrap_err());
    eventually("both were rung", || rings.count() == 2);
    assert!(watch.is_ended() && watch.next().is_none());
    assert!(prefix.is_ended() && prefix.next().is_none());
    assert_eq!(watch.version().unwrap(), 1);
}

#[test]
fn the_dropped_do_not_pile_up() {
    let dir = directory();
    let store = small().open(dir.path()).unwrap();
    let mut living = store.watch("idle").unwrap();
    let mut living_prefix = store.watch_prefix("idle").unwrap();
    let mut living_log = store.subscribe(0);
    let rings = [(); 3].map(|()| Arc::new(Rings::default()));
    let rung = |rings: &[Arc<Rings>; 3]| rings.each_ref().map(|rings| rings.count());
    assert!(poll(&mut living, &rings[0]).is_pending());
    assert!(poll(&mut living_prefix, &rings[1]).is_pending());
    assert!(poll(&mut living_log, &rings[2]).is_pending());
    let dropped = Arc::new(Rings::default());
    for _ in 0..5_000 {
        assert!(poll(&mut store.watch("idle").unwrap(), &dropped).is_pending());
        assert!(poll(&mut store.watch_prefix("idle").unwrap(), &dropped).is_pending());
        assert!(poll(&mut store.subscribe(0), &dropped).is_pending());
    }
    assert_eq!(rung(&rings), [0; 3], "nobody is woken by those who leave");
    assert_eq!((dropped.count(), Arc::strong_count(&dropped)), (0, 1));
    // The next flush lets them go, whatever it is about, and wakes the living for nothing.
    append(&store, "busy");
    eventually("the living are woken", || rung(&rings) == [1; 3]);
    assert!(poll(&mut living, &rings[0]).is_pending());
    assert!(poll(&mut living_prefix, &rings[1]).is_pending());
    assert!(living_log.try_next().is_some());
    assert!(poll(&mut living_log, &rings[2]).is_pending());
    append(&store, "idle");
    eventually("the living are woken", || rung(&rings) == [2; 3]);

    // A waker that panics harms nobody.
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("foreign code");
        }
    }
    let mut panics = store.watch("other").unwrap();
    let waker = Waker::from(Arc::new(Panics));
    assert!(Pin::new(&mut panics).poll_next(&mut Context::from_waker(&waker)).is_pending());
    for _ in 0..2_000 {
        assert!(poll(&mut store.watch("other").unwrap(), &dropped).is_pending());
    }
    append(&store, "other");
    assert_eq!(panics.next().unwrap().unwrap(), 1);
}
