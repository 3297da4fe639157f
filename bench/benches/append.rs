//! Durable appends: one thread that waits for each, and one that keeps them in flight.

use std::time::{Duration, Instant};

use annals::Expect;
use bench::{Events, Keys, Place, settle};
use criterion::{Criterion, Throughput};

/// The time from the call until the write is durable.
fn waiting(criterion: &mut Criterion) {
    let Place { store, .. } = &Place::new();
    let events = Events::default();
    let mut keys = Keys::new(1_000);

    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one thread, waiting for each", |bencher| {
        bencher.iter(|| {
            let ticket = store.append(keys.any(), Expect::Any, [events.event()]);
            ticket.and_then(|ticket| ticket.wait()).expect("it becomes durable")
        });
    });
    group.finish();
}

/// The rate at which one thread's writes become durable. It ends when the last one is.
fn pipelined(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(1));
    group
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    for aggregates in [1_000, 1_000_000] {
        let Place { store, .. } = &Place::new();
        let events = Events::default();
        let mut keys = Keys::new(aggregates);
        let created = keys.all().map(|key| store.append(key, Expect::Absent, [events.event()]));
        settle(created.last().transpose().expect("it is accepted")).expect("it becomes durable");

        group.bench_function(
            format!("one thread, in flight, {aggregates} aggregates"),
            |bencher| {
                bencher.iter_custom(|writes| {
                    let started = Instant::now();
                    let mut last = None;
                    for _ in 0..writes {
                        let ticket = store.append(keys.any(), Expect::Any, [events.event()]);
                        last = Some(ticket.expect("it is accepted"));
                    }
                    settle(last).expect("it becomes durable");
                    started.elapsed()
                });
            },
        );
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    waiting(&mut criterion);
    pipelined(&mut criterion);
    criterion.final_summary();
}
