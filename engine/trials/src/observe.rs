//! What a store shows, as values of a history.

use annals::{Error, Expect, Recorded, RecordedWrite, Role};

use crate::history::{Batch, Client, Condition, LogPart, LogRecord, Subject};
use crate::mark::Mark;

impl From<Condition> for Expect {
    fn from(condition: Condition) -> Expect {
        match condition {
            Condition::Any => Expect::Any,
            Condition::Exists => Expect::Exists,
            Condition::Absent => Expect::Absent,
            Condition::Version(version) => Expect::Version(version),
        }
    }
}

impl From<Expect> for Condition {
    fn from(expect: Expect) -> Condition {
        match expect {
            Expect::Any => Condition::Any,
            Expect::Exists => Condition::Exists,
            Expect::Absent => Condition::Absent,
            Expect::Version(version) => Condition::Version(version),
        }
    }
}

/// Where an aggregate stands among those that a history knows.
#[must_use]
pub fn subject_of(subjects: &[Subject], key: &[u8]) -> Option<u16> {
    subjects.iter().position(|subject| subject.key.as_bytes() == key).map(|at| at as u16)
}

/// Events of one aggregate, put together by the write that appended them. In the order in which they were given, which
/// must be upwards.
///
/// # Errors
///
/// The first error of the read.
pub fn batches(
    events: impl IntoIterator<Item = Result<Recorded, Error>>,
) -> Result<Vec<Batch>, Error> {
    let mut batches: Vec<Batch> = Vec::new();
    for event in events {
        let event = event?;
        let mark = Mark::read(event.data()).filter(|mark| u32::from(mark.index) == event.index());
        match batches.last_mut() {
            Some(last)
                if last.version == event.version()
                    && u32::from(last.first + last.events) == event.index() =>
            {
                last.events += 1;
                if mark.map(|mark| (mark.write, mark.part))
                    != last.write.map(|write| (write, last.part))
                {
                    last.write = None;
                }
            }
            _ => batches.push(Batch {
                version: event.version(),
                write: mark.map(|mark| mark.write),
                part: mark.map_or(0, |mark| mark.part),
                first: event.index() as u16,
                events: 1,
                of: event.batch_events() as u16,
            }),
        }
    }
    Ok(batches)
}

/// A record of a shard's log. Checkpoints and snapshots are left out.
#[must_use]
pub fn record(subjects: &[Subject], shard: u16, write: &RecordedWrite) -> LogRecord {
    let client = write.client().map(|(id, sequence)| Client { id: id as u64, sequence });
    let parts = write.parts().filter(|part| matches!(part.role(), Role::Append | Role::Check));
    let parts = parts.map(|part| {
        let seen = batches(part.events().map(Ok)).unwrap_or_default();
        let (mark, events) = match seen.as_slice() {
            [batch] if batch.first == 0 && batch.of == batch.events => {
                (batch.write.map(|write| (write, batch.part)), batch.events)
            }
            several => (None, several.iter().map(|batch| batch.events).sum()),
        };
        LogPart {
            subject: subject_of(subjects, part.key()),
            condition: part.expected().into(),
            version: part.version(),
            appends: !part.is_check(),
            write: mark.map(|(write, _)| write),
            part: mark.map_or(0, |(_, part)| part),
            events,
        }
    });
    LogRecord { shard, position: write.position().get(), client, parts: parts.collect() }
}
