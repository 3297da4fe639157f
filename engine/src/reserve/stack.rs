//! Where callers hand their writes to the log writer: a stack that is pushed by anyone and taken whole by one.
//!
//! Every write is pushed *before* its first entry is installed. So whoever finds an entry in a slot, and decides
//! against it, pushes later than that entry's write was pushed: taken in order of submission, every write comes after
//! all that it was decided against.
//!
//! The last take leaves a *closed* mark, and a push that meets it gets its write back.

use std::ptr::{self, NonNull};

use super::write::{Write, WriteRef};
use crate::sync::atomic::{AtomicPtr, Ordering};
use crate::sync::{broken, ordering};

/// See the module.
#[derive(Debug)]
pub struct Stack<P> {
    top: AtomicPtr<Write<P>>,
}

// SAFETY: the stack hands writes from thread to thread, and shares nothing else.
unsafe impl<P: Send + Sync> Send for Stack<P> {}
// SAFETY: as above; all access is through one atomic.
unsafe impl<P: Send + Sync> Sync for Stack<P> {}

/// The address of this is the mark of a closed stack: never a write's.
static CLOSED: u128 = 0;

fn closed<P>() -> *mut Write<P> {
    (&raw const CLOSED).cast_mut().cast()
}

impl<P> Stack<P> {
    /// An empty stack.
    pub fn new() -> Stack<P> {
        Stack { top: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Submits a write. Gets it back if the stack is closed.
    #[inline]
    pub fn push(&self, write: Box<Write<P>>) -> Result<WriteRef<P>, Box<Write<P>>> {
        let raw = Box::into_raw(write);
        // SAFETY: nobody has seen the write yet.
        unsafe { Write::tie(raw) };
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            if ptr::eq(top, closed()) {
                // SAFETY: it comes from `into_raw` above, and nobody has seen it.
                return Err(unsafe { Box::from_raw(raw) });
            }
            // SAFETY: nobody has seen the write yet.
            unsafe { (*raw).next.store(top, Ordering::Relaxed) };
            // Release: pairs with the Acquire in `take`: the write is visible before its address.
            let release = ordering!(Release, unless PushesRelaxed);
            match self.top.compare_exchange_weak(top, raw, release, Ordering::Relaxed) {
                // SAFETY: a box is never null.
                Ok(_) => return Ok(WriteRef(unsafe { NonNull::new_unchecked(raw) })),
                Err(seen) => top = seen,
            }
        }
    }

    /// Whether nothing was pushed since the last take.
    pub fn is_empty(&self) -> bool {
        let top = self.top.load(Ordering::Relaxed);
        top.is_null() || ptr::eq(top, closed())
    }

    /// Log writer: takes everything, in order of submission.
    pub fn take(&self) -> Batch<P> {
        if self.is_empty() {
            return Batch { first: ptr::null_mut() };
        }
        self.swap(ptr::null_mut())
    }

    /// Log writer: takes everything, and refuses what comes later.
    pub fn close(&self) -> Batch<P> {
        self.swap(closed())
    }

    fn swap(&self, new: *mut Write<P>) -> Batch<P> {
        let mut top = self.top.swap(new, Ordering::Acquire);
        if broken!(TakesNewestFirst) && !ptr::eq(top, closed()) {
            return Batch { first: top };
        }
        let mut first = ptr::null_mut();
        while !top.is_null() && !ptr::eq(top, closed()) {
            // SAFETY: a write on the stack is alive until the log writer, which calls this, says that it is spent.
            let next = unsafe { (*top).next.load(Ordering::Relaxed) };
            // SAFETY: as above; `next` belongs to the log writer now.
            unsafe { (*top).next.store(first, Ordering::Relaxed) };
            first = top;
            top = next;
        }
        Batch { first }
    }
}

impl<P> Default for Stack<P> {
    fn default() -> Self {
        Stack::new()
    }
}

/// Writes in order of submission.
#[derive(Debug)]
pub struct Batch<P> {
    first: *mut Write<P>,
}

impl<P> Batch<P> {
    /// No writes.
    pub fn empty() -> Batch<P> {
        Batch { first: ptr::null_mut() }
    }

    /// The first of them, left where it is.
    pub fn peek(&self) -> Option<WriteRef<P>> {
        NonNull::new(self.first).map(WriteRef)
    }

    /// The one behind the first.
    pub fn peek_second(&self) -> Option<WriteRef<P>> {
        // SAFETY: what was taken off the stack is alive as long as the log writer, which has the batch, wants it.
        let first = unsafe { self.peek()?.get() };
        NonNull::new(first.next.load(Ordering::Relaxed)).map(WriteRef)
    }
}

impl<P> Iterator for Batch<P> {
    type Item = WriteRef<P>;

    fn next(&mut self) -> Option<WriteRef<P>> {
        let first = self.peek()?;
        // SAFETY: it was taken off the stack and is the log writer's to hand on.
        self.first = unsafe { first.get() }.next.load(Ordering::Relaxed);
        Some(first)
    }
}

// SAFETY: the batch owns the list it points to.
unsafe impl<P: Send> Send for Batch<P> {}
