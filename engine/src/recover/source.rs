//! The bytes of a shard's segments, read into one buffer.
//!
//! Recovery maps nothing: a disk error is then an error of the opening and not a signal, and a file that a live writer
//! cuts meanwhile is a short read. The buffer holds one segment at a time.

use std::io;
use std::sync::Arc;

use super::corruption::Corruption;
use crate::disk::{Access, Disk, Entry, File};
use crate::error::Error;
use crate::format::{FileName, Identity, SegmentHeader};
use crate::id::{SegmentId, ShardId, StoreId};
use crate::limits::SEGMENT_BYTES_MAX;
use crate::log::prepare::shard_dir;

/// How often a segment is read again because it was cut meanwhile.
const READS_MAX: usize = 16;

/// Why a look did not come to its end.
#[derive(Debug)]
pub(super) enum Trip {
    /// A file went away or became shorter.
    Moved(io::Error),
    /// Anything else.
    Failed(Error),
}

/// One shard's files.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    disk: &'a dyn Disk,
    store: StoreId,
    block_bytes: u32,
    shard: ShardId,
    dir: String,
    buffer: Vec<u8>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(disk: &'a dyn Disk, identity: &Identity, shard: ShardId) -> Source<'a> {
        Source {
            disk,
            store: identity.store,
            block_bytes: identity.block_bytes,
            shard,
            dir: shard_dir(shard),
            buffer: Vec::new(),
        }
    }

    pub(super) fn store(&self) -> StoreId {
        self.store
    }

    pub(super) fn shard(&self) -> ShardId {
        self.shard
    }

    pub(super) fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    pub(super) fn dir(&self) -> &str {
        &self.dir
    }

    pub(super) fn path(&self, name: FileName) -> String {
        format!("{}/{name}", self.dir)
    }

    pub(super) fn corruption(&self, id: SegmentId, offset: u64, what: String) -> Corruption {
        let file = self.path(FileName::Segment(id));
        Corruption { shard: self.shard, file, offset, aggregate: None, what }
    }

    pub(super) fn list(&self) -> Result<Vec<Entry>, Error> {
        self.disk
            .list(&self.dir)
            .map_err(|error| Error::io(format_args!("listing {}", self.dir), error))
    }

    /// So many bytes of a segment; from the device if `direct`.
    pub(super) fn read(
        &mut self,
        id: SegmentId,
        offset: u64,
        bytes: u64,
        direct: bool,
    ) -> Result<&[u8], Trip> {
        let path = self.path(FileName::Segment(id));
        let opened = self.disk.open(&path, Access::Read);
        let file = opened.map_err(|error| Trip::sort(format_args!("opening {path}"), error))?;
        let bytes = bytes.min(SEGMENT_BYTES_MAX);
        let filled = fill(&mut self.buffer, &*file, offset, bytes, direct)?;
        filled.map_err(|error| Trip::sort(format_args!("reading {path}"), error))?;
        Ok(&self.buffer[..bytes as usize])
    }

    /// A segment up to what it says was prepared, or to the end of the file.
    pub(super) fn read_all(
        &mut self,
        id: SegmentId,
        header: &SegmentHeader,
        bytes: u64,
        direct: bool,
    ) -> Result<&[u8], Trip> {
        self.read(id, 0, bytes.min(header.bytes), direct)
    }

    /// The same in a buffer to be given back, with the file, whatever a writer does to it meanwhile. A file that is gone
    /// has no bytes.
    pub(super) fn load(
        &mut self,
        id: SegmentId,
        header: &SegmentHeader,
        direct: bool,
    ) -> Result<Loaded, Error> {
        let path = self.path(FileName::Segment(id));
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut reads = 0;
        loop {
            let file = match self.disk.open(&path, Access::Read) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(Loaded { file: None, buffer, bytes: 0 });
                }
                Err(error) => return Err(Error::io(format_args!("opening {path}"), error)),
            };
            let reading = |error| Error::io(format_args!("reading {path}"), error);
            let bytes = file.len().map_err(reading)?.min(header.bytes).min(SEGMENT_BYTES_MAX);
            match fill(&mut buffer, &*file, 0, bytes, direct)? {
                Ok(()) => return Ok(Loaded { file: Some(file), buffer, bytes: bytes as usize }),
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    return Err(reading(error));
                }
                Err(error) => {
                    reads += 1;
                    if reads == READS_MAX {
                        return Err(reading(error));
                    }
                }
            }
        }
    }

    pub(super) fn give_back(&mut self, loaded: Loaded) {
        self.buffer = loaded.buffer;
    }

    /// The bytes at the start of a segment's first flush; fewer or none if there are not so many.
    pub(super) fn first_flush(
        &self,
        id: SegmentId,
        bytes: &mut [u8],
        direct: bool,
    ) -> Result<bool, Error> {
        let path = self.path(FileName::Segment(id));
        let offset = u64::from(self.block_bytes);
        let end = offset + bytes.len() as u64;
        let reading = |error| Error::io(format_args!("reading {path}"), error);
        let mut reads = 0;
        loop {
            let file = match self.disk.open(&path, Access::Read) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(Error::io(format_args!("opening {path}"), error)),
            };
            let read = if direct {
                file.read_direct_at(offset, bytes)
            } else {
                file.read_at(offset, bytes)
            };
            match read {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    return Err(reading(error));
                }
                // Only a file that is as short as the read says holds no flush.
                Err(_) if file.len().map_err(reading)? < end => return Ok(false),
                Err(error) => {
                    reads += 1;
                    if reads == READS_MAX {
                        return Err(reading(error));
                    }
                }
            }
        }
    }
}

/// A segment in memory.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Its file, if it is there.
    pub(super) file: Option<Arc<dyn File>>,
    buffer: Vec<u8>,
    bytes: usize,
}

impl Loaded {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.bytes]
    }
}

/// Reads into the start of the buffer, which grows and never shrinks.
fn fill(
    buffer: &mut Vec<u8>,
    file: &dyn File,
    offset: u64,
    bytes: u64,
    direct: bool,
) -> Result<io::Result<()>, Error> {
    let bytes = bytes as usize;
    if buffer.len() < bytes {
        buffer
            .try_reserve_exact(bytes - buffer.len())
            .map_err(|_| Error::out_of_memory("a segment that is read"))?;
        buffer.resize(bytes, 0);
    }
    let into = &mut buffer[..bytes];
    Ok(if direct { file.read_direct_at(offset, into) } else { file.read_at(offset, into) })
}
