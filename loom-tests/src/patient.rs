//! A scheduler that seldom chooses who only waits.
//!
//! A [hosted](crate::Hosted) thread waits by yielding and looking again. Drawn as often as those that have something to do,
//! such threads would take most steps of a schedule and do nothing with them.

use std::cell::RefCell;
use std::collections::HashSet;

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

/// Of so many choices one is among all threads.
const LOOKS_AT_ALL: u64 = 16;

thread_local! {
    static WAITING: RefCell<HashSet<TaskId>> = RefCell::default();
}

/// The calling thread yields, and says that it only waits.
pub(crate) fn wait_a_turn() {
    let this = shuttle::current::me();
    WAITING.with(|waiting| waiting.borrow_mut().insert(this));
    shuttle::thread::yield_now();
    WAITING.with(|waiting| waiting.borrow_mut().remove(&this));
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Patient<S> {
    inner: S,
    choices: u64,
}

impl<S> Patient<S> {
    pub(crate) fn new(inner: S) -> Patient<S> {
        Patient { inner, choices: 0 }
    }
}

impl<S: Scheduler> Scheduler for Patient<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        WAITING.with(|waiting| waiting.borrow_mut().clear());
        self.choices = 0;
        self.inner.new_execution()
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        yields: bool,
    ) -> Option<TaskId> {
        self.choices += 1;
        if !self.choices.is_multiple_of(LOOKS_AT_ALL) {
            let busy: Vec<&Task> = WAITING.with(|waiting| {
                let waiting = waiting.borrow();
                runnable.iter().copied().filter(|task| !waiting.contains(&task.id())).collect()
            });
            if !busy.is_empty() && busy.len() < runnable.len() {
                return self.inner.next_task(&busy, current, yields);
            }
        }
        self.inner.next_task(runnable, current, yields)
    }

    fn next_u64(&mut self) -> u64 {
        self.inner.next_u64()
    }
}
