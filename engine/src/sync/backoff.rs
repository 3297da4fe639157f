//! Giving way after a lost race: a short wait of random length, longer from time to time, bounded.
//!
//! It waits for nobody: whoever has lost may try again at once and be as right, only more often in vain.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::hint;

use super::thread;

/// After so many lost races the processor is given to another thread each time.
const YIELDS_AFTER: u32 = 3;
/// The longest wait, in turns of a loop, is twice to the power of this.
const SPINS_MAX: u32 = 7;

thread_local! {
    static DRAWN: Cell<u64> = Cell::new(RandomState::new().hash_one(()) | 1);
}

/// A number that a thread draws without looking at anything shared: xorshift64, after G. Marsaglia (2003).
pub fn draw() -> u64 {
    #[cfg(feature = "internals")]
    if let Some(host) = super::host::current() {
        return host.draw();
    }
    DRAWN.with(|drawn| {
        let mut next = drawn.get();
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        drawn.set(next);
        next
    })
}

/// See the module. One for each operation.
#[derive(Debug)]
pub struct Backoff {
    lost: u32,
}

impl Backoff {
    /// No race was lost yet.
    pub const fn new() -> Backoff {
        Backoff { lost: 0 }
    }

    /// Another race was lost.
    #[cold]
    pub fn wait(&mut self) {
        #[cfg(feature = "internals")]
        super::host::step("give way");
        self.lost = self.lost.saturating_add(1);
        let most = 2_u64 << self.lost.min(SPINS_MAX);
        for _ in 0..draw() % most {
            hint::spin_loop();
        }
        if self.lost > YIELDS_AFTER {
            thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "too many numbers for an interpreter")]
    fn numbers_are_drawn_all_over_the_range() {
        let mut seen = [false; 64];
        for _ in 0..2000 {
            seen[(draw() % 64) as usize] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
