//! Looking up a key of 16 bytes among 10⁴, 10⁶ and 10⁷, in random order: the index beside `papaya` and `dashmap`.
//!
//! All hash with the same function. What `papaya` hands out lives as long as a pin, so it is measured with one for
//! each lookup, as an append would have to take, and with one that is held for all of them. The index finds a slot that
//! stays; the others find a number, which is what a slot's address would be.
//!
//! *While it grows*, another thread inserts keys as fast as it can, from 10⁴ on, all the time.
//!
//! 10⁷ keys take seconds to put in and about 1.5 GiB: only with `ANNALS_BENCH_LARGE=1` in the environment.

use std::cell::OnceCell;
use std::env;
use std::hash::{BuildHasher, Hash, Hasher};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use annals::internals::index::{Index, SlotKey};
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use xxhash_rust::xxh3::xxh3_64_with_seed;

#[path = "common/mod.rs"]
mod common;

use common::{Random, key};

const HASH_KEY: u64 = 42;
/// How many keys there are when growth begins.
const GROWS_FROM: u64 = 10_000;
/// So many lookups are measured before growth begins anew, so that memory stays bounded.
const GROWS_FOR: u64 = 200_000;

/// The hash of the index, for the others.
#[derive(Clone, Copy, Default)]
struct SameHash;

struct OneShot(u64);

impl BuildHasher for SameHash {
    type Hasher = OneShot;

    #[inline]
    fn build_hasher(&self) -> OneShot {
        OneShot(0)
    }
}

impl Hasher for OneShot {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, HASH_KEY);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// A key that hands its bytes to the hash in one piece.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key([u8; 16]);

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// A map under test.
trait Map: Sync {
    fn new() -> Self;
    fn insert(&self, number: u64);
    /// Times so many lookups of keys that are all there.
    fn look_up(&self, lookups: u64, keys: u64) -> Duration;

    fn filled(keys: u64) -> Self
    where
        Self: Sized,
    {
        let map = Self::new();
        (0..keys).for_each(|number| map.insert(number));
        map
    }
}

/// Times so many calls, each with the key of a random number below `keys`.
fn timed(lookups: u64, keys: u64, mut find: impl FnMut(&[u8; 16]) -> bool) -> Duration {
    let mut random = Random::new();
    let mut found = true;
    let started = Instant::now();
    for _ in 0..lookups {
        found &= find(&key(random.below(keys)));
    }
    let spent = started.elapsed();
    assert!(found, "every key is there");
    spent
}

impl Map for Index {
    fn new() -> Index {
        Index::new(HASH_KEY)
    }

    fn insert(&self, number: u64) {
        let key = key(number);
        let key = SlotKey::Aggregate(&key);
        self.insert(self.hash(key), key).expect("there is memory");
    }

    fn look_up(&self, lookups: u64, keys: u64) -> Duration {
        timed(lookups, keys, |key| {
            let key = SlotKey::Aggregate(key);
            black_box(self.find(self.hash(key), key)).is_some()
        })
    }
}

/// `papaya` with a pin for each lookup.
struct Pinned(papaya::HashMap<Key, u64, SameHash>);

impl Map for Pinned {
    fn new() -> Pinned {
        Pinned(papaya::HashMap::with_hasher(SameHash))
    }

    fn insert(&self, number: u64) {
        self.0.pin().insert(Key(key(number)), number);
    }

    fn look_up(&self, lookups: u64, keys: u64) -> Duration {
        timed(lookups, keys, |key| black_box(self.0.pin().get(&Key(*key)).copied()).is_some())
    }
}

/// `papaya` with one pin for all lookups.
struct Held(Pinned);

impl Map for Held {
    fn new() -> Held {
        Held(Pinned::new())
    }

    fn insert(&self, number: u64) {
        self.0.insert(number);
    }

    fn look_up(&self, lookups: u64, keys: u64) -> Duration {
        let map = self.0.0.pin();
        timed(lookups, keys, |key| black_box(map.get(&Key(*key)).copied()).is_some())
    }
}

type Dash = dashmap::DashMap<Key, u64, SameHash>;

impl Map for Dash {
    fn new() -> Dash {
        Dash::with_hasher(SameHash)
    }

    fn insert(&self, number: u64) {
        self.insert(Key(key(number)), number);
    }

    fn look_up(&self, lookups: u64, keys: u64) -> Duration {
        timed(lookups, keys, |key| black_box(self.get(&Key(*key)).map(|found| *found)).is_some())
    }
}

fn quiet<M: Map>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, keys: u64) {
    // Filled when it is first asked for, so that a filter leaves out the filling too.
    let map = OnceCell::new();
    group.bench_function(name, |bencher| {
        let map = map.get_or_init(|| M::filled(keys));
        bencher.iter_custom(|lookups| map.look_up(lookups, keys));
    });
}

/// Lookups beside a thread that inserts.
fn beside_growth<M: Map>(mut lookups: u64) -> Duration {
    let mut spent = Duration::ZERO;
    while lookups > 0 {
        let now = lookups.min(GROWS_FOR);
        lookups -= now;
        let map = M::filled(GROWS_FROM);
        let (growing, over) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in GROWS_FROM.. {
                    map.insert(number);
                    growing.store(true, Ordering::Relaxed);
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            while !growing.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            spent += map.look_up(now, GROWS_FROM);
            over.store(true, Ordering::Relaxed);
        });
    }
    spent
}

/// Lookups of keys that are not there: an append that creates looks first.
fn missing(group: &mut BenchmarkGroup<'_, WallTime>, keys: u64) {
    let index = OnceCell::new();
    group.bench_function("annals, not there", |bencher| {
        let index = index.get_or_init(|| <Index as Map>::filled(keys));
        bencher.iter_custom(|lookups| {
            timed(lookups, keys, |key| {
                let other = !u128::from_le_bytes(*key);
                let key = other.to_le_bytes();
                let key = SlotKey::Aggregate(&key);
                black_box(index.find(index.hash(key), key)).is_none()
            })
        });
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let large = env::var_os("ANNALS_BENCH_LARGE").is_some_and(|value| value == "1");
    for keys in [10_000, 1_000_000, 10_000_000] {
        if keys > 1_000_000 && !large {
            continue;
        }
        let mut group = criterion.benchmark_group(format!("index, {keys} keys"));
        group.throughput(Throughput::Elements(1));
        quiet::<Index>(&mut group, "annals", keys);
        missing(&mut group, keys);
        quiet::<Pinned>(&mut group, "papaya, a pin each", keys);
        quiet::<Held>(&mut group, "papaya, one pin", keys);
        quiet::<Dash>(&mut group, "dashmap", keys);
        group.finish();
    }
    let mut group = criterion.benchmark_group("index, while it grows");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.bench_function("annals", |b| b.iter_custom(beside_growth::<Index>));
    group.bench_function("papaya, a pin each", |b| b.iter_custom(beside_growth::<Pinned>));
    group.bench_function("papaya, one pin", |b| b.iter_custom(beside_growth::<Held>));
    group.bench_function("dashmap", |b| b.iter_custom(beside_growth::<Dash>));
    group.finish();
    criterion.final_summary();
}
