//! A shard read in log order: event by event, or write by write.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::format::{Damage, PartView, Role};
use crate::id::Position;
use crate::log::catalogue::{Catalogue, Record};
use crate::log::walk::Walk;
use crate::read::damaged;
use crate::read::recorded::Recorded;
use crate::read::write::RecordedWrite;

/// A read of one shard in log order: every event that was durable when the read was made.
///
/// All events of a write come one after the other, part by part. [`LogRead::writes`] gives whole writes instead.
///
/// Where the events of one write are damaged, the read gives one error for them and goes on behind that write. Any
/// other error is the last item.
#[must_use]
pub struct LogRead {
    walk: Option<Walk>,
    failed: Option<Error>,
    limit: usize,
    /// The events of the write that the read is in.
    events: VecDeque<Recorded>,
}

impl LogRead {
    pub(super) fn new(catalogue: Arc<Catalogue>) -> LogRead {
        let walk = Walk::new(catalogue, Position::START);
        LogRead { walk: Some(walk), failed: None, limit: usize::MAX, events: VecDeque::new() }
    }

    /// A read that gives an error and nothing else.
    pub fn failed(error: Error) -> LogRead {
        let (walk, failed, events) = (None, Some(error), VecDeque::new());
        LogRead { walk, failed, limit: usize::MAX, events }
    }

    /// Starts at a position, with the write that stands there or else the first one behind it.
    pub fn from(mut self, position: Position) -> LogRead {
        if let Some(walk) = &mut self.walk {
            walk.start_from(position);
        }
        self
    }

    /// Starts behind the write at a position: goes on from the last one that was read to its end.
    pub fn after(mut self, position: Position) -> LogRead {
        if let Some(walk) = &mut self.walk {
            walk.start_after(position);
        }
        self
    }

    /// Ends after so many events; after so many writes where it reads whole [`LogRead::writes`].
    ///
    /// A limit of events may end within a write. To go on from there, start [`from`](LogRead::from) the position of the
    /// last event and leave out those of that write that were read; [`after`](LogRead::after) would leave out
    /// all of them.
    pub fn limit(mut self, limit: usize) -> LogRead {
        self.limit = limit;
        self
    }

    /// Reads whole writes: with their conditions, and those parts that append nothing too: checks, checkpoints and
    /// snapshots.
    pub fn writes(self) -> Writes {
        Writes { walk: self.walk, failed: self.failed, limit: self.limit }
    }

    /// The events of the next write: the first is returned, those behind it are kept.
    fn advance(&mut self) -> Option<Result<Option<Recorded>, Error>> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        let walk = self.walk.as_mut()?;
        let record = match walk.next()? {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        let read = collect(&record, &mut self.events, |_| true, |_| true);
        Some(read.map_err(|damage| {
            self.events.clear();
            damaged(walk.catalogue(), &record, &damage)
        }))
    }
}

/// The first event of a record, of those parts and events that are wanted. Those behind it are appended to `rest`. If
/// no part is wanted, the events are not looked at.
#[inline]
pub(super) fn collect(
    record: &Record,
    rest: &mut VecDeque<Recorded>,
    wants_part: impl Fn(&PartView<'_>) -> bool,
    wants: impl Fn(&Recorded) -> bool,
) -> Result<Option<Recorded>, Damage> {
    let view = record.view();
    let mut first = None;
    let mut verified = false;
    let appended = view.parts().filter(|part| part.role == Role::Append);
    for part in appended.filter(wants_part) {
        if !verified {
            record.verify_events(&view)?;
            verified = true;
        }
        for event in Recorded::of_part(record, &view, part) {
            let event = event?;
            match &first {
                _ if !wants(&event) => {}
                None => first = Some(event),
                Some(_) => rest.push_back(event),
            }
        }
    }
    Ok(first)
}

impl Iterator for LogRead {
    type Item = Result<Recorded, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.limit == 0 {
            return None;
        }
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => match self.advance()? {
                    Ok(Some(event)) => event,
                    Ok(None) => continue,
                    Err(error) => return Some(Err(error)),
                },
            };
            self.limit -= 1;
            return Some(Ok(event));
        }
    }
}

impl fmt::Debug for LogRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogRead")
            .field("walk", &self.walk)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// A read of one shard in log order, write by write. Made by [`LogRead::writes`]; its errors are as there.
#[must_use]
pub struct Writes {
    walk: Option<Walk>,
    failed: Option<Error>,
    limit: usize,
}

impl Iterator for Writes {
    type Item = Result<RecordedWrite, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        if self.limit == 0 {
            return None;
        }
        let walk = self.walk.as_mut()?;
        let record = match walk.next()? {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        let write = RecordedWrite::new(walk.catalogue(), record);
        self.limit -= usize::from(write.is_ok());
        Some(write)
    }
}

impl fmt::Debug for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writes")
            .field("walk", &self.walk)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
