//! The store directory, opened once: every name below it is resolved from its descriptor.
//!
//! A path has one component or two (`identity`, `shard-0000/0000000000000001.seg`). Each is opened by itself with
//! `O_NOFOLLOW`, so no symbolic link below the store directory is ever followed.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{DirBuilder, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::Entry;

/// A directory and the right to write in it.
#[derive(Debug)]
pub(super) struct Directory {
    root: OwnedFd,
    writable: bool,
}

/// Either the store's own directory or one just opened below it.
enum Place<'a> {
    Root(&'a OwnedFd),
    Below(OwnedFd),
}

impl Place<'_> {
    fn raw(&self) -> RawFd {
        match self {
            Place::Root(fd) => fd.as_raw_fd(),
            Place::Below(fd) => fd.as_raw_fd(),
        }
    }
}

impl Directory {
    /// Opens a directory that exists. Links in the path to it are the caller's own choice and followed.
    pub(super) fn open(path: &Path, writable: bool) -> io::Result<Directory> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: the path ends in a zero byte.
        let root = retry(|| unsafe { libc::open(path.as_ptr(), flags) })?;
        Ok(Directory { root: owned(root), writable })
    }

    /// Makes the directory, and those above it that are missing, for the owner alone; one that exists already is
    /// fine. Durable on return.
    pub(super) fn create(path: &Path) -> io::Result<()> {
        let missing = path
            .ancestors()
            .take_while(|above| !above.as_os_str().is_empty() && above.symlink_metadata().is_err());
        for path in missing.collect::<Vec<_>>().into_iter().rev() {
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let above = path.parent().filter(|above| !above.as_os_str().is_empty());
            File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(())
    }

    /// Refuses a change of a directory that was opened for reading.
    pub(super) fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::ReadOnlyFilesystem.into()) }
    }

    /// Opens a regular file. `flags` are those that differ between uses.
    pub(super) fn open_file(&self, path: &str, flags: i32) -> io::Result<File> {
        let (place, name) = self.locate(path)?;
        // Not blocking, or the opening of a pipe would wait for its other end.
        let always = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the name ends in a zero byte, and `place` is an open directory.
        let fd = retry(|| unsafe {
            libc::openat(place.raw(), name.as_ptr(), flags | always, 0o600 as libc::c_uint)
        });
        let file = match fd {
            Ok(fd) => File::from(owned(fd)),
            // What `O_NOFOLLOW` says of a link (FreeBSD says EMLINK), and what a socket and a directory say.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ELOOP | libc::EMLINK | libc::ENXIO | libc::EISDIR)
                ) =>
            {
                return Err(not_regular());
            }
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return Err(not_regular());
        }
        // A ring takes a descriptor that does not block at its word and fails what it could have waited for.
        // SAFETY: plain calls on an open descriptor.
        retry(|| unsafe {
            match libc::fcntl(file.as_raw_fd(), libc::F_GETFL) {
                -1 => -1,
                now => libc::fcntl(file.as_raw_fd(), libc::F_SETFL, now & !libc::O_NONBLOCK),
            }
        })?;
        Ok(file)
    }

    pub(super) fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.check_writable()?;
        let name = component(dir)?;
        // SAFETY: the name ends in a zero byte, and the root is an open directory.
        match retry(|| unsafe { libc::mkdirat(self.root.as_raw_fd(), name.as_ptr(), 0o700) }) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.place(dir).map(drop),
            made => made.map(drop),
        }
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check_writable()?;
        let (from_place, from) = self.locate(from)?;
        let (to_place, to) = self.locate(to)?;
        // SAFETY: both names end in a zero byte, and both places are open directories.
        retry(|| unsafe {
            libc::renameat(from_place.raw(), from.as_ptr(), to_place.raw(), to.as_ptr())
        })
        .map(drop)
    }

    pub(super) fn remove(&self, path: &str) -> io::Result<()> {
        self.check_writable()?;
        let (place, name) = self.locate(path)?;
        // SAFETY: the name ends in a zero byte, and `place` is an open directory.
        retry(|| unsafe { libc::unlinkat(place.raw(), name.as_ptr(), 0) }).map(drop)
    }

    pub(super) fn sync(&self, dir: &str) -> io::Result<()> {
        self.check_writable()?;
        let place = self.place(dir)?;
        // SAFETY: a plain call on an open descriptor.
        retry(|| unsafe { libc::fsync(place.raw()) }).map(drop)
    }

    pub(super) fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let place = self.place(dir)?;
        let mut entries = Vec::new();
        let mut names = Names::of(&place)?;
        while let Some(name) = names.next()? {
            if [c".", c".."].contains(&name.as_c_str()) {
                continue;
            }
            let mut status = MaybeUninit::<libc::stat>::uninit();
            // SAFETY: the name ends in a zero byte, and there is room for the status.
            let found = retry(|| unsafe {
                libc::fstatat(
                    place.raw(),
                    name.as_ptr(),
                    status.as_mut_ptr(),
                    libc::AT_SYMLINK_NOFOLLOW,
                )
            });
            match found {
                Ok(_) => {}
                // Removed since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            // SAFETY: the call succeeded, so it filled it in.
            let status = unsafe { status.assume_init() };
            entries.push(Entry {
                name: OsStr::from_bytes(name.to_bytes()).to_string_lossy().into_owned(),
                bytes: u64::try_from(status.st_size).unwrap_or(0),
                regular: status.st_mode & libc::S_IFMT == libc::S_IFREG,
            });
        }
        Ok(entries)
    }

    /// The directory that a path lies in, and its last component.
    fn locate(&self, path: &str) -> io::Result<(Place<'_>, CString)> {
        let (dir, name) = match path.split_once('/') {
            Some(("", _)) => return Err(io::ErrorKind::InvalidInput.into()),
            Some(parts) => parts,
            None => ("", path),
        };
        let name = component(name)?;
        Ok((self.place(dir)?, name))
    }

    fn place(&self, dir: &str) -> io::Result<Place<'_>> {
        if dir.is_empty() {
            return Ok(Place::Root(&self.root));
        }
        Ok(Place::Below(open_below(&self.root, &component(dir)?)?))
    }
}

fn open_below(root: &impl AsRawFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: the name ends in a zero byte, and the root is an open directory.
    retry(|| unsafe { libc::openat(root.as_raw_fd(), name.as_ptr(), flags) }).map(owned)
}

/// One name, which leads nowhere else.
fn component(name: &str) -> io::Result<CString> {
    if matches!(name, "" | "." | "..") || name.contains('/') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(CString::new(name)?)
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// Takes over a descriptor that a call has just returned.
fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the callers pass what `open` and `openat` returned, which nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A system call, again if a signal interrupted it.
pub(super) fn retry(mut call: impl FnMut() -> libc::c_int) -> io::Result<libc::c_int> {
    loop {
        let result = call();
        if result >= 0 {
            return Ok(result);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The names in a directory, one after the other.
struct Names(std::ptr::NonNull<libc::DIR>);

impl Names {
    fn of(place: &Place<'_>) -> io::Result<Names> {
        // A description of its own: the stream moves the offset.
        let fd = match place {
            Place::Root(root) => open_below(*root, c".")?,
            Place::Below(fd) => open_below(fd, c".")?,
        };
        // SAFETY: an open directory's descriptor.
        match std::ptr::NonNull::new(unsafe { libc::fdopendir(fd.as_raw_fd()) }) {
            Some(stream) => {
                // The stream owns it now.
                let _ = fd.into_raw_fd();
                Ok(Names(stream))
            }
            None => Err(io::Error::last_os_error()),
        }
    }

    fn next(&mut self) -> io::Result<Option<CString>> {
        clear_errno();
        // SAFETY: the stream is open, and used by this thread alone.
        let entry = unsafe { libc::readdir(self.0.as_ptr()) };
        if entry.is_null() {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(0) { Ok(None) } else { Err(error) };
        }
        // SAFETY: the entry is valid until the next `readdir`, and its name ends in a zero byte.
        Ok(Some(unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) }.to_owned()))
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // SAFETY: the stream is open and not used after this.
        unsafe { libc::closedir(self.0.as_ptr()) };
    }
}

/// `readdir` tells its end from an error by this alone.
fn clear_errno() {
    #[cfg(any(target_os = "linux", target_os = "emscripten", target_os = "hurd"))]
    let place = libc::__errno_location;
    #[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "dragonfly"))]
    let place = libc::__error;
    #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
    let place = libc::__errno;
    #[cfg(any(target_os = "solaris", target_os = "illumos"))]
    let place = libc::___errno;
    // SAFETY: it is this thread's own.
    unsafe { *place() = 0 };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn no_name_leads_out_of_the_directory() {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = Directory::open(root.path(), true).unwrap();
        for path in ["", ".", "..", "a/", "/etc", "../x", "a/../b", "a/b/c", "a\0b"] {
            let error = dir.open_file(path, libc::O_RDWR | libc::O_CREAT).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path:?}");
        }
        assert_eq!(dir.create_dir("..").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = Directory::open(root.path(), true).unwrap();
        std::fs::write(root.path().join("target"), b"x").unwrap();
        symlink("target", root.path().join("link")).unwrap();
        dir.create_dir("real").unwrap();
        std::fs::write(root.path().join("real/file"), b"x").unwrap();
        symlink("real", root.path().join("linked")).unwrap();
        let pipe = CString::new(root.path().join("pipe").as_os_str().as_bytes()).unwrap();
        // SAFETY: the path ends in a zero byte.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
        for path in ["link", "real", "pipe"] {
            for flags in [libc::O_RDONLY, libc::O_RDWR] {
                let error = dir.open_file(path, flags).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
            }
        }
        dir.open_file("target", libc::O_RDONLY).unwrap();
        dir.open_file("real/file", libc::O_RDONLY).unwrap();
        dir.open_file("linked/file", libc::O_RDONLY).unwrap_err();
        dir.list("linked").unwrap_err();

        let mut regular: Vec<_> =
            dir.list("").unwrap().into_iter().map(|e| (e.name, e.regular)).collect();
        regular.sort();
        let expected = [
            ("link", false),
            ("linked", false),
            ("pipe", false),
            ("real", false),
            ("target", true),
        ];
        assert_eq!(regular, expected.map(|(name, regular)| (name.to_owned(), regular)));
    }

    #[test]
    fn everything_is_for_the_owner_alone() {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = root.path().join("a/b/store");
        Directory::create(&path).unwrap();
        Directory::create(&path).unwrap();
        let dir = Directory::open(&path, true).unwrap();
        dir.create_dir("shard").unwrap();
        dir.create_dir("shard").unwrap();
        dir.open_file("shard/file", libc::O_RDWR | libc::O_CREAT | libc::O_EXCL).unwrap();
        let mode = |p: &Path| p.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("shard")), 0o700);
        assert_eq!(mode(&path.join("shard/file")), 0o600);
    }
}
