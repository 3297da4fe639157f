//! Reading and folding events of 128 bytes: from memory, from mapped segments, and from segments that are read piece by
//! piece; and what is accepted and not yet durable. No device is involved: what is mapped or read lies on a disk in
//! memory.

use std::hint::black_box;

use annals::internals::disk::sim::Order;
use annals::{Expect, LogRead, Options, Read, Store};
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};

#[path = "common/mod.rs"]
mod common;

use common::{Events, Place, Random, Sum, key, settle};

/// Aggregates with this many events each, one for each write.
const LENGTHS: [(u64, u64); 3] = [(1, 10_000), (100, 500), (100_000, 1)];

fn options() -> Options {
    // The tail image holds all that is written.
    Options::new().tail_bytes(256 << 20)
}

/// The aggregates of one length have their numbers from here on.
fn first(length: u64) -> u64 {
    length << 32
}

/// A store in which the events of the aggregates of each length alternate.
fn written() -> Place {
    let place = Place::new(&options());
    let events = Events::of(128);
    for (length, aggregates) in LENGTHS {
        let mut last = None;
        for _ in 0..length {
            for number in first(length)..first(length) + aggregates {
                let ticket = place.store.append(key(number), Expect::Any, [events.event()]);
                last = Some(ticket.expect("it is accepted"));
            }
        }
        settle(last);
    }
    place
}

/// How many events there are in all.
fn total() -> u64 {
    LENGTHS.iter().map(|(length, aggregates)| length * aggregates).sum()
}

/// Counts the bytes of some events.
fn bytes(read: impl Iterator<Item = Result<annals::Recorded, annals::Error>>) -> u64 {
    read.map(|event| black_box(event.expect("it is whole").data()).len() as u64).sum()
}

fn aggregates(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, store: &Store) {
    for (length, aggregates) in LENGTHS {
        let mut random = Random::new();
        let mut any = || key(first(length) + random.below(aggregates));
        let mut bench = |what: &str, events: u64, read: fn(Read) -> u64| {
            group.throughput(Throughput::Elements(events));
            group.bench_function(format!("{what} of {length}, {name}"), |bencher| {
                bencher.iter(|| assert_eq!(read(store.read(any())), events * 128));
            });
        };
        bench("all", length, bytes);
        bench("state", length, |read| read.into_state::<Sum>().expect("it is whole").0.bytes);
        if length > 10 {
            bench("last 10", 10, |read| bytes(read.backwards().limit(10)));
        }
    }
    for (length, aggregates) in LENGTHS {
        let mut random = Random::new();
        group.throughput(Throughput::Elements(length));
        group.bench_function(format!("fold of {length}, {name}"), |bencher| {
            bencher.iter(|| {
                let mut seen = Sum::default();
                let number = first(length) + random.below(aggregates);
                let nothing = |sum: &Sum| {
                    seen = *sum;
                    Ok::<_, ()>(Vec::new())
                };
                let decided = store.execute(key(number), nothing).wait();
                assert!(matches!(decided, Ok(Ok(None))), "{decided:?}");
                assert_eq!(seen, Sum { events: length, bytes: length * 128 });
            });
        });
    }
    let mut random = Random::new();
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("version, {name}"), |bencher| {
        bencher.iter(|| {
            let version = store.version(key(first(100) + random.below(500)));
            assert_eq!(version.expect("it is whole"), 100);
        });
    });
}

/// Reads of what is accepted while the device hangs.
fn accepted(group: &mut BenchmarkGroup<'_, WallTime>) {
    let Place { disk, store } = Place::grown(&options());
    let events = Events::of(128);
    settle(store.append(key(0), Expect::Any, [events.event()]).ok());
    disk.set_order(Order::Never);
    for pending in [1, 100] {
        let mut last = None;
        while store.version_accepted(key(pending)).expect("the key is right") < pending {
            last = store.append(key(pending), Expect::Any, [events.event()]).ok();
        }
        group.throughput(Throughput::Elements(pending));
        group.bench_function(format!("accepted read of {pending} pending"), |bencher| {
            bencher.iter(|| {
                let read = store.read(key(pending)).accepted();
                assert_eq!(bytes(black_box(read)), pending * 128);
            });
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("accepted version over {pending} pending"), |bencher| {
            bencher.iter(|| assert_eq!(store.version_accepted(key(pending)).ok(), Some(pending)));
        });
        drop(last);
    }
    disk.set_order(Order::Fifo);
}

fn logs(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, store: &Store) {
    let mut bench = |what: &str, read: fn(LogRead) -> u64| {
        group.throughput(Throughput::Elements(total()));
        group.bench_function(format!("log by {what}, {name}"), |bencher| {
            bencher.iter(|| assert_eq!(read(store.log(0)), total() * 128));
        });
    };
    bench("event", bytes);
    bench("write", |read| {
        let mut sum = 0;
        for write in read.writes() {
            for part in write.expect("it is whole").parts() {
                sum += part.events().map(|event| black_box(event.data()).len() as u64).sum::<u64>();
            }
        }
        sum
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("reads");
    group.sample_size(20);
    accepted(&mut group);
    let mut place = written();
    for (name, mapped) in [("memory", None), ("mapped", Some(true)), ("not mapped", Some(false))] {
        if let Some(mapped) = mapped {
            place = place.reopened(&options().mapped(mapped).read_only(true));
        }
        aggregates(&mut group, name, &place.store);
        logs(&mut group, name, &place.store);
    }
    group.finish();
    criterion.final_summary();
}
