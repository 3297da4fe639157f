//! Running whole stores on one thread of the system.
//!
//! A simulation installs a [`Host`] on its thread. From then on whatever the engine would ask the system for on that
//! thread comes from the host: new threads, sleep, the time, random numbers. So a simulation decides who runs when, and a
//! seed repeats it. Outside of tests there is no host, and without the feature `internals` not even the question.
//!
//! What the host calls threads are parts of one thread of the system, so a value that belongs to a thread belongs to all
//! of them. The engine keeps none across a [step](Host::step) or a wait.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What runs a store in place of the system.
pub trait Host {
    /// Starts a thread.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()>;
    /// Lets others run until `ready` says so or the time is over. May return early for no reason.
    fn wait(&self, ready: &dyn Fn() -> bool, limit: Option<Duration>);
    /// Between two steps of an operation: others may run.
    fn step(&self, name: &'static str);
    /// The time since the host began.
    fn elapsed(&self) -> Duration;
    /// The time of day, in microseconds since 1970.
    fn unix_micros(&self) -> i64;
    /// A random number.
    fn draw(&self) -> u64;
}

/// Whether any thread has ever had a host: benchmarks are built with hosts too, and must not pay for what nobody set.
static INSTALLED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static HOST: RefCell<Option<Rc<dyn Host>>> = const { RefCell::new(None) };
}

/// Installs a host on this thread, or takes it away.
pub fn install(host: Option<Rc<dyn Host>>) {
    INSTALLED.fetch_or(host.is_some(), Ordering::Relaxed);
    HOST.with(|place| *place.borrow_mut() = host);
}

/// The host of this thread.
#[inline]
pub(crate) fn current() -> Option<Rc<dyn Host>> {
    // A thread sees that it has a host itself; nobody else's matters to it.
    if !INSTALLED.load(Ordering::Relaxed) {
        return None;
    }
    HOST.try_with(|place| place.borrow().clone()).ok().flatten()
}

/// A step, if there is a host.
#[inline]
pub(crate) fn step(name: &'static str) {
    if let Some(host) = current() {
        host.step(name);
    }
}
