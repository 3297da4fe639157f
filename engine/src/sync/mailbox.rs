//! From many threads to one that waits: a channel of the standard library, on which also a [host](super::host)'s threads
//! can wait.

use std::sync::mpsc;

#[cfg(feature = "internals")]
use super::{
    Arc,
    atomic::{AtomicU64, Ordering},
    host,
};

/// The many.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    channel: mpsc::Sender<T>,
    /// How many were sent. Shared with the receiver, and with other senders.
    #[cfg(feature = "internals")]
    sent: Arc<AtomicU64>,
}

/// The one.
#[derive(Debug)]
pub(crate) struct Receiver<T> {
    channel: mpsc::Receiver<T>,
    #[cfg(feature = "internals")]
    sent: Arc<AtomicU64>,
}

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    #[cfg(feature = "internals")]
    let sent = Arc::new(AtomicU64::new(0));
    (
        Sender {
            channel: sender,
            #[cfg(feature = "internals")]
            sent: Arc::clone(&sent),
        },
        Receiver {
            channel: receiver,
            #[cfg(feature = "internals")]
            sent,
        },
    )
}

impl<T> Sender<T> {
    /// Sends something. Nobody may be there any more: then it is given back.
    pub(crate) fn send(&self, something: T) -> Result<(), T> {
        let sent = self.channel.send(something).map_err(|unsent| unsent.0);
        #[cfg(feature = "internals")]
        self.sent.fetch_add(1, Ordering::Release);
        sent
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender {
            channel: self.channel.clone(),
            #[cfg(feature = "internals")]
            sent: Arc::clone(&self.sent),
        }
    }
}

impl<T> Receiver<T> {
    /// Waits for the next; `None` when no sender is left.
    pub(crate) fn next(&self) -> Option<T> {
        #[cfg(feature = "internals")]
        if let Some(host) = host::current() {
            loop {
                let seen = self.sent.load(Ordering::Acquire);
                match self.channel.try_recv() {
                    Ok(next) => return Some(next),
                    Err(mpsc::TryRecvError::Disconnected) => return None,
                    Err(mpsc::TryRecvError::Empty) => {}
                }
                let left = || Arc::strong_count(&self.sent) > 1;
                host.wait(&|| self.sent.load(Ordering::Acquire) != seen || !left(), None);
            }
        }
        self.channel.recv().ok()
    }
}
