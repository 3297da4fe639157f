//! Threads: the system's, or those of a [host](super::host).

use std::io;
#[cfg(feature = "internals")]
use std::sync::TryLockError;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use std::thread::*;

#[cfg(feature = "internals")]
use super::host;

/// A thread that was started by [`start`].
#[derive(Debug)]
pub(crate) struct Started<T>(Kind<T>);

#[derive(Debug)]
enum Kind<T> {
    System(JoinHandle<T>),
    #[cfg(feature = "internals")]
    Hosted(super::Arc<Mutex<Option<Result<T>>>>),
}

/// Starts a thread.
pub(crate) fn start<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Started<T>> {
    #[cfg(feature = "internals")]
    if let Some(host) = host::current() {
        let place = super::Arc::new(Mutex::new(None));
        let result = super::Arc::clone(&place);
        let body = move || {
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(ran);
        };
        host.spawn(&name, Box::new(body))?;
        return Ok(Started(Kind::Hosted(place)));
    }
    Builder::new().name(name).spawn(body).map(|handle| Started(Kind::System(handle)))
}

/// How many threads can run at once.
pub(crate) fn parallelism() -> usize {
    #[cfg(feature = "internals")]
    if host::current().is_some() {
        return 1;
    }
    available_parallelism().map_or(1, usize::from)
}

/// Holds a lock that its holders keep over a wait, so that no thread of a host may sleep for it.
pub(crate) fn hold<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(feature = "internals")]
    if let Some(host) = host::current() {
        loop {
            match lock.try_lock() {
                Ok(held) => return held,
                Err(TryLockError::Poisoned(held)) => return held.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    let free = || !matches!(lock.try_lock(), Err(TryLockError::WouldBlock));
                    host.wait(&free, None);
                }
            }
        }
    }
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Started<T> {
    /// Waits until the thread has ended.
    pub(crate) fn join(self) -> Result<T> {
        match self.0 {
            Kind::System(handle) => handle.join(),
            #[cfg(feature = "internals")]
            Kind::Hosted(place) => loop {
                let take = || place.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(result) = take().take() {
                    return result;
                }
                match host::current() {
                    Some(host) => host.wait(&|| take().is_some(), None),
                    None => return Err(Box::new("its host is gone")),
                }
            },
        }
    }
}
