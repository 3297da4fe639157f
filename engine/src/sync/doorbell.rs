//! Waking a thread that sleeps when it has nothing to do.
//!
//! The sleeper alone sets and clears *asleep*; whoever has work for it makes the work visible, fences, and makes the
//! wake call if it sees *asleep*. The two cases: if the sleeper's fence comes first, the ringer's look sees *asleep*
//! and wakes it; if the ringer's fence comes first, the sleeper's second look sees the work and it does not sleep.
//!
//! Every ringer that sees *asleep* makes the call itself. A flag that lets the first one call for all would leave
//! the sleeper asleep for ever if that one is stopped between the flag and the call.

use crate::sync::atomic::{AtomicBool, Ordering, fence};

/// See the module.
#[derive(Debug)]
pub struct Doorbell {
    asleep: AtomicBool,
}

impl Doorbell {
    /// A doorbell of a thread that is awake.
    pub fn new() -> Doorbell {
        Doorbell { asleep: AtomicBool::new(false) }
    }

    /// Ringer: whether the wake call must be made, after the work is visible.
    #[inline]
    #[must_use]
    pub fn must_wake(&self) -> bool {
        if !broken!(RingsUnfenced) {
            fence(Ordering::SeqCst);
        }
        if broken!(RingsOnce) {
            return self.asleep.swap(false, Ordering::Relaxed);
        }
        self.asleep.load(Ordering::Relaxed)
    }

    /// Sleeper: sleeps with `sleep` unless `has_work`, asked after the announcement, finds something.
    pub fn sleep_unless(&self, has_work: impl FnOnce() -> bool, sleep: impl FnOnce()) {
        self.asleep.store(true, Ordering::Relaxed);
        if !broken!(SleepsUnfenced) {
            fence(Ordering::SeqCst);
        }
        if !has_work() {
            sleep();
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}

impl Default for Doorbell {
    fn default() -> Doorbell {
        Doorbell::new()
    }
}
