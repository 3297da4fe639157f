//! The files of a store, opened for reading alone.
//!
//! One segment at a time is in memory, up to its limit. Beside a live writer files come, go and are cut while this
//! reads; whoever reads is told so by [`Trouble::Moved`] and looks again.

use std::io;

use super::frame::{Facts, IDENTITY_BYTES, identity};
use crate::disk::{Access, Disk};
use crate::error::{Error, ErrorKind};
use crate::id::SegmentId;
use crate::limits::SEGMENT_BYTES_MAX;

const IDENTITY: &str = "identity";
/// How often something that moves is looked at again.
pub(super) const LOOKS_MAX: usize = 64;

/// Why something could not be read.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It is gone, or shorter than it was.
    Moved(io::Error),
    /// Anything else.
    Failed(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Failed(error)
    }
}

fn sort(path: &str, error: io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => Trouble::Moved(error),
        _ => Trouble::Failed(Error::io(format_args!("reading {path}"), error)),
    }
}

/// A name with the grammar of a segment's: `[0-9a-f]{16}.seg`, its number at least 1 and below 2^32.
pub(super) fn segment_of(name: &str) -> Option<SegmentId> {
    let digits = name.strip_suffix(".seg")?;
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 16 || !digits.bytes().all(lower) {
        return None;
    }
    let number = u64::from_str_radix(digits, 16).ok()?;
    u32::try_from(number).ok().filter(|id| *id > 0).map(SegmentId)
}

/// The number of a shard's directory.
pub(super) fn shard_of(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("shard-")?;
    let number = digits.parse().ok()?;
    (directory(number) == name).then_some(number)
}

/// The directory of a shard.
pub(super) fn directory(shard: u16) -> String {
    format!("shard-{shard:04}")
}

/// What the store is; the inner error says what is wrong with the file that tells.
pub(crate) fn read_identity(disk: &dyn Disk) -> Result<Result<Facts, Error>, Error> {
    let reading = |error| Error::io(format_args!("reading the file {IDENTITY}"), error);
    let file = match disk.open(IDENTITY, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(missing(disk)?)),
        Err(error) => return Err(reading(error)),
    };
    let mut bytes = vec![0; file.len().map_err(reading)?.min(IDENTITY_BYTES) as usize];
    file.read_at(0, &mut bytes).map_err(reading)?;
    Ok(identity(&bytes).map_err(|flaw| {
        let kind = if flaw.unknown { ErrorKind::Unsupported } else { ErrorKind::Corrupt };
        Error::new(kind, format!("{IDENTITY}: {}", flaw.what))
    }))
}

/// No identity file: no store, or one that lost it.
fn missing(disk: &dyn Disk) -> Result<Error, Error> {
    let shards = shards_found(disk)?;
    if shards.is_empty() {
        let missing = io::Error::new(io::ErrorKind::NotFound, "the identity file is missing");
        return Ok(Error::io("there is no store in this directory", missing));
    }
    let what = "the identity file is missing, and there are shards: restore it from a copy of the store, or salvage";
    Ok(Error::new(ErrorKind::Corrupt, what))
}

/// The shards that have a directory, in the order of their numbers.
pub(crate) fn shards_found(disk: &dyn Disk) -> Result<Vec<u16>, Error> {
    let entries = disk.list("").map_err(|error| Error::io("listing the store directory", error))?;
    let mut shards: Vec<u16> = entries.iter().filter_map(|entry| shard_of(&entry.name)).collect();
    shards.sort_unstable();
    Ok(shards)
}

/// A name like a segment's in a shard's directory.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) id: SegmentId,
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) regular: bool,
}

/// The segments of one shard.
pub(crate) struct Files<'d> {
    disk: &'d dyn Disk,
    dir: String,
    buffer: Vec<u8>,
}

impl<'d> Files<'d> {
    pub(crate) fn new(disk: &'d dyn Disk, shard: u16) -> Files<'d> {
        Files { disk, dir: directory(shard), buffer: Vec::new() }
    }

    pub(super) fn path(&self, id: SegmentId) -> String {
        format!("{}/{:016x}.seg", self.dir, id.0)
    }

    /// What is called like a segment, in the order of the names.
    pub(super) fn list(&self) -> Result<Vec<Listed>, Error> {
        let entries = match self.disk.list(&self.dir) {
            Ok(entries) => entries,
            Err(error) => return Err(Error::io(format_args!("listing {}", self.dir), error)),
        };
        let listed = entries.into_iter().filter_map(|entry| {
            let id = segment_of(&entry.name)?;
            let path = self.path(id);
            Some(Listed { id, path, bytes: entry.bytes, regular: entry.regular })
        });
        let mut listed: Vec<Listed> = listed.collect();
        listed.sort_unstable_by_key(|listed| listed.id);
        Ok(listed)
    }

    /// How many bytes the segments take.
    pub(crate) fn bytes(&self) -> Result<u64, Error> {
        Ok(self.list()?.iter().map(|listed| listed.bytes).sum())
    }

    /// The first bytes of a file from an offset on. As a store's opening does, the newest segments are read from the
    /// device and not from a cache.
    pub(super) fn read(
        &mut self,
        path: &str,
        offset: u64,
        bytes: u64,
        direct: bool,
    ) -> Result<&[u8], Trouble> {
        let file = self.disk.open(path, Access::Read).map_err(|error| sort(path, error))?;
        let bytes = bytes.min(SEGMENT_BYTES_MAX) as usize;
        grow(&mut self.buffer, bytes)?;
        let into = self.buffer.get_mut(..bytes).unwrap_or_default();
        let read =
            if direct { file.read_direct_at(offset, into) } else { file.read_at(offset, into) };
        read.map_err(|error| sort(path, error))?;
        Ok(self.buffer.get(..bytes).unwrap_or_default())
    }

    /// As much of a segment as there is, in a buffer to be given back. A file that is gone has no bytes.
    pub(super) fn load(&mut self, path: &str, most: u64, direct: bool) -> Result<Loaded, Error> {
        let mut looks = 0;
        loop {
            let length = match self.disk.open(path, Access::Read).and_then(|file| file.len()) {
                Ok(length) => length.min(most).min(SEGMENT_BYTES_MAX),
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(Error::io(format_args!("reading {path}"), error)),
            };
            if length == 0 {
                return Ok(Loaded { buffer: std::mem::take(&mut self.buffer), length: 0 });
            }
            match self.read(path, 0, length, direct).map(|_| ()) {
                Ok(()) => {
                    let buffer = std::mem::take(&mut self.buffer);
                    return Ok(Loaded { buffer, length: length as usize });
                }
                Err(Trouble::Failed(error)) => return Err(error),
                Err(Trouble::Moved(error)) => {
                    looks += 1;
                    if looks == LOOKS_MAX {
                        return Err(Error::io(format_args!("reading {path}"), error));
                    }
                }
            }
        }
    }

    /// Fills `bytes` from an offset on; false if there are not so many.
    pub(super) fn peek(&self, path: &str, offset: u64, bytes: &mut [u8]) -> Result<bool, Error> {
        let read = self
            .disk
            .open(path, Access::Read)
            .and_then(|file| file.read_direct_at(offset, bytes))
            .map_err(|error| sort(path, error));
        match read {
            Ok(()) => Ok(true),
            Err(Trouble::Moved(_)) => Ok(false),
            Err(Trouble::Failed(error)) => Err(error),
        }
    }

    pub(super) fn give_back(&mut self, loaded: Loaded) {
        self.buffer = loaded.buffer;
    }
}

/// A segment in memory.
pub(super) struct Loaded {
    buffer: Vec<u8>,
    length: usize,
}

impl Loaded {
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }
}

/// The buffer grows and never shrinks.
fn grow(buffer: &mut Vec<u8>, bytes: usize) -> Result<(), Error> {
    if let Some(more) = bytes.checked_sub(buffer.len()).filter(|more| *more > 0) {
        let reserved = buffer.try_reserve_exact(more);
        reserved.map_err(|_| Error::out_of_memory("a segment that is read"))?;
        buffer.resize(bytes, 0);
    }
    Ok(())
}
