//! Shared words, and the whole engine over a simulated disk, small enough for Miri, which looks for undefined behaviour
//! and for data races with a seed for each schedule:
//! `MIRIFLAGS="-Zmiri-many-seeds=0..16 -Zmiri-permissive-provenance" cargo +nightly miri test -p loom-tests --test interpreted`.

#![cfg(not(any(loom, shuttle)))]

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use annals::internals::disk::sim::SimDisk;
use annals::internals::index::{Index, SlotKey};
use annals::internals::open_on;
use annals::internals::sync::epoch::{self, Domain};
use annals::limits::SEGMENT_BYTES_MIN;
use annals::{Event, Expect, Options, Store};

fn open(disk: &Arc<SimDisk>) -> Store {
    let options = Options::new().segment_bytes(SEGMENT_BYTES_MIN).tail_bytes(1 << 20);
    open_on(&options, Arc::clone(disk) as _).expect("the store opens")
}

fn event(number: usize) -> Event {
    Event::new("Numbered", number.to_le_bytes())
}

/// A word that leads to one of two places, as a slot leads to an entry.
struct Places {
    place: AtomicUsize,
    places: [UnsafeCell<u32>; 2],
}

// SAFETY: a place that the word has led to is written to only after a grace period, which is what the test is about.
unsafe impl Sync for Places {}

impl Places {
    fn look(&self) {
        epoch::pinned(|_| {
            let place = self.place.load(Ordering::Acquire);
            // SAFETY: found under the guard.
            assert_eq!(unsafe { *self.places[place].get() } as usize, place);
        });
    }

    /// Takes place 0 out of reach, and uses it again if a grace period passes meanwhile.
    fn reuse(&self) {
        self.place.store(1, Ordering::Release);
        let noted = epoch::domain().epoch();
        for _ in 0..20 {
            if Domain::passed(noted, epoch::domain().advance()) {
                // SAFETY: a grace period has passed since it was out of reach.
                unsafe { *self.places[0].get() = 2 };
                return;
            }
            thread::yield_now();
        }
    }
}

#[test]
fn word_guards_beside_a_reuse() {
    let places = [UnsafeCell::new(0), UnsafeCell::new(1)];
    let places = Places { place: AtomicUsize::new(0), places };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..3).for_each(|_| places.look()));
        }
        scope.spawn(|| places.reuse());
    });
}

#[test]
fn word_insertions_beside_each_other() {
    let index = Index::new(7);
    let insert = || {
        let insert = |n: u8| {
            let key = SlotKey::Aggregate(&[n]);
            let (slot, _) = index.insert(index.hash(key), key).expect("there is memory");
            assert_eq!(index.find(index.hash(key), key), Some(slot));
            slot
        };
        (0..14).map(insert).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let other = scope.spawn(insert);
        let one = insert();
        assert!(one == other.join().expect("it comes to its end"), "one slot for each key");
    });
    assert_eq!(index.iter().count(), 14);
}

#[test]
fn two_callers_a_follower_a_power_cut_and_another_life() {
    let disk = SimDisk::with_block(1, 512);
    let store = open(&disk);
    let follower = thread::spawn({
        let mut log = store.subscribe(0);
        move || {
            for _ in 0..4 {
                log.next().expect("it goes on").expect("it is readable");
            }
        }
    });
    let callers = [0, 1].map(|caller| {
        let store = store.clone();
        thread::spawn(move || {
            let one = store.append("a", Expect::Any, [event(caller)]).expect("it is taken");
            let other = store.write().append("b", Expect::Any, [event(caller)]);
            let other = other.check("a", Expect::Exists).client(caller as u128, 1);
            let other = other.submit().expect("it is taken");
            assert!(store.version_accepted("a").expect("it is readable") > 0);
            drop(one);
            other.wait().expect("it is durable");
        })
    });
    callers.into_iter().for_each(|caller| caller.join().expect("it comes to its end"));
    follower.join().expect("it comes to its end");
    let image = disk.crash(2);
    store.close().expect("it closes");
    drop(store);
    for disk in [&disk, &image] {
        let store = open(disk);
        let read = |key| {
            store
                .read(key)
                .map(|event| event.expect("it is readable").version())
                .collect::<Vec<_>>()
        };
        assert_eq!((read("a"), read("b")), (vec![1, 2], vec![1, 2]));
    }
}
