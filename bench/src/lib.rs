//! What the benchmarks share: where their stores lie, and what they write.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use annals::{Error, Event, Store, Ticket};
use tempfile::TempDir;

/// A store in a folder of its own beside the current one, gone when this is.
#[derive(Debug)]
pub struct Place {
    /// The store.
    pub store: Store,
    _folder: TempDir,
}

impl Place {
    /// Opens a new store on the disk that the current folder lies on.
    ///
    /// # Panics
    ///
    /// If that is no disk but memory: what would be measured there is no durable append. And if the store can't be
    /// opened.
    #[must_use]
    pub fn new() -> Place {
        let folder = tempfile::tempdir_in(".").expect("the current folder can be written to");
        let system = file_system(folder.path());
        assert!(
            !matches!(system.as_deref(), Some("tmpfs" | "ramfs")),
            "the current folder lies in memory ({system:?}): run this on a disk"
        );
        let store = Store::open(folder.path()).expect("a new store can be opened");
        Place { store, _folder: folder }
    }
}

impl Default for Place {
    fn default() -> Place {
        Place::new()
    }
}

/// The kind of file system that holds a folder, where the system tells.
fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let holding = mounted.filter(|(at, _)| folder.starts_with(at));
    // The later of two mounts on one place hides the earlier.
    holding.max_by_key(|(at, _)| at.len()).map(|(_, kind)| kind.to_owned())
}

/// Events of 128 bytes that share their data, so that making one is not what is measured.
#[derive(Debug)]
pub struct Events {
    data: Arc<[u8]>,
}

impl Default for Events {
    fn default() -> Events {
        Events { data: Arc::from([7; 128].as_slice()) }
    }
}

impl Events {
    /// The next one.
    #[must_use]
    pub fn event(&self) -> Event {
        Event::new("Measured", Arc::clone(&self.data))
    }
}

/// The keys of so many aggregates, in an order that no cache can foresee.
#[derive(Debug)]
pub struct Keys {
    count: u64,
    state: u64,
}

impl Keys {
    /// Over this many aggregates.
    #[must_use]
    pub fn new(count: u64) -> Keys {
        Keys { count, state: 0x9e37_79b9_7f4a_7c15 }
    }

    /// Each once.
    pub fn all(&self) -> impl Iterator<Item = [u8; 16]> + use<> {
        (0..self.count).map(key)
    }

    /// One of them.
    pub fn any(&mut self) -> [u8; 16] {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        key(self.state % self.count)
    }
}

fn key(number: u64) -> [u8; 16] {
    let mut key = *b"aggregate-000000";
    for (place, digit) in key[10..].iter_mut().rev().zip(0..) {
        *place = b'0' + (number / 10_u64.pow(digit) % 10) as u8;
    }
    key
}

/// Waits for the last of many writes to one shard: then all before it are durable too.
///
/// # Errors
///
/// As the ticket's.
pub fn settle(last: Option<Ticket>) -> Result<(), Error> {
    last.map_or(Ok(()), |ticket| ticket.wait().map(drop))
}
