//! Memory that the disk writes from and readers read from at the same time.
//!
//! A [`Chunk`] is shared by `Arc` and has no lock. What keeps it sound is a rule about ranges:
//!
//! 1. A range is written by one thread alone, the chunk's writer, and only before it is shown to anybody.
//! 2. Showing a range (to a reader or to a disk operation) is a release that its user acquires.
//! 3. A range that was shown is never written again, as long as anybody can hold the chunk.
//!
//! Every access names its range, and no reference to the whole is ever made, so a reader of one range and the
//! writer of another never meet.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use crate::limits::BLOCK_BYTES_MAX;

/// Zeroed memory of a fixed size, aligned for direct I/O.
pub struct Chunk {
    /// What the allocator returned.
    base: NonNull<u8>,
    layout: Layout,
    /// The first aligned byte in it.
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory is owned by the chunk, not by a thread.
unsafe impl Send for Chunk {}
// SAFETY: a shared chunk is accessed through the unsafe methods alone (and `as_ptr`, which accesses nothing), whose
// callers keep to the rule about ranges above.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// The alignment unless a larger one is asked for.
    pub const ALIGN: usize = 4096;

    /// Zeroed memory aligned to [`Chunk::ALIGN`]. `OutOfMemory` if there is none.
    pub fn new(bytes: usize) -> io::Result<Chunk> {
        Chunk::aligned(bytes, Chunk::ALIGN)
    }

    /// Zeroed memory with the given alignment, a power of two up to `limits::BLOCK_BYTES_MAX`; `InvalidInput`
    /// otherwise. `OutOfMemory` if there is none.
    pub fn aligned(bytes: usize, align: usize) -> io::Result<Chunk> {
        if bytes == 0 || !align.is_power_of_two() || align > BLOCK_BYTES_MAX as usize {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // More is asked for and the start moved, rather than an aligned allocation: the allocator then takes fresh
        // pages from the system without writing zeros into them a second time.
        let layout = bytes
            .checked_add(align)
            .and_then(|padded| Layout::from_size_align(padded, 1).ok())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the layout's size is not zero.
        let base =
            NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(io::ErrorKind::OutOfMemory)?;
        let skip = base.as_ptr().align_offset(align);
        if skip > align {
            // Only an interpreter refuses to align; nothing was handed out yet.
            // SAFETY: `base` was allocated with `layout` just above.
            unsafe { dealloc(base.as_ptr(), layout) };
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // SAFETY: `skip <= align`, and `align` bytes more than `bytes` were allocated.
        let start = unsafe { base.add(skip) };
        Ok(Chunk { base, layout, start, bytes })
    }

    /// Its size in bytes; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Where it starts. Valid for `len` bytes as long as the chunk lives; accesses keep to the rule about ranges.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// All of it, by whoever has it alone.
    pub fn get_mut(&mut self) -> &mut [u8] {
        // SAFETY: the memory is initialised and `bytes` long, and `&mut self` excludes every other access.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }

    /// A range to write into. Panics if it is not inside.
    ///
    /// # Safety
    /// The caller is the chunk's writer, and the range was not shown to anybody, as long as the result lives; no other
    /// reference to any part of the range does.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice_mut(&self, range: Range<usize>) -> &mut [u8] {
        let bytes = range.len();
        // SAFETY: the range is inside the chunk and initialised, and by the caller's promise accessed by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.range(range), bytes) }
    }

    /// Sets a range to zeros. Panics if it is not inside.
    ///
    /// # Safety
    /// As for [`Chunk::slice_mut`].
    #[inline]
    pub unsafe fn zero(&self, range: Range<usize>) {
        let bytes = range.len();
        // SAFETY: the range is inside the chunk, and by the caller's promise nobody else accesses it.
        unsafe { std::ptr::write_bytes(self.range(range), 0, bytes) }
    }

    /// A range to read. Panics if it is not inside.
    ///
    /// # Safety
    /// The range was shown to the caller: nothing writes into it any more. (Or the caller is the writer, and does
    /// not write into it as long as the result lives.)
    #[inline]
    pub unsafe fn slice(&self, range: Range<usize>) -> &[u8] {
        let bytes = range.len();
        // SAFETY: the range is inside the chunk and initialised, and by the caller's promise not written any more.
        unsafe { std::slice::from_raw_parts(self.range(range), bytes) }
    }

    /// The start of a range that is inside the chunk.
    #[inline]
    fn range(&self, range: Range<usize>) -> *mut u8 {
        assert!(
            range.start <= range.end && range.end <= self.bytes,
            "{range:?} is not in a chunk of {} bytes",
            self.bytes
        );
        // SAFETY: just checked to be inside the allocation.
        unsafe { self.start.as_ptr().add(range.start) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: `base` was allocated with `layout` and is freed here alone.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its bytes are the users'.
        f.debug_struct("Chunk").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::atomic::{AtomicUsize, Ordering};
    use crate::sync::{Arc, thread};

    #[test]
    fn a_chunk_is_zeroed_and_aligned() {
        const BYTES: usize = if cfg!(miri) { 100 } else { 10_000 };
        for align in [512, 4096, 65_536] {
            let mut chunk = Chunk::aligned(BYTES, align).unwrap();
            assert_eq!(chunk.as_ptr() as usize % align, 0);
            assert_eq!(chunk.len(), BYTES);
            assert!(chunk.get_mut().iter().all(|&b| b == 0));
        }
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        let kind = |result: io::Result<Chunk>| result.unwrap_err().kind();
        assert_eq!(kind(Chunk::new(0)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(Chunk::aligned(8, 3)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(Chunk::aligned(8, 1 << 20)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(Chunk::new(usize::MAX)), io::ErrorKind::OutOfMemory);
        assert_eq!(kind(Chunk::new(isize::MAX as usize)), io::ErrorKind::OutOfMemory);
        #[cfg(not(miri))]
        assert_eq!(kind(Chunk::new(1 << 60)), io::ErrorKind::OutOfMemory);
    }

    #[test]
    #[should_panic(expected = "is not in a chunk")]
    fn a_range_outside_panics() {
        let chunk = Chunk::new(100).unwrap();
        // SAFETY: one thread; the range is refused.
        unsafe { chunk.slice_mut(96..101).fill(1) };
    }

    #[test]
    fn readers_of_what_is_shown_beside_the_writer_of_the_rest() {
        const STEP: usize = 64;
        const STEPS: usize = if cfg!(miri) { 20 } else { 2_000 };
        let chunk = Arc::new(Chunk::new(STEP * STEPS).unwrap());
        let shown = Arc::new(AtomicUsize::new(0));
        let reader = {
            let (chunk, shown) = (Arc::clone(&chunk), Arc::clone(&shown));
            thread::spawn(move || {
                loop {
                    let end = shown.load(Ordering::Acquire);
                    // SAFETY: the writer does not go below `shown` again.
                    let bytes = unsafe { chunk.slice(0..end * STEP) };
                    for (step, part) in bytes.chunks(STEP).enumerate() {
                        assert!(part.iter().all(|&b| b == step as u8 ^ 0x55));
                    }
                    if end == STEPS {
                        return;
                    }
                    thread::yield_now();
                }
            })
        };
        for step in 0..STEPS {
            let at = step * STEP;
            // SAFETY: this thread is the writer, and nothing from `at` on was shown.
            unsafe {
                chunk.slice_mut(at..at + STEP).fill(0xAA);
                chunk.zero(at..at + STEP);
                assert_eq!(chunk.slice(at..at + 1), [0]);
                chunk.slice_mut(at..at + STEP).fill(step as u8 ^ 0x55);
            }
            shown.store(step + 1, Ordering::Release);
        }
        reader.join().unwrap();
    }
}
