//! fjall: a log-structured merge tree with a journal, to which any thread may commit a batch.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use super::{
    grouped::Batch,
    rows::{self, Rows, Writer, event_key, last_keys, transact_one, version_in},
};
use crate::store::{Append, Done, Key, Outcome, Result, Session, Setup, Store};

/// What fjall does before it acknowledges.
pub const ACKNOWLEDGES: &str = "under a lock for the aggregate, one of 1,024: read the version, then commit a batch (event, version) with \
     PersistMode::SyncData: the journal is written and one fdatasync made while the journal is locked, so commits of different \
     threads follow each other";

/// What it does behind a group-commit thread.
pub const ACKNOWLEDGES_GROUPED: &str = "the group thread decides all waiting writes against the versions and commits them as one batch with \
     PersistMode::SyncData: one fdatasync a group";

/// How many locks aggregates share.
const STRIPES: usize = 1024;

/// A fjall database.
#[derive(Debug)]
pub struct Fjall {
    shared: Arc<Shared>,
}

struct Shared {
    database: Database,
    versions: Keyspace,
    events: Keyspace,
    /// fjall's own transactions take one lock for all or find out at the commit that they were too late; a lock for the aggregate
    /// costs least.
    stripes: Vec<Mutex<()>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Store for Fjall {
    type Session = FjallSession;

    fn open(dir: &Path, _: &Setup) -> Result<Self> {
        let database = Database::builder(dir.join("fjall")).open()?;
        let versions = database.keyspace("versions", KeyspaceCreateOptions::default)?;
        let events = database.keyspace("events", KeyspaceCreateOptions::default)?;
        let stripes = (0..STRIPES).map(|_| Mutex::new(())).collect();
        Ok(Fjall { shared: Arc::new(Shared { database, versions, events, stripes }) })
    }

    fn session(&self) -> Result<FjallSession> {
        Ok(FjallSession { shared: Arc::clone(&self.shared) })
    }

    fn close(self) -> Result<()> {
        let shared = Arc::into_inner(self.shared)
            .ok_or("a session is still open: drop all of them before the store is closed")?;
        Ok(shared.database.persist(PersistMode::SyncAll)?)
    }
}

impl Batch for Fjall {
    type Writer = FjallSession;

    fn writer(&self) -> Result<FjallSession> {
        self.session()
    }
}

/// One thread's way to a fjall database.
#[derive(Debug)]
pub struct FjallSession {
    shared: Arc<Shared>,
}

impl Shared {
    /// Locks the aggregates of a write, in an order that all writes keep.
    fn lock(&self, appends: &[Append<'_>]) -> Vec<MutexGuard<'_, ()>> {
        let mut stripes: Vec<usize> = appends.iter().map(|append| stripe(&append.key)).collect();
        stripes.sort_unstable();
        stripes.dedup();
        stripes.into_iter().map(|stripe| self.lock_stripe(stripe)).collect()
    }

    fn lock_stripe(&self, stripe: usize) -> MutexGuard<'_, ()> {
        self.stripes[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which lock an aggregate uses: FNV-1a of its key.
fn stripe(key: &Key) -> usize {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    (hash >> 32) as usize % STRIPES
}

impl Session for FjallSession {
    type Ticket = Done;
    type Handle = Key;

    fn submit(&mut self, appends: &[Append<'_>]) -> Result<Done> {
        // A batch is put where readers see it after its journal entry was synced, so what is seen is durable, and a conflict with it needs no lock.
        for append in appends {
            if let Some(expected) = append.expected {
                let version = self.version(append.key)?;
                if version != expected {
                    return Ok(Done(Outcome::Conflict(version)));
                }
            }
        }
        let shared = Arc::clone(&self.shared);
        let _locked = shared.lock(appends);
        transact_one(self, appends).map(Done)
    }

    fn handle(&mut self, key: Key) -> Result<Key> {
        Ok(key)
    }

    fn submit_to(&mut self, handle: &Key, expected: Option<u64>, payload: &[u8]) -> Result<Done> {
        self.submit(&[Append { key: *handle, expected, payload }])
    }

    fn load(&mut self, events: &mut dyn Iterator<Item = (Key, &[u8])>) -> Result<u64> {
        let shared = Arc::clone(&self.shared);
        let _locked: Vec<_> = (0..STRIPES).map(|stripe| shared.lock_stripe(stripe)).collect();
        rows::load(self, events)
    }

    fn version(&mut self, key: Key) -> Result<u64> {
        version_in(self.shared.versions.get(key)?.as_deref())
    }

    fn read_last(&mut self, key: Key, events: usize, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let (first, last) = last_keys(&key, self.version(key)?, events);
        let mut found = 0;
        for row in self.shared.events.range(first..=last) {
            each(&row.value()?);
            found += 1;
        }
        Ok(found)
    }

    fn read_all(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut found = 0;
        for row in self.shared.events.iter() {
            each(&row.value()?);
            found += 1;
        }
        Ok(found)
    }
}

impl Writer for FjallSession {
    fn transact(&mut self, work: &mut dyn FnMut(&mut dyn Rows) -> Result<bool>) -> Result<()> {
        let batch = self.shared.database.batch().durability(Some(PersistMode::SyncData));
        let mut rows = FjallRows { shared: &self.shared, batch };
        if work(&mut rows)? {
            rows.batch.commit()?;
        }
        Ok(())
    }
}

struct FjallRows<'a> {
    shared: &'a Shared,
    batch: OwnedWriteBatch,
}

impl Rows for FjallRows<'_> {
    fn version(&mut self, key: &Key) -> Result<u64> {
        version_in(self.shared.versions.get(key)?.as_deref())
    }

    fn put_event(&mut self, key: &Key, version: u64, payload: &[u8]) -> Result<()> {
        self.batch.insert(&self.shared.events, event_key(key, version), payload);
        Ok(())
    }

    fn put_version(&mut self, key: &Key, version: u64) -> Result<()> {
        self.batch.insert(&self.shared.versions, *key, version.to_be_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Fjall;
    use crate::stores::{contract, grouped::Grouped};

    #[test]
    fn keeps_the_contract() {
        contract::check::<Fjall>();
    }

    #[test]
    fn keeps_the_contract_behind_a_group_thread() {
        contract::check::<Grouped<Fjall>>();
    }
}
