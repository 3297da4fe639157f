//! M11 and M12: a shard that stops or closes while writes come in.

#![cfg(loom)]

use std::sync::{Arc, Mutex};

use annals::internals::reserve::cell::Cell;
use annals::internals::reserve::decide;
use annals::internals::reserve::stack::Stack;
use annals::internals::reserve::write::{Entry, Status, Write, WriteRef};
use annals::internals::sync::wake_word::WakeWord;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use loom_tests::{Shard, broken, holds};

/// What a submitter is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Committed,
    Stopped,
}

type Ticket = Arc<Cell<(), Told>>;

/// A shard whose writes carry tickets.
struct Stopping {
    slots: Shard,
    stack: Stack<Ticket>,
    word: WakeWord,
    submitted: Mutex<Vec<WriteRef<Ticket>>>,
}

impl Stopping {
    fn new() -> Arc<Stopping> {
        Arc::new(Stopping {
            slots: Shard::new(1),
            stack: Stack::new(),
            word: WakeWord::new(),
            submitted: Mutex::new(Vec::new()),
        })
    }

    /// A submitter, from its look to the answer.
    fn append(&self) -> Told {
        loop {
            let ticket: Ticket = Arc::new(Cell::new(()));
            match self.attempt(&ticket) {
                Some(Status::Accepted) => return *ticket.wait(&self.word, None).unwrap(),
                Some(_) => {}
                None => return Told::Stopped,
            }
        }
    }

    fn attempt(&self, ticket: &Ticket) -> Option<Status> {
        let slot = self.slots.slots[0];
        self.slots.pinned(|guard| {
            let seen = decide::look::<Ticket>(slot, guard);
            let mut write = Write::new(Arc::clone(ticket));
            let entry = Entry::new(slot, seen.tick, seen.version, seen.version + 1, 0);
            write.parts_mut().0.push(entry);
            write.seal();
            let submitted = self.stack.push(write).ok()?;
            self.submitted.lock().unwrap().push(submitted);
            // SAFETY: it is freed with the shard.
            Some(decide::decide(unsafe { submitted.get() }, guard))
        })
    }

    /// The log writer: commits what it has taken, and gives up what comes after. Returns how many it has committed.
    fn stop(&self, how: Stop) -> usize {
        let mut committed = 0;
        for request in self.stack.take() {
            // SAFETY: it is freed with the shard.
            let write = unsafe { request.get() };
            if self.slots.pinned(|guard| decide::decide(write, guard)) == Status::Accepted {
                settle(write, Told::Committed);
                committed += 1;
            }
        }
        let last = match how {
            Stop::AsItIs | Stop::LeavingUndecided => self.stack.close(),
            Stop::LeavingOpen => self.stack.take(),
        };
        for request in last {
            // SAFETY: it is freed with the shard.
            let write = unsafe { request.get() };
            let status = match how {
                Stop::LeavingUndecided => write.status(),
                _ => write.reject(),
            };
            if status == Status::Accepted {
                settle(write, Told::Stopped);
            }
        }
        self.word.wake_all();
        committed
    }
}

fn settle(write: &Write<Ticket>, told: Told) {
    // SAFETY: the log writer settles each request once.
    let waker = unsafe { write.payload.settle(told) };
    assert!(waker.is_none());
}

impl Drop for Stopping {
    fn drop(&mut self) {
        for write in self.submitted.get_mut().unwrap().drain(..) {
            // SAFETY: the last thread drops the shard, and each write is in the list once.
            drop(unsafe { write.into_box() });
        }
    }
}

/// How a model stops.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    AsItIs,
    /// Writes that are not decided are left to their owners.
    LeavingUndecided,
    /// What comes later is not refused.
    LeavingOpen,
}

/// M11. The log writer stops while two writes come in: each is told once, of a commit only if it was committed, and
/// nobody waits for ever.
fn a_shard_stops_beside_two_writes(how: Stop) -> impl Fn() {
    move || {
        let shard = Stopping::new();
        let spawn = || {
            let shard = Arc::clone(&shard);
            thread::spawn(move || shard.append())
        };
        let submitters = [spawn(), spawn()];
        let committed = shard.stop(how);
        let told = submitters.map(|submitter| submitter.join().unwrap());
        let told = told.iter().filter(|told| **told == Told::Committed).count();
        assert_eq!(told, committed, "told of another commit");
    }
}

/// As above, with one write, and the other way round.
fn a_write_beside_a_shard_that_stops(how: Stop) -> impl Fn() {
    move || {
        let shard = Stopping::new();
        let stopper = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || shard.stop(how))
        };
        let told = shard.append();
        let committed = stopper.join().unwrap();
        assert_eq!(told == Told::Committed, committed == 1, "told of another commit");
    }
}

#[test]
fn m11_a_shard_stops_beside_two_writes() {
    holds(2, a_shard_stops_beside_two_writes(Stop::AsItIs));
    holds(4, a_write_beside_a_shard_that_stops(Stop::AsItIs));
}

#[test]
fn m11_broken_undecided_writes_left_to_their_owners() {
    broken(None, 3, "deadlock", a_write_beside_a_shard_that_stops(Stop::LeavingUndecided));
}

#[test]
fn m11_broken_the_stack_left_open() {
    broken(None, 3, "deadlock", a_write_beside_a_shard_that_stops(Stop::LeavingOpen));
}

/// How a model closes.
#[derive(Clone, Copy, PartialEq)]
enum Close {
    /// With the mark on the stack.
    Mark,
    /// With a flag beside the stack.
    Flag,
}

/// M12. A push beside the log writer's last take: it is refused, or the write is among what was taken.
fn a_push_beside_a_close(close: Close) -> impl Fn() {
    move || {
        let shard = Arc::new(Shard::new(0));
        let closed = Arc::new(AtomicBool::new(false));
        let closer = {
            let (shard, closed) = (Arc::clone(&shard), Arc::clone(&closed));
            thread::spawn(move || {
                let before = shard.stack.take().count();
                let last = match close {
                    Close::Mark => shard.stack.close(),
                    Close::Flag => {
                        closed.store(true, Ordering::SeqCst);
                        shard.stack.take()
                    }
                };
                before + last.count()
            })
        };
        let mut pushed = 0;
        for name in ["a", "b"] {
            if close == Close::Flag && closed.load(Ordering::SeqCst) {
                continue;
            }
            pushed += usize::from(shard.submit(shard.write(name, &[])).is_some());
        }
        assert_eq!(closer.join().unwrap(), pushed, "a write pushed and never taken");
        if close == Close::Mark {
            assert!(shard.submit(shard.write("late", &[])).is_none());
            assert!(shard.stack.is_empty() && shard.stack.take().next().is_none());
        }
    }
}

#[test]
fn m12_a_push_beside_a_close() {
    holds(4, a_push_beside_a_close(Close::Mark));
}

#[test]
fn m12_broken_a_flag_beside_the_stack() {
    broken(None, 4, "a write pushed and never taken", a_push_beside_a_close(Close::Flag));
}
