//! A disk in memory that can lose power.
//!
//! *Content.* A file has a live image, which reads show, and a durable one. A write changes the live image and marks
//! its sectors of 512 bytes; a sync makes the marked sectors and the length durable. A flush is written when it is
//! started and durable when it completes.
//!
//! *Names.* Creating, renaming and removing are durable after `sync_dir`. A power cut keeps, for each directory, the
//! changes up to some point.
//!
//! *Power cuts.* [`SimDisk::crash`] returns the disk after one, and [`SimDisk::plan_cut`] has one at a certain
//! operation: the image is kept for [`SimDisk::take_cut`], and whoever still uses the disk meets nothing but errors. Each
//! marked sector is kept or lost by itself, or as [`Loss`] says, and so is the length. A write inside one sector is whole
//! or not there. With [`set_damage`](SimDisk::set_damage) a whole block may be damaged of which a sector was being written,
//! as in a device whose sectors are larger than they say.
//!
//! *Faults.* A [`Fault`] fails the n-th operation of a kind. A [`Chance`] lets a [`FaultKind`] happen now and then. What
//! really happened is counted. What a failed sync had to make durable is never made so by a later one that succeeds: the
//! system still shows it, and a direct read does not, as on real systems.
//!
//! *Stragglers.* A flush in flight when its world ends may land in the next one. The lock is held until it has, as the
//! real one is, which the kernel holds for the sake of the ring.
//!
//! *Order.* Completions appear when `wait` or `poll` is called, in the [`Order`] asked for, late ones not before so many
//! calls and so much time ([`SimDisk::set_now`]). Everything that is random comes from the seed, so one thread repeats
//! itself exactly.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::Duration;

use self::content::SECTOR;
pub use self::faults::{Chance, Fault, FaultKind, Op};
use self::file::SimFile;
use self::image::{Change, Node, Power, State, parent};
use self::queue::SimQueue;
use self::random::Random;
use super::{Access, Disk, Entry, File, Lock, Queue, SyncMethod};
use crate::sync::{Arc, Mutex, broken};

mod content;
mod faults;
mod file;
mod image;
mod queue;
mod random;
#[cfg(test)]
mod tests;

/// In which order flushes complete.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// As they were started, one for each call.
    Fifo,
    /// At random: several for a call or, if it is `poll`, none.
    #[default]
    Random,
    /// One for each call: the indices, among those in flight, of what completes next. Then as `Fifo`.
    Script(VecDeque<usize>),
    /// Not at all: the device hangs.
    Never,
}

/// What a power cut loses of what is not durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Loss {
    /// Each sector, length and name by chance.
    #[default]
    Random,
    /// Everything.
    All,
    /// Nothing: the process dies, and not the machine. What was not durable is there and still is not.
    Nothing,
}

/// How a file rots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rot {
    /// One bit is inverted.
    Bit,
    /// One byte becomes another.
    Byte,
    /// A sector becomes noise.
    Sector,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The state's own.
    changed: std::sync::Arc<Condvar>,
}

impl SimDisk {
    /// An empty disk with blocks of 4096 bytes.
    #[must_use]
    pub fn new(seed: u64) -> Arc<SimDisk> {
        SimDisk::with_block(seed, 4096)
    }

    /// An empty disk.
    #[must_use]
    pub fn with_block(seed: u64, block_bytes: u32) -> Arc<SimDisk> {
        SimDisk::of(State::new(seed, block_bytes))
    }

    fn of(state: State) -> Arc<SimDisk> {
        let changed = std::sync::Arc::clone(&state.changed);
        let shared = Shared { state: Mutex::new(state), changed };
        Arc::new(SimDisk { shared: Arc::new(shared) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk after a power cut now: what was not durable is lost as [`set_loss`](SimDisk::set_loss) says. Its faults,
    /// limits, order and losses are those of a new disk. This one goes on as if nothing had happened, but counts what did.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Arc<SimDisk> {
        let mut state = self.state();
        let loss = state.loss;
        SimDisk::of(state.after_power_cut(loss, Random::new(seed)))
    }

    /// The disk with nothing but what is durable now.
    #[must_use]
    pub fn clone_durable(&self) -> Arc<SimDisk> {
        let mut state = self.state();
        let random = state.random.clone();
        SimDisk::of(state.after_power_cut(Loss::All, random))
    }

    /// Cuts the power at an operation, counted from 1 now, whatever its kind: before it has done anything. Everything
    /// that is random in it comes from the seed.
    pub fn plan_cut(&self, nth: u64, seed: u64) {
        let mut state = self.state();
        if !state.is_off() {
            state.power = Power::FailsAt(state.ios + nth.max(1), seed);
        }
    }

    /// Whether the power has been cut as planned. From then on every operation fails.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.state().is_off()
    }

    /// The disk after the planned power cut, once.
    #[must_use]
    pub fn take_cut(&self) -> Option<Arc<SimDisk>> {
        match &mut self.state().power {
            Power::Off(image) => image.take().map(|image| SimDisk::of(*image)),
            _ => None,
        }
    }

    /// What power cuts lose from now on; by chance, at first.
    pub fn set_loss(&self, loss: Loss) {
        self.state().loss = loss;
    }

    /// Whether power cuts damage whole blocks from now on, by chance, of which any sector was being written.
    pub fn set_damage(&self, damages: bool) {
        self.state().damages = damages;
    }

    /// How many operations there were, of all kinds.
    #[must_use]
    pub fn ios(&self) -> u64 {
        self.state().ios
    }

    /// Adds a fault.
    pub fn plan(&self, fault: Fault) {
        self.state().faults.planned.push(fault);
    }

    /// Lets something go wrong now and then. The last word on a kind counts.
    pub fn allow(&self, chance: Chance) {
        self.state().faults.chances.insert(chance.kind, chance);
    }

    /// Removes every fault and every chance: the disk is repaired.
    pub fn repair(&self) {
        let faults = &mut self.state().faults;
        faults.planned.clear();
        faults.chances.clear();
    }

    /// How often what really went wrong.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<FaultKind, u64> {
        self.state().faults.happened.0.clone()
    }

    /// Bytes that fit into all files together; what would be more is `StorageFull`.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// The order in which flushes complete from now on.
    pub fn set_order(&self, order: Order) {
        self.state().order = order;
        self.shared.changed.notify_all();
    }

    /// How long [late](FaultKind::LateCompletion) completions take at most: so many looks at the queue, and so much time.
    pub fn set_lateness(&self, looks: u64, time: Duration) {
        self.state().lateness = (looks, time);
    }

    /// Time passes: it is so late now.
    pub fn set_now(&self, now: Duration) {
        self.state().now = now;
        self.shared.changed.notify_all();
    }

    /// When the first of the flushes in flight can complete; `None` if there are none, or if the device hangs.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let state = self.state();
        let first = state.flying.iter().map(|flight| flight.due).min();
        if state.order == Order::Never { None } else { first }
    }

    /// Whether what is in flight stays there.
    fn hangs(&self) -> bool {
        let state = self.state();
        state.order == Order::Never && !state.is_off()
    }

    /// In steps, a `wait` that nothing can end returns at once; else (at first) it sleeps. For tests on one thread.
    pub fn set_stepped(&self, stepped: bool) {
        self.state().stepped = stepped;
    }

    /// Puts a range of the file of that name on another disk into this one's, live and durable: blocks of a twin, or of an
    /// older copy.
    pub fn graft(&self, twin: &SimDisk, path: &str, range: Range<u64>) -> io::Result<()> {
        let at = usize::try_from(range.start).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let mut bytes = vec![0; range.end.saturating_sub(range.start) as usize];
        let theirs = twin.state();
        let file = theirs.file(path)?;
        let read = theirs.files[file].live.read(at, &mut bytes);
        read.ok_or(io::ErrorKind::UnexpectedEof)?;
        drop(theirs);
        let mut state = self.state();
        let file = state.file(path)?;
        state.files[file].overwrite(at, &bytes);
        state.faults.happened.add(FaultKind::Grafted);
        Ok(())
    }

    /// Inverts a byte of a file, live and durable.
    pub fn flip(&self, path: &str, offset: u64) -> io::Result<()> {
        self.state().rot(path, offset, &[0xFF]).map(drop)
    }

    /// Lets a file rot at a random place within a range, live and durable; where.
    pub fn rot(&self, path: &str, range: Range<u64>, rot: Rot) -> io::Result<Range<u64>> {
        let mut state = self.state();
        let State { random, .. } = &mut *state;
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let at = range.start.saturating_add(random.below(length.max(1)) as u64);
        let sector = SECTOR as u64;
        match rot {
            Rot::Bit => {
                let bits = 1 << random.below(8);
                state.rot(path, at, &[bits])
            }
            Rot::Byte => {
                let bits = 1 + random.below(255) as u8;
                state.rot(path, at, &[bits])
            }
            Rot::Sector => {
                let mut bits = [0; SECTOR];
                random.fill(&mut bits);
                state.rot(path, at - at % sector, &bits)
            }
        }
    }

    /// How many operations of a kind there were, failed ones included.
    #[must_use]
    pub fn count(&self, op: Op) -> u64 {
        self.state().counts.get(&op).copied().unwrap_or(0)
    }

    fn opened(&self, index: usize, access: Access) -> Arc<dyn File> {
        Arc::new(SimFile { disk: self.clone(), index, access })
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        others_run();
        let mut state = self.state();
        state.meet(Op::CreateDir)?;
        match state.live.get(dir) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => {
                state.change(dir, Change::Add(dir.to_owned(), Node::Dir));
                Ok(())
            }
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        others_run();
        let mut state = self.state();
        state.meet(Op::List)?;
        state.dir(dir)?;
        let below = state.live.iter().filter(|(path, _)| parent(path) == dir);
        Ok(below
            .map(|(path, node)| Entry {
                name: path.rsplit('/').next().unwrap_or(path).to_owned(),
                bytes: match node {
                    Node::File(index) => state.files[*index].live.len() as u64,
                    Node::Dir => 0,
                },
                regular: *node != Node::Dir,
            })
            .collect())
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        others_run();
        let mut state = self.state();
        state.meet(Op::Create)?;
        state.dir(parent(path))?;
        if state.live.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let index = state.add_file();
        state.change(path, Change::Add(path.to_owned(), Node::File(index)));
        Ok(self.opened(index, Access::Write))
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        others_run();
        let mut state = self.state();
        state.meet(Op::Open)?;
        let index = state.file(path)?;
        Ok(self.opened(index, access))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        others_run();
        let mut state = self.state();
        state.meet(Op::Rename)?;
        state.file(from)?;
        if parent(from) != parent(to) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        state.change(from, Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        others_run();
        let mut state = self.state();
        state.meet(Op::Remove)?;
        state.file(path)?;
        state.change(path, Change::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        others_run();
        self.state().sync_dir(dir)
    }

    fn block_bytes(&self) -> u32 {
        self.state().block
    }

    fn lock(&self) -> io::Result<Arc<dyn Lock>> {
        others_run();
        let mut state = self.state();
        state.powered()?;
        if state.locked || !broken!(OpensBeforeStragglers) && state.straggles() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked = true;
        Ok(Arc::new(SimLock(self.clone())))
    }

    fn queue(
        &self,
        lock: &Arc<dyn Lock>,
        _: usize,
        method: SyncMethod,
    ) -> io::Result<Box<dyn Queue>> {
        Ok(Box::new(SimQueue::new(self.clone(), Arc::clone(lock), method)))
    }

    fn probe(&self) -> io::Result<SyncMethod> {
        Ok(SyncMethod::WriteDsync)
    }

    fn backend(&self) -> &'static str {
        "sim"
    }
}

/// Each operation takes time, in which other threads of a host may run.
fn others_run() {
    #[cfg(feature = "internals")]
    crate::sync::host::step("disk");
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("counts", &self.state().counts).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct SimLock(SimDisk);

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.state().locked = false;
    }
}
