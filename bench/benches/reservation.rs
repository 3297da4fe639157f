//! What an append costs the thread that makes it: a conflict told, and a write handed over without waiting for it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use annals::{Event, Expect};
use bench::{Events, Keys, Place, settle};
use criterion::{BatchSize, Criterion, Throughput};

/// A loser is told the actual version at once.
fn conflict(criterion: &mut Criterion) {
    let Place { store, .. } = &Place::new();
    let first = store.append("order-1", Expect::Absent, [Event::new("Placed", "")]);
    first.expect("a new order").wait().expect("is durable");
    let handle = store.aggregate("order-1").expect("it exists");

    let mut group = criterion.benchmark_group("reservation");
    group.throughput(Throughput::Elements(1));
    let event = || Event::new("Placed", [7; 32]);
    group.bench_function("conflict told, by key", |bencher| {
        bencher.iter_batched(
            event,
            |event| store.append(black_box("order-1"), Expect::Absent, [event]).unwrap_err(),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("conflict told, by handle", |bencher| {
        bencher.iter_batched(
            event,
            |event| handle.append(black_box(Expect::Absent), [event]).unwrap_err(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// The call alone: the writes become durable outside the time that is taken.
fn hand_over(criterion: &mut Criterion) {
    /// So many writes that none waits for room.
    const BURST: u64 = 10_000;
    let Place { store, .. } = &Place::new();
    let events = Events::default();
    let mut keys = Keys::new(1_000);

    let mut group = criterion.benchmark_group("reservation");
    group.throughput(Throughput::Elements(1));
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    group.bench_function("append, ticket kept, not waited for", |bencher| {
        bencher.iter_custom(|writes| {
            let mut spent = Duration::ZERO;
            let mut left = writes;
            while left > 0 {
                let mut last = None;
                let started = Instant::now();
                for _ in 0..left.min(BURST) {
                    let ticket = store.append(keys.any(), Expect::Any, [events.event()]);
                    last = Some(ticket.expect("it is accepted"));
                }
                spent += started.elapsed();
                settle(last).expect("it becomes durable");
                left = left.saturating_sub(BURST);
            }
            spent
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    conflict(&mut criterion);
    hand_over(&mut criterion);
    criterion.final_summary();
}
