//! Bytes that change at rest.
//!
//! A copy of the disk as a life has left it, also by a power cut, rots at one place. What the independent reader held for
//! proven before is there afterwards, or is told of: the flush that proves it is another than the one that rots.

use std::sync::Arc;

use annals::internals::disk::Disk;
use annals::internals::disk::sim::Rot;
use annals::internals::sync::host;
use annals::internals::{open_on, verify_on};
use annals::{ErrorKind, Options};

use crate::inspect::{Complaint, Faith, inspect};
use crate::life::Lives;
use crate::world::World;

/// * It opens: what was proven is there, but for what a read says is damaged.
/// * It does not: it says that it is damaged, read-only it opens all the same (unless it can't be told what store it
///   is), and what can be read is right. The independent reader finds the damage too.
pub(crate) fn examine(lives: &mut Lives) -> Result<(), String> {
    let disk = lives.disk.clone_durable();
    // There may be no store yet.
    let Ok(before) = verify_on(&*disk) else { return Ok(()) };
    let proven = before.ends.iter().map(|end| end.proven.get()).collect();
    let random = lives.draw();
    let mut files = Vec::new();
    for dir in ["", "shard-0000", "shard-0001", "shard-0002"] {
        for entry in disk.list(dir).unwrap_or_default() {
            if entry.regular && entry.bytes > 0 {
                let path =
                    if dir.is_empty() { entry.name } else { format!("{dir}/{}", entry.name) };
                files.push((path, 0..entry.bytes));
            }
        }
    }
    files.sort_by(|one, other| one.0.cmp(&other.0));
    // Where the log ends little stands behind what rots: half of the time it is there.
    let end = &before.ends[random.usize(0..before.ends.len())];
    let (segment, offset) = (end.position.get() >> 32, end.position.get() & u64::from(u32::MAX));
    let (path, range) = match random.bool() && segment > 0 {
        true => {
            let range = offset.saturating_sub(3 * u64::from(lives.profile.block_bytes))..offset;
            (format!("shard-{:04}/{segment:016x}.seg", end.shard), range)
        }
        false => files.swap_remove(random.usize(0..files.len())),
    };
    let random = lives.draw();
    let kind = [Rot::Bit, Rot::Byte, Rot::Sector][random.usize(0..3)];
    let temper = lives.profile.clone().temper(lives.draw());
    let options = lives.profile.clone().options(lives.draw());
    let world = World::new(lives.draw().u64(..), temper);
    let place = disk.rot(&path, range, kind).map_err(|error| error.to_string())?;
    host::install(Some(std::rc::Rc::clone(&world) as _));
    let judged = judge(lives, &disk, &options, &Faith::Rotten(proven));
    world.finish();
    host::install(None);
    lives.faults.entry("rot".into()).and_modify(|count| *count += 1).or_insert(1);
    judged.map_err(|wrong| format!("{path} has rotted at {place:?}: {wrong}"))
}

fn judge(
    lives: &Lives,
    disk: &Arc<annals::internals::disk::sim::SimDisk>,
    options: &Options,
    faith: &Faith,
) -> Result<(), String> {
    let verified = verify_on(&**disk);
    let open = |options: &Options| open_on(options, Arc::clone(disk) as Arc<dyn Disk>);
    let mut book = lives.book.borrow().clone();
    let found = match open(options) {
        Ok(store) => match inspect(&store, &mut book, faith) {
            Ok(_) => "rot that hurt nobody",
            Err(Complaint::Failed(error)) if error.kind() == ErrorKind::Corrupt => {
                "rot told by a read"
            }
            Err(complaint) => return Err(format!("{complaint:?}")),
        },
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
            if verified.is_ok_and(|found| found.problems.is_empty()) {
                return Err(format!("verify finds nothing, and the store does not open: {error}"));
            }
            match open(&options.clone().read_only(true)) {
                Ok(store) => match inspect(&store, &mut book, faith) {
                    Err(Complaint::Failed(error)) if error.kind() == ErrorKind::Corrupt => {}
                    Ok(_) => {}
                    // What is missing is missing because the log is damaged, which the opening for writing says.
                    Err(Complaint::Wrong(wrong)) if wrong.contains("is gone") => {}
                    Err(complaint) => return Err(format!("opened read-only: {complaint:?}")),
                },
                Err(error)
                    if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {}
                Err(error) => return Err(format!("it does not open read-only: {error}")),
            }
            "rot told by the opening"
        }
        Err(error) => return Err(format!("it does not open: {error}")),
    };
    lives.book.borrow_mut().count(found);
    Ok(())
}
