//! Files: knows no records.
//!
//! [`Disk`] is one store directory. [`File`] is one file in it. [`Queue`] is what a log writer puts its flushes
//! into: several in flight, completions in any order. There are three of each: `uring` and `blocking` on the real
//! file system (they share everything but the queue), and `sim`, in memory, for tests that lose power.
//!
//! Paths are relative to the store directory and made by the engine alone (`shard-0000/0000000000000001.seg`).
//! No implementation follows a symbolic link, opens anything but a regular file, or inherits a descriptor to a
//! child process.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

#[cfg(unix)]
mod blocking;
mod chunk;
#[cfg(all(test, unix))]
mod contract;
#[cfg(unix)]
mod device;
#[cfg(unix)]
mod directory;
#[cfg(unix)]
mod file;
#[cfg(unix)]
mod lock;
#[cfg(unix)]
mod probe;
mod real;
#[cfg(target_os = "linux")]
mod ring;
#[cfg(any(test, feature = "internals"))]
pub mod sim;
#[cfg(target_os = "linux")]
mod uring;
#[cfg(any(target_os = "linux", test, feature = "internals"))]
mod verdict;

pub use chunk::Chunk;
pub use real::{Opening, QueueKind, Trust, open, open_trusting};

/// A store directory.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Makes a directory; one that exists already is fine. Durable after `sync_dir` of its parent.
    fn create_dir(&self, dir: &str) -> io::Result<()>;
    /// What a directory (`""` is the store's own) holds, in no order.
    fn list(&self, dir: &str) -> io::Result<Vec<Entry>>;
    /// Creates a file that must not exist (`AlreadyExists` otherwise), for reading and writing.
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>>;
    /// Opens a file that must exist (`NotFound` otherwise). One that is not regular is `InvalidInput`.
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>>;
    /// Replaces `to` if it exists. Durable after `sync_dir`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Durable after `sync_dir`.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// The larger of the file system's direct-I/O alignment and the physical sector, in bytes, a power of two
    /// within `limits::BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX`; 4096 where the system does not say.
    fn block_bytes(&self) -> u32;
    /// Takes the store's lock, retried for two seconds; `WouldBlock` if somebody else holds it. It is held until the
    /// `Lock` and every `Queue` made with it are gone.
    fn lock(&self) -> io::Result<Arc<dyn Lock>>;
    /// A queue for one log writer. `depth` flushes at most are in flight.
    fn queue(
        &self,
        lock: &Arc<dyn Lock>,
        depth: usize,
        method: SyncMethod,
    ) -> io::Result<Box<dyn Queue>>;
    /// Which durability method is faster here, measured with a few writes of one block each in a temporary file.
    fn probe(&self) -> io::Result<SyncMethod>;
    /// `"uring"`, `"blocking"` or `"sim"`: which kind of queue `queue` makes.
    fn backend(&self) -> &'static str;
}

/// Proof that the store's lock is held.
pub trait Lock: Send + Sync + fmt::Debug {}

/// One file or directory in a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name; one that is not UTF-8 is converted with loss, and so is never a name of ours.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// A regular file, not a link, directory or pipe.
    pub regular: bool,
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading alone.
    Read,
    /// Reading, writing, cutting.
    Write,
}

/// One file. Calls on the caller's thread, blocking; the fast path goes through a `Queue`.
#[allow(clippy::len_without_is_empty)]
pub trait File: Send + Sync + fmt::Debug {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills the buffer or fails; `UnexpectedEof` beyond the end. May read through the system's cache.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// As `read_at`, from the device and not from a cache, where the system allows; offset and length need not be
    /// aligned.
    fn read_direct_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes everything or fails. Durable after `sync`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file's blocks from 0 to `bytes` exist *and written* (with zeros where they were not), so that a
    /// later write into them needs no allocation and no journal. Durable after `sync`. `StorageFull` leaves a
    /// file that the caller removes.
    fn prepare(&self, bytes: u64) -> io::Result<()>;
    /// Cuts or grows the file. Durable after `sync`.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Everything written to the file, and its length, is durable on return.
    fn sync(&self) -> io::Result<()>;
    /// The first `bytes` of the file in memory. The caller has checked the length.
    fn map(&self, bytes: u64) -> io::Result<Mapping>;
    /// For the implementations' own use: the concrete file behind the trait.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// A file's bytes in memory, read-only, alive as long as this is.
pub enum Mapping {
    /// Mapped by the system.
    Mapped(memmap2::Mmap),
    /// Read into memory of our own.
    Owned(Box<[u8]>),
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Mapping::Mapped(map) => map,
            Mapping::Owned(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Mapping::Mapped(_) => "Mapped",
            Mapping::Owned(_) => "Owned",
        };
        write!(f, "{name}({} bytes)", self.len())
    }
}

/// How a flush is made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncMethod {
    /// One write that is durable when it returns (`RWF_DSYNC`).
    WriteDsync,
    /// A write, then `fdatasync`.
    WriteThenSync,
}

/// One flush on its way to the disk. Whole blocks: `offset`, `start` and `bytes` are multiples of the block.
pub struct Flush {
    /// The caller's number for it, given back in the [`Completion`].
    pub token: u64,
    /// Where to.
    pub file: Arc<dyn File>,
    /// Offset in the file.
    pub offset: u64,
    /// Where from. Owned by the operation until it completes.
    pub memory: Arc<Chunk>,
    /// Offset in the memory.
    pub start: usize,
    /// How many bytes.
    pub bytes: usize,
}

impl fmt::Debug for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flush")
            .field("token", &self.token)
            .field("offset", &self.offset)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// A flush that is durable, or failed. A short write is finished by the queue or reported as a failure.
#[derive(Debug)]
pub struct Completion {
    /// The number it was started with.
    pub token: u64,
    /// Whether it is durable.
    pub result: io::Result<()>,
}

/// Flushes in flight. Owned by the log writer's thread, on which it is also first used: `wait` must be called from
/// the thread that calls `start`. Dropping it waits for what is in flight.
pub trait Queue: Send + fmt::Debug {
    /// Starts a flush. At most `depth` are in flight: the caller counts.
    fn start(&mut self, flush: Flush);
    /// Appends what has completed since the last call, without waiting.
    fn poll(&mut self, completed: &mut Vec<Completion>);
    /// Sleeps until something completes, a [`Waker`] of this queue is called (also if that was before this call and
    /// after the last one returned), or the time is over; then as `poll`. A wait may end early for no reason.
    fn wait(&mut self, limit: Option<Duration>, completed: &mut Vec<Completion>);
    /// What other threads call to end a `wait`. Never blocks.
    fn waker(&self) -> Arc<dyn Waker>;
}

/// Ends a [`Queue::wait`] from another thread.
pub trait Waker: Send + Sync + fmt::Debug {
    /// Makes the system call; the caller has seen that the writer sleeps.
    fn wake(&self);
}
