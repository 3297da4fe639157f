//! A file of the real file system.
//!
//! It has an ordinary descriptor, and one that passes the system's cache by (`O_DIRECT`) for flushes and for reads
//! that must come from the device. The second is opened at once for writing, when needed for reading, and is the
//! ordinary one where the file system refuses it.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
#[cfg(target_os = "linux")]
use std::os::fd::RawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, OnceLock};

use super::directory::Directory;
#[cfg(target_os = "linux")]
use super::directory::retry;
use super::{Access, Chunk, File, Mapping, SyncMethod, device};

/// The most bytes read or written with zeros in one call.
const STEP_BYTES: usize = 1 << 20;

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const DIRECT: Option<libc::c_int> = Some(libc::O_DIRECT);
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const DIRECT: Option<libc::c_int> = None;

/// See the top of the file.
#[derive(Debug)]
pub(super) struct RealFile {
    ordinary: fs::File,
    /// `None` inside: the file system refuses it, and the ordinary descriptor takes its place.
    direct: OnceLock<Option<Direct>>,
    directory: Arc<Directory>,
    /// Its path when it was opened.
    path: Box<str>,
}

#[derive(Debug)]
struct Direct {
    file: fs::File,
    align: usize,
}

impl RealFile {
    /// Creates a file that must not exist.
    pub(super) fn create(directory: &Arc<Directory>, path: &str) -> io::Result<RealFile> {
        directory.check_writable()?;
        RealFile::new(directory, path, libc::O_RDWR, libc::O_CREAT | libc::O_EXCL)
    }

    /// Opens a file that must exist.
    pub(super) fn open(dir: &Arc<Directory>, path: &str, access: Access) -> io::Result<RealFile> {
        match access {
            Access::Read => RealFile::new(dir, path, libc::O_RDONLY, 0),
            Access::Write => {
                dir.check_writable()?;
                RealFile::new(dir, path, libc::O_RDWR, 0)
            }
        }
    }

    fn new(dir: &Arc<Directory>, path: &str, mode: i32, flags: i32) -> io::Result<RealFile> {
        let file = RealFile {
            ordinary: dir.open_file(path, mode | flags)?,
            direct: OnceLock::new(),
            directory: Arc::clone(dir),
            path: path.into(),
        };
        // A file that is written gets another name later on, so its second descriptor is opened under this one.
        if mode == libc::O_RDWR {
            file.open_direct(mode)?;
        }
        Ok(file)
    }

    /// The descriptor that flushes go to.
    #[cfg(target_os = "linux")]
    pub(super) fn flush_descriptor(&self) -> RawFd {
        self.flush_file().as_raw_fd()
    }

    fn flush_file(&self) -> &fs::File {
        match self.direct.get() {
            Some(Some(direct)) => &direct.file,
            _ => &self.ordinary,
        }
    }

    fn open_direct(&self, mode: i32) -> io::Result<Option<&Direct>> {
        if let Some(opened) = self.direct.get() {
            return Ok(opened.as_ref());
        }
        let opened = match DIRECT {
            None => None,
            Some(flag) => match self.directory.open_file(&self.path, mode | flag) {
                Ok(file) if same_file(&file, &self.ordinary)? => {
                    let align = device::direct_align(&file).unwrap_or(0).max(4096) as usize;
                    Some(Direct { file, align })
                }
                // Another file has its name by now: nothing is known of this one.
                Ok(_) => None,
                // What a file system says that has no direct I/O.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => None,
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            },
        };
        Ok(self.direct.get_or_init(|| opened).as_ref())
    }

    /// Writes and makes durable, on the calling thread.
    pub(super) fn flush(&self, method: SyncMethod, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.flush_file();
        #[cfg(target_os = "linux")]
        if method == SyncMethod::WriteDsync {
            return write_dsync(file, offset, bytes);
        }
        // Without `RWF_DSYNC` both methods are this one.
        let _ = method;
        file.write_all_at(bytes, offset)?;
        file.sync_data()
    }

    /// Writes zeros into a range that was never written.
    fn write_zeros(&self, zeros: &[u8], from: u64, to: u64) -> io::Result<()> {
        let align = match self.direct.get() {
            Some(Some(direct)) => direct.align as u64,
            _ => 1,
        };
        let mut at = from;
        while at < to {
            let bytes = (to - at).min(zeros.len() as u64);
            // What is not aligned goes through the system's cache: up to the next boundary, and at the end.
            let (file, bytes) = match at % align {
                0 if bytes >= align => (self.flush_file(), bytes - bytes % align),
                0 => (&self.ordinary, bytes),
                over => (&self.ordinary, bytes.min(align - over)),
            };
            file.write_all_at(&zeros[..bytes as usize], at)?;
            at += bytes;
        }
        Ok(())
    }

    /// The first range at or after `from`, and below `to`, that has no written blocks.
    fn hole(&self, from: u64, to: u64) -> io::Result<Option<(u64, u64)>> {
        let hole = seek(&self.ordinary, from, libc::SEEK_HOLE)?.unwrap_or(from);
        if hole >= to {
            return Ok(None);
        }
        let data = seek(&self.ordinary, hole, libc::SEEK_DATA)?.unwrap_or(to);
        Ok(Some((hole, data.min(to))))
    }
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.ordinary.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.ordinary.read_exact_at(buffer, offset)
    }

    fn read_direct_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let Some(Direct { file, align }) = self.open_direct(libc::O_RDONLY)? else {
            return self.read_at(offset, buffer);
        };
        let align = *align as u64;
        let end = offset.checked_add(buffer.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        let room = end.checked_next_multiple_of(align).ok_or(io::ErrorKind::InvalidInput)?
            - (offset - offset % align);
        let mut bounce =
            Chunk::aligned(room.clamp(align, STEP_BYTES as u64) as usize, align as usize)?;
        let bounce = bounce.get_mut();
        let mut at = offset;
        while at < end {
            let from = at - at % align;
            let read = match file.read_at(bounce, from) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            let have = (from + read as u64).min(end);
            if have <= at {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer[(at - offset) as usize..(have - offset) as usize]
                .copy_from_slice(&bounce[(at - from) as usize..(have - from) as usize]);
            at = have;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.ordinary.write_all_at(bytes, offset)
    }

    fn prepare(&self, bytes: u64) -> io::Result<()> {
        let zeros = Chunk::aligned(STEP_BYTES.min(bytes.max(1) as usize), 65_536)?;
        // SAFETY: nobody writes into it, ever.
        let zeros = unsafe { zeros.slice(0..zeros.len()) };
        let mut at = 0;
        while let Some((from, to)) = self.hole(at, bytes)? {
            let prepared = match allocate(&self.ordinary, from, to) {
                Ok(Allocated::Written) => Ok(()),
                Ok(Allocated::Reserved) => self.write_zeros(zeros, from, to),
                Err(error) => Err(error),
            };
            prepared.map_err(|error| match error.kind() {
                // A quota and a limit on a file's length are a full disk to whoever meets them.
                io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    io::Error::new(io::ErrorKind::StorageFull, error)
                }
                _ => error,
            })?;
            at = to;
        }
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.ordinary.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.ordinary.sync_all()
    }

    fn map(&self, bytes: u64) -> io::Result<Mapping> {
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        if length == 0 {
            return Ok(Mapping::Owned(Box::default()));
        }
        if self.len()? < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: the engine maps what it does not change any more, and nobody else may: the directory belongs to
        // one user, and the store's lock keeps a second engine away. Cutting the file regardless raises SIGBUS.
        let map = unsafe { memmap2::MmapOptions::new().len(length).map(&self.ordinary) };
        map.map(Mapping::Mapped)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

fn same_file(a: &fs::File, b: &fs::File) -> io::Result<bool> {
    let (a, b) = (a.metadata()?, b.metadata()?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// Where the next hole or data starts; `None` beyond the last.
fn seek(file: &fs::File, from: u64, what: libc::c_int) -> io::Result<Option<u64>> {
    let from = libc::off_t::try_from(from).map_err(|_| io::ErrorKind::FileTooLarge)?;
    // SAFETY: a plain call on an open descriptor, whose offset nobody relies on.
    let found = unsafe { libc::lseek(file.as_raw_fd(), from, what) };
    match u64::try_from(found) {
        Ok(found) => Ok(Some(found)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
enum Allocated {
    /// Blocks that read as zeros and need no journal when they are overwritten.
    Written,
    /// Space at most: zeros have to be written.
    Reserved,
}

/// Takes the space of a range that has none, as well as the file system can.
#[cfg(target_os = "linux")]
fn allocate(file: &fs::File, from: u64, to: u64) -> io::Result<Allocated> {
    /// `FALLOC_FL_WRITE_ZEROES`, since Linux 6.17: the device writes the zeros, and cheaply or not at all.
    const WRITE_ZEROES: libc::c_int = 0x80;
    let length = |n: u64| libc::off_t::try_from(n).map_err(|_| io::ErrorKind::FileTooLarge);
    let (offset, bytes) = (length(from)?, length(to - from)?);
    for (mode, done) in [(WRITE_ZEROES, Allocated::Written), (0, Allocated::Reserved)] {
        // SAFETY: a plain call on an open descriptor.
        match retry(|| unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, bytes) }) {
            Ok(_) => return Ok(done),
            Err(error) => match error.raw_os_error() {
                Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS) => {}
                _ => return Err(error),
            },
        }
    }
    Ok(Allocated::Reserved)
}

/// Writing the zeros takes the space.
#[cfg(not(target_os = "linux"))]
fn allocate(_: &fs::File, _: u64, _: u64) -> io::Result<Allocated> {
    Ok(Allocated::Reserved)
}

/// One write that is durable when it returns, or several if the system writes less than it was given.
#[cfg(target_os = "linux")]
fn write_dsync(file: &fs::File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        let part = libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
        let at =
            libc::off_t::try_from(offset + done as u64).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: one vector, whose memory is borrowed until the call returns and only read.
        let written = unsafe { libc::pwritev2(file.as_raw_fd(), &part, 1, at, libc::RWF_DSYNC) };
        match written {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            1.. => done += written as usize,
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, Arc<Directory>) {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = Arc::new(Directory::open(root.path(), true).unwrap());
        (root, dir)
    }

    #[test]
    fn preparing_writes_every_block_and_keeps_what_was_there() {
        let (_root, dir) = directory();
        let file = RealFile::create(&dir, "a").unwrap();
        file.write_at(100, b"kept").unwrap();
        file.set_len(900_000).unwrap();
        file.write_at(700_001, b"kept too").unwrap();
        file.sync().unwrap();
        file.prepare(3 << 20).unwrap();
        file.sync().unwrap();
        assert_eq!(file.len().unwrap(), 3 << 20);
        // Reserved space reads as a hole; written space does not.
        assert_eq!(file.hole(0, 3 << 20).unwrap(), None);
        let mut bytes = vec![1; 3 << 20];
        file.read_direct_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes[100..104], b"kept");
        assert_eq!(&bytes[700_001..700_009], b"kept too");
        assert_eq!(bytes.iter().filter(|&&b| b != 0).count(), 12);
        // A second time, and further.
        file.prepare((3 << 20) + 4096).unwrap();
        assert_eq!(file.len().unwrap(), (3 << 20) + 4096);
    }

    #[test]
    fn direct_reads_need_no_alignment() {
        let (_root, dir) = directory();
        let file = RealFile::create(&dir, "a").unwrap();
        let bytes: Vec<u8> = (0..3_000_001u32).map(|i| (i % 251) as u8).collect();
        file.write_at(0, &bytes).unwrap();
        file.sync().unwrap();
        let file = RealFile::open(&dir, "a", Access::Read).unwrap();
        for (offset, length) in [
            (0, 1),
            (4095, 2),
            (1, 2_999_000),
            (3_000_000, 1),
            (0, 3_000_001),
            (8192, 4096),
            (7, 0),
        ] {
            let mut buffer = vec![0; length];
            file.read_direct_at(offset as u64, &mut buffer).unwrap();
            assert!(buffer == bytes[offset..offset + length], "{length} at {offset}");
        }
        for (offset, length) in [(3_000_000, 2), (3_000_001, 1), (9_000_000, 1)] {
            let error = file.read_direct_at(offset, &mut vec![0; length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            let error = file.read_at(offset, &mut vec![0; length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        file.read_direct_at(u64::MAX, &mut [0; 2]).unwrap_err();
    }

    #[test]
    fn a_renamed_file_is_not_taken_for_its_successor() {
        let (_root, dir) = directory();
        RealFile::create(&dir, "a").unwrap().write_at(0, b"old").unwrap();
        let old = RealFile::open(&dir, "a", Access::Read).unwrap();
        dir.rename("a", "b").unwrap();
        RealFile::create(&dir, "a").unwrap().write_at(0, b"new").unwrap();
        let mut bytes = [0; 3];
        old.read_direct_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"old");
    }

    #[test]
    fn a_map_shows_the_bytes_and_outlives_the_file() {
        let (_root, dir) = directory();
        let file = RealFile::create(&dir, "a").unwrap();
        file.write_at(0, &[7; 5000]).unwrap();
        assert_eq!(file.map(5001).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(file.map(0).unwrap().is_empty());
        let map = file.map(5000).unwrap();
        drop(file);
        dir.remove("a").unwrap();
        assert_eq!(*map, [7; 5000]);
    }

    #[test]
    fn both_methods_write() {
        let (_root, dir) = directory();
        let file = RealFile::create(&dir, "a").unwrap();
        file.prepare(1 << 16).unwrap();
        let mut chunk = Chunk::new(8192).unwrap();
        chunk.get_mut().fill(3);
        file.flush(SyncMethod::WriteDsync, 4096, chunk.get_mut()).unwrap();
        chunk.get_mut().fill(4);
        file.flush(SyncMethod::WriteThenSync, 12288, chunk.get_mut()).unwrap();
        let mut bytes = [0; 24576];
        file.read_at(0, &mut bytes).unwrap();
        let expected: Vec<u8> = [0, 3, 3, 4, 4, 0].iter().flat_map(|&b| [b; 4096]).collect();
        assert!(bytes[..] == expected);
    }
}
