//! Counts what each thread has allocated, so that a bound on it can be asserted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counted;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// How many bytes this thread has allocated and not freed.
pub fn held() -> usize {
    HELD.get()
}

/// The most it held since [`reset_peak`].
pub fn peak() -> usize {
    PEAK.get()
}

/// Counts the peak from now on.
pub fn reset_peak() {
    PEAK.set(HELD.get());
}

// SAFETY: every call is passed on to the system's allocator unchanged; the counters are plain numbers that need neither
// memory nor a destructor.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // What another thread frees makes this wrap, which only the difference of two readings would notice.
        HELD.set(HELD.get().wrapping_add(layout.size()));
        PEAK.set(PEAK.get().max(HELD.get()));
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: as above; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
