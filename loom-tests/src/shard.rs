//! A shard without bytes and without a disk: slots, the stack, and a log writer that keeps a list.

use std::mem::ManuallyDrop;
use std::ops::Deref;
#[cfg(loom)]
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;

use annals::internals::id::Position;
use annals::internals::index::{self, Index, SlotKey};
use annals::internals::reserve::decide::{self, Look};
#[cfg(loom)]
use annals::internals::reserve::pause;
use annals::internals::reserve::slot_ref::SlotRef;
use annals::internals::reserve::stack::Stack;
use annals::internals::reserve::write::{Entry, Status, Write, WriteRef};
use annals::internals::sync::epoch::{Domain, Guard};
use annals::internals::sync::watermark::Watermark;

use crate::checker::UnsafeCell;
#[cfg(loom)]
use crate::checker::thread;

/// What the log writer and accepted reads know a write by. The cell is written before the submission and read after it, so
/// that the model checker sees whether the one is visible to the other.
#[derive(Debug)]
pub struct Payload(UnsafeCell<&'static str>);

// SAFETY: it is written before it is shared; if a broken model does otherwise, the checker says so.
unsafe impl Sync for Payload {}

impl Deref for Payload {
    type Target = UnsafeCell<&'static str>;

    fn deref(&self) -> &UnsafeCell<&'static str> {
        &self.0
    }
}

/// What a write asks of a slot, and what it has seen there.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// Appends to it.
    Append(usize, Look),
    /// Only checks it.
    Check(usize, Look),
    /// Sets it to a version: a client's sequence.
    Set(usize, Look, u64),
}

/// See the module.
#[derive(Debug)]
pub struct Shard {
    /// Who looks at slots; without one, each guard has a domain of its own, and there are fewer interleavings.
    domain: Kept<Option<Domain>>,
    /// What was submitted.
    pub stack: Stack<Payload>,
    /// How far the log is published.
    pub watermark: Watermark,
    /// By address.
    pub slots: Vec<SlotRef>,
    _index: Kept<Index>,
    /// Every write that was submitted and not taken back, to be freed with the shard.
    submitted: Mutex<Vec<WriteRef<Payload>>>,
    /// Every write that was taken back, where it was: a late helper of a broken model still looks there.
    #[allow(clippy::vec_box)]
    reused: Mutex<Vec<Box<Write<Payload>>>>,
}

impl Shard {
    /// So many slots, three at most. Memory is never used again.
    pub fn new(slots: usize) -> Shard {
        Shard::build(slots, None)
    }

    /// As [`new`](Shard::new), with grace periods.
    pub fn with_epochs(slots: usize) -> Shard {
        Shard::build(slots, Some(Domain::new()))
    }

    fn build(slots: usize, domain: Option<Domain>) -> Shard {
        let index = Index::model(4, index::Fault::None);
        let keys = [b"x", b"y", b"z"];
        let mut slots: Vec<SlotRef> = (keys.iter().zip(1..).take(slots))
            .map(|(key, hash)| index.insert(hash << 48, SlotKey::Aggregate(*key)).unwrap().0)
            .collect();
        slots.sort();
        Shard {
            domain: Kept::new(domain),
            stack: Stack::new(),
            watermark: Watermark::new(Position::START),
            slots,
            _index: Kept::new(index),
            submitted: Mutex::new(Vec::new()),
            reused: Mutex::new(Vec::new()),
        }
    }

    /// Runs `look` under a guard of the calling thread.
    pub fn pinned<R>(&self, look: impl FnOnce(&Guard<'_>) -> R) -> R {
        let own = Domain::new();
        let member = self.domain.as_ref().unwrap_or(&own).join();
        let guard = member.pin();
        look(&guard)
    }

    /// The domain of a shard with epochs.
    pub fn domain(&self) -> &Domain {
        self.domain.as_ref().expect("a shard with epochs")
    }

    /// Tries for a grace period; whether one has passed.
    pub fn grace_passes(&self) -> bool {
        let noted = self.domain().epoch();
        self.domain().advance();
        Domain::passed(noted, self.domain().advance())
    }

    /// What a slot is at.
    pub fn look(&self, slot: usize, guard: &Guard<'_>) -> Look {
        decide::look::<Payload>(self.slots[slot], guard)
    }

    /// A write that nobody else has seen.
    pub fn write(&self, name: &'static str, parts: &[Part]) -> Box<Write<Payload>> {
        let mut write = Write::new(Payload(UnsafeCell::new("")));
        write.payload.with_mut(|place| {
            // SAFETY: nobody else has the write.
            unsafe { *place = name };
        });
        let entries = parts.iter().map(|part| {
            let (slot, look, after) = match *part {
                Part::Append(slot, look) => (slot, look, look.version + 1),
                Part::Check(slot, look) => (slot, look, look.version),
                Part::Set(slot, look, after) => (slot, look, after),
            };
            Entry::new(self.slots[slot], look.tick, look.version, after, slot as u32)
        });
        write.parts_mut().0.extend(entries);
        write.seal();
        write
    }

    /// Submits a write; `None` if no more are taken.
    pub fn submit(&self, write: Box<Write<Payload>>) -> Option<WriteRef<Payload>> {
        let submitted = self.stack.push(write).ok()?;
        self.submitted.lock().unwrap().push(submitted);
        Some(submitted)
    }

    /// Brings a submitted write to its decision.
    pub fn decide(&self, write: WriteRef<Payload>, guard: &Guard<'_>) -> Status {
        // SAFETY: a write is freed or reset when its grace periods have passed, or with the shard.
        decide::decide(unsafe { write.get() }, guard)
    }

    /// Submits a write and decides it.
    pub fn append(&self, name: &'static str, parts: &[Part], guard: &Guard<'_>) -> Status {
        let write = self.submit(self.write(name, parts)).expect("the stack is open");
        self.decide(write, guard)
    }

    /// Makes a write that is spent an empty one. Whoever still looks at it makes the model fail.
    pub fn reuse(&self, write: WriteRef<Payload>) {
        self.submitted.lock().unwrap().retain(|other| *other != write);
        // SAFETY: it was submitted and is in nobody's hands, says the caller; the model checks that.
        let mut write = unsafe { write.into_box() };
        write.reset();
        write.payload.with_mut(|name| {
            // SAFETY: as above.
            unsafe { *name = "reused" };
        });
        self.reused.lock().unwrap().push(write);
    }

    /// Whether anything was.
    pub fn has_reused(&self) -> bool {
        !self.reused.lock().unwrap().is_empty()
    }
}

/// Dropped unless the model has failed: its threads are then taken down where they stand, outside of the model.
#[derive(Debug)]
struct Kept<T>(ManuallyDrop<T>);

impl<T> Kept<T> {
    fn new(value: T) -> Kept<T> {
        Kept(ManuallyDrop::new(value))
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: it is not used again.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        for write in self.submitted.get_mut().unwrap().drain(..) {
            // SAFETY: the shard is dropped by the last thread that has it, and each write is in the list once.
            drop(unsafe { write.into_box() });
        }
    }
}

/// The log writer of a [`Shard`]: places, publishes and clears, in order.
#[derive(Debug)]
pub struct LogWriter<'s> {
    shard: &'s Shard,
    /// The tick placed last, of each slot.
    placed: Vec<u64>,
    log: Vec<(&'static str, WriteRef<Payload>)>,
    published: usize,
    /// Those that were rejected.
    pub rejected: Vec<WriteRef<Payload>>,
}

impl<'s> LogWriter<'s> {
    /// A log writer at the start of the log.
    pub fn new(shard: &'s Shard) -> LogWriter<'s> {
        LogWriter {
            shard,
            placed: vec![0; shard.slots.len()],
            log: Vec::new(),
            published: 0,
            rejected: Vec::new(),
        }
    }

    /// Takes what was submitted and places what is accepted.
    pub fn place(&mut self) {
        for write in self.shard.stack.take() {
            self.place_one(write);
        }
    }

    /// Places one, if it is accepted.
    pub fn place_one(&mut self, submitted: WriteRef<Payload>) {
        // SAFETY: the log writer has it, so it is not spent.
        let write = unsafe { submitted.get() };
        let mut status = write.status();
        if status == Status::Undecided {
            status = self.shard.pinned(|guard| decide::decide(write, guard));
        }
        if status == Status::Rejected {
            self.rejected.push(submitted);
            return;
        }
        for entry in write.entries() {
            let placed = &mut self.placed[entry.tag as usize];
            assert_eq!(*placed, entry.before, "placed out of order");
            *placed = entry.after();
        }
        // SAFETY: nobody writes to it after the submission; the model checks that.
        let name = write.payload.with(|name| unsafe { *name });
        self.log.push((name, submitted));
    }

    /// Shows what was placed, in all slots, and then the watermark. Returns what is spent by that.
    pub fn publish(&mut self) -> Vec<WriteRef<Payload>> {
        let from = std::mem::replace(&mut self.published, self.log.len());
        for (index, (_, write)) in self.log.iter().enumerate().skip(from) {
            // SAFETY: as in `place_one`.
            for entry in unsafe { write.get() }.entries() {
                if entry.version_after != entry.version_before {
                    let position = Position::from_raw(index as u64 + 1);
                    entry.slot.publish_version(entry.version_after, position);
                }
            }
        }
        self.shard.watermark.publish(Position::from_raw(self.log.len() as u64 + 1));
        let spent: Vec<_> = self.log[from..].iter().map(|(_, write)| *write).collect();
        for write in &spent {
            // SAFETY: as in `place_one`.
            for entry in unsafe { write.get() }.entries() {
                entry.slot.set_published(entry.after());
                decide::clear_published(entry);
            }
        }
        spent
    }

    /// The log, by name.
    pub fn log(&self) -> Vec<&'static str> {
        self.log.iter().map(|(name, _)| *name).collect()
    }
}

/// Runs `work`, and stops the calling thread of the model at a step of [`decide`] when that was reached `times` times.
#[cfg(loom)]
pub fn stop_at(step: &'static str, times: usize, work: impl FnOnce()) {
    let stopping = thread::current().id();
    let mut left = times;
    pause::on_this_thread(move |here| {
        if here == step && thread::current().id() == stopping {
            left -= 1;
            if left == 0 {
                panic::resume_unwind(Box::new(Stopped));
            }
        }
    });
    let stopped = panic::catch_unwind(AssertUnwindSafe(work));
    pause::on_this_thread(|_| ());
    if let Err(why) = stopped
        && !why.is::<Stopped>()
    {
        panic::resume_unwind(why);
    }
}

#[cfg(loom)]
struct Stopped;
