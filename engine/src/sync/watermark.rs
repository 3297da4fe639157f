//! How much of a log is durable and published.
//!
//! The log writer moves it over a flush when the slots of that flush are published. A reader takes it first, then the
//! heads of slots, and ignores what lies above: so it sees all of a write or nothing, in every slot.

use crate::id::Position;
use crate::sync::atomic::{AtomicU64, Ordering};

/// See the module.
#[derive(Debug)]
pub struct Watermark(AtomicU64);

impl Watermark {
    /// All below `end` is durable and published.
    pub fn new(end: Position) -> Watermark {
        Watermark(AtomicU64::new(end.get()))
    }

    /// All below it is durable and published.
    #[inline]
    pub fn get(&self) -> Position {
        // Acquire: pairs with the Release in `publish`, so that all below it is visible with it.
        Position::from_raw(self.0.load(Ordering::Acquire))
    }

    /// Log writer: moves it to the end of a flush, once all below that is published.
    pub fn publish(&self, end: Position) {
        // Release: pairs with the Acquire in `get`.
        self.0.store(end.get(), ordering!(Release, unless WatermarkRelaxed));
    }
}
