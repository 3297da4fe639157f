//! Atomics, threads and cells, from std or from loom: no other module names either.
//!
//! Built with `--cfg loom`, the protocol modules run under the model checker unchanged.

pub mod doorbell;
pub mod epoch;
pub mod wake_word;
pub mod waker;

#[cfg(not(loom))]
mod switch {
    pub(crate) use std::sync::atomic;
    pub(crate) use std::sync::{Arc, Mutex};
    pub(crate) use std::thread;

    pub(crate) use std::cell::UnsafeCell as RawCell;

    /// A cell whose accesses the model checker sees.
    #[derive(Debug, Default)]
    pub(crate) struct UnsafeCell<T>(RawCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            UnsafeCell(RawCell::new(value))
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
}

pub(crate) use switch::*;
