//! A watch of all aggregates whose keys begin alike.
//!
//! The log writer rings the slot of a prefix when an aggregate below it changes. Which one, the watch learns from the
//! log: it reads the heads of the records from where it was. So it costs no memory however long nobody asks it.

use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::format::Role;
use crate::index::SlotKey;
use crate::limits::KEY_BYTES_MAX;
use crate::read::ReadSide;
use crate::read::follower::{Follower, List, RECORDS_AT_ONCE, Source, Step, waiting};
use crate::read::trail::Trail;

/// Watches all aggregates whose keys begin alike, on every shard: gives the key of one that has changed since the watch
/// was made, and the version that it then has.
///
/// What changes several times among the next 4,096 writes that are read is given once, with the newest version of those. An
/// aggregate's versions only rise; between aggregates there is no order. It reads the changes from the log, so one that is
/// asked rarely keeps no memory, and reads on from where it was. It does not keep the store open, and ends when that is
/// closed.
///
/// # Errors
///
/// For each shard, an error is the last item and comes once, and the other shards go on: `Corrupt` or `Io` where the log
/// can't be read, `Stopped` when the shard has stopped taking writes and everything durable was given.
#[must_use]
pub struct PrefixWatch {
    follower: Follower,
    source: Changes,
}

struct Changes {
    prefix: Box<[u8]>,
    shards: Vec<Trail>,
    /// Whose turn it is.
    turn: usize,
    /// What the shard read last had, and is not given yet.
    found: btree_map::IntoIter<Box<[u8]>, u64>,
    /// Why it has no more.
    failed: Option<Error>,
}

impl Changes {
    /// Reads on in one shard, as far as one look goes; says what comes behind that.
    fn read(&mut self, shard: usize) -> Step<()> {
        let Some(trail) = self.shards.get_mut(shard) else { return Step::Ended };
        let mut found: BTreeMap<Box<[u8]>, u64> = BTreeMap::new();
        let mut behind = Step::More;
        for _ in 0..RECORDS_AT_ONCE {
            let record = match trail.step() {
                Ok(record) => record,
                Err(none) => {
                    behind = none.map(|error| self.failed = Some(error));
                    break;
                }
            };
            let parts = record.view().parts().filter(|part| part.role == Role::Append);
            for part in parts.filter(|part| part.key.starts_with(&self.prefix)) {
                match found.get_mut(part.key) {
                    Some(version) => *version = part.version,
                    None => drop(found.insert(part.key.into(), part.version)),
                }
            }
        }
        self.found = found.into_iter();
        behind
    }

    /// What was read and is not given yet.
    fn at_hand(&mut self) -> Option<<Changes as Source>::Item> {
        self.found.next().map(Ok).or_else(|| self.failed.take().map(Err))
    }
}

impl Source for Changes {
    type Item = Result<(Box<[u8]>, u64), Error>;

    fn step(&mut self) -> Step<Self::Item> {
        if let Some(item) = self.at_hand() {
            return Step::Item(item);
        }
        let (mut more, mut open) = (false, false);
        for _ in 0..self.shards.len() {
            let shard = self.turn;
            self.turn = (shard + 1) % self.shards.len();
            match self.read(shard) {
                Step::Item(()) | Step::More => more = true,
                Step::Nothing => open = true,
                Step::Ended => {}
            }
            if let Some(item) = self.at_hand() {
                return Step::Item(item);
            }
        }
        match (more, open) {
            (true, _) => Step::More,
            (false, true) => Step::Nothing,
            (false, false) => Step::Ended,
        }
    }

    fn is_ended(&self) -> bool {
        self.found.len() == 0 && self.failed.is_none() && self.shards.iter().all(Trail::is_ended)
    }
}

impl PrefixWatch {
    pub(crate) fn new<'a>(
        sides: impl Iterator<Item = &'a ReadSide>,
        prefix: &[u8],
    ) -> Result<PrefixWatch, Error> {
        if prefix.len() > KEY_BYTES_MAX {
            return Err(Error::too_large("the prefix", prefix.len(), KEY_BYTES_MAX, "bytes"));
        }
        let (mut shards, mut lists) = (Vec::new(), Vec::new());
        for side in sides {
            side.catalogue.following().watch_prefix(prefix.len());
            lists.push(List::Slot(side.slot_to_watch(SlotKey::Prefix(prefix))?));
            let mut trail = Trail::new(Arc::clone(&side.catalogue));
            trail.start_now();
            shards.push(trail);
        }
        let follower = Follower::new(lists);
        let found = BTreeMap::new().into_iter();
        let source = Changes { prefix: prefix.into(), shards, turn: 0, found, failed: None };
        Ok(PrefixWatch { follower, source })
    }

    /// What the keys begin with.
    #[must_use]
    pub fn prefix(&self) -> &[u8] {
        &self.source.prefix
    }
}

waiting!(PrefixWatch, Result<(Box<[u8]>, u64), Error>);

impl fmt::Debug for PrefixWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefixWatch")
            .field("prefix_bytes", &self.source.prefix.len())
            .field("shards", &self.source.shards)
            .finish_non_exhaustive()
    }
}
