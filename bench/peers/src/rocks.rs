//! RocksDB: a log-structured merge tree with a write-ahead log, whose writers group themselves; optimistic transactions.

use std::{path::Path, sync::Arc};

use bench::{
    store::{Append, Done, Key, Outcome, Result, Session, Setup, Store},
    stores::{
        grouped::Batch,
        rows::{self, Decisions, Rows, Writer, event_key, last_keys, version_in},
    },
};
use rocksdb::{
    ColumnFamily, Direction, ErrorKind, IteratorMode, OptimisticTransactionDB,
    OptimisticTransactionOptions, Options, ReadOptions, Transaction, WriteBatchWithTransaction,
    WriteOptions,
};

/// What RocksDB does before it acknowledges.
pub const ACKNOWLEDGES: &str = "an optimistic transaction (get the version for update, put event and version) with WriteOptions::sync: the write-ahead log is \
     written and one fdatasync made for all writers that came together; a transaction that finds itself overtaken is tried again";

/// What it does behind a group-commit thread.
pub const ACKNOWLEDGES_GROUPED: &str = "the group thread decides all waiting writes against the versions and writes them as one batch with WriteOptions::sync: one \
     fdatasync of the write-ahead log a group";

type Database = OptimisticTransactionDB;

/// A RocksDB database.
#[derive(Debug)]
pub struct Rocks {
    database: Arc<Open>,
}

struct Open(Database);

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").finish_non_exhaustive()
    }
}

impl Open {
    fn versions(&self) -> &ColumnFamily {
        self.0.cf_handle("versions").expect("it was opened with this family")
    }

    fn events(&self) -> &ColumnFamily {
        self.0.cf_handle("events").expect("it was opened with this family")
    }

    fn version(&self, key: &Key) -> Result<u64> {
        version_in(self.0.get_pinned_cf(self.versions(), key)?.as_deref())
    }
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

impl Store for Rocks {
    type Session = RocksSession;

    fn open(dir: &Path, _: &Setup) -> Result<Self> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let database = Database::open_cf(&options, dir.join("rocksdb"), ["versions", "events"])?;
        Ok(Rocks { database: Arc::new(Open(database)) })
    }

    fn session(&self) -> Result<RocksSession> {
        Ok(RocksSession { database: Arc::clone(&self.database) })
    }

    fn close(self) -> Result<()> {
        let database = Arc::into_inner(self.database)
            .ok_or("a session is still open: drop all of them before the store is closed")?;
        Ok(database.0.flush_wal(true)?)
    }
}

impl Batch for Rocks {
    type Writer = RocksSession;

    fn writer(&self) -> Result<RocksSession> {
        self.session()
    }
}

/// One thread's way to a RocksDB database.
#[derive(Debug)]
pub struct RocksSession {
    database: Arc<Open>,
}

impl Session for RocksSession {
    type Ticket = Done;
    type Handle = Key;

    fn submit(&mut self, appends: &[Append<'_>]) -> Result<Done> {
        let database = &self.database;
        // What a read shows has been synced, so a conflict with it needs no transaction.
        for append in appends {
            if let Some(expected) = append.expected {
                let version = database.version(&append.key)?;
                if version != expected {
                    return Ok(Done(Outcome::Conflict(version)));
                }
            }
        }
        loop {
            let transaction =
                database.0.transaction_opt(&synced(), &OptimisticTransactionOptions::default());
            let mut rows = Overtaken { database, transaction };
            let mut decisions = Decisions::default();
            let outcome = decisions.decide(&mut rows, appends.iter().copied())?;
            if !decisions.finish(&mut rows)? {
                return Ok(Done(outcome));
            }
            match rows.transaction.commit() {
                Ok(()) => return Ok(Done(outcome)),
                Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::TryAgain) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn handle(&mut self, key: Key) -> Result<Key> {
        Ok(key)
    }

    fn submit_to(&mut self, handle: &Key, expected: Option<u64>, payload: &[u8]) -> Result<Done> {
        self.submit(&[Append { key: *handle, expected, payload }])
    }

    /// Nobody else may write meanwhile.
    fn load(&mut self, events: &mut dyn Iterator<Item = (Key, &[u8])>) -> Result<u64> {
        rows::load(self, events)
    }

    fn version(&mut self, key: Key) -> Result<u64> {
        self.database.version(&key)
    }

    fn read_last(&mut self, key: Key, events: usize, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let (first, last) = last_keys(&key, self.version(key)?, events);
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound([&last[..], &[0]].concat());
        let start = IteratorMode::From(&first, Direction::Forward);
        let mut found = 0;
        for row in self.database.0.iterator_cf_opt(self.database.events(), options, start) {
            each(&row?.1);
            found += 1;
        }
        Ok(found)
    }

    fn read_all(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut found = 0;
        for row in self.database.0.iterator_cf(self.database.events(), IteratorMode::Start) {
            each(&row?.1);
            found += 1;
        }
        Ok(found)
    }
}

/// The rows of an optimistic transaction, which finds out at the commit whether another one overtook it.
struct Overtaken<'a> {
    database: &'a Open,
    transaction: Transaction<'a, Database>,
}

impl Rows for Overtaken<'_> {
    fn version(&mut self, key: &Key) -> Result<u64> {
        let row = self.transaction.get_for_update_cf(self.database.versions(), key, true)?;
        version_in(row.as_deref())
    }

    fn put_event(&mut self, key: &Key, version: u64, payload: &[u8]) -> Result<()> {
        let row = event_key(key, version);
        Ok(self.transaction.put_cf(self.database.events(), row, payload)?)
    }

    fn put_version(&mut self, key: &Key, version: u64) -> Result<()> {
        let row = version.to_be_bytes();
        Ok(self.transaction.put_cf(self.database.versions(), key, row)?)
    }
}

/// For the only writer: no transaction is needed where nobody overtakes.
impl Writer for RocksSession {
    fn transact(&mut self, work: &mut dyn FnMut(&mut dyn Rows) -> Result<bool>) -> Result<()> {
        let mut rows =
            Alone { database: &self.database, batch: WriteBatchWithTransaction::default() };
        if work(&mut rows)? {
            self.database.0.write_opt(rows.batch, &synced())?;
        }
        Ok(())
    }
}

struct Alone<'a> {
    database: &'a Open,
    batch: WriteBatchWithTransaction<true>,
}

impl Rows for Alone<'_> {
    fn version(&mut self, key: &Key) -> Result<u64> {
        self.database.version(key)
    }

    fn put_event(&mut self, key: &Key, version: u64, payload: &[u8]) -> Result<()> {
        self.batch.put_cf(self.database.events(), event_key(key, version), payload);
        Ok(())
    }

    fn put_version(&mut self, key: &Key, version: u64) -> Result<()> {
        self.batch.put_cf(self.database.versions(), key, version.to_be_bytes());
        Ok(())
    }
}
