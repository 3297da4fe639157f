//! A word that any number of threads sleep on, and that wakes them all with one system call.
//!
//! A waiter registers, looks at what it waits for, and sleeps only if the word has not changed since it registered. A
//! waker makes the condition true, fences, and touches the word only if somebody is registered. The fences pair: either
//! the waker sees the registration, or the waiter's look sees the condition.

use std::time::Duration;

use crate::sync::atomic::{AtomicU32, Ordering, fence};

/// See the module.
#[derive(Debug)]
pub struct WakeWord {
    word: AtomicU32,
    waiters: AtomicU32,
    sleep: sleep::Sleep,
}

/// A registration, to be ended by [`Registration::sleep`] or dropped.
#[derive(Debug)]
pub struct Registration<'w> {
    word: &'w WakeWord,
    seen: u32,
}

impl WakeWord {
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) const fn new() -> WakeWord {
        WakeWord { word: AtomicU32::new(0), waiters: AtomicU32::new(0), sleep: sleep::Sleep::new() }
    }

    /// A word that nobody sleeps on.
    #[cfg(any(loom, shuttle))]
    #[allow(clippy::new_without_default)]
    pub fn new() -> WakeWord {
        WakeWord { word: AtomicU32::new(0), waiters: AtomicU32::new(0), sleep: sleep::Sleep::new() }
    }

    /// Before the look at the condition.
    pub fn register(&self) -> Registration<'_> {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        if !broken!(RegistersUnfenced) {
            fence(Ordering::SeqCst);
        }
        // Acquire: pairs with the fence in `wake_all`. A word that has changed already won't change again for the same
        // condition, so the look must see the condition then.
        let acquire = ordering!(Acquire, unless RegistersRelaxed);
        Registration { word: self, seen: self.word.load(acquire) }
    }

    /// Wakes every registered waiter. The condition has been made true before.
    pub fn wake_all(&self) {
        if !broken!(WakesUnfenced) {
            fence(Ordering::SeqCst);
        }
        if self.waiters.load(Ordering::Relaxed) > 0 {
            self.sleep.change(|| self.word.fetch_add(1, Ordering::Relaxed));
            self.sleep.wake_all(&self.word);
        }
    }
}

impl Registration<'_> {
    /// Sleeps until woken after the registration, or the time is over, or for no reason.
    pub fn sleep(self, limit: Option<Duration>) {
        #[cfg(all(feature = "internals", not(loom)))]
        if let Some(host) = super::host::current() {
            let woken = || self.word.word.load(Ordering::Relaxed) != self.seen;
            return host.wait(&woken, limit);
        }
        self.word.sleep.wait(&self.word.word, self.seen, limit);
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        // A model that has failed takes its threads down where they stand.
        #[cfg(loom)]
        if std::thread::panicking() {
            return;
        }
        self.word.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
mod sleep {
    use super::{AtomicU32, Duration};

    #[derive(Debug)]
    pub(super) struct Sleep;

    impl Sleep {
        pub(super) const fn new() -> Sleep {
            Sleep
        }

        pub(super) fn change(&self, change: impl FnOnce() -> u32) {
            change();
        }

        pub(super) fn wait(&self, word: &AtomicU32, seen: u32, limit: Option<Duration>) {
            let limit = limit.map(|limit| libc::timespec {
                tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
                tv_nsec: limit.subsec_nanos().into(),
            });
            let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            // SAFETY: the word is alive for the call; a futex call reads it and the time alone. Any error (a changed
            // word, a signal, the time being over) is an early end, which the contract allows.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    word.as_ptr(),
                    libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                    seen,
                    limit,
                );
            }
        }

        pub(super) fn wake_all(&self, word: &AtomicU32) {
            // SAFETY: as above; the call does not touch the word.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    word.as_ptr(),
                    libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                    i32::MAX,
                );
            }
        }
    }
}

/// Where the system has no such word: a lock that is held for a comparison alone.
#[cfg(any(not(target_os = "linux"), loom, shuttle))]
mod sleep {
    use super::{AtomicU32, Duration, Ordering};
    #[cfg(loom)]
    use loom::sync::{Condvar, Mutex};
    #[cfg(shuttle)]
    use shuttle::sync::{Condvar, Mutex, PoisonError};
    #[cfg(not(any(loom, shuttle)))]
    use std::sync::{Condvar, Mutex, PoisonError};

    #[derive(Debug)]
    pub(super) struct Sleep {
        lock: Mutex<()>,
        changed: Condvar,
    }

    impl Sleep {
        #[cfg(not(any(loom, shuttle)))]
        pub(super) const fn new() -> Sleep {
            Sleep { lock: Mutex::new(()), changed: Condvar::new() }
        }

        #[cfg(any(loom, shuttle))]
        pub(super) fn new() -> Sleep {
            Sleep { lock: Mutex::new(()), changed: Condvar::new() }
        }

        pub(super) fn change(&self, change: impl FnOnce() -> u32) {
            #[cfg(not(loom))]
            let _held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            #[cfg(loom)]
            let _held = self.lock.lock().unwrap();
            change();
        }

        #[cfg(not(loom))]
        pub(super) fn wait(&self, word: &AtomicU32, seen: u32, limit: Option<Duration>) {
            let held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            if word.load(Ordering::Relaxed) == seen {
                let limit = limit.unwrap_or(Duration::from_secs(3600));
                drop(self.changed.wait_timeout(held, limit));
            }
        }

        #[cfg(loom)]
        pub(super) fn wait(&self, word: &AtomicU32, seen: u32, _limit: Option<Duration>) {
            let mut held = self.lock.lock().unwrap();
            while word.load(Ordering::Relaxed) == seen {
                held = self.changed.wait(held).unwrap();
            }
        }

        pub(super) fn wake_all(&self, _word: &AtomicU32) {
            self.changed.notify_all();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::time::Instant;

    #[test]
    fn a_sleeper_is_woken_and_a_wait_ends_with_its_time() {
        static WORD: WakeWord = WakeWord::new();
        static READY: AtomicBool = AtomicBool::new(false);
        let sleeper = std::thread::spawn(|| {
            while !READY.load(Ordering::Acquire) {
                let registration = WORD.register();
                if READY.load(Ordering::Acquire) {
                    break;
                }
                registration.sleep(None);
            }
        });
        std::thread::sleep(Duration::from_millis(20));
        READY.store(true, Ordering::Release);
        WORD.wake_all();
        sleeper.join().unwrap();

        let start = Instant::now();
        WORD.register().sleep(Some(Duration::from_millis(10)));
        assert!(start.elapsed() >= Duration::from_millis(9));
        assert_eq!(WORD.waiters.load(Ordering::Relaxed), 0);
    }
}
