//! What callers of a store were told, and whether what is stored agrees.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use annals::{Committed, Error, ErrorKind, Event, Expect, Position, Store};

/// What the caller of a write was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It is durable: where, and which versions it brought its aggregates to or saw them at.
    Committed(Position, Vec<(Vec<u8>, u64)>),
    /// It was accepted, and nobody waited for it.
    Dropped,
    /// It failed, and may be stored.
    Unknown,
    /// It was refused or failed, and is not stored.
    Not(ErrorKind),
}

/// What the callers of one store were told, by the number of the write.
#[derive(Debug, Default)]
pub struct History(Mutex<Vec<(u64, Kind)>>);

/// An event that can be told from all others.
pub fn numbered(number: u64) -> Event {
    Event::new("Numbered", number.to_le_bytes())
}

/// A write as the log holds it.
#[derive(Clone, Debug)]
pub struct Logged {
    /// Of its events.
    pub number: u64,
    position: Position,
    versions: Vec<(Vec<u8>, u64)>,
}

impl History {
    /// Notes what a write came to, and returns whether it is durable.
    pub fn note(&self, number: u64, told: &Result<Committed, Error>) -> bool {
        let kind = match told {
            Ok(done) => {
                let versions = done.versions().map(|(key, version)| (key.to_vec(), version));
                Kind::Committed(done.position(), versions.collect())
            }
            // A retry that can no longer be answered says nothing of its original.
            Err(error) if error.kind() == ErrorKind::Duplicate => Kind::Unknown,
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => Kind::Unknown,
            Err(error) => Kind::Not(error.kind()),
        };
        self.add(number, kind);
        told.is_ok()
    }

    /// Notes that nobody waits for a write.
    pub fn dropped(&self, number: u64) {
        self.add(number, Kind::Dropped);
    }

    fn add(&self, number: u64, kind: Kind) {
        self.told().push((number, kind));
    }

    /// What was told so far.
    pub fn so_far(&self) -> History {
        History(Mutex::new(self.told().clone()))
    }

    /// The kinds of all that was told so far.
    pub fn kinds(&self) -> Vec<Kind> {
        self.told().iter().map(|(_, kind)| kind.clone()).collect()
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Vec<(u64, Kind)>> {
        self.0.lock().expect("nobody panics while it is held")
    }

    /// Checks a store against what was told. `whole`: all that was accepted has to be there.
    pub fn check(&self, store: &Store, whole: bool) {
        let log = audit(store, whole);
        let stored: HashMap<u64, &Logged> = log.iter().map(|write| (write.number, write)).collect();
        for (number, kind) in self.told().iter() {
            let found = stored.get(number);
            match (kind, found) {
                (Kind::Committed(position, versions), found) => {
                    let found = found.unwrap_or_else(|| panic!("write {number} is lost"));
                    assert_eq!(found.position, *position, "write {number} stands elsewhere");
                    let (mut told, mut stored) = (versions.clone(), found.versions.clone());
                    told.sort();
                    stored.sort();
                    assert_eq!(told, stored, "write {number} has other versions");
                }
                (Kind::Dropped, None) => {
                    assert!(!whole, "write {number} is lost, and was accepted")
                }
                (Kind::Not(kind), Some(_)) => panic!("write {number} is stored, and told {kind:?}"),
                (Kind::Dropped | Kind::Unknown, _) | (Kind::Not(_), None) => {}
            }
        }
    }
}

/// Reads the log of a store and checks it by itself: positions rise, versions have no gap, each condition holds where it
/// stands, a write is whole and there once, and aggregates read alone say the same, or more if the store is not still.
pub fn audit(store: &Store, still: bool) -> Vec<Logged> {
    let mut versions: HashMap<Vec<u8>, u64> = HashMap::new();
    let (mut log, mut numbers) = (Vec::new(), HashSet::new());
    let mut last = Position::START;
    for write in store.log(0).writes() {
        let write = write.expect("the log is readable");
        assert!(write.position() > last, "positions do not rise");
        last = write.position();
        let mut logged: Option<Logged> = None;
        let mut seen = Vec::new();
        for part in write.parts() {
            let version = versions.entry(part.key().to_vec()).or_default();
            assert!(holds(part.expected(), *version), "a condition fails where it stands");
            if !part.is_check() {
                *version += 1;
                for event in part.events() {
                    let number = event.data().try_into().expect("it is numbered");
                    let number = u64::from_le_bytes(number);
                    let first = logged.get_or_insert_with(|| Logged {
                        number,
                        position: write.position(),
                        versions: Vec::new(),
                    });
                    assert_eq!(first.number, number, "a write of two halves");
                }
            }
            assert_eq!(part.version(), *version, "a gap in the versions");
            seen.push((part.key().to_vec(), *version));
        }
        let mut logged = logged.expect("a write appends something");
        assert!(numbers.insert(logged.number), "write {} is there twice", logged.number);
        logged.versions = seen;
        log.push(logged);
    }
    for (key, version) in &versions {
        let read: Vec<u64> =
            store.read(key).map(|event| event.expect("it is readable").version()).collect();
        let last = read.last().copied().unwrap_or(0);
        assert!(last == *version || !still && last > *version, "read alone, it ends elsewhere");
        assert!(read.is_sorted(), "read alone, it is out of order");
    }
    log
}

fn holds(expect: Expect, version: u64) -> bool {
    match expect {
        Expect::Any => true,
        Expect::Exists => version > 0,
        Expect::Absent => version == 0,
        Expect::Version(expected) => version == expected,
    }
}
