//! Atomics, threads and cells, from std, loom or shuttle: no other module names any of them.
//!
//! Built with `--cfg loom`, the protocol modules run under the model checker unchanged. Built with `--cfg shuttle`, the
//! whole engine does under schedulers that draw their schedules: every operation on an atomic is a point where others
//! may run, and what belongs to a thread or to the process belongs to one schedule. Threads, waits and the time are
//! those of a [`host`] then.

/// Whether a model or a simulation has one of these broken on purpose; never, outside them.
#[cfg(not(any(loom, shuttle, feature = "mutants")))]
macro_rules! broken {
    ($($fault:ident)|+) => {
        false
    };
}

#[cfg(any(loom, shuttle, feature = "mutants"))]
macro_rules! broken {
    ($($fault:ident)|+) => {
        $($crate::sync::fault::is($crate::sync::fault::Fault::$fault))||+
    };
}

/// An ordering that a model may weaken to `Relaxed` on purpose.
macro_rules! ordering {
    ($ordering:ident, unless $fault:ident) => {
        if $crate::sync::broken!($fault) {
            $crate::sync::atomic::Ordering::Relaxed
        } else {
            $crate::sync::atomic::Ordering::$ordering
        }
    };
}

pub(crate) use {broken, ordering};

#[cfg(not(loom))]
pub mod backoff;
pub(crate) mod clock;
pub mod doorbell;
#[cfg(not(loom))]
pub(crate) mod entropy;
pub mod epoch;
#[cfg(any(loom, shuttle, feature = "mutants"))]
pub mod fault;
pub mod followers;
#[cfg(all(feature = "internals", not(loom)))]
pub mod host;
#[cfg(not(loom))]
pub(crate) mod mailbox;
pub mod permits;
pub mod prefetch;
#[cfg(not(loom))]
pub mod process;
#[cfg(not(loom))]
pub(crate) mod thread;
pub mod wake_word;
pub mod waker;
pub mod watermark;

#[cfg(not(loom))]
mod switch {
    #[cfg(shuttle)]
    pub(crate) use shuttle::{lazy_static, sync::atomic, thread_local};
    #[cfg(not(shuttle))]
    pub(crate) use std::{sync::atomic, thread_local};

    pub(crate) use std::sync::{Arc, Mutex};

    /// Writes a word that the caller has to itself.
    pub(crate) fn overwrite(word: &mut atomic::AtomicU8, value: u8) {
        *word.get_mut() = value;
    }

    /// A cell whose accesses the model checker sees.
    #[derive(Debug, Default)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        #[inline]
        pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }

        #[inline]
        pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
            write(self.0.get())
        }
    }
}

#[cfg(loom)]
mod switch {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic;

    /// Writes a word that the caller has to itself, which the model checker verifies.
    pub(crate) fn overwrite(word: &mut atomic::AtomicU8, value: u8) {
        word.with_mut(|word| *word = value);
    }
}

pub(crate) use switch::*;
