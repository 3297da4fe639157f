//! The live index of a shard: from a key to its slot.
//!
//! Slots are inserted while the store is open and never removed or moved, so a lookup needs no guard and no fence, and
//! a [`SlotRef`] stays valid as long as the index lives.
//!
//! The index is a row of tables, each twice as large as the one before. When the newest has no room, the next key makes
//! a larger one beside it; nothing is moved and nobody waits. [`table`] says what keeps a key out of two tables.
//!
//! * A **lookup** goes from the newest table to the oldest, since half of the keys stand in the newest. The lines that it
//!   will look at first are asked for together, so several tables cost little more than one miss.
//! * An **insertion** goes from the oldest to the newest, as the rule of [`table`] demands, and makes the slot when it
//!   first meets a cell for it. A slot that lost to another thread with the same key stays unused in the arena.
//!
//! | word | written by | orderings |
//! |---|---|---|
//! | `cells[n]` | who makes table *n*, once | Release: the empty cells are visible before the table; Acquire to read it |
//! | `tables` | whoever is about to use a table that it does not count | Release, Acquire: the tables counted are visible with it |
//! | `slots[n]` | who inserted in table *n* | Relaxed: it only decides how densely tables fill |
//!
//! `tables` is raised **before** a key goes into the table, by everyone who finds it too low and not only by the one who made
//! the table, who may have stopped: so who can know of an insertion finds it.

mod arena;
mod key;
mod table;

use std::fmt;
use std::ptr::{self, NonNull};

use crossbeam_utils::CachePadded;

pub use self::key::{SlotKey, shard_of};

use self::arena::Arena;
use self::table::{End, LINE_CELLS, PROBE_CELLS_MAX, Table};
use crate::reserve::slot_ref::SlotRef;
use crate::reserve::step;
use crate::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Tables double, so this many outgrow any memory.
const TABLES_MAX: usize = if cfg!(loom) { 4 } else { 32 };
/// Cells of the first table. Few under Miri and in schedules that are drawn, so that tables grow within what those can run.
const CELLS_FIRST: usize = if cfg!(any(miri, shuttle)) { 1 << 4 } else { 1 << 10 };
/// A table has room until this many eighths of its cells hold slots.
const ROOM_EIGHTHS: usize = 6;
/// How many tables a lookup asks for at once: at least seven of eight keys are in these.
const EARLY_TABLES: usize = if cfg!(loom) { 1 } else { 4 };

/// There is no memory for another slot. What is in the index stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

/// A step left out or an ordering weakened, for models that must then fail.
#[cfg(any(loom, shuttle))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// None: the index as it is.
    None,
    /// A key goes on to a newer table without closing the cell where its probe ended.
    LeavesOpen,
    /// A slot's address is published without what it says.
    PublishesRelaxed,
    /// Only the thread that made a table counts it.
    LeavesUncounted,
}

/// How an index is built; other than usual only in models.
#[derive(Clone, Copy, Debug)]
struct Shape {
    cells_first: usize,
    #[cfg(any(loom, shuttle))]
    fault: Fault,
}

/// See the module.
pub struct Index {
    hash_key: u64,
    row: CachePadded<Row>,
    slots: CachePadded<[AtomicUsize; TABLES_MAX]>,
    arena: CachePadded<Arena>,
}

/// What lookups read; it changes only when a table is added.
struct Row {
    shape: Shape,
    tables: AtomicUsize,
    cells: [AtomicPtr<AtomicU64>; TABLES_MAX],
}

impl Index {
    /// An empty index, which takes no memory before the first insertion.
    #[must_use]
    pub fn new(hash_key: u64) -> Index {
        Index::shaped(
            hash_key,
            Shape {
                cells_first: CELLS_FIRST,
                #[cfg(any(loom, shuttle))]
                fault: Fault::None,
            },
        )
    }

    /// An index whose first table has so many cells, a power of two, and that has a fault.
    #[cfg(any(loom, shuttle))]
    #[must_use]
    pub fn model(cells_first: usize, fault: Fault) -> Index {
        assert!(cells_first.is_power_of_two());
        Index::shaped(0, Shape { cells_first, fault })
    }

    fn shaped(hash_key: u64, shape: Shape) -> Index {
        Index {
            hash_key,
            row: CachePadded::new(Row {
                shape,
                tables: AtomicUsize::new(0),
                cells: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            }),
            slots: CachePadded::new(std::array::from_fn(|_| AtomicUsize::new(0))),
            arena: CachePadded::new(Arena::new()),
        }
    }

    /// The hash under which a key stands in this index.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: SlotKey<'_>) -> u64 {
        key.hash(self.hash_key)
    }

    /// Asks for the memory that a lookup of this hash reads first.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.row.newest_first().take(EARLY_TABLES).for_each(|table| table.prefetch(hash));
    }

    /// The slot of a key, if there is one.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: u64, key: SlotKey<'_>) -> Option<SlotRef> {
        self.prefetch(hash);
        let tables = self.row.newest_first();
        // Most keys are in the first line of their probe in one of these tables. Looking at all of them without a
        // branch costs less than guessing wrong which it is.
        let mut tagged = tables
            .clone()
            .take(EARLY_TABLES)
            .enumerate()
            .fold(0, |tagged, (at, table)| tagged | table.tagged(hash) << (at * LINE_CELLS));
        while tagged != 0 {
            let at = tagged.trailing_zeros() as usize;
            let table = tables.clone().nth(at / LINE_CELLS);
            let slot = table.and_then(|table| table.tagged_slot(hash, at % LINE_CELLS));
            if let Some(slot) = slot.filter(|slot| key.names(*slot)) {
                return Some(slot);
            }
            tagged &= tagged - 1;
        }
        tables.clone().skip(EARLY_TABLES).for_each(|table| table.prefetch(hash));
        Index::walk(tables, hash, key)
    }

    /// What `find` does for keys that are in an old table, or off the first line of their probe, or nowhere.
    fn walk<'a>(
        mut tables: impl Iterator<Item = Table<'a>>,
        hash: u64,
        key: SlotKey<'_>,
    ) -> Option<SlotRef> {
        tables.find_map(|table| {
            match table.look(&mut table.start(hash, PROBE_CELLS_MAX), hash, key) {
                End::Slot(slot) => Some(slot),
                End::Empty(_) | End::Shut => None,
            }
        })
    }

    /// The slot of a key, made if there was none, and whether it was made by this call.
    ///
    /// # Errors
    ///
    /// There is no memory for the slot or for a larger table.
    ///
    /// # Panics
    ///
    /// The key is longer than an aggregate's may be.
    pub fn insert(&self, hash: u64, key: SlotKey<'_>) -> Result<(SlotRef, bool), OutOfMemory> {
        // The walk below meets every table, each end before the next start; so their lines are asked for together.
        self.row.newest_first().for_each(|table| table.prefetch(hash));
        let mut made = None;
        for nth in 0..TABLES_MAX {
            let table = self.row.table_or_new(nth)?;
            let mut probe = table.start(hash, PROBE_CELLS_MAX);
            loop {
                match table.look(&mut probe, hash, key) {
                    End::Slot(slot) => return Ok((slot, false)),
                    End::Shut => break,
                    End::Empty(cell) if self.has_room(nth) => {
                        let slot = match made {
                            Some(slot) => slot,
                            None => *made.insert(self.arena.slot(key)?),
                        };
                        step!("insert the slot");
                        if table::put(cell, hash, slot, self.row.shape.publish()) {
                            step!("count the slot");
                            self.slots[nth].fetch_add(1, Ordering::Relaxed);
                            return Ok((slot, true));
                        }
                    }
                    End::Empty(_) if self.row.shape.leaves_open() => break,
                    End::Empty(cell) => table::close(cell),
                }
            }
        }
        Err(OutOfMemory)
    }

    /// Every slot that was there before the call, once, and some of those that come meanwhile.
    pub fn iter(&self) -> impl Iterator<Item = SlotRef> + '_ {
        self.row.newest_first().flat_map(Table::slots)
    }

    /// The number of slots. An insertion in progress may not be counted yet.
    #[must_use]
    #[allow(
        clippy::len_without_is_empty,
        reason = "the number is for the stats; nothing turns on emptiness"
    )]
    pub fn len(&self) -> usize {
        self.slots.iter().map(|slots| slots.load(Ordering::Relaxed)).sum()
    }

    /// All memory that the index has taken, whether used yet or not.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let tables = (0..self.row.tables.load(Ordering::Relaxed))
            .map(|nth| table::memory_bytes(self.row.shape.cells(nth)));
        size_of::<Index>() + tables.sum::<usize>() + self.arena.bytes()
    }

    fn has_room(&self, nth: usize) -> bool {
        let room = self.row.shape.cells(nth) / 8 * ROOM_EIGHTHS;
        self.slots[nth].load(Ordering::Relaxed) < room.max(1)
    }
}

impl Row {
    /// The tables there are, as an iterator that a lookup walks.
    #[inline]
    fn newest_first(&self) -> impl Iterator<Item = Table<'_>> + Clone {
        // Acquire: pairs with the Release in `table_or_new`, so that every table counted is visible.
        let tables = self.tables.load(Ordering::Acquire);
        (0..tables).rev().filter_map(move |nth| self.table(nth))
    }

    #[inline]
    fn table(&self, nth: usize) -> Option<Table<'_>> {
        // Acquire: pairs with the Release in `table_or_new`, so that the cells are empty before they are seen.
        let cells = NonNull::new(self.cells[nth].load(Ordering::Acquire))?;
        // SAFETY: `table_or_new` made table `nth` with that many cells; tables are freed when the index is dropped.
        Some(unsafe { Table::new(cells, self.shape.cells(nth)) })
    }

    /// Table `nth`, made if there is none, and counted.
    fn table_or_new(&self, nth: usize) -> Result<Table<'_>, OutOfMemory> {
        let table = match self.table(nth) {
            Some(table) => {
                if self.shape.leaves_uncounted() {
                    return Ok(table);
                }
                table
            }
            None => {
                let count = self.shape.cells(nth);
                let made = table::allocate(count)?;
                // Release: the cells are empty before they are seen.
                let cells = match self.cells[nth].compare_exchange(
                    ptr::null_mut(),
                    made.as_ptr(),
                    Ordering::Release,
                    Ordering::Acquire,
                ) {
                    Ok(_) => made,
                    Err(first) => {
                        // SAFETY: nobody else has seen ours.
                        unsafe { table::free(made, count) };
                        // SAFETY: the exchange failed because another thread's table is there.
                        unsafe { NonNull::new_unchecked(first) }
                    }
                };
                // SAFETY: as in `table`.
                unsafe { Table::new(cells, count) }
            }
        };
        if self.tables.load(Ordering::Relaxed) <= nth {
            // Release: the tables up to this one are visible with the count.
            self.tables.fetch_max(nth + 1, Ordering::Release);
        }
        Ok(table)
    }
}

impl Shape {
    /// The cells of table `nth`.
    #[inline]
    fn cells(&self, nth: usize) -> usize {
        self.cells_first << nth
    }

    /// How the address of a slot is published; [`table`] says why.
    fn publish(&self) -> Ordering {
        #[cfg(any(loom, shuttle))]
        if self.fault == Fault::PublishesRelaxed {
            return Ordering::Relaxed;
        }
        Ordering::Release
    }

    fn leaves_open(&self) -> bool {
        #[cfg(any(loom, shuttle))]
        if self.fault == Fault::LeavesOpen {
            return true;
        }
        false
    }

    fn leaves_uncounted(&self) -> bool {
        #[cfg(any(loom, shuttle))]
        if self.fault == Fault::LeavesUncounted {
            return true;
        }
        false
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        for (nth, cells) in self.cells.iter().enumerate() {
            // Relaxed: whoever drops the index has it to itself.
            if let Some(cells) = NonNull::new(cells.load(Ordering::Relaxed)) {
                // SAFETY: `table_or_new` made it with that many cells.
                unsafe { table::free(cells, self.shape.cells(nth)) };
            }
        }
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("slots", &self.len())
            .field("memory_bytes", &self.memory_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
