//! Opening a shard: from the bytes on disk to where its log ends and what its aggregates are at.
//!
//! ```text
//! survey    which segments there are, how they hang together, how far the log is proven
//! verdict   what the facts mean, as tables
//! walk      along the log, flush by flush, to its end
//! replay    what the walk accepts, into the index
//! ```
//!
//! Nothing is changed on disk but by `sync`. What is above the end stays where it is until a new segment states that end;
//! see [`crate::log::prepare`].

pub(crate) mod corruption;
mod replay;
pub(crate) mod source;
mod survey;
mod verdict;
pub(crate) mod walk;

#[cfg(test)]
pub(crate) mod tests;

use corruption::Corruption;
use source::Source;
use walk::{Visit, Walk};

use crate::disk::Disk;
use crate::error::Error;
use crate::format::{AcceptedEnd, FileName, Identity};
use crate::id::{Position, SegmentId, ShardId};
use crate::index::Index;
use crate::log::prepare::{Cut, Leftover, Start};

/// What a shard is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// For writing, under the store's lock. Damage is an error.
    Write,
    /// For reading, perhaps beside a writer. What is whole is shown; damage is told beside it.
    Read,
}

/// A segment that holds a part of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SegmentFacts {
    /// Its number.
    pub(crate) id: SegmentId,
    /// The salt of this use of it.
    pub(crate) salt: u64,
    /// The file, relative to the store's directory.
    pub(crate) path: String,
    /// Where in the file the log leaves it.
    pub(crate) end: u32,
    /// How long the file is.
    pub(crate) bytes: u64,
}

/// A shard as it was found.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// The last flush of the log; `None` if there is none.
    pub(crate) accepted: Option<AcceptedEnd>,
    /// Where the log ends: the first watermark.
    pub(crate) end: Position,
    /// The segments of the log, oldest first.
    pub(crate) segments: Vec<SegmentFacts>,
    /// What preparing new segments starts from.
    pub(crate) start: Start,
    /// How many writes the log holds.
    pub(crate) records: u64,
    /// How many events they hold.
    pub(crate) events: u64,
    /// What is damaged. Never anything where it was opened for writing.
    pub(crate) damage: Vec<Corruption>,
}

/// Recovers a shard into an empty index.
///
/// # Errors
///
/// `Corrupt` for damage where it is opened for writing, `Unsupported` for a segment of another format, `Io` for what
/// the operating system refuses: a read that fails is never taken for the end of the log.
pub(crate) fn recover(
    disk: &dyn Disk,
    identity: &Identity,
    shard: ShardId,
    mode: Mode,
    index: &Index,
) -> Result<Recovered, Error> {
    let mut replay = replay::Replay::new(index);
    let mut source = Source::new(disk, identity, shard);
    let mut recovered = walk_log(&mut source, mode, &mut replay)?;
    (recovered.records, recovered.events) = (replay.records, replay.events);
    Ok(recovered)
}

/// Walks the log of a shard and shows it to a visitor.
pub(crate) fn walk_log(
    source: &mut Source<'_>,
    mode: Mode,
    visit: &mut dyn Visit,
) -> Result<Recovered, Error> {
    let survey = survey::survey(source)?;
    let walked = Walk::new(source, &survey, mode, visit).run()?;
    let accepted = walked.accepted;
    let above = survey.kept.iter().filter(|kept| walk::is_above(kept.id(), accepted.as_ref()));
    let above =
        above.map(|kept| Leftover { name: FileName::Segment(kept.id()), bytes: kept.bytes });
    let cut = walked.segments.last().filter(|last| u64::from(last.end) < last.bytes);
    Ok(Recovered {
        accepted,
        end: accepted.map_or(Position::START, |end| end.position),
        start: Start {
            accepted,
            highest: survey.highest,
            cut: cut.map(|last| Cut { path: last.path.clone(), bytes: last.end.into() }),
            leftovers: survey.leftovers.into_iter().chain(above).collect(),
            spares: survey.spares,
        },
        segments: walked.segments,
        records: 0,
        events: 0,
        damage: walked.damage,
    })
}
