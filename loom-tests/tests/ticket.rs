//! M10: waiting for an answer.

#![cfg(loom)]

use std::sync::Arc;
use std::task::Waker;

use annals::internals::reserve::cell::Cell;
use annals::internals::sync::wake_word::WakeWord;
use loom::thread::{self, JoinHandle};
use loom_tests::{Bell, Fault, block_on, broken, holds};

struct Ticket {
    cell: Cell<(), u32>,
    word: WakeWord,
}

impl Ticket {
    fn new() -> Arc<Ticket> {
        Arc::new(Ticket { cell: Cell::new(()), word: WakeWord::new() })
    }

    /// Log writer: answers, and wakes whoever waits.
    fn settle(&self) {
        // SAFETY: once, by one thread.
        let waker = unsafe { self.cell.settle(42) };
        self.word.wake_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn spawn<R: 'static>(
    ticket: &Arc<Ticket>,
    run: impl FnOnce(&Ticket) -> R + 'static,
) -> JoinHandle<R> {
    let ticket = Arc::clone(ticket);
    thread::spawn(move || run(&ticket))
}

/// M10. A thread waits while the log writer answers.
fn a_thread_waits() {
    let ticket = Ticket::new();
    let writer = spawn(&ticket, Ticket::settle);
    assert_eq!(ticket.cell.wait(&ticket.word, None), Some(&42));
    writer.join().unwrap();
}

/// The other way round.
fn an_answer_beside_a_thread_that_waits() {
    let ticket = Ticket::new();
    let waiter = spawn(&ticket, |ticket| {
        assert_eq!(ticket.cell.wait(&ticket.word, None), Some(&42));
    });
    ticket.settle();
    waiter.join().unwrap();
}

#[test]
fn m10_a_thread_waits() {
    holds(4, a_thread_waits);
    holds(4, an_answer_beside_a_thread_that_waits);
}

#[test]
fn m10_broken_a_registration_without_a_fence() {
    broken(Fault::RegistersUnfenced, 4, "deadlock", an_answer_beside_a_thread_that_waits);
}

#[test]
fn m10_broken_a_wake_up_seen_without_its_reason() {
    broken(Fault::RegistersRelaxed, 4, "deadlock", a_thread_waits);
}

#[test]
fn m10_broken_a_wake_up_without_a_fence() {
    broken(Fault::WakesUnfenced, 4, "deadlock", an_answer_beside_a_thread_that_waits);
}

#[test]
fn m10_broken_a_state_without_its_answer() {
    let model = an_answer_beside_a_thread_that_waits;
    broken(Fault::SettlesRelaxed, 4, "Causality violation", model);
}

#[test]
fn m10_broken_no_look_between_registering_and_sleeping() {
    broken(None, 4, "deadlock", || {
        let ticket = Ticket::new();
        let waiter = spawn(&ticket, |ticket| {
            while ticket.cell.answer().is_none() {
                ticket.word.register().sleep(None);
            }
        });
        ticket.settle();
        waiter.join().unwrap();
    });
}

/// M10. Two threads wait for the same answer.
#[test]
fn m10_two_threads_wait() {
    holds(2, || {
        let ticket = Ticket::new();
        let wait = |ticket: &Ticket| {
            assert_eq!(ticket.cell.wait(&ticket.word, None), Some(&42));
        };
        let waiters = [spawn(&ticket, wait), spawn(&ticket, wait)];
        ticket.settle();
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// M10. Two groups of answers, one word: a waiter of the second is woken by the first, and goes on waiting.
#[test]
fn m10_a_wake_up_for_another_answer() {
    holds(2, || {
        let ticket = Ticket::new();
        let waiter = spawn(&ticket, |ticket| {
            assert_eq!(ticket.cell.wait(&ticket.word, None), Some(&42));
        });
        ticket.word.wake_all();
        ticket.settle();
        waiter.join().unwrap();
    });
}

/// M10. A task waits while the log writer answers.
fn a_task_waits() {
    let ticket = Ticket::new();
    let writer = spawn(&ticket, Ticket::settle);
    assert_eq!(block_on(|waker| ticket.cell.poll(waker).copied()), 42);
    writer.join().unwrap();
}

#[test]
fn m10_a_task_waits() {
    holds(4, a_task_waits);
}

#[test]
fn m10_broken_no_look_after_the_registration() {
    broken(Fault::PollsOnce, 4, "deadlock", a_task_waits);
}

#[test]
fn m10_broken_marked_before_the_registration() {
    broken(Fault::MarksFirst, 4, "deadlock", a_task_waits);
}

/// M10. A task polls once and is dropped, with its waker, while the log writer answers; a thread waits for the same
/// answer, which comes.
#[test]
fn m10_a_task_is_dropped() {
    holds(3, || {
        let ticket = Ticket::new();
        let task = spawn(&ticket, |ticket| {
            block_on(|waker| {
                ticket.cell.poll(waker);
                Some(())
            });
        });
        let writer = spawn(&ticket, Ticket::settle);
        assert_eq!(ticket.cell.wait(&ticket.word, None), Some(&42));
        task.join().unwrap();
        writer.join().unwrap();
    });
}

/// M10. When the answer is there and was seen, the cell holds no waker: a kept ticket keeps no task.
fn a_settled_cell_lets_go_of_the_task() {
    let ticket = Ticket::new();
    let writer = spawn(&ticket, Ticket::settle);
    let bell = Arc::new(Bell::new());
    let waker = Waker::from(Arc::clone(&bell));
    let answered = ticket.cell.poll(&waker).is_some();
    drop(waker);
    writer.join().unwrap();
    assert!(answered || ticket.cell.answer().is_some());
    assert_eq!(Arc::strong_count(&bell), 1, "a waker kept");
}

#[test]
fn m10_a_settled_cell_lets_go_of_the_task() {
    holds(4, a_settled_cell_lets_go_of_the_task);
}

#[test]
fn m10_broken_the_waker_of_a_late_task_is_kept() {
    broken(Fault::KeepsTask, 4, "a waker kept", a_settled_cell_lets_go_of_the_task);
}
