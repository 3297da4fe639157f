//! Stores on simulated disks, and how each schedule of the whole engine ends.

use std::io;
use std::sync::Arc;

use annals::internals::disk::Disk;
use annals::internals::disk::sim::{Fault, Op, SimDisk};
use annals::internals::open_on;
use annals::{Options, Store};
use loom_tests::{History, Lying};
use shuttle::rand::RngCore;

/// A store, what it stands on, and what its callers were told.
#[derive(Clone)]
pub struct Rig {
    pub disk: Arc<SimDisk>,
    pub store: Store,
    pub history: Arc<History>,
}

impl Rig {
    /// A new store on a disk that does what it says.
    pub fn new() -> Rig {
        Rig::on(|disk| disk)
    }

    /// A new store on a disk of which a write fails, and that calls all durable.
    pub fn lying() -> Rig {
        let rig = Rig::on(|disk| Arc::new(Lying(disk)));
        fail(&rig.disk, 1 + draw() % 6);
        rig
    }

    fn on(before: impl FnOnce(Arc<SimDisk>) -> Arc<dyn Disk>) -> Rig {
        let disk = SimDisk::with_block(draw(), 512);
        let store = open_on(&options(), before(Arc::clone(&disk))).expect("the store opens");
        Rig { disk, store, history: Arc::default() }
    }
}

/// What a lying disk is found out by: a write that is lost, or a later flush that says that it was durable.
pub const LOST: [&str; 3] = ["is lost", "was durable and is missing", "was durable and is damaged"];

/// What a thread that is never woken is found out by: nobody has anything to do, or a log writer looks in vain for ever.
pub const HANGS: [&str; 2] = ["everybody waits for ever", "exceeded max_steps"];

/// The n-th write from now on fails.
pub fn fail(disk: &SimDisk, nth: u64) {
    let kind = io::ErrorKind::Other;
    disk.plan(Fault { op: Op::Write, nth, lasting: false, kind, short: draw().is_multiple_of(2) });
}

/// A number that the schedule draws.
pub fn draw() -> u64 {
    shuttle::rand::thread_rng().next_u64()
}

fn options() -> Options {
    Options::new().segment_bytes(64 << 10).tail_bytes(1 << 20)
}

/// Opens the store on a disk that lies there.
pub fn open(disk: &Arc<SimDisk>) -> Store {
    disk.repair();
    open_on(&options(), Arc::clone(disk) as Arc<dyn Disk>).expect("the store opens again")
}

/// What is stored agrees with what was told: now, after a clean close, and after a power cut before it.
pub fn check(rig: Rig) {
    let Rig { disk, store, history } = rig;
    history.check(&store, false);
    let image = disk.crash(draw());
    store.close().expect("the store closes");
    drop(store);
    history.check(&open(&disk), true);
    history.check(&open(&image), false);
}
