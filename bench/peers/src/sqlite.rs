//! SQLite: a B-tree in one file with a write-ahead log, one writer at a time.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bench::{
    store::{Append, Done, Key, Outcome, Result, Session, Setup, Store},
    stores::{
        grouped::Batch,
        rows::{self, Rows, Writer},
    },
};
use rusqlite::{Connection, OptionalExtension, params};

/// What SQLite does before it acknowledges.
pub const ACKNOWLEDGES: &str = "journal_mode=WAL, synchronous=FULL; under one mutex, on the one connection that writes: BEGIN IMMEDIATE, \
     UPDATE … WHERE version = expected, INSERT, COMMIT: the write-ahead log is written and one fsync made";

/// What it does behind a group-commit thread.
pub const ACKNOWLEDGES_GROUPED: &str = "journal_mode=WAL, synchronous=FULL; the group thread decides all waiting writes between BEGIN IMMEDIATE and \
     COMMIT: one fsync of the write-ahead log a group";

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS aggregates (key BLOB PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS events (key BLOB, version INTEGER, payload BLOB NOT NULL, PRIMARY KEY (key, version)) WITHOUT ROWID;";
const MOVE: &str = "UPDATE aggregates SET version = version + 1 WHERE key = ?1 AND version = ?2";
const MAKE: &str = "INSERT INTO aggregates VALUES (?1, 1) ON CONFLICT DO NOTHING";
const MOVE_ANY: &str = "INSERT INTO aggregates VALUES (?1, 1) ON CONFLICT DO UPDATE SET version = version + 1 RETURNING version";
const SET: &str =
    "INSERT INTO aggregates VALUES (?1, ?2) ON CONFLICT DO UPDATE SET version = excluded.version";
const ADD: &str = "INSERT INTO events VALUES (?1, ?2, ?3)";
const VERSION: &str = "SELECT version FROM aggregates WHERE key = ?1";
const LAST: &str = "SELECT payload FROM events WHERE key = ?1 AND version > ?2 ORDER BY version";
const ALL: &str = "SELECT payload FROM events ORDER BY key, version";

/// A SQLite database.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    writer: Arc<Mutex<Connection>>,
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(format!("SQLite was to use a write-ahead log and uses {mode:?}").into());
    }
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA busy_timeout = 60000;")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

impl Store for Sqlite {
    type Session = SqliteSession;

    fn open(dir: &Path, _: &Setup) -> Result<Self> {
        let path = dir.join("store.sqlite");
        let connection = connect(&path)?;
        connection.execute_batch(TABLES)?;
        Ok(Sqlite { path, writer: Arc::new(Mutex::new(connection)) })
    }

    fn session(&self) -> Result<SqliteSession> {
        Ok(SqliteSession {
            reader: connect(&self.path)?,
            writer: SqliteWriter(Arc::clone(&self.writer)),
        })
    }

    fn close(self) -> Result<()> {
        let connection = Arc::into_inner(self.writer)
            .ok_or("a session is still open: drop all of them before the store is closed")?;
        let connection = connection.into_inner().unwrap_or_else(PoisonError::into_inner);
        connection.close().map_err(|(_, error)| error.into())
    }
}

impl Batch for Sqlite {
    type Writer = SqliteWriter;

    fn writer(&self) -> Result<SqliteWriter> {
        Ok(SqliteWriter(Arc::clone(&self.writer)))
    }
}

/// The one connection that writes. Threads with connections of their own would wait for each other by sleeping and trying again.
#[derive(Debug)]
pub struct SqliteWriter(Arc<Mutex<Connection>>);

impl SqliteWriter {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread's way to a SQLite database: a connection of its own for reading.
#[derive(Debug)]
pub struct SqliteSession {
    reader: Connection,
    writer: SqliteWriter,
}

impl Session for SqliteSession {
    type Ticket = Done;
    type Handle = Key;

    fn submit(&mut self, appends: &[Append<'_>]) -> Result<Done> {
        // A reader sees what has been synced, so a conflict with it needs no turn at the only writer's place.
        for append in appends {
            if let Some(expected) = append.expected {
                let version = version(&self.reader, &append.key)?;
                if version != expected {
                    return Ok(Done(Outcome::Conflict(version)));
                }
            }
        }
        let connection = self.writer.lock();
        let outcome = in_transaction(&connection, || {
            let outcome = write(&connection, appends)?;
            Ok((matches!(outcome, Outcome::Committed(_)), outcome))
        })?;
        Ok(Done(outcome))
    }

    fn handle(&mut self, key: Key) -> Result<Key> {
        Ok(key)
    }

    fn submit_to(&mut self, handle: &Key, expected: Option<u64>, payload: &[u8]) -> Result<Done> {
        self.submit(&[Append { key: *handle, expected, payload }])
    }

    fn load(&mut self, events: &mut dyn Iterator<Item = (Key, &[u8])>) -> Result<u64> {
        rows::load(&mut self.writer, events)
    }

    fn version(&mut self, key: Key) -> Result<u64> {
        version(&self.reader, &key)
    }

    fn read_last(&mut self, key: Key, events: usize, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let before = version(&self.reader, &key)?.saturating_sub(events as u64);
        let mut statement = self.reader.prepare_cached(LAST)?;
        read(statement.query(params![key, before as i64])?, each)
    }

    fn read_all(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut statement = self.reader.prepare_cached(ALL)?;
        read(statement.query([])?, each)
    }
}

fn read(mut rows: rusqlite::Rows<'_>, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
    let mut found = 0;
    while let Some(row) = rows.next()? {
        each(row.get_ref(0)?.as_blob()?);
        found += 1;
    }
    Ok(found)
}

fn version(connection: &Connection, key: &Key) -> Result<u64> {
    let mut statement = connection.prepare_cached(VERSION)?;
    let version: Option<i64> = statement.query_row([key], |row| row.get(0)).optional()?;
    Ok(version.unwrap_or(0) as u64)
}

/// Runs `work` in a transaction, which is kept if it says so.
fn in_transaction<T>(
    connection: &Connection,
    work: impl FnOnce() -> Result<(bool, T)>,
) -> Result<T> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let worked = work();
    let end = if matches!(worked, Ok((true, _))) { "COMMIT" } else { "ROLLBACK" };
    connection.prepare_cached(end)?.execute([])?;
    worked.map(|(_, value)| value)
}

/// Writes each event under its condition, or says what the first condition that fails should have been.
fn write(connection: &Connection, appends: &[Append<'_>]) -> Result<Outcome> {
    let mut first = None;
    for append in appends {
        let made = match append.expected {
            Some(0) => (connection.prepare_cached(MAKE)?.execute([append.key])? == 1).then_some(1),
            Some(expected) => {
                let moved = connection
                    .prepare_cached(MOVE)?
                    .execute(params![append.key, expected as i64])?;
                (moved == 1).then_some(expected + 1)
            }
            None => {
                let mut statement = connection.prepare_cached(MOVE_ANY)?;
                Some(statement.query_row([append.key], |row| row.get::<_, i64>(0))? as u64)
            }
        };
        let Some(made) = made else {
            return Ok(Outcome::Conflict(version(connection, &append.key)?));
        };
        connection.prepare_cached(ADD)?.execute(params![
            append.key,
            made as i64,
            append.payload
        ])?;
        first.get_or_insert(made);
    }
    Ok(Outcome::Committed(
        first.ok_or("a write of one or two events was expected and it has none")?,
    ))
}

impl Writer for SqliteWriter {
    fn transact(&mut self, work: &mut dyn FnMut(&mut dyn Rows) -> Result<bool>) -> Result<()> {
        let connection = self.lock();
        in_transaction(&connection, || Ok((work(&mut SqliteRows(&connection))?, ())))
    }
}

struct SqliteRows<'a>(&'a Connection);

impl Rows for SqliteRows<'_> {
    fn version(&mut self, key: &Key) -> Result<u64> {
        version(self.0, key)
    }

    fn put_event(&mut self, key: &Key, version: u64, payload: &[u8]) -> Result<()> {
        self.0.prepare_cached(ADD)?.execute(params![key, version as i64, payload])?;
        Ok(())
    }

    fn put_version(&mut self, key: &Key, version: u64) -> Result<()> {
        self.0.prepare_cached(SET)?.execute(params![key, version as i64])?;
        Ok(())
    }
}
