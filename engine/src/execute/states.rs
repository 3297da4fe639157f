//! Folded states, kept so that a busy aggregate is not folded from its start again.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{Execution, Executor, State};
use crate::event::Event;
use crate::reserve::slot_ref::SlotRef;
use crate::store::Store;
use crate::sync::backoff::draw;

/// A state may stand in so many places.
const WAYS: usize = 4;

/// Keeps the states of aggregates between executions, up to a number of them. Made by [`Store::states`].
///
/// An execution takes a clone of the state that is kept, folds what has come since, and if there was anything keeps a
/// clone of the result. So a state that is large should be cheap to clone. The bound is a number of states, not of
/// bytes; beyond it one that is kept makes way for another. Clones of this share what they keep. Nothing here is a lock:
/// of two threads that keep a state of one aggregate, one wins.
pub struct States<S> {
    store: Store,
    kept: Arc<Kept<S>>,
}

/// Where states are taken from and kept.
pub(super) trait Recall<S>: Send + Sync {
    /// A copy of the state of the aggregate with this slot.
    fn recall(&self, slot: SlotRef) -> Option<Recalled<S>>;

    /// Keeps a state, perhaps.
    fn keep(&self, slot: SlotRef, version: u64, snapshot: u64, state: &S);
}

/// A state and what is known of it.
#[derive(Clone)]
pub(super) struct Recalled<S> {
    /// The version that it is of.
    pub(super) version: u64,
    /// The version of the newest snapshot that was seen.
    pub(super) snapshot: u64,
    pub(super) state: S,
}

/// A cache: each state may stand in one of a few places, which its slot's address chooses.
struct Kept<S> {
    places: Box<[ArcSwapOption<Place<S>>]>,
}

struct Place<S> {
    slot: usize,
    recalled: Recalled<S>,
}

impl<S: State + Clone + Send + Sync + 'static> States<S> {
    pub(crate) fn new(store: Store, aggregates: usize) -> States<S> {
        let sets = aggregates.div_ceil(WAYS).max(1).next_power_of_two();
        let places = (0..sets * WAYS).map(|_| ArcSwapOption::empty()).collect();
        States { store, kept: Arc::new(Kept { places }) }
    }

    /// As [`Store::execute`].
    pub fn execute<R>(
        &self,
        key: impl AsRef<[u8]>,
        decide: impl FnMut(&S) -> Result<Vec<Event>, R>,
    ) -> Execution<R> {
        self.executor().execute(key, decide)
    }

    /// As [`Store::execute_all`].
    pub fn execute_all<R>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<[u8]>>,
        decide: impl FnMut(&[S]) -> Result<Vec<Vec<Event>>, R>,
    ) -> Execution<R> {
        self.executor().execute_all(keys, decide)
    }

    /// As [`Store::executor`].
    pub fn executor(&self) -> Executor<'_, S> {
        Executor::keeping(&self.store, &*self.kept)
    }
}

impl<S> Kept<S> {
    fn set(&self, slot: usize) -> &[ArcSwapOption<Place<S>>] {
        // Slots are some 64 bytes apart, so the lowest bits say little.
        let hash = (slot as u64 >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let sets = self.places.len() / WAYS;
        let first = (hash as usize & (sets - 1)) * WAYS;
        self.places.get(first..first + WAYS).unwrap_or_default()
    }
}

impl<S: Clone + Send + Sync + 'static> Recall<S> for Kept<S> {
    fn recall(&self, slot: SlotRef) -> Option<Recalled<S>> {
        let slot = slot.address();
        self.set(slot).iter().find_map(|place| {
            let place = place.load();
            place.as_ref().filter(|place| place.slot == slot).map(|place| place.recalled.clone())
        })
    }

    fn keep(&self, slot: SlotRef, version: u64, snapshot: u64, state: &S) {
        let slot = slot.address();
        let set = self.set(slot);
        let mut free = None;
        for (nth, place) in set.iter().enumerate() {
            match &*place.load() {
                Some(place) if place.slot != slot => continue,
                Some(place) if place.recalled.version >= version => return,
                Some(_) => {
                    free = Some(nth);
                    break;
                }
                None => free = free.or(Some(nth)),
            }
        }
        let nth = free.unwrap_or_else(|| draw() as usize % WAYS);
        if let Some(place) = set.get(nth) {
            let recalled = Recalled { version, snapshot, state: state.clone() };
            place.store(Some(Arc::new(Place { slot, recalled })));
        }
    }
}

impl<S> Clone for States<S> {
    fn clone(&self) -> States<S> {
        States { store: self.store.clone(), kept: Arc::clone(&self.kept) }
    }
}

impl<S> fmt::Debug for States<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("States")
            .field("store", &self.store)
            .field("places", &self.kept.places.len())
            .finish_non_exhaustive()
    }
}
