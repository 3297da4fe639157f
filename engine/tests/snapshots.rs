//! Snapshots of aggregates: kept, loaded, and noticed by nothing else.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use annals::internals::disk::sim::{Fault, Op, Order, SimDisk};
use annals::{Durability, Error, ErrorKind, Event, Expect, Options, Position, Role, Store, Ticket};
use common::{audit, directory, event, in_time, numbered, open_sim, small};

fn position(raw: u64) -> Position {
    Position::from_raw(raw)
}

fn append(store: &Store, key: &str, count: u64) {
    let tickets: Vec<_> =
        (0..count).map(|n| store.append(key, Expect::Any, [numbered(n)]).unwrap()).collect();
    tickets.iter().for_each(|ticket| drop(ticket.wait().unwrap()));
}

/// Version and bytes of what is loaded.
fn loaded(store: &Store, key: &str) -> Option<(u64, Vec<u8>)> {
    let snapshot = store.load_snapshot(key).unwrap()?;
    Some((snapshot.version(), snapshot.bytes().to_vec()))
}

#[test]
fn the_snapshot_that_was_saved_last_is_loaded() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    append(&store, "a", 5);
    assert!(store.load_snapshot("a").unwrap().is_none());
    let done = store.save_snapshot("a", 3, "three").unwrap().wait().unwrap();
    assert_eq!((done.version(), done.versions().count()), (0, 0));
    let snapshot = store.load_snapshot("a").unwrap().unwrap();
    assert_eq!((snapshot.version(), snapshot.bytes()), (3, &b"three"[..]));
    assert_eq!(snapshot.position(), done.position());
    let newest = store.read("a").backwards().next().unwrap().unwrap();
    assert!(snapshot.position() > newest.position());

    let large = vec![7; 300_000];
    store.save_snapshot("a", 5, large.clone()).unwrap().wait().unwrap();
    assert_eq!(loaded(&store, "a"), Some((5, large.clone())));
    // The last one counts, whatever its version, and what was loaded stays as it was.
    store.save_snapshot("a", 1, []).unwrap().wait().unwrap();
    assert_eq!(loaded(&store, "a"), Some((1, vec![])));
    assert_eq!(snapshot.bytes(), b"three");
    let handle = store.aggregate("a").unwrap();
    handle.save_snapshot(4, "four").unwrap().wait().unwrap();
    assert_eq!(handle.load_snapshot().unwrap().unwrap().bytes(), b"four");
    drop(handle);
    assert!(!format!("{snapshot:?}").contains("three"), "a state may be secret");

    append(&store, "a", 2);
    append(&store, "b", 1);
    assert_eq!(loaded(&store, "a"), Some((4, b"four".to_vec())));
    assert_eq!(loaded(&store, "b"), None);
    drop(store);
    for options in [Options::new().read_only(true), Options::new(), Options::new().mapped(false)] {
        let store = options.open(dir.path()).unwrap();
        assert_eq!(loaded(&store, "a"), Some((4, b"four".to_vec())));
        assert_eq!(loaded(&store, "b"), None);
        assert_eq!(store.version("a").unwrap(), 7);
    }
    let store = Options::new().read_only(true).open(dir.path()).unwrap();
    assert!(store.save_snapshot("a", 1, "x").is_err());
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    store.save_snapshot("a", 7, "seven").unwrap().wait().unwrap();
    assert_eq!(loaded(&store, "a"), Some((7, b"seven".to_vec())));
    drop(store);
    let verification = annals::verify(dir.path(), |_, _| {}).unwrap();
    assert_eq!(verification.problems, []);
    assert_eq!((verification.events, verification.aggregates), (8, 2));
}

#[test]
fn nothing_else_notices_a_snapshot() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    for version in 0..200 {
        let sent = [
            store.append("a", Expect::Version(version), [numbered(version)]),
            store.save_snapshot("a", version + 1, version.to_le_bytes()),
            // The same bytes as a key and as a checkpoint's name.
            store.write().checkpoint("a", position(version), position(version + 1)).submit(),
        ];
        sent.into_iter().for_each(|ticket| drop(ticket.unwrap()));
    }
    store.close().unwrap();
    let stats = store.stats();
    assert_eq!((stats.shards[0].writes, stats.shards[0].events), (600, 200));
    let check = |store: &Store| {
        assert_eq!(store.version("a").unwrap(), 200);
        let read: Vec<_> = store.read("a").map(Result::unwrap).collect();
        assert_eq!(read.len(), 200);
        assert!(read.iter().zip(1..).all(|(event, version)| event.version() == version));
        assert_eq!(store.read("a").backwards().map(Result::unwrap).count(), 200);
        let logged: Vec<_> = store.log(0).map(|event| event.unwrap()).collect();
        assert!(logged.iter().all(|event| event.event_type() == "Numbered"));
        assert_eq!(logged.len(), 200);
        assert_eq!(store.log(0).limit(7).count(), 7);
        assert_eq!(store.aggregates().map(Result::unwrap).collect::<Vec<_>>().len(), 1);
        assert_eq!(loaded(store, "a"), Some((200, 199_u64.to_le_bytes().to_vec())));

        // Whole writes show it, as what it is.
        let writes = store.log(0).writes().map(Result::unwrap);
        let kept: Vec<_> =
            writes.filter(|write| write.parts().all(|p| p.role() == Role::Snapshot)).collect();
        assert_eq!(kept.len(), 200);
        let part = kept[10].parts().next().unwrap();
        assert_eq!((part.key(), part.version(), part.is_check()), (&b"a"[..], 11, false));
        assert_eq!((part.events().count(), part.expected()), (0, Expect::Any));
        assert_eq!(kept[10].version_of(b"a"), None);
        audit(store);
    };
    check(&store);
    drop(store);
    check(&Store::open(dir.path()).unwrap());
}

#[test]
fn what_can_not_be_a_snapshot_is_refused() {
    let dir = directory();
    let store = Options::new().segment_bytes(1 << 20).open(dir.path()).unwrap();
    let missing = store.save_snapshot("a", 1, "x").unwrap_err();
    assert_eq!((missing.kind(), missing.code()), (ErrorKind::NotFound, 2005));
    assert_eq!(missing.key(), Some(&b"a"[..]));
    assert_eq!(store.save_snapshot("a", 0, "x").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.stats().shards[0].slots, 0, "a refusal makes no slot");
    append(&store, "a", 3);
    for version in [0, 4, u64::MAX] {
        let error = store.save_snapshot("a", version, "x").unwrap_err();
        assert_eq!((error.kind(), error.key()), (ErrorKind::Invalid, Some(&b"a"[..])));
        let text = error.to_string();
        assert!(text.contains(&format!("version {version},")), "{text}");
        assert!(text.contains("at version 3:"), "{text}");
    }
    assert_eq!(store.save_snapshot("", 1, "x").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.load_snapshot("").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.save_snapshot([1; 1025], 1, "x").unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(store.stats().shards[0].slots, 1);

    // Its limit is that of a write: head, event header and type are in it.
    let most = store.limits().write_bytes;
    let room = most - (64 + 48 + 8) - (12 + "snapshot".len());
    let error = store.save_snapshot("a", 3, vec![1; room + 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    store.save_snapshot("a", 3, vec![1; room / 8 * 8]).unwrap().wait().unwrap();
    assert_eq!(loaded(&store, "a").unwrap().1.len(), room / 8 * 8);
    store.close().unwrap();
    assert_eq!(store.save_snapshot("a", 3, "x").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(store.save_snapshot("none", 3, "x").unwrap_err().kind(), ErrorKind::Closed);
    assert!(store.load_snapshot("a").unwrap().is_some());
}

#[test]
fn a_snapshot_of_what_is_accepted_follows_it() {
    let disk = SimDisk::new(2);
    let store = open_sim(&small(), &disk).unwrap();
    store.append("a", Expect::Absent, [event("E")]).unwrap().wait().unwrap();
    store.save_snapshot("a", 1, "one").unwrap().wait().unwrap();
    disk.set_order(Order::Never);
    let appended: Vec<_> =
        (1..9).map(|n| store.append("a", Expect::Version(n), [numbered(n)]).unwrap()).collect();
    let saved = store.save_snapshot("a", 9, "nine");
    let (shown, before) = (store.load_snapshot("a"), disk.clone_durable());
    let resolved = saved.as_ref().is_ok_and(Ticket::is_resolved);
    // A disk that hangs would keep a failed test from ending.
    disk.set_order(Order::Fifo);
    let (shown, saved) = (shown.unwrap().unwrap(), saved.unwrap());
    assert_eq!((shown.version(), shown.bytes()), (1, &b"one"[..]), "nine is not durable");
    assert!(!resolved);
    let done = saved.wait().unwrap();
    assert!(appended.iter().all(|ticket| ticket.is_resolved()));
    assert!(appended.iter().all(|ticket| ticket.wait().unwrap().position() < done.position()));
    assert_eq!(loaded(&store, "a"), Some((9, b"nine".to_vec())));
    let before = open_sim(&small(), &before).unwrap();
    assert_eq!(loaded(&before, "a"), Some((1, b"one".to_vec())));
}

/// A snapshot that was sent, and what came of it.
struct Sent {
    version: u64,
    outcome: Result<Position, Error>,
}

/// The state at a version, with which a snapshot can be told to be whole.
fn state(version: u64) -> Vec<u8> {
    vec![version as u8; 100 + version as usize * 37]
}

/// Forty versions of an aggregate, with a snapshot of every second, in bursts. Notes the newest that is acknowledged.
fn send(store: &Store, acknowledged: &AtomicU64) -> Vec<Sent> {
    let mut sent = Vec::new();
    let mut version = 0;
    for _ in 0..10 {
        let mut tickets: Vec<(u64, Result<Ticket, Error>)> = Vec::new();
        for _ in 0..4 {
            if store.append("a", Expect::Version(version), [numbered(version)]).is_err() {
                continue;
            }
            version += 1;
            if version % 2 == 0 {
                tickets.push((version, store.save_snapshot("a", version, state(version))));
            }
        }
        sent.extend(tickets.into_iter().map(|(version, ticket)| Sent {
            version,
            outcome: ticket.and_then(|ticket| ticket.wait()).map(|done| {
                acknowledged.fetch_max(version, Ordering::Release);
                done.position()
            }),
        }));
    }
    sent
}

/// What is loaded is whole, was saved, is not older than what was acknowledged last, and has its versions before it.
fn check_loaded(store: &Store, sent: &[Sent], context: &str) {
    let acknowledged = sent.iter().rev().find(|sent| sent.outcome.is_ok());
    let version = store.version("a").unwrap();
    let found = store.load_snapshot("a").unwrap();
    let least = acknowledged.map_or(0, |sent| sent.version);
    let Some(found) = found else {
        assert_eq!(least, 0, "{context}: an acknowledged snapshot is lost");
        return;
    };
    assert!(found.version() >= least, "{context}: {found:?}, acknowledged {least}");
    assert!(found.version() <= version, "{context}: {found:?} at version {version}");
    assert_eq!(found.bytes(), state(found.version()), "{context}");
    let unknown = |sent: &&Sent| sent.version == found.version();
    let saved = sent.iter().find(unknown).unwrap_or_else(|| panic!("{context}: {found:?}"));
    match &saved.outcome {
        Ok(position) => assert_eq!(*position, found.position(), "{context}"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{context}: {error}"),
    }
    audit(store);
}

#[test]
fn a_snapshot_survives_a_failure_and_a_crash_at_every_operation() {
    let mut stops = 0;
    for method in [Durability::WriteDsync, Durability::WriteThenSync] {
        for (op, nth) in [Op::Write, Op::Sync].iter().flat_map(|op| (1..=6).map(move |n| (*op, n)))
        {
            for short in [false, true] {
                let order = if nth % 2 == 0 { Order::Random } else { Order::Fifo };
                let context = format!("{op:?} {nth}, short {short}, {method:?}, {order:?}");
                let disk = SimDisk::new(nth);
                let store = open_sim(&small().durability(method), &disk).unwrap();
                disk.set_order(order);
                let kind = std::io::ErrorKind::Other;
                disk.plan(Fault { op, nth, lasting: true, kind, short });
                let (store, sent) = in_time(&context, move || {
                    let sent = send(&store, &AtomicU64::new(0));
                    (store, sent)
                });
                // What is shown is what was told.
                check_loaded(&store, &sent, &context);
                if store.stats().shards[0].stopped.is_some() {
                    stops += 1;
                    let refused = store.save_snapshot("a", 1, "late").unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::Stopped, "{context}: {refused}");
                    let refused = store.save_snapshot("b", 1, "late").unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::Stopped, "{context}: {refused}");
                }
                let images = [disk.crash(nth), disk.crash(nth + 100), disk.clone_durable()];
                drop(store);
                disk.repair();
                for (index, image) in images.iter().chain([&disk]).enumerate() {
                    let context = format!("{context}, image {index}");
                    let store = open_sim(&small(), image).unwrap();
                    check_loaded(&store, &sent, &context);
                    let done =
                        store.append("a", Expect::Any, [event("E")]).unwrap().wait().unwrap();
                    let saved = store.save_snapshot("a", done.version(), "again").unwrap();
                    saved.wait().unwrap();
                    let again = Some((done.version(), b"again".to_vec()));
                    assert_eq!(loaded(&store, "a"), again, "{context}");
                }
            }
        }
    }
    assert!(stops > 24, "{stops} faults hit a flush");
}

#[test]
fn a_crash_while_snapshots_are_written_leaves_the_last_durable_one() {
    for seed in 0..12 {
        let disk = SimDisk::new(seed);
        let store = open_sim(&small(), &disk).unwrap();
        let (images, sent) = thread::scope(|scope| {
            let acknowledged = Arc::new(AtomicU64::new(0));
            let sending = scope.spawn({
                let (store, acknowledged) = (&store, Arc::clone(&acknowledged));
                move || send(store, &acknowledged)
            });
            let mut images = Vec::new();
            let mut writes = 0;
            let start = Instant::now();
            while !sending.is_finished() && start.elapsed() < Duration::from_secs(20) {
                let now = disk.count(Op::Write) + disk.count(Op::Sync);
                if now != writes {
                    writes = now;
                    let least = acknowledged.load(Ordering::Acquire);
                    images.push((least, disk.crash(seed + now)));
                }
            }
            (images, sending.join().unwrap())
        });
        assert!(sent.iter().all(|sent| sent.outcome.is_ok()) && sent.len() == 20);
        for (least, image) in &images {
            let store = open_sim(&small(), image).unwrap();
            let version = store.version("a").unwrap();
            let (saved, bytes) = loaded(&store, "a").unwrap_or((0, state(0)));
            assert!((*least..=version).contains(&saved), "{least}, {saved}, {version}");
            assert_eq!(bytes, state(saved));
            audit(&store);
        }
        assert_eq!(loaded(&store, "a"), Some((40, state(40))));
    }
}

#[test]
fn many_threads_save_and_load() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    append(&store, "a", 1);
    in_time("saving from many threads", move || {
        thread::scope(|scope| {
            for thread in 0..4_u64 {
                let store = &store;
                scope.spawn(move || {
                    for _ in 0..100 {
                        let done = store.append("a", Expect::Any, [numbered(thread)]).unwrap();
                        let version = done.wait().unwrap().version();
                        drop(store.save_snapshot("a", version, state(version % 100)).unwrap());
                        let found = store.load_snapshot("a").unwrap();
                        let Some(found) = found else { continue };
                        assert_eq!(found.bytes(), state(found.version() % 100));
                        assert!(found.version() <= store.version("a").unwrap());
                    }
                });
            }
        });
        store.close().unwrap();
        assert_eq!(store.stats().shards[0].conflicts, 0, "a snapshot has no condition");
        let snapshots = store.log(0).writes().map(Result::unwrap);
        let last = snapshots.filter(|w| w.parts().any(|p| p.role() == Role::Snapshot)).last();
        let found = store.load_snapshot("a").unwrap().unwrap();
        assert_eq!(found.position(), last.unwrap().position());
        assert_eq!(store.version("a").unwrap(), 401);
        audit(&store);
    });
}

/// A type that an application might use for its own events.
#[test]
fn an_event_of_type_snapshot_is_an_event() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    store.append("a", Expect::Absent, [Event::new("snapshot", "mine")]).unwrap().wait().unwrap();
    assert!(store.load_snapshot("a").unwrap().is_none());
    store.save_snapshot("a", 1, "kept").unwrap().wait().unwrap();
    assert_eq!(store.read("a").next().unwrap().unwrap().data(), b"mine");
    assert_eq!(loaded(&store, "a"), Some((1, b"kept".to_vec())));
}
