//! The steady path of an append allocates nothing: counted over all threads of the process, tickets, waits and conflicts
//! included.
//!
//! One test alone in its program, so that nobody else allocates beside it.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use annals::{Aggregate, Backend, ErrorKind, Event, Expect, Options, Store, Ticket};
use common::directory;

/// The system's allocator, counted while it is told to.
struct Counted;

/// What one run may allocate: a chunk of the tail (4 MiB) and a segment (64 MiB) cost a few, and so does a list that
/// grows to the size that lists have in the end. Each run has many times as many appends, and flushes.
const ALLOWED: u64 = 150;

static COUNTING: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);
/// Where the first one came from that is not allowed.
static CULPRIT: Mutex<Option<Backtrace>> = Mutex::new(None);

thread_local! {
    /// This thread is noting a culprit, which allocates too.
    static NOTING: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if !COUNTING.load(Ordering::Relaxed) || NOTING.replace(true) {
        return;
    }
    if COUNT.fetch_add(1, Ordering::Relaxed) == ALLOWED {
        *CULPRIT.lock().unwrap() = Some(Backtrace::force_capture());
    }
    NOTING.set(false);
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches none of the memory.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: as above; the pointer came from `System`.
        unsafe { System.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Runs something and tells how often the process allocated meanwhile.
fn counted(run: impl FnOnce()) -> u64 {
    COUNT.store(0, Ordering::Relaxed);
    COUNTING.store(true, Ordering::Relaxed);
    run();
    COUNTING.store(false, Ordering::Relaxed);
    COUNT.load(Ordering::Relaxed)
}

const APPENDS: usize = 20_000;
const WAITED: usize = 1_000;
const KEYS: usize = 1_000;
const THREADS: usize = 3;
const WINDOW: usize = 64;
/// Many tickets are kept while the requests behind them are used again.
const WIDE_WINDOW: usize = 512;
/// In the making at one time in the end of the warm-up.
const WARM: usize = 3_000;
const WARM_OF_THREAD: usize = 1_200;

/// The next of the one client.
static SEQUENCE: AtomicU64 = AtomicU64::new(0);

struct Load {
    store: Store,
    keys: Vec<String>,
    handles: Vec<Aggregate>,
    /// The version each aggregate is at.
    versions: Vec<u64>,
    shared: Arc<[u8]>,
    tickets: VecDeque<Ticket>,
}

impl Load {
    fn new(store: Store, name: &str) -> Load {
        let keys: Vec<_> = (0..KEYS).map(|number| format!("{name}-{number}")).collect();
        let versions = keys.iter().map(|key| store.version(key).unwrap()).collect();
        let handles = keys.iter().map(|key| store.aggregate(key).unwrap()).collect();
        Load {
            store,
            keys,
            handles,
            versions,
            shared: Arc::from([7; 128].as_slice()),
            tickets: VecDeque::with_capacity(WIDE_WINDOW + 1),
        }
    }

    /// Kept in the event itself, or shared with it.
    fn event(&self, number: usize) -> Event {
        if number.is_multiple_of(2) {
            Event::new("Credited", [1; 16]).metadata([2; 32])
        } else {
            Event::new("Debited", Arc::clone(&self.shared))
        }
    }

    fn wait_down_to(&mut self, window: usize) {
        while self.tickets.len() > window {
            let ticket = self.tickets.pop_front().unwrap();
            assert!(ticket.wait().unwrap().version() > 0);
        }
    }

    /// Appends to one aggregate after the other, and waits when `window` are in flight.
    fn append(&mut self, appends: usize, window: usize, one: impl Fn(&Load, usize) -> Ticket) {
        for number in 0..appends {
            let ticket = one(self, number);
            self.versions[number % KEYS] += 1;
            self.tickets.push_back(ticket);
            self.wait_down_to(window);
        }
        self.wait_down_to(0);
    }

    fn by_key(&self, number: usize) -> Ticket {
        let at = number % KEYS;
        let expect = Expect::Version(self.versions[at]);
        self.store.append(&self.keys[at], expect, [self.event(number)]).unwrap()
    }

    fn by_handle(&self, number: usize) -> Ticket {
        let at = number % KEYS;
        let expect = Expect::Version(self.versions[at]);
        self.handles[at].append(expect, [self.event(number)]).unwrap()
    }

    /// Goes through everything. In the end more writes are in the making at one time, and more tickets kept, than later,
    /// so that there is memory for them, and as much for each as the largest takes.
    fn warm_up(&mut self, writes: usize) {
        for window in [WIDE_WINDOW, WINDOW] {
            self.append(writes, window, Load::by_key);
            self.append(writes, window, Load::by_handle);
            self.append_to_two(writes, window);
        }
        let kept = self.at_once(2 * WIDE_WINDOW);
        drop(self.at_once(writes));
        drop(kept);
        for (version, key) in self.versions.iter_mut().zip(&self.keys) {
            *version = self.store.version(key).unwrap();
        }
    }

    /// Makes writes to two, then submits them all, then waits for them all.
    fn at_once(&mut self, writes: usize) -> Vec<Ticket> {
        let mut made = Vec::new();
        for number in 0..writes {
            let (one, two) = (&self.keys[number % KEYS], &self.keys[(number + 1) % KEYS]);
            let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
            let write = self.store.write().append(one, Expect::Any, [self.event(0)]);
            made.push(write.append(two, Expect::Any, [self.event(1)]).client(1, sequence));
        }
        let tickets: Vec<_> = made.into_iter().map(|write| write.submit().unwrap()).collect();
        tickets.iter().for_each(|ticket| drop(ticket.wait().unwrap()));
        tickets
    }

    /// Every second one of a client of its own, so that it can be sent again.
    fn append_to_two(&mut self, appends: usize, window: usize) {
        for number in 0..appends {
            let (from, to) = (2 * number % KEYS, (2 * number + 1) % KEYS);
            let write = self
                .store
                .write()
                .append(&self.keys[from], Expect::Version(self.versions[from]), [self.event(0)])
                .append(&self.keys[to], Expect::Version(self.versions[to]), [self.event(1)]);
            let ticket = if number.is_multiple_of(2) {
                let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
                write.client(1, sequence).submit()
            } else {
                write.submit()
            };
            self.versions[from] += 1;
            self.versions[to] += 1;
            self.tickets.push_back(ticket.unwrap());
            self.wait_down_to(window);
        }
        self.wait_down_to(0);
    }

    fn conflicts(&self) {
        for number in 0..APPENDS {
            let at = number % KEYS;
            let stale = Expect::Version(self.versions[at] + 1);
            let event = self.event(number);
            let error = if number.is_multiple_of(2) {
                self.store.append(&self.keys[at], stale, [event]).unwrap_err()
            } else {
                self.handles[at].append(stale, [event]).unwrap_err()
            };
            assert_eq!(error.kind(), ErrorKind::Conflict);
            assert_eq!(error.actual(), Some(self.versions[at]));
        }
    }

    fn conflicts_of_two(&self) {
        for number in 0..APPENDS {
            let (from, to) = (number % KEYS, (number + 1) % KEYS);
            let error = self
                .store
                .write()
                .append(
                    &self.keys[from],
                    Expect::Version(self.versions[from]),
                    [self.event(number)],
                )
                .check(&self.keys[to], Expect::Absent)
                .submit()
                .unwrap_err();
            assert_eq!(error.key(), Some(self.keys[to].as_bytes()));
        }
    }
}

/// Several threads with aggregates of their own, and how often the process allocated once they were warm.
fn counted_together(store: &Store) -> u64 {
    let barrier = Barrier::new(THREADS + 1);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let barrier = &barrier;
            scope.spawn(move || {
                let mut load = Load::new(store.clone(), &format!("thread-{thread}"));
                load.warm_up(WARM_OF_THREAD);
                barrier.wait();
                barrier.wait();
                load.append(APPENDS / THREADS, WINDOW, Load::by_key);
                barrier.wait();
            });
        }
        barrier.wait();
        counted(|| {
            barrier.wait();
            barrier.wait();
        })
    })
}

type Run = fn(&mut Load);

/// What is run, and how many flushes it takes at least.
const RUNS: [(&str, u64, Run); 9] = [
    ("by key", FEW, |load| load.append(APPENDS, WINDOW, Load::by_key)),
    ("by handle", FEW, |load| load.append(APPENDS, WINDOW, Load::by_handle)),
    ("to two", FEW, |load| load.append_to_two(APPENDS, WINDOW)),
    ("by key, hundreds in flight", 1, |load| load.append(APPENDS, WIDE_WINDOW, Load::by_key)),
    ("by key, one at a time", FEW, |load| load.append(WAITED, 0, Load::by_key)),
    ("by handle, one at a time", FEW, |load| load.append(WAITED, 0, Load::by_handle)),
    ("to two, one at a time", FEW, |load| load.append_to_two(WAITED, 0)),
    ("conflicts", 0, |load| load.conflicts()),
    ("conflicts of two", 0, |load| load.conflicts_of_two()),
];

/// So many flushes that an allocation with each would be too many.
const FEW: u64 = 2 * ALLOWED;

/// Whatever a busy machine made grow late, it has grown by the next attempt; what is allocated in every one is a fault.
const ATTEMPTS: usize = 3;

/// Counts until an attempt stays below the limit.
fn assert_steady(what: &str, mut count: impl FnMut() -> u64) {
    let counts: Vec<u64> =
        (0..ATTEMPTS).map(|_| count()).take_while(|count| *count > ALLOWED).collect();
    if counts.len() == ATTEMPTS {
        let culprit = CULPRIT.lock().unwrap().take().map(|culprit| culprit.to_string());
        panic!("{what}: {counts:?} allocations; one of them in\n{}", culprit.unwrap_or_default());
    }
}

#[test]
fn the_steady_path_of_an_append_allocates_nothing() {
    for backend in [Backend::Uring, Backend::Blocking] {
        let dir = directory();
        let store = Options::new().backend(backend).open(dir.path()).unwrap();
        let mut load = Load::new(store.clone(), "account");
        load.warm_up(WARM);
        for (what, flushes_min, run) in RUNS {
            let flushes = store.stats().shards[0].flushes;
            assert_steady(&format!("{backend:?}, {what}"), || counted(|| run(&mut load)));
            let flushes = store.stats().shards[0].flushes - flushes;
            assert!(flushes >= flushes_min, "{what}: {flushes} flushes show little");
        }
        assert_steady(&format!("{backend:?}, several threads"), || counted_together(&store));
        store.close().unwrap();
    }
}
