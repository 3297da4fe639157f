//! The first look at a shard's directory: which segments there are, which of them matter, how far the log is proven.
//!
//! Names are taken strictly by their grammar; anything else in the directory is not ours and is left alone. Of most
//! segments the header alone is read; of the newest with a flush in it, every flush header, because the newest flush
//! knows the highest frontier.
//!
//! Beside a live writer files appear, are renamed and are cut while this looks. What it must find does not move: a
//! segment below the proven end keeps its name and its bytes. So a look that trips over a change is taken again, a
//! bounded number of times, and whatever is *read* later is judged against the proven end found here.

use std::collections::BTreeSet;
use std::io;

use super::corruption::Corruption;
use super::source::{Source, Trip};
use super::verdict::{Header, SegmentCase, SegmentVerdict, Stretch, judge_segment, stretches};
use crate::disk::Entry;
use crate::error::{Error, ErrorKind};
use crate::format::{
    AcceptedEnd, Damage, Depth, FileName, FlushHeader, Found, Origin, Scan, SegmentHeader,
    SegmentKind,
};
use crate::id::{Position, SegmentId};
use crate::log::prepare::Leftover;
use crate::sync::broken;

/// How often a look is taken again because something moved.
const LOOKS_MAX: usize = 64;

/// A segment that may hold a part of the log.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Its header.
    pub(super) header: SegmentHeader,
    /// The file, relative to the store's directory.
    pub(super) path: String,
    /// How long the file is.
    pub(super) bytes: u64,
}

impl Kept {
    pub(super) fn id(&self) -> SegmentId {
        self.header.origin.segment
    }
}

/// What a look at the directory found.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The segments to walk, oldest first.
    pub(super) kept: Vec<Kept>,
    /// How they hang together.
    pub(super) stretches: Vec<Stretch>,
    /// All below it was durable.
    pub(super) proven: Position,
    /// Segments without anything of the log.
    pub(super) leftovers: Vec<Leftover>,
    /// Prepared files that are no segments.
    pub(super) spares: Vec<Leftover>,
    /// The highest number that any file bears.
    pub(super) highest: SegmentId,
    /// Segments that should be there and can't be used.
    pub(super) damage: Vec<Corruption>,
}

/// One `.seg` file as it was found.
struct Seen {
    id: SegmentId,
    bytes: u64,
    header: Result<SegmentHeader, Unusable>,
}

/// Why a segment leads nowhere.
struct Unusable {
    header: Header,
    what: String,
    /// The frontier of a flush that is whole all the same.
    frontier: Option<Position>,
}

impl Unusable {
    fn alien(what: String) -> Unusable {
        Unusable { header: Header::Alien, what, frontier: None }
    }
}

/// Looks until a look was not disturbed.
pub(super) fn survey(source: &mut Source<'_>) -> Result<Survey, Error> {
    let mut looks = 0;
    loop {
        match look(source) {
            Ok(survey) => return Ok(survey),
            Err(Trip::Failed(error)) => return Err(error),
            Err(Trip::Moved(error)) => {
                looks += 1;
                if looks == LOOKS_MAX {
                    return Err(Error::io(format_args!("listing {}", source.dir()), error));
                }
            }
        }
    }
}

fn look(source: &mut Source<'_>) -> Result<Survey, Trip> {
    let mut survey = Survey::default();
    let mut seen = Vec::new();
    for entry in source.list()? {
        match FileName::parse(&entry.name) {
            Some(FileName::Segment(id)) => {
                survey.highest = survey.highest.max(id);
                let header = read_header(source, id, &entry)?;
                seen.push(Seen { id, bytes: entry.bytes, header });
            }
            Some(FileName::Spare(id)) if entry.regular => {
                survey.highest = survey.highest.max(id);
                survey.spares.push(Leftover { name: FileName::Spare(id), bytes: entry.bytes });
            }
            _ => {}
        }
    }
    seen.sort_unstable_by_key(|seen| seen.id);
    survey.judge(source, &mut seen)?;
    Ok(survey)
}

/// Reads what a segment says it is, and holds it against its name and the store's identity.
fn read_header(
    source: &mut Source<'_>,
    id: SegmentId,
    entry: &Entry,
) -> Result<Result<SegmentHeader, Unusable>, Trip> {
    if !entry.regular {
        return Ok(Err(Unusable::alien("a segment's name, but not a regular file".into())));
    }
    let block = source.block_bytes();
    let bytes = source.read(id, 0, entry.bytes.min(u64::from(block)), false)?;
    let header = match SegmentHeader::decode(bytes) {
        Ok(header) => header,
        Err(damage) if damage.is_unsupported() => {
            let path = source.path(FileName::Segment(id));
            let error = Error::new(ErrorKind::Unsupported, format!("{path}: {damage}"));
            return Err(Trip::Failed(error));
        }
        Err(damage) => {
            let what = format!("the segment header is damaged: {damage}");
            return Ok(Err(Unusable { header: Header::Bad, what, frontier: None }));
        }
    };
    let found = header.origin;
    let what = if found.store != source.store() {
        let foreign = Damage::Foreign { expected: source.store(), found: found.store };
        format!("a segment {foreign}")
    } else if found.shard != source.shard() {
        format!("a segment of shard {}, found in shard {}", found.shard, source.shard())
    } else if found.segment != id {
        format!(
            "this is segment {}, under the name of segment {id}: a renamed or copied file",
            found.segment
        )
    } else if header.block_bytes != block {
        format!(
            "written in blocks of {} bytes, in a store of blocks of {block}",
            header.block_bytes
        )
    } else {
        return Ok(Ok(header));
    };
    Ok(Err(Unusable::alien(what)))
}

impl Survey {
    fn judge(&mut self, source: &mut Source<'_>, seen: &mut [Seen]) -> Result<(), Trip> {
        let whole: Vec<(SegmentId, SegmentKind)> = seen
            .iter()
            .filter_map(|seen| seen.header.as_ref().ok().map(|header| (seen.id, header.kind)))
            .collect();
        self.stretches = stretches(&whole);
        for seen in seen.iter_mut() {
            if let Err(unusable) = &mut seen.header
                && unusable.header == Header::Bad
                && !self.superseded(seen.id)
            {
                unusable.frontier = frontier_without_header(source, seen.id, seen.bytes)?;
            }
        }
        self.proven = self.prove(source, seen)?;
        let block = u64::from(source.block_bytes());
        if broken!(ProvesTooLittle) {
            self.proven = Position::from_raw(self.proven.get().saturating_sub(block));
        }
        if broken!(ProvesTooMuch) {
            self.proven = Position::from_raw(self.proven.get() + block);
        }

        let followed = |id: SegmentId| {
            id.0.checked_add(1).is_some_and(|next| {
                whole.iter().any(|&(id, kind)| id.0 == next && kind == SegmentKind::Rolled)
            })
        };
        for found in &*seen {
            let header = match &found.header {
                Ok(_) => Header::Whole,
                Err(unusable) => unusable.header,
            };
            let case = SegmentCase {
                header,
                superseded: self.superseded(found.id),
                flushes: found.header.as_ref().is_err_and(|why| why.frontier.is_some()),
                followed: followed(found.id),
                proven: self.proven.segment() >= found.id,
            };
            let name = FileName::Segment(found.id);
            match (judge_segment(case), &found.header) {
                (SegmentVerdict::Keep, Ok(header)) => self.kept.push(Kept {
                    header: *header,
                    path: source.path(name),
                    bytes: found.bytes,
                }),
                (SegmentVerdict::LeaveOut, _) => {
                    self.leftovers.push(Leftover { name, bytes: found.bytes });
                }
                (_, header) => {
                    let what =
                        header.as_ref().map_or_else(|why| why.what.clone(), |_| String::new());
                    self.damage.push(source.corruption(found.id, 0, what));
                }
            }
        }
        self.miss(source, seen, &followed);
        Ok(())
    }

    /// Whether a segment lies between an accepted end and the segment that states it.
    fn superseded(&self, id: SegmentId) -> bool {
        self.stretches.iter().filter(|stretch| stretch.opened).any(|stretch| {
            let end = stretch.after.map_or(SegmentId(0), |end| end.position.segment());
            end < id && id < stretch.first
        })
    }

    /// The segments that others tell of and that are not there.
    fn miss(&mut self, source: &Source<'_>, seen: &[Seen], followed: &dyn Fn(SegmentId) -> bool) {
        let before = self.kept.iter().filter(|kept| kept.header.kind == SegmentKind::Rolled);
        let told = before.map(|kept| kept.id().0.saturating_sub(1));
        let stated = self.stretches.iter().filter_map(|stretch| stretch.until);
        let stated = stated.map(|end: AcceptedEnd| end.position.segment().0);
        let proven = self.proven.segment().0;
        let missing: BTreeSet<SegmentId> = told
            .chain(stated)
            .chain([proven])
            .map(SegmentId)
            .filter(|id| id.0 != 0 && seen.binary_search_by_key(id, |seen| seen.id).is_err())
            .collect();
        for id in missing {
            let case = SegmentCase {
                header: Header::Missing,
                superseded: self.superseded(id),
                flushes: false,
                followed: followed(id),
                proven: self.proven.segment() >= id,
            };
            if judge_segment(case) == SegmentVerdict::Damage {
                let what = format!("segment {id} is missing: later segments go on from it");
                self.damage.push(source.corruption(id, 0, what));
            }
        }
    }

    /// The highest position that anything whole states as durable.
    fn prove(&self, source: &mut Source<'_>, seen: &[Seen]) -> Result<Position, Trip> {
        let Some(last) = self.stretches.last() else {
            return Ok(highest_frontier(seen).unwrap_or(Position::START));
        };
        let stated = last.after.or(last.until).map_or(Position::START, |end| end.position);
        let mut proven = stated.max(highest_frontier(seen).unwrap_or(Position::START));
        for seen in seen.iter().rev().filter(|seen| last.holds(seen.id)) {
            let Ok(header) = &seen.header else { continue };
            let bytes = source.read_all(seen.id, header, seen.bytes, true)?;
            let frontiers =
                Scan::new(bytes, header, Depth::Heads).filter_map(|found| match found {
                    Found::Flush { header, .. } => Some(header.frontier),
                    // What the header says was true when it was written, whatever became of the rest.
                    Found::Invalid { header, .. } => header.map(|header| header.frontier),
                    Found::Unused { .. } => None,
                });
            if let Some(frontier) = frontiers.max() {
                // Frontiers only rise: no older segment knows a higher one.
                proven = proven.max(frontier);
                break;
            }
        }
        Ok(proven)
    }
}

fn highest_frontier(seen: &[Seen]) -> Option<Position> {
    seen.iter().filter_map(|seen| seen.header.as_ref().err()?.frontier).max()
}

/// The highest frontier that a segment's own flushes state, if its header can't be read and there are any.
fn frontier_without_header(
    source: &mut Source<'_>,
    id: SegmentId,
    bytes: u64,
) -> Result<Option<Position>, Trip> {
    let block = source.block_bytes();
    // The salt is what the lost header would say. A flush that is whole tells its own.
    let origin = Origin { store: source.store(), shard: source.shard(), segment: id, salt: 0 };
    let bytes = source.read(id, 0, bytes, true)?;
    let mut highest = None;
    for (nth, bytes) in bytes.chunks(block as usize).enumerate().skip(1) {
        let offset = (nth as u64 * u64::from(block)) as u32;
        let flush = match FlushHeader::decode(bytes, &origin, offset) {
            Err(Damage::Stale { found, .. }) => {
                FlushHeader::decode(bytes, &Origin { salt: found, ..origin }, offset)
            }
            decoded => decoded,
        };
        if let Ok((flush, _)) = flush {
            highest = highest.max(Some(flush.frontier));
        }
    }
    Ok(highest)
}

impl From<Error> for Trip {
    fn from(error: Error) -> Trip {
        Trip::Failed(error)
    }
}

impl Trip {
    /// Sorts an error of the operating system: a file that is gone or shorter than listed has moved.
    pub(super) fn sort(doing: impl std::fmt::Display, error: io::Error) -> Trip {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => Trip::Moved(error),
            _ => Trip::Failed(Error::io(doing, error)),
        }
    }
}
