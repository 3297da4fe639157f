//! The store's lock: `flock` on a file of its own.
//!
//! It belongs to one opening of the file, so a second opening is refused in the same process as in any other, and by
//! whatever path it comes. A ring registers the file: the operations of a killed process can outlive it, and while
//! they do, the ring does and keeps the lock.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
#[cfg(target_os = "linux")]
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::Lock;
use super::directory::{Directory, retry};
use crate::sync::process::Process;
use crate::sync::thread;

/// The name of the lock file.
pub(super) const LOCK_FILE: &str = "lock";
/// How long a lock that somebody holds is tried for. A killed process's can be held for a while after it is gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// A held lock.
#[derive(Debug)]
pub(super) struct RealLock {
    file: File,
    process: Process,
}

impl RealLock {
    pub(super) fn take(directory: &Directory) -> io::Result<RealLock> {
        directory.check_writable()?;
        let file = directory.open_file(LOCK_FILE, libc::O_RDWR | libc::O_CREAT)?;
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            // SAFETY: a plain call on an open descriptor.
            match retry(|| unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })
            {
                Ok(_) => return Ok(RealLock { file, process: Process::current() }),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(error) if start.elapsed() >= PATIENCE => return Err(error),
                Err(_) => thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// For registering it in a ring.
    #[cfg(target_os = "linux")]
    pub(super) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Lock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Unlocked by name rather than by closing alone: a ring goes away some time after it was closed, and a child
        // process can hold a copy of the descriptor. A child must not unlock what is its parent's.
        if self.process.is_current() {
            // SAFETY: a plain call on an open descriptor. If it fails, closing unlocks.
            unsafe { libc::flock(self.file.as_raw_fd(), libc::LOCK_UN) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_by_whatever_path() {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let other = tempfile::tempdir_in("/var/tmp").unwrap();
        std::os::unix::fs::symlink(root.path(), other.path().join("link")).unwrap();
        let dir = Directory::open(root.path(), true).unwrap();
        let same = Directory::open(&other.path().join("link"), true).unwrap();
        let lock = RealLock::take(&dir).unwrap();
        let start = Instant::now();
        assert_eq!(RealLock::take(&same).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(start.elapsed() >= PATIENCE);
        let waiter = thread::spawn(move || RealLock::take(&same).map(drop));
        thread::sleep(Duration::from_millis(50));
        drop(lock);
        waiter.join().unwrap().unwrap();
    }

    #[test]
    fn a_child_neither_unlocks_nor_keeps_the_lock() {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = Directory::open(root.path(), true).unwrap();
        let lock = RealLock::take(&dir).unwrap();
        // A child that has dropped its copy, and lives on with another.
        // SAFETY: the child only makes system calls before it exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(RealLock { file: lock.file.try_clone().unwrap(), process: lock.process });
            // SAFETY: as above.
            unsafe {
                libc::usleep(4_000_000);
                libc::_exit(0);
            }
        }
        thread::sleep(Duration::from_millis(100));
        let file = dir.open_file(LOCK_FILE, libc::O_RDWR).unwrap();
        // SAFETY: a plain call on an open descriptor.
        let taken = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        assert_eq!(taken, -1, "the child unlocked it");
        drop(lock);
        let start = Instant::now();
        drop(RealLock::take(&dir).unwrap());
        assert!(start.elapsed() < Duration::from_secs(1), "the child kept it");
        // SAFETY: the child made above.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
    }
}
