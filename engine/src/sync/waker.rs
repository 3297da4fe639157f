//! Wakers: that of the one task that waits for something, and the calling of many.

use std::panic::{self, AssertUnwindSafe};
use std::task::Waker;

/// Calls wakers. They are foreign code: a panic of one is told in the log, and the others are called.
pub(crate) fn call(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        if panic::catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
            tracing::error!("the waker of a task has panicked");
        }
    }
}

/// Holds a waker between the task that registers it and the thread that takes it.
#[derive(Debug)]
pub(crate) struct AtomicWaker(Imp);

#[cfg(not(loom))]
type Imp = atomic_waker::AtomicWaker;
#[cfg(loom)]
type Imp = loom::future::AtomicWaker;

impl AtomicWaker {
    pub(crate) fn new() -> AtomicWaker {
        AtomicWaker(Imp::new())
    }

    /// Task: keeps the waker until it is taken or replaced.
    pub(crate) fn register(&self, waker: &Waker) {
        #[cfg(not(loom))]
        self.0.register(waker);
        #[cfg(loom)]
        self.0.register_by_ref(waker);
    }

    /// Takes what was registered last.
    pub(crate) fn take(&self) -> Option<Waker> {
        #[cfg(not(loom))]
        return self.0.take();
        #[cfg(loom)]
        return self.0.take_waker();
    }
}
