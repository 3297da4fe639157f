//! Following: a subscription that catches up and one that follows, how soon a follower is woken, and what watchers of other
//! aggregates cost an append. No device is involved: the disk is memory.

use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use annals::internals::disk::sim::Order;
use annals::{Expect, Options, Subscription};
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};

#[path = "common/mod.rs"]
mod common;

use common::{Events, Place, create, key, newest, settle};

/// Events in the log that is caught up with.
const LOG: u64 = 100_000;
/// Appends in flight at once.
const BURST: u64 = 1_000;
const WATCHERS: u64 = 10_000;

fn options() -> Options {
    // The tail image holds all that is written.
    Options::new().tail_bytes(256 << 20)
}

/// Takes so many events that are there.
fn take(subscription: &mut Subscription, events: u64) {
    for _ in 0..events {
        black_box(subscription.next().expect("the store is open").expect("it is whole"));
    }
}

fn catching_up(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut place = Place::grown(&options());
    let events = Events::of(128);
    let append = |number| place.store.append(key(number % 100), Expect::Any, [events.event()]);
    let mut last = None;
    for number in 0..LOG {
        last = append(number).ok();
        if number % BURST == 0 {
            settle(last.take());
        }
    }
    settle(last);
    group.throughput(Throughput::Elements(LOG));
    for (name, mapped) in [("memory", None), ("mapped", Some(true)), ("not mapped", Some(false))] {
        if let Some(mapped) = mapped {
            place = place.reopened(&options().mapped(mapped).read_only(true));
        }
        group.bench_function(format!("catching up, {name}"), |bencher| {
            bencher.iter(|| {
                let mut subscription = place.store.subscribe(0);
                let large = place.store.version("large").expect("it is whole");
                take(&mut subscription, large + LOG);
            });
        });
    }
}

fn following(group: &mut BenchmarkGroup<'_, WallTime>) {
    let place = Place::grown(&options());
    let events = Events::of(128);
    group.throughput(Throughput::Elements(BURST));
    group.bench_function("following bursts of 1,000", |bencher| {
        let mut subscription = place.store.subscribe(0).from_now();
        bencher.iter(|| {
            let append =
                |number| place.store.append(key(number % 100), Expect::Any, [events.event()]);
            let _last = newest((0..BURST).map(append));
            take(&mut subscription, BURST);
        });
    });
}

/// From the moment at which the device has written to the one at which the follower runs: the log writer is woken,
/// publishes and wakes the follower in between.
fn waking(group: &mut BenchmarkGroup<'_, WallTime>) {
    let events = Events::of(128);
    let mut bench = |name: &str, follow: fn(&mut Subscription)| {
        let Place { disk, store } = Place::grown(&options());
        let mut subscription = store.subscribe(0).from_now();
        let (told, hears) = mpsc::channel();
        let (waits, is_waiting) = mpsc::channel();
        let follower = thread::spawn(move || {
            while waits.send(()).is_ok() {
                follow(&mut subscription);
                if told.send(Instant::now()).is_err() {
                    break;
                }
            }
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    is_waiting.recv().expect("the follower runs");
                    disk.set_order(Order::Never);
                    let ticket = store.append(key(0), Expect::Any, [events.event()]);
                    // Everybody is asleep by now.
                    thread::sleep(Duration::from_millis(1));
                    let written = Instant::now();
                    disk.set_order(Order::Fifo);
                    spent += hears.recv().expect("the follower runs").duration_since(written);
                    settle(ticket.ok());
                }
                spent
            });
        });
        drop((hears, is_waiting));
        store.close().expect("it closes");
        follower.join().expect("the follower ends");
    };
    bench("wake-up of a thread", |subscription| {
        let _end = subscription.next();
    });
    bench("wake-up of a task", |subscription| {
        let _end = futures::executor::block_on(subscription.next_async());
    });
}

fn watchers(group: &mut BenchmarkGroup<'_, WallTime>) {
    let place = Place::grown(&options());
    let events = Events::of(128);
    create(&place.store, BURST, &events);
    let number = AtomicU64::new(0);
    let mut bench = |name: &str| {
        group.throughput(Throughput::Elements(BURST));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let append = |_| {
                    let number = number.fetch_add(1, Ordering::Relaxed) % BURST;
                    place.store.append(key(number), Expect::Any, [events.event()])
                };
                settle(newest((0..BURST).map(append)));
            });
        });
    };
    bench("append, nobody watches");
    let mut watches: Vec<_> = (0..WATCHERS)
        .map(|number| place.store.watch(key(BURST + number)).expect("the key is right"))
        .collect();
    let mut context = Context::from_waker(Waker::noop());
    for watch in &mut watches {
        assert!(matches!(pin!(watch.next_async()).poll(&mut context), Poll::Pending));
    }
    bench("append, 10,000 watch other aggregates");
    let mut prefixes: Vec<_> = (0..WATCHERS)
        .map(|number| place.store.watch_prefix(format!("other-{number:06}")).expect("it is short"))
        .collect();
    for watch in &mut prefixes {
        assert!(matches!(pin!(watch.next_async()).poll(&mut context), Poll::Pending));
    }
    bench("append, 10,000 watch other prefixes, too");
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("following");
    group.sample_size(20);
    catching_up(&mut group);
    following(&mut group);
    waking(&mut group);
    watchers(&mut group);
    group.finish();
    criterion.final_summary();
}
