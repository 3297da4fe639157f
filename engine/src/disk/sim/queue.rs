//! A simulated queue: what completes, and when.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::faults::FaultKind;
use super::file::SimFile;
use super::image::{InFlight, State};
use super::others_run;
use super::{Order, SimDisk};
use crate::disk::verdict::{Outcome, Verdict, verdict};
use crate::disk::{Completion, File, Flush, Lock, Queue, SyncMethod, Waker};
use crate::sync::{Arc, Mutex, clock};

/// A flush that was written, or not, and is to be made durable.
struct Flying {
    token: u64,
    file: Arc<dyn File>,
    range: Range<usize>,
    written: io::Result<()>,
    /// It does not complete before so many looks at the queue, nor before this time.
    due_look: u64,
    due: Duration,
    number: u64,
}

pub(super) struct SimQueue {
    method: SyncMethod,
    flying: Vec<Flying>,
    looks: u64,
    bell: Arc<Bell>,
    _lock: Arc<dyn Lock>,
}

impl SimQueue {
    pub(super) fn new(disk: SimDisk, lock: Arc<dyn Lock>, method: SyncMethod) -> SimQueue {
        let bell = Arc::new(Bell { disk, rung: Mutex::new(false) });
        SimQueue { method, flying: Vec::new(), looks: 0, bell, _lock: lock }
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
        let content = unsafe { memory.slice(*start..end) };
        let (mut done, mut stalls) = (0, 0);
        loop {
            let again = state.strikes(FaultKind::TryAgain);
            let write = match again {
                true => Err(io::ErrorKind::WouldBlock.into()),
                false => state.write(file.index, *offset + done as u64, &content[done..]),
            };
            match verdict(Outcome { wanted: bytes - done, block, write, sync: Ok(()), stalls }) {
                Verdict::Durable => return Ok(()),
                Verdict::Failed(error) => return Err(error),
                Verdict::Rest(0) => stalls += 1,
                Verdict::Rest(written) => (done, stalls) = (done + written, 0),
            }
        }
    }

    fn complete(&mut self, index: usize) -> Completion {
        let Flying { token, file, range, written, number, due_look, .. } =
            self.flying.remove(index);
        let result = written.and_then(|()| {
            let file: &SimFile = file.as_any().downcast_ref().ok_or(io::ErrorKind::InvalidInput)?;
            let mut state = file.disk.state();
            state.flying.retain(|flight| flight.number != number);
            let wanted = range.len();
            let part = (self.method == SyncMethod::WriteDsync).then_some(range);
            let sync = state.sync(file.index, part);
            let block = state.block as usize;
            match verdict(Outcome { wanted, block, write: Ok(wanted), sync, stalls: 0 }) {
                Verdict::Durable => Ok(()),
                Verdict::Failed(error) => Err(error),
                Verdict::Rest(_) => Err(io::ErrorKind::WriteZero.into()),
            }
        });
        let happened = &mut self.bell.disk.state().faults.happened;
        happened.add_many(FaultKind::Reordered, (index > 0).into());
        happened.add_many(FaultKind::LateCompletion, (due_look > 0).into());
        Completion { token, result }
    }

    /// How long until the first of those in flight can complete, if one can.
    fn due(&self) -> Option<Duration> {
        let first = self.flying.iter().map(|flight| flight.due).min()?;
        let state = self.bell.disk.state();
        (state.order != Order::Never).then(|| first.saturating_sub(state.now()))
    }

    /// Which one completes now; `None` if no more do. `least`: how many have to.
    fn next(&self, done: usize, least: usize) -> Option<usize> {
        let mut state = self.bell.disk.state();
        let now = state.now();
        if state.is_off() {
            return (!self.flying.is_empty()).then_some(0);
        }
        let flying = || self.flying.iter().enumerate().filter(|(_, flight)| flight.due <= now);
        let mut due: Vec<usize> = flying()
            .filter(|(_, flight)| flight.due_look <= self.looks)
            .map(|(index, _)| index)
            .collect();
        if due.is_empty() && done < least {
            // Nothing else is there to be looked at.
            due.extend(flying().min_by_key(|(_, flight)| flight.due_look).map(|(index, _)| index));
        }
        let count = due.len();
        let State { order, random, .. } = &mut *state;
        let nth = match order {
            _ if count == 0 => None,
            Order::Never => None,
            Order::Random if done < least || random.coin() => Some(random.below(count)),
            Order::Random => None,
            _ if done > 0 => None,
            Order::Fifo => Some(0),
            Order::Script(script) => Some(script.pop_front().map_or(0, |index| index % count)),
        };
        nth.map(|nth| due[nth])
    }

    fn advance(&mut self, least: usize, completed: &mut Vec<Completion>) -> usize {
        self.looks += 1;
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
        others_run();
        let written = self.write(&flush);
        let Flush { token, file, offset, bytes, .. } = flush;
        let range = offset as usize..offset as usize + bytes;
        let mut state = self.bell.disk.state();
        let number = state.ios;
        let (mut due_look, mut due) = (0, Duration::ZERO);
        if state.draw(FaultKind::LateCompletion) {
            let (looks, time) = state.lateness;
            due_look = self.looks + 1 + state.random.below(looks as usize) as u64;
            due = state.now() + time.mul_f64(state.random.below(1001) as f64 / 1000.0);
        }
        if let (Ok(()), Some(file)) = (&written, file.as_any().downcast_ref::<SimFile>()) {
            let range = range.clone();
            state.flying.push(InFlight { number, file: file.index, range, due });
        }
        drop(state);
        self.flying.push(Flying { token, file, range, written, due_look, due, number });
    }

    fn poll(&mut self, completed: &mut Vec<Completion>) {
        self.advance(0, completed);
    }

    fn wait(&mut self, limit: Option<Duration>, completed: &mut Vec<Completion>) {
        others_run();
        let deadline = limit.and_then(|limit| clock::now().checked_add(limit));
        loop {
            if self.bell.was_rung() {
                return self.poll(completed);
            }
            if self.advance(1, completed) > 0 || self.bell.sleep(deadline, self.due()) {
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
        while !self.bell.disk.hangs() && !self.flying.is_empty() {
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

    /// Sleeps until something may have changed, which it does in `due` at the latest; whether that is pointless.
    fn sleep(&self, deadline: Option<Instant>, due: Option<Duration>) -> bool {
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
            let left = due.map_or(left, |due| left.min(due.max(Duration::from_micros(1))));
            let device = || (self.disk.hangs(), self.disk.is_cut());
            let before = device();
            let rung = || *self.rung.lock().unwrap_or_else(PoisonError::into_inner);
            host.wait(&|| rung() || device() != before, Some(left));
            return false;
        }
        let _only_hosts_need_it = due;
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
