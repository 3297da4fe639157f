//! Which process a thing belongs to.
//!
//! A child made by `fork` inherits descriptors, the lock and a copy of the memory, but none of the threads, and its
//! rings are not mapped. It must neither use nor give back what belongs to its parent, and nobody would ever answer it.
//!
//! [`Forks`] is what the way of an append and of a read can afford: one load, of a word that nothing but a `fork` changes.
//! [`Process`] asks the system as well, so that a child made behind the C library's back does not let go of its
//! parent's lock either.

// Also where schedules are drawn: a process has the one word, whatever schedule looks at it.
use std::sync::atomic::{AtomicU32, Ordering};

/// How many forks lie between this process and the first of its line that used a store.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// How many forks had been made when something was: another number means that this is a child, and that a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forks(u32);

impl Forks {
    /// The number now. Only right once somebody has [watched](Forks::watch), as whoever opens a store does.
    #[inline]
    pub fn now() -> Forks {
        // Relaxed: a child has one thread, which changes the word before it returns from `fork`.
        Forks(FORKS.load(Ordering::Relaxed))
    }

    /// The number now, and from now on forks are counted.
    pub fn watch() -> Forks {
        #[cfg(unix)]
        {
            static ONCE: std::sync::Once = std::sync::Once::new();
            extern "C" fn count() {
                FORKS.fetch_add(1, Ordering::Relaxed);
            }
            // Fails for want of memory alone; then `Process` still tells.
            // SAFETY: what is called in a child is one atomic addition.
            ONCE.call_once(|| unsafe {
                libc::pthread_atfork(None, None, Some(count));
            });
        }
        Forks::now()
    }

    /// Whether the calling process is not the one where the number was taken, but a child of it.
    #[inline]
    pub fn is_copy(self) -> bool {
        self != Forks::now()
    }
}

/// The process that made something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process {
    id: u32,
    forks: Forks,
}

impl Process {
    /// The process that calls.
    #[must_use]
    pub fn current() -> Process {
        Process { id: std::process::id(), forks: Forks::watch() }
    }

    /// Whether the calling process is the one that made it, not a child of it.
    #[must_use]
    pub fn is_current(self) -> bool {
        !self.forks.is_copy() && self.id == std::process::id()
    }
}
