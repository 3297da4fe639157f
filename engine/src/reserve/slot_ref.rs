//! A pointer to a slot, as everything above the index passes it on.
//!
//! It is `Copy` and carries no lifetime, because entries of writes keep it across threads. The contract instead: a
//! slot lives as long as the index that made it, and **whoever keeps a [`SlotRef`] keeps that index alive**, by way
//! of the `Arc` of the shard that owns it. Only an index makes them, and it never frees or moves a slot before it is
//! dropped itself.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;

use super::slot::{Slot, SlotKind};
use crate::sync::UnsafeCell;

/// Stands before each slot and shows the model checker when the slot is made and when its key is read. Outside
/// models it has no size.
type Witness = UnsafeCell<()>;

const WITNESS_BYTES: usize = size_of::<Witness>().next_multiple_of(align_of::<Slot>());

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotRef(NonNull<Slot>);

// SAFETY: all that a slot shares is atomic or never written again after `init`.
unsafe impl Send for SlotRef {}
// SAFETY: as above.
unsafe impl Sync for SlotRef {}

impl SlotRef {
    /// What the memory of a slot is aligned to.
    pub(crate) const ALIGN: usize = align_of::<Slot>();

    /// The bytes of memory that a slot with a key of this length takes.
    pub(crate) const fn layout_bytes(key_bytes: usize) -> usize {
        WITNESS_BYTES + Slot::layout_bytes(key_bytes)
    }

    /// Makes a slot of an aggregate that does not exist.
    ///
    /// # Safety
    ///
    /// `at` is aligned to [`SlotRef::ALIGN`] and valid for writes of `layout_bytes(key.len())` bytes, which nobody
    /// else uses, for as long as any copy of the result is used. The key is not longer than [`Slot::init`] takes.
    pub(crate) unsafe fn init(at: NonNull<u8>, kind: SlotKind, key: &[u8]) -> SlotRef {
        // SAFETY: by the contract there is room for the witness, the slot and the key, aligned and ours alone.
        unsafe {
            let witness = at.cast::<Witness>();
            witness.write(Witness::new(()));
            let slot = at.add(WITNESS_BYTES).cast::<Slot>();
            witness.as_ref().with_mut(|_| Slot::init(slot.as_ptr(), kind, key));
            SlotRef(slot)
        }
    }

    /// The slot at an address that [`SlotRef::address`] returned.
    ///
    /// # Safety
    ///
    /// The address came from a slot whose index is still alive, and by a way that makes its `init` happen before.
    #[inline]
    pub(crate) unsafe fn from_address(address: usize) -> SlotRef {
        let slot = std::ptr::with_exposed_provenance_mut(address);
        // SAFETY: the address of a slot is not null.
        SlotRef(unsafe { NonNull::new_unchecked(slot) })
    }

    /// Where the slot stands, as a number that can be kept in a word.
    #[inline]
    #[must_use]
    pub fn address(self) -> usize {
        self.0.as_ptr().expose_provenance()
    }

    /// The key behind the slot, as it was given to `init`.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &[u8] {
        // SAFETY: the slot was made by `init`, with a witness before it, and is alive by the contract of the type.
        unsafe {
            let witness = self.0.byte_sub(WITNESS_BYTES).cast::<Witness>();
            witness.as_ref().with(|_| Slot::key(self.0.as_ptr()))
        }
    }
}

impl Deref for SlotRef {
    type Target = Slot;

    #[inline]
    fn deref(&self) -> &Slot {
        // SAFETY: the slot was made by `init`, is alive by the contract of the type, and is never borrowed mutably.
        unsafe { self.0.as_ref() }
    }
}

impl fmt::Debug for SlotRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SlotRef").field(&self.0).finish()
    }
}

#[cfg(not(loom))]
const _: () = assert!(WITNESS_BYTES == 0);
