//! Stores with something in them, and what a directory holds byte for byte.

use std::fs;
use std::path::{Path, PathBuf};

use annals::{Error, ErrorKind, Event, Expect, Options, Store, verify};
use tempfile::TempDir;

use super::{Logged, audit, directory, numbered, small};

/// How many writes [`filled`] makes.
pub const WRITES: u64 = 40;

/// Makes so many writes to three aggregates, each a tenth of a segment.
pub fn fill(store: &Store, numbers: std::ops::Range<u64>) {
    let data = vec![5u8; 100_000];
    for number in numbers {
        let large = Event::new("Large", data.as_slice());
        let ticket =
            store.append(format!("k{}", number % 3), Expect::Any, [numbered(number), large]);
        ticket.unwrap().wait().unwrap();
    }
}

/// A store of several segments, closed.
pub fn filled() -> TempDir {
    let dir = directory();
    fill(&small().open(dir.path()).unwrap(), 0..WRITES);
    assert!(segments(dir.path()).len() > 3);
    dir
}

/// Everything in a directory: names, and what regular files hold.
pub fn image(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.extend(image(&entry.path()));
        }
        let content = if kind.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
        files.push((entry.path(), content));
    }
    files.sort();
    files
}

/// Copies a directory, file by file.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else if let Err(gone) = fs::copy(&path, &target) {
            assert_eq!(gone.kind(), std::io::ErrorKind::NotFound, "{gone}");
        }
    }
}

/// The segments of the first shard, by number.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(dir.join("shard-0000")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    found.sort();
    found
}

/// Why a store does not open. Trying has changed nothing.
pub fn refused(dir: &Path, options: &Options) -> Error {
    let before = image(dir);
    let error = options.open(dir).map(drop).expect_err("it opens");
    assert!(before == image(dir), "opening in vain has changed something: {error}");
    error
}

/// That an error is of this kind, with its number, and says all of this.
pub fn check(error: &Error, kind: ErrorKind, code: u32, says: &[&str]) {
    let text = error.to_string();
    assert_eq!((error.kind(), error.code()), (kind, code), "{text}");
    for what in says {
        assert!(text.contains(what), "{what:?} is not in: {text}");
    }
}

/// That a store is sound, holds what [`filled`] has written, at least, and takes one more write.
pub fn check_whole(dir: &Path) -> Vec<Logged> {
    let store = small().open(dir).unwrap();
    let before = audit(&store);
    let numbers: Vec<u64> = before.iter().take(WRITES as usize).map(Logged::number).collect();
    assert!(numbers.iter().copied().eq(0..WRITES), "{numbers:?}");
    let version = store.version("k0").unwrap();
    store.append("k0", Expect::Version(version), [numbered(99)]).unwrap().wait().unwrap();
    store.close().unwrap();
    check_sound(dir);
    before
}

/// That the independent reader finds nothing wrong.
pub fn check_sound(dir: &Path) {
    let found = verify(dir, |_, _| ()).unwrap();
    assert!(found.problems.is_empty(), "{found:?}");
}
