//! What an append costs the thread that makes it, and how fast appends become durable where the device costs nothing.
//!
//! The store lies on a disk in memory. Where only the call is measured, the writes become durable outside of the time
//! that is taken; the log writer works beside it all the same, on another core if there is one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use annals::internals::disk::sim::Order;
use annals::{Aggregate, Expect, Options, Store, Ticket};
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};

#[path = "common/mod.rs"]
mod common;

use common::{BURST, Events, Place, Random, create, key, settle};

/// After so many writes a new store takes the place of the old, so that memory stays bounded.
const STORE_WRITES: u64 = 20 * BURST;

fn options() -> Options {
    Options::new().tail_bytes(16 << 20)
}

/// A store with so many aggregates, replaced now and then.
struct Renewed {
    aggregates: u64,
    events: Events,
    place: Place,
    handles: Vec<Aggregate>,
    writes: u64,
}

impl Renewed {
    fn new(aggregates: u64) -> Renewed {
        let place = Place::grown(&options());
        let mut renewed =
            Renewed { aggregates, events: Events::of(128), place, handles: Vec::new(), writes: 0 };
        renewed.fill();
        renewed
    }

    fn fill(&mut self) {
        create(&self.place.store, self.aggregates, &self.events);
        let handle = |number| self.place.store.aggregate(key(number)).expect("it exists");
        self.handles = (0..self.aggregates).map(handle).collect();
    }

    /// Has so many writes made, in bursts of which each is durable before the next.
    fn bursts(
        &mut self,
        writes: u64,
        mut burst: impl FnMut(&Renewed, u64) -> Duration,
    ) -> Duration {
        let mut spent = Duration::ZERO;
        let mut left = writes;
        while left > 0 {
            if self.writes > STORE_WRITES {
                self.handles.clear();
                self.place = Place::grown(&options());
                self.fill();
                self.writes = 0;
            }
            let now = left.min(BURST);
            left -= now;
            self.writes += now;
            spent += burst(self, now);
        }
        spent
    }

    /// The time of the calls alone.
    fn calls(&mut self, writes: u64, mut call: impl FnMut(&Renewed, u64) -> Ticket) -> Duration {
        let mut random = Random::new();
        self.bursts(writes, |renewed, writes| {
            let mut last = None;
            let started = Instant::now();
            for _ in 0..writes {
                last = Some(call(renewed, random.below(renewed.aggregates)));
            }
            let spent = started.elapsed();
            settle(last);
            spent
        })
    }
}

/// The call alone.
fn calls(group: &mut BenchmarkGroup<'_, WallTime>, aggregates: u64) {
    let mut renewed = Renewed::new(aggregates);
    group.bench_function(format!("by key, {aggregates} aggregates"), |bencher| {
        bencher.iter_custom(|writes| {
            renewed.calls(writes, |at, number| {
                let event = at.events.event();
                at.place.store.append(key(number), Expect::Any, [event]).expect("it is accepted")
            })
        });
    });
    group.bench_function(format!("by handle, {aggregates} aggregates"), |bencher| {
        bencher.iter_custom(|writes| {
            renewed.calls(writes, |at, number| {
                let event = at.events.event();
                at.handles[number as usize].append(Expect::Any, [event]).expect("it is accepted")
            })
        });
    });
    group.bench_function(format!("two keys, {aggregates} aggregates"), |bencher| {
        bencher.iter_custom(|writes| {
            renewed.calls(writes, |at, number| {
                let other = (number + 1) % at.aggregates;
                let write = at.place.store.write();
                let write = write.append(key(number), Expect::Any, [at.events.event()]);
                let write = write.append(key(other), Expect::Any, [at.events.event()]);
                write.submit().expect("it is accepted")
            })
        });
    });
    let mut sequence = 0;
    group.bench_function(format!("with a client, {aggregates} aggregates"), |bencher| {
        bencher.iter_custom(|writes| {
            renewed.calls(writes, |at, number| {
                sequence += 1;
                let write = at.place.store.write();
                let write = write.append(key(number), Expect::Any, [at.events.event()]);
                write.client(7, sequence).submit().expect("it is accepted")
            })
        });
    });
}

/// From the first call until the last write is durable.
fn durable(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut renewed = Renewed::new(1_000);
    group.bench_function("until durable, in flight", |bencher| {
        bencher.iter_custom(|writes| {
            let mut random = Random::new();
            renewed.bursts(writes, |at, writes| {
                let mut last = None;
                let started = Instant::now();
                for _ in 0..writes {
                    let key = key(random.below(at.aggregates));
                    let ticket = at.place.store.append(key, Expect::Any, [at.events.event()]);
                    last = Some(ticket.expect("it is accepted"));
                }
                settle(last);
                started.elapsed()
            })
        });
    });
    group.bench_function("until durable, waiting for each", |bencher| {
        bencher.iter_custom(|writes| {
            let mut random = Random::new();
            renewed.bursts(writes, |at, writes| {
                let started = Instant::now();
                for _ in 0..writes {
                    let key = key(random.below(at.aggregates));
                    let ticket = at.place.store.append(key, Expect::Any, [at.events.event()]);
                    settle(Some(ticket.expect("it is accepted")));
                }
                started.elapsed()
            })
        });
    });
}

/// A loser is told the version at once.
fn conflict(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, store: &Store) {
    let events = Events::of(128);
    let handle = store.aggregate(key(0)).expect("it exists");
    group.bench_function(format!("conflict by key, {name}"), |bencher| {
        bencher.iter(|| {
            let lost = store.append(black_box(key(0)), Expect::Absent, [events.event()]);
            lost.expect_err("it exists")
        });
    });
    group.bench_function(format!("conflict by handle, {name}"), |bencher| {
        bencher.iter(|| {
            let lost = handle.append(black_box(Expect::Absent), [events.event()]);
            lost.expect_err("it exists")
        });
    });
    group.bench_function(format!("conflict of two keys, {name}"), |bencher| {
        bencher.iter(|| {
            let write = store.write();
            let write = write.append(black_box(key(0)), Expect::Absent, [events.event()]);
            let write = write.append(black_box(key(1)), Expect::Any, [events.event()]);
            write.submit().expect_err("it exists")
        });
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("submission");
    group.throughput(Throughput::Elements(1));

    let Place { disk, store } = &Place::new(&options());
    create(store, 2, &Events::of(128));
    conflict(&mut group, "quiet", store);
    disk.set_order(Order::Never);
    let pending = store.append(key(0), Expect::Any, [Events::of(128).event()]);
    conflict(&mut group, "a write pending", store);
    disk.set_order(Order::Fifo);
    settle(Some(pending.expect("it is accepted")));

    group.sample_size(20);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    calls(&mut group, 1_000);
    calls(&mut group, 100_000);
    durable(&mut group);
    group.finish();
    criterion.final_summary();
}
