//! Threads and cells of the checker that the models are built for.

#[cfg(loom)]
pub use loom::{cell::UnsafeCell, sync, thread};
#[cfg(shuttle)]
pub use {
    cell::UnsafeCell,
    shuttle::{sync, thread},
};

#[cfg(shuttle)]
mod cell {
    /// A cell with the interface of loom's. Shuttle does not see its accesses: what was used again is told by what it holds.
    #[derive(Debug, Default)]
    pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        /// A cell that holds this.
        pub const fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        /// Lends it for reading.
        pub fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }

        /// Lends it for writing.
        pub fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
            write(self.0.get())
        }
    }
}
