//! Who waits for the log to go on: any number of threads and tasks, woken by a thread that never waits for them.
//!
//! A follower *enlists* its [`Seat`], looks once more at what it waits for, and sleeps or returns. Whoever changes it
//! makes the change visible, [fences](published), and *rings*: it takes the whole list at once and wakes everybody on it.
//! To be woken again is to enlist again. The fences pair: either the ringer sees the seat, or the follower's look sees
//! the change.
//!
//! | word | written by | says |
//! |---|---|---|
//! | `top` | followers push (compare-and-swap); the ringer takes all (swap) | who is listed |
//! | `listed` | its follower sets it before the push, the ringer clears it after the take | whether a push is needed |
//!
//! A seat's `next` belongs to its follower while the seat is not listed, and to the list while it is. So the ringer reads it
//! before it clears `listed`: from then on the follower may push the seat again. It takes the waker after that: a follower
//! that still saw `listed` has registered its waker before, and the swap tells so.
//!
//! A follower that is stopped between any two steps misses its own wake-up and nobody else's. So it never takes a list
//! itself: a seat that it leaves listed goes with the next ring. A list that is rarely rung gets its ring from another one
//! that is rung more often: some of those who leave sit down there for it.

use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::sync::atomic::{AtomicBool, AtomicPtr, Ordering, fence};
use crate::sync::wake_word::{Registration, WakeWord};
use crate::sync::waker::AtomicWaker;
use crate::sync::{UnsafeCell, clock};

/// How many leave a list before one of them has it rung, on average.
#[cfg(not(loom))]
const LEAVES_PER_RING: u64 = 64;

/// What wakes one follower, which may sit in several lists.
#[derive(Debug)]
pub struct Bell {
    word: WakeWord,
    waker: AtomicWaker,
}

/// A follower's place in one list.
#[derive(Debug)]
pub struct Seat {
    listed: AtomicBool,
    next: UnsafeCell<*mut Seat>,
    bell: Arc<Bell>,
    /// A list that is to be rung with this seat.
    with: Option<NonNull<Followers>>,
}

// SAFETY: `with` is shared as a reference would be. `next` is accessed by one thread at a time, each after the other by way
// of `listed` and `top`: see the module.
unsafe impl Send for Seat {}
// SAFETY: as above.
unsafe impl Sync for Seat {}

/// A list of followers.
#[derive(Debug)]
pub struct Followers {
    top: AtomicPtr<Seat>,
}

impl Bell {
    /// A bell that nobody waits for.
    #[allow(clippy::new_without_default, reason = "a bell is made by a follower, never by default")]
    pub fn new() -> Bell {
        Bell { word: WakeWord::new(), waker: AtomicWaker::new() }
    }

    /// Task: has this waker called by the next ring of a list that a seat of this bell is enlisted in afterwards.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Thread: to be done before enlisting; then look, then sleep on what this returns.
    pub fn listen(&self) -> Registration<'_> {
        self.word.register()
    }

    /// Task: has no waker called any more, and keeps none.
    pub fn hush(&self) {
        drop(self.waker.take());
    }

    fn ring(&self) -> Option<Waker> {
        self.word.wake_all();
        self.waker.take()
    }
}

impl Seat {
    /// A seat that is not listed.
    pub fn new(bell: &Arc<Bell>) -> Arc<Seat> {
        Arc::new(Seat {
            listed: AtomicBool::new(false),
            next: UnsafeCell::new(ptr::null_mut()),
            bell: Arc::clone(bell),
            with: None,
        })
    }

    /// Whether a list has it, as far as this thread knows.
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }
}

/// Before a ring: what was changed is visible to whoever enlists from now on. One fence serves the rings of many lists.
#[inline]
pub fn published() {
    if !broken!(RingsFollowersUnfenced) {
        fence(Ordering::SeqCst);
    }
}

impl Followers {
    /// Nobody.
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) const fn new() -> Followers {
        Followers { top: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Nobody.
    #[cfg(any(loom, shuttle))]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Followers {
        Followers { top: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Follower: its seat is rung by the next [`Followers::ring`]. A seat belongs to one list. The look at what is waited
    /// for comes after.
    pub fn enlist(&self, seat: &Arc<Seat>) {
        // AcqRel: pairs with the swap in `take`. Whoever finds the seat not listed comes after the ringer that read `next`;
        // whoever finds it still listed has registered before the ringer takes the waker.
        if !seat.listed.swap(true, ordering!(AcqRel, unless ListsRelaxed)) {
            let raw = Arc::into_raw(Arc::clone(seat)).cast_mut();
            let mut top = self.top.load(Ordering::Relaxed);
            loop {
                // SAFETY: we set `listed`, so the seat is ours until it is pushed.
                seat.next.with_mut(|next| unsafe { *next = top });
                // Release: pairs with the Acquire in `take`: the seat is visible before its address.
                match self.top.compare_exchange_weak(top, raw, Ordering::Release, Ordering::Relaxed)
                {
                    Ok(_) => break,
                    Err(seen) => top = seen,
                }
            }
        }
        if !broken!(EnlistsUnfenced) {
            fence(Ordering::SeqCst);
        }
    }

    /// Whether anybody is listed, as far as this thread knows.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.top.load(Ordering::Relaxed).is_null()
    }

    /// Ringer, after [`published`]: wakes the threads on the list, empties it, and hands out the wakers of the tasks:
    /// they are foreign code.
    #[inline]
    pub fn ring(&self, wakers: &mut Vec<Waker>) {
        if !self.is_empty() {
            self.ring_listed(wakers);
        }
    }

    /// Follower: leaves its seat for good. If that is listed, it stays until the next ring, which may never come; so one
    /// such leave in [`LEAVES_PER_RING`], drawn at random, has this list rung with the next ring of `often`.
    ///
    /// # Safety
    ///
    /// This list is alive whenever `often` is rung.
    #[cfg(not(loom))]
    pub(crate) unsafe fn leave(&self, seat: &Seat, often: &Followers) {
        if seat.is_listed() && crate::sync::backoff::draw().is_multiple_of(LEAVES_PER_RING) {
            let gone = Seat {
                listed: AtomicBool::new(false),
                next: UnsafeCell::new(ptr::null_mut()),
                bell: Arc::new(Bell::new()),
                with: Some(NonNull::from(self)),
            };
            often.enlist(&Arc::new(gone));
        }
    }

    #[cold]
    fn ring_listed(&self, wakers: &mut Vec<Waker>) {
        for seat in self.take() {
            wakers.extend(seat.bell.ring());
            if let Some(list) = seat.with {
                // SAFETY: whoever left the seat here has promised that it is alive.
                unsafe { list.as_ref() }.ring(wakers);
            }
        }
    }

    fn take(&self) -> impl Iterator<Item = Arc<Seat>> + use<> {
        let mut next = self.top.swap(ptr::null_mut(), Ordering::Acquire);
        std::iter::from_fn(move || {
            if next.is_null() {
                return None;
            }
            // SAFETY: what is on the list comes from `into_raw` in `enlist`, and the swap made it ours alone.
            let seat = unsafe { Arc::from_raw(next.cast_const()) };
            if broken!(ClearsFirst) {
                seat.listed.swap(false, Ordering::AcqRel);
            }
            // SAFETY: the seat was on the list, and is ours until `listed` is cleared.
            next = seat.next.with(|next| unsafe { *next });
            // AcqRel: pairs with the swap in `enlist`.
            seat.listed.swap(false, ordering!(AcqRel, unless ListsRelaxed));
            Some(seat)
        })
    }
}

impl Drop for Followers {
    fn drop(&mut self) {
        self.take().for_each(drop);
    }
}

/// Waits until `look` finds something, or the time is over.
pub fn wait<R>(
    bell: &Bell,
    deadline: Option<std::time::Instant>,
    enlist: impl Fn(),
    mut look: impl FnMut() -> Option<R>,
) -> Option<R> {
    loop {
        let listening = bell.listen();
        enlist();
        if let Some(found) = look() {
            return Some(found);
        }
        let limit = match deadline {
            None => None,
            Some(deadline) => match deadline.checked_duration_since(clock::now()) {
                None | Some(Duration::ZERO) => return None,
                left => left,
            },
        };
        listening.sleep(limit);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::time::Instant;

    #[test]
    fn everybody_who_is_listed_is_woken_once() {
        let list = Followers::new();
        let bells: Vec<_> = (0..3).map(|_| Arc::new(Bell::new())).collect();
        let seats: Vec<_> = bells.iter().map(Seat::new).collect();
        for (bell, seat) in bells.iter().zip(&seats) {
            bell.register(Waker::noop());
            list.enlist(seat);
            list.enlist(seat);
        }
        published();
        let mut wakers = Vec::new();
        list.ring(&mut wakers);
        assert_eq!(wakers.len(), 3);
        list.ring(&mut wakers);
        assert_eq!(wakers.len(), 3, "who is woken is not listed any more");
        bells[1].register(Waker::noop());
        list.enlist(&seats[1]);
        list.ring(&mut wakers);
        assert_eq!(wakers.len(), 4);
    }

    #[test]
    fn a_seat_that_is_left_is_freed_with_its_list() {
        let bell = Arc::new(Bell::new());
        let list = Followers::new();
        let seat = Seat::new(&bell);
        list.enlist(&seat);
        drop(seat);
        assert_eq!(Arc::strong_count(&bell), 2);
        drop(list);
        assert_eq!(Arc::strong_count(&bell), 1);
    }

    #[test]
    fn those_who_left_go_with_the_next_ring_of_the_other_list() {
        let (list, often) = (Followers::new(), Followers::new());
        let living = Arc::new(Bell::new());
        living.register(Waker::noop());
        list.enlist(&Seat::new(&living));
        let mut gone = Vec::new();
        for _ in 0..(if cfg!(miri) { 1_000 } else { 20_000 }) {
            let bell = Arc::new(Bell::new());
            let seat = Seat::new(&bell);
            // SAFETY: both lists live to the end of the test.
            unsafe { list.leave(&seat, &often) };
            list.enlist(&seat);
            // SAFETY: as above.
            unsafe { list.leave(&seat, &often) };
            gone.push(Arc::downgrade(&bell));
        }
        let kept = || gone.iter().filter(|bell| bell.strong_count() > 0).count();
        assert_eq!(kept(), gone.len(), "nobody who leaves takes the list");
        let mut wakers = Vec::new();
        often.ring(&mut wakers);
        assert_eq!((kept(), wakers.len()), (0, 1), "the living are woken for nothing");
        assert!(often.is_empty() && list.is_empty());
    }

    #[test]
    fn a_bell_that_is_hushed_keeps_no_waker() {
        let (bell, list) = (Arc::new(Bell::new()), Followers::new());
        let seat = Seat::new(&bell);
        bell.register(Waker::noop());
        list.enlist(&seat);
        bell.hush();
        let mut wakers = Vec::new();
        list.ring(&mut wakers);
        assert!(wakers.is_empty() && !seat.is_listed());
    }

    #[test]
    fn a_thread_waits_for_what_is_published_and_no_longer_than_it_said() {
        static LIST: Followers = Followers::new();
        static NEWEST: AtomicU64 = AtomicU64::new(0);
        let follower = std::thread::spawn(|| {
            let bell = Arc::new(Bell::new());
            let seat = Seat::new(&bell);
            let mut given = 0;
            while given < 1000 {
                let newest = wait(
                    &bell,
                    None,
                    || LIST.enlist(&seat),
                    || Some(NEWEST.load(Ordering::Acquire)).filter(|newest| *newest > given),
                );
                given = newest.unwrap();
            }
        });
        for newest in 1..=1000 {
            NEWEST.store(newest, Ordering::Release);
            published();
            LIST.ring(&mut Vec::new());
        }
        follower.join().unwrap();

        let (bell, start) = (Bell::new(), Instant::now());
        let deadline = start + Duration::from_millis(10);
        assert_eq!(wait(&bell, Some(deadline), || {}, || None::<()>), None);
        assert!(start.elapsed() >= Duration::from_millis(10));
    }
}
