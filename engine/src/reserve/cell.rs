//! What a ticket waits on: a small cell that the log writer settles.
//!
//! The state moves once, from pending to settled; `POLLED` says that a task may have registered. What the cell holds is
//! written by its submitter before the submission, and by the log writer before it settles; nobody writes after.
//!
//! The cell is a thing of its own so that a kept ticket keeps no payload.

use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::wake_word::WakeWord;
use crate::sync::waker::AtomicWaker;
use crate::sync::{UnsafeCell, broken, clock, ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

const SETTLED: u32 = 1;
const POLLED: u32 = 2;

/// See the module. `T` is filled in before submission, `R` by the one who settles.
#[derive(Debug)]
pub struct Cell<T, R> {
    state: AtomicU32,
    waker: AtomicWaker,
    asked: T,
    answer: UnsafeCell<Option<R>>,
}

// SAFETY: `answer` is written once, before the Release in `settle`, and read after an Acquire that has seen it.
unsafe impl<T: Send + Sync, R: Send + Sync> Sync for Cell<T, R> {}
// SAFETY: as above.
unsafe impl<T: Send, R: Send> Send for Cell<T, R> {}

impl<T, R> Cell<T, R> {
    /// A pending cell.
    pub fn new(asked: T) -> Cell<T, R> {
        Cell {
            state: AtomicU32::new(0),
            waker: AtomicWaker::new(),
            asked,
            answer: UnsafeCell::new(None),
        }
    }

    /// Makes a settled cell that nobody else holds pending again.
    pub fn reset(&mut self) {
        self.state = AtomicU32::new(0);
        self.answer = UnsafeCell::new(None);
    }

    /// What the submitter fills in, while nobody else holds the cell.
    pub fn asked_mut(&mut self) -> &mut T {
        &mut self.asked
    }

    /// What the submitter filled in.
    pub fn asked(&self) -> &T {
        &self.asked
    }

    /// The answer, if there is one.
    #[inline]
    pub fn answer(&self) -> Option<&R> {
        // Acquire: pairs with the Release in `settle`.
        if self.state.load(Ordering::Acquire) & SETTLED == 0 {
            return None;
        }
        // SAFETY: it is settled, so nobody writes the answer any more.
        self.answer.with(|answer| unsafe { (*answer).as_ref() })
    }

    /// Log writer: settles the cell, once. Returns the waker of a task that waits, to be called elsewhere: it is
    /// foreign code. Threads that wait are woken by the group's word, afterwards.
    ///
    /// # Safety
    ///
    /// The cell is pending, and only this thread settles it.
    #[inline]
    #[must_use]
    pub unsafe fn settle(&self, answer: R) -> Option<Waker> {
        // SAFETY: nobody reads before the state says so, and nobody else writes.
        self.answer.with_mut(|place| unsafe { *place = Some(answer) });
        // Release: the answer is visible before the state. Acquire: pairs with the Release in `poll`, so that a
        // waker whose registration came first is found.
        let before = self.state.fetch_or(SETTLED, ordering!(AcqRel, unless SettlesRelaxed));
        debug_assert_eq!(before & SETTLED, 0, "settled twice");
        if before & POLLED == 0 { None } else { self.waker.take() }
    }

    /// Waits on `word`, which the log writer wakes after settling, until there is an answer or the deadline.
    pub fn wait(&self, word: &WakeWord, deadline: Option<Instant>) -> Option<&R> {
        loop {
            let registration = word.register();
            if let Some(answer) = self.answer() {
                return Some(answer);
            }
            let limit = match deadline {
                None => None,
                Some(deadline) => match deadline.checked_duration_since(clock::now()) {
                    None | Some(Duration::ZERO) => return None,
                    left => left,
                },
            };
            registration.sleep(limit);
        }
    }

    /// The answer, or has the task woken when there is one. One task at a time.
    pub fn poll(&self, waker: &Waker) -> Option<&R> {
        if let Some(answer) = self.answer() {
            return Some(answer);
        }
        if !broken!(MarksFirst) {
            self.waker.register(waker);
        }
        // If `settle` comes first, the answer is seen below; if this does, `settle` sees the mark and takes the waker.
        let before = self.state.fetch_or(POLLED, Ordering::AcqRel);
        if broken!(MarksFirst) {
            self.waker.register(waker);
        }
        if broken!(PollsOnce) || before & SETTLED == 0 {
            return None;
        }
        // It was settled in between, so perhaps nobody takes the waker, and a kept cell would keep the task.
        if !broken!(KeepsTask) {
            drop(self.waker.take());
        }
        self.answer()
    }
}
