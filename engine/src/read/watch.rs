//! A watch of one aggregate: its newest version, whenever it changes.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::id::Position;
use crate::log::catalogue::Catalogue;
use crate::read::Slot;
use crate::read::chain::Chain;
use crate::read::follower::{Follower, List, Source, Step, waiting};

/// Watches one aggregate: gives its newest durable version whenever that is above the one given last.
///
/// Versions that came and went between two looks are left out. The first item is the version at the time of the first look,
/// unless the aggregate does not exist yet; there is a place for it in the index from the watch on.
///
/// A watch costs nothing while its aggregate does not change, neither itself nor anybody's append. It does not keep the store
/// open, and ends when that is closed.
///
/// ```
/// use annals::{Event, Expect, Store};
/// # let dir = tempfile::tempdir_in("/var/tmp")?;
/// # let store = Store::open(dir.path())?;
///
/// let mut watch = store.watch("order-1")?;
/// assert!(watch.try_next().is_none());
/// for event_type in ["Placed", "Paid", "Shipped"] {
///     store.append("order-1", Expect::Any, [Event::new(event_type, "")])?.wait()?;
/// }
/// assert_eq!(watch.next().expect("the store is open")?, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// An error is the last item, and comes once: `Corrupt` or `Io` if the newest record can't be read, `Stopped` when the
/// shard has stopped taking writes and the newest durable version was given.
#[must_use]
pub struct Watch {
    follower: Follower,
    source: Versions,
}

struct Versions {
    catalogue: Arc<Catalogue>,
    chain: Chain,
    slot: Slot,
    /// The record of the newest version that was seen.
    head: Position,
    given: u64,
    ended: bool,
}

impl Versions {
    fn version(&self, head: Position, watermark: Position) -> Result<u64, Error> {
        Ok(self.chain.newest_below(head, watermark)?.map_or(0, |link| link.version))
    }

    /// The newest version, if it was not given yet.
    fn news(&mut self) -> Result<Option<u64>, Error> {
        let watermark = self.catalogue.watermark();
        let head = self.slot.slot.head();
        if head == self.head {
            return Ok(None);
        }
        let version = self.version(head, watermark)?;
        // One that is just being published is looked at again.
        if head < watermark {
            self.head = head;
        }
        let before = std::mem::replace(&mut self.given, version);
        Ok((version > before).then_some(version))
    }
}

impl Source for Versions {
    type Item = Result<u64, Error>;

    fn step(&mut self) -> Step<Self::Item> {
        if self.ended {
            return Step::Ended;
        }
        // In this order: once the end is seen, nothing more is published.
        let ended = self.catalogue.following().ended();
        let step = match (self.news(), ended) {
            (Ok(Some(version)), _) => return Step::Item(Ok(version)),
            (Ok(None), None) => return Step::Nothing,
            (Ok(None), Some(Ok(()))) => Step::Ended,
            (Err(why), _) | (Ok(None), Some(Err(why))) => Step::Item(Err(why)),
        };
        self.ended = true;
        step
    }

    fn is_ended(&self) -> bool {
        self.ended
    }
}

impl Watch {
    pub(super) fn new(chain: Chain, catalogue: &Arc<Catalogue>, slot: Slot) -> Watch {
        let follower = Follower::new([List::Slot(slot.clone())]);
        let (catalogue, head) = (Arc::clone(catalogue), Position::START);
        Watch {
            follower,
            source: Versions { catalogue, chain, slot, head, given: 0, ended: false },
        }
    }

    /// The key of the aggregate.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.source.slot.slot.key()
    }

    /// The durable version of the aggregate now, 0 if it does not exist.
    ///
    /// # Errors
    ///
    /// `Corrupt` or `Io` if its newest record can't be read.
    pub fn version(&self) -> Result<u64, Error> {
        let watermark = self.source.catalogue.watermark();
        self.source.version(self.source.slot.slot.head(), watermark)
    }
}

waiting!(Watch, Result<u64, Error>);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("given", &self.source.given)
            .field("ended", &self.source.ended)
            .finish_non_exhaustive()
    }
}
