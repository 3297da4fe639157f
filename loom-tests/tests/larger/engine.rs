//! The whole engine over a simulated disk: callers, log writer, preparing thread and waker thread, each stopped between any
//! two operations on shared words. Each schedule ends with the log being read, then with a power cut, recovery and
//! another look at what was told.

use std::rc::Rc;
use std::sync::Arc;

use annals::internals::disk::Disk;
use annals::internals::disk::sim::SimDisk;
use annals::internals::open_on;
use annals::{Expect, Options, Store};
use loom_tests::{History, Hosted, engine, numbered};
use shuttle::rand::RngCore;

fn options() -> Options {
    Options::new().segment_bytes(64 << 10).tail_bytes(1 << 20)
}

fn draw() -> u64 {
    shuttle::rand::thread_rng().next_u64()
}

fn open(disk: &Arc<SimDisk>) -> Store {
    open_on(&options(), Arc::clone(disk) as Arc<dyn Disk>).expect("the store opens")
}

/// The log agrees with what was told: now, after closing, and after a power cut at either moment.
fn check(disk: &Arc<SimDisk>, store: Store, history: &History) {
    history.check(&store, false);
    let image = disk.crash(draw());
    store.close().expect("the store closes");
    drop(store);
    history.check(&open(&disk), true);
    history.check(&open(&image), false);
}

/// Three threads append to one aggregate, on conditions and without.
fn appends_to_one(system: &Rc<Hosted>) {
    let disk = SimDisk::with_block(draw(), 512);
    let store = open(&disk);
    let history = Arc::new(History::default());
    let callers: Vec<_> = (0..3_u64)
        .map(|caller| {
            let (store, history) = (store.clone(), Arc::clone(&history));
            system.start(move || {
                for (number, expect) in [(caller, Expect::Any), (caller + 10, Expect::Version(caller))] {
                    let told = store.append("a", expect, [numbered(number)]);
                    history.note(number, &told.and_then(|ticket| ticket.wait()));
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join());
    check(&disk, store, &history);
}

#[test]
fn appends_to_one_aggregate() {
    engine(200, appends_to_one);
}
