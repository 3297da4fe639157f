//! Positions that are kept with a write: conditions, and exactly once from log to log.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use annals::internals::disk::sim::{Order, SimDisk};
use annals::{ErrorKind, Event, Expect, Options, Position, Role, Store};
use common::{audit, audit_shard, directory, event, in_time, numbered, open_sim, small};

fn position(raw: u64) -> Position {
    Position::from_raw(raw)
}

const NONE: Position = Position::START;

#[test]
fn a_checkpoint_moves_with_the_write_and_is_read_back() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.checkpoint("orders").unwrap(), NONE);
    let done = store
        .write()
        .append("total", Expect::Absent, [event("Counted")])
        .checkpoint("orders", NONE, position(70))
        .check("stopped", Expect::Absent)
        .submit()
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(done.version(), 1);
    assert!(done.versions().eq([(&b"total"[..], 1), (&b"stopped"[..], 0)]));
    assert_eq!(store.checkpoint("orders").unwrap(), position(70));
    assert_eq!(store.checkpoint("total").unwrap(), NONE);
    assert_eq!(store.version("orders").unwrap(), 0);
    assert_eq!(store.aggregates().count(), 1);

    // Alone, and beside checks alone.
    let moved = store.write().checkpoint("orders", position(70), position(90)).submit().unwrap();
    let moved = moved.wait().unwrap();
    assert_eq!((moved.version(), moved.versions().count()), (0, 0));
    assert!(moved.position() > done.position());
    let checked = store
        .write()
        .check("total", Expect::Version(1))
        .checkpoint("orders", position(90), position(u64::MAX))
        .checkpoint("parcels", NONE, position(1));
    assert_eq!(checked.submit().unwrap().wait().unwrap().version_of("total"), Some(1));

    let written = |store: &Store| {
        assert_eq!(store.checkpoint("orders").unwrap(), position(u64::MAX));
        assert_eq!(store.checkpoint("parcels").unwrap(), position(1));
        assert_eq!(audit(store).len(), 3);
        assert_eq!(store.log(0).count(), 1);
        let writes: Vec<_> = store.log(0).writes().map(Result::unwrap).collect();
        let part = writes[0].parts().nth(1).unwrap();
        assert_eq!((part.role(), part.key()), (Role::Checkpoint, &b"orders"[..]));
        assert_eq!(part.moved(), Some((NONE, position(70))));
        assert!(!part.is_check() && part.events().next().is_none());
        assert_eq!(writes[0].parts().next().unwrap().moved(), None);
        assert_eq!(writes[1].version_of(b"orders"), None);
    };
    written(&store);
    let stats = store.stats();
    assert_eq!((stats.shards[0].writes, stats.shards[0].events), (3, 1));
    drop(store);
    let store = Options::new().read_only(true).open(dir.path()).unwrap();
    written(&store);
    let refused = store.write().checkpoint("parcels", position(1), position(2)).submit();
    assert!(refused.is_err(), "{refused:?}");
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    written(&store);
    store.write().checkpoint("parcels", position(1), position(2)).submit().unwrap().wait().unwrap();
    assert_eq!(store.checkpoint("parcels").unwrap(), position(2));
    drop(store);
    let verification = annals::verify(dir.path(), |_, _| {}).unwrap();
    assert_eq!(verification.problems, []);
    assert_eq!((verification.writes, verification.events, verification.aggregates), (4, 1, 1));
}

#[test]
fn a_checkpoint_that_stands_elsewhere_refuses_the_whole_write() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let write = |from, to| {
        let write = store.write().append("total", Expect::Any, [event("Counted")]);
        write.checkpoint("orders", position(from), position(to)).submit()
    };
    let error = write(1 << 32 | 512, 2 << 32).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, 2003));
    assert_eq!(
        error.to_string(),
        "checkpoint \"orders\": expected it at 1:512, found none; another instance has moved it: \
         read it again, and the log from there"
    );
    assert_eq!(store.stats().shards[0].slots, 0, "a refusal makes no slot");
    write(0, 1 << 32 | 512).unwrap().wait().unwrap();
    for (from, to) in [(0, 9 << 32), (7, 9 << 32), (1 << 32 | 520, 9 << 32)] {
        let error = write(from, to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("found it at 1:512;"), "{error}");
    }
    assert_eq!(store.version("total").unwrap(), 1);
    assert_eq!(store.checkpoint("orders").unwrap(), position(1 << 32 | 512));
    assert_eq!(store.stats().shards[0].conflicts, 4);
    // Another condition fails: the checkpoint stays.
    let write = store.write().checkpoint("orders", position(1 << 32 | 512), position(9 << 32));
    let error = write.check("total", Expect::Version(2)).submit().unwrap_err();
    assert_eq!((error.kind(), error.actual()), (ErrorKind::Conflict, Some(1)));
    assert_eq!(store.checkpoint("orders").unwrap(), position(1 << 32 | 512));
    assert_eq!(audit(&store).len(), 1);
}

#[test]
fn what_can_not_be_moved_is_refused_before_anything_happens() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let one = position(1);
    let invalid = |write: annals::Write, what: &str| {
        let error = write.append("a", Expect::Any, [event("E")]).submit().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    };
    let write = || store.write();
    invalid(write().checkpoint("", NONE, one), "the name of a checkpoint is empty");
    invalid(write().checkpoint("c", NONE, NONE), "expected a later position");
    invalid(write().checkpoint("c", position(9), position(9)), "expected a later position");
    invalid(write().checkpoint("c", position(9), position(8)), "expected a later position");
    let twice = write().checkpoint("c", NONE, one).checkpoint("c", one, position(2));
    invalid(twice, "a checkpoint appears twice");
    let long = write().checkpoint([7; 1025], NONE, one).submit().unwrap_err();
    assert_eq!(long.kind(), ErrorKind::TooLarge);
    let name = |number: u64| number.to_le_bytes();
    let many = (0..257).fold(write(), |write, n| write.checkpoint(name(n), NONE, one));
    assert_eq!(many.submit().unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(store.checkpoint("").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.checkpoint([7; 1025]).unwrap_err().kind(), ErrorKind::TooLarge);
    let stats = store.stats();
    assert_eq!((stats.shards[0].slots, stats.shards[0].writes), (0, 0));

    let most = (0..256).fold(write(), |write, n| write.checkpoint(name(n), NONE, one));
    most.submit().unwrap().wait().unwrap();
    write().checkpoint([7; 1024], NONE, one).submit().unwrap().wait().unwrap();
    assert_eq!(store.checkpoint([7; 1024]).unwrap(), one);
    assert!((0..256).all(|n| store.checkpoint(name(n)).unwrap() == one));
    assert_eq!(audit(&store).len(), 2);
}

#[test]
fn a_checkpoint_and_an_aggregate_may_have_the_same_key() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    for version in 0..130 {
        let from = position(version * 10);
        let write = store.write().checkpoint("same", from, position(version * 10 + 10));
        let write = match version % 2 {
            0 => write.append("same", Expect::Version(version / 2), [numbered(version)]),
            _ => write.check("same", Expect::Version(version / 2 + 1)),
        };
        write.submit().unwrap().wait().unwrap();
    }
    let check = |store: &Store| {
        assert_eq!(store.version("same").unwrap(), 65);
        assert_eq!(store.checkpoint("same").unwrap(), position(1300));
        assert_eq!(store.read("same").map(Result::unwrap).count(), 65);
        assert_eq!(store.read("same").from(64).limit(1).next().unwrap().unwrap().version(), 64);
        let newest = store.log(0).writes().last().unwrap().unwrap();
        assert_eq!(newest.version_of(b"same"), Some(65));
        assert_eq!(audit(store).len(), 130);
    };
    check(&store);
    drop(store);
    check(&Store::open(dir.path()).unwrap());
}

#[test]
fn a_checkpoint_lives_on_the_shard_of_its_name() {
    let dir = directory();
    let store = Options::new().shards(4).open(dir.path()).unwrap();
    let named = |shard: u16| {
        let mut names = (0..).map(|number: u32| format!("orders-{number}"));
        names.find(|name| store.shard_of(name) == shard).unwrap()
    };
    let names: Vec<_> = (0..4).map(named).collect();
    let keys: Vec<_> = (0..4)
        .map(|shard| {
            let mut keys = (0..).map(|number: u32| format!("total-{number}"));
            keys.find(|key| store.shard_of(key) == shard).unwrap()
        })
        .collect();
    for (name, key) in names.iter().zip(&keys) {
        let other = keys.iter().find(|other| *other != key).unwrap();
        let write = || store.write().append(other, Expect::Any, [event("E")]);
        let error = write().checkpoint(name, NONE, position(1)).submit().unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::CrossShard, 9001));
        assert!(error.keys().eq([other.as_bytes(), name.as_bytes()]));
    }
    assert!(store.stats().shards.iter().all(|shard| shard.slots == 0 && shard.writes == 0));
    for (raw, (name, key)) in (1..).zip(names.iter().zip(&keys)) {
        let write = store.write().checkpoint(name, NONE, position(raw));
        write.append(key, Expect::Absent, [event("E")]).submit().unwrap().wait().unwrap();
    }
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    for (raw, (shard, name)) in (1..).zip((0..).zip(&names)) {
        assert_eq!(store.checkpoint(name).unwrap(), position(raw));
        assert_eq!(audit_shard(&store, shard).len(), 1);
    }

    let dir = directory();
    let routed = Options::new().shards(4).route_by_prefix(b'/').open(dir.path()).unwrap();
    for tenant in 0..8 {
        let write = routed.write().append(format!("{tenant}/total"), Expect::Any, [event("E")]);
        let moved = write.checkpoint(format!("{tenant}/orders"), NONE, position(1)).submit();
        moved.unwrap().wait().unwrap();
    }
}

#[test]
fn a_retry_finds_its_write_though_the_checkpoint_has_moved() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let write = |store: &Store, sequence| {
        store
            .write()
            .checkpoint("orders", position(sequence - 1), position(sequence))
            .append("total", Expect::Any, [numbered(sequence)])
            .client(7, sequence)
            .submit()
    };
    let first = write(&store, 1).unwrap().wait().unwrap();
    let again = write(&store, 1).unwrap().wait().unwrap();
    assert!(again.is_replay());
    assert_eq!((again.position(), again.version()), (first.position(), 1));
    assert!(again.versions().eq([(&b"total"[..], 1)]));
    write(&store, 2).unwrap().wait().unwrap();
    assert_eq!(write(&store, 1).unwrap_err().kind(), ErrorKind::Duplicate);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(write(&store, 2).unwrap().wait().unwrap().is_replay());
    assert_eq!(store.checkpoint("orders").unwrap(), position(2));

    // A client is remembered by what the write appends to: here by nothing.
    let alone = |store: &Store| {
        store.write().checkpoint("orders", position(2), position(3)).client(7, 3).submit()
    };
    alone(&store).unwrap().wait().unwrap();
    assert_eq!(alone(&store).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(audit(&store).len(), 3);
}

#[test]
fn what_is_not_durable_is_decided_against_and_not_shown() {
    let disk = SimDisk::new(3);
    let store = open_sim(&small(), &disk).unwrap();
    let moved =
        |from, to| store.write().checkpoint("orders", position(from), position(to)).submit();
    moved(0, 10).unwrap().wait().unwrap();
    disk.set_order(Order::Never);
    let ahead: Vec<_> = (1..20).map(|step| moved(step * 10, step * 10 + 10).unwrap()).collect();
    let (refused, shown) = (moved(10, 500), store.checkpoint("orders"));
    let image = disk.clone_durable();
    // A disk that hangs would keep a failed test from ending.
    disk.set_order(Order::Fifo);
    let error = refused.unwrap_err();
    assert!(error.to_string().contains("found it at 0:200, not yet durable;"), "{error}");
    assert_eq!(shown.unwrap(), position(10));
    for ticket in &ahead {
        ticket.wait().unwrap();
    }
    assert_eq!(store.checkpoint("orders").unwrap(), position(200));
    let after_a_crash = open_sim(&small(), &image).unwrap();
    assert_eq!(after_a_crash.checkpoint("orders").unwrap(), position(10));
}

/// Writes of one to three numbered events each, to five aggregates. Returns how many events there are.
fn fill(store: &Store, writes: u64) -> u64 {
    let mut number = 0;
    let mut last = None;
    for nth in 0..writes {
        let events = (0..1 + nth % 3).map(|event| numbered(number + event));
        let events: Vec<_> = events.collect();
        number += events.len() as u64;
        last = Some(store.append(format!("order-{}", nth % 5), Expect::Any, events).unwrap());
    }
    last.unwrap().wait().unwrap();
    number
}

/// What the instances of one projection share over one life of the store that they write to.
struct Life<'a> {
    source: &'a Store,
    target: &'a Store,
    /// Writes left before they are all killed.
    budget: &'a AtomicU64,
    conflicts: &'a AtomicU64,
}

impl Life<'_> {
    /// Copies numbers from the one log to the other, a few writes at a time, until it is killed or at the end. Returns the
    /// position that it knows to be durable.
    fn project(&self, batch: usize) -> Position {
        let mut acknowledged = NONE;
        let mut from = self.target.checkpoint("source").unwrap();
        loop {
            let writes = self.source.log(0).after(from).limit(batch).writes();
            let writes: Vec<_> = writes.map(Result::unwrap).collect();
            let Some(to) = writes.last().map(|write| write.position()) else {
                return acknowledged;
            };
            let parts = writes.iter().flat_map(|write| write.parts());
            let copied = parts.flat_map(|part| part.events());
            let copied = copied.map(|event| Event::new("Copied", event.data()));
            let write = self.target.write().append("copy", Expect::Any, copied);
            let submitted = write.checkpoint("source", from, to).submit();
            let left = self
                .budget
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if left.is_err() {
                return acknowledged;
            }
            match submitted {
                // Every third is waited for; the others go on from what was accepted.
                Ok(ticket) if left.unwrap().is_multiple_of(3) => {
                    ticket.wait().unwrap();
                    (acknowledged, from) = (to, to);
                }
                Ok(_) => from = to,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                    self.conflicts.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_micros(200));
                    from = self.target.checkpoint("source").unwrap();
                }
            }
        }
    }
}

/// Every number was copied once, in order, as far as the checkpoint says.
fn check_copy(source: &Store, target: &Store) -> u64 {
    let number = |data: &[u8]| u64::from_le_bytes(data.try_into().unwrap());
    let copied: Vec<_> = target.read("copy").map(|event| number(event.unwrap().data())).collect();
    assert!(copied.iter().copied().eq(0..copied.len() as u64), "{copied:?}");
    let at = target.checkpoint("source").unwrap();
    let expected = source.log(0).map(Result::unwrap).take_while(|event| event.position() <= at);
    assert_eq!(copied.len(), expected.count());
    audit(target);
    copied.len() as u64
}

#[test]
fn two_instances_that_are_killed_apply_every_event_once() {
    let source_dir = directory();
    let source = Store::open(source_dir.path()).unwrap();
    let events = fill(&source, 1500);
    let conflicts = AtomicU64::new(0);
    let mut disk = SimDisk::new(1);
    let mut lives = BTreeSet::new();
    let start = Instant::now();
    for life in 0.. {
        assert!(start.elapsed() < Duration::from_secs(60), "{lives:?}");
        let target = open_sim(&small(), &disk).unwrap();
        check_copy(&source, &target);
        let budget = AtomicU64::new(40 + life % 7 * 13);
        let shared =
            Life { source: &source, target: &target, budget: &budget, conflicts: &conflicts };
        let acknowledged = thread::scope(|scope| {
            let instances = [2, 3].map(|batch| {
                let shared = &shared;
                scope.spawn(move || shared.project(batch))
            });
            instances.into_iter().map(|instance| instance.join().unwrap()).max().unwrap()
        });
        // Power is cut with writes on their way; the store of this life never tells what became of them.
        let image = if life % 4 == 3 { disk.clone_durable() } else { disk.crash(life) };
        drop(target);
        disk = image;
        let target = open_sim(&small(), &disk).unwrap();
        assert!(target.checkpoint("source").unwrap() >= acknowledged);
        let copied = check_copy(&source, &target);
        drop(target);
        lives.insert(copied);
        if copied == events {
            break;
        }
    }
    assert!(lives.len() > 5, "{lives:?}");
    assert!(conflicts.load(Ordering::Relaxed) > 0);
}

#[test]
fn instances_on_a_real_disk_apply_every_event_once() {
    let dir = directory();
    let source = Store::open(dir.path().join("source")).unwrap();
    let events = fill(&source, 600);
    let conflicts = AtomicU64::new(0);
    for _ in 0..4 {
        let target = Store::open(dir.path().join("target")).unwrap();
        let budget = AtomicU64::new(60);
        let shared =
            Life { source: &source, target: &target, budget: &budget, conflicts: &conflicts };
        thread::scope(|scope| {
            for batch in [1, 4] {
                let shared = &shared;
                scope.spawn(move || shared.project(batch));
            }
        });
        // What is on its way lands meanwhile: nothing is told of it.
        drop(target);
        check_copy(&source, &Store::open(dir.path().join("target")).unwrap());
    }
    let target = Store::open(dir.path().join("target")).unwrap();
    let budget = AtomicU64::new(u64::MAX);
    Life { source: &source, target: &target, budget: &budget, conflicts: &conflicts }.project(50);
    target.close().unwrap();
    assert_eq!(check_copy(&source, &target), events);
    drop(target);
    let verification = annals::verify(dir.path().join("target"), |_, _| {}).unwrap();
    assert_eq!(verification.problems, []);
}

#[test]
fn of_many_who_move_a_checkpoint_one_wins_each_step() {
    let dir = directory();
    let store = Arc::new(Store::open(dir.path()).unwrap());
    const STEPS: u64 = 300;
    let wins = in_time("moving a checkpoint", {
        let store = Arc::clone(&store);
        move || {
            let moves = |thread: u64| {
                let mut wins = 0;
                for step in 0..STEPS {
                    let write = store.write().checkpoint("c", position(step), position(step + 1));
                    let write = write.append(format!("t{thread}"), Expect::Any, [numbered(step)]);
                    match write.submit() {
                        Ok(_) => wins += 1,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
                    }
                }
                wins
            };
            thread::scope(|scope| {
                let threads = [0, 1, 2, 3].map(|thread| scope.spawn(move || moves(thread)));
                threads.map(|thread| thread.join().unwrap()).iter().sum::<u64>()
            })
        }
    });
    store.close().unwrap();
    // Who comes to a step has seen the one before taken, so the first to come takes it.
    assert_eq!(wins, STEPS);
    assert_eq!(store.checkpoint("c").unwrap().get(), STEPS);
    assert_eq!(audit(&store).len() as u64, STEPS);
}
