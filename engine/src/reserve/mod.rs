//! The protocol by which writes are decided. Knows no disk and no bytes.

/// A place where a test may stop a thread: between any two steps of an append.
#[cfg(feature = "internals")]
macro_rules! step {
    ($name:literal) => {
        $crate::reserve::pause::here($name)
    };
}

#[cfg(not(feature = "internals"))]
macro_rules! step {
    ($name:literal) => {};
}

pub(crate) use step;

pub mod accepted;
pub mod cell;
pub mod decide;
#[cfg(feature = "internals")]
pub mod pause;
pub mod slot;
pub mod slot_ref;
pub mod stack;
pub mod write;
