//! LMDB, through heed: a B-tree in a memory map, copied on write, one writer at a time.

use std::{ops::Bound::Included, path::Path};

use bench::{
    store::{Append, Done, Key, Outcome, Result, Session, Setup, Store},
    stores::{
        grouped::Batch,
        rows::{self, Rows, Writer, event_key, last_keys, transact_one, version_in},
    },
};
use heed::{Database, Env, EnvOpenOptions, RwTxn, WithTls, types::Bytes};

/// What LMDB does before it acknowledges.
pub const ACKNOWLEDGES: &str = "a write transaction of its own (read the version, put the event) with default flags: the changed pages are written and \
     synced with fdatasync, then the meta page is written to a descriptor opened with O_DSYNC";

/// What it does behind a group-commit thread.
pub const ACKNOWLEDGES_GROUPED: &str = "the group thread decides all waiting writes in one write transaction with default flags: one fdatasync and one \
     O_DSYNC write a group";

/// How much address space the map takes; the file is as large as what is in it.
const MAP_BYTES: usize = 64 << 30;

/// How many threads may read at the same time.
const READERS_MAX: u32 = 1024;

/// An LMDB environment.
#[derive(Debug)]
pub struct Lmdb {
    session: LmdbSession,
}

impl Store for Lmdb {
    type Session = LmdbSession;

    fn open(dir: &Path, _: &Setup) -> Result<Self> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_dbs(2).max_readers(READERS_MAX);
        // SAFETY: the folder is this run's own: nobody else changes or cuts the mapped file, and no flag is set that would lift one of LMDB's own
        // precautions.
        let env = unsafe { options.open(dir) }?;
        let mut transaction = env.write_txn()?;
        let versions = env.create_database(&mut transaction, Some("versions"))?;
        let events = env.create_database(&mut transaction, Some("events"))?;
        transaction.commit()?;
        Ok(Lmdb { session: LmdbSession { env, versions, events } })
    }

    fn session(&self) -> Result<LmdbSession> {
        Ok(self.session.clone())
    }

    fn close(self) -> Result<()> {
        // Waits until the last session has let go of it: opened again before that, it would be this one.
        self.session.env.prepare_for_closing().wait();
        Ok(())
    }
}

impl Batch for Lmdb {
    type Writer = LmdbSession;

    fn writer(&self) -> Result<LmdbSession> {
        self.session()
    }
}

/// One thread's way to an LMDB environment.
#[derive(Debug, Clone)]
pub struct LmdbSession {
    env: Env<WithTls>,
    versions: Database<Bytes, Bytes>,
    events: Database<Bytes, Bytes>,
}

impl Session for LmdbSession {
    type Ticket = Done;
    type Handle = Key;

    fn submit(&mut self, appends: &[Append<'_>]) -> Result<Done> {
        // A read transaction sees what has been synced, so a conflict with it needs no turn at the only writer's place.
        for append in appends {
            if let Some(expected) = append.expected {
                let version = self.version(append.key)?;
                if version != expected {
                    return Ok(Done(Outcome::Conflict(version)));
                }
            }
        }
        transact_one(self, appends).map(Done)
    }

    fn handle(&mut self, key: Key) -> Result<Key> {
        Ok(key)
    }

    fn submit_to(&mut self, handle: &Key, expected: Option<u64>, payload: &[u8]) -> Result<Done> {
        self.submit(&[Append { key: *handle, expected, payload }])
    }

    fn load(&mut self, events: &mut dyn Iterator<Item = (Key, &[u8])>) -> Result<u64> {
        rows::load(self, events)
    }

    fn version(&mut self, key: Key) -> Result<u64> {
        let transaction = self.env.read_txn()?;
        version_in(self.versions.get(&transaction, &key)?)
    }

    fn read_last(&mut self, key: Key, events: usize, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let transaction = self.env.read_txn()?;
        let version = version_in(self.versions.get(&transaction, &key)?)?;
        let (first, last) = last_keys(&key, version, events);
        let mut found = 0;
        for row in self.events.range(&transaction, &(Included(&first[..]), Included(&last[..])))? {
            each(row?.1);
            found += 1;
        }
        Ok(found)
    }

    fn read_all(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let transaction = self.env.read_txn()?;
        let mut found = 0;
        for row in self.events.iter(&transaction)? {
            each(row?.1);
            found += 1;
        }
        Ok(found)
    }
}

impl Writer for LmdbSession {
    fn transact(&mut self, work: &mut dyn FnMut(&mut dyn Rows) -> Result<bool>) -> Result<()> {
        let mut rows = LmdbRows { transaction: self.env.write_txn()?, session: self };
        if work(&mut rows)? {
            rows.transaction.commit()?;
        }
        Ok(())
    }
}

struct LmdbRows<'a> {
    transaction: RwTxn<'a>,
    session: &'a LmdbSession,
}

impl Rows for LmdbRows<'_> {
    fn version(&mut self, key: &Key) -> Result<u64> {
        version_in(self.session.versions.get(&self.transaction, key)?)
    }

    fn put_event(&mut self, key: &Key, version: u64, payload: &[u8]) -> Result<()> {
        let row = event_key(key, version);
        Ok(self.session.events.put(&mut self.transaction, &row, payload)?)
    }

    fn put_version(&mut self, key: &Key, version: u64) -> Result<()> {
        Ok(self.session.versions.put(&mut self.transaction, key, &version.to_be_bytes())?)
    }
}
