//! Re-exports for the models, the fuzzers and the tests of this workspace.

/// Newtypes.
pub mod id {
    pub use crate::id::*;
}

/// The live index.
pub mod index {
    pub use crate::index::*;
}

/// Epochs, wake words, doorbells.
pub mod sync {
    #[cfg(any(loom, shuttle, feature = "mutants"))]
    pub use crate::sync::fault;
    #[cfg(not(loom))]
    pub use crate::sync::host;
    pub use crate::sync::{doorbell, epoch, followers, permits, wake_word, watermark};
}

/// The protocol.
pub mod reserve {
    pub use crate::reserve::{accepted, cell, decide, pause, slot, slot_ref, stack, write};
}

/// Bytes.
#[cfg(not(loom))]
pub mod format {
    pub use crate::format::*;
}

/// Disks.
#[cfg(not(loom))]
pub mod disk {
    pub use crate::disk::{
        Access, Completion, Disk, Entry, File, Flush, Lock, Queue, SyncMethod, Waker, sim,
    };
}

/// Opens a store on a disk of the caller's.
///
/// # Errors
///
/// As [`crate::Options::open`].
#[cfg(not(loom))]
pub fn open_on(
    options: &crate::Options,
    disk: std::sync::Arc<dyn disk::Disk>,
) -> Result<crate::Store, crate::Error> {
    options.open_on(disk)
}

/// Verifies the store on a disk of the caller's, as [`crate::verify`] does that in a directory.
///
/// # Errors
///
/// As [`crate::verify`].
#[cfg(not(loom))]
pub fn verify_on(disk: &dyn disk::Disk) -> Result<crate::Verification, crate::Error> {
    crate::verify::verify_on(disk, &mut |_, _| {})
}

/// Salvages the store on one disk into a new one on another, as [`crate::salvage`] does that in directories.
///
/// # Errors
///
/// As [`crate::salvage`].
#[cfg(not(loom))]
pub fn salvage_on(
    from: &dyn disk::Disk,
    to: std::sync::Arc<dyn disk::Disk>,
    set_aside: &mut dyn FnMut(&crate::SetAside<'_>) -> std::io::Result<()>,
) -> Result<crate::Salvage, crate::Error> {
    crate::salvage::salvage_on(from, to, set_aside, &mut |_, _| {})
}
