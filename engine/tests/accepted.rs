//! Accepted reads: what is decided and on its way to the disk, in the order of versions, with no gap and nothing that
//! was rejected.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use annals::internals::disk::sim::{Fault, Op, Order, SimDisk};
use annals::internals::reserve::pause;
use annals::{Backend, Error, ErrorKind, Event, Expect, Options, Position, Read, Store, Ticket};
use common::{LONG, audit, directory, fail_next_sync, in_time, numbered, open_sim, small};

/// Memory that is free says nothing any more: whoever still looks there is found out.
struct Poisoning;

// SAFETY: all is the system's, but for what free memory holds.
unsafe impl GlobalAlloc for Poisoning {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the contract of this method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: by the contract of this method; the memory is nobody's before it is the system's again.
        unsafe {
            at.write_bytes(0xa5, layout.size());
            System.dealloc(at, layout);
        }
    }
}

#[global_allocator]
static ALLOCATOR: Poisoning = Poisoning;

/// An event as a read shows it: version, index, number, whether it is durable.
type Shown = (u64, u32, u64, bool);

fn shown(read: Read) -> Vec<Shown> {
    read.map(|event| {
        let event = event.unwrap();
        let durable = event.is_durable();
        assert_eq!(event.position() > Position::START, durable);
        assert_eq!(event.commit_time() > 0, durable);
        let number = u64::from_le_bytes(event.data().try_into().unwrap());
        (event.version(), event.index(), number, durable)
    })
    .collect()
}

/// Without what tells the durable from the others.
fn content(shown: &[Shown]) -> Vec<(u64, u32, u64)> {
    shown.iter().map(|&(version, index, number, _)| (version, index, number)).collect()
}

/// Versions from `first` to `last`, whole batches of one, two or three, the durable ones first.
fn check_in_order(shown: &[Shown], first: u64, last: u64, context: &str) {
    let mut versions: Vec<u64> = shown.iter().map(|event| event.0).collect();
    versions.dedup();
    assert!(versions.iter().copied().eq(first..=last), "{context}: {versions:?}, {first}..={last}");
    for pair in shown.windows(2) {
        let follows = (pair[1].0 == pair[0].0 && pair[1].1 == pair[0].1 + 1) || pair[1].1 == 0;
        assert!(follows, "{context}: {pair:?}");
        assert!(pair[0].3 || !pair[1].3, "{context}: durable behind what is not: {pair:?}");
    }
}

const KEYS: [&str; 3] = ["x", "y", "z"];

/// What came of the writes of one run.
#[derive(Default)]
struct Told {
    next: AtomicU64,
    /// Numbers of writes that were refused.
    refused: Mutex<HashSet<u64>>,
    /// Tickets of the others.
    tickets: Mutex<Vec<(u64, Ticket)>>,
}

impl Told {
    fn submit(&self, write: impl FnOnce(&dyn Fn() -> Vec<Event>) -> Result<Ticket, Error>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let events = move || (0..1 + number % 3).map(|_| numbered(number)).collect();
        match write(&events) {
            Ok(ticket) => self.tickets.lock().unwrap().push((number, ticket)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                self.refused.lock().unwrap().insert(number);
            }
        }
    }
}

fn write_some(store: &Store, told: &Told, writer: usize, writes: u64) {
    for nth in 0..writes {
        let (one, other) = (KEYS[nth as usize % 3], KEYS[(nth as usize + 1 + writer % 2) % 3]);
        // Another writer comes in between now and then.
        let at = |key: &str| Expect::Version(store.version_accepted(key).unwrap());
        told.submit(|events| match (writer + nth as usize) % 5 {
            0 => store.append(one, Expect::Any, events()),
            1 => store.append(one, at(one), events()),
            2 => store
                .write()
                .append(one, at(one), events())
                .append(other, Expect::Any, events())
                .submit(),
            3 => store.write().append(one, Expect::Any, events()).check(other, at(other)).submit(),
            _ => store.write().check(one, at(one)).check(other, at(other)).submit(),
        });
    }
}

/// Reads until it is over, and notes which number each version was seen with.
fn read_all_ways(store: &Store, over: &AtomicBool) -> (HashMap<(usize, u64), u64>, u64) {
    let (mut seen, mut pending) = (HashMap::new(), 0);
    let mut least = [0; 3];
    let mut round = 0;
    while !over.load(Ordering::Relaxed) {
        round += 1;
        let nth = round % 3;
        let key = KEYS[nth];
        let default = store.version(key).unwrap();
        let told = store.version_accepted(key).unwrap();
        let read = || store.read(key).accepted();
        let from = told.saturating_sub(round as u64 % 90).max(1);
        let (events, version) = match round % 5 {
            0 => {
                let read = read().backwards().from(u64::MAX).limit(200);
                let version = read.version();
                let mut events = shown(read);
                // The oldest batch may be cut.
                let oldest = events.last().map_or(0, |event| event.0);
                events.retain(|event| event.0 > oldest || events_are_whole(oldest));
                events.reverse();
                if let Some(first) = events.first() {
                    check_in_order(&events, first.0, version, "backwards");
                }
                (events, version)
            }
            1 => {
                let read = read().after(from, 99);
                let version = read.version();
                let events = shown(read);
                check_in_order(&events, from + 1, version, "after");
                (events, version)
            }
            2 if round < 500 => {
                let read = read();
                let version = read.version();
                let events = shown(read);
                check_in_order(&events, 1, version, "whole");
                (events, version)
            }
            _ => {
                let read = read().from(from);
                let version = read.version();
                let events = shown(read);
                check_in_order(&events, from, version, "from");
                (events, version)
            }
        };
        assert!(
            version >= default && version >= told && version >= least[nth],
            "{version} of {key}"
        );
        least[nth] = version;
        for (version, _, number, durable) in events {
            pending += u64::from(!durable);
            let known = *seen.entry((nth, version)).or_insert(number);
            assert_eq!(known, number, "version {version} of {key} was another write before");
        }
    }
    (seen, pending)
}

/// Only version 1 has nothing before it that a limit could cut.
fn events_are_whole(oldest: u64) -> bool {
    oldest == 1
}

fn beside_writers(options: Options) {
    const WRITERS: usize = 4;
    const WRITES: u64 = 1500;
    let dir = directory();
    let store = options.open(dir.path()).unwrap();
    let (told, over) = (Told::default(), AtomicBool::new(false));
    let seen: Vec<_> = thread::scope(|scope| {
        let readers: Vec<_> =
            (0..3).map(|_| scope.spawn(|| read_all_ways(&store, &over))).collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn({
                    let (store, told) = (&store, &told);
                    move || write_some(store, told, writer, WRITES)
                })
            })
            .collect();
        let wrote: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        wrote.into_iter().for_each(|wrote| wrote.unwrap());
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    for (_, ticket) in told.tickets.lock().unwrap().drain(..) {
        ticket.wait().unwrap();
    }
    let refused = told.refused.into_inner().unwrap();
    assert!(!refused.is_empty(), "the writers never met");
    let mut stored = HashMap::new();
    for (nth, key) in KEYS.iter().enumerate() {
        let whole = shown(store.read(key));
        assert_eq!(content(&whole), content(&shown(store.read(key).accepted())));
        stored.extend(whole.iter().map(|event| ((nth, event.0), event.2)));
    }
    audit(&store);
    assert!(seen.iter().map(|(_, pending)| pending).sum::<u64>() > 0, "nothing was pending");
    for (version, number) in seen.into_iter().flat_map(|(seen, _)| seen) {
        assert!(!refused.contains(&number), "{version:?} was never accepted");
        assert_eq!(stored.get(&version), Some(&number), "{version:?} is another write");
    }
}

#[test]
fn versions_come_in_order_beside_writers_and_the_log_writer() {
    beside_writers(small().backend(Backend::Uring));
}

#[test]
fn versions_come_in_order_on_the_blocking_back_end() {
    beside_writers(small().backend(Backend::Blocking));
}

/// A store with two versions of "a" durable, and a disk that hangs.
fn held(seed: u64) -> (Arc<SimDisk>, Store) {
    let disk = SimDisk::new(seed);
    // More flushes than there are writes: the log writer listens.
    let store = open_sim(&small().flush_window(16), &disk).unwrap();
    for number in 1..=2 {
        store.append("a", Expect::Any, batch(number)).unwrap().wait().unwrap();
    }
    disk.set_order(Order::Never);
    (disk, store)
}

/// The write with this number has one to three events.
fn batch(number: u64) -> Vec<Event> {
    (0..1 + number % 3).map(|_| numbered(number)).collect()
}

/// Adds versions 3 to 7 of "a", by writes of all kinds, none of which becomes durable.
fn add_five(store: &Store) -> Vec<Ticket> {
    let mut tickets = vec![
        store.append("a", Expect::Version(2), batch(3)).unwrap(),
        store
            .write()
            .append("b", Expect::Absent, batch(90))
            .append("a", Expect::Version(3), batch(4))
            .submit()
            .unwrap(),
        store
            .write()
            .check("a", Expect::Version(4))
            .append("b", Expect::Version(1), batch(91))
            .submit()
            .unwrap(),
        store
            .write()
            .check("a", Expect::Version(4))
            .check("b", Expect::Version(2))
            .submit()
            .unwrap(),
        store.write().append("a", Expect::Any, batch(5)).client(7, 1).submit().unwrap(),
    ];
    for number in 6..=7 {
        tickets.push(
            store
                .aggregate("a")
                .unwrap()
                .append(Expect::Version(number - 1), batch(number))
                .unwrap(),
        );
    }
    tickets
}

/// Every way to read "a" gives what it must, when the versions up to `durable` are.
fn check_all_ways(store: &Store, durable: u64) {
    let all: Vec<Shown> = (1..=7)
        .flat_map(|version| {
            (0..1 + version % 3)
                .map(move |index| (version, index as u32, version, version <= durable))
        })
        .collect();
    let read = || store.read("a").accepted();
    assert_eq!(store.version_accepted("a").unwrap(), 7);
    assert_eq!(store.aggregate("a").unwrap().version_accepted().unwrap(), 7);
    assert_eq!(read().version(), 7);
    assert_eq!(read().limit(0).from(99).version(), 7);
    assert_eq!(shown(store.aggregate("a").unwrap().read().accepted()), all);
    for limit in (0..=all.len()).chain([usize::MAX]) {
        let take = |events: Vec<Shown>| -> Vec<Shown> { events.into_iter().take(limit).collect() };
        assert_eq!(shown(read().limit(limit)), take(all.clone()));
        let reversed: Vec<_> = all.iter().copied().rev().collect();
        assert_eq!(shown(read().limit(limit).backwards()), take(reversed.clone()));
        for version in 0..=9 {
            let context = format!("limit {limit}, version {version}");
            let kept = |keep: &dyn Fn(&Shown) -> bool, of: &[Shown]| -> Vec<Shown> {
                take(of.iter().copied().filter(|event| keep(event)).collect())
            };
            let expected = kept(&|event| event.0 >= version, &all);
            assert_eq!(shown(read().from(version).limit(limit)), expected, "{context}");
            let expected = kept(&|event| event.0 <= version, &reversed);
            assert_eq!(shown(read().from(version).limit(limit).backwards()), expected, "{context}");
            for index in [0, 1, 2, u32::MAX] {
                let expected = kept(&|event| (event.0, event.1) > (version, index), &all);
                assert_eq!(shown(read().after(version, index).limit(limit)), expected, "{context}");
                let expected = kept(&|event| (event.0, event.1) < (version, index), &reversed);
                let read = read().after(version, index).limit(limit).backwards();
                assert_eq!(shown(read), expected, "{context} {index}");
            }
        }
    }
    let default: Vec<Shown> = all.iter().copied().filter(|event| event.3).collect();
    assert_eq!(shown(store.read("a")), default);
}

#[test]
fn every_way_to_read_shows_the_pending_behind_the_durable() {
    let (disk, store) = held(1);
    let tickets = add_five(&store);
    check_all_ways(&store, 2);
    assert_eq!(content(&shown(store.read("b").accepted())), [(1, 0, 90), (2, 0, 91), (2, 1, 91)]);
    assert_eq!((store.version("b").unwrap(), store.version_accepted("b").unwrap()), (0, 2));
    assert_eq!(store.read("b").version(), 0);
    assert_eq!(store.version_accepted("none").unwrap(), 0);
    assert_eq!(shown(store.read("none").accepted()), []);
    let before = store.read("a").accepted();
    disk.set_order(Order::Random);
    for ticket in tickets {
        ticket.wait_timeout(LONG).unwrap();
    }
    check_all_ways(&store, 7);
    // A read is of the moment when it was made.
    let shown = shown(before);
    assert!(shown.iter().all(|event| event.3 == (event.0 <= 2)), "{shown:?}");
    audit(&store);
}

#[test]
fn a_key_that_cannot_be_is_told() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.version_accepted("").unwrap_err().kind(), ErrorKind::Invalid);
    let mut read = store.read("").accepted();
    assert_eq!(read.next().unwrap().unwrap_err().kind(), ErrorKind::Invalid);
    assert!(read.next().is_none());
}

/// A write to two aggregates is rejected when it stands in the slot of one of them, over a write that is pending. What
/// it covers is seen through it, and through whoever covers it.
#[test]
fn a_rejected_write_hides_nothing_and_is_not_seen() {
    // Which of two slots is the lower one is not told: one way round the rejected write is installed in "a".
    for (wide, mover) in [("b", "a"), ("a", "b")] {
        let disk = SimDisk::new(3);
        let store = open_sim(&small(), &disk).unwrap();
        for key in ["a", "b"] {
            store.append(key, Expect::Absent, [numbered(1)]).unwrap().wait().unwrap();
        }
        disk.set_order(Order::Never);
        for key in ["a", "b"] {
            drop(store.append(key, Expect::Version(1), [numbered(2)]).unwrap());
        }
        let others = store.clone();
        let mut moves = true;
        pause::on_this_thread(move |step| {
            if step == "submit" && std::mem::take(&mut moves) {
                let others = others.clone();
                thread::spawn(move || {
                    drop(others.append(mover, Expect::Any, [numbered(3)]).unwrap())
                })
                .join()
                .unwrap();
            }
        });
        let write = store.write().append(wide, Expect::Version(2), [numbered(66)]).append(
            mover,
            Expect::Version(2),
            [numbered(66)],
        );
        let lost = write.submit().unwrap_err();
        pause::on_this_thread(|_| ());
        assert_eq!((lost.kind(), lost.actual()), (ErrorKind::Conflict, Some(3)));
        let see = |key: &str| content(&shown(store.read(key).accepted()));
        assert_eq!(store.version_accepted(wide).unwrap(), 2);
        assert_eq!(see(wide), [(1, 0, 1), (2, 0, 2)]);
        assert_eq!(see(mover), [(1, 0, 1), (2, 0, 2), (3, 0, 3)]);
        for key in ["a", "b"] {
            drop(store.append(key, Expect::Any, [numbered(4)]).unwrap());
        }
        assert_eq!(see(wide), [(1, 0, 1), (2, 0, 2), (3, 0, 4)]);
        assert_eq!(see(mover), [(1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 0, 4)]);
        disk.set_order(Order::Fifo);
        store.close().unwrap();
        assert_eq!(shown(store.read(wide).accepted()), shown(store.read(wide)));
        assert_eq!(audit(&store).len(), 7);
    }
}

/// What never became durable is not shown; what is durable still is.
fn check_failed(store: &Store) {
    for key in ["a", "b"] {
        let refused = store.version_accepted(key).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Stopped, "{refused}");
        assert!(refused.to_string().contains("other error"), "{refused}");
        for read in [store.read(key).accepted(), store.read(key).accepted().backwards()] {
            assert_eq!(read.version(), 0);
            let all: Vec<_> = read.map(|event| event.map_err(|error| error.kind())).collect();
            assert!(matches!(all[..], [Err(ErrorKind::Stopped)]), "{all:?}");
        }
    }
    assert_eq!(shown(store.read("a")).len(), 5);
    assert_eq!(store.version("a").unwrap(), 2);
    assert_eq!(store.version_accepted("none").unwrap(), 0);
    assert_eq!(shown(store.read("none").accepted()), []);
}

#[test]
fn what_failed_to_become_durable_is_not_shown() {
    for seed in 0..10 {
        let (disk, store) = held(seed);
        let tickets = add_five(&store);
        fail_next_sync(&disk);
        for ticket in tickets {
            ticket.wait_timeout(LONG).unwrap_err();
        }
        check_failed(&store);
    }
}

#[test]
fn what_failed_while_the_store_was_closing_is_not_shown() {
    let (disk, store) = held(4);
    let tickets = add_five(&store);
    let closing = {
        let store = store.clone();
        thread::spawn(move || store.close())
    };
    while store.stats().shards[0].stopped.is_none() {
        thread::yield_now();
    }
    // It closes, and nothing has failed yet.
    check_all_ways(&store, 2);
    fail_next_sync(&disk);
    for ticket in tickets {
        ticket.wait_timeout(LONG).unwrap_err();
    }
    check_failed(&store);
    in_time("closing", move || closing.join().unwrap()).unwrap_err();
    check_failed(&store);
}

/// A read outlives its store, and may be told what to show when the store is gone.
#[test]
fn a_read_that_outlives_its_store_may_still_be_accepted() {
    for fails in [false, true] {
        let (disk, store) = held(5);
        let tickets = add_five(&store);
        let (before, after) = (store.read("a").accepted(), store.read("a"));
        if fails {
            fail_next_sync(&disk);
        } else {
            disk.set_order(Order::Fifo);
        }
        drop(store);
        assert!(tickets.into_iter().all(|ticket| ticket.wait().is_err() == fails));
        // Others use the memory that was free by then.
        let other = open_sim(&small(), &SimDisk::new(6)).unwrap();
        for number in 0..2000 {
            drop(other.append("other", Expect::Any, [numbered(number)]).unwrap());
        }
        assert_eq!(shown(before).len(), 14);
        let after = after.accepted();
        if fails {
            let all: Vec<_> = after.map(|event| event.map_err(|error| error.kind())).collect();
            assert!(matches!(all[..], [Err(ErrorKind::Stopped)]), "{all:?}");
        } else {
            assert_eq!(shown(after).iter().filter(|event| event.3).count(), 14);
        }
    }
}

/// What is pending does not follow behind durable versions that can't be read.
#[test]
fn an_error_on_the_way_is_the_last_item() {
    let disk = SimDisk::new(7);
    let store = open_sim(&small(), &disk).unwrap();
    for number in 0..200 {
        store.append("a", Expect::Any, [numbered(number)]).unwrap().wait().unwrap();
    }
    drop(store);
    let store = open_sim(&small().mapped(false), &disk).unwrap();
    disk.set_order(Order::Never);
    drop(store.append("a", Expect::Version(200), [numbered(200)]).unwrap());
    let fault =
        Fault { op: Op::Read, nth: 1, lasting: true, kind: io::ErrorKind::Other, short: false };
    // Before the read is made, and on its way.
    let outcomes = [true, false].map(|early| {
        if early {
            disk.plan(fault);
        }
        let read = store.read("a").accepted();
        if !early {
            disk.plan(fault);
        }
        let all: Vec<_> = read.map(|event| event.map(drop).map_err(|e| e.kind())).collect();
        disk.repair();
        all
    });
    disk.set_order(Order::Fifo);
    assert_eq!(outcomes, [[Err(ErrorKind::Io)], [Err(ErrorKind::Io)]]);
    assert_eq!(shown(store.read("a").accepted()).len(), 201);
}

#[test]
fn a_store_that_is_closed_or_read_only_shows_what_is_durable() {
    let dir = directory();
    let store = small().open(dir.path()).unwrap();
    for number in 1..=100 {
        drop(store.append("a", Expect::Any, batch(number)).unwrap());
    }
    let accepted = shown(store.read("a").accepted());
    store.close().unwrap();
    let check = |store: &Store| {
        let durable = shown(store.read("a").accepted());
        assert!(durable.iter().all(|event| event.3));
        assert_eq!(content(&durable), content(&accepted));
        assert_eq!(durable, shown(store.read("a")));
        assert_eq!(
            (store.version_accepted("a").unwrap(), store.version_accepted("b").unwrap()),
            (100, 0)
        );
        assert_eq!(shown(store.read("b").accepted()), []);
    };
    check(&store);
    drop(store);
    check(&small().read_only(true).open(dir.path()).unwrap());
}
