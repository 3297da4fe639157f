//! The identity file: read when a store is opened, written when it is created.
//!
//! It is the last thing that creating makes: first the directories of the shards, made durable, then the file under
//! another name, synced, renamed, and the directory synced. So a store exists whole or not at all, and a directory with
//! segments but without an identity was damaged.

use std::io;
use std::path::Path;

use crate::disk::{Access, Disk, SyncMethod};
use crate::error::{Error, ErrorKind};
use crate::format::{
    FileName, IDENTITY_BYTES, IDENTITY_OFFSETS, Identity, IdentityError, SyncChoice, decode_pair,
};
use crate::id::{ShardId, StoreId};
use crate::limits::SEGMENT_BYTES_DEFAULT;
use crate::log::prepare::shard_dir;
use crate::options::{Durability, Options};
use crate::sync::entropy::entropy;

const NAME: &str = "identity";
const NAME_WHILE_WRITTEN: &str = "identity.new";

/// Reads what the store is, or creates it if there is none and the options allow. The caller holds the store's lock
/// unless it opens for reading.
///
/// # Errors
///
/// `Invalid` for options that contradict what is stored, or if there is no store and none is to be created; `Corrupt` and
/// `Unsupported` for what is stored; `Io`.
pub(crate) fn open_or_create(disk: &dyn Disk, options: &Options) -> Result<Identity, Error> {
    let may_create = options.create && !options.read_only;
    match read(disk)? {
        Some(identity) => {
            compare(&identity, options)?;
            if !options.read_only {
                // Who created the store may have died before its name was durable.
                disk.sync_dir("")
                    .map_err(|error| Error::io("syncing the store directory", error))?;
            }
            Ok(identity)
        }
        None if holds_segments(disk)? => Err(Error::new(
            ErrorKind::Corrupt,
            "the identity file is missing, and there are segments: restore it from a copy of the store",
        )),
        None if may_create => create(disk, options),
        None => Err(no_store()),
    }
}

/// Looks, before anything is locked or made, whether there is a store at all.
pub(crate) fn expect_store(disk: &dyn Disk) -> Result<(), Error> {
    match disk.open(NAME, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !holds_segments(disk)? => {
            Err(no_store())
        }
        // What else is wrong with it is told when it is read.
        _ => Ok(()),
    }
}

/// Says why a store directory could not be opened.
pub(crate) fn open_disk_error(path: &Path, error: io::Error) -> Error {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => Error::io(
            format_args!("{path} is not a directory: a store is a directory of its own"),
            error,
        ),
        io::ErrorKind::NotFound => Error::io(format_args!("there is no store at {path}"), error),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Error::io(
            format_args!("{path} can't be opened for writing; opening it read-only may do"),
            error,
        ),
        io::ErrorKind::Unsupported => {
            Error::new(ErrorKind::Unsupported, format!("opening the store {path}: {error}"))
        }
        _ => Error::io(format_args!("opening the store {path}"), error),
    }
}

fn no_store() -> Error {
    let missing = io::Error::new(io::ErrorKind::NotFound, "the identity file is missing");
    Error::io("there is no store in this directory", missing)
}

fn read(disk: &dyn Disk) -> Result<Option<Identity>, Error> {
    let reading = |error| Error::io(format_args!("reading the file {NAME}"), error);
    let file = match disk.open(NAME, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(reading(error)),
    };
    let length = file.len().map_err(reading)?.min(IDENTITY_BYTES as u64);
    let mut bytes = vec![0; length as usize];
    file.read_at(0, &mut bytes).map_err(reading)?;
    match decode_pair(&bytes) {
        Ok(decoded) => Ok(Some(decoded.identity)),
        Err(error) => {
            let kind = match &error {
                IdentityError::Format { .. } => ErrorKind::Unsupported,
                IdentityError::Damaged { copies }
                    if copies.iter().any(|copy| copy.is_unsupported()) =>
                {
                    ErrorKind::Unsupported
                }
                _ => ErrorKind::Corrupt,
            };
            Err(Error::new(kind, format!("{NAME}: {error}")))
        }
    }
}

/// Whether there is a log whose identity has gone.
fn holds_segments(disk: &dyn Disk) -> Result<bool, Error> {
    let listing = |error| Error::io("listing the store directory", error);
    for entry in disk.list("").map_err(listing)? {
        let shard = entry.name.strip_prefix("shard-").and_then(|number| number.parse().ok());
        let Some(shard) = shard.map(ShardId).filter(|shard| shard_dir(*shard) == entry.name) else {
            continue;
        };
        let names = match disk.list(&shard_dir(shard)) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
            Err(error) => return Err(listing(error)),
        };
        let segment = |name: &str| matches!(FileName::parse(name), Some(FileName::Segment(_)));
        if names.iter().any(|entry| segment(&entry.name)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Refuses options that are not what is stored.
fn compare(identity: &Identity, options: &Options) -> Result<(), Error> {
    fn same<T: PartialEq + std::fmt::Display>(
        name: &str,
        given: Option<T>,
        stored: T,
    ) -> Result<(), Error> {
        match given {
            Some(given) if given != stored => Err(Error::invalid(format!(
                "{name} is given as {given}, and the store was created with {stored}: leave it out or give that"
            ))),
            _ => Ok(()),
        }
    }
    same("shards", options.shards, identity.shards)?;
    same("block_bytes", options.block_bytes, identity.block_bytes)?;
    let segment_bytes =
        options.segment_bytes.map(|bytes| whole_blocks(bytes, identity.block_bytes));
    same("segment_bytes", segment_bytes, identity.segment_bytes)?;
    let route = |byte: u8| format!("the byte {:?}", char::from(byte));
    let stored = identity.route.map_or_else(|| "none (the whole key routes)".into(), route);
    same("route_by_prefix", options.route.map(route), stored)
}

fn whole_blocks(bytes: u64, block_bytes: u32) -> u64 {
    bytes.next_multiple_of(block_bytes.into())
}

fn create(disk: &dyn Disk, options: &Options) -> Result<Identity, Error> {
    let block_bytes = options.block_bytes.unwrap_or_else(|| disk.block_bytes());
    let sync = match options.durability {
        Some(Durability::WriteDsync) => SyncChoice::WriteDsync,
        Some(Durability::WriteThenSync) => SyncChoice::WriteThenSync,
        None => match disk.probe().map_err(|error| Error::io("probing the disk", error))? {
            SyncMethod::WriteDsync => SyncChoice::WriteDsync,
            SyncMethod::WriteThenSync => SyncChoice::WriteThenSync,
        },
    };
    let identity = Identity {
        store: StoreId(u128::from(entropy()) << 64 | u128::from(entropy())),
        hash_key: entropy(),
        shards: options.shards.unwrap_or(1),
        route: options.route,
        segment_bytes: whole_blocks(
            options.segment_bytes.unwrap_or(SEGMENT_BYTES_DEFAULT),
            block_bytes,
        ),
        block_bytes,
        sync,
        generation: 1,
    };
    create_as(disk, &identity).map_err(|error| Error::io("creating the store", error))?;
    Ok(identity)
}

/// Makes the store durable, step by step.
pub(crate) fn create_as(disk: &dyn Disk, identity: &Identity) -> io::Result<()> {
    for shard in 0..identity.shards {
        disk.create_dir(&shard_dir(ShardId(shard)))?;
    }
    match disk.remove(NAME_WHILE_WRITTEN) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(NAME_WHILE_WRITTEN)?;
    let written = (|| {
        let mut bytes = vec![0; IDENTITY_BYTES];
        for at in IDENTITY_OFFSETS {
            let copy = identity.encode();
            bytes[at..at + copy.len()].copy_from_slice(&copy);
        }
        file.write_at(0, &bytes)?;
        file.sync()?;
        // The directories of the shards, before there is a store that has them.
        disk.sync_dir("")?;
        disk.rename(NAME_WHILE_WRITTEN, NAME)
    })();
    if let Err(error) = written {
        drop(file);
        let _ = disk.remove(NAME_WHILE_WRITTEN);
        return Err(error);
    }
    disk.sync_dir("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::{Fault, Loss, Op, SimDisk};
    use std::sync::Arc;

    fn created(options: &Options) -> (Arc<SimDisk>, Identity) {
        let disk = SimDisk::new(1);
        let identity = open_or_create(&*disk, options).unwrap();
        (disk, identity)
    }

    fn error(disk: &dyn Disk, options: &Options) -> Error {
        open_or_create(disk, options).unwrap_err()
    }

    #[test]
    fn what_is_created_is_found_again() {
        let options = Options::new()
            .shards(4)
            .route_by_prefix(b'/')
            .segment_bytes((2 << 20) + 1)
            .block_bytes(512)
            .durability(Durability::WriteThenSync);
        let (disk, identity) = created(&options);
        assert_eq!((identity.shards, identity.route, identity.block_bytes), (4, Some(b'/'), 512));
        assert_eq!(identity.segment_bytes, (2 << 20) + 512);
        assert_eq!(identity.sync, SyncChoice::WriteThenSync);
        for found in [&options, &Options::new(), &Options::new().read_only(true)] {
            assert_eq!(open_or_create(&*disk, found).unwrap(), identity);
        }
        let (_, other) = created(&options);
        assert_ne!((other.store, other.hash_key), (identity.store, identity.hash_key));
    }

    #[test]
    fn what_is_not_said_is_chosen() {
        let (_, identity) = created(&Options::new());
        assert_eq!((identity.shards, identity.route, identity.block_bytes), (1, None, 4096));
        assert_eq!(identity.segment_bytes, SEGMENT_BYTES_DEFAULT);
    }

    #[test]
    fn options_that_contradict_are_told_with_both_values() {
        let (disk, _) = created(&Options::new().shards(2).route_by_prefix(b'/'));
        for (options, given, stored) in [
            (Options::new().shards(3), "shards is given as 3", "created with 2"),
            (Options::new().segment_bytes(1 << 20), "given as 1048576", "created with 67108864"),
            (Options::new().block_bytes(512), "given as 512", "created with 4096"),
            (Options::new().route_by_prefix(b':'), "given as the byte ':'", "with the byte '/'"),
        ] {
            let error = error(&*disk, &options);
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let shown = error.to_string();
            assert!(shown.contains(given) && shown.contains(stored), "{shown}");
        }
        let (disk, _) = created(&Options::new());
        let shown = error(&*disk, &Options::new().route_by_prefix(b'/')).to_string();
        assert!(shown.contains("the whole key routes"), "{shown}");
    }

    #[test]
    fn nothing_is_created_unless_asked_for() {
        let disk = SimDisk::new(1);
        for options in [Options::new().create(false), Options::new().read_only(true)] {
            let error = error(&*disk, &options);
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.to_string().contains("no store"), "{error}");
            assert!(disk.list("").unwrap().is_empty());
        }
    }

    #[test]
    fn a_lost_identity_is_not_an_empty_store() {
        let (disk, _) = created(&Options::new());
        disk.create("shard-0000/0000000000000001.seg").unwrap();
        disk.remove(NAME).unwrap();
        let error = error(&*disk, &Options::new());
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }

    #[test]
    fn one_damaged_copy_is_survived_and_two_are_told() {
        let (disk, identity) = created(&Options::new());
        disk.flip(NAME, IDENTITY_OFFSETS[0] as u64 + 30).unwrap();
        assert_eq!(open_or_create(&*disk, &Options::new()).unwrap(), identity);
        disk.flip(NAME, IDENTITY_OFFSETS[1] as u64 + 30).unwrap();
        let both = error(&*disk, &Options::new());
        assert_eq!(both.kind(), ErrorKind::Corrupt);
        assert!(both.to_string().contains("both copies are damaged"), "{both}");
        let file = disk.open(NAME, Access::Write).unwrap();
        file.set_len(0).unwrap();
        let empty = error(&*disk, &Options::new());
        assert_eq!(empty.kind(), ErrorKind::Corrupt);
        assert!(empty.to_string().contains("not an identity file"), "{empty}");
    }

    #[test]
    fn another_format_is_unsupported() {
        let (disk, identity) = created(&Options::new());
        let mut copy = identity.encode();
        copy[16] = 9;
        let checksum = xxhash_rust::xxh3::xxh3_64(&copy[8..]);
        copy[..8].copy_from_slice(&checksum.to_le_bytes());
        disk.open(NAME, Access::Write).unwrap().write_at(0, &copy).unwrap();
        let error = error(&*disk, &Options::new());
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("format 9"), "{error}");
    }

    #[test]
    fn creating_fails_whole_and_can_be_tried_again() {
        for op in [Op::Create, Op::Write, Op::Sync, Op::SyncDir] {
            let disk = SimDisk::new(1);
            let kind = io::ErrorKind::StorageFull;
            disk.plan(Fault { op, nth: 1, lasting: false, kind, short: true });
            assert_eq!(error(&*disk, &Options::new()).kind(), ErrorKind::Full, "{op:?}");
            assert!(error(&*disk, &Options::new().create(false)).to_string().contains("no store"));
            open_or_create(&*disk, &Options::new()).unwrap();
        }
    }

    #[test]
    fn a_directory_that_can_not_be_opened_is_explained() {
        let explained =
            |kind: io::ErrorKind| open_disk_error(Path::new("data"), kind.into()).to_string();
        assert!(explained(io::ErrorKind::NotADirectory).contains("data is not a directory"));
        assert!(explained(io::ErrorKind::NotFound).contains("no store at data"));
        assert!(explained(io::ErrorKind::ReadOnlyFilesystem).contains("read-only"));
    }

    #[test]
    fn who_opens_a_store_makes_its_name_durable() {
        let whole = SimDisk::new(1);
        open_or_create(&*whole, &Options::new()).unwrap();

        // Whoever creates it dies before the last operation, which would make the name durable.
        let sim = SimDisk::new(1);
        sim.set_loss(Loss::Nothing);
        sim.plan_cut(whole.ios(), 1);
        assert!(open_or_create(&*sim, &Options::new()).is_err());
        let sim = sim.take_cut().unwrap();
        let opened = open_or_create(&*sim, &Options::new()).unwrap();

        sim.set_loss(Loss::All);
        let sim = sim.crash(2);
        assert_eq!(read(&*sim).unwrap().map(|found| found.store), Some(opened.store));
    }
}
