//! A subscription to one shard: what is durable, from a position on, and then what becomes durable.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::id::Position;
use crate::log::catalogue::Catalogue;
use crate::read::filter::Filter;
use crate::read::follower::{Follower, List, RECORDS_AT_ONCE, Source, Step, waiting};
use crate::read::recorded::Recorded;
use crate::read::trail::Trail;
use crate::read::write::RecordedWrite;

/// How many events of one write are queued without letting go of the queue's memory afterwards.
const EVENTS_KEPT: usize = 1024;

/// Follows one shard: gives every event that is durable, from a position on, in the order of the log, and then waits for
/// those that become durable. Never a gap, a duplicate, or something that is not durable.
///
/// It begins at the start of the log and gives all events unless told otherwise. Events come from
/// [`next_timeout`](Subscription::next_timeout), [`try_next`](Subscription::try_next), from the iterator that it is, which
/// waits on its thread, from [`next_async`](Subscription::next_async), or from the `Stream` that it is, on any executor.
/// Where `StreamExt` is imported, `.next()` and other methods that iterators and streams both have are ambiguous and do not
/// compile: use [`next_async`](Subscription::next_async), or write `StreamExt::map(subscription, …)`.
///
/// A projection that stores [`position`](Subscription::position) goes on [`after`](Subscription::after) it another time.
/// One that writes whole [`writes`](Subscription::writes) at a time knows that a position has all of a write or nothing.
///
/// It costs little memory and holds nothing back, however slow it is: what it did not give yet it reads again from
/// wherever the log has it. An event keeps at most the 64 KiB around it, or its write if that is larger.
///
/// It does not keep the store open. When the store is closed, it gives what it did not give yet, and ends.
///
/// ```
/// use annals::{Event, Expect, Store};
/// # let dir = tempfile::tempdir_in("/var/tmp")?;
/// # let store = Store::open(dir.path())?;
///
/// store.append("order-1", Expect::Absent, [Event::new("Placed", "")])?.wait()?;
/// let mut orders = store.subscribe(0).with_prefix("order-");
/// assert_eq!(orders.next().expect("the store is open")?.event_type(), "Placed");
///
/// store.append("order-1", Expect::Version(1), [Event::new("Shipped", "")])?.wait()?;
/// assert_eq!(orders.next().expect("the store is open")?.event_type(), "Shipped");
///
/// let mut later = store.subscribe(0).after(orders.position());
/// assert!(later.try_next().is_none());
/// store.close()?;
/// assert!(later.next().is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// An error is the last item, and comes once: `Corrupt` or `Io` where the log can't be read; `Stopped` when the shard
/// has stopped taking writes and everything durable was given; `Invalid` for a position above the end of the log.
/// [`position`](Subscription::position) says where to go on.
#[must_use]
pub struct Subscription {
    follower: Follower,
    source: Events,
}

/// The events of a trail that pass a filter.
pub(super) struct Events {
    trail: Trail,
    filter: Arc<Filter>,
    /// Of the write that it is in, those behind the one given last.
    rest: VecDeque<Recorded>,
}

impl Events {
    pub(super) fn new(catalogue: Arc<Catalogue>) -> Events {
        Events { trail: Trail::new(catalogue), filter: Arc::default(), rest: VecDeque::new() }
    }

    /// The trail, to start it elsewhere.
    pub(super) fn restart(&mut self) -> &mut Trail {
        self.rest.clear();
        &mut self.trail
    }

    pub(super) fn position(&self) -> Position {
        self.trail.position()
    }

    /// Whether there are events of the same write behind the one given last.
    pub(super) fn is_in_write(&self) -> bool {
        !self.rest.is_empty()
    }

    pub(super) fn list(&self) -> List {
        List::Log(Arc::clone(self.trail.catalogue()))
    }

    pub(super) fn filter_mut(&mut self) -> &mut Filter {
        Arc::make_mut(&mut self.filter)
    }

    pub(super) fn share_filter(&mut self, other: &Events) {
        self.filter = Arc::clone(&other.filter);
    }

    /// Notes that the events up to this one are given.
    fn give(&mut self, event: Recorded) -> Step<Result<Recorded, Error>> {
        if self.rest.is_empty() {
            self.trail.pass(event.position());
            if self.rest.capacity() > EVENTS_KEPT {
                self.rest = VecDeque::new();
            }
        }
        Step::Item(Ok(event))
    }
}

impl Source for Events {
    type Item = Result<Recorded, Error>;

    fn step(&mut self) -> Step<Self::Item> {
        if let Some(event) = self.rest.pop_front() {
            return self.give(event);
        }
        for _ in 0..RECORDS_AT_ONCE {
            let record = match self.trail.step() {
                Ok(record) => record,
                Err(none) => return none.map(Err),
            };
            match self.filter.events(&record, &mut self.rest) {
                Ok(Some(first)) => return self.give(first),
                Ok(None) => self.trail.pass(record.position()),
                Err(damage) => {
                    self.rest.clear();
                    return Step::Item(Err(self.trail.damaged(&record, &damage)));
                }
            }
        }
        Step::More
    }

    fn is_ended(&self) -> bool {
        self.trail.is_ended() && self.rest.is_empty()
    }
}

impl Subscription {
    pub(super) fn new(catalogue: Arc<Catalogue>) -> Subscription {
        let source = Events::new(catalogue);
        Subscription { follower: Follower::new([source.list()]), source }
    }

    /// A subscription that gives an error and nothing else.
    pub(crate) fn failing(mut self, error: Error) -> Subscription {
        self.source.trail.fail(error);
        self
    }

    /// Starts at a position, with the write that stands there or else the first one behind it.
    pub fn from(mut self, position: Position) -> Subscription {
        self.source.restart().start_from(position);
        self
    }

    /// Starts behind the write at a position: goes on where a subscription was that had this
    /// [`position`](Subscription::position). It has to be a position of this shard.
    pub fn after(mut self, position: Position) -> Subscription {
        self.source.restart().start_after(position);
        self
    }

    /// Starts with what becomes durable after this call.
    #[allow(clippy::wrong_self_convention, reason = "an option, named like its neighbours")]
    pub fn from_now(mut self) -> Subscription {
        self.source.restart().start_now();
        self
    }

    /// Gives only events of aggregates whose keys begin so. All filters must hold; the same filter given again takes the
    /// place of the one before. What a filter leaves out is not even decoded.
    pub fn with_prefix(mut self, prefix: impl AsRef<[u8]>) -> Subscription {
        self.source.filter_mut().set_prefix(prefix.as_ref());
        self
    }

    /// Gives only events of these types.
    pub fn with_event_types(
        mut self,
        names: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Subscription {
        self.source.filter_mut().set_event_types(names);
        self
    }

    /// Gives only events of these aggregates.
    pub fn with_keys(mut self, keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Subscription {
        self.source.filter_mut().set_keys(keys);
        self
    }

    /// Gives whole writes: those with at least one event that passes the filters.
    pub fn writes(self) -> WriteSubscription {
        let Subscription { follower, source: mut events } = self;
        if events.is_in_write() {
            let position = events.position();
            events.restart().start_after(position);
        }
        WriteSubscription {
            follower,
            source: Writes { trail: events.trail, filter: events.filter },
        }
    }

    /// The position of the newest write of which all events were given or left out by the filters; at first, one that lies
    /// right before where the subscription starts. [`after`](Subscription::after) it there is neither gap nor duplicate,
    /// but for a write of which some events were given and others not: it comes whole.
    #[must_use]
    pub fn position(&self) -> Position {
        self.source.position()
    }
}

waiting!(Subscription, Result<Recorded, Error>);

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("trail", &self.source.trail)
            .field("filter", &self.source.filter)
            .finish_non_exhaustive()
    }
}

/// Follows one shard write by write. Made by [`Subscription::writes`]; order, promises and errors are as there.
///
/// A write comes whole, with all its parts, if one of its events passes the filters.
#[must_use]
pub struct WriteSubscription {
    follower: Follower,
    source: Writes,
}

/// The writes of a trail that have an event which passes a filter.
struct Writes {
    trail: Trail,
    filter: Arc<Filter>,
}

impl Source for Writes {
    type Item = Result<RecordedWrite, Error>;

    fn step(&mut self) -> Step<Self::Item> {
        for _ in 0..RECORDS_AT_ONCE {
            let record = match self.trail.step() {
                Ok(record) => record,
                Err(none) => return none.map(Err),
            };
            let position = record.position();
            match self.filter.passes(&record) {
                Ok(false) => self.trail.pass(position),
                Ok(true) => {
                    let write = RecordedWrite::new(self.trail.catalogue(), record);
                    match write {
                        Ok(_) => self.trail.pass(position),
                        Err(_) => self.trail.end(),
                    }
                    return Step::Item(write);
                }
                Err(damage) => return Step::Item(Err(self.trail.damaged(&record, &damage))),
            }
        }
        Step::More
    }

    fn is_ended(&self) -> bool {
        self.trail.is_ended()
    }
}

impl WriteSubscription {
    /// The position of the newest write that was given or left out by the filters. A subscription
    /// [`after`](Subscription::after) it goes on with neither gap nor duplicate.
    #[must_use]
    pub fn position(&self) -> Position {
        self.source.trail.position()
    }
}

waiting!(WriteSubscription, Result<RecordedWrite, Error>);

impl fmt::Debug for WriteSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteSubscription")
            .field("trail", &self.source.trail)
            .field("filter", &self.source.filter)
            .finish_non_exhaustive()
    }
}
