//! Spent requests, to be used again.
//!
//! The log writer puts them on a rack in batches, and a caller that has none takes a whole batch. Allocating on one core
//! and freeing on another, once a write, would make the system allocator's lock the bottleneck.
//!
//! A hook of the rack is empty or holds a batch, and both sides exchange it whole, so nothing is ever looked into
//! that another thread may take. The rack belongs to the process: a request is not tied to a store.

use std::cell::RefCell;

use crossbeam_utils::CachePadded;

use super::cells;
use super::request::{Kind, Payload, Plan, Request, Taken};
use crate::format::RecordEncoder;
use crate::reserve::write::Write;
use crate::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use crate::sync::{prefetch, thread_local};

/// How many requests hang together. Few in schedules that are drawn, which are short.
pub(crate) const BATCH: usize = if cfg!(shuttle) { 2 } else { 256 };
const HOOKS: usize = if cfg!(shuttle) { 2 } else { 256 };
/// A request that holds more memory than this is not kept.
const KEPT_BYTES_MAX: usize = 4 << 10;

type Batch = Vec<Box<Request>>;

struct Rack {
    hooks: [AtomicPtr<Batch>; HOOKS],
    /// Where the last batch was hung; a hint.
    newest: CachePadded<AtomicUsize>,
    /// About how many hang there; a hint.
    hung: CachePadded<AtomicUsize>,
}

/// Batches of spent requests, from log writers to callers.
#[cfg(not(shuttle))]
static SPENT: Rack = Rack::new();
/// The emptied batches, back again, so that neither side needs memory in the steady state.
#[cfg(not(shuttle))]
static EMPTIED: Rack = Rack::new();
#[cfg(shuttle)]
crate::sync::lazy_static! {
    static ref SPENT: Rack = Rack::new();
    static ref EMPTIED: Rack = Rack::new();
}

thread_local! {
    static SPARE: RefCell<Option<Box<Batch>>> = const { RefCell::new(None) };
}

impl Rack {
    const fn new() -> Rack {
        Rack {
            hooks: [const { AtomicPtr::new(std::ptr::null_mut()) }; HOOKS],
            newest: CachePadded::new(AtomicUsize::new(0)),
            hung: CachePadded::new(AtomicUsize::new(0)),
        }
    }

    /// Hangs a batch up, or gives it back if every hook is taken.
    fn hang(&self, batch: Box<Batch>) -> Option<Box<Batch>> {
        let raw = Box::into_raw(batch);
        let newest = self.newest.load(Ordering::Relaxed);
        for step in 0..HOOKS {
            let at = (newest + step) % HOOKS;
            // Release: pairs with the Acquire in `take`.
            if self.hooks[at]
                .compare_exchange(std::ptr::null_mut(), raw, Ordering::Release, Ordering::Relaxed)
                .is_ok()
            {
                self.newest.store(at, Ordering::Relaxed);
                self.hung.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
        // SAFETY: it comes from `into_raw` above and hangs nowhere.
        Some(unsafe { Box::from_raw(raw) })
    }

    fn take(&self) -> Option<Box<Batch>> {
        if self.hung.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let newest = self.newest.load(Ordering::Relaxed);
        for step in 0..HOOKS {
            let hook = &self.hooks[(newest + HOOKS - step) % HOOKS];
            if hook.load(Ordering::Relaxed).is_null() {
                continue;
            }
            let raw = hook.swap(std::ptr::null_mut(), Ordering::Acquire);
            if !raw.is_null() {
                self.hung.fetch_sub(1, Ordering::Relaxed);
                // SAFETY: what hangs on a hook comes from `into_raw`, and the swap made it ours alone.
                return Some(unsafe { Box::from_raw(raw) });
            }
        }
        None
    }
}

/// A rack of the process is never dropped. One of a schedule is, with what hangs on it.
#[cfg(shuttle)]
impl Drop for Rack {
    fn drop(&mut self) {
        while self.take().is_some() {}
    }
}

fn fresh() -> Box<Request> {
    Write::new(Payload {
        kind: Kind::Record,
        record: RecordEncoder::new(),
        cell: cells::take(),
        permits: Taken::default(),
        plan: Plan::default(),
    })
}

/// A request, empty and pending, whose cell nobody else holds.
pub(crate) fn take() -> Box<Request> {
    let mut request = SPARE
        .try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.as_ref().is_none_or(|batch| batch.is_empty())
                && let Some(mut batch) = SPENT.take()
            {
                // Oldest first: the newest were just answered, and their callers may still hold the cells.
                batch.reverse();
                if let Some(emptied) = spare.replace(batch) {
                    EMPTIED.hang(emptied);
                }
            }
            let batch = spare.as_mut()?;
            let request = batch.pop();
            // The log writer had them last: what the next call writes is on its way here meanwhile.
            if let Some(next) = batch.last() {
                prefetch::for_writing((&raw const **next).cast(), size_of::<Request>());
            }
            request
        })
        .ok()
        .flatten()
        .unwrap_or_else(fresh);
    request.reset();
    request.payload.kind = Kind::Record;
    request.payload.record.clear();
    request.payload.plan.clear();
    request.payload.permits = Taken::default();
    if !cells::reset(&mut request.payload.cell) {
        // A ticket is kept.
        request.payload.cell = cells::take();
    }
    request
}

/// Takes a request back that was never submitted.
pub(crate) fn give(request: Box<Request>) {
    if too_large(&request) {
        return;
    }
    let _torn_down = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        let batch = spare.get_or_insert_with(|| Box::new(Batch::with_capacity(BATCH)));
        if batch.len() < BATCH {
            batch.push(request);
        }
    });
}

fn too_large(request: &Request) -> bool {
    request.payload.record.memory_bytes() > KEPT_BYTES_MAX
}

/// The log writer's side: gathers spent requests and hangs them up by the batch.
#[derive(Debug)]
pub(crate) struct Returns {
    batch: Box<Batch>,
}

impl Returns {
    pub(crate) fn new() -> Returns {
        Returns { batch: Box::new(Batch::with_capacity(BATCH)) }
    }

    pub(crate) fn give(&mut self, request: Box<Request>) {
        if too_large(&request) {
            return;
        }
        self.batch.push(request);
        if self.batch.len() == BATCH {
            let empty = EMPTIED.take().unwrap_or_else(|| Box::new(Batch::with_capacity(BATCH)));
            let full = std::mem::replace(&mut self.batch, empty);
            if let Some(mut refused) = SPENT.hang(full) {
                refused.clear();
                EMPTIED.hang(refused);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use triomphe::Arc;

    use super::*;

    #[test]
    fn what_is_given_back_comes_again_empty() {
        let mut request = take();
        request.payload.permits = Taken { bytes: 7, blocks: 1 };
        let kept = Arc::clone(&request.payload.cell);
        let address = &raw const *request;
        give(request);
        let again = take();
        assert!(std::ptr::eq(address, &raw const *again));
        assert_eq!(again.payload.permits, Taken::default());
        assert!(!Arc::ptr_eq(&kept, &again.payload.cell), "a kept ticket keeps its cell");
    }

    #[test]
    fn a_rack_gives_back_what_it_has_no_hook_for() {
        let rack = Rack::new();
        for _ in 0..HOOKS {
            assert!(rack.hang(Box::new(vec![fresh()])).is_none());
        }
        assert!(rack.hang(Box::new(vec![fresh()])).is_some());
        let mut taken = 0;
        while let Some(batch) = rack.take() {
            taken += batch.len();
        }
        assert_eq!(taken, HOOKS);
    }
}
