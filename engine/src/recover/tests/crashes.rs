//! The power fails after every single operation of a few lives, and in the lives that follow.

use std::any::Any;
use std::io;
use std::sync::{Arc, Mutex};

use super::hand::*;
use crate::disk::sim::SimDisk;
use crate::disk::{Access, Disk, Entry, File, Lock, Mapping, Queue, SyncMethod};
use crate::error::ErrorKind;
use crate::identity_file::open_or_create;
use crate::options::Options;
use crate::recover::Mode;

/// What a power cut leaves.
struct Image {
    disk: Arc<SimDisk>,
    /// Writes that were acknowledged, and writes that had been started.
    acked: u64,
    started: u64,
}

/// A disk that takes images of what a power cut would leave, after every change.
#[derive(Clone)]
struct Watched {
    sim: Arc<SimDisk>,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    images: Vec<Image>,
    seeds: u64,
    acked: u64,
    started: u64,
}

impl Watched {
    fn new(sim: Arc<SimDisk>, seeds: u64, writes: u64) -> Watched {
        let seen = Seen { images: Vec::new(), seeds, acked: writes, started: writes };
        Watched { sim, seen: Arc::new(Mutex::new(seen)) }
    }

    fn take(&self) {
        let seen = &mut *self.seen.lock().unwrap();
        let (acked, started) = (seen.acked, seen.started);
        seen.images.push(Image { disk: self.sim.clone_durable(), acked, started });
        for nth in 0..seen.seeds {
            let disk = self.sim.crash(nth * 1000 + seen.images.len() as u64);
            seen.images.push(Image { disk, acked, started });
        }
    }

    fn after<R>(&self, result: R) -> R {
        self.take();
        result
    }

    fn images(&self) -> Vec<Image> {
        std::mem::take(&mut self.seen.lock().unwrap().images)
    }

    fn opened(&self, file: io::Result<Arc<dyn File>>) -> io::Result<Arc<dyn File>> {
        file.map(|file| Arc::new(WatchedFile { file, disk: self.clone() }) as Arc<dyn File>)
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.sim.fmt(f)
    }
}

impl Disk for Watched {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.after(self.sim.create_dir(dir))
    }
    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.sim.list(dir)
    }
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.after(self.opened(self.sim.create(path)))
    }
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        self.opened(self.sim.open(path, access))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.after(self.sim.rename(from, to))
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.after(self.sim.remove(path))
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.after(self.sim.sync_dir(dir))
    }
    fn block_bytes(&self) -> u32 {
        self.sim.block_bytes()
    }
    fn lock(&self) -> io::Result<Arc<dyn Lock>> {
        self.sim.lock()
    }
    fn queue(
        &self,
        lock: &Arc<dyn Lock>,
        depth: usize,
        method: SyncMethod,
    ) -> io::Result<Box<dyn Queue>> {
        self.sim.queue(lock, depth, method)
    }
    fn probe(&self) -> io::Result<SyncMethod> {
        self.sim.probe()
    }
    fn backend(&self) -> &'static str {
        self.sim.backend()
    }
}

#[derive(Debug)]
struct WatchedFile {
    file: Arc<dyn File>,
    disk: Watched,
}

impl File for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }
    fn read_direct_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_direct_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.after(self.file.write_at(offset, bytes))
    }
    fn prepare(&self, bytes: u64) -> io::Result<()> {
        self.disk.after(self.file.prepare(bytes))
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.after(self.file.set_len(bytes))
    }
    fn sync(&self) -> io::Result<()> {
        self.disk.after(self.file.sync())
    }
    fn map(&self, bytes: u64) -> io::Result<Mapping> {
        self.file.map(bytes)
    }
    fn as_any(&self) -> &dyn Any {
        self.file.as_any()
    }
}

/// A life with everything in it: flushes acknowledged and in flight, a roll, a segment prepared and not used. Without a
/// `close` it ends in the middle.
fn full_life(disk: &Watched, close: bool) {
    let seen = Arc::clone(&disk.seen);
    let mut hand = Hand::open(Arc::new(disk.clone())).unwrap();
    let started = |writes| seen.lock().unwrap().started = writes;
    let acked = |writes| seen.lock().unwrap().acked = writes;
    started(hand.writes + 2);
    hand.flush(2).unwrap();
    acked(hand.writes);
    hand.prepare_next().unwrap();
    // Two in flight at once.
    started(hand.writes + 4);
    hand.start(1).unwrap();
    hand.start(3).unwrap();
    hand.publish().unwrap();
    acked(hand.writes);
    hand.roll().unwrap();
    started(hand.writes + 1);
    hand.flush(1).unwrap();
    acked(hand.writes);
    hand.prepare_next().unwrap();
    started(hand.writes + 3);
    hand.start(1).unwrap();
    hand.start(2).unwrap();
    if close {
        hand.publish().unwrap();
        acked(hand.writes);
        hand.close().unwrap();
    }
}

/// Opens what a power cut left: everything acknowledged is back, nothing comes that was not started, nothing is reported as
/// damage, and what is shown once stays.
fn check(image: &Image) -> u64 {
    let disk = &image.disk;
    let (read, index) = open(&**disk, Mode::Read).unwrap();
    assert_eq!(read.damage, []);
    assert!((image.acked..=image.started).contains(&read.records), "{}", read.records);
    check_versions(&index, read.records);
    let disk = disk.clone_durable();
    let (found, index) = open(&*disk, Mode::Write).unwrap();
    // The reader has synced what it showed.
    assert_eq!(found.records, read.records);
    check_versions(&index, found.records);
    assert_eq!(verified(&*disk).problems, []);
    found.records
}

#[test]
fn after_every_operation_of_a_life_and_of_the_next() {
    let first = SimDisk::with_block(1, BLOCK as u32);
    furnish(&*first);
    let watched = Watched::new(first, 2, 0);
    full_life(&watched, false);
    let images = watched.images();
    assert!(images.len() > 80, "{}", images.len());
    for (nth, image) in images.iter().enumerate() {
        let writes = check(image);
        // The next life begins with whatever the cut left behind, and is cut in turn.
        let watched = Watched::new(Arc::clone(&image.disk), 1, writes);
        full_life(&watched, nth % 2 == 0);
        for image in watched.images().iter().skip(nth % 3).step_by(3) {
            check(image);
        }
    }
}

#[test]
fn what_is_shown_once_survives_the_next_cut() {
    for mode in [Mode::Read, Mode::Write] {
        let disk = SimDisk::with_block(1, BLOCK as u32);
        furnish(&*disk);
        let mut hand = Hand::open(Arc::clone(&disk) as _).unwrap();
        hand.flush(2).unwrap();
        // Written, not synced; then the process ends and the power does not.
        hand.start(1).unwrap();
        drop(hand);
        let shown = open(&*disk, mode).unwrap().0.records;
        assert_eq!(shown, 3);
        let (found, _) = open(&*disk.clone_durable(), Mode::Write).unwrap();
        assert_eq!(found.records, shown, "{mode:?}");
    }
}

#[test]
fn a_third_life_uses_what_two_left() {
    let first = SimDisk::with_block(1, BLOCK as u32);
    furnish(&*first);
    let mut disk = first;
    for life in 0..6 {
        let writes = {
            let (found, _) = open(&*disk, Mode::Write).unwrap();
            found.records
        };
        let watched = Watched::new(Arc::clone(&disk), 2, writes);
        full_life(&watched, life % 3 == 1);
        let images = watched.images();
        images.iter().for_each(|image| {
            check(image);
        });
        disk = Arc::clone(&images[images.len() - 1 - life].disk);
    }
    // Six lives of two segments, of which most were cut short: few files are left that hold nothing.
    let names = disk.list("shard-0000").unwrap();
    let spares = names.iter().filter(|entry| entry.name.ends_with(".spare")).count();
    assert!(spares <= 3, "{names:?}");
}

#[test]
fn after_every_operation_of_creating_a_store() {
    let sim = SimDisk::with_block(1, BLOCK as u32);
    let watched = Watched::new(sim, 3, 0);
    let options = Options::new().shards(3).route_by_prefix(b'/');
    let created = open_or_create(&watched, &options).unwrap();
    let images = watched.images();
    let found = |disk: &SimDisk| open_or_create(disk, &Options::new().create(false));
    for image in &images {
        match found(&image.disk) {
            Ok(identity) => assert_eq!(identity, created),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error}"),
        }
        let identity = open_or_create(&*image.disk, &options).unwrap();
        assert_eq!(found(&image.disk.clone_durable()).unwrap(), identity);
        for shard in 0..3 {
            image.disk.list(&format!("shard-000{shard}")).unwrap();
        }
    }
    // Once it is created it is there for good.
    assert_eq!(found(&images.last().unwrap().disk).unwrap(), created);
}
