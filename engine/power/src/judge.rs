//! What a recovered store says, held against the truth.
//!
//! * Every acknowledged write is back, byte for byte, at its version and its position.
//! * A write is there whole or not at all, and once. What was refused is not there.
//! * Versions have no gaps, positions rise, every condition holds where its write stands.
//! * What was served before is still the beginning.
//! * Aggregates read alone say what the log says.

use std::collections::{HashMap, HashSet};
use std::fmt;

use annals::{Error, ErrorKind, Expect, RecordedWrite, Role, Store};

use crate::load::EVENT_TYPE;
use crate::plan::WriteId;
use crate::truth::{Stands, Truth};

/// Something that must not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// An acknowledged write, or one that was served, is not there.
    Lost(String),
    /// What is there is not what was written.
    Wrong(String),
    /// The store does not open, or can't be read.
    Unreadable(ErrorKind, String),
    /// The file system does not mount.
    Unmounted(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Lost(what) => write!(f, "LOST: {what}"),
            Violation::Wrong(what) => write!(f, "WRONG: {what}"),
            Violation::Unreadable(kind, what) => write!(f, "UNREADABLE ({kind:?}): {what}"),
            Violation::Unmounted(what) => write!(f, "UNMOUNTED: {what}"),
        }
    }
}

impl From<Error> for Violation {
    fn from(error: Error) -> Violation {
        Violation::Unreadable(error.kind(), error.to_string())
    }
}

/// Reads the whole log, checking each write where it stands. What is wrong is added to the violations.
pub fn read_log(store: &Store, seed: u64, violations: &mut Vec<Violation>) -> Vec<Stands> {
    let mut log = Vec::new();
    let mut once = HashSet::new();
    for shard in 0..store.shards() {
        let mut versions = HashMap::new();
        let mut last = 0;
        for write in store.log(shard).writes() {
            let write = match write {
                Ok(write) => write,
                Err(error) => {
                    violations.push(error.into());
                    break;
                }
            };
            let position = write.position().get();
            if position <= last {
                violations.push(Violation::Wrong(format!("{position} stands behind {last}")));
            }
            last = position;
            match check_write(&write, seed, shard, &mut versions) {
                Ok(stands) if !once.insert(stands.id) => {
                    violations.push(Violation::Wrong(format!("{stands:?} is there twice")));
                }
                Ok(stands) => log.push(stands),
                Err(wrong) => violations.push(Violation::Wrong(format!(
                    "shard {shard} at {}: {wrong}",
                    write.position()
                ))),
            }
        }
        for (key, version) in versions {
            if let Err(violation) = check_aggregate(store, &key, version) {
                violations.push(violation);
            }
        }
    }
    log
}

type Versions = HashMap<Vec<u8>, u64>;

/// One write: it is whole, it is what was written, and its conditions hold where it stands.
fn check_write(
    write: &RecordedWrite,
    seed: u64,
    shard: u16,
    versions: &mut Versions,
) -> Result<Stands, String> {
    let first = write.parts().find_map(|part| part.events().next());
    let first = first.ok_or("a write without events")?;
    let id = WriteId::of_event(first.data()).ok_or("an event that nobody wrote")?;
    let plan = id.plan(seed);
    if write.client() != plan.retriable.then_some((u128::from(id.client), id.sequence)) {
        return Err(format!("{id:?} has the client {:?}", write.client()));
    }
    let mut stands = Stands { id, shard, position: write.position().get(), versions: Vec::new() };
    let mut planned = plan.parts.iter();
    let mut checked = None;
    for part in write.parts() {
        let version = versions.entry(part.key().to_vec()).or_default();
        if !holds(part.expected(), *version) {
            return Err(format!("{id:?}: {part:?} where the version is {version}"));
        }
        if part.role() != Role::Append {
            checked = Some(part.key().to_vec());
            continue;
        }
        let Some(expected) = planned.next() else {
            return Err(format!("{id:?} has more parts than were written"));
        };
        if part.key() != expected.key.as_bytes() {
            return Err(format!("{id:?} appends to {:?}, not to {}", part.key(), expected.key));
        }
        let events: Vec<_> = part.events().collect();
        let same = events.len() == expected.events.len()
            && events
                .iter()
                .zip(&expected.events)
                .all(|(event, data)| event.data() == data && event.event_type() == EVENT_TYPE);
        if !same {
            return Err(format!("{id:?}: other events in {} than were written", expected.key));
        }
        *version += 1;
        if part.version() != *version {
            return Err(format!(
                "{id:?} brings {} to {}, expected {version}",
                expected.key,
                part.version()
            ));
        }
        stands.versions.push(*version);
    }
    if planned.next().is_some() {
        return Err(format!("{id:?} is there in part"));
    }
    if checked != plan.check.map(String::into_bytes) {
        return Err(format!("{id:?} checks {checked:?}"));
    }
    Ok(stands)
}

fn holds(expect: Expect, version: u64) -> bool {
    match expect {
        Expect::Any => true,
        Expect::Exists => version > 0,
        Expect::Absent => version == 0,
        Expect::Version(expected) => version == expected,
    }
}

fn check_aggregate(store: &Store, key: &[u8], version: u64) -> Result<(), Violation> {
    let read = store.read(key);
    let shown = String::from_utf8_lossy(key);
    if read.version() != version {
        return Err(Violation::Wrong(format!(
            "{shown} is at {}, in the log at {version}",
            read.version()
        )));
    }
    let mut seen = 0;
    for event in read {
        let event = event?;
        if event.version() != seen && event.version() != seen + 1 {
            return Err(Violation::Wrong(format!("{shown}: {} behind {seen}", event.version())));
        }
        seen = event.version();
    }
    if seen != version {
        return Err(Violation::Wrong(format!("{shown} ends at {seen}, expected {version}")));
    }
    Ok(())
}

/// Holds a log against the truth. Returns how many acknowledged writes were found.
pub fn compare(log: &[Stands], truth: &Truth, violations: &mut Vec<Violation>) -> u64 {
    let stored: HashMap<WriteId, &Stands> = log.iter().map(|stands| (stands.id, stands)).collect();
    let mut found = 0;
    for expected in &truth.acknowledged {
        match stored.get(&expected.id) {
            Some(stands) if *stands == expected => found += 1,
            Some(stands) => violations
                .push(Violation::Wrong(format!("{expected:?} was acknowledged and is {stands:?}"))),
            None => violations.push(Violation::Lost(format!("{expected:?} was acknowledged"))),
        }
    }
    for expected in &truth.later {
        if let Some(stands) = stored.get(&expected.id)
            && *stands != expected
        {
            violations.push(Violation::Wrong(format!(
                "{expected:?} was acknowledged later and is {stands:?}"
            )));
        }
    }
    for id in &truth.refused {
        if let Some(stands) = stored.get(id) {
            violations.push(Violation::Wrong(format!("{stands:?} was refused")));
        }
    }
    check_history(log, &truth.history, violations);
    found
}

/// What was served is still how each shard begins.
fn check_history(log: &[Stands], history: &[Stands], violations: &mut Vec<Violation>) {
    let shards: HashSet<u16> = history.iter().map(|stands| stands.shard).collect();
    for shard in shards {
        let of_shard = |stands: &&Stands| stands.shard == shard;
        let mut now = log.iter().filter(of_shard);
        for served in history.iter().filter(of_shard) {
            match now.next() {
                Some(stands) if stands == served => {}
                Some(stands) => {
                    violations
                        .push(Violation::Wrong(format!("{served:?} was served, now {stands:?}")));
                    break;
                }
                None => {
                    violations.push(Violation::Lost(format!("{served:?} was served")));
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;
    use crate::plan::SEPARATOR;
    use annals::{Backend, Event, Options};

    const SEED: u64 = 11;

    struct Scene {
        _folder: tempfile::TempDir,
        store: Store,
        truth: Truth,
    }

    fn scene(writes: u64) -> Scene {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let options = Options::new().segment_bytes(1 << 20).route_by_prefix(SEPARATOR);
        let store = options.shards(2).backend(Backend::Blocking).open(folder.path()).unwrap();
        let mut truth = Truth { seed: SEED, ..Truth::default() };
        for sequence in 1..=writes {
            let id = WriteId { client: 1, sequence };
            let plan = id.plan(SEED);
            let done = load::send(&store, id, &plan, None).unwrap().wait().unwrap();
            truth.acknowledged.push(load::stands(&store, id, &plan, &done));
        }
        Scene { _folder: folder, store, truth }
    }

    fn judge(scene: &Scene, truth: &Truth) -> Vec<Violation> {
        let mut violations = Vec::new();
        let log = read_log(&scene.store, SEED, &mut violations);
        compare(&log, truth, &mut violations);
        violations
    }

    #[test]
    fn a_store_that_is_right_is_found_right() {
        let scene = scene(40);
        assert_eq!(judge(&scene, &scene.truth), []);
        let mut later = scene.truth.clone();
        later.later = later.acknowledged.split_off(20);
        later.history = later.acknowledged.split_off(10);
        later.history.clear();
        assert_eq!(judge(&scene, &later), []);
    }

    #[test]
    fn each_breach_is_found() {
        let scene = scene(40);
        let mut lost = scene.truth.clone();
        let id = WriteId { client: 1, sequence: 41 };
        lost.acknowledged.push(Stands { id, ..lost.acknowledged[0].clone() });
        assert!(matches!(judge(&scene, &lost)[..], [Violation::Lost(_)]));

        let mut moved = scene.truth.clone();
        moved.acknowledged[3].position += 8;
        assert!(matches!(judge(&scene, &moved)[..], [Violation::Wrong(_)]));

        let mut renumbered = scene.truth.clone();
        renumbered.later.push(renumbered.acknowledged.pop().unwrap());
        renumbered.later[0].versions[0] += 1;
        assert!(matches!(judge(&scene, &renumbered)[..], [Violation::Wrong(_)]));

        let mut refused = scene.truth.clone();
        refused.refused.insert(WriteId { client: 1, sequence: 5 });
        assert!(matches!(judge(&scene, &refused)[..], [Violation::Wrong(_)]));

        let mut served = scene.truth.clone();
        served.history = vec![served.acknowledged[1].clone(), served.acknowledged[0].clone()];
        served.history[0].shard = 0;
        served.history[1].shard = 0;
        assert!(!judge(&scene, &served).is_empty());
    }

    #[test]
    fn half_a_write_is_found() {
        let scene = scene(5);
        let ids = (6..).map(|sequence| WriteId { client: 1, sequence });
        let mut wide = ids
            .map(|id| id.plan(SEED))
            .filter(|plan| plan.parts.len() > 1 && !plan.retriable && plan.check.is_none());
        let part = wide.next().unwrap().parts.swap_remove(0);
        let events = part.events.iter().map(|data| Event::new(EVENT_TYPE, data.as_slice()));
        scene.store.append(&part.key, Expect::Any, events).unwrap().wait().unwrap();
        let violations = judge(&scene, &scene.truth);
        let said = violations[0].to_string();
        assert!(said.starts_with("WRONG") && said.ends_with("is there in part"), "{said}");
    }

    #[test]
    fn other_bytes_than_were_written_are_found() {
        let scene = scene(5);
        let ids = (6..).map(|sequence| WriteId { client: 1, sequence });
        let mut narrow = ids
            .map(|id| id.plan(SEED))
            .filter(|plan| plan.parts.len() == 1 && !plan.retriable && plan.check.is_none());
        let mut part = narrow.next().unwrap().parts.swap_remove(0);
        part.events[0].push(0);
        let events = part.events.iter().map(|data| Event::new(EVENT_TYPE, data.as_slice()));
        scene.store.append(&part.key, Expect::Any, events).unwrap().wait().unwrap();
        let said = judge(&scene, &scene.truth)[0].to_string();
        assert!(said.starts_with("WRONG") && said.contains("other events"), "{said}");
    }
}
