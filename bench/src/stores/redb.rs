//! redb: a B-tree in one file, copied on write, one writer at a time, one `fdatasync` for each commit.

use std::{path::Path, sync::Arc};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition};

use super::{
    grouped::Batch,
    rows::{self, EventKey, Rows, Writer, event_key, last_keys, transact_one},
};
use crate::store::{Append, Done, Key, Outcome, Result, Session, Setup, Store};

const VERSIONS: TableDefinition<&Key, u64> = TableDefinition::new("versions");
const EVENTS: TableDefinition<&EventKey, &[u8]> = TableDefinition::new("events");

/// What redb does before it acknowledges.
pub const ACKNOWLEDGES: &str = "a write transaction of its own (read the version, put the event) with Durability::Immediate: \
     the changed pages and the commit slot are written, then one fdatasync";

/// What it does behind a group-commit thread.
pub const ACKNOWLEDGES_GROUPED: &str = "the group thread decides all waiting writes in one write transaction and commits it with \
     Durability::Immediate: one fdatasync a group";

/// A redb database.
#[derive(Debug)]
pub struct Redb {
    database: Arc<Database>,
}

impl Store for Redb {
    type Session = RedbSession;

    fn open(dir: &Path, _: &Setup) -> Result<Self> {
        let database = Database::create(dir.join("store.redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(VERSIONS)?;
        transaction.open_table(EVENTS)?;
        transaction.commit()?;
        Ok(Redb { database: Arc::new(database) })
    }

    fn session(&self) -> Result<RedbSession> {
        Ok(RedbSession { database: Arc::clone(&self.database) })
    }

    fn close(self) -> Result<()> {
        let database = Arc::into_inner(self.database)
            .ok_or("a session is still open: drop all of them before the store is closed")?;
        Ok(database.close()?)
    }
}

impl Batch for Redb {
    type Writer = RedbSession;

    fn writer(&self) -> Result<RedbSession> {
        self.session()
    }
}

/// One thread's way to a redb database.
#[derive(Debug)]
pub struct RedbSession {
    database: Arc<Database>,
}

impl Session for RedbSession {
    type Ticket = Done;
    type Handle = Key;

    fn submit(&mut self, appends: &[Append<'_>]) -> Result<Done> {
        // What a read transaction shows is durable, so a conflict with it needs no turn at the only writer's place.
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
        let versions = self.database.begin_read()?.open_table(VERSIONS)?;
        Ok(versions.get(&key)?.map_or(0, |row| row.value()))
    }

    fn read_last(&mut self, key: Key, events: usize, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let transaction = self.database.begin_read()?;
        let version = transaction.open_table(VERSIONS)?.get(&key)?.map_or(0, |row| row.value());
        let (first, last) = last_keys(&key, version, events);
        let mut found = 0;
        for row in transaction.open_table(EVENTS)?.range::<&EventKey>(&first..=&last)? {
            each(row?.1.value());
            found += 1;
        }
        Ok(found)
    }

    fn read_all(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut found = 0;
        for row in self.database.begin_read()?.open_table(EVENTS)?.iter()? {
            each(row?.1.value());
            found += 1;
        }
        Ok(found)
    }
}

impl Writer for RedbSession {
    fn transact(&mut self, work: &mut dyn FnMut(&mut dyn Rows) -> Result<bool>) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        let something = work(&mut RedbRows {
            versions: transaction.open_table(VERSIONS)?,
            events: transaction.open_table(EVENTS)?,
        })?;
        if something {
            transaction.commit()?
        } else {
            transaction.abort()?
        }
        Ok(())
    }
}

struct RedbRows<'a> {
    versions: Table<'a, &'static Key, u64>,
    events: Table<'a, &'static EventKey, &'static [u8]>,
}

impl Rows for RedbRows<'_> {
    fn version(&mut self, key: &Key) -> Result<u64> {
        Ok(self.versions.get(key)?.map_or(0, |row| row.value()))
    }

    fn put_event(&mut self, key: &Key, version: u64, payload: &[u8]) -> Result<()> {
        self.events.insert(&event_key(key, version), payload)?;
        Ok(())
    }

    fn put_version(&mut self, key: &Key, version: u64) -> Result<()> {
        self.versions.insert(key, version)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Redb;
    use crate::stores::{contract, grouped::Grouped};

    #[test]
    fn keeps_the_contract() {
        contract::check::<Redb>();
    }

    #[test]
    fn keeps_the_contract_behind_a_group_thread() {
        contract::check::<Grouped<Redb>>();
    }
}
