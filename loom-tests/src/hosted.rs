//! A system of shuttle's threads for the engine: what it would ask the operating system for.
//!
//! A thread that waits yields until what it waits for is there. The time stands still as long as anybody has something
//! to do, but for the odd wait that is over early; when all wait, it moves on to the first that has a limit. If none
//! has one, everybody waits for ever, and the schedule has failed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals::internals::sync::host::Host;
use shuttle::rand::RngCore;
use shuttle::thread::JoinHandle;

use crate::patient;

/// One wait in so many looks is over early.
const EARLY: u64 = 64;
/// Some day in 2023.
const BEGIN_MICROS: i64 = 1_700_000_000_000_000;

/// See the module. One for each schedule.
#[derive(Debug)]
pub struct Hosted {
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    now: Duration,
    /// Threads that were started and have not ended.
    alive: usize,
    /// Counts who begins or ends a wait, or has ended.
    changes: u64,
    tickets: u64,
    waiting: BTreeMap<u64, Waiter>,
    started: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Waiter {
    deadline: Option<Duration>,
    /// How many changes there had been when it looked last, in vain.
    looked: u64,
}

/// A thread of a test.
#[derive(Debug)]
pub struct Handle<T> {
    system: Rc<Hosted>,
    result: Arc<Mutex<Option<T>>>,
}

impl Hosted {
    /// A system with the calling thread.
    pub fn new() -> Rc<Hosted> {
        let state = State {
            now: Duration::ZERO,
            alive: 1,
            changes: 0,
            tickets: 0,
            waiting: BTreeMap::new(),
            started: Vec::new(),
        };
        Rc::new(Hosted { state: RefCell::new(state) })
    }

    /// Starts a thread of the test. One that panics fails the schedule.
    pub fn start<T: Send + 'static>(
        self: &Rc<Hosted>,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Handle<T> {
        let result = Arc::new(Mutex::new(None));
        let place = Arc::clone(&result);
        self.spawn_body(Box::new(move || {
            let value = body();
            *place.lock().expect("nobody panics while it is held") = Some(value);
        }));
        Handle { system: Rc::clone(self), result }
    }

    /// Waits until no thread is left but the calling one.
    pub fn wait_for_all(&self) {
        self.wait(&|| self.state.borrow().alive == 1, None);
        // What belongs to a thread is dropped behind its last step.
        let started = std::mem::take(&mut self.state.borrow_mut().started);
        for thread in started {
            thread.join().expect("it has come to its end");
        }
    }

    fn spawn_body(&self, body: Box<dyn FnOnce() + Send>) {
        self.state.borrow_mut().alive += 1;
        // All threads of a schedule are one of the system's, and it is there until the last has ended.
        let system = Alone(std::ptr::from_ref(self));
        let started = shuttle::thread::spawn(move || {
            let system = system;
            body();
            // SAFETY: `wait_for_all` keeps the system until every thread has come past this; one that is taken down
            // with a failed schedule does not come here.
            unsafe { &*system.0 }.ended();
        });
        self.state.borrow_mut().started.push(started);
    }

    fn ended(&self) {
        let mut state = self.state.borrow_mut();
        state.alive -= 1;
        state.changes += 1;
    }

    /// Lets time pass if all wait in vain.
    fn pass_time(&self, this: u64) {
        let mut state = self.state.borrow_mut();
        let State { now, alive, changes, waiting, .. } = &mut *state;
        if let Some(waiter) = waiting.get_mut(&this) {
            waiter.looked = *changes;
        }
        if waiting.len() < *alive || waiting.values().any(|waiter| waiter.looked != *changes) {
            return;
        }
        let first = waiting.values().filter_map(|waiter| waiter.deadline).min();
        *now = first.expect("everybody waits for ever").max(*now);
        *changes += 1;
    }
}

/// What only one thread of the system touches.
struct Alone(*const Hosted);

// SAFETY: shuttle runs all threads of a schedule on one thread of the system, one at a time.
unsafe impl Send for Alone {}

impl Host for Hosted {
    fn spawn(&self, _name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.spawn_body(body);
        Ok(())
    }

    fn wait(&self, ready: &dyn Fn() -> bool, limit: Option<Duration>) {
        if ready() {
            return;
        }
        let (this, deadline) = {
            let mut state = self.state.borrow_mut();
            let deadline = limit.and_then(|limit| state.now.checked_add(limit));
            state.tickets += 1;
            state.changes += 1;
            let (this, looked) = (state.tickets, state.changes - 1);
            state.waiting.insert(this, Waiter { deadline, looked });
            (this, deadline)
        };
        loop {
            patient::wait_a_turn();
            if ready() || deadline.is_some_and(|deadline| self.state.borrow().now >= deadline) {
                break;
            }
            if let Some(deadline) = deadline
                && self.draw().is_multiple_of(EARLY)
            {
                let mut state = self.state.borrow_mut();
                state.now = state.now.max(deadline);
                break;
            }
            self.pass_time(this);
        }
        let mut state = self.state.borrow_mut();
        state.waiting.remove(&this);
        state.changes += 1;
    }

    fn step(&self, name: &'static str) {
        // Others may run at each operation on an atomic anyway.
        if name == "give way" {
            shuttle::thread::yield_now();
        }
    }

    fn elapsed(&self) -> Duration {
        self.state.borrow().now
    }

    fn unix_micros(&self) -> i64 {
        BEGIN_MICROS + self.elapsed().as_micros() as i64
    }

    fn draw(&self) -> u64 {
        shuttle::rand::thread_rng().next_u64()
    }
}

impl<T> Handle<T> {
    /// Waits for the end of the thread, and returns what it has returned.
    pub fn join(self) -> T {
        let take = || self.result.lock().expect("nobody panics while it is held");
        self.system.wait(&|| take().is_some(), None);
        let value = take().take();
        value.expect("it was there, and nobody else takes it")
    }
}
