//! Segments as readers see them: a file of which the bytes up to some end are durable.
//!
//! A [`Segment`] says nothing that changes. The segment being written is *active*: it keeps its file, and the
//! watermark says how much of it is durable. Once the log has moved on to the next one, a *sealed* segment takes its
//! place in the catalogue: it knows its end, and keeps a path instead of a descriptor. Sealed segments are mapped on
//! first use and stay mapped; a store that was opened without maps reads into memory through a few descriptors that
//! all its segments share ([`Files`]).

use std::fmt;
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::disk::{Access, Disk, File, Mapping};
use crate::error::{Error, ErrorKind};
use crate::id::{SegmentId, ShardId};
use crate::log::bytes::LogBytes;

/// How many descriptors the sealed segments of a shard share where they are not mapped.
const OPEN_FILES: usize = 8;

/// One segment. See the module.
pub struct Segment {
    id: SegmentId,
    salt: u64,
    path: Arc<str>,
    state: State,
}

enum State {
    Active { file: Arc<dyn File> },
    Sealed { end: u32, mapping: ArcSwapOption<Mapping> },
}

impl Segment {
    /// The segment that the log writer writes to.
    pub fn active(id: SegmentId, salt: u64, path: &str, file: Arc<dyn File>) -> Segment {
        Segment { id, salt, path: path.into(), state: State::Active { file } }
    }

    /// A segment in which the log ended at `end` (an offset in its file) and will not go on.
    pub fn sealed(id: SegmentId, salt: u64, path: &str, end: u32) -> Segment {
        Segment { id, salt, path: path.into(), state: State::sealed(end) }
    }

    /// The same segment when the log has left it.
    pub(super) fn seal(&self, end: u32) -> Segment {
        Segment {
            id: self.id,
            salt: self.salt,
            path: Arc::clone(&self.path),
            state: State::sealed(end),
        }
    }

    /// Its number.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// The salt of this use of it.
    pub fn salt(&self) -> u64 {
        self.salt
    }

    /// Where the log ended in it; `None` while it is active.
    pub fn end(&self) -> Option<u32> {
        match self.state {
            State::Active { .. } => None,
            State::Sealed { end, .. } => Some(end),
        }
    }

    /// Bytes of the file. The caller has checked that they are durable; a file that does not have them is damaged.
    pub(super) fn bytes(&self, files: &Files, range: Range<u32>) -> Result<LogBytes, Error> {
        match &self.state {
            State::Active { file } => self.read(files, &**file, range),
            State::Sealed { end, mapping } if files.mapped => {
                let mapping = match mapping.load_full() {
                    Some(mapping) => mapping,
                    None => {
                        let mapped = Arc::new(self.map(files, *end)?);
                        // If another thread was faster, its map stays and this one goes with its last reader.
                        mapping.compare_and_swap(ptr::null(), Some(Arc::clone(&mapped)));
                        mapped
                    }
                };
                LogBytes::of_mapping(&mapping, range.start as usize..range.end as usize)
                    .ok_or_else(|| self.truncated(files, range.end.into(), (*end).into()))
            }
            State::Sealed { .. } => {
                let open = files.open(self).map_err(|error| self.io(files, "opening", error))?;
                self.read(files, &*open.file, range)
            }
        }
    }

    fn read(&self, files: &Files, file: &dyn File, range: Range<u32>) -> Result<LogBytes, Error> {
        let bytes = range.end.saturating_sub(range.start) as usize;
        let mut memory = Vec::new();
        memory.try_reserve_exact(bytes).map_err(|_| Error::out_of_memory("reading the log"))?;
        memory.resize(bytes, 0);
        match file.read_at(range.start.into(), &mut memory) {
            Ok(()) => Ok(LogBytes::of_memory(memory.into())),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.truncated(files, range.end.into(), file.len().unwrap_or(0)))
            }
            Err(error) => Err(self.io(files, "reading", error)),
        }
    }

    /// Maps the file up to `end`, which must not lie beyond its end: touching such a page would be fatal.
    fn map(&self, files: &Files, end: u32) -> Result<Mapping, Error> {
        let end = u64::from(end);
        let file = files
            .disk
            .open(&self.path, Access::Read)
            .map_err(|error| self.io(files, "opening", error))?;
        let found = file.len().map_err(|error| self.io(files, "reading the length of", error))?;
        if found < end {
            return Err(self.truncated(files, end, found));
        }
        file.map(end).map_err(|error| self.io(files, "mapping", error))
    }

    fn truncated(&self, files: &Files, expected: u64, found: u64) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "shard {}, {}: the log goes on to byte {expected}, and the file has only {found} bytes",
                files.shard, self.path
            ),
        )
    }

    fn io(&self, files: &Files, doing: &str, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::NotFound {
            return Error::new(
                ErrorKind::Corrupt,
                format!("shard {}, {}: the file is missing", files.shard, self.path),
            );
        }
        Error::io(format_args!("shard {}, {doing} {}", files.shard, self.path), error)
    }
}

impl State {
    fn sealed(end: u32) -> State {
        State::Sealed { end, mapping: ArcSwapOption::empty() }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("path", &self.path).field("end", &self.end()).finish()
    }
}

/// How the sealed segments of one shard are reached.
#[derive(Debug)]
pub(super) struct Files {
    shard: ShardId,
    disk: Arc<dyn Disk>,
    mapped: bool,
    /// A segment has one place, by its number, so a walk through the log opens each file once.
    open: [ArcSwapOption<OpenFile>; OPEN_FILES],
}

#[derive(Debug)]
struct OpenFile {
    segment: SegmentId,
    file: Arc<dyn File>,
}

impl Files {
    pub(super) fn new(shard: ShardId, disk: Arc<dyn Disk>, mapped: bool) -> Files {
        Files { shard, disk, mapped, open: [const { ArcSwapOption::const_empty() }; OPEN_FILES] }
    }

    fn open(&self, segment: &Segment) -> io::Result<Arc<OpenFile>> {
        let place = &self.open[segment.id.0 as usize % OPEN_FILES];
        if let Some(open) = place.load_full().filter(|open| open.segment == segment.id) {
            return Ok(open);
        }
        let file = self.disk.open(&segment.path, Access::Read)?;
        let open = Arc::new(OpenFile { segment: segment.id, file });
        place.store(Some(Arc::clone(&open)));
        Ok(open)
    }
}
