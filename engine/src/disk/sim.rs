//! A disk in memory that can lose power.
//!
//! *Content.* A file has a live image, which reads show, and a durable one. A write changes the live image and marks
//! its sectors of 512 bytes; a sync makes the marked sectors and the length durable. A flush is written when it is
//! started and durable when it completes. [`SimDisk::crash`] returns the disk after a power cut: each marked sector
//! is kept or lost by itself, and so is the length.
//!
//! *Names.* Creating, renaming and removing are durable after `sync_dir`. A crash keeps, for each directory, the
//! changes up to some point.
//!
//! *Faults.* A [`Fault`] fails the n-th operation of a kind. What a failed sync had to make durable is never made so
//! by a later one that succeeds, as on real systems.
//!
//! *Order.* Completions appear when `wait` or `poll` is called, in the [`Order`] asked for. Everything that is random
//! comes from the seed, so one thread repeats itself exactly.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Condvar, MutexGuard, PoisonError};

use self::image::{Change, Content, Node, Random, State, apply, parent};
use self::queue::SimQueue;
use super::{Access, Disk, Entry, File, Lock, Mapping, Queue, SyncMethod};
use crate::sync::{Arc, Mutex};

mod image;
mod queue;
#[cfg(test)]
mod tests;

/// A kind of operation that can be counted and failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Op {
    /// A flush, or a write through the file.
    Write,
    /// Making a file durable: `sync`, and the second half of a flush.
    Sync,
    /// Creating a file.
    Create,
    /// A read through the file, or mapping it.
    Read,
    /// Making a directory durable.
    SyncDir,
    /// Preparing space, or changing a file's length.
    Prepare,
}

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Which operations it hits.
    pub op: Op,
    /// The first one that it hits, counted from 1 when the fault is planned.
    pub nth: u64,
    /// Whether all later ones are hit too.
    pub lasting: bool,
    /// What the operation returns.
    pub kind: io::ErrorKind,
    /// For a write: half of its sectors are written first.
    pub short: bool,
}

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

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Signalled when a waker is called or the order changes.
    changed: Condvar,
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
        let shared = Shared { state: Mutex::new(state), changed: Condvar::new() };
        Arc::new(SimDisk { shared: Arc::new(shared) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk after a power cut now: what was not durable is kept or lost at random. Its faults, limits and order
    /// are those of a new disk. This one goes on as if nothing had happened.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Arc<SimDisk> {
        SimDisk::of(self.state().after_power_cut(Some(Random::new(seed))))
    }

    /// The disk with nothing but what is durable now.
    #[must_use]
    pub fn clone_durable(&self) -> Arc<SimDisk> {
        SimDisk::of(self.state().after_power_cut(None))
    }

    /// Adds a fault.
    pub fn plan(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Removes every fault: the disk is repaired.
    pub fn repair(&self) {
        self.state().faults.clear();
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

    /// In steps, a `wait` that nothing can end returns at once; else (at first) it sleeps. For tests on one thread.
    pub fn set_stepped(&self, stepped: bool) {
        self.state().stepped = stepped;
    }

    /// Inverts a byte of a file, live and durable: rot.
    pub fn flip(&self, path: &str, offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let file = state.file(path)?;
        let content = &mut state.files[file];
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        *content.live.get_mut(at).ok_or(io::ErrorKind::UnexpectedEof)? ^= 0xFF;
        if let Some(byte) = content.durable.get_mut(at) {
            *byte ^= 0xFF;
        }
        Ok(())
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
        let mut state = self.state();
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
        let state = self.state();
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
        let mut state = self.state();
        state.meet(Op::Create).map_err(|fault| fault.kind)?;
        state.dir(parent(path))?;
        if state.live.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let index = state.files.len();
        state.files.push(Content::default());
        state.change(path, Change::Add(path.to_owned(), Node::File(index)));
        Ok(self.opened(index, Access::Write))
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let index = self.state().file(path)?;
        Ok(self.opened(index, access))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.file(from)?;
        if parent(from) != parent(to) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        state.change(from, Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        state.file(path)?;
        state.change(path, Change::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.state();
        state.dir(dir)?;
        state.meet(Op::SyncDir).map_err(|fault| fault.kind)?;
        let (durable, rest) =
            std::mem::take(&mut state.changes).into_iter().partition(|(of, _)| of == dir);
        state.changes = rest;
        for (_, change) in durable {
            apply(&mut state.durable, &change);
        }
        Ok(())
    }

    fn block_bytes(&self) -> u32 {
        self.state().block
    }

    fn lock(&self) -> io::Result<Arc<dyn Lock>> {
        if std::mem::replace(&mut self.state().locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
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

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    index: usize,
    access: Access,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        match self.access {
            Access::Write => Ok(()),
            Access::Read => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    /// The range of a read that was counted and did not fail.
    fn read<R>(&self, offset: u64, bytes: u64, take: impl FnOnce(&[u8]) -> R) -> io::Result<R> {
        let mut state = self.disk.state();
        state.meet(Op::Read).map_err(|fault| fault.kind)?;
        let range = usize::try_from(offset).ok().zip(usize::try_from(bytes).ok());
        let range = range.and_then(|(from, bytes)| Some(from..from.checked_add(bytes)?));
        let found = range.and_then(|range| state.files[self.index].live.get(range));
        found.map(take).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn grow(&self, bytes: u64, cut: bool) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.disk.state();
        state.meet(Op::Prepare).map_err(|fault| fault.kind)?;
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        state.room(self.index, bytes)?;
        if cut || bytes > state.files[self.index].live.len() {
            state.files[self.index].set_len(bytes);
        }
        Ok(())
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.index].live.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read(offset, buffer.len() as u64, |bytes| buffer.copy_from_slice(bytes))
    }

    fn read_direct_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        self.disk.state().write(self.index, offset, bytes)
    }

    fn prepare(&self, bytes: u64) -> io::Result<()> {
        self.grow(bytes, false)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.grow(bytes, true)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state().sync(self.index, None)
    }

    fn map(&self, bytes: u64) -> io::Result<Mapping> {
        self.read(0, bytes, |bytes| Mapping::Owned(bytes.into()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
