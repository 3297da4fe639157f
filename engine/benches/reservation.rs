//! How a write is decided: the protocol alone, without a record and without a log writer.
//!
//! What is measured is what an append does under its guard: look at each slot, fill in the entries, submit, install,
//! decide. Writes are made before and cleared away after, both outside of the time that is taken.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use annals::Position;
use annals::internals::index::{Index, SlotKey};
use annals::internals::reserve::decide::{clear_published, clear_rejected, decide, look};
use annals::internals::reserve::slot_ref::SlotRef;
use annals::internals::reserve::stack::Stack;
use annals::internals::reserve::write::{Entry, Status, Write};
use annals::internals::sync::epoch;
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};

#[path = "common/mod.rs"]
mod common;

use common::{BURST, key};

type Request = Box<Write<()>>;

/// Slots, and the stack that writes to them go to.
struct Slots {
    /// Keeps the slots.
    _index: Index,
    slots: Vec<SlotRef>,
    stack: Stack<()>,
}

impl Slots {
    fn new(count: usize) -> Slots {
        let index = Index::new(1);
        let insert = |number| {
            let key = key(number);
            let key = SlotKey::Aggregate(&key);
            index.insert(index.hash(key), key).expect("there is memory").0
        };
        let slots = (0..count as u64).map(insert).collect();
        Slots { _index: index, slots, stack: Stack::new() }
    }

    /// Reserves each of some slots for a write, which is lost if another comes in between.
    #[inline]
    fn append(&self, mut request: Request, slots: &[SlotRef]) -> Status {
        epoch::pinned(|guard| {
            let (entries, ()) = request.parts_mut();
            for slot in slots {
                let seen = look::<()>(*slot, guard);
                entries.push(Entry::new(*slot, seen.tick, seen.version, seen.version + 1, 0));
            }
            request.seal();
            let submitted = self.stack.push(request).expect("the stack is open");
            // SAFETY: memory is taken back in `clear` alone, when nobody appends.
            decide(unsafe { submitted.get() }, guard)
        })
    }

    /// What a log writer does when all that was submitted is durable. Nobody else looks at the slots any more, so
    /// the writes can be used again.
    fn clear(&self, spare: &mut Vec<Request>) {
        let submitted: Vec<_> = self.stack.take().collect();
        for wanted in [Status::Accepted, Status::Rejected] {
            for request in &submitted {
                // SAFETY: memory is taken back below.
                let write = unsafe { request.get() };
                if write.status() != wanted {
                    continue;
                }
                if wanted == Status::Rejected {
                    assert!(clear_rejected(write), "everything before it is published");
                    continue;
                }
                for entry in write.entries() {
                    entry.slot.publish_version(entry.version_after, Position::from_raw(1));
                    entry.slot.set_published(entry.after());
                    clear_published(entry);
                }
            }
        }
        for request in submitted {
            // SAFETY: it is out of every slot and off the stack, nobody else looks, and it is in the list once.
            let mut request = unsafe { request.into_box() };
            request.reset();
            spare.push(request);
        }
    }
}

/// Times `writes` calls, of which at most a burst is in flight.
fn bursts(
    writes: u64,
    spare: &mut Vec<Request>,
    mut burst: impl FnMut(Vec<Request>, &mut Vec<Request>) -> Duration,
) -> Duration {
    let mut spent = Duration::ZERO;
    let mut left = writes;
    while left > 0 {
        let now = left.min(BURST) as usize;
        left -= now as u64;
        let kept = spare.len().saturating_sub(now);
        let mut requests = spare.split_off(kept);
        requests.resize_with(now, || Write::new(()));
        spent += burst(requests, spare);
    }
    spent
}

/// Writes to as many slots each as `wide` says: of their own, so that nothing is pending, or all to the same.
fn quiet(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, wide: usize, own: bool) {
    let slots = Slots::new(if own { BURST as usize * wide } else { wide });
    let mut spare = Vec::new();
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|writes| {
            bursts(writes, &mut spare, |requests, spare| {
                let mut accepted = true;
                let started = Instant::now();
                for (request, own_slots) in
                    requests.into_iter().zip(slots.slots.chunks(wide).cycle())
                {
                    accepted &= slots.append(request, own_slots) == Status::Accepted;
                }
                let spent = started.elapsed();
                assert!(accepted, "nobody else writes");
                slots.clear(spare);
                spent
            })
        });
    });
}

/// Writes to one slot that others write to all the time; each until it is accepted.
fn contended(group: &mut BenchmarkGroup<'_, WallTime>, others: usize) {
    let slots = Slots::new(1);
    let mut spare = Vec::new();
    group.bench_function(format!("one key, beside {others} other threads"), |bencher| {
        bencher.iter_custom(|writes| {
            bursts(writes, &mut spare, |requests, spare| {
                let spent = beside(&slots, others, requests);
                slots.clear(spare);
                spare.truncate(4 * BURST as usize);
                spent
            })
        });
    });
}

fn beside(slots: &Slots, others: usize, requests: Vec<Request>) -> Duration {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..others {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _decided = slots.append(Write::new(()), &slots.slots);
                }
            });
        }
        let started = Instant::now();
        for request in requests {
            let mut request = request;
            while slots.append(request, &slots.slots) != Status::Accepted {
                request = Write::new(());
            }
        }
        let spent = started.elapsed();
        over.store(true, Ordering::Relaxed);
        spent
    })
}

/// What a loser does: look, and see that the version is another. `pending`: an accepted write stands in the slot.
fn conflict(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, pending: bool) {
    let slots = Slots::new(1);
    let mut spare = Vec::new();
    assert_eq!(slots.append(Write::new(()), &slots.slots), Status::Accepted);
    if !pending {
        slots.clear(&mut spare);
    }
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let seen = epoch::pinned(|guard| look::<()>(black_box(slots.slots[0]), guard));
            assert_ne!(seen.version, 0, "it is at version 1");
        });
    });
    slots.clear(&mut spare);
}

/// A write that was decided on a look that is no longer true.
fn lost(group: &mut BenchmarkGroup<'_, WallTime>) {
    let slots = Slots::new(1);
    let mut spare = Vec::new();
    assert_eq!(slots.append(Write::new(()), &slots.slots), Status::Accepted);
    slots.clear(&mut spare);
    group.bench_function("lost race", |bencher| {
        bencher.iter_custom(|writes| {
            bursts(writes, &mut spare, |requests, spare| {
                let mut rejected = true;
                let started = Instant::now();
                for mut request in requests {
                    rejected &= epoch::pinned(|guard| {
                        request.parts_mut().0.push(Entry::new(slots.slots[0], 0, 0, 1, 0));
                        request.seal();
                        let submitted = slots.stack.push(request).expect("the stack is open");
                        // SAFETY: memory is taken back in `clear` alone.
                        decide(unsafe { submitted.get() }, guard) == Status::Rejected
                    });
                }
                let spent = started.elapsed();
                assert!(rejected, "the slot is at tick 1");
                slots.clear(spare);
                spent
            })
        });
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("reservation");
    group.throughput(Throughput::Elements(1));
    quiet(&mut group, "one key, free", 1, true);
    quiet(&mut group, "one key, a write pending", 1, false);
    quiet(&mut group, "two keys, free", 2, true);
    quiet(&mut group, "two keys, a write pending", 2, false);
    quiet(&mut group, "eight keys, free", 8, true);
    contended(&mut group, 1);
    contended(&mut group, 3);
    conflict(&mut group, "conflict, quiet", false);
    conflict(&mut group, "conflict, a write pending", true);
    lost(&mut group);
    group.finish();
    criterion.final_summary();
}
