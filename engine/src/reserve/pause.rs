//! Stopping a thread between two steps, for tests.

use std::cell::RefCell;

#[cfg(not(any(loom, shuttle)))]
use crate::sync::atomic::{AtomicBool, Ordering};

type Hook = Box<dyn FnMut(&'static str)>;

/// Whether any thread has a hook: benchmarks are built with steps too, and must not pay for hooks that nobody set.
/// Models are not told of it, which would be one more thing for them to explore.
#[cfg(not(any(loom, shuttle)))]
static HOOKED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// Calls `hook` on this thread at every named step from now on.
pub fn on_this_thread(hook: impl FnMut(&'static str) + 'static) {
    #[cfg(not(any(loom, shuttle)))]
    HOOKED.store(true, Ordering::Relaxed);
    HOOK.with(|place| *place.borrow_mut() = Some(Box::new(hook)));
}

/// A named step.
#[inline]
pub fn here(name: &'static str) {
    #[cfg(not(loom))]
    crate::sync::host::step(name);
    // A thread sees that it has set a hook itself; nobody else's matters to it.
    #[cfg(not(any(loom, shuttle)))]
    if !HOOKED.load(Ordering::Relaxed) {
        return;
    }
    call(name);
}

#[cold]
fn call(name: &'static str) {
    HOOK.with(|place| {
        if let Ok(mut hook) = place.try_borrow_mut()
            && let Some(hook) = hook.as_mut()
        {
            hook(name);
        }
    });
}
