//! What a thread of a model sleeps on.

use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::checker::sync::{Condvar, Mutex};

/// A call that a sleeping thread wakes for, and that is kept if it comes early.
#[derive(Debug)]
pub struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    /// Nobody has called.
    pub fn new() -> Bell {
        Bell { rung: Mutex::new(false), changed: Condvar::new() }
    }

    /// Calls.
    pub fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    /// Waits for a call, and uses it up.
    pub fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

impl Default for Bell {
    fn default() -> Bell {
        Bell::new()
    }
}

/// A task's thread: polls until there is something, and sleeps until the waker is called.
pub fn block_on<T>(mut poll: impl FnMut(&Waker) -> Option<T>) -> T {
    let bell = Arc::new(Bell::new());
    let waker = Waker::from(Arc::clone(&bell));
    loop {
        if let Some(something) = poll(&waker) {
            return something;
        }
        bell.sleep();
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}
