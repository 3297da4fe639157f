//! What a store says it holds: read in every way there is, and compared.

use std::collections::BTreeMap;

use annals::{Error, ErrorKind, Position, Role, Store};
use xxhash_rust::xxh3::Xxh3Default;

/// One write as a store shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    pub position: Position,
    /// Over all that it says.
    pub digest: u64,
    /// The aggregates that it appends to, with the versions that it brings them to, and the digests of their events.
    pub appended: Vec<(Vec<u8>, u64, Vec<u64>)>,
}

/// The log of one shard as a store shows it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Shown {
    pub writes: Vec<Written>,
    /// The error that the log ended with.
    pub error: Option<String>,
}

/// A digest of an event, all of it.
pub fn event(event: &annals::Recorded) -> u64 {
    let mut sum = Xxh3Default::new();
    for part in [event.key(), event.event_type().as_bytes(), event.metadata(), event.data()] {
        sum.update(&(part.len() as u64).to_le_bytes());
        sum.update(part);
    }
    sum.update(&event.version().to_le_bytes());
    sum.update(&event.index().to_le_bytes());
    sum.update(format!("{:?} {:?}", event.id(), event.time()).as_bytes());
    sum.digest()
}

/// The log of a shard, write by write. `most`: how many writes it can hold at all.
pub fn shard(store: &Store, shard: u16, most: usize) -> Shown {
    let mut shown = Shown::default();
    let mut last = Position::START;
    for write in store.log(shard).writes() {
        let write = match write {
            Ok(write) => write,
            Err(error) => {
                refused(&error);
                shown.error = Some(error.to_string());
                break;
            }
        };
        assert!(write.position() > last, "{} follows {last}", write.position());
        last = write.position();
        let mut sum = Xxh3Default::new();
        sum.update(format!("{:?} {}", write.client(), write.commit_time()).as_bytes());
        let mut appended = Vec::new();
        for part in write.parts() {
            let said = (part.role(), part.expected(), part.version(), part.moved());
            sum.update(part.key());
            sum.update(format!("{said:?}").as_bytes());
            let events: Vec<u64> = part.events().map(|each| event(&each)).collect();
            events.iter().for_each(|digest| sum.update(&digest.to_le_bytes()));
            if part.role() == Role::Append {
                appended.push((part.key().to_vec(), part.version(), events));
            }
        }
        shown.writes.push(Written { position: last, digest: sum.digest(), appended });
        assert!(shown.writes.len() <= most, "a log goes on beyond all bytes there are");
    }
    shown
}

/// The logs of all shards, and every aggregate, snapshot and checkpoint of them in every way. If `sound`, nothing may be
/// missing; otherwise errors are told, and what is told is as the log has it.
pub fn all(store: &Store, most: usize, sound: bool) -> Vec<Shown> {
    let logs: Vec<Shown> = (0..store.shards()).map(|number| shard(store, number, most)).collect();
    for (number, log) in (0..).zip(&logs) {
        assert!(!sound || log.error.is_none(), "{log:?}");
        aggregates(store, number, log, sound);
        let mut subscription = store.subscribe(number);
        let mut followed = 0;
        while let Some(event) = subscription.try_next() {
            match event {
                Ok(_) => followed += 1,
                Err(error) => {
                    refused(&error);
                    assert!(!sound, "{error}");
                    break;
                }
            }
            assert!(followed <= most, "a subscription goes on beyond all bytes there are");
        }
        let events =
            |written: &Written| written.appended.iter().map(|part| part.2.len()).sum::<usize>();
        let told: usize = log.writes.iter().map(events).sum::<usize>();
        assert!(!sound || followed == told, "{followed} of {told} events were followed");
    }
    logs
}

fn aggregates(store: &Store, shard: u16, log: &Shown, sound: bool) {
    let mut versions: BTreeMap<&[u8], Vec<(u64, &[u64])>> = BTreeMap::new();
    for (key, version, events) in log.writes.iter().flat_map(|write| &write.appended) {
        versions.entry(key).or_default().push((*version, events));
    }
    for (key, versions) in versions {
        for result in [
            store.version(key).map(|_| ()),
            store.load_snapshot(key).map(|_| ()),
            store.checkpoint(key).map(|_| ()),
        ] {
            result.unwrap_or_else(|error| {
                refused(&error);
                assert!(!sound, "{error}");
            });
        }
        if store.shard_of(key) != shard {
            // The identity was changed, so keys belong elsewhere now, and the log is as sound as before.
            continue;
        }
        let (there, mut back) =
            (read(store.read(key), sound), read(store.read(key).backwards(), sound));
        back.reverse();
        assert!(!sound || there == back, "backwards is not forwards");
        if sound {
            let written: Vec<u64> =
                versions.iter().flat_map(|(_, events)| *events).copied().collect();
            assert_eq!(there, written, "an aggregate is not what the log says");
            assert!((1..).zip(&versions).all(|(nth, (version, _))| nth == *version));
        }
    }
}

fn read(read: annals::Read, sound: bool) -> Vec<u64> {
    let mut digests = Vec::new();
    let mut errors = 0;
    for item in read {
        match item {
            Ok(item) => digests.push(event(&item)),
            Err(error) => {
                refused(&error);
                assert!(!sound, "{error}");
                errors += 1;
                if errors > 4 {
                    break;
                }
            }
        }
    }
    digests
}

/// An error that bytes on disk may cause, and no panic of a thread.
pub fn refused(error: &Error) {
    assert!(!error.to_string().contains("panicked"), "{error}");
    let kind = error.kind();
    assert!(
        !matches!(kind, ErrorKind::Closed | ErrorKind::Locked | ErrorKind::Contended),
        "{kind:?}: {error}"
    );
}
