//! What the bytes of a log say of its end, read without the store: the highest frontier that a flush states, and the
//! accepted end that the newest opening states. An end below a frontier is a loss that the store has not noticed.
//!
//! A flush header lies in one sector, so one that is found at its own place with its segment's salt is whole.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// What the bytes of one shard state. Positions, as the log counts them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stated {
    /// The highest frontier of any flush header.
    pub frontier: u64,
    /// The accepted end in the newest segment that an opening began; 0 if the log held nothing.
    pub accepted_end: u64,
    /// That segment; 0 if there is none.
    pub opened: u64,
    /// The size of a block: where the first flush of a segment stands.
    pub block: u64,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().copied().map_or(0, u64::from_le_bytes)
}

/// Reads all segments of a shard. A segment that can't be read states nothing.
pub fn stated(store: &Path, shard: u16) -> io::Result<Stated> {
    let mut stated = Stated::default();
    let folder = store.join(format!("shard-{shard:04x}"));
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(stated),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".seg")) else { continue };
        let Ok(id) = u64::from_str_radix(id, 16) else { continue };
        let mut bytes = Vec::new();
        if File::open(entry.path())?.read_to_end(&mut bytes).is_err() {
            continue;
        }
        stated.frontier = stated.frontier.max(highest_frontier(id, &bytes));
        let segment = bytes.len() >= 96 && &bytes[8..16] == b"ANNSEGMT";
        if segment {
            stated.block = word(&bytes, 16) >> 32;
        }
        if segment && bytes[46] == 1 && id > stated.opened {
            stated.opened = id;
            stated.accepted_end = word(&bytes, 64);
        }
    }
    Ok(stated)
}

fn highest_frontier(id: u64, bytes: &[u8]) -> u64 {
    if bytes.len() < 512 || &bytes[8..16] != b"ANNSEGMT" {
        return 0;
    }
    let salt = word(bytes, 48);
    let headers = bytes.chunks_exact(512).enumerate().filter_map(|(index, sector)| {
        let position = id << 32 | (index as u64 * 512);
        let whole = &sector[8..16] == b"ANNFLUSH"
            && word(sector, 32) == position
            && word(sector, 40) == salt
            && word(sector, 56) <= position;
        whole.then(|| word(sector, 56))
    });
    headers.max().unwrap_or(0)
}

/// Whether an end that a later opening accepted lies below what flushes had stated to be durable before.
pub fn is_cut_short(before: Stated, after: Stated) -> bool {
    match after.accepted_end {
        _ if after.opened == before.opened => false,
        // The first flush of a log may state its own place, and nothing lies below it.
        0 => before.frontier > 1 << 32 | before.block,
        end => end < before.frontier,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals::{Backend, Event, Expect, Options};

    #[test]
    fn bytes_state_what_the_store_has_acknowledged() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let options = || Options::new().segment_bytes(1 << 20).backend(Backend::Blocking);
        let store = options().open(folder.path()).unwrap();
        let mut last = 0;
        for _ in 0..10 {
            let ticket = store.append("a", Expect::Any, [Event::new("E", "data")]).unwrap();
            last = ticket.wait().unwrap().position().get();
        }
        store.close().unwrap();
        drop(store);
        let before = stated(folder.path(), 0).unwrap();
        assert!(before.frontier > last, "closing states all that is durable: {before:?}");
        assert_eq!(before.accepted_end, 0);
        let store = options().open(folder.path()).unwrap();
        store.append("a", Expect::Any, [Event::new("E", "")]).unwrap().wait().unwrap();
        store.close().unwrap();
        let after = stated(folder.path(), 0).unwrap();
        assert!(after.accepted_end >= before.frontier, "{before:?} {after:?}");
        assert!(!is_cut_short(before, after));
        assert!(is_cut_short(before, Stated { accepted_end: last, ..after }));
        assert!(is_cut_short(before, Stated { accepted_end: 0, ..after }));
        assert!(!is_cut_short(before, before), "nothing was written since");
    }
}
