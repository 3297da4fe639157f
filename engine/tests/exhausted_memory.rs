//! An allocator that says no: what a caller asks for is refused with nothing done, and what is in flight goes on.
//!
//! Only allocations of a thread that asked for it fail, and only those above a size, as when one large request meets a process at
//! its limit. Memory for some bytes more, an error's text for example, is not to be had without ending the process in any Rust
//! program, so it is not refused here.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use annals::{Error, ErrorKind, Event, Expect, Store, verify};
use common::{audit, directory, numbered, small};

struct Failing;

thread_local! {
    /// This thread gets no memory in pieces of so many bytes or more.
    static FROM: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// As [`FROM`], for the threads of the engine.
static ENGINE_FROM: AtomicUsize = AtomicUsize::new(usize::MAX);
static REFUSED: AtomicU64 = AtomicU64::new(0);

fn refuses(bytes: usize) -> bool {
    let own = FROM.try_with(Cell::get).unwrap_or(usize::MAX);
    let refuses = bytes >= own.min(ENGINE_FROM.load(Ordering::Relaxed));
    REFUSED.fetch_add(u64::from(refuses), Ordering::Relaxed);
    refuses
}

// SAFETY: every call is passed on to the system's allocator unchanged, or answered as one that failed.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if refuses(layout.size()) {
            return ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if refuses(layout.size()) {
            return ptr::null_mut();
        }
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if refuses(bytes) {
            return ptr::null_mut();
        }
        // SAFETY: as above; the pointer came from `System`.
        unsafe { System.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Runs something on this thread without pieces of so many bytes. Says how many were refused.
fn without<R>(bytes: usize, run: impl FnOnce() -> R) -> (R, u64) {
    let before = REFUSED.load(Ordering::Relaxed);
    FROM.set(bytes);
    let result = run();
    FROM.set(usize::MAX);
    (result, REFUSED.load(Ordering::Relaxed) - before)
}

fn busy<T>(call: &str, (result, refused): (Result<T, Error>, u64)) {
    let error = result.map(drop).expect_err(call);
    assert_eq!((error.kind(), error.code()), (ErrorKind::Busy, 3001), "{call}: {error}");
    assert!(error.to_string().contains("memory"), "{call}: {error}");
    assert!(refused > 0, "{call}: nothing was refused");
}

fn filled() -> (tempfile::TempDir, Store) {
    let dir = directory();
    let store = small().segment_bytes(8 << 20).open(dir.path()).unwrap();
    for number in 0..20u64 {
        let large = Event::new("Large", vec![6u8; 300_000]);
        let ticket = store.append("a", Expect::Version(number), [numbered(number), large]);
        ticket.unwrap().wait().unwrap();
    }
    (dir, store)
}

/// One after the other, since the engine's threads serve all.
#[test]
fn without_memory_a_call_is_refused_and_nothing_is_lost() {
    let (dir, store) = filled();
    let data: Vec<u8> = vec![7; 1 << 20];

    // The record of a write.
    let large = || Event::new("Large", std::sync::Arc::<[u8]>::from(&data[..]));
    let event = large();
    busy("append", without(100_000, || store.append("a", Expect::Any, [event])));
    let event = large();
    busy("try_append", without(100_000, || store.try_append("new", Expect::Absent, [event])));
    let (one, two) = (large(), large());
    let write = || {
        let write = store.write().append("a", Expect::Any, [one]);
        write.append("b", Expect::Any, [two]).client(1, 1).submit()
    };
    busy("a write of several", without(100_000, write));
    let bytes = annals::Payload::from(data.clone());
    busy("save_snapshot", without(100_000, || store.save_snapshot("a", 3, bytes)));
    assert_eq!((store.version("a").unwrap(), store.version("new").unwrap()), (20, 0));

    // The index, when it grows.
    let mut grown = 0;
    let (refused, _) = without(20_000, || {
        (0..200_000u64).find_map(|number| {
            match store.append(format!("key-{number}"), Expect::Absent, [numbered(number)]) {
                Ok(_in_flight) => {
                    grown += 1;
                    None
                }
                Err(error) => Some((number, error)),
            }
        })
    });
    let (number, error) = refused.expect("the index grows");
    assert_eq!((error.kind(), error.code()), (ErrorKind::Busy, 3001), "{error}");
    assert_eq!(store.version_accepted(format!("key-{number}")).unwrap(), 0);
    // With memory it goes on, there and elsewhere.
    for number in number..number + 100 {
        let ticket = store.append(format!("key-{number}"), Expect::Absent, [numbered(number)]);
        ticket.unwrap().wait().unwrap();
    }
    assert_eq!(store.stats().shards[0].stopped, None);

    // The log writer, and all that prepares and maps for it: it waits until there is some.
    ENGINE_FROM.store(500_000, Ordering::Relaxed);
    let mut tickets = Vec::new();
    let refusal = (0..100).find_map(|_| {
        let event = Event::new("Large", &data[..400_000]);
        match store.try_append("late", Expect::Any, [event]) {
            Ok(ticket) => {
                tickets.push(ticket);
                None
            }
            Err(error) => Some(error),
        }
    });
    ENGINE_FROM.store(usize::MAX, Ordering::Relaxed);
    if let Some(error) = refusal {
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    }
    let late = tickets.len();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert_eq!(store.version("late").unwrap(), late as u64);

    store.close().unwrap();
    drop(store);
    let store = small().segment_bytes(8 << 20).open(dir.path()).unwrap();
    assert_eq!(audit(&store).len(), 20 + grown + 100 + late);
    // A read that needs much memory at once.
    let unmapped = small().segment_bytes(8 << 20).read_only(true).mapped(false);
    let reading = unmapped.open(dir.path()).unwrap();
    let (result, refused) = without(100_000, || reading.read("a").find_map(Result::err));
    if refused > 0 {
        let error = result.expect("a read without memory says so");
        assert_eq!((error.kind(), error.code()), (ErrorKind::Busy, 3001), "{error}");
        assert!(error.to_string().contains("memory"), "{error}");
    }
    assert_eq!(reading.read("a").filter(|event| event.is_ok()).count(), 40);
    drop((store, reading));

    // An opening.
    let (opened, refused) =
        without(100_000, || small().segment_bytes(8 << 20).open(dir.path()).map(drop));
    if let Err(error) = opened {
        assert!(refused > 0);
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    }
    assert!(verify(dir.path(), |_, _| ()).unwrap().problems.is_empty());
}
