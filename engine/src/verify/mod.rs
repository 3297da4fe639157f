//! Verifying a store: every checksum, chain, version, link, checkpoint and condition, in log order.
//!
//! This is a reader of the format of its own. It was written from `docs/FORMAT.md`, and shares with the store plain types, the
//! checksum function and the files beneath: a fault in the store's decoder, walk, index or reads can't hide itself here.
//!
//! ```text
//! bytes, frame, record   what bytes mean
//! scan                   what stands in the blocks of a segment
//! files                  bytes of a store, opened for reading alone
//! survey                 first pass: which segments hold the log, how far it is proven
//! walk                   second pass: along the log to its end
//! books                  what the writes say of each other
//! ```
//!
//! Nothing is changed on disk, nothing is locked, and a live writer is not disturbed. A salvage reads with it too.

mod books;
mod bytes;
mod files;
mod frame;
mod record;
mod scan;
mod survey;
#[cfg(test)]
mod tests;
mod walk;

use std::fmt;
use std::path::Path;

use books::Books;
pub(crate) use files::{Files, read_identity, shards_found};
pub(crate) use frame::Facts;
pub(crate) use record::{Kind, Part, Record};
pub(crate) use walk::Visit;

use crate::disk::{self, Disk};
use crate::error::{Error, ErrorKind};
use crate::id::Position;
use crate::key::Shown;

/// What verifying a store found. Sound if there are no problems.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verification {
    /// How many shards the store has.
    pub shards: u16,
    /// How many segments hold a part of the log.
    pub segments: u64,
    /// How many flushes.
    pub flushes: u64,
    /// How many writes.
    pub writes: u64,
    /// How many events.
    pub events: u64,
    /// How many aggregates.
    pub aggregates: u64,
    /// How many bytes the segments take on disk, what is prepared ahead included.
    pub bytes: u64,
    /// Where the log of each shard ends, in the order of the shards.
    pub ends: Vec<LogEnd>,
    /// What is wrong, shard by shard in log order. At most a thousand for each shard are told.
    pub problems: Vec<Problem>,
}

/// Where the log of a shard ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogEnd {
    /// The shard.
    pub shard: u16,
    /// Behind the last flush; [`Position::START`] if there is none.
    pub position: Position,
    /// The sequence of that flush; 0 if there is none.
    pub sequence: u64,
    /// All below it is known to have been durable, so that anything wrong below it is damage and not a torn write.
    pub proven: Position,
}

/// Something that is wrong in a store.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Problem {
    /// The shard.
    pub shard: u16,
    /// The segment's file, relative to the store's directory.
    pub segment: String,
    /// Where in the file.
    pub offset: u64,
    /// The aggregate, where it is known.
    pub aggregate: Option<Vec<u8>>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: ", self.segment, self.offset)?;
        if let Some(key) = &self.aggregate {
            write!(f, "aggregate {}: ", Shown(key))?;
        }
        f.write_str(&self.what)
    }
}

/// Something damaged or missing, where the walk met it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Damage {
    /// The file, relative to the store's directory.
    pub(crate) path: String,
    pub(crate) offset: u64,
    /// How much of the file it is; 0 if something is not there at all.
    pub(crate) bytes: u64,
    pub(crate) aggregate: Option<Vec<u8>>,
    pub(crate) what: String,
    /// A write may be lost by it.
    pub(crate) lost: bool,
}

impl Damage {
    /// Of a segment as a whole.
    fn of_segment(path: &str, bytes: u64, what: String) -> Damage {
        Damage { path: path.into(), offset: 0, bytes, aggregate: None, what, lost: true }
    }

    /// What did no harm.
    fn note(path: &str, what: String) -> Damage {
        Damage { lost: false, ..Damage::of_segment(path, 0, what) }
    }
}

/// One shard, and how it is read.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) facts: Facts,
    pub(crate) number: u16,
    /// Damaged bytes are searched for what is whole, and a segment is taken for what it says it is.
    pub(crate) rescue: bool,
}

/// Walks the log of a shard; returns its end and how many segments hold a part of it.
pub(crate) fn walk(
    shard: &Shard,
    files: &mut Files<'_>,
    visit: &mut dyn Visit,
) -> Result<(LogEnd, u64), Error> {
    let survey = survey::survey(shard, files)?;
    let (end, segments) = walk::Walk::new(shard, files, &survey, visit).run()?;
    let end = LogEnd {
        shard: shard.number,
        position: end.map_or(Position::START, |end| end.position),
        sequence: end.map_or(0, |end| end.sequence),
        proven: survey.proven,
    };
    Ok((end, segments))
}

/// Reads a whole store and checks all of it. `progress` is told how many bytes are done, and how many there are.
///
/// What is found wrong in the log is a [`Problem`], not an error. Nothing on disk is changed; the right to read is enough.
/// Beside a writer it checks what was durable when it began.
///
/// ```
/// use annals::{Event, Expect, Store};
/// # let dir = tempfile::tempdir_in("/var/tmp")?;
/// # let path = dir.path().join("data");
///
/// let store = Store::open(&path)?;
/// store.append("order-1", Expect::Absent, [Event::new("Placed", "")])?.wait()?;
/// store.close()?;
///
/// let verification = annals::verify(&path, |_, _| {})?;
/// assert_eq!(verification.events, 1);
/// assert!(verification.problems.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// `Io` for what can't be read, `Corrupt` and `Unsupported` for an identity file that says nothing.
pub fn verify(
    path: impl AsRef<Path>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Verification, Error> {
    verify_on(&*open_to_read(path.as_ref())?, &mut progress)
}

/// A store's directory, opened for reading alone.
pub(crate) fn open_to_read(path: &Path) -> Result<std::sync::Arc<dyn Disk>, Error> {
    disk::open(path, disk::Opening::ReadOnly, disk::QueueKind::Blocking).map_err(|error| {
        let shown = path.display();
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::io(format_args!("there is no store at {shown}"), error)
            }
            std::io::ErrorKind::NotADirectory => Error::io(
                format_args!("{shown} is not a directory: a store is a directory of its own"),
                error,
            ),
            _ => Error::io(format_args!("opening the store {shown}"), error),
        }
    })
}

pub(crate) fn verify_on(
    disk: &dyn Disk,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verification, Error> {
    let facts = read_identity(disk)??;
    let mut found = Verification { shards: facts.shards, ..Verification::default() };
    for shard in 0..facts.shards {
        found.bytes += Files::new(disk, shard).bytes()?;
    }
    let all = found.bytes;
    let mut done = 0;
    progress(done, all);
    for number in 0..facts.shards {
        let shard = Shard { facts, number, rescue: false };
        let mut walked = |bytes: u64| {
            // A live writer adds bytes that were not counted.
            done = (done + bytes).min(all);
            progress(done, all);
        };
        let mut books = Books::new(number, &mut walked);
        let (end, segments) = walk(&shard, &mut Files::new(disk, number), &mut books)?;
        found.ends.push(end);
        found.segments += segments;
        found.flushes += books.flushes;
        found.writes += books.writes;
        found.events += books.events;
        found.aggregates += books.aggregates();
        found.problems.append(&mut books.problems);
    }
    progress(all, all);
    Ok(found)
}

/// The facts of a store whose identity file says nothing, as far as the headers of its segments agree on them. They do not
/// tell the key of the hash, nor the route.
pub(crate) fn facts_of_segments(disk: &dyn Disk) -> Result<Facts, Error> {
    let shards = shards_found(disk)?;
    let mut found: Option<Facts> = None;
    for &shard in &shards {
        for header in survey::headers(&mut Files::new(disk, shard))? {
            let known = found.get_or_insert(Facts {
                store: header.store,
                block: header.block,
                shards: shards.last().map_or(1, |last| last.saturating_add(1)),
                hash_key: 0,
                segment_bytes: 0,
                route: None,
                syncs: false,
                generation: 0,
            });
            if (known.store, known.block) != (header.store, header.block) {
                let what = "the identity file says nothing, and the segments are not all of one store: restore the \
                            identity file from a copy";
                return Err(Error::new(ErrorKind::Corrupt, what));
            }
            known.segment_bytes = known.segment_bytes.max(header.bytes);
        }
    }
    found.ok_or_else(|| {
        let what = "the identity file says nothing, and no segment header is whole: restore the identity file from a copy";
        Error::new(ErrorKind::Corrupt, what)
    })
}
