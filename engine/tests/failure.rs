//! Failing, full and hanging disks: what is promised when the device does not keep its own promises.

mod common;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use annals::internals::disk::sim::{Fault, Op, Order, SimDisk};
use annals::{Committed, Durability, Error, ErrorKind, Event, Expect, Options, Store, Ticket};
use common::{audit, in_time, numbered, open_sim, small};

const HOW_LONG: Duration = Duration::from_secs(20);

fn fault(op: Op, nth: u64, lasting: bool) -> Fault {
    Fault { op, nth, lasting, kind: io::ErrorKind::Other, short: false }
}

/// A write that was accepted or refused, and what came of it.
struct Sent {
    number: u64,
    wide: bool,
    outcome: Result<Committed, Error>,
}

impl Sent {
    fn kind(&self) -> Option<ErrorKind> {
        self.outcome.as_ref().err().map(Error::kind)
    }
}

/// Forty writes of one thread, pipelined in bursts: to one of five aggregates, every fourth to two of them with a check
/// and a client.
fn send_forty(store: &Store) -> Vec<Sent> {
    let mut sent = Vec::new();
    for burst in 0..10 {
        let mut tickets: Vec<(u64, bool, Result<Ticket, Error>)> = Vec::new();
        for number in burst * 4..burst * 4 + 4 {
            let one = format!("a{}", number % 5);
            let wide = number % 4 == 3;
            let ticket = if wide {
                let other = format!("a{}", (number + 1) % 5);
                let write = store
                    .write()
                    .append(one, Expect::Any, [numbered(number)])
                    .append(other, Expect::Any, [numbered(number)])
                    .check("none", Expect::Absent);
                write.client(1, number).submit()
            } else {
                store.append(one, Expect::Any, [numbered(number)])
            };
            tickets.push((number, wide, ticket));
        }
        for (number, wide, ticket) in tickets {
            let outcome = ticket.and_then(|ticket| ticket.wait_timeout(HOW_LONG));
            sent.push(Sent { number, wide, outcome });
        }
    }
    sent
}

/// What is stored agrees with what was told: the acknowledged is there, the refused is not, whole writes, in order.
fn check_stored(store: &Store, sent: &[Sent], context: &str) {
    let stored = audit(store);
    let numbers: Vec<u64> = stored.iter().map(common::Logged::number).collect();
    assert!(numbers.is_sorted(), "{context}: {numbers:?}");
    for write in sent {
        let found = stored.iter().find(|stored| stored.number() == write.number);
        match (&write.outcome, found) {
            (Ok(done), Some(found)) => {
                assert_eq!(found.position, done.position(), "{context}: write {}", write.number);
            }
            (Ok(_), None) => panic!("{context}: acknowledged write {} is lost", write.number),
            (Err(error), Some(_)) => assert_eq!(
                error.kind(),
                ErrorKind::OutcomeUnknown,
                "{context}: write {} is stored, but: {error}",
                write.number
            ),
            (Err(_), None) => {}
        }
        if let Some(found) = found {
            assert_eq!(found.appended.len(), if write.wide { 2 } else { 1 }, "{context}");
        }
    }
    // Unknown ones are there up to some point, and not from there on.
    let unknown: Vec<bool> = sent
        .iter()
        .filter(|write| write.kind() == Some(ErrorKind::OutcomeUnknown))
        .map(|write| numbers.contains(&write.number))
        .collect();
    assert!(unknown.is_sorted_by(|a, b| a >= b), "{context}: {unknown:?}");
}

fn check_after_fault(disk: &Arc<SimDisk>, store: Store, sent: &[Sent], context: &str) {
    let kinds: Vec<_> = sent.iter().map(Sent::kind).collect();
    let stopped = kinds.iter().any(|kind| {
        matches!(kind, Some(ErrorKind::OutcomeUnknown | ErrorKind::NotWritten | ErrorKind::Stopped))
    });
    for write in sent {
        let Err(error) = &write.outcome else { continue };
        assert!(
            matches!(
                error.kind(),
                ErrorKind::OutcomeUnknown
                    | ErrorKind::NotWritten
                    | ErrorKind::Stopped
                    | ErrorKind::Io
            ),
            "{context}: {error:?}"
        );
    }
    if stopped {
        // Nothing is acknowledged after the first that was not.
        let first = kinds.iter().position(Option::is_some).unwrap();
        let late = kinds.iter().skip(first).position(Option::is_none);
        assert_eq!(late, None, "{context}: {kinds:?}");
        for refused in [
            store.append("a0", Expect::Any, [numbered(99)]).unwrap_err(),
            store.try_append("new", Expect::Absent, [numbered(99)]).unwrap_err(),
            store.write().check("a0", Expect::Exists).submit().unwrap_err(),
        ] {
            assert_eq!(refused.kind(), ErrorKind::Stopped, "{context}: {refused}");
            assert!(refused.to_string().contains("other error"), "{context}: {refused}");
        }
        assert!(store.stats().shards[0].stopped.as_ref().unwrap().contains("other error"));
    }
    // Reads go on and show what was acknowledged, no more.
    let shown: Vec<u64> = audit(&store).iter().map(common::Logged::number).collect();
    let told: Vec<u64> =
        sent.iter().filter(|write| write.outcome.is_ok()).map(|write| write.number).collect();
    assert_eq!(shown, told, "{context}");

    let images = [disk.crash(sent.len() as u64), disk.clone_durable()];
    let closed = store.close();
    assert_eq!(closed.is_err(), stopped, "{context}: {closed:?}");
    drop(store);
    disk.repair();
    for (index, image) in images.iter().chain([disk]).enumerate() {
        let context = format!("{context}, image {index}");
        let store = open_sim(&small(), image).unwrap_or_else(|error| panic!("{context}: {error}"));
        check_stored(&store, sent, &context);
        let done = store.append("a0", Expect::Any, [numbered(1000)]).unwrap().wait().unwrap();
        assert_eq!(store.version("a0").unwrap(), done.version(), "{context}");
    }
}

fn fail_each(op: Op, most: u64, short: bool) {
    for method in [Durability::WriteDsync, Durability::WriteThenSync] {
        let mut stops = 0;
        for nth in 1..=most {
            for lasting in [false, true] {
                let order = if nth % 2 == 0 { Order::Random } else { Order::Fifo };
                let context = format!(
                    "{op:?} {nth}, lasting {lasting}, short {short}, {method:?}, {order:?}"
                );
                let disk = SimDisk::new(nth);
                let store = open_sim(&small().durability(method), &disk).unwrap();
                disk.set_order(order);
                disk.plan(Fault { short, ..fault(op, nth, lasting) });
                let (store, sent) = in_time(&context, move || {
                    let sent = send_forty(&store);
                    (store, sent)
                });
                stops += u64::from(store.stats().shards[0].stopped.is_some());
                check_after_fault(&disk, store, &sent, &context);
            }
        }
        // The first few hit the preparation of a segment, which stops nothing.
        assert!(stops > most, "{stops} of {} faults hit a flush", most * 2);
    }
}

#[test]
fn any_write_may_fail() {
    fail_each(Op::Write, 8, false);
}

#[test]
fn any_write_may_fail_half_done() {
    fail_each(Op::Write, 6, true);
}

#[test]
fn any_sync_may_fail() {
    fail_each(Op::Sync, 8, false);
}

#[test]
fn a_segment_that_cannot_be_prepared_refuses_writes_and_stops_nothing() {
    for op in [Op::Create, Op::Prepare, Op::SyncDir] {
        let disk = SimDisk::new(1);
        let store = open_sim(&small(), &disk).unwrap();
        disk.plan(fault(op, 1, true));
        for _ in 0..3 {
            let refused = store.append("a", Expect::Any, [numbered(1)]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Io, "{op:?}: {refused}");
        }
        disk.repair();
        assert_eq!(
            store.append("a", Expect::Any, [numbered(2)]).unwrap().wait().unwrap().version(),
            1
        );
        drop(store);
        let store = open_sim(&small(), &disk).unwrap();
        assert_eq!(audit(&store).len(), 1);
    }
}

/// A flush whose completion is seen together with an earlier failure of another one.
#[test]
fn nothing_that_completes_after_a_failure_is_acknowledged() {
    for method in [Durability::WriteDsync, Durability::WriteThenSync] {
        for seed in 0..40 {
            let disk = SimDisk::new(seed);
            let store = open_sim(&small().durability(method), &disk).unwrap();
            store.append("a", Expect::Any, [numbered(0)]).unwrap().wait().unwrap();
            let (tickets, writes) = hang(&disk, &store, 1..=4);
            assert_eq!(disk.count(Op::Write) - writes, 4);
            disk.plan(fault(Op::Sync, 1, false));
            disk.set_order(Order::Random);
            let outcomes: Vec<_> =
                tickets.iter().map(|ticket| ticket.wait_timeout(HOW_LONG)).collect();
            assert!(outcomes.iter().any(Result::is_err));
            let image = open_sim(&small(), &disk.clone_durable()).unwrap();
            let stored = audit(&image).len();
            let told = 1 + outcomes.iter().filter(|outcome| outcome.is_ok()).count();
            assert!(stored >= told, "{method:?}, seed {seed}: {told} told, {stored} stored");
        }
    }
}

/// Appends one flush after the other, none of which completes. Returns how many writes the disk had seen before.
fn hang(
    disk: &SimDisk,
    store: &Store,
    numbers: impl IntoIterator<Item = u64>,
) -> (Vec<Ticket>, u64) {
    disk.set_order(Order::Never);
    let before = disk.count(Op::Write);
    let mut tickets = Vec::new();
    for number in numbers {
        let seen = disk.count(Op::Write);
        tickets.push(store.append("a", Expect::Any, [numbered(number)]).unwrap());
        let start = Instant::now();
        while disk.count(Op::Write) == seen && start.elapsed() < HOW_LONG {
            thread::yield_now();
        }
    }
    (tickets, before)
}

#[test]
fn everyone_who_waits_is_woken_when_the_shard_stops() {
    let disk = SimDisk::new(5);
    let store = open_sim(&small(), &disk).unwrap();
    let write = |key: &'static str, number| {
        store.write().append(key, Expect::Any, [numbered(number)]).client(1, number).submit()
    };
    write("durable", 0).unwrap().wait().unwrap();
    let (in_flight, _) = hang(&disk, &store, 1..=4);
    let queued: Vec<_> =
        (5..40).map(|n| store.append("b", Expect::Any, [numbered(n)]).unwrap()).collect();
    let with_client = write("c", 40).unwrap();
    let replays = [write("durable", 0).unwrap(), write("c", 40).unwrap()];
    let checks = [
        store.write().check("durable", Expect::Exists).submit().unwrap(),
        store.write().check("a", Expect::Version(4)).check("no", Expect::Absent).submit().unwrap(),
    ];
    let conflict = store.append("b", Expect::Absent, [numbered(41)]).unwrap_err();
    assert_eq!(conflict.winner_is_durable(), Some(false));

    let mut waiting = Vec::new();
    let tickets = in_flight.into_iter().map(|t| (t, ErrorKind::OutcomeUnknown));
    let tickets =
        tickets.chain(queued.into_iter().chain([with_client]).map(|t| (t, ErrorKind::NotWritten)));
    for (index, (ticket, expected)) in tickets.enumerate() {
        waiting.push(thread::spawn(move || {
            let outcome = match index % 3 {
                0 => ticket.wait(),
                1 => futures::executor::block_on(ticket),
                _ => ticket.wait_timeout(HOW_LONG),
            };
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), expected, "{index}: {error}");
            assert!(error.to_string().contains("other error"), "{error}");
        }));
    }
    for ticket in replays.into_iter().chain(checks) {
        waiting.push(thread::spawn(move || {
            let error = ticket.wait().unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::OutcomeUnknown | ErrorKind::NotWritten),
                "{error}"
            );
        }));
    }
    thread::sleep(Duration::from_millis(50));
    disk.plan(fault(Op::Sync, 1, false));
    disk.set_order(Order::Fifo);
    in_time("waiters after a failure", move || {
        for waiter in waiting {
            waiter.join().unwrap();
        }
    });
    let refused = store.append("b", Expect::Absent, [numbered(42)]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Stopped, "{refused}");
    let refused = store.append("b", Expect::Version(0), [numbered(42)]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Stopped, "{refused}");
    assert_eq!(write("durable", 0).unwrap_err().kind(), ErrorKind::Stopped);
    assert_eq!(store.log(0).count(), 1);
    assert_eq!(store.version("b").unwrap(), 0);
}

#[test]
fn a_shard_that_fails_while_it_closes_says_so() {
    let disk = SimDisk::new(12);
    let store = open_sim(&small(), &disk).unwrap();
    store.append("a", Expect::Any, [numbered(0)]).unwrap().wait().unwrap();
    // One flush is in flight, so the log writer listens.
    let (tickets, _) = hang(&disk, &store, [1]);
    let closing = {
        let store = store.clone();
        thread::spawn(move || store.close())
    };
    let start = Instant::now();
    while store.stats().shards[0].stopped.is_none() && start.elapsed() < HOW_LONG {
        thread::sleep(Duration::from_millis(1));
    }
    let refused = store.append("a", Expect::Any, [numbered(2)]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    disk.plan(fault(Op::Sync, 1, true));
    disk.set_order(Order::Fifo);
    let unknown = tickets[0].wait_timeout(HOW_LONG).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::OutcomeUnknown);
    let closed = in_time("closing a shard that fails", move || closing.join().unwrap());
    let stopped = closed.unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Stopped);
    assert!(stopped.to_string().contains("other error"), "{stopped}");
    drop((store, tickets));
    disk.repair();
    let stored = audit(&open_sim(&small(), &disk).unwrap()).len();
    assert!(stored >= 1, "{stored}");
}

#[test]
fn a_ticket_outlives_the_time_that_its_waiter_has() {
    let disk = SimDisk::new(6);
    let store = open_sim(&small(), &disk).unwrap();
    let first = store.append("a", Expect::Absent, [numbered(0)]).unwrap();
    first.wait().unwrap();
    let (tickets, _) = hang(&disk, &store, [1]);
    let start = Instant::now();
    let error = tickets[0].wait_timeout(Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    assert!(start.elapsed() >= Duration::from_millis(19));
    assert_eq!(
        tickets[0].wait_timeout(Duration::ZERO).unwrap_err().kind(),
        ErrorKind::OutcomeUnknown
    );
    assert!(!tickets[0].is_resolved());
    assert_eq!(store.version("a").unwrap(), 1, "a read shows what is durable");
    let conflict = store.append("a", Expect::Version(1), [numbered(2)]).unwrap_err();
    assert_eq!((conflict.actual(), conflict.winner_is_durable()), (Some(2), Some(false)));
    disk.set_order(Order::Fifo);
    assert_eq!(tickets[0].wait_timeout(Duration::MAX).unwrap().version(), 2);
    assert!(tickets[0].is_resolved());
    assert_eq!(tickets[0].wait().unwrap().version(), 2);
}

#[test]
fn a_limit_on_bytes_in_flight_refuses_or_waits() {
    let disk = SimDisk::new(7);
    let store = open_sim(&small().segment_bytes(8 << 20).in_flight_bytes(1 << 20), &disk).unwrap();
    let data = vec![1u8; 64 << 10];
    let event = || [Event::new("Large", data.as_slice())];
    // The segments grow: have one that holds it all.
    for _ in 0..40 {
        store.append("warm", Expect::Any, event()).unwrap().wait().unwrap();
    }
    disk.set_order(Order::Never);
    let mut tickets = Vec::new();
    let busy = loop {
        match store.try_append("a", Expect::Any, event()) {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
        assert!(tickets.len() < 20, "no limit was met");
    };
    assert_eq!(busy.kind(), ErrorKind::Busy, "{busy}");
    assert!(tickets.len() >= 15, "{}: {busy}", tickets.len());

    let blocked = {
        let (store, data) = (store.clone(), data.clone());
        thread::spawn(move || {
            store.append("a", Expect::Any, [Event::new("Large", data)]).and_then(|t| t.wait())
        })
    };
    thread::sleep(Duration::from_millis(300));
    assert!(!blocked.is_finished(), "an append waits while the disk has work");
    disk.set_order(Order::Random);
    for ticket in &tickets {
        ticket.wait_timeout(HOW_LONG).unwrap();
    }
    let done = in_time("the append that waited", move || blocked.join().unwrap());
    assert_eq!(done.unwrap().version(), tickets.len() as u64 + 1);
    store.try_append("a", Expect::Any, event()).unwrap().wait().unwrap();
}

#[test]
fn flushes_that_complete_out_of_order_are_published_in_order() {
    for seed in 0..6 {
        let disk = SimDisk::new(seed);
        let store = open_sim(&small().flush_window(8), &disk).unwrap();
        store.append("a", Expect::Any, [numbered(0)]).unwrap().wait().unwrap();
        let (tickets, _) = hang(&disk, &store, 1..=8);
        let script = [[7, 6, 5, 4, 3, 2, 1, 0], [3, 0, 4, 0, 3, 0, 0, 0]][seed as usize % 2];
        disk.set_order(if seed < 2 { Order::Script(script.into()) } else { Order::Random });
        let start = Instant::now();
        while !tickets.iter().all(Ticket::is_resolved) {
            // Whoever looks from the newest to the oldest finds nothing older unresolved.
            let resolved: Vec<_> = tickets.iter().rev().map(Ticket::is_resolved).collect();
            assert!(resolved.is_sorted(), "seed {seed}: {resolved:?}");
            let told = resolved.iter().filter(|resolved| **resolved).count();
            assert!(store.version("a").unwrap() > told as u64);
            assert!(start.elapsed() < HOW_LONG);
        }
        for (index, ticket) in tickets.iter().enumerate() {
            assert_eq!(ticket.wait().unwrap().version(), index as u64 + 2);
        }
        drop(store);
        assert_eq!(audit(&open_sim(&small(), &disk).unwrap()).len(), 9);
    }
}

/// Bytes that a store takes before its first segment.
const IDENTITY_ROOM: u64 = 128 << 10;

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_space_again() {
    in_time("a full disk", || {
        let disk = SimDisk::new(8);
        let store = open_sim(&small(), &disk).unwrap();
        disk.set_capacity(IDENTITY_ROOM);
        for _ in 0..2 {
            let full = store.append("a", Expect::Any, [numbered(0)]).unwrap_err();
            assert_eq!(full.kind(), ErrorKind::Full, "at the first segment: {full}");
        }
        assert_eq!(store.version("a").unwrap(), 0);
        assert_eq!(
            store.write().check("a", Expect::Absent).submit().unwrap().wait().unwrap().version(),
            0
        );
        disk.set_capacity(IDENTITY_ROOM + (1 << 20));

        let data = vec![3u8; 3000];
        let mut tickets = Vec::new();
        let full = loop {
            match store.append(
                "a",
                Expect::Version(tickets.len() as u64),
                [Event::new("E", data.as_slice())],
            ) {
                Ok(ticket) => tickets.push(ticket),
                // What is in flight holds more room than it will need.
                Err(_) if tickets.last().is_some_and(|ticket: &Ticket| !ticket.is_resolved()) => {
                    tickets.last().unwrap().wait().unwrap();
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => break error,
            }
            assert!(tickets.len() < 400, "more than fits");
        };
        assert_eq!(full.kind(), ErrorKind::Full, "{full}");
        for (index, ticket) in tickets.iter().enumerate() {
            assert_eq!(ticket.wait().unwrap().version(), index as u64 + 1);
        }
        let count = tickets.len() as u64;
        assert!(count > 200, "{count}: most of the segment is used; {full}");
        for _ in 0..3 {
            let full =
                store.append("a", Expect::Any, [Event::new("E", data.as_slice())]).unwrap_err();
            assert_eq!(full.kind(), ErrorKind::Full, "{full}");
            let full =
                store.try_append("a", Expect::Any, [Event::new("E", data.as_slice())]).unwrap_err();
            assert!(matches!(full.kind(), ErrorKind::Full | ErrorKind::Busy), "{full}");
        }
        let conflict = store.append("a", Expect::Absent, [numbered(0)]).unwrap_err();
        assert_eq!(conflict.actual(), Some(count), "conflicts are still told");
        assert_eq!(store.read("a").count() as u64, count);
        drop(store);

        // Opening a full disk needs nothing.
        let store = open_sim(&small(), &disk).unwrap();
        assert_eq!(store.version("a").unwrap(), count);
        let full = store.append("a", Expect::Any, [numbered(0)]).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::Full, "{full}");
        disk.set_capacity(u64::MAX);
        assert_eq!(
            store.append("a", Expect::Any, [numbered(0)]).unwrap().wait().unwrap().version(),
            count + 1
        );
        drop(store);
        let store = open_sim(&small(), &disk).unwrap();
        assert_eq!(audit(&store).len() as u64, count + 1);
    });
}

#[test]
fn a_writer_that_only_tries_goes_on_when_there_is_space_again() {
    let disk = SimDisk::new(9);
    let store = open_sim(&small(), &disk).unwrap();
    disk.set_capacity(IDENTITY_ROOM);
    let start = Instant::now();
    let mut kinds = Vec::new();
    let ticket = loop {
        match store.try_append("a", Expect::Any, [numbered(0)]) {
            Ok(ticket) => break ticket,
            Err(error) => {
                kinds.push(error.kind());
                if error.kind() == ErrorKind::Full && kinds.len() > 5 {
                    disk.set_capacity(u64::MAX);
                }
                assert!(matches!(error.kind(), ErrorKind::Full | ErrorKind::Busy), "{error}");
            }
        }
        thread::sleep(Duration::from_millis(2));
        assert!(start.elapsed() < HOW_LONG, "{kinds:?}");
    };
    assert!(kinds.contains(&ErrorKind::Full));
    ticket.wait().unwrap();
}

#[test]
fn a_read_that_fails_is_an_error_of_that_read() {
    let disk = SimDisk::new(10);
    let store = open_sim(&small(), &disk).unwrap();
    for number in 0..20 {
        store.append("a", Expect::Any, [numbered(number)]).unwrap().wait().unwrap();
    }
    drop(store);
    let store = open_sim(&small(), &disk).unwrap();
    disk.plan(fault(Op::Read, 1, true));
    let first = store.read("a").find_map(Result::err);
    assert_eq!(first.expect("the disk can't be read").kind(), ErrorKind::Io);
    assert!(store.log(0).any(|event| event.is_err()));
    disk.repair();
    assert_eq!(store.read("a").map(Result::unwrap).count(), 20);
    assert_eq!(
        store.append("a", Expect::Version(20), [numbered(20)]).unwrap().wait().unwrap().version(),
        21
    );
}

#[test]
fn options_of_a_store_are_kept_on_any_disk() {
    let disk = SimDisk::with_block(11, 512);
    let store = open_sim(&Options::new().shards(2), &disk).unwrap();
    assert_eq!(store.stats().block_bytes, 512);
    assert_eq!(open_sim(&Options::new(), &disk).unwrap_err().kind(), ErrorKind::Locked);
    drop(store);
    assert_eq!(open_sim(&Options::new(), &disk).unwrap().shards(), 2);
}
