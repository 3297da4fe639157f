//! Where slots stand: memory handed out in order and freed all at once.
//!
//! Chunks form a list, newest first. Room is taken from the newest by adding to its `taken`; whoever finds no room
//! makes a chunk that already holds what it came for and swaps it in. If another chunk came first, it frees its own
//! and tries that one. So nobody waits for a thread that stopped, and what such a thread took is merely never used.
//!
//! | word | written by | orderings |
//! |---|---|---|
//! | `newest` | whoever adds a chunk | Release: the chunk's header is visible before the chunk; Acquire to read it |
//! | `taken` | whoever takes room | Relaxed: additions to one word are ordered, so no two takers share a byte; what they write there is published by the table, not from here |
//!
//! A chunk is in the list until the arena is dropped, so its address can't come back while somebody holds it: the
//! swap of `newest` never succeeds by mistake.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::{self, NonNull};

use super::{OutOfMemory, SlotKey};
use crate::reserve::slot_ref::SlotRef;
use crate::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// The smallest chunk.
const CHUNK_BYTES_MIN: usize = if cfg!(loom) { 4 << 10 } else { 64 << 10 };
/// The largest chunk.
const CHUNK_BYTES_MAX: usize = 2 << 20;
/// A chunk is this part of what there is, so that little is taken ahead of use.
const CHUNK_PART: usize = 32;
/// Slots start on lines of the cache as far as their keys allow.
const CHUNK_ALIGN: usize = 64;
/// A cell of a table has this many bits for an address.
pub(super) const ADDRESS_BITS: u32 = 48;

/// See the module.
#[derive(Debug)]
pub(super) struct Arena {
    newest: AtomicPtr<Chunk>,
}

/// The head of a chunk; the room follows.
struct Chunk {
    older: *mut Chunk,
    /// Of this chunk, its head included.
    bytes: usize,
    /// Of this chunk and all older ones.
    bytes_so_far: usize,
    /// From the start of the chunk. May pass its end, by those who found no room.
    taken: AtomicUsize,
}

const HEAD_BYTES: usize = size_of::<Chunk>().next_multiple_of(SlotRef::ALIGN);
/// The largest slot.
const TAKE_BYTES_MAX: usize = SlotRef::layout_bytes(SlotKey::BYTES_MAX);

const _: () = assert!(HEAD_BYTES + TAKE_BYTES_MAX <= CHUNK_BYTES_MIN);

impl Arena {
    pub(super) fn new() -> Arena {
        Arena { newest: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Makes a slot. It stays as long as the arena.
    pub(super) fn slot(&self, key: SlotKey<'_>) -> Result<SlotRef, OutOfMemory> {
        assert!(key.bytes() <= SlotKey::BYTES_MAX, "keys are checked where they come in");
        let at = self.take(SlotRef::layout_bytes(key.bytes()))?;
        // SAFETY: `take` gave us that many bytes, aligned, which stay as long as the arena and so as the index.
        Ok(key.joined(|kind, bytes| unsafe { SlotRef::init(at, kind, bytes) }))
    }

    /// Takes so many bytes, at most the largest slot, a multiple of its alignment.
    fn take(&self, bytes: usize) -> Result<NonNull<u8>, OutOfMemory> {
        debug_assert!(bytes <= TAKE_BYTES_MAX && bytes.is_multiple_of(SlotRef::ALIGN));
        // Acquire: pairs with the Release below, so that the head of the chunk is visible.
        let mut seen = self.newest.load(Ordering::Acquire);
        loop {
            // SAFETY: a chunk in the list lives as long as the arena.
            if let Some(chunk) = unsafe { seen.as_ref() } {
                let start = chunk.taken.fetch_add(bytes, Ordering::Relaxed);
                if start + bytes <= chunk.bytes {
                    // SAFETY: the room is within the chunk.
                    return Ok(unsafe { NonNull::new_unchecked(seen.cast::<u8>().add(start)) });
                }
            }
            let fresh = Chunk::allocate(seen, bytes)?;
            // Release: the head is visible before the chunk. Acquire: we look into the chunk that came first.
            match self.newest.compare_exchange(
                seen,
                fresh.as_ptr(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                // SAFETY: a new chunk has room, behind its head, for what it was made for.
                Ok(_) => return Ok(unsafe { fresh.cast::<u8>().add(HEAD_BYTES) }),
                Err(first) => {
                    // SAFETY: nobody else has seen our chunk.
                    unsafe { Chunk::free(fresh.as_ptr()) };
                    seen = first;
                }
            }
        }
    }

    /// All memory that the arena has taken, whether used yet or not.
    pub(super) fn bytes(&self) -> usize {
        // Acquire: as in `take`.
        let newest = self.newest.load(Ordering::Acquire);
        // SAFETY: a chunk in the list lives as long as the arena.
        unsafe { newest.as_ref() }.map_or(0, |chunk| chunk.bytes_so_far)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // Relaxed: whoever drops the arena has it to itself.
        let mut chunk = self.newest.load(Ordering::Relaxed);
        while !chunk.is_null() {
            // SAFETY: the list holds each chunk once, and nobody uses the arena or its slots any more.
            unsafe {
                let older = (*chunk).older;
                Chunk::free(chunk);
                chunk = older;
            }
        }
    }
}

// SAFETY: an arena owns its chunks, hands out each byte once, and shares only atomics.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Chunk {
    /// Makes a chunk whose first bytes are taken already.
    fn allocate(older: *mut Chunk, first: usize) -> Result<NonNull<Chunk>, OutOfMemory> {
        // SAFETY: `older` is in the list, or null.
        let so_far = unsafe { older.as_ref() }.map_or(0, |chunk| chunk.bytes_so_far);
        let bytes = (so_far / CHUNK_PART).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        let bytes = bytes.next_multiple_of(CHUNK_BYTES_MIN);
        let layout = Chunk::layout(bytes).ok_or(OutOfMemory)?;
        // SAFETY: the layout is not empty.
        let chunk = NonNull::new(unsafe { alloc(layout) }).ok_or(OutOfMemory)?.cast::<Chunk>();
        // SAFETY: the memory is ours, aligned, and large enough for the head.
        unsafe {
            chunk.write(Chunk {
                older,
                bytes,
                bytes_so_far: so_far + bytes,
                taken: AtomicUsize::new(HEAD_BYTES + first),
            });
        }
        if (chunk.addr().get() + bytes) as u64 > 1 << ADDRESS_BITS {
            // SAFETY: nobody else has seen the chunk.
            unsafe { Chunk::free(chunk.as_ptr()) };
            return Err(OutOfMemory);
        }
        Ok(chunk)
    }

    fn layout(bytes: usize) -> Option<Layout> {
        Layout::from_size_align(bytes, CHUNK_ALIGN).ok()
    }

    /// # Safety
    ///
    /// `allocate` made the chunk, and nobody uses it or what was taken from it any more.
    unsafe fn free(chunk: *mut Chunk) {
        // SAFETY: by the contract.
        unsafe {
            let layout = Chunk::layout((*chunk).bytes).expect("the layout it was allocated with");
            dealloc(chunk.cast(), layout);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const KEY_MAX: [u8; crate::limits::KEY_BYTES_MAX] = [0xa5; crate::limits::KEY_BYTES_MAX];

    #[test]
    fn slots_keep_their_keys_apart() {
        let arena = Arena::new();
        let slots: Vec<_> = (0..400_usize)
            .map(|n| {
                let key = &KEY_MAX[..1 + n * 37 % KEY_MAX.len()];
                let key = if n % 2 == 0 {
                    SlotKey::Aggregate(key)
                } else {
                    SlotKey::Client(n as u128, key)
                };
                (key, arena.slot(key).unwrap())
            })
            .collect();
        for (n, (key, slot)) in slots.iter().enumerate() {
            assert!(slot.address().is_multiple_of(SlotRef::ALIGN));
            assert!(key.names(*slot), "slot {n}");
            assert_eq!(slot.key().len(), key.bytes());
        }
        assert!(arena.bytes() > 2 * CHUNK_BYTES_MIN, "more than one chunk was needed");
    }

    #[test]
    fn little_is_taken_ahead_of_use() {
        let arena = Arena::new();
        let mut used = 0;
        for n in 0..if cfg!(miri) { 200 } else { 40_000 } {
            used += TAKE_BYTES_MAX - n % 8 * SlotRef::ALIGN;
            arena.take(TAKE_BYTES_MAX - n % 8 * SlotRef::ALIGN).unwrap();
            let ahead = arena.bytes() - used;
            assert!(ahead <= CHUNK_BYTES_MIN + arena.bytes() / 16, "{ahead} ahead of {used}");
        }
    }

    #[test]
    fn no_two_threads_share_a_byte() {
        let (threads, each) = if cfg!(miri) { (3, 40) } else { (8, 2_000) };
        let arena = Arena::new();
        let mut taken: Vec<(usize, usize)> = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..threads)
                .map(|thread| {
                    let arena = &arena;
                    scope.spawn(move || {
                        (0..each)
                            .map(|n| {
                                let bytes = 8 * (1 + (n * 7 + thread) % 130);
                                (arena.take(bytes).unwrap().addr().get(), bytes)
                            })
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
        });
        taken.sort_unstable();
        assert_eq!(taken.len(), threads * each);
        for pair in taken.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
    }
}
