//! How a store is created and opened.

use crate::error::Error;
use crate::limits;

/// How flushes reach the disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Backend {
    /// io_uring where it can be had, `Blocking` otherwise (a warning says so once).
    #[default]
    Auto,
    /// io_uring; opening fails where it can't be had.
    Uring,
    /// Threads that write and wait. The same promises, on every system.
    Blocking,
}

/// How a flush is made durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Durability {
    /// One write that is durable when it returns (`RWF_DSYNC`).
    WriteDsync,
    /// A write, then `fdatasync`.
    WriteThenSync,
}

/// Options for creating and opening a store.
///
/// What is fixed when a store is created (`shards`, `route_by_prefix`, `segment_bytes`, `block_bytes`) may be left
/// out when it is opened again; if given, it must be what is stored.
///
/// ```
/// use annals::{Backend, Options};
/// # let dir = tempfile::tempdir_in("/var/tmp")?;
///
/// let store = Options::new().shards(2).route_by_prefix(b'/').backend(Backend::Blocking).open(dir.path())?;
/// assert_eq!(store.shards(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    pub(crate) shards: Option<u16>,
    pub(crate) route: Option<u8>,
    pub(crate) segment_bytes: Option<u64>,
    pub(crate) block_bytes: Option<u32>,
    pub(crate) durability: Option<Durability>,
    pub(crate) backend: Backend,
    pub(crate) read_only: bool,
    pub(crate) create: bool,
    pub(crate) mapped: bool,
    pub(crate) world_writable: bool,
    pub(crate) tail_bytes: usize,
    pub(crate) in_flight_bytes: usize,
    pub(crate) flush_window: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl Options {
    /// The defaults: one shard, the whole key routes, 64 MiB segments, created if it does not exist.
    pub const fn new() -> Options {
        Options {
            shards: None,
            route: None,
            segment_bytes: None,
            block_bytes: None,
            durability: None,
            backend: Backend::Auto,
            read_only: false,
            create: true,
            mapped: true,
            world_writable: false,
            tail_bytes: limits::TAIL_BYTES_DEFAULT,
            in_flight_bytes: limits::IN_FLIGHT_BYTES_DEFAULT,
            flush_window: limits::FLUSH_WINDOW_DEFAULT,
        }
    }

    /// How many shards the store has: 1 unless set, 1,024 at most. Each has a log, a log writer and an order of its
    /// own; a write can't span two. Fixed at creation.
    pub const fn shards(mut self, shards: u16) -> Options {
        self.shards = Some(shards);
        self
    }

    /// Routes an aggregate to its shard by the part of its key before the first such byte, so that what shares the
    /// part can be written together; a key without the byte routes as a whole. Fixed at creation.
    pub const fn route_by_prefix(mut self, separator: u8) -> Options {
        self.route = Some(separator);
        self
    }

    /// The size that segments grow to, in bytes: 64 MiB unless set, from 1 MiB to 1 GiB. Fixed at creation.
    pub const fn segment_bytes(mut self, bytes: u64) -> Options {
        self.segment_bytes = Some(bytes);
        self
    }

    /// The block that flushes are padded to, in bytes: what the file system and the drive say unless set. A smaller
    /// one is safe only if the drive writes it without rewriting its neighbours. Fixed at creation.
    pub const fn block_bytes(mut self, bytes: u32) -> Options {
        self.block_bytes = Some(bytes);
        self
    }

    /// How flushes are made durable: what a probe found faster at creation, unless set.
    pub const fn durability(mut self, durability: Durability) -> Options {
        self.durability = Some(durability);
        self
    }

    /// How flushes reach the disk.
    pub const fn backend(mut self, backend: Backend) -> Options {
        self.backend = backend;
        self
    }

    /// Opens for reading alone: beside a writer too, without a lock, without changing a byte. It shows what was
    /// durable at the moment of opening and does not follow.
    pub const fn read_only(mut self, read_only: bool) -> Options {
        self.read_only = read_only;
        self
    }

    /// Whether a directory is opened in which everybody may write, and files in it that belong to other users: no unless
    /// set. Whoever may write there can put files in the place of the store's, and cut a mapped one, which ends the process.
    pub const fn world_writable(mut self, allowed: bool) -> Options {
        self.world_writable = allowed;
        self
    }

    /// Whether a store that does not exist is created: yes unless set.
    pub const fn create(mut self, create: bool) -> Options {
        self.create = create;
        self
    }

    /// Whether older segments are read through memory maps: yes unless set. A disk error under a map kills the
    /// process (SIGBUS); without maps it is an error of that read.
    pub const fn mapped(mut self, mapped: bool) -> Options {
        self.mapped = mapped;
        self
    }

    /// How much of the recent log of each shard stays in memory, in bytes: 64 MiB unless set.
    pub const fn tail_bytes(mut self, bytes: usize) -> Options {
        self.tail_bytes = bytes;
        self
    }

    /// How many bytes may be accepted and not yet durable on each shard: 64 MiB unless set. Beyond it appends wait.
    pub const fn in_flight_bytes(mut self, bytes: usize) -> Options {
        self.in_flight_bytes = bytes;
        self
    }

    /// How many flushes of a shard may be in flight: 2 unless set, 64 at most. More of them suit a device that is slow
    /// to answer and has cores to spare beside it.
    pub const fn flush_window(mut self, flushes: usize) -> Options {
        self.flush_window = flushes;
        self
    }

    /// Refuses values that no store can have.
    pub(crate) fn check(&self) -> Result<(), Error> {
        fn within<T: PartialOrd + std::fmt::Display>(
            name: &str,
            value: T,
            least: T,
            most: T,
        ) -> Result<(), Error> {
            if value < least || value > most {
                return Err(Error::invalid(format!(
                    "{name} is {value}: expected {least} to {most}"
                )));
            }
            Ok(())
        }
        if let Some(shards) = self.shards {
            within("shards", shards, 1, limits::SHARDS_MAX)?;
        }
        if let Some(bytes) = self.segment_bytes {
            within("segment_bytes", bytes, limits::SEGMENT_BYTES_MIN, limits::SEGMENT_BYTES_MAX)?;
        }
        if let Some(bytes) = self.block_bytes {
            within("block_bytes", bytes, limits::BLOCK_BYTES_MIN, limits::BLOCK_BYTES_MAX)?;
            if !bytes.is_power_of_two() {
                return Err(Error::invalid(format!(
                    "block_bytes is {bytes}: expected a power of two"
                )));
            }
        }
        within("flush_window", self.flush_window, 1, limits::FLUSH_WINDOW_MAX)?;
        within("in_flight_bytes", self.in_flight_bytes, 1 << 20, isize::MAX as usize / 2)?;
        within("tail_bytes", self.tail_bytes, 1 << 20, isize::MAX as usize / 2)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_on_both_sides_of_the_edge() {
        assert!(Options::new().check().is_ok());
        assert!(Options::new().shards(0).check().is_err());
        assert!(Options::new().shards(1024).check().is_ok());
        assert!(Options::new().shards(1025).check().is_err());
        assert!(Options::new().segment_bytes((1 << 20) - 1).check().is_err());
        assert!(Options::new().segment_bytes(1 << 30).check().is_ok());
        assert!(Options::new().segment_bytes((1 << 30) + 1).check().is_err());
        assert!(Options::new().block_bytes(3000).check().is_err());
        assert!(Options::new().block_bytes(512).check().is_ok());
        assert!(Options::new().flush_window(0).check().is_err());
        assert!(Options::new().flush_window(65).check().is_err());
    }
}
