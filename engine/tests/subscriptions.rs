//! Subscriptions, held against the log: under load, through segments, slow, dropped and resumed, filtered and merged.

mod common;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use annals::internals::disk::sim::{Fault, Op, Order, SimDisk};
use annals::{
    Backend, Error, ErrorKind, Event, Expect, MergedSubscription, Options, Position, Recorded,
    Store, Subscription, WriteSubscription,
};
use common::{LONG, directory, event, in_time, numbered, open_sim, small};
use futures::Stream;

const SHORT: Duration = Duration::from_millis(30);

/// The events and writes that a follower was given, in order.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Seen {
    events: u64,
    digest: u64,
    last: Position,
}

impl Seen {
    fn add(&mut self, event: &Recorded) {
        assert!(event.position() >= self.last, "out of order");
        self.last = event.position();
        self.events += 1;
        let mut hasher = DefaultHasher::new();
        let number = (event.version(), event.index(), event.position().get());
        (self.digest, number, event.key(), event.event_type()).hash(&mut hasher);
        event.data().hash(&mut hasher);
        self.digest = hasher.finish();
    }

    /// What the log says.
    fn of_log(store: &Store, shard: u16, passes: impl Fn(&Recorded) -> bool) -> Seen {
        let mut seen = Seen::default();
        for event in store.log(shard).map(Result::unwrap).filter(passes) {
            seen.add(&event);
        }
        seen
    }
}

/// Random numbers that differ from thread to thread and not from run to run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % end
    }
}

fn events_wanted() -> u64 {
    match std::env::var_os("ANNALS_SOAK") {
        Some(_) => 10_000_000,
        None => 200_000,
    }
}

/// One thread's share of the load: batches large and small, to many aggregates, now and then to two or one that is large.
fn write_some(store: &Store, thread: u64, events: u64) {
    let mut random = Random(thread + 1);
    let (mut left, mut number) = (events, 0);
    let mut tickets = Vec::new();
    while left > 0 {
        let batch = match random.below(8) {
            0 => 1,
            1 => 1 + random.below(10),
            _ => 300 + random.below(200),
        };
        let batch = batch.min(left);
        left -= batch;
        number += 1;
        let events = (0..batch).map(|nth| {
            let bytes = if nth == 0 && number % 97 == 0 { 200_000 } else { random.below(400) };
            let name = if nth % 3 == 0 { "Third" } else { "Event" };
            Event::new(name, vec![number as u8; bytes as usize])
        });
        let events: Vec<_> = events.collect();
        let group = ["order", "cart", "user"][random.below(3) as usize];
        let key = |nth: u64| format!("{group}/{thread}-{nth}");
        let other = random.below(20);
        let first = &key(other);
        let on_its_shard = |key: &String| store.shard_of(key) == store.shard_of(first);
        let mut beside = (20..).map(key).filter(on_its_shard);
        let ticket = match number % 5 {
            0 => {
                let write = store.write().append(first, Expect::Any, events);
                left = left.saturating_sub(1);
                let write = write.append(beside.next().unwrap(), Expect::Any, [event("Beside")]);
                write.check(beside.next().unwrap(), Expect::Absent).submit()
            }
            _ => store.append(first, Expect::Any, events),
        };
        tickets.push(ticket.unwrap());
        if tickets.len() > 20 {
            tickets.drain(..).for_each(|ticket| drop(ticket.wait().unwrap()));
        }
    }
    tickets.drain(..).for_each(|ticket| drop(ticket.wait().unwrap()));
}

/// Reads all of a subscription, never waiting long for one event.
fn steady(mut subscription: Subscription) -> Seen {
    let mut seen = Seen::default();
    while !subscription.is_ended() {
        if let Some(event) = subscription.next_timeout(SHORT) {
            seen.add(&event.unwrap());
        }
    }
    assert!(subscription.next().is_none());
    seen
}

/// Falls behind as long as there is load, so that what it reads is on the disk by then.
fn slow(subscription: Subscription, loaded: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    for event in subscription {
        seen.add(&event.unwrap());
        if seen.events % 3_000 == 0 && loaded.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(40));
        }
    }
    seen
}

/// Is dropped again and again, in the middle of writes too, and goes on where it last stored its position.
fn resuming(store: &Store, seed: u64, loaded: &AtomicBool) -> Seen {
    let mut random = Random(seed);
    let mut stored = (Seen::default(), Position::START);
    loop {
        let (mut seen, after) = stored;
        let mut subscription = store.subscribe(0).after(after);
        assert_eq!(subscription.position(), after);
        let before = seen.events;
        for _ in 0..1 + random.below(2_000) {
            let next = match random.below(3) {
                0 => subscription.try_next(),
                1 => subscription.next_timeout(Duration::from_micros(random.below(2_000))),
                _ => subscription.next(),
            };
            let Some(event) = next else { break };
            let event = event.unwrap();
            seen.add(&event);
            assert!(subscription.position() <= event.position());
            if subscription.position() == event.position() {
                stored = (seen, event.position());
            }
        }
        if subscription.is_ended() && seen.events == before {
            return seen;
        }
        if loaded.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_micros(random.below(3_000)));
        }
    }
}

/// Whole writes, with what is stored along with them.
fn by_write(mut writes: WriteSubscription) -> Seen {
    let mut seen = Seen::default();
    while let Some(write) = writes.next() {
        let write = write.unwrap();
        assert_eq!(writes.position(), write.position());
        write.parts().flat_map(|part| part.events()).for_each(|event| seen.add(&event));
    }
    seen
}

/// All shards at once, on an executor, dropped and resumed now and then.
fn merged(store: &Store, seed: u64) -> Vec<Seen> {
    let mut random = Random(seed);
    let shards = usize::from(store.shards());
    let mut stored = (vec![Seen::default(); shards], vec![Position::START; shards]);
    loop {
        let mut seen = stored.0.clone();
        let mut subscription = store.subscribe_all().after(&stored.1);
        let events = 20_000 + random.below(20_000);
        for _ in 0..events {
            let next = futures::executor::block_on(subscription.next_async());
            let Some(event) = next else { return seen };
            let (shard, event) = event.unwrap();
            seen[usize::from(shard)].add(&event);
            if subscription.positions().iter().zip(&seen).all(|(at, seen)| *at == seen.last) {
                stored = (seen.clone(), subscription.positions());
            }
        }
    }
}

fn under_load(backend: Backend, mapped: bool, shards: u16) {
    let dir = directory();
    let options = small().backend(backend).mapped(mapped).shards(shards);
    let store = &options.open(dir.path()).unwrap();
    let loaded = &AtomicBool::new(true);
    let events = events_wanted() / 2;
    let keys = ["user/0-3", "cart/1-4", "order/2-5", "none"];
    thread::scope(|scope| {
        let every: Vec<_> = store
            .subscriptions()
            .into_iter()
            .map(|subscription| scope.spawn(|| steady(subscription)))
            .collect();
        let slow = scope.spawn(|| slow(store.subscribe(0), loaded));
        let resuming = scope.spawn(|| resuming(store, 5, loaded));
        let writes = scope.spawn(|| by_write(store.subscribe(0).writes()));
        let merged = scope.spawn(|| merged(store, 9));
        let prefix = scope.spawn(|| steady(store.subscribe(0).with_prefix("order/")));
        let thirds = store.subscribe(0).with_event_types(["Third", "none"]).with_prefix("cart");
        let thirds = scope.spawn(|| steady(thirds));
        let named = scope.spawn(|| steady(store.subscribe(0).with_keys(keys)));
        let late = scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            let now = store.subscribe(0).from_now();
            (now.position(), steady(now))
        });
        let writers: Vec<_> = (0..3)
            .map(|thread| scope.spawn(move || write_some(store, thread, events / 3)))
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        loaded.store(false, Ordering::Relaxed);
        store.close().unwrap();

        let logged: Vec<_> =
            (0..shards).map(|shard| Seen::of_log(store, shard, |_| true)).collect();
        assert!(logged.iter().map(|seen| seen.events).sum::<u64>() >= events / 3 * 3);
        assert!(store.stats().shards[0].segments > 3, "{:?}", store.stats());
        for (every, logged) in every.into_iter().zip(&logged) {
            assert_eq!(every.join().unwrap(), *logged);
        }
        assert_eq!(slow.join().unwrap(), logged[0]);
        assert_eq!(resuming.join().unwrap(), logged[0]);
        assert_eq!(writes.join().unwrap(), logged[0]);
        assert_eq!(merged.join().unwrap(), logged);
        let of = |passes: &dyn Fn(&Recorded) -> bool| Seen::of_log(store, 0, passes);
        assert_eq!(prefix.join().unwrap(), of(&|event| event.key().starts_with(b"order/")));
        assert_eq!(
            thirds.join().unwrap(),
            of(&|event| event.key().starts_with(b"cart") && event.event_type() == "Third")
        );
        assert_eq!(
            named.join().unwrap(),
            of(&|event| keys.iter().any(|key| key.as_bytes() == event.key()))
        );
        let (start, late) = late.join().unwrap();
        assert_eq!(late, of(&|event| event.position() > start));
    });
}

#[test]
fn all_that_follow_a_shard_under_load_see_its_log() {
    in_time_of_load("one shard", || under_load(Backend::Auto, true, 1));
}

#[test]
fn all_that_follow_three_shards_under_load_see_their_logs() {
    in_time_of_load("three shards", || under_load(Backend::Blocking, false, 3));
}

/// A soak may take long.
fn in_time_of_load(what: &str, run: impl FnOnce() + Send + 'static) {
    match std::env::var_os("ANNALS_SOAK") {
        Some(_) => run(),
        None => in_time(what, run),
    }
}

/// Waits until something holds, and fails if it never does.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn who_sleeps_holds_nothing_back() {
    let dir = directory();
    let store = small().open(dir.path()).unwrap();
    let write = || {
        let mut tickets = Vec::new();
        for number in 0..400_u64 {
            let events = (0..10).map(|_| Event::new("E", vec![number as u8; 1_000]));
            tickets.push(store.append("a", Expect::Any, events).unwrap());
        }
        tickets.iter().for_each(|ticket| drop(ticket.wait().unwrap()));
    };
    let held = || store.stats().shards[0].held_bytes;
    let settled = || {
        eventually("nothing is held", || {
            store.append("idle", Expect::Any, [event("E")]).unwrap().wait().unwrap();
            held() == 0
        });
    };
    // In the middle of a write, of a flush, of what the tail image has; with events of it in hand.
    let mut sleeper = store.subscribe(0);
    let mut by_write = store.subscribe(0).writes();
    let mut all = store.subscribe_all().from_now();
    let ticket = |_| store.append("a", Expect::Any, (0..5).map(|_| event("E"))).unwrap();
    (0..50).map(ticket).collect::<Vec<_>>().iter().for_each(|ticket| drop(ticket.wait().unwrap()));
    let mut given: Vec<_> = (0..103).map(|_| sleeper.next().unwrap().unwrap()).collect();
    let mut writes: Vec<_> = (0..20).map(|_| by_write.next().unwrap().unwrap()).collect();
    let mut others: Vec<_> = (0..92).map(|_| all.next().unwrap().unwrap()).collect();
    let segments = store.stats().shards[0].segments;
    for _ in 0..3 {
        write();
    }
    assert!(store.stats().shards[0].segments > segments + 5);
    settled();

    // A plain read keeps what it hands out, and this test would see it.
    let kept = store.read("idle").backwards().next().unwrap().unwrap();
    write();
    eventually("the kept event holds its chunk", || {
        store.append("idle", Expect::Any, [event("E")]).unwrap().wait().unwrap();
        held() > 0
    });
    drop(kept);
    settled();

    store.close().unwrap();
    given.extend(sleeper.map(Result::unwrap));
    writes.extend(by_write.map(Result::unwrap));
    others.extend(all.map(Result::unwrap));
    let logged: Vec<_> = store.log(0).map(Result::unwrap).collect();
    let place = |event: &Recorded| (event.position(), event.index(), event.data().len());
    assert!(given.iter().map(place).eq(logged.iter().map(place)));
    assert!(others.iter().map(|(_, event)| place(event)).eq(logged.iter().map(place)));
    assert_eq!(writes.len(), store.log(0).writes().count());
}

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

/// Counts how often it is woken.
#[derive(Default)]
struct Rings(AtomicUsize);

impl Wake for Rings {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll<S: Stream + Unpin>(stream: &mut S, rings: &Arc<Rings>) -> Poll<Option<S::Item>> {
    Pin::new(stream).poll_next(&mut Context::from_waker(&Waker::from(Arc::clone(rings))))
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
        let rung = rings.0.load(Ordering::Relaxed);
        store.append("a", Expect::Any, [event("E")]).unwrap().wait().unwrap();
        eventually("both are woken", || rings.0.load(Ordering::Relaxed) == rung + 2);
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
    let rung = rings.0.load(Ordering::Relaxed);
    store.close().unwrap();
    eventually("the end is told", || rings.0.load(Ordering::Relaxed) > rung);
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
    assert_eq!(rings.0.load(Ordering::Relaxed), 1, "it asks to be polled again");
    while subscription.position() < end {
        assert!(poll(&mut subscription, &rings).is_pending());
    }
    assert!(poll(&mut subscription, &rings).is_pending());
    assert!(rings.0.load(Ordering::Relaxed) <= 3, "then it waits to be woken");
    assert!(none().try_next().is_none());
}
