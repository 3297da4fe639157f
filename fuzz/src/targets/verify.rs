//! A store directory that was tampered with: `verify`, which reads the format by a reader of its own, and the store say the
//! same of it.
//!
//! * Where one finds no store, the other finds none.
//! * The log of each shard ends at the same place.
//! * What `verify` finds sound opens for writing, and every read of it succeeds and shows as much as was verified.
//! * A store that finds damage has `verify` name a problem. The other way round `verify` sees more: an opening reads
//!   no events.
//! * A damaged store shows no write that was not verified.

use std::sync::Arc;

use annals::internals::disk::sim::SimDisk;
use annals::internals::{open_on, verify_on};
use annals::{ErrorKind, Options, Verification};

use crate::harness::{self, Outcome, Target};
use crate::image::Image;
use crate::stored::{self, Shown};
use crate::targets::directory;

/// The target.
pub static TARGET: Target = Target { name: "verify", run, corpus: directory::seeds, repair: None };

fn run(input: &[u8]) -> Outcome {
    let Some(image) = directory::image(input) else { return Outcome::default() };
    let disk = image.disk(0);
    let (verified, held) = harness::measure(|| verify_on(&*disk));
    assert!(Image::of(&disk) == image, "verifying has changed the directory");
    let mut outcome = Outcome { bytes: image.bytes(), held, ..Outcome::default() };
    match verified {
        Ok(verified) => {
            outcome.reached = verified.writes > 0;
            beside(&disk, &verified, directory::writes_max(&image));
        }
        Err(error) => {
            stored::refused(&error);
            let opened = open_on(&Options::new().read_only(true), disk).map(drop);
            assert!(opened.is_err(), "it opens, and can't be verified: {error}");
        }
    }
    outcome
}

/// What the store says, beside what `verify` said.
fn beside(disk: &Arc<SimDisk>, verified: &Verification, most: usize) {
    let problems = &verified.problems;
    let store = open_on(&directory::options().read_only(true), disk.clone())
        .unwrap_or_else(|error| panic!("it was verified and does not open: {error}; {problems:?}"));
    let ends: Vec<_> = store.stats().shards.iter().map(|shard| shard.end).collect();
    let verified_ends: Vec<_> = verified.ends.iter().map(|end| end.position).collect();
    assert_eq!(ends, verified_ends, "where the logs end; {problems:?}");
    let logs = stored::all(&store, most, problems.is_empty());
    let counted = counted(&logs);
    let (writes, events) = (verified.writes as usize, verified.events as usize);
    if problems.is_empty() {
        assert_eq!(counted, (writes, events), "what is shown is not what was verified");
    } else {
        assert!(counted.0 <= writes, "{counted:?} are shown of {writes}: {problems:?}");
    }
    drop(store);

    match open_on(&directory::options(), disk.clone()) {
        Ok(store) => {
            let again = stored::all(&store, most, problems.is_empty());
            let whole = logs.iter().chain(&again).all(|log| log.error.is_none());
            assert!(!whole || logs == again, "reading and writing show different logs");
        }
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            assert!(!problems.is_empty(), "verify has no problem with it: {error}");
        }
        Err(error) => {
            stored::refused(&error);
            assert!(!problems.is_empty() || error.kind() == ErrorKind::Io, "{error}");
        }
    }
}

/// Writes and events.
fn counted(logs: &[Shown]) -> (usize, usize) {
    let writes = || logs.iter().flat_map(|log| &log.writes);
    (writes().count(), writes().flat_map(|write| &write.appended).map(|part| part.2.len()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image;

    /// Damage that `verify` does not tell is noticed, also where an opening does not look.
    #[test]
    #[should_panic]
    fn damage_that_is_not_told_is_noticed() {
        let disk = image::all()[1].disk(0);
        let verified = verify_on(&*disk).unwrap();
        // In the events of the first write.
        disk.flip("shard-0000/0000000000000001.seg", 512 + 104 + 120 + 16).unwrap();
        beside(&disk, &verified, 1000);
    }

    #[test]
    #[should_panic(expected = "what is shown is not what was verified")]
    fn a_write_that_was_not_verified_is_noticed() {
        let disk = image::all()[1].disk(0);
        let mut verified = verify_on(&*disk).unwrap();
        verified.writes -= 1;
        beside(&disk, &verified, 1000);
    }
}
