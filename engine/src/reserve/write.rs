//! A write on its way to a decision, and its entries in slots.
//!
//! A write is immutable from the moment it is submitted, but for its status. Its entries are sorted by the address of
//! their slots, each slot once. What an entry means for its slot depends on the status of its write alone:
//!
//! | status | the slot's logical tick | version |
//! |---|---|---|
//! | undecided | `before` | `version_before` |
//! | accepted | `before + 1` | `version_after` |
//! | rejected | `before` | `version_before` |

use std::ptr::NonNull;

use smallvec::SmallVec;

use super::slot_ref::SlotRef;
use crate::sync::atomic::{AtomicPtr, AtomicU8, Ordering};
use crate::sync::{broken, ordering, overwrite};

/// What has become of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Status {
    /// Not all its entries are known to be in their slots.
    Undecided = 0,
    /// It took effect at the moment this was set.
    Accepted = 1,
    /// It never took effect, and never will.
    Rejected = 2,
}

/// What a write does to one slot.
#[derive(Debug)]
pub struct Entry<P> {
    /// The slot.
    pub slot: SlotRef,
    /// The tick that the slot must have.
    pub before: u64,
    /// The version that belongs to `before`.
    pub version_before: u64,
    /// The version if the write is accepted; the same if this part only checks.
    pub version_after: u64,
    /// Whatever the payload knows this entry by.
    pub tag: u32,
    /// The write it is part of; set when it is pushed, by the pointer that everybody uses from then on.
    pub(super) write: *const Write<P>,
    /// The accepted entry that made `before`, if that was still in the slot when this one was installed. Who may follow
    /// it says [`super::accepted`].
    pub(super) pred: AtomicPtr<Entry<P>>,
}

// SAFETY: but for `pred`, which is atomic, an entry is immutable from the moment its write is submitted, and its
// pointers lead to that write and to another entry.
unsafe impl<P: Send + Sync> Send for Entry<P> {}
// SAFETY: as above.
unsafe impl<P: Send + Sync> Sync for Entry<P> {}

impl<P> Entry<P> {
    /// An entry that is not yet part of a write.
    pub fn new(
        slot: SlotRef,
        before: u64,
        version_before: u64,
        version_after: u64,
        tag: u32,
    ) -> Self {
        let pred = AtomicPtr::new(std::ptr::null_mut());
        Entry { slot, before, version_before, version_after, tag, write: std::ptr::null(), pred }
    }

    /// The tick of the slot if the write is accepted.
    pub fn after(&self) -> u64 {
        if broken!(ChecksWithoutTick) && self.version_after == self.version_before {
            return self.before;
        }
        self.before + 1
    }

    /// See the field. Who takes over what a rejected entry covered does not look into it.
    pub(super) fn pred(&self) -> *mut Entry<P> {
        self.pred.load(Ordering::Relaxed)
    }
}

/// The entries of a write; those of small ones stand in the write itself.
pub type Entries<P> = SmallVec<[Entry<P>; 2]>;

/// A write. `P` is what the log writer needs to know of it.
#[derive(Debug)]
pub struct Write<P> {
    status: AtomicU8,
    /// The next one on the stack, or in whatever list its one owner keeps it.
    pub(super) next: AtomicPtr<Write<P>>,
    entries: Entries<P>,
    /// Changed by nobody but its owner before submission; read by the log writer after, and by whoever reads what is
    /// [accepted](super::accepted).
    pub payload: P,
}

impl<P> Write<P> {
    /// A write without entries.
    pub fn new(payload: P) -> Box<Write<P>> {
        Box::new(Write {
            status: AtomicU8::new(Status::Undecided as u8),
            next: AtomicPtr::new(std::ptr::null_mut()),
            entries: Entries::new(),
            payload,
        })
    }

    /// Makes a spent write undecided and empty again. Its memory is kept.
    pub fn reset(&mut self) {
        overwrite(&mut self.status, Status::Undecided as u8);
        self.entries.clear();
    }

    /// The entries, to be filled before [`Write::seal`], and the payload.
    pub fn parts_mut(&mut self) -> (&mut Entries<P>, &mut P) {
        (&mut self.entries, &mut self.payload)
    }

    /// Sorts the entries. They do not change afterwards.
    pub fn seal(&mut self) {
        if broken!(LeavesUnsorted) {
            return;
        }
        self.entries.sort_unstable_by_key(|entry| entry.slot.address());
        debug_assert!(
            self.entries.windows(2).all(|pair| pair[0].slot.address() < pair[1].slot.address())
        );
    }

    /// Ties the entries to their write.
    ///
    /// # Safety
    ///
    /// `write` comes from `Box::into_raw`, and nobody else has seen it.
    pub(super) unsafe fn tie(write: *mut Write<P>) {
        // SAFETY: by the contract this is the only access.
        for entry in unsafe { &mut (*write).entries } {
            entry.write = write;
        }
    }

    /// The entries, by address of their slots.
    pub fn entries(&self) -> &[Entry<P>] {
        &self.entries
    }

    /// What has become of it.
    #[inline]
    pub fn status(&self) -> Status {
        // Acquire: pairs with the Release in `settle`; whoever sees a decision sees what was decided on.
        match self.status.load(ordering!(Acquire, unless DecidesRelaxed)) {
            0 => Status::Undecided,
            1 => Status::Accepted,
            _ => Status::Rejected,
        }
    }

    /// Log writer that stops: rejects the write unless it is decided already; returns the decision.
    pub fn reject(&self) -> Status {
        self.settle(Status::Rejected)
    }

    /// Decides the write, unless it is decided already; returns the decision.
    #[inline]
    pub(super) fn settle(&self, decision: Status) -> Status {
        match self.status.compare_exchange(
            Status::Undecided as u8,
            decision as u8,
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) => decision,
            Err(1) => Status::Accepted,
            Err(_) => Status::Rejected,
        }
    }
}

/// A submitted write: shared until its grace periods have passed, then owned again.
///
/// It is a pointer without a promise. Who holds one says why it is alive: the log writer, because it alone decides
/// when a write is spent; others, because they found it under a guard.
#[derive(Debug)]
pub struct WriteRef<P>(pub(super) NonNull<Write<P>>);

impl<P> Clone for WriteRef<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for WriteRef<P> {}

impl<P> PartialEq for WriteRef<P> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

// SAFETY: the pointer alone is sent; what it points to is reached through `unsafe` with a reason of its own.
unsafe impl<P: Send> Send for WriteRef<P> {}

impl<P> WriteRef<P> {
    /// Where it stands.
    pub fn address(self) -> *const u8 {
        self.0.as_ptr().cast_const().cast()
    }

    /// The write.
    ///
    /// # Safety
    ///
    /// It is alive for `'a`, and nobody owns it exclusively meanwhile.
    #[inline]
    pub unsafe fn get<'a>(self) -> &'a Write<P> {
        // SAFETY: by the contract.
        unsafe { self.0.as_ref() }
    }

    /// Takes a spent write back.
    ///
    /// # Safety
    ///
    /// It has been out of every slot and off the stack for a grace period, and this is done once.
    pub unsafe fn into_box(self) -> Box<Write<P>> {
        // SAFETY: by the contract; it was made by `Box::into_raw` in `Stack::push`.
        unsafe { Box::from_raw(self.0.as_ptr()) }
    }
}
