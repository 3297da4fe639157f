//! A mutex over a file that writes and syncs each event: what one writes in an afternoon.
//!
//! A record is the length of the rest and its checksum (four and eight bytes), then for each of its events the key, the payload's length
//! and the payload. A write is one record, so it is there whole or not at all. Versions and the places of events are in memory;
//! opening reads the file and cuts what follows the last whole record.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{BufReader, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use xxhash_rust::xxh3::xxh3_64;

use crate::store::{Append, Done, Key, Outcome, Result, Session, Setup, Store};

/// What it does before it acknowledges.
pub const ACKNOWLEDGES: &str =
    "under one mutex: check the version in memory, append the record with one write, one fdatasync";

/// The length and the checksum before a record.
const HEAD_BYTES: usize = 12;

/// The key and the length before an event's payload.
const PART_BYTES: usize = 20;

/// How much is read at once.
const READ_BYTES: usize = 1024 * 1024;

/// A record longer than this is not one of ours.
const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A file under a mutex.
#[derive(Debug)]
pub struct LoneFile {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    file: Arc<File>,
    /// Where the next record goes.
    end: u64,
    /// Where each aggregate's events are: the place and length of every payload. Their number is the version.
    places: HashMap<Key, Vec<(u64, u32)>>,
    /// The records that are about to be written.
    records: Vec<u8>,
    /// A write or a sync failed: what the file holds is unknown.
    failed: bool,
}

impl Store for LoneFile {
    type Session = FileSession;

    fn open(dir: &Path, _: &Setup) -> Result<Self> {
        let path = dir.join("events");
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut shared = Shared {
            file: Arc::new(file),
            end: 0,
            places: HashMap::new(),
            records: Vec::new(),
            failed: false,
        };
        shared.recover()?;
        // What is kept is made durable before it is shown, and so is the file's name.
        shared.file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(LoneFile { shared: Arc::new(Mutex::new(shared)) })
    }

    fn session(&self) -> Result<FileSession> {
        Ok(FileSession { shared: Arc::clone(&self.shared) })
    }

    fn close(self) -> Result<()> {
        Arc::into_inner(self.shared)
            .ok_or("a session is still open: drop all of them before the store is closed")?;
        Ok(())
    }
}

impl Shared {
    /// Reads the file from its start and cuts it after the last whole record.
    fn recover(&mut self) -> Result<()> {
        let file = Arc::clone(&self.file);
        let bytes = file.metadata()?.len();
        let places = &mut self.places;
        self.end = each_record(&*file, bytes, |start, record| note(places, start, record))?;
        self.file.set_len(self.end)?;
        Ok(())
    }

    fn version(&self, key: &Key) -> u64 {
        self.places.get(key).map_or(0, |places| places.len() as u64)
    }

    fn append(&mut self, appends: &[Append<'_>]) -> Result<Outcome> {
        for append in appends {
            let version = self.version(&append.key);
            if append.expected.is_some_and(|expected| expected != version) {
                return Ok(Outcome::Conflict(version));
            }
        }
        let first =
            appends.first().ok_or("a write of one or two events was expected and it has none")?;
        self.records.clear();
        encode(&mut self.records, appends);
        let version = self.version(&first.key) + 1;
        self.commit()?;
        Ok(Outcome::Committed(version))
    }

    /// Writes the records, makes them durable, and only then shows them.
    fn commit(&mut self) -> Result<()> {
        if self.failed {
            return Err(
                "a write failed before: what the file holds is unknown; open it again".into()
            );
        }
        self.failed = true;
        self.file.write_all_at(&self.records, self.end)?;
        self.file.sync_data()?;
        self.failed = false;
        let (end, places) = (self.end, &mut self.places);
        each_record(&self.records[..], self.records.len() as u64, |start, record| {
            note(places, end + start, record);
        })?;
        self.end += self.records.len() as u64;
        Ok(())
    }
}

/// Notes where the events of a record are that starts at `start`.
fn note(places: &mut HashMap<Key, Vec<(u64, u32)>>, start: u64, record: &[u8]) {
    for (key, place, payload) in parts(record) {
        let place = start + (HEAD_BYTES + place) as u64;
        places.entry(key).or_default().push((place, payload.len() as u32));
    }
}

/// Adds the record of a write.
fn encode(records: &mut Vec<u8>, appends: &[Append<'_>]) {
    let start = records.len();
    records.resize(start + HEAD_BYTES, 0);
    for append in appends {
        records.extend_from_slice(&append.key);
        records.extend_from_slice(&(append.payload.len() as u32).to_le_bytes());
        records.extend_from_slice(append.payload);
    }
    let (head, record) = records[start..].split_at_mut(HEAD_BYTES);
    head[..4].copy_from_slice(&(record.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&xxh3_64(record).to_le_bytes());
}

/// The events in a record: key, where the payload begins, payload. What is too short to be an event ends them.
fn parts(record: &[u8]) -> impl Iterator<Item = (Key, usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let head = record.get(at..at + PART_BYTES)?;
        let key = head[..16].try_into().ok()?;
        let length = u32::from_le_bytes(head[16..].try_into().ok()?) as usize;
        let place = at + PART_BYTES;
        let payload = record.get(place..place + length)?;
        at = place + length;
        Some((key, place, payload))
    })
}

/// Hands every whole record in `bytes` bytes, and where it starts, to `each`: where the last one ends.
fn each_record(source: impl Read, bytes: u64, mut each: impl FnMut(u64, &[u8])) -> Result<u64> {
    let mut reader = BufReader::with_capacity(READ_BYTES.min(bytes as usize), source);
    let (mut start, mut head, mut record) = (0, [0; HEAD_BYTES], Vec::new());
    while bytes - start >= HEAD_BYTES as u64 {
        reader.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if length > RECORD_BYTES_MAX || length as u64 > bytes - start - HEAD_BYTES as u64 {
            break;
        }
        record.resize(length, 0);
        reader.read_exact(&mut record)?;
        if length == 0 || xxh3_64(&record).to_le_bytes() != head[4..] {
            break;
        }
        each(start, &record);
        start += (HEAD_BYTES + length) as u64;
    }
    Ok(start)
}

/// One thread's way to the file.
#[derive(Debug)]
pub struct FileSession {
    shared: Arc<Mutex<Shared>>,
}

impl FileSession {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session for FileSession {
    type Ticket = Done;
    type Handle = Key;

    fn submit(&mut self, appends: &[Append<'_>]) -> Result<Done> {
        self.lock().append(appends).map(Done)
    }

    fn handle(&mut self, key: Key) -> Result<Key> {
        Ok(key)
    }

    fn submit_to(&mut self, handle: &Key, expected: Option<u64>, payload: &[u8]) -> Result<Done> {
        self.submit(&[Append { key: *handle, expected, payload }])
    }

    fn load(&mut self, events: &mut dyn Iterator<Item = (Key, &[u8])>) -> Result<u64> {
        let mut shared = self.lock();
        let mut count = 0;
        shared.records.clear();
        for (key, payload) in events {
            encode(&mut shared.records, &[Append { key, expected: None, payload }]);
            count += 1;
            if shared.records.len() > READ_BYTES {
                shared.commit()?;
                shared.records.clear();
            }
        }
        shared.commit()?;
        Ok(count)
    }

    fn version(&mut self, key: Key) -> Result<u64> {
        Ok(self.lock().version(&key))
    }

    fn read_last(&mut self, key: Key, events: usize, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let shared = self.lock();
        let file = Arc::clone(&shared.file);
        let places = shared.places.get(&key).map_or(&[][..], Vec::as_slice);
        let last = places[places.len().saturating_sub(events)..].to_vec();
        drop(shared);
        let mut payload = Vec::new();
        for &(place, length) in &last {
            payload.resize(length as usize, 0);
            file.read_exact_at(&mut payload, place)?;
            each(&payload);
        }
        Ok(last.len() as u64)
    }

    fn read_all(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<u64> {
        // While it is locked nothing is in the file that is not durable.
        let shared = self.lock();
        let mut file = &*shared.file;
        file.seek(SeekFrom::Start(0))?;
        let mut found = 0;
        each_record(file, shared.end, |_, record| {
            for (_, _, payload) in parts(record) {
                each(payload);
                found += 1;
            }
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::key, stores::contract};

    #[test]
    fn keeps_the_contract() {
        contract::check::<LoneFile>();
    }

    #[test]
    fn a_torn_record_is_cut_and_what_is_before_it_stays() {
        let dir = contract::folder();
        let open = || LoneFile::open(dir.path(), &Setup::default()).unwrap();
        let append = |number, payload| Append { key: key(number), expected: Some(0), payload };
        let store = open();
        store.session().unwrap().append(&[append(1, b"whole")]).unwrap();
        let whole = store.shared.lock().unwrap().end;
        store.session().unwrap().append(&[append(2, b"torn"), append(3, b"torn")]).unwrap();
        let file = Arc::clone(&store.shared.lock().unwrap().file);
        file.write_all_at(b"x", file.metadata().unwrap().len() - 1).unwrap();
        drop(store);

        let mut session = open().session().unwrap();
        assert_eq!(file.metadata().unwrap().len(), whole);
        let versions = [1, 2, 3].map(|number| session.version(key(number)).unwrap());
        assert_eq!(versions, [1, 0, 0]);
    }
}
