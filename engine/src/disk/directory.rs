//! The store directory, opened once: every name below it is resolved from its descriptor.
//!
//! A path has one component or two (`identity`, `shard-0000/0000000000000001.seg`). Each is opened by itself, so that no
//! symbolic link below the store directory is ever followed, and no file system that was mounted there entered where
//! the system can tell (`openat2`).
//!
//! What was opened is looked at before it is used: a regular file of an owner whom the store can trust, and with no other
//! name if it is to be written. A directory in which everybody may write is refused, unless the caller allows it: who may
//! may also cut a file that is mapped, and that ends the process.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use super::{Entry, Trust};

/// Directories and files are for their owner alone.
const DIRECTORY_MODE: u16 = 0o700;
const FILE_MODE: u16 = 0o600;

/// A directory and the right to write in it.
#[derive(Debug)]
pub(super) struct Directory {
    root: OwnedFd,
    writable: bool,
    trust: Trust,
    owner: libc::uid_t,
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
    /// Opens a directory that exists and that its owner alone may write in.
    #[cfg(test)]
    pub(super) fn open(path: &Path, writable: bool) -> io::Result<Directory> {
        Directory::open_trusting(path, writable, Trust::Owner)
    }

    /// Opens a directory that exists. Links in the path to it are the caller's own choice and followed.
    pub(super) fn open_trusting(
        path: &Path,
        writable: bool,
        trust: Trust,
    ) -> io::Result<Directory> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: the path ends in a zero byte.
        let root = owned(retry(|| unsafe { libc::open(path.as_ptr(), flags) })?);
        let root = File::from(root);
        let status = root.metadata()?;
        check_directory(&status, trust)?;
        Ok(Directory { root: root.into(), writable, trust, owner: status.uid() })
    }

    /// Makes the directory, and those above it that are missing, for the owner alone; one that exists already is
    /// fine. Durable on return.
    pub(super) fn create(path: &Path) -> io::Result<()> {
        let missing = path
            .ancestors()
            .take_while(|above| !above.as_os_str().is_empty() && above.symlink_metadata().is_err());
        for path in missing.collect::<Vec<_>>().into_iter().rev() {
            match DirBuilder::new().mode(DIRECTORY_MODE.into()).create(path) {
                // Whatever the process takes from the modes of what it makes.
                Ok(()) => {
                    fs::set_permissions(path, fs::Permissions::from_mode(DIRECTORY_MODE.into()))?
                }
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Err(_) => {}
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
        let file = if flags & libc::O_CREAT == 0 {
            open_at(place.raw(), &name, flags)
        } else {
            create_at(place.raw(), &name, flags)
        };
        let file = match file {
            Ok(file) => file,
            // What `O_NOFOLLOW` says of a link (FreeBSD says EMLINK), and what a socket and a directory say.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ELOOP | libc::EMLINK | libc::ENXIO | libc::EISDIR)
                ) =>
            {
                return Err(not_regular());
            }
            Err(error) => return Err(mounted(error)),
        };
        self.check_file(&file.metadata()?, flags)?;
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

    /// Whether a file that was opened can be what the store has put there.
    fn check_file(&self, status: &fs::Metadata, flags: i32) -> io::Result<()> {
        if !status.is_file() {
            return Err(not_regular());
        }
        // SAFETY: it takes nothing and can't fail.
        let own = unsafe { libc::geteuid() };
        let owner = status.uid();
        if self.trust == Trust::Owner && ![0, own, self.owner].contains(&owner) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "the file belongs to user {owner}: expected the owner of the store directory ({}), this process's user or root; \
                     somebody else has put it there",
                    self.owner
                ),
            ));
        }
        // A copy of a store made of links can be read; writing would change the other file too.
        if flags & libc::O_ACCMODE != libc::O_RDONLY && status.nlink() > 1 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the file has {} names (hard links): expected one, since writing here would change the others too",
                    status.nlink()
                ),
            ));
        }
        Ok(())
    }

    pub(super) fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.check_writable()?;
        let name = component(dir)?;
        let root = self.root.as_raw_fd();
        // SAFETY: the name ends in a zero byte, and the root is an open directory.
        match retry(|| unsafe { libc::mkdirat(root, name.as_ptr(), DIRECTORY_MODE.into()) }) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return self.place(dir).map(drop);
            }
            made => made?,
        };
        // Whatever the process takes from the modes of what it makes.
        let mode = DIRECTORY_MODE.into();
        // SAFETY: as above.
        retry(|| unsafe { libc::fchmodat(root, name.as_ptr(), mode, 0) }).map(drop)
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
        let below = File::from(open_below(&self.root, &component(dir)?)?);
        check_directory(&below.metadata()?, self.trust)?;
        Ok(Place::Below(below.into()))
    }
}

/// Refuses a directory in which everybody may write, unless they are all trusted.
fn check_directory(status: &fs::Metadata, trust: Trust) -> io::Result<()> {
    if trust == Trust::Owner && status.mode() & 0o002 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "everybody may write in the directory (mode {:04o}): expected one that others may not write in; take the right \
                 away (chmod o-w), or allow it with the option `world_writable`",
                status.mode() & 0o7777
            ),
        ));
    }
    Ok(())
}

fn open_below(root: &impl AsRawFd, name: &CStr) -> io::Result<OwnedFd> {
    let opened = open_at(root.as_raw_fd(), name, libc::O_RDONLY | libc::O_DIRECTORY);
    opened.map(OwnedFd::from).map_err(mounted)
}

/// Opens what has this name, if it is no link. Never waits for the other end of a pipe.
fn open_at(place: RawFd, name: &CStr, flags: i32) -> io::Result<File> {
    let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    #[cfg(target_os = "linux")]
    match open_beneath(place, name, flags) {
        // An old kernel, or a filter of system calls from before this one. Where the file itself says EPERM, the other
        // call says it too.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
        opened => return opened,
    }
    // SAFETY: the name ends in a zero byte, and `place` is an open directory.
    let fd = retry(|| unsafe {
        libc::openat(place, name.as_ptr(), flags, libc::c_uint::from(FILE_MODE))
    });
    fd.map(owned).map(File::from)
}

/// As `openat`, but never across a mount or a link of any kind.
#[cfg(target_os = "linux")]
fn open_beneath(place: RawFd, name: &CStr, flags: i32) -> io::Result<File> {
    // SAFETY: numbers, for which zero is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = flags as u64;
    how.mode = if flags & libc::O_CREAT == 0 { 0 } else { u64::from(FILE_MODE) };
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV;
    // SAFETY: the name ends in a zero byte, `place` is an open directory, and the structure is as long as is said.
    let fd = retry(|| unsafe {
        libc::syscall(
            libc::SYS_openat2,
            place,
            name.as_ptr(),
            std::ptr::from_ref(&how),
            size_of::<libc::open_how>(),
        ) as libc::c_int
    });
    fd.map(owned).map(File::from)
}

/// Opens a file, and makes it if there is none; with `O_EXCL`, it must not be there. Who makes it sets its mode, whatever
/// the process takes from the modes of what it makes.
fn create_at(place: RawFd, name: &CStr, flags: i32) -> io::Result<File> {
    let must_make = flags & libc::O_EXCL != 0;
    loop {
        if !must_make {
            match open_at(place, name, flags & !libc::O_CREAT) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => return opened,
            }
        }
        match open_at(place, name, flags | libc::O_EXCL) {
            Ok(file) => {
                if file.metadata()?.mode() & 0o777 != u32::from(FILE_MODE) {
                    // A file system without modes says no, and has none that could be wrong.
                    // SAFETY: a plain call on an open descriptor.
                    let _ = retry(|| unsafe { libc::fchmod(file.as_raw_fd(), FILE_MODE.into()) });
                }
                return Ok(file);
            }
            // Somebody was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !must_make => {}
            Err(error) => return Err(error),
        }
    }
}

/// Says of a name that leads to another file system what it does.
fn mounted(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EXDEV) => io::Error::new(
            io::ErrorKind::CrossesDevices,
            "something is mounted there: expected the whole store on one file system",
        ),
        _ => error,
    }
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
        // What is there already keeps the mode that somebody has given it.
        let set = |mode| fs::Permissions::from_mode(mode);
        fs::set_permissions(path.join("shard/file"), set(0o640)).unwrap();
        dir.open_file("shard/file", libc::O_RDWR | libc::O_CREAT).unwrap();
        assert_eq!(mode(&path.join("shard/file")), 0o640);
    }

    #[test]
    fn where_everybody_may_write_nothing_is_opened_unless_allowed() {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let open = |trust| Directory::open_trusting(root.path(), true, trust);
        open(Trust::Owner).unwrap().create_dir("shard").unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(&root.path().join("shard"), 0o1777);
        let error = open(Trust::Owner).unwrap().list("shard").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("mode 1777"), "{error}");
        open(Trust::Anyone).unwrap().list("shard").unwrap();
        set(root.path(), 0o707);
        assert_eq!(open(Trust::Owner).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        open(Trust::Anyone).unwrap();
    }

    #[test]
    fn a_file_with_another_name_is_read_and_not_written() {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = Directory::open(root.path(), true).unwrap();
        fs::write(root.path().join("a"), b"x").unwrap();
        fs::hard_link(root.path().join("a"), root.path().join("b")).unwrap();
        dir.open_file("a", libc::O_RDONLY).unwrap();
        for flags in [libc::O_RDWR, libc::O_WRONLY, libc::O_RDWR | libc::O_CREAT] {
            let error = dir.open_file("a", flags).unwrap_err();
            assert!(error.to_string().contains("2 names"), "{error}");
        }
        fs::remove_file(root.path().join("b")).unwrap();
        dir.open_file("a", libc::O_RDWR).unwrap();
    }
}
