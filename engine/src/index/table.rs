//! One table of the index: cells, what they may become, and how a key is looked for among them.
//!
//! A cell is one word. It starts *empty* and changes at most once:
//!
//! | from | to | by whom |
//! |---|---|---|
//! | empty | a slot: its tag and its address | who inserts a key whose probe ends here, while the table has room |
//! | empty | *closed* | who takes a key whose probe ends here to the next table |
//!
//! The **probe** of a key goes from a start that its hash gives over cells in order, round the end, at most
//! [`PROBE_CELLS_MAX`] of them or the whole table. It ends at the slot of the key, at the first cell that holds no
//! slot, or at its bound. Cells that hold slots never change, so the cells that a probe has passed stay passed.
//!
//! **A key stands in one table only.** The rule: a key goes into table *n + 1* only after its probe in table *n* was
//! seen to end at a closed cell or at its bound. Say that thread B inserts the key in table *n + 1*, and thread A tries
//! in table *n*. A's only way is a swap of the first empty cell of the same probe, from empty to the slot.
//!
//! * *A's swap comes first.* Then B's probe meets A's slot: the cells before it held slots when A passed them, and B
//!   can't end earlier, since to end at an empty cell it must swap it, and swaps see the newest value of a cell. B
//!   returns A's slot and inserts nothing.
//! * *B's end comes first.* At a closed cell: A finds it closed, or its swap fails and A looks again; either way A
//!   goes on to the next table. At the bound: every cell of the probe held some other key's slot, so A has no
//!   empty cell to swap.
//!
//! In one table the same two threads meet in the same cell, one swap fails, and the loser looks at that cell again.
//! All of this rests on the order of the operations on one cell, which any ordering gives. Release and
//! Acquire are there for what the slot says:
//!
//! | operation | ordering |
//! |---|---|
//! | swap to a slot | Release: the slot and its key are written before its address can be read |
//! | load in a probe | Acquire: pairs with it |
//! | swap to closed | Relaxed: a closed cell points to nothing |
//!
//! Whether a table *has room* is a count against a limit. It decides only how densely tables fill: a stale count puts a
//! few keys too many, or closes a cell too early, and neither breaks the rule.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use super::OutOfMemory;
use super::arena::ADDRESS_BITS;
use super::key::{SlotKey, start_bits, tag};
use crate::reserve::slot_ref::SlotRef;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::prefetch;

/// A probe starts at a line of the cache and so mostly ends within it.
pub(super) const LINE_CELLS: usize = if cfg!(loom) { 2 } else { 8 };
const LINE_BYTES: usize = 64;
/// The longest probe. At three quarters full about one key in 10⁸ needs more, and goes to the next table.
pub(super) const PROBE_CELLS_MAX: usize = 512;

const EMPTY: u64 = 0;
const CLOSED: u64 = 1;

/// What a cell was seen to hold.
#[derive(Clone, Copy)]
struct Cell(u64);

impl Cell {
    fn of(hash: u64, slot: SlotRef) -> Cell {
        Cell(tag(hash) << ADDRESS_BITS | slot.address() as u64)
    }

    /// The tag, 0 if there is no slot.
    #[inline]
    fn tag(self) -> u64 {
        self.0 >> ADDRESS_BITS
    }

    /// # Safety
    ///
    /// The cell holds a slot, was read with Acquire, and the index that made the slot is alive.
    #[inline]
    unsafe fn slot(self) -> SlotRef {
        let address = self.0 & ((1 << ADDRESS_BITS) - 1);
        // SAFETY: `of` took the address from a slot, and its swap was Release.
        unsafe { SlotRef::from_address(address as usize) }
    }
}

/// Where a probe stands.
#[derive(Clone, Copy)]
pub(super) struct Probe {
    next: usize,
    left: usize,
}

/// Where a probe ended.
pub(super) enum End<'a> {
    /// The key is here.
    Slot(SlotRef),
    /// The key is not here, and would come into this cell.
    Empty(&'a AtomicU64),
    /// The key is not here and never will be.
    Shut,
}

/// The cells of a table, a power of two, borrowed from the index.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    cells: &'a [AtomicU64],
}

impl<'a> Table<'a> {
    /// # Safety
    ///
    /// [`allocate`] made these cells, so many, and they are alive for `'a`; so are the slots put into them.
    #[inline]
    pub(super) unsafe fn new(cells: NonNull<AtomicU64>, count: usize) -> Table<'a> {
        // SAFETY: by the contract.
        Table { cells: unsafe { std::slice::from_raw_parts(cells.as_ptr(), count) } }
    }

    #[inline]
    fn cell(self, at: usize) -> &'a AtomicU64 {
        // SAFETY: the number of cells is a power of two.
        unsafe { self.cells.get_unchecked(at & (self.cells.len() - 1)) }
    }

    /// Asks for the line where the probe of this hash starts.
    #[inline]
    pub(super) fn prefetch(self, hash: u64) {
        let line = self.cell(start_bits(hash) * LINE_CELLS);
        prefetch::for_reading(std::ptr::from_ref(line).cast(), 1);
    }

    /// Which cells of the line where the probe of this hash starts repeat its tag, one bit each.
    #[inline]
    pub(super) fn tagged(self, hash: u64) -> u64 {
        let start = start_bits(hash) * LINE_CELLS;
        (0..LINE_CELLS).fold(0, |tagged, nth| {
            // Relaxed: nobody follows the address before `tagged_slot` has read the cell again.
            let seen = Cell(self.cell(start + nth).load(Ordering::Relaxed));
            tagged | u64::from(seen.tag() == tag(hash)) << nth
        })
    }

    /// The slot in a cell of that line, if the cell repeats the tag.
    #[inline]
    pub(super) fn tagged_slot(self, hash: u64, nth: usize) -> Option<SlotRef> {
        let cell = self.cell(start_bits(hash) * LINE_CELLS + nth);
        // Acquire: as in `look`.
        let seen = Cell(cell.load(Ordering::Acquire));
        // SAFETY: as in `look`.
        (seen.tag() == tag(hash)).then(|| unsafe { seen.slot() })
    }

    /// The start of the probe of a hash.
    #[inline]
    pub(super) fn start(self, hash: u64, longest: usize) -> Probe {
        Probe { next: start_bits(hash) * LINE_CELLS, left: longest.min(self.cells.len()) }
    }

    /// Goes on with a probe. After an empty end the probe stands at that cell still.
    #[inline]
    pub(super) fn look(self, probe: &mut Probe, hash: u64, key: SlotKey<'_>) -> End<'a> {
        let tag = tag(hash);
        while probe.left > 0 {
            let cell = self.cell(probe.next);
            // Acquire: pairs with the Release in `put`, so that the slot is visible before its address.
            let seen = Cell(cell.load(Ordering::Acquire));
            if seen.tag() == tag {
                // SAFETY: the tag says that there is a slot; slots live as long as the index that owns the table.
                let slot = unsafe { seen.slot() };
                if key.names(slot) {
                    return End::Slot(slot);
                }
            } else if seen.0 == EMPTY {
                return End::Empty(cell);
            } else if seen.0 == CLOSED {
                return End::Shut;
            }
            probe.next = probe.next.wrapping_add(1);
            probe.left -= 1;
        }
        End::Shut
    }

    /// All slots that stand in the table, and some of those that come meanwhile.
    pub(super) fn slots(self) -> impl Iterator<Item = SlotRef> + 'a {
        self.cells.iter().filter_map(|cell| {
            // Acquire: as in `look`.
            let seen = Cell(cell.load(Ordering::Acquire));
            // SAFETY: as in `look`; a tag is never 0.
            (seen.tag() != 0).then(|| unsafe { seen.slot() })
        })
    }
}

/// Puts a slot into a cell that was seen empty; `false` if the cell is not empty any more.
pub(super) fn put(cell: &AtomicU64, hash: u64, slot: SlotRef, publish: Ordering) -> bool {
    cell.compare_exchange(EMPTY, Cell::of(hash, slot).0, publish, Ordering::Relaxed).is_ok()
}

/// Closes a cell that was seen empty, unless it is not empty any more. Either way whoever calls looks at it again.
pub(super) fn close(cell: &AtomicU64) {
    // Relaxed: a closed cell points to nothing.
    let _ = cell.compare_exchange(EMPTY, CLOSED, Ordering::Relaxed, Ordering::Relaxed);
}

/// What the memory of a table takes: its cells, room to align them, and before them the address to free.
///
/// The allocator is not asked to align: then it fetches zeroed memory from the system page by page as it is touched,
/// and a new table costs the thread that makes it no more than a small one.
fn layout(cells: usize) -> Option<Layout> {
    let bytes = size_of::<AtomicU64>().checked_mul(cells)?;
    let bytes = bytes.checked_add(LINE_BYTES + size_of::<*mut u8>())?;
    Layout::from_size_align(bytes, align_of::<AtomicU64>().max(align_of::<*mut u8>())).ok()
}

/// The bytes that a table takes.
pub(super) fn memory_bytes(cells: usize) -> usize {
    layout(cells).map_or(0, |layout| layout.size())
}

/// Makes so many empty cells.
pub(super) fn allocate(cells: usize) -> Result<NonNull<AtomicU64>, OutOfMemory> {
    let layout = layout(cells).ok_or(OutOfMemory)?;
    // SAFETY: the layout is not empty.
    let memory = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(OutOfMemory)?;
    let before = size_of::<*mut u8>();
    let gap = (memory.addr().get() + before).next_multiple_of(LINE_BYTES) - memory.addr().get();
    // SAFETY: the gap is at most the room that the layout has before the cells, and at least the address before
    // them, for which it is aligned.
    let first = unsafe {
        let first = memory.add(gap);
        first.sub(before).cast().write(memory.as_ptr());
        first.cast::<AtomicU64>()
    };
    #[cfg(any(loom, shuttle))]
    for nth in 0..cells {
        // SAFETY: the layout has room for that many cells, and nobody else sees them yet.
        unsafe { first.add(nth).write(AtomicU64::new(EMPTY)) };
    }
    // Elsewhere an atomic of zeroes is an empty cell.
    Ok(first)
}

/// Frees the cells of a table.
///
/// # Safety
///
/// `allocate` made them, so many, and nobody uses them any more.
pub(super) unsafe fn free(first: NonNull<AtomicU64>, cells: usize) {
    let layout = layout(cells).expect("the layout it was allocated with");
    // SAFETY: `allocate` wrote the address before the first cell.
    unsafe {
        let memory = first.cast::<u8>().sub(size_of::<*mut u8>()).cast::<*mut u8>().read();
        dealloc(memory, layout);
    }
}
