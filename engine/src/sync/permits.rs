//! Permits: what a caller takes before it reserves anything, and what comes back when its write is done.
//!
//! *Bytes* limit what is in flight, *blocks* stand for prepared space, and memory that stalled threads hold back limits
//! both. Whoever is refused may sleep on the [`room`](Permits::room).
//!
//! Bytes are taken first and looked at afterwards, which costs the common case one addition. So a caller that is
//! refused has kept others out for a moment, perhaps one that now sleeps: having given back what it took, it wakes
//! them. Those who wait look before they take, or the refused would wake each other for ever.

use crossbeam_utils::CachePadded;

use crate::limits::HELD_BYTES_MAX;
use crate::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use crate::sync::wake_word::WakeWord;

/// See the module.
#[derive(Debug)]
pub struct Permits {
    bytes: CachePadded<AtomicI64>,
    blocks: CachePadded<AtomicI64>,
    held_bytes: AtomicU64,
    room: WakeWord,
}

/// Permits that one write holds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Bytes in flight, until it is durable.
    pub bytes: i64,
    /// Prepared blocks, until it is placed.
    pub blocks: i64,
}

/// Of what there is too little.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Short {
    /// Of bytes in flight.
    Bytes,
    /// Of prepared blocks.
    Blocks,
    /// Of memory that nobody holds back.
    Held,
}

impl Permits {
    /// Permits for so many bytes, and for no blocks.
    pub fn new(bytes: i64) -> Permits {
        Permits {
            bytes: CachePadded::new(AtomicI64::new(bytes)),
            blocks: CachePadded::new(AtomicI64::new(0)),
            held_bytes: AtomicU64::new(0),
            room: WakeWord::new(),
        }
    }

    /// Takes permits, or says what is lacking. A write larger than the limit on bytes passes when nothing else is in
    /// flight.
    #[inline]
    pub fn take(&self, needed: Taken) -> Result<(), Short> {
        if self.held_bytes.load(Ordering::Relaxed) > HELD_BYTES_MAX as u64 {
            return Err(Short::Held);
        }
        let short = if self.bytes.fetch_sub(needed.bytes, Ordering::Relaxed) <= 0 {
            Short::Bytes
        } else if self.take_granted(needed.blocks) {
            return Ok(());
        } else {
            Short::Blocks
        };
        self.give_back_refused(needed.bytes);
        Err(short)
    }

    /// As [`take`](Permits::take), for a caller that is registered in the [`room`](Permits::room): takes nothing when
    /// it sees beforehand that it would be refused.
    pub fn take_after_look(&self, needed: Taken) -> Result<(), Short> {
        if self.bytes_left() <= 0 {
            return Err(Short::Bytes);
        }
        if self.blocks_left() < needed.blocks {
            return Err(Short::Blocks);
        }
        self.take(needed)
    }

    #[inline]
    fn take_granted(&self, blocks: i64) -> bool {
        let mut left = self.blocks.load(Ordering::Relaxed);
        while left >= blocks {
            // Acquire: pairs with the Release in `grant`: whoever places a write finds the segment that its permits
            // stand for.
            let acquire = ordering!(Acquire, unless GrantsRelaxed);
            match self.blocks.compare_exchange_weak(left, left - blocks, acquire, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(seen) => left = seen,
            }
        }
        false
    }

    #[cold]
    fn give_back_refused(&self, bytes: i64) {
        if !broken!(KeepsBytes) {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        if !broken!(RefusesSilently) {
            self.room.wake_all();
        }
    }

    /// Gives permits back.
    pub fn give_back(&self, taken: Taken) {
        if taken.bytes != 0 {
            self.bytes.fetch_add(taken.bytes, Ordering::Relaxed);
        }
        if taken.blocks != 0 {
            self.blocks.fetch_add(taken.blocks, Ordering::Relaxed);
        }
        if !broken!(ReturnsSilently) {
            self.room.wake_all();
        }
    }

    /// The preparing thread: adds blocks. Whoever waits is woken by the caller.
    pub fn grant(&self, blocks: i64) {
        self.blocks.fetch_add(blocks, ordering!(Release, unless GrantsRelaxed));
    }

    /// Log writer: takes blocks out of circulation that nobody holds, if there are so many.
    pub fn withdraw(&self, blocks: i64) -> bool {
        self.blocks
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                (left >= blocks).then_some(left - blocks)
            })
            .is_ok()
    }

    /// Block permits that nobody holds.
    pub fn blocks_left(&self) -> i64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// Bytes that may still be submitted.
    pub fn bytes_left(&self) -> i64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Log writer: says how much memory stalled threads hold back.
    pub fn set_held_bytes(&self, bytes: u64) {
        self.held_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Memory that stalled threads hold back.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Where those who were refused wait.
    pub fn room(&self) -> &WakeWord {
        &self.room
    }
}
