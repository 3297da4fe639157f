//! Where subscriptions begin and end: what is not durable yet, positions that are stored, failures, closing, tasks.

mod common;

use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use annals::internals::disk::sim::{Fault, Op, Order, SimDisk};
use annals::{
    Error, ErrorKind, Expect, MergedSubscription, Options, Position, Recorded, Store, Subscription,
    WriteSubscription,
};
use common::{Rings, directory, event, eventually, in_time, numbered, open_sim, poll, small};

const SHORT: Duration = Duration::from_millis(30);

fn fault(op: Op) -> Fault {
    Fault { op, nth: 1, lasting: false, kind: io::ErrorKind::Other, short: false }
}

#[test]
fn nothing_is_given_that_is_not_durable() {
    for fails in [false, true] {
        let disk = SimDisk::new(3);
        let store = open_sim(&small(), &disk).unwrap();
        store.append("a", Expect::Absent, [numbered(0)]).unwrap().wait().unwrap();
        let mut subscription = store.subscribe(0);
        let mut writes = store.subscribe(0).writes();
        let mut all = store.subscribe_all();
        let waiting = {
            let subscription = store.subscribe(0);
            thread::spawn(move || subscription.map(|event| event.map(|_| ())).collect::<Vec<_>>())
        };
        assert!(subscription.try_next().unwrap().is_ok());
        assert!(writes.try_next().unwrap().is_ok());
        assert_eq!(all.try_next().unwrap().unwrap().0, 0);

        disk.set_order(Order::Never);
        let before = disk.count(Op::Write);
        let ticket = store.append("a", Expect::Version(1), [numbered(1)]).unwrap();
        eventually("the flush is written", || disk.count(Op::Write) > before);
        assert!(subscription.try_next().is_none());
        assert!(subscription.next_timeout(SHORT).is_none());
        assert!(writes.next_timeout(SHORT).is_none() && all.next_timeout(SHORT).is_none());
        assert!(!subscription.is_ended() && !writes.is_ended() && !all.is_ended());
        if fails {
            disk.plan(fault(Op::Sync));
        }
        disk.set_order(Order::Fifo);
        assert_eq!(ticket.wait().is_err(), fails);
        if !fails {
            assert_eq!(subscription.next().unwrap().unwrap().version(), 2);
            assert_eq!(writes.next().unwrap().unwrap().version_of(b"a"), Some(2));
            assert_eq!(all.next().unwrap().unwrap().1.version(), 2);
            store.close().unwrap();
        }
        let (shard, merged) = (subscription.next(), all.next().map(|item| item.map(|_| ())));
        for end in
            [shard.map(|item| item.map(|_| ())), writes.next().map(|item| item.map(|_| ())), merged]
        {
            let kind = end.map(|end| end.unwrap_err().kind());
            assert_eq!(kind, fails.then_some(ErrorKind::Stopped));
        }
        assert!(subscription.is_ended() && writes.is_ended() && all.is_ended());
        assert!(subscription.next().is_none() && writes.next().is_none() && all.next().is_none());
        assert_eq!(subscription.position(), store.log(0).last().unwrap().unwrap().position());
        let waited = in_time("a subscription to its end", move || waiting.join().unwrap());
        assert_eq!(waited.len(), 2);
        assert_eq!(waited.iter().filter(|item| item.is_err()).count(), usize::from(fails));
    }
}

/// Of one event after the other.
fn types(subscription: impl Iterator<Item = Result<Recorded, Error>>) -> Vec<String> {
    subscription.map(|event| event.unwrap().event_type().to_owned()).collect()
}

#[test]
fn positions_are_kept_through_reopening_and_refused_by_an_older_copy() {
    let disk = SimDisk::new(4);
    let store = open_sim(&small(), &disk).unwrap();
    assert_eq!(store.subscribe(0).position(), Position::START);
    assert_eq!(store.subscribe(0).from_now().position(), Position::START);
    let from_the_first = store.subscribe(0).from_now();
    let events = || ["A", "B", "C"].map(event);
    store.append("a", Expect::Any, events()).unwrap().wait().unwrap();
    let mut subscription = store.subscribe(0).with_event_types(["B", "X"]);
    assert_eq!(subscription.next().unwrap().unwrap().event_type(), "B");
    let first = subscription.position();
    store.append("a", Expect::Any, events()).unwrap().wait().unwrap();
    let older = disk.clone_durable();
    store.append("b", Expect::Any, [event("left out")]).unwrap().wait().unwrap();
    assert_eq!(subscription.next().unwrap().unwrap().position(), subscription.position());
    assert!(subscription.try_next().is_none());
    let last = subscription.position();
    assert_eq!(last, store.log(0).last().unwrap().unwrap().position(), "what is left out counts");
    let now = store.subscribe(0).from_now().position();
    assert!(first < last && last < now);
    store.close().unwrap();
    assert_eq!(types(from_the_first).len(), 7);
    drop((subscription, store));

    let store = open_sim(&small(), &disk).unwrap();
    for (position, expected) in [(Position::START, 7), (first, 4), (last, 0), (now, 0)] {
        let mut subscription = store.subscribe(0).after(position);
        assert_eq!(subscription.position(), position);
        let mut given = 0;
        while subscription.try_next().is_some_and(|event| event.is_ok()) {
            given += 1;
        }
        assert_eq!(given, expected, "after {position}");
        let again = store.subscribe(0).from(position).with_prefix("b");
        assert!(again.position() <= position);
    }
    let mut resumed = store.subscribe(0).after(now);
    store.append("b", Expect::Any, [event("new")]).unwrap().wait().unwrap();
    assert_eq!(resumed.next().unwrap().unwrap().event_type(), "new");

    let copy = open_sim(&small(), &older).unwrap();
    for refused in [copy.subscribe(0).after(now), copy.subscribe(0).from(now)] {
        let mut refused = refused.with_prefix("a");
        let error = refused.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("older copy"), "{error}");
        assert!(refused.is_ended() && refused.next().is_none());
    }
}

#[test]
fn a_subscription_that_cannot_be_gives_an_error_and_ends() {
    let dir = directory();
    let store = small().shards(2).open(dir.path()).unwrap();
    store.append("a", Expect::Any, [event("E")]).unwrap().wait().unwrap();
    let kind = |error: Option<Error>| error.map(|error| error.kind());
    for mut none in [store.subscribe(2), store.subscribe(9).after(Position::START)] {
        assert_eq!(kind(none.next().unwrap().err()), Some(ErrorKind::Invalid));
        assert!(none.is_ended() && none.next().is_none());
    }
    let start = Position::START;
    for wrong in [vec![], vec![start], vec![start; 3]] {
        let mut merged = store.subscribe_all().after(&wrong).with_prefix("a");
        assert_eq!(kind(merged.next().unwrap().err()), Some(ErrorKind::Invalid));
        assert!(merged.is_ended() && merged.next().is_none());
    }
    let above = Position::from_raw(1 << 40);
    let mut merged = store.subscribe_all().after(&[above, above]);
    let errors = [merged.next(), merged.next()].map(|item| kind(item.unwrap().err()));
    assert_eq!(errors, [Some(ErrorKind::Invalid); 2]);
    assert!(merged.is_ended() && merged.next().is_none());
}

#[test]
fn a_store_that_is_read_only_is_given_to_its_end() {
    let dir = directory();
    let store = small().shards(3).open(dir.path()).unwrap();
    for number in 0..30_u64 {
        store
            .append(number.to_le_bytes(), Expect::Any, [numbered(number)])
            .unwrap()
            .wait()
            .unwrap();
    }
    let reading = Options::new().read_only(true).open(dir.path()).unwrap();
    for store in [&reading, &reading.clone()] {
        let mut all = store.subscribe_all();
        assert!(!all.is_ended());
        assert_eq!(all.by_ref().map(Result::unwrap).count(), 30);
        assert!(all.is_ended());
        assert_eq!(store.subscribe_all().from_now().count(), 0);
        let shards = store.subscriptions().into_iter().map(Iterator::count);
        assert_eq!(shards.sum::<usize>(), 30);
    }
    // A store is closed when the last handle is gone, whoever still follows it.
    let followers = store.subscriptions();
    drop(store);
    assert_eq!(followers.into_iter().map(Iterator::count).sum::<usize>(), 30);
}

#[test]
fn damage_ends_a_subscription_before_it_and_what_is_left_out_does_not() {
    let disk = SimDisk::new(6);
    let store = open_sim(&small(), &disk).unwrap();
    let write = |key| store.append(key, Expect::Any, [event("A"), event("B")]).unwrap().wait();
    let positions = ["a", "b", "a"].map(|key| write(key).unwrap().position());
    drop(store);
    // In the events of the second: behind the head, the part and the key.
    let (segment, offset) = (positions[1].get() >> 32, positions[1].get() as u32);
    let path = format!("shard-0000/{segment:016}.seg");
    disk.flip(&path, u64::from(offset) + 64 + 48 + 8 + 20).unwrap();
    // Opening for writing would refuse it.
    let store = open_sim(&small().read_only(true), &disk).unwrap();
    let mut subscription = store.subscribe(0);
    assert!(subscription.next().unwrap().is_ok() && subscription.next().unwrap().is_ok());
    let mut writes = store.subscribe(0).writes();
    assert!(writes.next().unwrap().is_ok());
    let mut thirds = store.subscribe(0).with_event_types(["none"]).writes();
    let merged = store.subscribe_all().filter_map(Result::err);
    for error in [
        subscription.next().unwrap().unwrap_err(),
        writes.next().unwrap().unwrap_err(),
        thirds.next().unwrap().unwrap_err(),
        merged.last().unwrap(),
    ] {
        assert_eq!((error.kind(), error.key()), (ErrorKind::Corrupt, Some(b"b".as_slice())));
    }
    assert!(subscription.is_ended() && writes.is_ended() && thirds.is_ended());
    assert!(subscription.next().is_none() && writes.next().is_none() && thirds.next().is_none());
    assert_eq!([subscription.position(), writes.position()], [positions[0]; 2]);
    assert_eq!(store.subscribe(0).with_prefix("a").map(Result::unwrap).count(), 4);
    assert_eq!(store.subscribe(0).with_keys(["a"]).writes().map(Result::unwrap).count(), 2);
    assert_eq!(store.subscribe(0).after(positions[1]).map(Result::unwrap).count(), 2);
}

#[test]
fn a_task_is_woken_for_what_is_new_and_a_dropped_one_is_let_go() {
    fn may_move<T: Send + Unpin + 'static>() {}
    may_move::<Subscription>();
    may_move::<WriteSubscription>();
    may_move::<MergedSubscription>();
    let dir = directory();
    let store = small().open(dir.path()).unwrap();
    let rings = Arc::new(Rings::default());
    let mut subscription = store.subscribe(0);
    let mut all = store.subscribe_all();
    for round in 1..=20 {
        assert!(poll(&mut subscription, &rings).is_pending());
        assert!(poll(&mut all, &rings).is_pending());
        let rung = rings.count();
        store.append("a", Expect::Any, [event("E")]).unwrap().wait().unwrap();
        eventually("both are woken", || rings.count() == rung + 2);
        let Poll::Ready(Some(Ok(event))) = poll(&mut subscription, &rings) else { panic!() };
        assert_eq!(event.version(), round);
        assert!(matches!(poll(&mut all, &rings), Poll::Ready(Some(Ok((0, _))))));
    }
    assert!(poll(&mut subscription, &rings).is_pending());
    assert!(poll(&mut all, &rings).is_pending());
    drop((subscription, all));
    assert_eq!(Arc::strong_count(&rings), 1, "who is dropped keeps no task");

    let mut last = store.subscribe(0).from_now();
    assert!(poll(&mut last, &rings).is_pending());
    let rung = rings.count();
    store.close().unwrap();
    eventually("the end is told", || rings.count() > rung);
    assert!(matches!(poll(&mut last, &rings), Poll::Ready(None)));
}

#[test]
fn what_the_filter_leaves_out_does_not_take_the_callers_time() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let tickets: Vec<_> =
        (0..10_000).map(|_| store.append("a", Expect::Any, [event("E")]).unwrap()).collect();
    tickets.last().unwrap().wait().unwrap();
    let none = || store.subscribe(0).with_prefix("b");
    let mut subscription = none();
    assert!(subscription.next_timeout(Duration::ZERO).is_none());
    let end = store.log(0).last().unwrap().unwrap().position();
    assert!(Position::START < subscription.position() && subscription.position() < end);

    let rings = Arc::new(Rings::default());
    let mut subscription = none();
    assert!(poll(&mut subscription, &rings).is_pending());
    assert!(subscription.position() < end);
    assert_eq!(rings.count(), 1, "it asks to be polled again");
    while subscription.position() < end {
        assert!(poll(&mut subscription, &rings).is_pending());
    }
    assert!(poll(&mut subscription, &rings).is_pending());
    assert!(rings.count() <= 3, "then it waits to be woken");
    assert!(none().try_next().is_none());
}
