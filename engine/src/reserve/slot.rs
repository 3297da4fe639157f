//! The slot of an aggregate: where its version lives and where writes to it are decided.
//!
//! | field | written by | read by |
//! |---|---|---|
//! | `word` | whoever decides a write (compare-and-swap); the log writer, to take spent entries out | everybody |
//! | `version`, `head` | the log writer, when a flush is published | everybody |
//! | `published`, `last`, `skip` | the log writer | the log writer |
//! | `watchers` | whoever watches; the log writer, which wakes them | both |
//!
//! The *tick* counts the operations accepted on the slot; a part that only checks counts too. Ticks only grow.
//! While `word` is a plain tick nothing is pending, and `version` belongs to that tick.
//!
//! A slot stands in the arena of its index, followed by its key, and stays there while the store is open.

use crate::id::Position;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::followers::Followers;
use crate::sync::{broken, ordering};

/// What a slot stands for. All kinds live in one index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum SlotKind {
    /// An aggregate; its version counts writes.
    Aggregate = 0,
    /// A client on an aggregate; its version is the client's highest sequence there. The key is the client's number
    /// (16 bytes, little-endian), then the key of the aggregate.
    Client = 1,
    /// A checkpoint; its version is the position that it stands at. The key is its name.
    Checkpoint = 2,
    /// The snapshots of an aggregate; its version counts them. The key is the aggregate's. With a slot of their own the
    /// newest is one hop away, and a record need not carry another link for what most aggregates never have.
    Snapshot = 3,
    /// Those who watch all keys that begin alike; it has no version. The key is the prefix.
    Prefix = 4,
}

/// See the module.
#[derive(Debug)]
#[repr(C)]
pub struct Slot {
    pub(crate) word: AtomicU64,
    version: AtomicU64,
    head: AtomicU64,
    published: AtomicU64,
    last: AtomicU64,
    skip: AtomicU64,
    /// Who waits for the next version.
    pub watchers: Followers,
    key_bytes: u16,
    kind: SlotKind,
}

/// The version of a client's slot after a write with this sequence: 0 says that the client was never seen. `None` for
/// the one sequence that there is no room for.
pub const fn client_version(sequence: u64) -> Option<u64> {
    sequence.checked_add(1)
}

/// What a slot's word says: a plain tick, or an entry of a write.
///
/// A word is `tick << 1`, or the address of an [`Entry`](super::write::Entry) with its lowest bit set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Word(pub(crate) u64);

const ENTRY_BIT: u64 = 1;

impl Word {
    pub(crate) const fn plain(tick: u64) -> Word {
        Word(tick << 1)
    }

    /// The tick of a plain word, or the address of the entry.
    pub(crate) const fn unpack(self) -> Result<u64, usize> {
        if self.0 & ENTRY_BIT == 0 { Ok(self.0 >> 1) } else { Err((self.0 & !ENTRY_BIT) as usize) }
    }

    pub(crate) fn entry(address: usize) -> Word {
        debug_assert_eq!(address as u64 & ENTRY_BIT, 0);
        Word(address as u64 | ENTRY_BIT)
    }
}

impl Slot {
    /// The bytes that a slot with a key of this length takes, its alignment included.
    pub(crate) const fn layout_bytes(key_bytes: usize) -> usize {
        (size_of::<Slot>() + key_bytes).next_multiple_of(align_of::<Slot>())
    }

    /// Makes a slot of an aggregate that does not exist, with its key behind it.
    ///
    /// # Safety
    ///
    /// `at` is aligned for a slot and valid for writes of `layout_bytes(key.len())` bytes, which nobody else uses.
    /// The key is not longer than 16 bytes and the longest key of an aggregate.
    pub(crate) unsafe fn init(at: *mut Slot, kind: SlotKind, key: &[u8]) {
        debug_assert!(key.len() <= crate::limits::KEY_BYTES_MAX + 16);
        let slot = Slot {
            word: AtomicU64::new(Word::plain(0).0),
            version: AtomicU64::new(0),
            head: AtomicU64::new(0),
            published: AtomicU64::new(0),
            last: AtomicU64::new(0),
            skip: AtomicU64::new(0),
            watchers: Followers::new(),
            key_bytes: key.len() as u16,
            kind,
        };
        // SAFETY: by the contract both writes are within memory that is ours.
        unsafe {
            at.write(slot);
            let behind = at.add(1).cast::<u8>();
            behind.copy_from_nonoverlapping(key.as_ptr(), key.len());
        }
    }

    /// The key behind a slot.
    ///
    /// # Safety
    ///
    /// `slot` was made by `init` and its memory is still alive for `'a`. It is a raw pointer because a reference to
    /// a slot may not be used to read behind it.
    pub(crate) unsafe fn key<'a>(slot: *const Slot) -> &'a [u8] {
        // SAFETY: `init` wrote `key_bytes` bytes there, and nobody writes to them again.
        unsafe {
            let bytes = (*slot).key_bytes as usize;
            std::slice::from_raw_parts(slot.add(1).cast::<u8>(), bytes)
        }
    }

    pub(crate) fn kind(&self) -> SlotKind {
        self.kind
    }

    /// The word now.
    #[inline]
    pub(crate) fn word(&self) -> Word {
        // Acquire: pairs with the compare-and-swap that installed an entry, so that the entry and its write are
        // visible before the pointer to them, and with the one that took a spent entry out, so that `version` is.
        Word(self.word.load(Ordering::Acquire))
    }

    /// The tick, if nothing is pending.
    #[cfg(any(loom, shuttle))]
    pub fn plain_tick(&self) -> Option<u64> {
        self.word().unpack().ok()
    }

    /// Replaces the word if it is still `seen`.
    #[inline]
    pub(crate) fn replace(&self, seen: Word, new: Word) -> Result<(), Word> {
        // Release: what the new word points to, or what was published before it, is visible with it. Acquire: so
        // that a failed exchange hands out a word that can be looked into.
        self.word
            .compare_exchange(
                seen.0,
                new.0,
                ordering!(AcqRel, unless InstallsRelaxed),
                Ordering::Acquire,
            )
            .map(|_| ())
            .map_err(Word)
    }

    /// The durable version. Belongs to the plain tick that `word` shows both before and after.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The position of the newest durable record. May lie above the watermark while a flush is being published.
    #[inline]
    pub fn head(&self) -> Position {
        Position::from_raw(self.head.load(Ordering::Acquire))
    }

    /// Log writer, and recovery: shows a durable version. Whoever sees the version finds it from `head`.
    pub fn publish_version(&self, version: u64, head: Position) {
        if !broken!(PublishesHeadLast) {
            self.head.store(head.get(), Ordering::Release);
        }
        // Release: pairs with the Acquire in `version`, so that `head` is visible with it.
        self.version.store(version, ordering!(Release, unless PublishesRelaxed));
        if broken!(PublishesHeadLast) {
            self.head.store(head.get(), Ordering::Release);
        }
    }

    /// Log writer: the tick last published.
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Log writer: notes the tick last published.
    pub fn set_published(&self, tick: u64) {
        self.published.store(tick, Ordering::Relaxed);
    }

    /// Log writer: where the version placed last is recorded.
    pub(crate) fn last(&self) -> Position {
        Position::from_raw(self.last.load(Ordering::Relaxed))
    }

    /// Log writer: where the newest version divisible by [`SKIP_VERSIONS`] is recorded.
    pub(crate) fn skip(&self) -> Position {
        Position::from_raw(self.skip.load(Ordering::Relaxed))
    }

    /// Log writer, and recovery: notes where a version has been placed.
    pub(crate) fn place_version(&self, version: u64, at: Position) {
        self.last.store(at.get(), Ordering::Relaxed);
        if version.is_multiple_of(SKIP_VERSIONS) {
            self.skip.store(at.get(), Ordering::Relaxed);
        }
    }
}

/// A record's `skip` names the newest version before its own that is divisible by this.
pub const SKIP_VERSIONS: u64 = 64;

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Slot>() == 64);
