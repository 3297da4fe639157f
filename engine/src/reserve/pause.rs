//! Stopping a thread between two steps, for tests.

use std::cell::RefCell;

type Hook = Box<dyn FnMut(&'static str)>;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// Calls `hook` on this thread at every named step from now on.
pub fn on_this_thread(hook: impl FnMut(&'static str) + 'static) {
    HOOK.with(|place| *place.borrow_mut() = Some(Box::new(hook)));
}

/// A named step.
pub fn here(name: &'static str) {
    HOOK.with(|place| {
        if let Ok(mut hook) = place.try_borrow_mut()
            && let Some(hook) = hook.as_mut()
        {
            hook(name);
        }
    });
}
