//! Subscriptions under load, held against the log: through segments, slow, dropped and resumed, filtered and merged.

mod common;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use annals::{Backend, Event, Expect, Position, Recorded, Store, Subscription, WriteSubscription};
use common::{directory, event, eventually, in_time, small};

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
