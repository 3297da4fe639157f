//! Grace periods: when may memory be used again that other threads may still look at?
//!
//! Whoever follows a pointer out of a slot does it under a [`Guard`]. Whoever has taken such pointers out of every
//! slot notes the [`Domain::epoch`], and uses the memory again when that epoch [has passed](Domain::passed): then
//! every guard that may have seen the pointer is gone. Nobody waits: a thread that is stopped under a guard holds back
//! memory and nothing else.
//!
//! The algorithm is that of K. Fraser, *Practical lock-freedom* (2004), §5.2.3, in the form that crossbeam gives it.
//! It stands here because the log writer must see grace periods go by (a crate's deferred calls do not say when),
//! because it allocates nothing, and because the models run it as it is.
//!
//! 1. A guard announces the epoch it read, then fences.
//! 2. The epoch advances from *e* only if, after a fence, every announced epoch is *e*.
//! 3. What was out of reach when the epoch was *e* is free when the epoch is *e + 2*. A guard announced at *e* or
//!    later either fenced after the pointer was out of reach, and can't have found it, or is announced at *e* or
//!    *e + 1* and holds the epoch below *e + 2*.

use std::marker::PhantomData;
use std::ptr;

use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering, fence};

/// A set of threads and what they may be looking at.
#[derive(Debug)]
pub struct Domain {
    epoch: AtomicU64,
    participants: AtomicPtr<Participant>,
}

/// One thread's announcement. On a line of its own: its owner writes it with every guard.
#[derive(Debug)]
#[repr(align(128))]
struct Participant {
    /// 0, or the announced epoch, doubled, plus 1.
    announced: AtomicU64,
    taken: AtomicBool,
    next: *mut Participant,
}

/// A thread's place in a [`Domain`]. Not `Sync`: one guard at a time.
#[derive(Debug)]
pub struct Member<'d> {
    domain: &'d Domain,
    participant: &'d Participant,
    not_sync: PhantomData<*const ()>,
}

/// While this exists, nothing that was found under it is used again.
#[derive(Debug)]
pub struct Guard<'m> {
    participant: &'m Participant,
    not_send: PhantomData<*const ()>,
}

impl Domain {
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) const fn new() -> Domain {
        Domain { epoch: AtomicU64::new(0), participants: AtomicPtr::new(ptr::null_mut()) }
    }

    /// A domain with nobody in it.
    #[cfg(any(loom, shuttle))]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Domain {
        Domain { epoch: AtomicU64::new(0), participants: AtomicPtr::new(ptr::null_mut()) }
    }

    /// A place for the calling thread: one that another thread has left, or a new one.
    pub fn join(&self) -> Member<'_> {
        let participant = self.vacant().unwrap_or_else(|| self.add());
        Member { domain: self, participant, not_sync: PhantomData }
    }

    fn vacant(&self) -> Option<&Participant> {
        self.each().find(|participant| {
            !participant.taken.load(Ordering::Relaxed)
                // Acquire: pairs with the Release in `Member::drop`; the last owner's announcement is over.
                && participant
                    .taken
                    .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
        })
    }

    fn add(&self) -> &Participant {
        let new = Box::into_raw(Box::new(Participant {
            announced: AtomicU64::new(0),
            taken: AtomicBool::new(true),
            next: ptr::null_mut(),
        }));
        let mut first = self.participants.load(Ordering::Relaxed);
        loop {
            // SAFETY: `new` is not shared before the exchange below succeeds.
            unsafe { (*new).next = first };
            // Release: pairs with the Acquire in `each`, so that `next` is visible.
            match self.participants.compare_exchange_weak(
                first,
                new,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                // SAFETY: participants live as long as the domain.
                Ok(_) => return unsafe { &*new },
                Err(seen) => first = seen,
            }
        }
    }

    fn each(&self) -> impl Iterator<Item = &Participant> {
        let mut next = self.participants.load(Ordering::Acquire);
        std::iter::from_fn(move || {
            // SAFETY: a pointer in the list is null or a participant, which lives as long as the domain.
            let participant = unsafe { next.as_ref() }?;
            next = participant.next;
            Some(participant)
        })
    }

    /// The epoch to note for what is out of reach now.
    pub fn epoch(&self) -> u64 {
        // The fence orders taking the pointer out of reach before reading the epoch (rule 3).
        if !broken!(NotesUnfenced) {
            fence(Ordering::SeqCst);
        }
        self.epoch.load(Ordering::Relaxed)
    }

    /// Moves the epoch on if no guard holds it back, and returns it.
    pub fn advance(&self) -> u64 {
        let epoch = self.epoch.load(Ordering::Relaxed);
        if !broken!(AdvancesUnfenced) {
            fence(Ordering::SeqCst);
        }
        for participant in self.each() {
            let announced = participant.announced.load(Ordering::Relaxed);
            if announced != 0 && announced != epoch << 1 | 1 {
                return epoch;
            }
        }
        // Acquire: pairs with the Release that ends a guard or begins the next one, so that what was read under it was
        // read before the memory is used again.
        if !broken!(AdvancesBlindly) {
            fence(Ordering::Acquire);
        }
        // Release: pairs with the load of whoever goes on from here, which a fence follows, and with the Acquire: whoever
        // learns of an epoch learns of the guards whose end let it come.
        let acquire = ordering!(Acquire, unless LosesRelaxed);
        match self.epoch.compare_exchange(epoch, epoch + 1, Ordering::Release, acquire) {
            Ok(_) => epoch + 1,
            Err(seen) => seen,
        }
    }

    /// Whether what was out of reach at `noted` is free at `now`.
    pub const fn passed(noted: u64, now: u64) -> bool {
        now >= noted + 2
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let mut next = self.participants.load(Ordering::Relaxed);
        while !next.is_null() {
            // SAFETY: members borrow the domain, so none is left; each participant was made by `Box::into_raw`.
            next = unsafe { Box::from_raw(next) }.next;
        }
    }
}

// SAFETY: a participant is reached through atomics alone; `next` is written before it is shared.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl<'d> Member<'d> {
    /// Announces that this thread looks at shared memory. One guard at a time.
    #[inline]
    pub fn pin(&self) -> Guard<'_> {
        let epoch = self.domain.epoch.load(Ordering::Relaxed);
        debug_assert_eq!(
            self.participant.announced.load(Ordering::Relaxed),
            0,
            "a guard in a guard"
        );
        // Release: `advance` may see this instead of the end of the guard before. What was read under that one was read
        // before, then too.
        let release = ordering!(Release, unless AnnouncesRelaxed);
        self.participant.announced.store(epoch << 1 | 1, release);
        // Rule 1: pairs with the fence in `advance`. Either that one sees the announcement, or what follows here
        // sees all that was out of reach before it.
        if !broken!(PinsUnfenced) {
            fence(Ordering::SeqCst);
        }
        Guard { participant: self.participant, not_send: PhantomData }
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.participant.taken.store(false, Ordering::Release);
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.participant.announced.store(0, Ordering::Release);
    }
}

/// The domain of the process, and the calling thread's place in it.
#[cfg(not(loom))]
mod process {
    use super::{Domain, Guard, Member};
    use crate::sync::thread_local;

    #[cfg(not(shuttle))]
    static DOMAIN: Domain = Domain::new();
    #[cfg(shuttle)]
    crate::sync::lazy_static! {
        static ref DOMAIN: Domain = Domain::new();
    }

    thread_local! {
        static MEMBER: Member<'static> = DOMAIN.join();
    }

    /// The domain that every store of the process shares.
    pub fn domain() -> &'static Domain {
        &DOMAIN
    }

    /// Runs `look` under a guard. It must not wait, call foreign code, or do I/O.
    #[inline]
    pub fn pinned<R>(look: impl FnOnce(&Guard<'_>) -> R) -> R {
        // The threads of a host are one of the system's, and each needs a place of its own.
        #[cfg(all(feature = "internals", not(shuttle)))]
        if crate::sync::host::current().is_some() {
            return look(&DOMAIN.join().pin());
        }
        let mut look = Some(look);
        let ran = MEMBER.try_with(|member| look.take().map(|look| look(&member.pin())));
        match (ran, look) {
            (Ok(Some(result)), _) => result,
            // The thread is being torn down: a place for this one call.
            (_, Some(look)) => look(&DOMAIN.join().pin()),
            _ => unreachable!("the closure is taken by the branch that runs it"),
        }
    }
}

#[cfg(not(loom))]
pub use process::{domain, pinned};

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_guard_holds_back_two_epochs_and_its_end_lets_them_go() {
        let domain = Domain::new();
        let member = domain.join();
        let noted = domain.epoch();
        let guard = member.pin();
        for _ in 0..5 {
            domain.advance();
        }
        assert!(!Domain::passed(noted, domain.epoch()));
        drop(guard);
        domain.advance();
        assert!(Domain::passed(noted, domain.advance()));
    }

    #[test]
    fn a_place_that_was_left_is_taken_again() {
        let domain = Domain::new();
        drop(domain.join());
        let one = domain.join();
        let two = domain.join();
        assert_eq!(domain.each().count(), 2);
        assert!(!ptr::eq(one.participant, two.participant));
    }

    #[test]
    fn the_process_guard_runs_its_closure_once() {
        let mut runs = 0;
        let answer = pinned(|_| {
            runs += 1;
            42
        });
        assert_eq!((answer, runs), (42, 1));
    }
}
