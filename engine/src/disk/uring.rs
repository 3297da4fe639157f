//! Flushes by io_uring: one ring for each log writer.
//!
//! *An operation's life.* `start` puts a [`Flush`] in a slot of `operations` and its entry (or its two linked
//! entries, a write and an fdatasync) in the ring. The slot owns file and memory until every entry of it has
//! completed. [`verdict`] then says what happened: durable, a rest to write, or failed. A failed sync is never tried
//! again: the system may have dropped what it could not write, and a second sync would succeed.
//!
//! *Threads.* The ring is created disabled, by whoever opens the store, and enabled by the first call from the log
//! writer's thread, which from then on is the only one that may enter it. Another thread ends a wait by writing to
//! an eventfd, on which the ring always has a read outstanding.
//!
//! *Nothing outlives its owner.* Dropping the queue waits for every entry. If that can't be done, memory and lock are
//! leaked rather than given back while the kernel may use them. The lock file is registered in the ring, so that a
//! killed process keeps the lock as long as its ring can still write. A child made by `fork` sees no ring at all:
//! its mapping is left out, and what would touch it looks at the process first.

use std::fmt;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::sync::Arc;
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};

use super::blocking::in_a_child;
use super::file::RealFile;
use super::lock::RealLock;
use super::ring::{self, Event, Slots};
use super::verdict::{Outcome, Verdict, verdict};
use super::{Chunk, Completion, File, Flush, Queue, SyncMethod, Waker};
use crate::sync::process::Process;
use crate::sync::thread;

/// In the ring's table of files: the lock, which is only kept there, and the eventfd.
const LOCK_SLOT: usize = 0;
const EVENT_SLOT: usize = 1;
/// Then the segments: the one that is written and the one before it.
const FIRST_SEGMENT_SLOT: usize = 2;
const SEGMENT_SLOTS: usize = 2;
/// In the ring's table of buffers: the chunks that flushes come from.
const CHUNK_SLOTS: usize = 4;

/// What marks the eventfd's completion; operations have their slot and a [`Part`].
const WAKE: u64 = u64::MAX;

/// See the top of the file.
pub(super) struct UringQueue {
    ring: ManuallyDrop<IoUring>,
    method: SyncMethod,
    state: State,
    process: Process,
    /// By slot; `None` is free.
    operations: Vec<Option<Operation>>,
    /// Entries given to the ring and not yet completed, the eventfd's included.
    outstanding: usize,
    /// Decoded and not yet acted on.
    arrived: Vec<(u64, i32)>,
    /// Acted on and not yet handed to the caller.
    completed: Vec<Completion>,
    event: Arc<Event>,
    /// Where the ring reads the eventfd's counter into.
    counter: ManuallyDrop<Chunk>,
    /// The eventfd was read since the last wait ended.
    woken: bool,
    segments: Slots<dyn File>,
    /// `None` once the memory-lock limit, or an old kernel, has refused a chunk.
    chunks: Option<Slots<Chunk>>,
    lock: ManuallyDrop<Option<Arc<RealLock>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Not used by the log writer's thread yet.
    Disabled,
    Enabled,
    /// The ring refused to be entered, for this reason (an error number). Nothing is accepted any more.
    Broken(i32),
}

/// A flush in the ring.
struct Operation {
    flush: Flush,
    /// Bytes already written by entries that completed.
    done: usize,
    /// Entries in the ring.
    outstanding: u8,
    /// What the write returned, and the sync if there is one.
    write: i32,
    sync: i32,
    /// Writes in a row that returned nothing.
    stalls: u8,
}

/// Which entry of an operation a completion is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Write = 0,
    Sync = 1,
}

fn user_data(slot: usize, part: Part) -> u64 {
    (slot as u64) << 1 | part as u64
}

impl UringQueue {
    pub(super) fn new(
        lock: Arc<RealLock>,
        depth: usize,
        method: SyncMethod,
    ) -> io::Result<UringQueue> {
        UringQueue::build(Some(lock), depth, method)
    }

    /// Fails if a ring can't be had or does not work here, and says why.
    pub(super) fn trial() -> io::Result<()> {
        let mut queue = UringQueue::build(None, 1, SyncMethod::WriteDsync)?;
        queue.event.wake();
        if queue.ready() {
            queue.enter(1, Some(Duration::from_secs(2)));
            queue.harvest();
        }
        match queue.state {
            State::Broken(error) => Err(io::Error::from_raw_os_error(error)),
            _ if !queue.woken => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    fn build(
        lock: Option<Arc<RealLock>>,
        depth: usize,
        method: SyncMethod,
    ) -> io::Result<UringQueue> {
        let depth = depth.max(1);
        // Room for all that can be outstanding, so that it is never full: a write and a sync for each, and a read.
        let ring = ring::create(depth as u32 * 2 + 1)?;
        let event = Arc::new(Event::new()?);
        let submitter = ring.submitter();
        let mut files = [-1; FIRST_SEGMENT_SLOT + SEGMENT_SLOTS];
        files[LOCK_SLOT] = lock.as_ref().map_or(-1, |lock| lock.descriptor());
        files[EVENT_SLOT] = event.descriptor();
        submitter.register_files(&files)?;
        let chunks = submitter.register_buffers_sparse(CHUNK_SLOTS as u32).is_ok();
        ring::restrict(&ring);
        Ok(UringQueue {
            ring: ManuallyDrop::new(ring),
            method,
            state: State::Disabled,
            process: Process::current(),
            operations: (0..depth).map(|_| None).collect(),
            outstanding: 0,
            arrived: Vec::new(),
            completed: Vec::new(),
            event,
            counter: ManuallyDrop::new(Chunk::new(8)?),
            woken: false,
            segments: Slots::new(SEGMENT_SLOTS),
            chunks: chunks.then(|| Slots::new(CHUNK_SLOTS)),
            lock: ManuallyDrop::new(lock),
        })
    }

    /// Whether the ring can be entered; enables it the first time.
    fn ready(&mut self) -> bool {
        if !self.process.is_current() {
            return false;
        }
        if self.state == State::Disabled {
            match self.ring.submitter().register_enable_rings() {
                Ok(()) => {
                    self.state = State::Enabled;
                    self.arm();
                }
                Err(error) => self.state = State::Broken(error.raw_os_error().unwrap_or(libc::EIO)),
            }
        }
        self.state == State::Enabled
    }

    /// Why `ready` said no.
    fn refusal(&self) -> io::Error {
        match self.state {
            State::Broken(error) => io::Error::from_raw_os_error(error),
            _ => in_a_child(),
        }
    }

    /// Has the ring read the eventfd.
    fn arm(&mut self) {
        let read = opcode::Read::new(Fd(EVENT_SLOT as i32), self.counter.as_ptr(), 8)
            .build()
            .flags(Flags::FIXED_FILE)
            .user_data(WAKE);
        // SAFETY: `counter` and the eventfd live until every entry has completed; see `drop`.
        unsafe { self.push(&[read]) };
    }

    /// Gives an operation's rest to the ring: the one place where entries are built.
    fn submit(&mut self, slot: usize) {
        let Some(Operation { flush, done, .. }) = &self.operations[slot] else { return };
        let file = Arc::clone(&flush.file);
        let memory = Arc::clone(&flush.memory);
        let (at, done) = (flush.start + done, *done);
        let (offset, bytes) = (flush.offset + done as u64, (flush.bytes - done) as u32);
        let Some(real) = file.as_any().downcast_ref::<RealFile>() else {
            return self.finish(slot, Err(io::ErrorKind::InvalidInput.into()));
        };
        let (fd, fixed) = self.target(&file, real);
        // SAFETY: `start` has checked that the range lies in the memory.
        let from = unsafe { memory.as_ptr().add(at) }.cast_const();
        let flags = match self.method {
            SyncMethod::WriteDsync => libc::RWF_DSYNC,
            SyncMethod::WriteThenSync => 0,
        };
        let write = match self.chunk_slot(&memory) {
            Some(buffer) => opcode::WriteFixed::new(fd, from, bytes, buffer)
                .offset(offset)
                .rw_flags(flags)
                .build(),
            None => opcode::Write::new(fd, from, bytes).offset(offset).rw_flags(flags).build(),
        };
        let write = write.flags(fixed).user_data(user_data(slot, Part::Write));
        let sync = opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build();
        let sync = sync.flags(fixed).user_data(user_data(slot, Part::Sync));
        let linked = [write.clone().flags(Flags::IO_LINK), sync];
        let entries = match self.method {
            SyncMethod::WriteDsync => &[write][..],
            SyncMethod::WriteThenSync => &linked[..],
        };
        if let Some(operation) = &mut self.operations[slot] {
            operation.outstanding = entries.len() as u8;
            (operation.write, operation.sync) = (0, 0);
        }
        // SAFETY: the operation in the slot owns the file and the memory, and stays there until every entry has
        // completed; nobody writes into the range of a flush that has not completed.
        unsafe { self.push(entries) };
    }

    /// # Safety
    /// What the entries point to lives until they have completed.
    unsafe fn push(&mut self, entries: &[Entry]) {
        // SAFETY: by the caller's promise.
        match unsafe { self.ring.submission().push_multiple(entries) } {
            Ok(()) => {
                self.outstanding += entries.len();
                self.enter(0, None);
            }
            // There is room for all that can be outstanding: this ring is not the one that was made.
            Err(_) => self.state = State::Broken(libc::EIO),
        }
    }

    /// Submits what is in the ring, and waits for that many completions.
    fn enter(&mut self, want: usize, limit: Option<Duration>) {
        if self.state != State::Enabled {
            return;
        }
        let submitter = self.ring.submitter();
        let entered = match limit {
            None => submitter.submit_and_wait(want),
            Some(limit) => {
                let limit = Timespec::from(limit);
                submitter.submit_with_args(want, &SubmitArgs::new().timespec(&limit))
            }
        };
        let Err(error) = entered else { return };
        match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR) => {}
            // No memory for it just now. What is in the ring stays there and is submitted by the next entry.
            Some(libc::EAGAIN | libc::EBUSY) => thread::yield_now(),
            code => self.state = State::Broken(code.unwrap_or(libc::EIO)),
        }
    }

    /// Takes what has completed out of the ring. Decides nothing.
    fn drain(&mut self) {
        for entry in self.ring.completion() {
            self.arrived.push((entry.user_data(), entry.result()));
        }
        self.outstanding -= self.arrived.len().min(self.outstanding);
    }

    /// Drains the ring, then acts on each completion.
    fn harvest(&mut self) {
        self.drain();
        let mut arrived = mem::take(&mut self.arrived);
        for (data, result) in arrived.drain(..) {
            if data == WAKE {
                match -result {
                    error if error <= 0 || matches!(error, libc::EINTR | libc::EAGAIN) => {
                        self.arm()
                    }
                    error => self.state = State::Broken(error),
                }
                self.woken = true;
                continue;
            }
            let slot = (data >> 1) as usize;
            let Some(operation) = self.operations.get_mut(slot).and_then(Option::as_mut) else {
                continue;
            };
            match data & 1 == Part::Write as u64 {
                true => operation.write = result,
                false => operation.sync = result,
            }
            operation.outstanding = operation.outstanding.saturating_sub(1);
            if operation.outstanding == 0 {
                self.settle(slot);
            }
        }
        self.arrived = arrived;
        if let State::Broken(error) = self.state {
            self.give_up(error);
        }
    }

    fn settle(&mut self, slot: usize) {
        let Some(operation) = &mut self.operations[slot] else { return };
        match judge(operation) {
            Verdict::Durable => self.finish(slot, Ok(())),
            Verdict::Failed(error) => self.finish(slot, Err(error)),
            Verdict::Rest(written) => {
                operation.stalls = if written == 0 { operation.stalls + 1 } else { 0 };
                operation.done += written;
                self.submit(slot);
            }
        }
    }

    fn finish(&mut self, slot: usize, result: io::Result<()>) {
        if let Some(operation) = self.operations[slot].take() {
            self.completed.push(Completion { token: operation.flush.token, result });
        }
    }

    /// Fails what is in flight in a ring that can't be entered. The kernel may still use its memory.
    fn give_up(&mut self, error: i32) {
        for operation in self.operations.iter_mut().filter_map(Option::take) {
            let result = Err(io::Error::from_raw_os_error(error));
            self.completed.push(Completion { token: operation.flush.token, result });
            mem::forget(operation);
        }
    }

    /// The file's place in the ring's table, or its descriptor.
    fn target(&mut self, file: &Arc<dyn File>, real: &RealFile) -> (Fd, Flags) {
        let plain = (Fd(real.flush_descriptor()), Flags::empty());
        let (slot, known) = self.segments.place(file);
        let number = FIRST_SEGMENT_SLOT + slot;
        if !known {
            let update = self.ring.submitter().register_files_update(number as u32, &[plain.0.0]);
            if update.is_err() {
                self.segments.clear(slot);
                return plain;
            }
        }
        (Fd(number as i32), Flags::FIXED_FILE)
    }

    /// The chunk's place in the ring's table, if the memory-lock limit allows.
    fn chunk_slot(&mut self, chunk: &Arc<Chunk>) -> Option<u16> {
        let chunks = self.chunks.as_mut()?;
        let (slot, known) = chunks.place(chunk);
        if !known {
            let memory = libc::iovec { iov_base: chunk.as_ptr().cast(), iov_len: chunk.len() };
            // SAFETY: the memory is valid now, which is when the kernel takes hold of its pages. It keeps them, and
            // is only given addresses in a chunk that is found in the table, which is alive then.
            let update = unsafe {
                self.ring.submitter().register_buffers_update(slot as u32, &[memory], None)
            };
            if let Err(error) = update {
                tracing::info!(%error, "flushes go without registered buffers");
                self.chunks = None;
                return None;
            }
        }
        Some(slot as u16)
    }
}

impl Queue for UringQueue {
    fn start(&mut self, flush: Flush) {
        let inside =
            flush.start.checked_add(flush.bytes).is_some_and(|end| end <= flush.memory.len());
        let sound = inside && u32::try_from(flush.bytes).is_ok();
        let free = self.operations.iter().position(Option::is_none);
        let refusal = match free {
            _ if !self.ready() => Some(self.refusal()),
            None => Some(io::ErrorKind::QuotaExceeded.into()),
            _ if !sound => Some(io::ErrorKind::InvalidInput.into()),
            Some(_) => None,
        };
        match (free, refusal) {
            (Some(slot), None) => {
                let operation =
                    Operation { flush, done: 0, outstanding: 0, write: 0, sync: 0, stalls: 0 };
                self.operations[slot] = Some(operation);
                self.submit(slot);
            }
            (_, refusal) => {
                let error = refusal.unwrap_or_else(|| io::ErrorKind::QuotaExceeded.into());
                self.completed.push(Completion { token: flush.token, result: Err(error) });
            }
        }
    }

    fn poll(&mut self, completed: &mut Vec<Completion>) {
        if self.ready() {
            // The kernel is only entered if it has something to tell, or was too busy to take what it was given.
            let submission = self.ring.submission();
            if submission.taskrun() || submission.cq_overflow() || !submission.is_empty() {
                drop(submission);
                self.enter(0, None);
            }
        }
        if self.process.is_current() {
            self.harvest();
        }
        completed.append(&mut self.completed);
    }

    fn wait(&mut self, limit: Option<Duration>, completed: &mut Vec<Completion>) {
        let before = completed.len();
        self.poll(completed);
        if completed.len() == before && !mem::take(&mut self.woken) {
            if self.ready() {
                self.enter(1, limit);
            } else {
                self.event.wait(limit);
            }
            self.poll(completed);
        }
        self.woken = false;
    }

    fn waker(&self) -> Arc<dyn Waker> {
        Arc::clone(&self.event) as _
    }
}

impl Drop for UringQueue {
    fn drop(&mut self) {
        if !self.process.is_current() {
            // Neither the ring nor the lock is this process's, and its mapping is not here: leaked.
            return;
        }
        // Ends the read of the eventfd.
        self.event.wake();
        while self.outstanding > 0 && self.state == State::Enabled {
            self.enter(1, None);
            self.drain();
            self.arrived.clear();
        }
        // SAFETY: neither is used after this, nor dropped again.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            if self.outstanding == 0 {
                ManuallyDrop::drop(&mut self.counter);
                ManuallyDrop::drop(&mut self.lock);
            }
        }
        if self.outstanding > 0 {
            mem::forget(mem::take(&mut self.operations));
        }
    }
}

impl fmt::Debug for UringQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringQueue")
            .field("state", &self.state)
            .field("method", &self.method)
            .field("outstanding", &self.outstanding)
            .finish_non_exhaustive()
    }
}

/// What an operation whose entries have all completed has come to.
fn judge(operation: &Operation) -> Verdict {
    let Operation { flush, done, write, sync, stalls, .. } = operation;
    // What direct I/O can go on from. The flush is made of blocks, so they divide each of these.
    let block =
        1_usize << (flush.offset | flush.start as u64 | flush.bytes as u64).trailing_zeros();
    let error = |result: i32| io::Error::from_raw_os_error(-result);
    verdict(Outcome {
        wanted: flush.bytes - done,
        block,
        write: usize::try_from(*write).map_err(|_| error(*write)),
        sync: if *sync == 0 { Ok(()) } else { Err(error(*sync)) },
        stalls: *stalls,
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::disk::directory::Directory;
    use crate::disk::verdict::STALLS_MAX;

    struct Rig {
        _root: tempfile::TempDir,
        file: Arc<dyn File>,
        lock: Arc<RealLock>,
    }

    fn rig() -> Rig {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = Arc::new(Directory::open(root.path(), true).unwrap());
        let file = Arc::new(RealFile::create(&dir, "data").unwrap());
        file.prepare(1 << 20).unwrap();
        file.sync().unwrap();
        let lock = Arc::new(RealLock::take(&dir).unwrap());
        Rig { _root: root, file, lock }
    }

    fn a_flush(rig: &Rig) -> Flush {
        let memory = Arc::new(Chunk::new(1 << 16).unwrap());
        let file = Arc::clone(&rig.file);
        Flush { token: 1, file, offset: 8192, memory, start: 4096, bytes: 16384 }
    }

    #[test]
    fn results_of_the_ring_are_judged() {
        let rig = rig();
        let of = |done, write, sync, stalls| {
            judge(&Operation { flush: a_flush(&rig), done, outstanding: 0, write, sync, stalls })
        };
        let rest = |verdict| match verdict {
            Verdict::Rest(written) => written,
            other => panic!("{other:?}"),
        };
        let code = |verdict| match verdict {
            Verdict::Failed(error) => error.raw_os_error().unwrap_or(0),
            other => panic!("{other:?}"),
        };
        assert!(matches!(of(8192, 8192, 0, 0), Verdict::Durable));
        assert_eq!(rest(of(0, 9000, -libc::ECANCELED, 0)), 8192);
        assert_eq!(code(of(8192, 16384, 0, 0)), 0);
        assert_eq!(rest(of(0, -libc::EINTR, -libc::ECANCELED, 0)), 0);
        assert_eq!(code(of(0, -libc::EAGAIN, 0, STALLS_MAX)), libc::EAGAIN);
        assert_eq!(code(of(0, -libc::EIO, -libc::ECANCELED, 0)), libc::EIO);
        assert_eq!(code(of(0, -libc::ENOSPC, 0, 0)), libc::ENOSPC);
        assert_eq!(code(of(0, 16384, -libc::EIO, 0)), libc::EIO);
        assert_eq!(code(of(0, 16384, -libc::EINTR, 0)), libc::EINTR);
        assert_eq!(code(of(0, 16384, -libc::ECANCELED, 0)), libc::ECANCELED);
    }

    #[test]
    fn files_and_the_lock_are_registered() {
        let rig = rig();
        let mut queue =
            UringQueue::new(Arc::clone(&rig.lock), 4, SyncMethod::WriteThenSync).unwrap();
        let flush = a_flush(&rig);
        queue.start(flush);
        let mut completed = Vec::new();
        while completed.is_empty() {
            queue.wait(None, &mut completed);
        }
        completed.remove(0).result.unwrap();
        let real = rig.file.as_any().downcast_ref::<RealFile>().unwrap();
        let (_, flags) = queue.target(&rig.file, real);
        assert_eq!(flags, Flags::FIXED_FILE);
        assert_eq!(queue.segments.place(&rig.file), (0, true));
    }

    #[test]
    fn the_ring_alone_holds_the_lock() {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = Directory::open(root.path(), true).unwrap();
        let lock = Arc::new(RealLock::take(&dir).unwrap());
        let queue = UringQueue::new(Arc::clone(&lock), 4, SyncMethod::WriteDsync).unwrap();
        // As when the process is killed: its descriptors are closed before its ring is gone.
        let other = dir.open_file("other", libc::O_RDWR | libc::O_CREAT).unwrap();
        // SAFETY: both descriptors are open; `lock` then owns another one on `other`.
        assert!(unsafe { libc::dup2(other.as_raw_fd(), lock.descriptor()) } >= 0);
        assert_eq!(RealLock::take(&dir).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(queue);
        RealLock::take(&dir).unwrap();
    }

    #[test]
    fn a_ring_that_can_not_be_entered_fails_what_is_in_flight_and_keeps_the_lock() {
        let rig = rig();
        let mut queue = UringQueue::new(Arc::clone(&rig.lock), 4, SyncMethod::WriteDsync).unwrap();
        let mut completed = Vec::new();
        queue.wait(Some(Duration::from_millis(1)), &mut completed);
        let flush = a_flush(&rig);
        let memory = Arc::downgrade(&flush.memory);
        queue.start(flush);
        queue.state = State::Broken(libc::EBADF);
        queue.start(a_flush(&rig));
        queue.poll(&mut completed);
        assert_eq!(completed.len(), 2, "{completed:?}");
        assert!(completed.iter().all(|completion| completion.result.is_err()));
        // It can still be waited for, and woken.
        queue.waker().wake();
        queue.wait(None, &mut completed);
        drop(queue);
        assert!(memory.upgrade().is_some());
        assert_eq!(Arc::strong_count(&rig.lock), 2);
    }

    #[test]
    fn a_child_touches_neither_the_ring_nor_the_lock() {
        let rig = rig();
        let mut queue = UringQueue::new(Arc::clone(&rig.lock), 4, SyncMethod::WriteDsync).unwrap();
        queue.wait(Some(Duration::from_millis(1)), &mut Vec::new());
        let flush = a_flush(&rig);
        // SAFETY: the child exits without returning; what it allocates is its own copy.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let mut completed = Vec::new();
            queue.start(flush);
            queue.poll(&mut completed);
            let refused = completed.len() == 1 && completed[0].result.is_err();
            drop(queue);
            // SAFETY: as above.
            unsafe { libc::_exit(if refused { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: the child made above.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0);
        queue.start(flush);
        let mut completed = Vec::new();
        while completed.is_empty() {
            queue.wait(None, &mut completed);
        }
        completed.remove(0).result.unwrap();
    }
}
