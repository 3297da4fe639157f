//! Segments made ahead of use, so that a commit overwrites blocks that exist and needs no journal.
//!
//! A file is `<id>.spare` until it is whole: created exclusively, its blocks written, its header in place, synced. Then
//! it is renamed to `<id>.seg` and the directory synced, and only then handed out. The first segment of an opening
//! states where the log ended (`Opened`); those behind it go on from it and from each other, by ids without a gap
//! (`Rolled`). So an id is spent only when its segment has been handed out.
//!
//! What is left over is used again: whatever is called `.spare`, and segments that lie wholly above the end of the log.
//! The latter are evidence until the opening's own header is durable: their flushes state frontiers. Then they are not:
//! that header states the accepted end, every frontier is at or below it, and nothing between the two is read
//! again. So leftovers are renamed to `.spare` only after it.
//!
//! If the power fails
//!
//! | after | the next opening finds |
//! |---|---|
//! | creating, writing, syncing `<id>.spare` | a spare, perhaps not all written: its blocks are prepared again before it is used |
//! | renaming it to `.seg`, not synced | the spare, or a segment without flushes: a leftover either way |
//! | renaming a leftover to `.spare`, not synced | the leftover, which lies between an accepted end and its segment; or the spare |
//! | writing the header of a spare | a spare: no header of one is ever looked at |
//! | cutting the old tail | the tail, longer or shorter; the accepted end is stated, and what is cut lies above it |
//! | removing anything | the file or not, and nobody misses it |
//!
//! One danger is left: a header written under a name that is not yet durable. Were `5.seg` renamed to `5.spare`, given
//! the header of segment 9, and the rename lost, then `5.seg` would claim to be segment 9, and be damage. So the
//! directory is synced once between the last rename to `.spare`, in this opening or any before, and the first header
//! written into one.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::disk::{Access, Disk, File};
use crate::error::{Error, ErrorKind};
use crate::format::{AcceptedEnd, FileName, Identity, Origin, SegmentHeader, SegmentKind};
use crate::id::{SegmentId, ShardId};
use crate::limits::{SEGMENT_BYTES_FIRST, SEGMENT_BYTES_MAX};
use crate::sync::clock;
use crate::sync::entropy::entropy;

/// So many spares are kept; what is more is removed.
const SPARES_MAX: usize = 2;

/// The directory of a shard.
pub(crate) fn shard_dir(shard: ShardId) -> String {
    format!("shard-{:04}", shard.0)
}

/// A file that holds nothing of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leftover {
    /// Its name.
    pub(crate) name: FileName,
    /// How long it is.
    pub(crate) bytes: u64,
}

/// A segment that is longer than what the log left in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cut {
    /// The file, relative to the store's directory.
    pub(crate) path: String,
    /// What the log left in it.
    pub(crate) bytes: u64,
}

/// What preparing starts from: what an opening found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start {
    /// Where the log ends.
    pub(crate) accepted: Option<AcceptedEnd>,
    /// The highest number that any file bears.
    pub(crate) highest: SegmentId,
    /// The segment in which the log ends, if there is more behind.
    pub(crate) cut: Option<Cut>,
    /// Segments wholly above the end.
    pub(crate) leftovers: Vec<Leftover>,
    /// Files that are no segments.
    pub(crate) spares: Vec<Leftover>,
}

/// A segment ready for its first flush.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Its number.
    pub(crate) id: SegmentId,
    /// The salt of this use of it.
    pub(crate) salt: u64,
    /// Its file.
    pub(crate) file: Arc<dyn File>,
    /// Where that is, relative to the store's directory.
    pub(crate) path: String,
    /// How many bytes are prepared, the header's block included.
    pub(crate) bytes: u64,
    /// How many the header takes: where the first flush starts.
    pub(crate) header_bytes: u32,
}

/// A prepared file without a header.
struct Blank {
    spare: FileName,
    file: Arc<dyn File>,
    bytes: u64,
}

/// Makes the segments of one shard, one after the other.
pub(crate) struct Preparer {
    disk: Arc<dyn Disk>,
    identity: Identity,
    shard: ShardId,
    dir: String,
    /// The number of the segment handed out last, or the highest that any file bears.
    last: SegmentId,
    accepted: Option<AcceptedEnd>,
    /// The header that states the accepted end is durable.
    opened: bool,
    /// How large the next segment is made unless it must hold more.
    bytes_next: u64,
    /// How many bytes were handed out.
    bytes_made: u64,
    cut: Option<Cut>,
    leftovers: Vec<Leftover>,
    spares: Vec<Leftover>,
    /// The names of all spares are durable.
    names_durable: bool,
}

impl Preparer {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        identity: &Identity,
        shard: ShardId,
        start: Start,
    ) -> Preparer {
        Preparer {
            disk,
            identity: *identity,
            shard,
            dir: shard_dir(shard),
            last: start.highest,
            accepted: start.accepted,
            opened: false,
            bytes_next: SEGMENT_BYTES_FIRST.min(identity.segment_bytes),
            bytes_made: 0,
            cut: start.cut,
            leftovers: start.leftovers,
            spares: start.spares,
            names_durable: false,
        }
    }

    /// Makes a segment that holds flushes of at least so many bytes. To be handed to the log writer in the order in which
    /// they are made.
    ///
    /// # Errors
    ///
    /// `Full` if there is no space, `Io` otherwise. Nothing is spent: it can be called again.
    pub(crate) fn prepare(&mut self, bytes_min: u64) -> Result<Prepared, Error> {
        let header_bytes = self.identity.block_bytes;
        let block = u64::from(header_bytes);
        let needed = bytes_min.checked_add(block).map(|bytes| bytes.max(2 * block));
        let wanted = needed.map(|bytes| bytes.max(self.bytes_next).next_multiple_of(block));
        let Some(wanted) = wanted.filter(|bytes| *bytes <= SEGMENT_BYTES_MAX) else {
            return Err(Error::too_large(
                "a segment",
                usize::try_from(bytes_min).unwrap_or(usize::MAX),
                SEGMENT_BYTES_MAX as usize,
                "bytes",
            ));
        };
        let Some(id) = self.last.0.checked_add(1).map(SegmentId) else {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("{} has had {} segments: there are no more numbers", self.dir, self.last),
            ));
        };
        let Blank { spare, file, bytes } = match self.spare(wanted)? {
            Some(blank) => blank,
            None => self.create(id, wanted)?,
        };
        let salt = entropy();
        let made = self.write_header(&*file, id, salt, bytes).and_then(|()| {
            let name = FileName::Segment(id);
            self.disk.rename(&self.path(spare), &self.path(name))
        });
        if let Err(error) = made {
            drop(file);
            return Err(self.give_up(spare, "preparing a segment", error));
        }
        // Not undone if it fails: a segment without flushes is in nobody's way, and the next attempt replaces it.
        self.sync_dir()?;
        self.last = id;
        if !self.opened {
            self.opened = true;
            self.tidy();
        }
        self.bytes_made += bytes;
        // Never smaller than the one before: a write may take permits for as much as that, and wait.
        self.bytes_next = (self.bytes_next.max(bytes) * 2).min(self.identity.segment_bytes);
        let path = self.path(FileName::Segment(id));
        Ok(Prepared { id, salt, file, path, bytes, header_bytes })
    }

    /// Leaves little behind at a clean close, when all is durable: the segment in use is cut to its used bytes, the one
    /// prepared behind it stays as a spare or is removed. None of it needs to be durable.
    pub(crate) fn finish(
        &mut self,
        active: Option<(&dyn File, u64)>,
        next: Option<Prepared>,
    ) -> Result<(), Error> {
        let mut written = self.bytes_made;
        if let Some(next) = next {
            written -= next.bytes.min(written);
            let name = FileName::Segment(next.id);
            drop(next.file);
            // A spare as large as all that was written is more than the next opening may ever need.
            if active.is_some() && self.spares.is_empty() && next.bytes <= written / 2 {
                self.disk.rename(&next.path, &self.path(FileName::Spare(next.id)))
            } else {
                self.disk.remove(&next.path)
            }
            .map_err(|error| Error::io(format_args!("tidying {}/{name}", self.dir), error))?;
        }
        if let Some((file, used)) = active {
            let cut =
                file.len().and_then(|bytes| if used < bytes { file.set_len(used) } else { Ok(()) });
            cut.map_err(|error| {
                Error::io(format_args!("cutting a segment of {}", self.dir), error)
            })?;
        }
        Ok(())
    }

    /// Makes leftovers spares and cuts the old tail, once the header that replaces them as evidence is durable. What fails
    /// is left as it is: it costs space and nothing else.
    fn tidy(&mut self) {
        if let Some(cut) = self.cut.take() {
            let file = self.disk.open(&cut.path, Access::Write);
            let _ = file.and_then(|file| file.set_len(cut.bytes));
        }
        let leftovers = std::mem::take(&mut self.leftovers);
        for Leftover { name, bytes } in leftovers {
            let FileName::Segment(id) = name else { continue };
            let spare = FileName::Spare(id);
            if self.disk.rename(&self.path(name), &self.path(spare)).is_ok() {
                self.spares.push(Leftover { name: spare, bytes });
                self.names_durable = false;
            }
        }
        // Largest last: those are of use for longest.
        self.spares.sort_unstable_by_key(|spare| spare.bytes);
        while self.spares.len() > SPARES_MAX {
            let spare = self.spares.remove(0);
            let _ = self.disk.remove(&self.path(spare.name));
        }
    }

    /// The smallest spare that is large enough, its blocks prepared. One that is too small now is never large enough.
    fn spare(&mut self, wanted: u64) -> Result<Option<Blank>, Error> {
        let fits = |spare: &&Leftover| (wanted..=SEGMENT_BYTES_MAX).contains(&spare.bytes);
        let Some(&spare) = self.spares.iter().filter(fits).min_by_key(|spare| spare.bytes) else {
            return Ok(None);
        };
        if !self.names_durable {
            if let Err(error) = self.sync_dir() {
                // A later sync may succeed without having made durable what this one had to.
                self.spares.clear();
                return Err(error);
            }
            self.names_durable = true;
        }
        self.spares.retain(|other| *other != spare);
        let block = u64::from(self.identity.block_bytes);
        let bytes = spare.bytes - spare.bytes % block;
        let file = self.disk.open(&self.path(spare.name), Access::Write);
        match file.and_then(|file| file.prepare(bytes).map(|()| file)) {
            Ok(file) => Ok(Some(Blank { spare: spare.name, file, bytes })),
            Err(error) => Err(self.give_up(spare.name, "preparing a spare segment", error)),
        }
    }

    fn create(&self, id: SegmentId, bytes: u64) -> Result<Blank, Error> {
        let spare = FileName::Spare(id);
        let path = self.path(spare);
        let created = match self.disk.create(&path) {
            // What an earlier attempt could not remove.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(&path).and_then(|()| self.disk.create(&path))
            }
            created => created,
        };
        let file = created.map_err(|error| Error::io(format_args!("creating {path}"), error))?;
        match file.prepare(bytes) {
            Ok(()) => Ok(Blank { spare, file, bytes }),
            Err(error) => {
                drop(file);
                Err(self.give_up(spare, "preparing a segment", error))
            }
        }
    }

    fn write_header(
        &self,
        file: &dyn File,
        id: SegmentId,
        salt: u64,
        bytes: u64,
    ) -> io::Result<()> {
        let header = SegmentHeader {
            origin: Origin { store: self.identity.store, shard: self.shard, segment: id, salt },
            block_bytes: self.identity.block_bytes,
            bytes,
            kind: if self.opened {
                SegmentKind::Rolled
            } else {
                SegmentKind::Opened { accepted: self.accepted }
            },
            time: clock::unix_micros(),
        };
        let mut block = vec![0; self.identity.block_bytes as usize];
        header.encode(&mut block);
        file.write_at(0, &block)?;
        file.sync()
    }

    /// Removes what a failed attempt leaves, so that a full disk is not kept full by it.
    fn give_up(&self, spare: FileName, doing: &str, error: io::Error) -> Error {
        let path = self.path(spare);
        let _ = self.disk.remove(&path);
        Error::io(format_args!("{doing} ({path})"), error)
    }

    fn sync_dir(&self) -> Result<(), Error> {
        let synced = self.disk.sync_dir(&self.dir);
        synced.map_err(|error| Error::io(format_args!("syncing the directory {}", self.dir), error))
    }

    fn path(&self, name: FileName) -> String {
        format!("{}/{name}", self.dir)
    }
}

impl fmt::Debug for Preparer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Preparer")
            .field("dir", &self.dir)
            .field("last", &self.last)
            .field("opened", &self.opened)
            .field("bytes_next", &self.bytes_next)
            .finish_non_exhaustive()
    }
}
