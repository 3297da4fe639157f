//! Executions start from snapshots, save them, and ignore those that do not fit.

mod common;

use std::cell::{Cell, RefCell};
use std::fmt::Debug;

use annals::internals::disk::sim::{Order, SimDisk};
use annals::{Event, Expect, Options, Recorded, RecordedPart, Role, State, Store};
use common::{directory, numbered, open_sim, small};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

thread_local! {
    /// How many events were folded on this thread.
    static APPLIED: Cell<u64> = const { Cell::new(0) };
    /// What was logged on this thread.
    static LOGGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A sum that can be kept.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sum(u64);

impl State for Sum {
    const SNAPSHOT_EVERY: u64 = 10;

    fn apply(&mut self, event: &Recorded) {
        APPLIED.set(APPLIED.get() + 1);
        self.0 += u64::from_le_bytes(event.data().try_into().unwrap());
    }

    fn encode(&self) -> Option<Vec<u8>> {
        Some([b"sum ".as_slice(), &self.0.to_le_bytes()].concat())
    }

    fn decode(bytes: &[u8]) -> Option<Sum> {
        let sum = bytes.strip_prefix(b"sum ")?;
        Some(Sum(u64::from_le_bytes(sum.try_into().ok()?)))
    }
}

/// What is logged on a thread.
struct Lines;

struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!("{field}={value:?} "));
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        event.record(&mut Text(&mut line));
        LOGGED.with_borrow_mut(|logged| logged.push(line));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Adds one with an execution, without waiting; how many events that took to fold.
fn add(store: &Store, key: &str, expected: u64) -> u64 {
    APPLIED.set(0);
    let execution = store.execute(key, |sum: &Sum| {
        assert_eq!(sum.0, expected);
        Ok::<Vec<Event>, ()>(vec![numbered(1)])
    });
    assert!(execution.wait().unwrap().unwrap().is_some());
    APPLIED.get()
}

/// How many snapshots the log has.
fn snapshots(store: &Store) -> usize {
    let is_one = |part: RecordedPart<'_>| part.role() == Role::Snapshot;
    store.log(0).writes().filter(|write| write.as_ref().unwrap().parts().any(is_one)).count()
}

#[test]
fn a_fold_starts_from_the_snapshot_that_an_execution_saved() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let most = (0..95).map(|done| add(&store, "a", done)).max();
    assert!(most <= Some(20), "{most:?} events folded at once");
    drop(store);

    let store = Store::open(dir.path()).unwrap();
    let snapshot = store.load_snapshot("a").unwrap().unwrap();
    assert!((80..=95).contains(&snapshot.version()), "{}", snapshot.version());
    assert_eq!(Sum::decode(snapshot.bytes()), Some(Sum(snapshot.version())));
    assert_eq!(add(&store, "a", 95), 95 - snapshot.version());
    // Snapshots are no versions.
    assert_eq!(store.version("a").unwrap(), 96);
    assert_eq!(store.read("a").into_state::<Sum>().unwrap(), (Sum(96), 96));
}

#[test]
fn kept_states_save_them_too() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let sums = store.states::<Sum>(10);
    for done in 0..50 {
        APPLIED.set(0);
        let execution = sums.execute("a", |sum| {
            assert_eq!(sum.0, done);
            Ok::<Vec<Event>, ()>(vec![numbered(1)])
        });
        execution.wait().unwrap().unwrap();
        assert!(APPLIED.get() <= 1, "{}", APPLIED.get());
    }
    assert_eq!(snapshots(&store), 4, "one for every ten versions");
}

#[test]
fn decisions_in_flight_save_one_at_a_time() {
    let disk = SimDisk::new(7);
    let store = open_sim(&small(), &disk).unwrap();
    assert_eq!(add(&store, "a", 0), 0);
    disk.set_order(Order::Never);
    let one = |_: &Sum| Ok::<Vec<Event>, ()>(vec![numbered(1)]);
    let executions: Vec<_> = (0..60).map(|_| store.execute("a", one)).collect();
    disk.set_order(Order::Fifo);
    for execution in executions {
        execution.wait().unwrap().unwrap();
    }
    assert_eq!(snapshots(&store), 1);
}

#[test]
fn one_that_does_not_fit_is_ignored_with_a_line() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    for version in 0..5 {
        store.append("a", Expect::Version(version), [numbered(1)]).unwrap().wait().unwrap();
    }
    store.save_snapshot("a", 4, "mus 12345678").unwrap().wait().unwrap();
    tracing::subscriber::with_default(Lines, || {
        assert_eq!(add(&store, "a", 5), 5, "folded from the start");
    });
    let logged = LOGGED.take();
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert!(logged[0].contains("a snapshot is ignored"), "{logged:?}");
    assert!(logged[0].contains("not those of the state"), "{logged:?}");
}

#[test]
fn a_store_that_can_only_be_read_uses_them_and_saves_none() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let tickets: Vec<_> =
        (0..30).map(|_| store.append("a", Expect::Any, [numbered(1)]).unwrap()).collect();
    tickets.iter().for_each(|ticket| drop(ticket.wait().unwrap()));
    store.save_snapshot("a", 12, Sum(12).encode().unwrap()).unwrap().wait().unwrap();
    drop(store);

    let store = Options::new().read_only(true).open(dir.path()).unwrap();
    APPLIED.set(0);
    let seen = store.execute("a", |sum: &Sum| Err::<Vec<Event>, _>(sum.0)).wait().unwrap();
    assert_eq!(seen.unwrap_err(), 30);
    assert_eq!(APPLIED.get(), 18);
    assert_eq!(store.load_snapshot("a").unwrap().unwrap().version(), 12);
}
