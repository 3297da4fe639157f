//! The whole engine over a simulated disk, small enough for Miri, which looks for undefined behaviour and for data races
//! with a seed for each schedule:
//! `MIRIFLAGS="-Zmiri-many-seeds=0..16 -Zmiri-permissive-provenance" cargo +nightly miri test -p loom-tests --test interpreted`.

#![cfg(not(any(loom, shuttle)))]

use std::sync::Arc;
use std::thread;

use annals::internals::disk::sim::SimDisk;
use annals::internals::open_on;
use annals::{Event, Expect, Options, Store};

fn open(disk: &Arc<SimDisk>) -> Store {
    let options = Options::new().segment_bytes(1 << 20).tail_bytes(1 << 20);
    open_on(&options, Arc::clone(disk) as _).expect("the store opens")
}

fn event(number: usize) -> Event {
    Event::new("Numbered", number.to_le_bytes())
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
