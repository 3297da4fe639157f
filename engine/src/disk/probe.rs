//! Which durability method is faster on this device: it differs by a factor of two either way.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::directory::Directory;
use super::file::RealFile;
use super::{Chunk, File, SyncMethod};

/// Of each method.
const WRITES: usize = 16;
/// No write starts later than this.
const PATIENCE: Duration = Duration::from_millis(50);
/// Removed when done; one that a crash has left is replaced.
const PROBE_FILE: &str = "probe.spare";

/// Times a few writes of one block with each method, in turn.
pub(super) fn probe(directory: &Arc<Directory>, block_bytes: u32) -> io::Result<SyncMethod> {
    match directory.remove(PROBE_FILE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = RealFile::create(directory, PROBE_FILE)?;
    let measured = measure(&file, block_bytes as usize);
    directory.remove(PROBE_FILE)?;
    let [dsync, then_sync] = measured?;
    Ok(faster(dsync, then_sync))
}

fn measure(file: &RealFile, block: usize) -> io::Result<[Vec<Duration>; 2]> {
    file.prepare((2 * WRITES * block) as u64)?;
    file.sync()?;
    let mut chunk = Chunk::aligned(block, block.max(Chunk::ALIGN))?;
    chunk.get_mut().fill(0x5A);
    let bytes = chunk.get_mut();
    let mut times = [Vec::new(), Vec::new()];
    let begin = Instant::now();
    for turn in 0..2 * WRITES {
        if begin.elapsed() > PATIENCE {
            break;
        }
        let method = [SyncMethod::WriteDsync, SyncMethod::WriteThenSync][turn % 2];
        let start = Instant::now();
        file.flush(method, (turn * block) as u64, bytes)?;
        times[turn % 2].push(start.elapsed());
    }
    Ok(times)
}

/// The one with the lower median; the single call if that decides nothing.
fn faster(dsync: Vec<Duration>, then_sync: Vec<Duration>) -> SyncMethod {
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(Duration::MAX)
    };
    if median(then_sync) < median(dsync) {
        SyncMethod::WriteThenSync
    } else {
        SyncMethod::WriteDsync
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_median_wins() {
        let ms = |times: &[u64]| times.iter().map(|&t| Duration::from_millis(t)).collect();
        assert_eq!(faster(ms(&[1, 9, 1]), ms(&[2, 2, 2])), SyncMethod::WriteDsync);
        assert_eq!(faster(ms(&[3, 0, 3]), ms(&[2, 2, 99])), SyncMethod::WriteThenSync);
        assert_eq!(faster(ms(&[2]), ms(&[2])), SyncMethod::WriteDsync);
        assert_eq!(faster(ms(&[2]), ms(&[])), SyncMethod::WriteDsync);
    }

    #[test]
    fn it_is_brief_and_leaves_nothing() {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(root.path().join(PROBE_FILE), b"left by a crash").unwrap();
        let directory = Arc::new(Directory::open(root.path(), true).unwrap());
        let file = RealFile::create(&directory, "other").unwrap();
        let times = measure(&file, 4096).unwrap();
        assert!(!times[0].is_empty() && times[0].len() <= WRITES);
        probe(&directory, 4096).unwrap();
        assert_eq!(directory.list("").unwrap().len(), 1);
    }
}
