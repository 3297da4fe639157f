//! Which process a thing belongs to.
//!
//! A child made by `fork` inherits descriptors, the lock and a copy of the memory, but none of the threads, and its
//! rings are not mapped. It must neither use nor give back what belongs to its parent.

/// The process that made something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process(u32);

impl Process {
    /// The process that calls.
    #[must_use]
    pub fn current() -> Process {
        Process(std::process::id())
    }

    /// Whether the calling process is the one that made it, not a child of it.
    #[must_use]
    pub fn is_current(self) -> bool {
        self == Process::current()
    }
}
