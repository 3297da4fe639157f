//! Running a model, as it is and broken.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::task::{Wake, Waker};

use annals::internals::sync::fault::{self, Fault};
use loom::sync::{Condvar, Mutex};

/// Explores a model with so many preemptions, or as many as the environment asks for.
pub fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.unwrap_or(0).max(preemptions));
    builder.check(model);
}

/// Explores a model of the engine as it is: nothing may be found.
pub fn holds(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    fault::set(None);
    explore(preemptions, model);
}

/// Explores a model with something broken: `complaint` must be found.
pub fn broken(
    fault: impl Into<Option<Fault>>,
    preemptions: usize,
    complaint: &str,
    model: impl Fn() + Send + Sync + 'static,
) {
    fault::set(fault.into());
    let found = panic::catch_unwind(AssertUnwindSafe(|| explore(preemptions, model)));
    fault::set(None);
    let Err(found) = found else { panic!("nothing was found, where \"{complaint}\" is to be") };
    let found = found
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| found.downcast_ref::<&str>().copied())
        .unwrap_or_default();
    assert!(found.contains(complaint), "found \"{found}\", where \"{complaint}\" is to be");
}

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
