//! A closed store's folder: how many bytes its files take, and how its pages leave the system's cache.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Advice, fadvise};

/// All files in a folder and below it.
///
/// # Errors
///
/// What the system says.
pub fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// The bytes that the files take: their length, or their blocks where those are fewer, as in a file with holes.
///
/// # Errors
///
/// What the system says.
pub fn bytes(dir: &Path) -> io::Result<u64> {
    files(dir)?.iter().try_fold(0, |sum, path| {
        let metadata = fs::metadata(path)?;
        Ok(sum + metadata.len().min(metadata.blocks() * 512))
    })
}

/// Asks the system to forget the files' pages, after what was written has gone to the device. A page that somebody has
/// mapped and used stays: see [`cached_share`].
///
/// # Errors
///
/// What the system says.
pub fn drop_cache(dir: &Path) -> io::Result<()> {
    for path in files(dir)? {
        // A server's socket or a file that is gone by now has no pages.
        let Ok(file) = File::open(&path) else { continue };
        file.sync_data()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// Which share of the files' bytes is in the system's cache; `None` where it does not tell (before Linux 6.5).
#[must_use]
pub fn cached_share(dir: &Path) -> Option<f64> {
    let (mut cached, mut all) = (0, 0);
    for path in files(dir).ok()? {
        let file = File::open(&path).ok()?;
        all += file.metadata().ok()?.len();
        cached += cached_pages(&file)? * page_bytes();
    }
    Some(if all == 0 { 0.0 } else { (cached as f64 / all as f64).min(1.0) })
}

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// `cachestat`, which the C library does not have yet.
fn cached_pages(file: &File) -> Option<u64> {
    const CACHESTAT: libc::c_long = 451;
    // From the start to the end of the file: a length of 0 says so.
    let range = [0_u64; 2];
    // Pages in the cache, dirty, under way, evicted, recently evicted.
    let mut counts = [0_u64; 5];
    // SAFETY: the call reads one range and fills in five counts, and there is room for them.
    let result = unsafe {
        libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0)
    };
    (result == 0).then_some(counts[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_all_files_and_not_of_holes() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("a"), vec![1; 10_000]).unwrap();
        fs::write(dir.path().join("below/b"), vec![1; 5_000]).unwrap();
        assert_eq!(bytes(dir.path()).unwrap(), 15_000);
        File::create(dir.path().join("holes")).unwrap().set_len(1 << 30).unwrap();
        assert_eq!(bytes(dir.path()).unwrap(), 15_000);
        assert_eq!(files(dir.path()).unwrap().len(), 3);
    }

    #[test]
    fn what_is_dropped_is_not_cached() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::write(dir.path().join("a"), vec![1; 1 << 20]).unwrap();
        // An old system does not tell.
        let Some(share) = cached_share(dir.path()) else { return };
        assert_eq!(share, 1.0);
        drop_cache(dir.path()).unwrap();
        assert_eq!(cached_share(dir.path()), Some(0.0));
    }
}
