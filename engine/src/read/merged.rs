//! A subscription to all shards at once.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::id::Position;
use crate::read::ReadSide;
use crate::read::filter::Filter;
use crate::read::follower::{Follower, Source, Step, waiting};
use crate::read::recorded::Recorded;
use crate::read::subscription::Events;
use crate::read::trail::Trail;

/// Follows all shards of a store: gives the number of the shard with each event.
///
/// The order of each shard is kept, and the events of one write come one after the other. Between shards there is no
/// order; they take turns, a write each, as long as they have some. All else is as with a
/// [`Subscription`](crate::Subscription).
///
/// # Errors
///
/// As with a [`Subscription`](crate::Subscription), for each shard: an error is the last item of its shard, and the
/// others go on.
#[must_use]
pub struct MergedSubscription {
    follower: Follower,
    source: Merged,
}

struct Merged {
    shards: Vec<Events>,
    /// Whose turn it is.
    turn: usize,
    /// What it gives, and nothing else.
    failed: Option<Error>,
}

impl Source for Merged {
    type Item = Result<(u16, Recorded), Error>;

    fn step(&mut self) -> Step<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.shards.clear();
            return Step::Item(Err(error));
        }
        let (mut more, mut open) = (false, false);
        for _ in 0..self.shards.len() {
            let shard = self.turn;
            let Some(events) = self.shards.get_mut(shard) else { break };
            let step = events.step();
            if !events.is_in_write() {
                self.turn = (shard + 1) % self.shards.len();
            }
            match step {
                Step::Item(item) => {
                    return Step::Item(item.map(|event| (shard as u16, event)));
                }
                Step::More => more = true,
                Step::Nothing => open = true,
                Step::Ended => {}
            }
        }
        match (more, open) {
            (true, _) => Step::More,
            (false, true) => Step::Nothing,
            (false, false) => Step::Ended,
        }
    }

    fn is_ended(&self) -> bool {
        self.shards.iter().all(Source::is_ended)
    }
}

impl MergedSubscription {
    pub(crate) fn new<'a>(sides: impl Iterator<Item = &'a ReadSide>) -> MergedSubscription {
        let shards: Vec<_> = sides.map(|side| Events::new(Arc::clone(&side.catalogue))).collect();
        let follower = Follower::new(shards.iter().map(Events::list));
        MergedSubscription { follower, source: Merged { shards, turn: 0, failed: None } }
    }

    /// Starts behind these positions, one for each shard of the store: goes on where a subscription was that had these
    /// [`positions`](MergedSubscription::positions). If there are more or fewer than shards, an error is the only item.
    pub fn after(mut self, positions: &[Position]) -> MergedSubscription {
        let (expected, found) = (self.source.shards.len(), positions.len());
        if expected != found {
            self.source.failed = Some(Error::invalid(format!(
                "expected {expected} positions, one for each shard of the store, found {found}"
            )));
        }
        let mut positions = positions.iter();
        self.restarted(|trail| positions.next().into_iter().for_each(|at| trail.start_after(*at)))
    }

    /// Starts with what becomes durable after this call.
    #[allow(clippy::wrong_self_convention, reason = "an option, named like its neighbours")]
    pub fn from_now(self) -> MergedSubscription {
        self.restarted(Trail::start_now)
    }

    /// Gives only events of aggregates whose keys begin so. As with a [`Subscription`](crate::Subscription::with_prefix), all
    /// filters must hold.
    pub fn with_prefix(self, prefix: impl AsRef<[u8]>) -> MergedSubscription {
        self.filtered(|filter| filter.set_prefix(prefix.as_ref()))
    }

    /// Gives only events of these types.
    pub fn with_event_types(
        self,
        names: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> MergedSubscription {
        self.filtered(|filter| filter.set_event_types(names))
    }

    /// Gives only events of these aggregates.
    pub fn with_keys(self, keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> MergedSubscription {
        self.filtered(|filter| filter.set_keys(keys))
    }

    /// Where each shard's subscription is, in the order of their numbers: see
    /// [`Subscription::position`](crate::Subscription::position).
    #[must_use]
    pub fn positions(&self) -> Vec<Position> {
        self.source.shards.iter().map(Events::position).collect()
    }

    fn restarted(mut self, mut restart: impl FnMut(&mut Trail)) -> MergedSubscription {
        self.source.shards.iter_mut().for_each(|events| restart(events.restart()));
        self
    }

    fn filtered(mut self, change: impl FnOnce(&mut Filter)) -> MergedSubscription {
        if let Some((first, others)) = self.source.shards.split_first_mut() {
            change(first.filter_mut());
            others.iter_mut().for_each(|events| events.share_filter(first));
        }
        self
    }
}

waiting!(MergedSubscription, Result<(u16, Recorded), Error>);

impl fmt::Debug for MergedSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergedSubscription")
            .field("positions", &self.positions())
            .finish_non_exhaustive()
    }
}
