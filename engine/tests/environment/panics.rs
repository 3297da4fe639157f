//! Panics: in what a caller hands in, which harm nobody else, and on the engine's own threads, which stop the shard and tell all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals::internals::disk::sim::{Fault, Op, SimDisk};
use annals::{ErrorKind, Event, Expect, Recorded, State};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata};

use crate::common::{audit, directory, event, in_time, numbered, open_sim, small};
use crate::images::{check, check_sound};

/// A state that does not like some events.
#[derive(Clone, Default)]
struct Picky(u64);

impl State for Picky {
    fn apply(&mut self, event: &Recorded) {
        assert_ne!(event.event_type(), "Poison", "as planned");
        self.0 += 1;
    }
}

fn panics<R>(what: &str, run: impl FnOnce() -> R) {
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err(), "{what} has not panicked");
}

#[test]
fn a_caller_that_panics_leaves_nothing_behind() {
    let dir = directory();
    let options = small().in_flight_bytes(2 << 20);
    let store = options.open(dir.path()).unwrap();
    store.append("a", Expect::Absent, [numbered(0)]).unwrap().wait().unwrap();
    store.append("poisoned", Expect::Absent, [Event::new("Poison", "")]).unwrap().wait().unwrap();
    let failing = |after: usize| {
        (0..).map(move |number| {
            assert!(number < after, "as planned");
            Event::new("E", vec![1u8; 100_000])
        })
    };
    // Many times what may be in flight: permits that leaked would be missed.
    for round in 0..200 {
        let after = round % 12;
        panics("an iterator", || store.append("a", Expect::Any, failing(after)));
        panics("an iterator of a new one", || {
            store.append(format!("n{round}"), Expect::Any, failing(after))
        });
        panics("a second part", || {
            let write = store.write().append("a", Expect::Any, [event("E")]);
            write.append("b", Expect::Any, failing(after)).submit()
        });
        panics("a decision", || {
            store.execute("a", |_: &Picky| -> Result<Vec<Event>, ()> { panic!("as planned") })
        });
        panics("a state", || store.execute("poisoned", |_: &Picky| Ok::<_, ()>(vec![event("E")])));
    }
    let large = vec![2u8; 1 << 19];
    for number in 1..20 {
        let events = [numbered(number), Event::new("Large", large.as_slice())];
        store.append("a", Expect::Version(number), events).unwrap().wait().unwrap();
    }
    assert_eq!(store.version("b").unwrap(), 0);
    assert_eq!(store.stats().shards[0].stopped, None);
    store.close().unwrap();
    drop(store);
    assert_eq!(audit(&small().open(dir.path()).unwrap()).len(), 21);
    check_sound(dir.path());
}

/// Listens to what the engine says, and panics when it hears of trouble.
struct Touchy(Arc<AtomicBool>);

impl tracing::Subscriber for Touchy {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        let engine = std::thread::current().name().is_some_and(|name| name.starts_with("annals-"));
        if engine && self.0.load(Ordering::Relaxed) {
            panic!("as planned");
        }
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// One after the other, since who listens is a matter of the whole process.
#[test]
fn a_panic_on_a_thread_of_the_engine_stops_the_shard_and_everybody_is_told() {
    let armed = Arc::new(AtomicBool::new(false));
    tracing::subscriber::set_global_default(Touchy(Arc::clone(&armed))).unwrap();

    // The log writer says that a flush has failed.
    let disk = SimDisk::new(3);
    let store = open_sim(&small(), &disk).unwrap();
    store.append("a", Expect::Absent, [numbered(0)]).unwrap().wait().unwrap();
    let kind = std::io::ErrorKind::Other;
    armed.store(true, Ordering::Relaxed);
    disk.plan(Fault { op: Op::Sync, nth: 1, lasting: false, kind, short: false });
    let tickets: Vec<_> = (1..50)
        .filter_map(|number| store.append("a", Expect::Any, [numbered(number)]).ok())
        .collect();
    assert!(!tickets.is_empty());
    in_time("tickets of a log writer that panics", move || {
        for ticket in tickets {
            let error = ticket.wait().unwrap_err();
            let kinds = [ErrorKind::OutcomeUnknown, ErrorKind::NotWritten];
            assert!(kinds.contains(&error.kind()), "{error:?}");
        }
    });
    let refused = store.append("a", Expect::Any, [event("E")]).unwrap_err();
    check(&refused, ErrorKind::Stopped, 6001, &["stopped taking writes", "open the store again"]);
    assert_eq!(store.version("a").unwrap(), 1, "reads go on");
    let store = in_time("closing after a panic", move || {
        assert!(store.close().is_err());
        store
    });
    armed.store(false, Ordering::Relaxed);
    drop(store);
    let store = open_sim(&small(), &disk).unwrap();
    assert!(!audit(&store).is_empty());
    drop(store);

    // The thread that prepares segments says that there is no space.
    let disk = SimDisk::new(4);
    let store = open_sim(&small(), &disk).unwrap();
    armed.store(true, Ordering::Relaxed);
    let kind = std::io::ErrorKind::StorageFull;
    disk.plan(Fault { op: Op::Prepare, nth: 1, lasting: true, kind, short: false });
    let store = in_time("appends that wait for space", move || {
        for _ in 0..3 {
            let error = store.append("a", Expect::Any, [numbered(0)]).unwrap_err();
            let kinds = [ErrorKind::Full, ErrorKind::Stopped];
            assert!(kinds.contains(&error.kind()), "{error:?}");
        }
        store
    });
    crate::common::eventually("the shard stops", || store.stats().shards[0].stopped.is_some());
    let refused = store.append("a", Expect::Any, [event("E")]).unwrap_err();
    check(&refused, ErrorKind::Stopped, 6001, &["prepares segments panicked"]);
    armed.store(false, Ordering::Relaxed);
    in_time("closing after a panic", move || drop(store));
    disk.repair();
    let store = open_sim(&small(), &disk).unwrap();
    store.append("a", Expect::Absent, [numbered(0)]).unwrap().wait().unwrap();
}
