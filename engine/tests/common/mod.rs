//! What several test files share.

// Each test file is a program of its own and uses some of these.
#![allow(dead_code)]

pub mod deciding;
pub mod images;
pub mod skip;

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use annals::internals::disk::sim::{Fault, Op, Order, SimDisk};
use annals::internals::open_on;
use annals::{Error, Event, Expect, Options, Position, Role, Store};
use futures::Stream;

/// Longer than anything takes that does not hang.
pub const LONG: Duration = Duration::from_secs(60);

/// A directory on a real disk, not in memory.
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

/// An event with a little data.
pub fn event(name: &str) -> Event {
    Event::new(name, format!("data of {name}"))
}

/// An event that can be told from all others.
pub fn numbered(number: u64) -> Event {
    Event::new("Numbered", number.to_le_bytes())
}

/// Small segments, so that tests roll.
pub fn small() -> Options {
    Options::new().segment_bytes(1 << 20).tail_bytes(1 << 20).flush_window(4)
}

/// Opens a store on a simulated disk.
pub fn open_sim(options: &Options, disk: &Arc<SimDisk>) -> Result<Store, Error> {
    open_on(options, Arc::clone(disk) as _)
}

/// The next sync fails, and the device goes on.
pub fn fail_next_sync(disk: &SimDisk) {
    disk.plan(Fault {
        op: Op::Sync,
        nth: 1,
        lasting: false,
        kind: io::ErrorKind::Other,
        short: false,
    });
    disk.set_order(Order::Fifo);
}

/// Runs something on a thread of its own, and fails the test if it hangs.
pub fn in_time<R: Send + 'static>(what: &str, run: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, finished) = mpsc::channel();
    let thread = thread::spawn(move || {
        let result = run();
        let _too_late = done.send(());
        result
    });
    if finished.recv_timeout(LONG) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("{what}: not done after {LONG:?}");
    }
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Waits until something holds, and fails if it never does.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The smallest executor: one future on one thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    let deadline = Instant::now() + LONG;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        assert!(Instant::now() < deadline, "the task was not woken");
        thread::park_timeout(LONG);
    }
}

/// A waker that counts how often it is called.
#[derive(Default)]
pub struct Rings(AtomicUsize);

impl Rings {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Rings {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Polls a stream once.
pub fn poll<S: Stream + Unpin>(stream: &mut S, rings: &Arc<Rings>) -> Poll<Option<S::Item>> {
    Pin::new(stream).poll_next(&mut Context::from_waker(&Waker::from(Arc::clone(rings))))
}

/// Something that threads wait behind until it is opened for good.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn wait(&self) {
        let mut open = self.0.0.lock().unwrap();
        while !*open {
            open = self.0.1.wait(open).unwrap();
        }
    }

    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// A write as the log holds it.
#[derive(Clone, Debug)]
pub struct Logged {
    pub position: Position,
    pub client: Option<(u128, u64)>,
    /// Keys with the versions that the write brought them to.
    pub appended: Vec<(Vec<u8>, u64)>,
    /// The data of all events.
    pub data: Vec<Vec<u8>>,
}

impl Logged {
    /// The number of its first event, which is `numbered`.
    pub fn number(&self) -> u64 {
        u64::from_le_bytes(self.data[0].as_slice().try_into().unwrap())
    }

    /// Whether its first event, if there is one, is `numbered` so.
    pub fn has_number(&self, number: u64) -> bool {
        self.data.first().is_some_and(|data| data.as_slice() == number.to_le_bytes())
    }
}

fn holds(expect: Expect, version: u64) -> bool {
    match expect {
        Expect::Any => true,
        Expect::Exists => version > 0,
        Expect::Absent => version == 0,
        Expect::Version(expected) => version == expected,
    }
}

/// Reads a whole shard in the order of its log, checks every condition and version again where it stands, and that
/// aggregates read alone say the same. Returns the writes.
pub fn audit_shard(store: &Store, shard: u16) -> Vec<Logged> {
    let mut versions: HashMap<Vec<u8>, u64> = HashMap::new();
    let mut checkpoints: HashMap<Vec<u8>, Position> = HashMap::new();
    let mut writes = Vec::new();
    let mut last = Position::START;
    for write in store.log(shard).writes() {
        let write = write.unwrap();
        assert!(write.position() > last, "the log is in order");
        last = write.position();
        let (mut appended, mut data) = (Vec::new(), Vec::new());
        for part in write.parts() {
            if let Some((from, to)) = part.moved() {
                let before = checkpoints.insert(part.key().to_vec(), to).unwrap_or_default();
                assert!(before == from && from < to, "{part:?} where it stood at {before}");
                continue;
            }
            let version = versions.get(part.key()).copied().unwrap_or(0);
            assert!(holds(part.expected(), version), "{part:?} where the version is {version}");
            if part.role() == Role::Snapshot {
                assert!((1..=version).contains(&part.version()), "{part:?} at version {version}");
                continue;
            }
            if part.is_check() {
                continue;
            }
            assert_eq!(part.version(), version + 1, "versions have no gaps: {part:?}");
            versions.insert(part.key().to_vec(), version + 1);
            appended.push((part.key().to_vec(), version + 1));
            data.extend(part.events().map(|event| event.data().to_vec()));
        }
        writes.push(Logged { position: write.position(), client: write.client(), appended, data });
    }
    for (name, position) in checkpoints {
        assert_eq!(store.checkpoint(name).unwrap(), position);
    }
    for (key, version) in versions {
        assert_eq!(store.version(&key).unwrap(), version);
        let read = store.read(&key);
        assert_eq!(read.version(), version);
        let mut seen: Vec<_> = read.map(|event| event.unwrap().version()).collect();
        seen.dedup();
        assert!(seen.iter().copied().eq(1..=version), "{seen:?} up to {version}");
    }
    writes
}

/// [`audit_shard`] for a store that has one.
pub fn audit(store: &Store) -> Vec<Logged> {
    assert_eq!(store.shards(), 1);
    audit_shard(store, 0)
}
