//! Asking for memory ahead of its use. It changes nothing but the time that the use takes.

const LINE_BYTES: usize = 64;

/// Asks for so many bytes from `at` on, to be written. Any address will do.
#[inline]
pub fn for_writing(at: *const u8, bytes: usize) {
    for offset in (0..bytes).step_by(LINE_BYTES) {
        let line = at.wrapping_add(offset);
        #[cfg(all(target_arch = "x86_64", not(miri), not(loom)))]
        // SAFETY: a prefetch reads and writes nothing, whatever the address; processors without it pass over it.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri), not(loom))))]
        let _ = line;
    }
}

/// Asks for so many bytes from `at` on, to be read. Any address will do.
#[inline]
pub fn for_reading(at: *const u8, bytes: usize) {
    for offset in (0..bytes).step_by(LINE_BYTES) {
        let line = at.wrapping_add(offset);
        #[cfg(all(target_arch = "x86_64", not(miri), not(loom)))]
        // SAFETY: as above.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(line.cast());
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri), not(loom))))]
        let _ = line;
    }
}
