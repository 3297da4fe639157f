//! A simulated queue: what completes, and when.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::image::{self, State};
use super::{Order, SimDisk, SimFile};
use crate::disk::{Completion, File, Flush, Lock, Queue, SyncMethod, Waker};
use crate::sync::{Arc, Mutex, clock};

/// A flush that was written, or not, and is to be made durable.
struct Flying {
    token: u64,
    file: Arc<dyn File>,
    sectors: Range<usize>,
    written: io::Result<()>,
}

pub(super) struct SimQueue {
    method: SyncMethod,
    flying: Vec<Flying>,
    bell: Arc<Bell>,
    _lock: Arc<dyn Lock>,
}

impl SimQueue {
    pub(super) fn new(disk: SimDisk, lock: Arc<dyn Lock>, method: SyncMethod) -> SimQueue {
        let bell = Arc::new(Bell { disk, rung: Mutex::new(false) });
        SimQueue { method, flying: Vec::new(), bell, _lock: lock }
    }

    fn write(&self, flush: &Flush) -> io::Result<()> {
        let Flush { offset, start, bytes, memory, .. } = flush;
        let file: &SimFile =
            flush.file.as_any().downcast_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let mut state = file.disk.state();
        let block = state.block as usize;
        let end = start.checked_add(*bytes).filter(|&end| end <= memory.len());
        let end = end.ok_or(io::ErrorKind::InvalidInput)?;
        let aligned = offset % block as u64 == 0
            && [*start, *bytes, memory.as_ptr() as usize].iter().all(|n| n % block == 0);
        if !aligned || *bytes == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        file.check_writable()?;
        // SAFETY: the range belongs to the flush: nobody writes into it.
        state.write(file.index, *offset, unsafe { memory.slice(*start..end) })
    }

    fn complete(&mut self, index: usize) -> Completion {
        let Flying { token, file, sectors, written } = self.flying.remove(index);
        let result = written.and_then(|()| match file.as_any().downcast_ref::<SimFile>() {
            Some(file) => {
                let part = (self.method == SyncMethod::WriteDsync).then_some(sectors);
                file.disk.state().sync(file.index, part)
            }
            None => Err(io::ErrorKind::InvalidInput.into()),
        });
        Completion { token, result }
    }

    /// Which one completes now; `None` if no more do. `least`: how many have to.
    fn next(&self, done: usize, least: usize) -> Option<usize> {
        let count = self.flying.len();
        let mut state = self.bell.disk.state();
        let State { order, random, .. } = &mut *state;
        match order {
            _ if count == 0 => None,
            Order::Never => None,
            Order::Random if done < least || random.coin() => Some(random.below(count)),
            Order::Random => None,
            _ if done > 0 => None,
            Order::Fifo => Some(0),
            Order::Script(script) => Some(script.pop_front().map_or(0, |index| index % count)),
        }
    }

    fn advance(&mut self, least: usize, completed: &mut Vec<Completion>) -> usize {
        let mut done = 0;
        while let Some(index) = self.next(done, least) {
            completed.push(self.complete(index));
            done += 1;
        }
        done
    }
}

impl Queue for SimQueue {
    fn start(&mut self, flush: Flush) {
        let written = self.write(&flush);
        let Flush { token, file, offset, bytes, .. } = flush;
        let sectors = image::sectors(offset as usize, offset as usize + bytes);
        self.flying.push(Flying { token, file, sectors, written });
    }

    fn poll(&mut self, completed: &mut Vec<Completion>) {
        self.advance(0, completed);
    }

    fn wait(&mut self, limit: Option<Duration>, completed: &mut Vec<Completion>) {
        let deadline = limit.and_then(|limit| clock::now().checked_add(limit));
        loop {
            if self.bell.was_rung() {
                return self.poll(completed);
            }
            if self.advance(1, completed) > 0 || self.bell.sleep(deadline) {
                return;
            }
        }
    }

    fn waker(&self) -> Arc<dyn Waker> {
        Arc::clone(&self.bell) as _
    }
}

impl Drop for SimQueue {
    fn drop(&mut self) {
        // A device that hangs is not waited for: what is in flight stays as uncertain as it is.
        while self.bell.disk.state().order != Order::Never && !self.flying.is_empty() {
            self.complete(0);
        }
    }
}

impl fmt::Debug for SimQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimQueue").field("flying", &self.flying.len()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Bell {
    disk: SimDisk,
    rung: Mutex<bool>,
}

impl Bell {
    fn was_rung(&self) -> bool {
        std::mem::take(&mut *self.rung.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sleeps until something may have changed; whether that is pointless.
    fn sleep(&self, deadline: Option<Instant>) -> bool {
        let state = self.disk.state();
        let rung = *self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stepped || rung {
            return state.stepped;
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(clock::now()));
        if left == Some(Duration::ZERO) {
            return true;
        }
        let left = left.unwrap_or(Duration::from_secs(60));
        #[cfg(feature = "internals")]
        if let Some(host) = crate::sync::host::current() {
            drop(state);
            let rung = || *self.rung.lock().unwrap_or_else(PoisonError::into_inner);
            host.wait(&rung, Some(left));
            return false;
        }
        drop(self.disk.shared.changed.wait_timeout(state, left));
        false
    }
}

impl Waker for Bell {
    fn wake(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        // With the lock, so that a sleeper has either seen the bell or hears this.
        let _state = self.disk.state();
        self.disk.shared.changed.notify_all();
    }
}
