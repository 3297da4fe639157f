//! The real file system: what puts directory, files, lock and queues together.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Disk;

/// How a store directory is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opening {
    /// For reading and writing; made if it does not exist.
    Create,
    /// For reading and writing; `NotFound` if it does not exist.
    Existing,
    /// For reading: nothing is created, changed or locked, and what would is `ReadOnlyFilesystem`.
    ReadOnly,
}

/// Who may write in a store directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// Its owner, and whom its owner has let in by group. Files of others are refused, and so is a directory in which
    /// everybody may write.
    Owner,
    /// Anyone.
    Anyone,
}

/// Which queue carries flushes to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum QueueKind {
    /// A ring where the system allows it, else threads that block.
    #[default]
    Auto,
    /// A ring; `Unsupported` where it can't be had.
    Uring,
    /// Threads that block.
    Blocking,
}

/// Opens a store directory that others may not write in.
pub fn open(path: &Path, opening: Opening, queue: QueueKind) -> io::Result<Arc<dyn Disk>> {
    open_trusting(path, opening, queue, Trust::Owner)
}

/// Opens a store directory.
#[cfg(unix)]
pub fn open_trusting(
    path: &Path,
    opening: Opening,
    queue: QueueKind,
    trust: Trust,
) -> io::Result<Arc<dyn Disk>> {
    unix::RealDisk::open(path, opening, queue, trust).map(|disk| Arc::new(disk) as _)
}

/// Opens a store directory.
#[cfg(not(unix))]
pub fn open_trusting(_: &Path, _: Opening, _: QueueKind, _: Trust) -> io::Result<Arc<dyn Disk>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "stores are kept on unix file systems only"))
}

#[cfg(unix)]
mod unix {
    use std::io;
    use std::path::Path;
    use std::ptr;
    use std::sync::{Arc, Mutex, PoisonError, Weak};

    use super::{Opening, QueueKind, Trust};
    use crate::disk::blocking::BlockingQueue;
    use crate::disk::directory::Directory;
    use crate::disk::file::RealFile;
    use crate::disk::lock::{LOCK_FILE, RealLock};
    #[cfg(target_os = "linux")]
    use crate::disk::uring::UringQueue;
    use crate::disk::{Access, Disk, Entry, File, Lock, Queue, SyncMethod, device, probe};
    use crate::limits::BLOCK_BYTES_MIN;

    /// See the top of the file.
    #[derive(Debug)]
    pub(super) struct RealDisk {
        directory: Arc<Directory>,
        /// What was asked for.
        #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
        kind: QueueKind,
        /// Whether queues are rings; settled at the opening.
        ring: bool,
        /// The lock taken last, if it is still held: queues keep it too.
        held: Mutex<Weak<RealLock>>,
    }

    impl RealDisk {
        pub(super) fn open(
            path: &Path,
            opening: Opening,
            kind: QueueKind,
            trust: Trust,
        ) -> io::Result<RealDisk> {
            let writable = opening != Opening::ReadOnly;
            // Before anything is made that a refusal would leave behind.
            let ring = match kind {
                QueueKind::Blocking => false,
                // No queue will be made.
                QueueKind::Auto | QueueKind::Uring if !writable => kind == QueueKind::Uring,
                QueueKind::Uring => {
                    try_ring().map_err(unsupported)?;
                    true
                }
                QueueKind::Auto => match try_ring() {
                    Ok(()) => true,
                    Err(error) => {
                        say_blocking(&error);
                        false
                    }
                },
            };
            if opening == Opening::Create {
                Directory::create(path)?;
            }
            let directory = Arc::new(Directory::open_trusting(path, writable, trust)?);
            Ok(RealDisk { directory, kind, ring, held: Mutex::default() })
        }

        /// The lock, if it is one of this disk's.
        fn own(&self, lock: &Arc<dyn Lock>) -> io::Result<Arc<RealLock>> {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
            held.filter(|held| ptr::addr_eq(Arc::as_ptr(held), Arc::as_ptr(lock)))
                .ok_or_else(|| io::ErrorKind::InvalidInput.into())
        }
    }

    #[cfg(target_os = "linux")]
    fn try_ring() -> io::Result<()> {
        UringQueue::trial()
    }

    #[cfg(not(target_os = "linux"))]
    fn try_ring() -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no rings"))
    }

    fn unsupported(error: io::Error) -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, format!("io_uring can't be used: {error}"))
    }

    fn say_blocking(error: &io::Error) {
        if cfg!(target_os = "linux") {
            tracing::warn!(%error, "io_uring can't be used; flushes go through threads that block");
        }
    }

    impl Disk for RealDisk {
        fn create_dir(&self, dir: &str) -> io::Result<()> {
            self.directory.create_dir(dir)
        }

        fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
            self.directory.list(dir)
        }

        fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
            RealFile::create(&self.directory, path).map(|file| Arc::new(file) as _)
        }

        fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
            RealFile::open(&self.directory, path, access).map(|file| Arc::new(file) as _)
        }

        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.directory.rename(from, to)
        }

        fn remove(&self, path: &str) -> io::Result<()> {
            self.directory.remove(path)
        }

        fn sync_dir(&self, dir: &str) -> io::Result<()> {
            self.directory.sync(dir)
        }

        fn block_bytes(&self) -> u32 {
            // The system says it of a file, not of a directory. The lock file is there once the lock was taken.
            match self.directory.open_file(LOCK_FILE, libc::O_RDONLY) {
                Ok(file) => device::block_bytes(&file),
                Err(_) => 4096.max(BLOCK_BYTES_MIN),
            }
        }

        fn lock(&self) -> io::Result<Arc<dyn Lock>> {
            let lock = Arc::new(RealLock::take(&self.directory)?);
            *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&lock);
            Ok(lock)
        }

        fn queue(
            &self,
            lock: &Arc<dyn Lock>,
            depth: usize,
            method: SyncMethod,
        ) -> io::Result<Box<dyn Queue>> {
            let lock = self.own(lock)?;
            #[cfg(target_os = "linux")]
            if self.ring {
                match UringQueue::new(Arc::clone(&lock), depth, method) {
                    Ok(queue) => return Ok(Box::new(queue)),
                    Err(error) if self.kind == QueueKind::Uring => return Err(unsupported(error)),
                    Err(error) => say_blocking(&error),
                }
            }
            Ok(Box::new(BlockingQueue::new(lock, depth, method)))
        }

        fn probe(&self) -> io::Result<SyncMethod> {
            probe::probe(&self.directory, self.block_bytes())
        }

        fn backend(&self) -> &'static str {
            if self.ring { "uring" } else { "blocking" }
        }
    }
}
