//! Waiting for what is read: on a thread, with a time, or as a task.
//!
//! A [`Source`] reads what there is and never waits. A [`Follower`] has a bell, and a seat in each list that rings when there
//! may be more. It enlists, lets the source look once more, and only then sleeps: see [`crate::sync::followers`].

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::log::catalogue::Catalogue;
use crate::read::Slot;
use crate::sync::clock;
use crate::sync::followers::{self, Bell, Followers, Seat};

/// How many records a source passes over before it lets its caller look at the clock.
pub(super) const RECORDS_AT_ONCE: usize = 4096;

/// What a source came to.
#[derive(Debug)]
pub(super) enum Step<T> {
    /// The next item.
    Item(T),
    /// None yet, and there is more to read.
    More,
    /// None until a list rings.
    Nothing,
    /// None any more.
    Ended,
}

impl<T> Step<T> {
    /// The same with another item.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Step<U> {
        match self {
            Step::Item(item) => Step::Item(change(item)),
            Step::More => Step::More,
            Step::Nothing => Step::Nothing,
            Step::Ended => Step::Ended,
        }
    }
}

/// What a follower follows.
pub(super) trait Source {
    type Item;

    /// Reads on, without waiting.
    fn step(&mut self) -> Step<Self::Item>;

    /// Whether every further step is [`Step::Ended`].
    fn is_ended(&self) -> bool;
}

/// A list that a follower sits in.
pub(super) enum List {
    /// Of those who wait for the watermark.
    Log(Arc<Catalogue>),
    /// Of those who wait for a slot.
    Slot(Slot),
}

/// See the module.
pub(super) struct Follower {
    bell: Arc<Bell>,
    seats: Vec<(List, Arc<Seat>)>,
}

impl List {
    fn followers(&self) -> &Followers {
        match self {
            List::Log(catalogue) => &catalogue.following().followers,
            List::Slot(Slot { slot, .. }) => &slot.watchers,
        }
    }
}

impl Follower {
    pub(super) fn new(lists: impl IntoIterator<Item = List>) -> Follower {
        let bell = Arc::new(Bell::new());
        let seats = lists.into_iter().map(|list| (list, Seat::new(&bell))).collect();
        Follower { bell, seats }
    }

    /// The next item, waited for until the deadline, if there is one.
    pub(super) fn wait<S: Source>(
        &self,
        source: &mut S,
        deadline: Option<Instant>,
    ) -> Option<S::Item> {
        let mut step = source.step();
        loop {
            step = match step {
                Step::Item(item) => return Some(item),
                Step::Ended => return None,
                Step::More if deadline.is_some_and(|deadline| deadline <= clock::now()) => {
                    return None;
                }
                Step::More => source.step(),
                Step::Nothing => {
                    let look = || match source.step() {
                        Step::Nothing => None,
                        step => Some(step),
                    };
                    followers::wait(&self.bell, deadline, || self.enlist(), look)?
                }
            }
        }
    }

    /// As a task: has its waker called when there may be an item.
    pub(super) fn poll<S: Source>(
        &self,
        source: &mut S,
        context: &Context<'_>,
    ) -> Poll<Option<S::Item>> {
        let mut step = source.step();
        if let Step::Nothing = step {
            self.bell.register(context.waker());
            self.enlist();
            step = source.step();
        }
        match step {
            Step::Item(item) => Poll::Ready(Some(item)),
            Step::Ended => Poll::Ready(None),
            Step::Nothing => Poll::Pending,
            Step::More => {
                // Others on its executor have their turn.
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn enlist(&self) {
        for (list, seat) in &self.seats {
            list.followers().enlist(seat);
        }
    }
}

/// The next item, if there is one without waiting.
pub(super) fn now<S: Source>(source: &mut S) -> Option<S::Item> {
    loop {
        match source.step() {
            Step::Item(item) => return Some(item),
            Step::More => {}
            Step::Nothing | Step::Ended => return None,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.bell.hush();
        for (list, seat) in &self.seats {
            // Who waits for the watermark goes with the next flush anyway.
            if let List::Slot(Slot { slot, log, .. }) = list {
                // SAFETY: the list of the log is rung by the log writer alone, which keeps the index of its slots.
                unsafe { slot.watchers.leave(seat, &log.following().followers) };
            }
        }
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("lists", &self.seats.len()).finish_non_exhaustive()
    }
}

/// The ways to wait for what a type with a `follower` and a `source` gives.
macro_rules! waiting {
    ($type:ty, $item:ty) => {
        impl $type {
            /// The next item, waited for until `limit` is over. `None` if there was none by then, or if there will be
            /// none any more: [`is_ended`](Self::is_ended) tells.
            pub fn next_timeout(&mut self, limit: std::time::Duration) -> Option<$item> {
                // A limit beyond all time is none.
                let deadline = crate::sync::clock::now().checked_add(limit);
                self.follower.wait(&mut self.source, deadline)
            }

            /// The next item if there is one already. It reads on until it finds one or has read all that is durable.
            pub fn try_next(&mut self) -> Option<$item> {
                crate::read::follower::now(&mut self.source)
            }

            /// As a task: the next item, or `None` if there will be none any more. It may be dropped at any moment, by a
            /// time limit for example: what is not given then comes next.
            pub async fn next_async(&mut self) -> Option<$item> {
                let Self { follower, source, .. } = self;
                std::future::poll_fn(move |context| follower.poll(source, context)).await
            }

            /// Whether nothing comes any more, as the last call has found: it gave an error, or the store is closed (or
            /// was opened for reading alone) and everything was given.
            #[must_use]
            pub fn is_ended(&self) -> bool {
                crate::read::follower::Source::is_ended(&self.source)
            }
        }

        /// Waits for each item on its thread. The end comes behind an error, or when the store is closed.
        impl Iterator for $type {
            type Item = $item;

            fn next(&mut self) -> Option<Self::Item> {
                self.follower.wait(&mut self.source, None)
            }
        }

        /// Gives each item to a task, on any executor. The end is the iterator's. It can be polled again after the end.
        impl futures_core::Stream for $type {
            type Item = $item;

            fn poll_next(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Self::Item>> {
                let this = self.get_mut();
                this.follower.poll(&mut this.source, context)
            }
        }
    };
}

pub(super) use waiting;
