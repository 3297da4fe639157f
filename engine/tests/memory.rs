//! What an aggregate that nobody uses costs in memory.

mod common;

use annals::{Event, Expect, Options};
use common::directory;

/// Promised: what an idle aggregate takes beyond its key.
const BYTES_EACH_MAX: u64 = 100;

#[test]
fn an_idle_aggregate_takes_at_most_a_hundred_bytes_beyond_its_key() {
    let dir = directory();
    let store = Options::new().open(dir.path()).unwrap();
    let key = |number: u32| format!("aggregate-{number:010}");
    let key_bytes = key(0).len() as u64;
    let mut last = None;
    let mut count = 0;
    let before = store.stats().shards[0].index_bytes;
    // Also where a table has just grown.
    for until in [50_000, 60_000, 100_000, 130_000, 200_000] {
        for number in count..until {
            last = Some(store.append(key(number), Expect::Absent, [Event::new("E", "")]).unwrap());
        }
        count = until;
        last.as_ref().unwrap().wait().unwrap();
        let stats = store.stats().shards.remove(0);
        assert_eq!(stats.slots, u64::from(count));
        let each = (stats.index_bytes - before) / stats.slots;
        assert!(
            each <= BYTES_EACH_MAX + key_bytes,
            "{each} bytes each at {count}, keys of {key_bytes}"
        );
    }
    drop(store);
    let store = Options::new().open(dir.path()).unwrap();
    let stats = store.stats().shards.remove(0);
    assert_eq!(stats.slots, u64::from(count));
    assert!(stats.index_bytes / stats.slots <= BYTES_EACH_MAX + key_bytes, "{stats:?}");
    assert_eq!(
        store.aggregates().map(Result::unwrap).filter(|(_, version)| *version == 1).count(),
        200_000
    );
}

#[test]
fn unknown_keys_that_are_only_asked_for_take_nothing() {
    let dir = directory();
    let store = Options::new().open(dir.path()).unwrap();
    store.append("known", Expect::Any, [Event::new("E", "")]).unwrap().wait().unwrap();
    let before = store.stats().shards[0].slots;
    for number in 0..1000 {
        let key = format!("unknown-{number}");
        assert_eq!(store.version(&key).unwrap(), 0);
        assert_eq!(store.read(&key).count(), 0);
        assert_eq!(store.aggregate(&key).unwrap().version().unwrap(), 0);
        store.append(&key, Expect::Exists, [Event::new("E", "")]).unwrap_err();
        store.append(&key, Expect::Version(1), [Event::new("E", "")]).unwrap_err();
        store.write().check(&key, Expect::Exists).submit().unwrap_err();
        let write = store.write().append(&key, Expect::Any, [Event::new("E", "")]);
        write.append("known", Expect::Absent, [Event::new("E", "")]).submit().unwrap_err();
    }
    assert_eq!(store.stats().shards[0].slots, before);
    store.write().check("seen", Expect::Absent).submit().unwrap().wait().unwrap();
    assert_eq!(store.stats().shards[0].slots, before + 1, "a condition that holds needs a slot");
    assert_eq!(store.aggregates().count(), 1, "and makes no aggregate");
}
