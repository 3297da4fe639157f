//! Salvage: everything in a damaged store that is provably whole, in a new one; and a list of what is missing.
//!
//! It reads with the verifier's reader, which here also searches damaged bytes for records. A record is whole if its head
//! fits its checksum, the salt of its segment and its own position, and its events fit theirs. So it was written there, in
//! this use of the segment, and by this store.
//!
//! * A version in the new store is the same as in the old one, or it is not there.
//! * An aggregate of which a version is missing is **cut off**: it ends before that version. What follows is set aside.
//! * A write is all or nothing. One that appends to an aggregate that is cut off, or checks one, is set aside whole; what
//!   it appends to is cut off from there on, since there its version is missing.
//! * What is set aside is never silently dropped: the caller is given it, with its old versions and position.
//!
//! The old store is opened for reading alone. The new one gets its identity last: a salvage that does not come to its end
//! leaves a directory that is no store.

mod ledger;
mod report;
mod target;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;

use ledger::Ledger;
pub use report::{CutOff, DamagedRange, LeftCheckpoint, MissingVersions, Salvage, SetAside};
use target::Target;

use crate::disk::{self, Disk};
use crate::error::{Error, ErrorKind};
use crate::format::{Identity, SyncChoice};
use crate::id::{ShardId, StoreId};
use crate::identity_file;
use crate::limits::{SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX};
use crate::log::prepare::shard_dir;
use crate::sync::entropy::entropy;
use crate::verify::{self, Facts, Files, Shard};

/// Copies everything that is provably whole out of a damaged store into a new one, and lists what is missing.
///
/// `to` must not exist, or be an empty directory. Nothing in `from` is changed; nobody may write to it meanwhile. What is
/// whole and can't go into the new store, because something before it is missing, is handed to `set_aside`, in log
/// order. `progress` is told how many bytes are done, and how many there are. The new store is verified at the end.
///
/// Versions, events with their ids, times and metadata, clients with their sequences, conditions, times of commits, and
/// the shards of aggregates stay as they were. Positions do not; so checkpoints are left out, and listed.
///
/// ```
/// use annals::{Event, Expect, Store};
/// # let dir = tempfile::tempdir_in("/var/tmp")?;
/// # let (damaged, rescued) = (dir.path().join("damaged"), dir.path().join("rescued"));
///
/// let store = Store::open(&damaged)?;
/// store.append("order-1", Expect::Absent, [Event::new("Placed", "")])?.wait()?;
/// store.close()?;
///
/// let salvage = annals::salvage(&damaged, &rescued, |aside| panic!("{}", aside.why), |_, _| {})?;
/// assert!(salvage.is_complete());
/// assert_eq!(Store::open(&rescued)?.version("order-1")?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// `Invalid` if `to` is not new; `Corrupt` if nothing tells what the store is; `Unsupported` for a store of another version;
/// `Full` and `Io` for what the operating system refuses, also from `set_aside`. Then `to` is no store, and can be removed.
pub fn salvage(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    mut set_aside: impl FnMut(&SetAside<'_>) -> io::Result<()>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Salvage, Error> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let source = verify::open_to_read(from)?;
    expect_new(from, to)?;
    let target = disk::open(to, disk::Opening::Create, disk::QueueKind::Blocking)
        .map_err(|error| identity_file::open_disk_error(to, error))?;
    salvage_on(&*source, target, &mut set_aside, &mut progress)
}

/// Refuses a target that holds something, or lies in the store that is read.
fn expect_new(from: &Path, to: &Path) -> Result<(), Error> {
    let shown = to.display();
    match to.read_dir().map(|mut entries| entries.next().is_some()) {
        Ok(true) => {
            let what = format!(
                "{shown} is not empty: a salvage makes a new store, name a directory that does not exist"
            );
            return Err(Error::invalid(what));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(identity_file::open_disk_error(to, error));
        }
        _ => {}
    }
    let known = to.ancestors().filter(|above| !above.as_os_str().is_empty());
    let above = known.chain([Path::new(".")]).find_map(|above| above.canonicalize().ok());
    let from = from.canonicalize().map_err(|error| Error::io("finding the store", error))?;
    if above.is_some_and(|above| above.starts_with(&from)) {
        let what =
            format!("{shown} lies in the store that is salvaged: name a directory outside of it");
        return Err(Error::invalid(what));
    }
    Ok(())
}

pub(crate) fn salvage_on(
    from: &dyn Disk,
    to: Arc<dyn Disk>,
    set_aside: &mut dyn FnMut(&SetAside<'_>) -> io::Result<()>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Salvage, Error> {
    let listed = to.list("").map_err(|error| Error::io("listing the new store", error))?;
    if !listed.is_empty() {
        return Err(Error::invalid("the new store's directory is not empty"));
    }
    let mut salvage = Salvage::default();
    let (facts, known) = match verify::read_identity(from)? {
        Ok(facts) => (facts, true),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            salvage.identity = Some(error.to_string());
            (verify::facts_of_segments(from)?, false)
        }
        Err(error) => return Err(error),
    };
    let _lock = to.lock().map_err(|error| Error::io("locking the new store", error))?;
    let identity = identity_like(&facts, known, &*to);
    salvage.shards = identity.shards;
    for shard in 0..identity.shards {
        let dir = shard_dir(ShardId(shard));
        to.create_dir(&dir).map_err(|error| Error::io(format_args!("making {dir}"), error))?;
    }

    let found = verify::shards_found(from)?;
    let mut all = 0;
    for shard in found.iter().filter(|shard| **shard < facts.shards) {
        all += Files::new(from, *shard).bytes()?;
    }
    let mut done = 0;
    progress(done, all);
    let mut walked = |bytes: u64| {
        done = (done + bytes).min(all);
        progress(done, all);
    };
    let mut target = Target::new(Arc::clone(&to), &identity, 0);
    for number in 0..facts.shards {
        if !found.contains(&number) {
            salvage.damage.push(DamagedRange {
                shard: number,
                segment: shard_dir(ShardId(number)),
                offset: 0,
                bytes: 0,
                aggregate: None,
                what: "the directory of the shard is missing".into(),
                lost: true,
            });
            continue;
        }
        if number > 0 && identity.shards > 1 {
            let next = Target::new(Arc::clone(&to), &identity, number);
            std::mem::replace(&mut target, next).close()?;
        }
        let shard = Shard { facts, number, rescue: true };
        let mut ledger = Ledger::new(number, &mut target, &mut salvage, set_aside, &mut walked);
        verify::walk(&shard, &mut Files::new(from, number), &mut ledger)?;
        ledger.close();
    }
    target.close()?;
    identity_file::create_as(&*to, &identity)
        .map_err(|error| Error::io("making the new store", error))?;
    check(&*to, &salvage)?;
    Ok(salvage)
}

/// What the new store is: the same, under another name.
fn identity_like(facts: &Facts, known: bool, to: &dyn Disk) -> Identity {
    let block_bytes = facts.block.max(to.block_bytes());
    // A segment found on disk may be smaller than what segments grow to.
    let grown =
        if known { facts.segment_bytes } else { facts.segment_bytes.max(SEGMENT_BYTES_DEFAULT) };
    let segment_bytes = grown.max(2 * u64::from(block_bytes)).next_multiple_of(block_bytes.into());
    Identity {
        store: StoreId(u128::from(entropy()) << 64 | u128::from(entropy())),
        // With the same key, route and number of shards every aggregate keeps its shard, and what was written together
        // still can be. Without the key that is lost, but to a store of one shard no key routes wrongly.
        hash_key: if known { facts.hash_key } else { entropy() },
        shards: if known { facts.shards } else { 1 },
        route: facts.route,
        segment_bytes: segment_bytes.min(SEGMENT_BYTES_MAX),
        block_bytes,
        sync: if facts.syncs { SyncChoice::WriteThenSync } else { SyncChoice::WriteDsync },
        generation: 1,
    }
}

/// Verifies the new store, and that it has what was copied.
fn check(to: &dyn Disk, salvage: &Salvage) -> Result<(), Error> {
    let found = verify::verify_on(to, &mut |_, _| {})?;
    let wrong = match found.problems.first() {
        Some(problem) => problem.to_string(),
        None => {
            let copied = (salvage.writes + salvage.snapshots, salvage.events, salvage.aggregates);
            let held = (found.writes, found.events, found.aggregates);
            if held == copied {
                return Ok(());
            }
            format!("it has {held:?} writes, events and aggregates, and {copied:?} were copied")
        }
    };
    Err(Error::new(
        ErrorKind::Corrupt,
        format!("the new store is not what was written to it: {wrong}"),
    ))
}
