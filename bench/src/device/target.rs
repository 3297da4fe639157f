//! The file that a loop works on, and memory that direct I/O takes.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use rustix::fs::FallocateFlags;

/// What direct I/O is aligned to; no file system asks for more.
const ALIGN: usize = 4096;

/// Since Linux 6.17: the device writes the zeros.
const WRITE_ZEROES: FallocateFlags = FallocateFlags::from_bits_retain(0x80);

/// A file of which every block was written once, as the engine prepares a segment: writing it again needs no journal.
#[derive(Debug)]
pub struct Target {
    file: File,
    path: PathBuf,
    bytes: u64,
    direct: bool,
}

impl Target {
    /// Makes the file, and makes it durable.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn create(path: &Path, bytes: u64) -> io::Result<Target> {
        let bytes = bytes.next_multiple_of(ALIGN as u64);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let direct = options.clone().custom_flags(libc::O_DIRECT).open(path);
        let (file, direct) = match direct {
            Ok(file) => (file, true),
            // What a file system says that has no direct I/O; the file may be there by now.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                (options.create_new(false).create(true).open(path)?, false)
            }
            Err(error) => return Err(error),
        };
        let target = Target { file, path: path.to_owned(), bytes, direct };
        target.prepare()?;
        Ok(target)
    }

    fn prepare(&self) -> io::Result<()> {
        if rustix::fs::fallocate(&self.file, WRITE_ZEROES, 0, self.bytes).is_err() {
            // Space of one piece where it can be had; what counts is that zeros are written.
            let _ = rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, self.bytes);
            let zeros = Buffer::zeroed(1 << 20);
            let mut at = 0;
            while at < self.bytes {
                let length = (self.bytes - at).min(zeros.bytes().len() as u64) as usize;
                self.file.write_all_at(&zeros.bytes()[..length], at)?;
                at += length as u64;
            }
        }
        self.file.sync_all()?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it passes the system's cache by.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Where the next request of so many bytes goes: behind the last one, or to the start again.
    pub(super) fn next(&self, offset: &mut u64, bytes: usize) -> u64 {
        let bytes = bytes as u64;
        if *offset + bytes > self.bytes {
            *offset = 0;
        }
        let at = *offset;
        *offset += bytes;
        at
    }
}

/// Memory aligned for direct I/O. It does not move while it lives.
#[derive(Debug)]
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Buffer {
    /// Zeros.
    #[must_use]
    pub fn zeroed(bytes: usize) -> Buffer {
        let memory = vec![0; bytes + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        Buffer { memory, start, length: bytes }
    }

    /// What no drive or host can make smaller.
    #[must_use]
    pub fn random(bytes: usize) -> Buffer {
        let mut buffer = Buffer::zeroed(bytes);
        SmallRng::seed_from_u64(bytes as u64).fill_bytes(buffer.bytes_mut());
        buffer
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }

    /// The bytes, to change them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_written() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let target = Target::create(&dir.path().join("file"), (3 << 20) + 5).unwrap();
        assert_eq!(target.bytes(), (3 << 20) + 4096);
        let hole = rustix::fs::seek(target.file(), rustix::fs::SeekFrom::Hole(0)).unwrap();
        assert_eq!(hole, target.bytes());
    }

    #[test]
    fn requests_follow_one_another_and_never_pass_the_end() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let target = Target::create(&dir.path().join("file"), 3 * 4096).unwrap();
        let mut offset = 0;
        let places: Vec<u64> = (0..4).map(|_| target.next(&mut offset, 4096)).collect();
        assert_eq!(places, [0, 4096, 8192, 0]);
        assert_eq!(target.next(&mut offset, 8192), 4096);
        assert_eq!(target.next(&mut offset, 8192), 0);
    }

    #[test]
    fn buffers_are_aligned() {
        for bytes in [1, 4096, 1 << 20] {
            let mut buffer = Buffer::random(bytes);
            assert_eq!(buffer.bytes().as_ptr() as usize % ALIGN, 0);
            assert_eq!(buffer.bytes_mut().len(), bytes);
        }
        assert!(Buffer::random(4096).bytes().iter().any(|byte| *byte != 0));
    }
}
