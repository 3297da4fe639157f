//! okaywal: a bare write-ahead log. It knows no aggregates and checks no condition, so its figures are a bound, not a peer's.
//!
//! What a store would keep beside it is left out as far as possible: events are kept in memory so that they can be read and counted.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bench::store::{Append, Done, Key, Outcome, Result, Session, Setup, Store};
use okaywal::{Configuration, Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};

/// What okaywal does before it acknowledges.
pub const ACKNOWLEDGES: &str = "no condition is checked: an entry is appended to a log prepared with zeros and committed: one fdatasync for all threads that came \
     together. An upper bound, not a peer";

/// Written with zeros before the first entry, so that a commit overwrites and need not allocate.
const PREPARED_BYTES: u32 = 256 << 20;

type Events = HashMap<Key, Vec<Box<[u8]>>>;

/// An okaywal log.
#[derive(Debug)]
pub struct Wal {
    log: Arc<WriteAheadLog>,
    events: Arc<Mutex<Events>>,
}

fn lock(events: &Mutex<Events>) -> MutexGuard<'_, Events> {
    events.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts what is in the log into memory when it is opened.
#[derive(Debug)]
struct Keep(Arc<Mutex<Events>>);

impl LogManager for Keep {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        // An entry without its end was never committed.
        for chunk in entry.read_all_chunks()?.unwrap_or_default() {
            let (key, payload) = chunk.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
            lock(&self.0).entry(*key).or_default().push(payload.into());
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _: EntryId,
        _: &mut SegmentReader,
        _: &WriteAheadLog,
    ) -> io::Result<()> {
        Err(io::Error::other("the log was to be kept whole and okaywal wants to drop a part of it"))
    }
}

impl Store for Wal {
    type Session = WalSession;

    fn open(dir: &Path, _: &Setup) -> Result<Self> {
        let dir = dir.join("okaywal");
        let events = Arc::default();
        let log = Configuration::default_for(&dir)
            .preallocate_bytes(PREPARED_BYTES)
            .checkpoint_after_bytes(u64::MAX)
            .open(Keep(Arc::clone(&events)))?;
        // The zeros go to the disk here and not in the first commit.
        for file in fs::read_dir(&dir)? {
            File::open(file?.path())?.sync_all()?;
        }
        Ok(Wal { log: Arc::new(log), events })
    }

    fn session(&self) -> Result<WalSession> {
        Ok(WalSession { log: Arc::clone(&self.log), events: Arc::clone(&self.events) })
    }

    fn close(self) -> Result<()> {
        let log = Arc::into_inner(self.log)
            .ok_or("a session is still open: drop all of them before the store is closed")?;
        Ok(log.shutdown()?)
    }
}

/// One thread's way to an okaywal log.
#[derive(Debug)]
pub struct WalSession {
    log: Arc<WriteAheadLog>,
    events: Arc<Mutex<Events>>,
}

impl Session for WalSession {
    type Ticket = Done;
    type Handle = Key;

    fn submit(&mut self, appends: &[Append<'_>]) -> Result<Done> {
        let first =
            appends.first().ok_or("a write of one or two events was expected and it has none")?;
        let mut entry = self.log.begin_entry()?;
        for append in appends {
            entry.write_chunk(&[&append.key[..], append.payload].concat())?;
        }
        entry.commit()?;
        let mut events = lock(&self.events);
        for append in appends {
            events.entry(append.key).or_default().push(append.payload.into());
        }
        Ok(Done(Outcome::Committed(events[&first.key].len() as u64)))
    }

    fn handle(&mut self, key: Key) -> Result<Key> {
        Ok(key)
    }

    fn submit_to(&mut self, handle: &Key, expected: Option<u64>, payload: &[u8]) -> Result<Done> {
        self.submit(&[Append { key: *handle, expected, payload }])
    }

    fn version(&mut self, key: Key) -> Result<u64> {
        Ok(lock(&self.events).get(&key).map_or(0, |events| events.len() as u64))
    }

    fn read_last(&mut self, key: Key, events: usize, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let kept = lock(&self.events);
        let all = kept.get(&key).map_or(&[][..], Vec::as_slice);
        let last = &all[all.len().saturating_sub(events)..];
        last.iter().for_each(|event| each(event));
        Ok(last.len() as u64)
    }

    fn read_all(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut found = 0;
        for event in lock(&self.events).values().flatten() {
            each(event);
            found += 1;
        }
        Ok(found)
    }
}
