//! Counts what the process has allocated, on all its threads, so that a bound on it can be asserted: a store allocates on
//! threads of its own too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counted;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// How many bytes are allocated and not freed.
pub fn held() -> usize {
    HELD.load(Relaxed)
}

/// The most that was held since [`reset_peak`].
pub fn peak() -> usize {
    PEAK.load(Relaxed)
}

/// Counts the peak from now on.
pub fn reset_peak() {
    PEAK.store(held(), Relaxed);
}

fn count(bytes: usize) {
    let now = HELD.fetch_add(bytes, Relaxed) + bytes;
    if now > PEAK.load(Relaxed) {
        PEAK.fetch_max(now, Relaxed);
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged; the counters are plain numbers that need neither
// memory nor a destructor.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    // Not written over with zeros by hand, as the trait's own method would: a large buffer that is hardly touched costs
    // a program no more than that.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
