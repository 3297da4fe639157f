//! One aggregate, read forwards or backwards.
//!
//! The links between versions lead back, so reading forwards goes down first: from the head by `skip` to the page of 64
//! versions that has the first one wanted, noting where each page on the way ends. Then, page by page upwards, it
//! follows `prev` through the page and gives what it found in reverse. A read from any version costs one hop for
//! every 64 versions above it, once, and remembers one position for each of them.

use std::collections::VecDeque;
use std::fmt;
use std::mem;

use crate::error::Error;
use crate::format::Damage;
use crate::id::Position;
use crate::log::catalogue::Record;
use crate::read::chain::{Chain, Link, milestone_before};
use crate::read::fold;
use crate::read::recorded::Recorded;

/// How many bytes a page may keep of records that were read into memory of their own. Beyond that they are read
/// again when their turn comes.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// A read of one aggregate: its version, and its events at that version, in one snapshot.
///
/// Options come before the first event is read. The whole aggregate is read from version 1 on unless they say
/// otherwise.
///
/// ```
/// use annals::{Event, Expect, Store};
/// # let dir = tempfile::tempdir_in("/var/tmp")?;
/// # let store = Store::open(dir.path())?;
///
/// let events = [Event::new("Placed", "1 book"), Event::new("Paid", "12.50")];
/// store.append("order-1", Expect::Absent, events)?.wait()?;
/// store.append("order-1", Expect::Version(1), [Event::new("Shipped", "")])?.wait()?;
///
/// let read = store.read("order-1");
/// assert_eq!(read.version(), 2);
/// let types = read.map(|event| Ok(event?.event_type().to_owned()));
/// assert_eq!(types.collect::<Result<Vec<_>, annals::Error>>()?, ["Placed", "Paid", "Shipped"]);
///
/// let newest = store.read("order-1").backwards().next().expect("there are events")?;
/// assert_eq!(newest.event_type(), "Shipped");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Where the events of one version are damaged, the read gives one error for them and goes on with the next
/// version. Any other error is the last item.
#[must_use]
pub struct Read {
    /// `None` if the read failed before it began.
    chain: Option<Chain>,
    version: u64,
    start: Option<Start>,
    limit: usize,
    backwards: bool,
    stage: Stage,
    /// Accepted versions above the durable ones, the lowest first.
    pending: VecDeque<(u64, Record)>,
    /// The events of the version that the read is in, in the order of the batch.
    events: VecDeque<Recorded>,
}

/// Where a read starts.
#[derive(Clone, Copy)]
enum Start {
    Version(u64),
    /// Behind one event, in the direction of the read.
    After(u64, u32),
}

impl Start {
    fn version(self) -> u64 {
        match self {
            Start::Version(version) | Start::After(version, _) => version,
        }
    }
}

enum Stage {
    /// Nothing was read but the newest version.
    Snapshot(Option<Link>),
    Failed(Error),
    Forwards(Forwards),
    Backwards(Next),
    Done,
}

/// The version to give next, downwards.
enum Next {
    Found(Link),
    At(Position, u64),
}

pub(super) struct Forwards {
    /// The last version of each page above, the lowest page last.
    tops: Vec<(u64, Position)>,
    /// What is left of the page, the lowest version last.
    page: Vec<Step>,
    /// The first version wanted.
    lowest: u64,
}

/// A version on a page.
enum Step {
    Kept(Link),
    /// Keeping it would cost too much memory.
    Again(u64, Position),
}

impl Read {
    pub(super) fn new(chain: Chain) -> Read {
        let newest = chain.newest();
        let version = newest.as_ref().ok().and_then(Option::as_ref).map_or(0, |link| link.version);
        let stage = match newest {
            Ok(newest) => Stage::Snapshot(newest),
            Err(error) => Stage::Failed(error),
        };
        Read { version, stage, ..Read::empty(Some(chain)) }
    }

    /// A read that gives an error and nothing else.
    pub fn failed(error: Error) -> Read {
        Read { stage: Stage::Failed(error), ..Read::empty(None) }
    }

    fn empty(chain: Option<Chain>) -> Read {
        Read {
            chain,
            version: 0,
            start: None,
            limit: usize::MAX,
            backwards: false,
            stage: Stage::Done,
            pending: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The version of the aggregate in the same snapshot as the events, also if the options leave all of them out. 0 if it
    /// does not exist.
    ///
    /// It is 0 as well if the snapshot could not be read; the read's one item is then the error. Whoever reads no
    /// events asks `Store::version`, which returns it.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Also shows writes that are accepted and on their way to the disk, from memory and without waiting for them.
    ///
    /// Right for deciding the next write: that one is durable only after all that it was decided on. Wrong for
    /// answering anybody outside: should the shard fail, what was shown never was. A shard that has failed gives
    /// [`Stopped`](crate::ErrorKind::Stopped) instead of such writes.
    ///
    /// An event that is not durable [has no position](Recorded::is_durable) yet.
    pub fn accepted(mut self) -> Read {
        let Some(chain) = &mut self.chain else { return self };
        let taken = chain.accepted().and_then(|(pending, newest)| {
            self.pending = pending.versions(chain.key())?;
            Ok(newest)
        });
        match taken {
            Ok(newest) => {
                let durable = newest.as_ref().map_or(0, |link| link.version);
                self.version = self.pending.back().map_or(durable, |(version, _)| *version);
                self.stage = Stage::Snapshot(newest);
            }
            Err(error) => {
                self.pending.clear();
                (self.version, self.stage) = (0, Stage::Failed(error));
            }
        }
        self
    }

    /// Starts with the first event of this version; backwards, with the last event of it, or of the newest version if
    /// that is lower.
    pub fn from(mut self, version: u64) -> Read {
        self.start = Some(Start::Version(version));
        self
    }

    /// Starts behind one event, in the direction of the read: to go on from the last event of an earlier read.
    pub fn after(mut self, version: u64, index: u32) -> Read {
        self.start = Some(Start::After(version, index));
        self
    }

    /// Ends after so many events, which may be within a batch: an event that is not the last of its batch has
    /// an [`index`](Recorded::index) below [`batch_events`](Recorded::batch_events) − 1. [`Read::after`] goes on from there.
    pub fn limit(mut self, events: usize) -> Read {
        self.limit = events;
        self
    }

    /// Reads from the newest event to the oldest.
    pub fn backwards(mut self) -> Read {
        self.backwards = true;
        self
    }

    /// Shows every event of the read, and ends with the first error. The whole aggregate from some version on is folded as
    /// executions fold it.
    pub(crate) fn show(mut self, see: &mut dyn FnMut(&Recorded)) -> Result<(), Error> {
        let from = match self.start {
            None => 1,
            Some(Start::Version(version)) => version.max(1),
            Some(Start::After(..)) => return self.show_one_by_one(see),
        };
        let begun = !matches!(self.stage, Stage::Snapshot(_)) || !self.events.is_empty();
        if begun || self.backwards || self.limit < usize::MAX {
            return self.show_one_by_one(see);
        }
        let stage = mem::replace(&mut self.stage, Stage::Done);
        let (Some(chain), Stage::Snapshot(newest)) = (&self.chain, stage) else { return Ok(()) };
        if let Some(newest) = newest.filter(|newest| newest.version >= from) {
            fold::show_from(chain, newest, from, see)?;
        }
        for (version, record) in self.pending {
            if version >= from {
                fold::show_pending(chain.key(), version, record, see)?;
            }
        }
        Ok(())
    }

    fn show_one_by_one(self, see: &mut dyn FnMut(&Recorded)) -> Result<(), Error> {
        for event in self {
            see(&event?);
        }
        Ok(())
    }

    /// Goes on to the next version; `false` if there is none.
    fn advance(&mut self) -> Result<bool, Error> {
        let record = if self.backwards {
            match self.next_pending(|version, start| version <= start.unwrap_or(u64::MAX)) {
                Some(record) => Some(record),
                None => self.next_durable()?,
            }
        } else {
            match self.next_durable() {
                Ok(Some(record)) => Some(record),
                Ok(None) => self.next_pending(|version, start| version >= start.unwrap_or(0)),
                Err(error) => {
                    // What is accepted comes after what could not be read.
                    self.pending.clear();
                    return Err(error);
                }
            }
        };
        let (Some(record), Some(chain)) = (record, &self.chain) else { return Ok(false) };
        if let Err(damage) = load(chain, &record, &mut self.events) {
            self.events.clear();
            return Err(chain.damaged(record.position(), &damage));
        }
        if let (Some(Start::After(version, index)), Some(event)) = (self.start, self.events.front())
            && event.version() == version
        {
            let index = index as usize;
            match self.backwards {
                true => self.events.truncate(index),
                false => drop(self.events.drain(..self.events.len().min(index.saturating_add(1)))),
            }
        }
        Ok(true)
    }

    /// The next accepted version, in the direction of the read, that is on the right side of the start.
    fn next_pending(&mut self, wanted: impl Fn(u64, Option<u64>) -> bool) -> Option<Record> {
        let start = self.start.map(Start::version);
        loop {
            let next = match self.backwards {
                true => self.pending.pop_back(),
                false => self.pending.pop_front(),
            };
            let (version, record) = next?;
            if wanted(version, start) {
                return Some(record);
            }
        }
    }

    /// The next durable version, in the direction of the read.
    fn next_durable(&mut self) -> Result<Option<Record>, Error> {
        // An error that leaves no way on leaves the read done.
        let stage = mem::replace(&mut self.stage, Stage::Done);
        let Some(chain) = &self.chain else {
            return match stage {
                Stage::Failed(error) => Err(error),
                _ => Ok(None),
            };
        };
        let stage = match stage {
            Stage::Snapshot(Some(newest)) => begin(chain, newest, self.backwards, self.start)?,
            stage => stage,
        };
        match stage {
            Stage::Forwards(mut forwards) => {
                let link = forwards.next(chain)?;
                self.stage = Stage::Forwards(forwards);
                Ok(link.map(|link| link.record))
            }
            Stage::Backwards(next) => {
                let link = match next {
                    Next::Found(link) => link,
                    Next::At(position, version) => chain.at(position, version)?,
                };
                if let Some((position, version)) = link.before() {
                    self.stage = Stage::Backwards(Next::At(position, version));
                }
                Ok(Some(link.record))
            }
            Stage::Failed(error) => Err(error),
            Stage::Snapshot(_) | Stage::Done => Ok(None),
        }
    }
}

/// What a read does first.
fn begin(
    chain: &Chain,
    newest: Link,
    backwards: bool,
    start: Option<Start>,
) -> Result<Stage, Error> {
    if !backwards {
        let lowest = start.map_or(1, Start::version).max(1);
        return match lowest <= newest.version {
            true => Forwards::new(chain, newest, lowest).map(Stage::Forwards),
            false => Ok(Stage::Done),
        };
    }
    let highest = start.map_or(u64::MAX, Start::version);
    if highest == 0 {
        return Ok(Stage::Done);
    }
    let mut link = newest;
    while link.version > highest {
        link = match milestone_before(link.version) >= highest {
            true => chain.milestone(&link)?,
            false => chain.before(&link)?,
        };
    }
    Ok(Stage::Backwards(Next::Found(link)))
}

/// Appends the events that a record has of the aggregate.
fn load(chain: &Chain, record: &Record, events: &mut VecDeque<Recorded>) -> Result<(), Damage> {
    let view = record.view();
    record.verify_events(&view)?;
    if let Some(part) = chain.part(&view) {
        for event in Recorded::of_part(record, &view, part) {
            events.push_back(event?);
        }
    }
    Ok(())
}

impl Forwards {
    /// A read from `lowest` on, which is at most the newest version.
    pub(super) fn new(chain: &Chain, newest: Link, lowest: u64) -> Result<Forwards, Error> {
        let mut tops = Vec::new();
        let mut link = newest;
        while milestone_before(link.version) >= lowest {
            tops.try_reserve(1).map_err(|_| Error::out_of_memory("a read of many versions"))?;
            tops.push((link.version, link.position()));
            link = chain.milestone(&link)?;
        }
        let mut forwards = Forwards { tops, page: Vec::new(), lowest };
        forwards.fill(chain, link)?;
        Ok(forwards)
    }

    /// The next version.
    pub(super) fn next(&mut self, chain: &Chain) -> Result<Option<Link>, Error> {
        if self.page.is_empty() {
            let Some((version, position)) = self.tops.pop() else { return Ok(None) };
            self.fill(chain, chain.at(position, version)?)?;
        }
        match self.page.pop() {
            Some(Step::Kept(link)) => Ok(Some(link)),
            Some(Step::Again(version, position)) => chain.at(position, version).map(Some),
            None => Ok(None),
        }
    }

    /// Goes down the page whose last version this is.
    fn fill(&mut self, chain: &Chain, last: Link) -> Result<(), Error> {
        let lowest = self.lowest.max(milestone_before(last.version) + 1);
        let mut kept_bytes = 0;
        let mut cursor = chain.cursor();
        let mut link = last;
        loop {
            let next = match link.version > lowest {
                true => Some(chain.before_by(&mut cursor, &link)?),
                false => None,
            };
            if link.record.bytes().is_memory() {
                kept_bytes += link.record.bytes().len();
            }
            self.page.push(match kept_bytes <= PAGE_BYTES_MAX {
                true => Step::Kept(link),
                false => Step::Again(link.version, link.position()),
            });
            match next {
                Some(next) => link = next,
                None => return Ok(()),
            }
        }
    }
}

impl Iterator for Read {
    type Item = Result<Recorded, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.limit == 0 {
            return None;
        }
        loop {
            let event = match self.backwards {
                true => self.events.pop_back(),
                false => self.events.pop_front(),
            };
            if let Some(event) = event {
                self.limit -= 1;
                return Some(Ok(event));
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Read")
            .field("version", &self.version)
            .field("backwards", &self.backwards)
            .finish_non_exhaustive()
    }
}
