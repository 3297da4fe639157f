//! The first pass over a shard: which segments there are, which of them hold the log, and how far it is proven.
//!
//! What an opening wrote is a *stretch*: the segment that it began with, and those that it rolled to. The header of the
//! first says where the stretch before ended. So the stretches are found from the newest back, and a segment that lies
//! behind a stated end and before the segment that states it is *superseded*.
//!
//! The proven end is fixed here. The second pass judges by it, whatever a live writer does meanwhile.

use std::collections::BTreeSet;

use super::bytes::Flaw;
use super::files::{Files, LOOKS_MAX, Listed, Trouble};
use super::frame::{End, HEADER_BYTES, Place, SegmentHeader, flush, segment};
use super::scan::flushes;
use super::{Damage, Shard};
use crate::error::{Error, ErrorKind};
use crate::id::{Position, SegmentId};

/// A segment that may hold a part of the log.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) id: SegmentId,
    pub(super) path: String,
    pub(super) bytes: u64,
    /// `None` if it is damaged and the segment is walked all the same.
    pub(super) header: Option<SegmentHeader>,
    /// Flushes of this sequence and above can't stand in a segment below: what is there was superseded.
    pub(super) first_sequence: Option<u64>,
    /// What every flush in it states.
    pub(super) salt: Option<u64>,
}

/// What one opening wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stretch {
    pub(super) first: SegmentId,
    /// The segment that begins it was found.
    pub(super) whole: bool,
    /// Where the log ended when it began.
    pub(super) after: Option<End>,
    /// Where it ended, as the next one states; `None` for the newest.
    pub(super) until: Option<End>,
}

impl Stretch {
    pub(super) fn holds(&self, id: SegmentId) -> bool {
        id >= self.first && self.until.is_none_or(|end| id <= end.position.segment())
    }
}

/// What the first pass found.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) segments: Vec<Segment>,
    pub(super) stretches: Vec<Stretch>,
    pub(super) proven: Position,
    pub(super) damage: Vec<Damage>,
}

/// A file and what its first block says.
struct Seen {
    listed: Listed,
    header: Result<SegmentHeader, Unusable>,
}

enum Unusable {
    /// It belongs elsewhere.
    Alien(String),
    /// It can't be read. What flushes of its own say all the same.
    Bad { what: String, flushes: Option<OwnFlushes> },
}

/// What the flushes say of a segment whose header says nothing.
#[derive(Clone, Copy)]
struct OwnFlushes {
    frontier: Position,
    first_sequence: u64,
    salt: u64,
}

/// Looks until a look was not disturbed.
pub(super) fn survey(shard: &Shard, files: &mut Files<'_>) -> Result<Survey, Error> {
    let mut looks = 0;
    loop {
        match look(shard, files) {
            Ok(survey) => return Ok(survey),
            Err(Trouble::Failed(error)) => return Err(error),
            Err(Trouble::Moved(error)) => {
                looks += 1;
                if looks == LOOKS_MAX {
                    return Err(Error::io("looking at segments that keep changing", error));
                }
            }
        }
    }
}

fn look(shard: &Shard, files: &mut Files<'_>) -> Result<Survey, Trouble> {
    let mut seen = Vec::new();
    let mut renamed = Vec::new();
    for mut listed in files.list()? {
        let header = read_header(shard, files, &listed)?;
        if let Err(Unusable::Alien(what)) = &header
            && shard.rescue
            && let Some(own) = misnamed(shard, files, &listed)?
        {
            renamed.push(Damage::note(&listed.path, format!("{what}; taken for what it says")));
            listed.id = own.id;
            seen.push(Seen { listed, header: Ok(own) });
            continue;
        }
        seen.push(Seen { listed, header });
    }
    // Whole before damaged, and under its own name before under another's.
    seen.sort_by_key(|seen| {
        let renamed = seen.listed.path != files.path(seen.listed.id);
        (seen.listed.id, seen.header.is_err(), renamed)
    });
    seen.dedup_by_key(|seen| seen.listed.id);

    let whole: Vec<SegmentHeader> =
        seen.iter().filter_map(|seen| seen.header.as_ref().ok().copied()).collect();
    let mut survey = Survey { stretches: stretches(&whole), damage: renamed, ..Survey::default() };
    for seen in &mut seen {
        let superseded = survey.is_superseded(seen.listed.id);
        if let Err(Unusable::Bad { flushes, .. }) = &mut seen.header
            && !superseded
        {
            *flushes = own_flushes(shard, files, &seen.listed)?;
        }
    }
    survey.proven = prove(shard, files, &survey, &seen)?;

    let rolled_from = |id: SegmentId| {
        whole.iter().any(|header| !header.opened && header.id.0.checked_sub(1) == Some(id.0))
    };
    for seen in &seen {
        let Listed { id, ref path, bytes, .. } = seen.listed;
        if let Err(Unusable::Alien(what)) = &seen.header {
            survey.damage.push(Damage::of_segment(path, bytes, what.clone()));
            continue;
        }
        if survey.is_superseded(id) {
            continue;
        }
        match &seen.header {
            Ok(header) => survey.segments.push(Segment {
                id,
                path: path.clone(),
                bytes,
                header: Some(*header),
                first_sequence: None,
                salt: Some(header.salt),
            }),
            Err(Unusable::Bad { what, flushes }) => {
                let held = flushes.is_some() || rolled_from(id) || survey.proven.segment() >= id;
                if !held {
                    continue;
                }
                let own = flushes.filter(|_| shard.rescue);
                survey.damage.push(match own {
                    Some(_) => Damage::note(path, what.clone()),
                    None => Damage::of_segment(path, bytes, what.clone()),
                });
                if let Some(own) = own {
                    survey.segments.push(Segment {
                        id,
                        path: path.clone(),
                        bytes,
                        header: None,
                        first_sequence: Some(own.first_sequence),
                        salt: Some(own.salt),
                    });
                }
            }
            Err(Unusable::Alien(_)) => {}
        }
    }
    survey.find_missing(files, &seen, &rolled_from);
    if shard.rescue {
        survey.begin_with_the_lowest();
    }
    Ok(survey)
}

impl Survey {
    fn is_superseded(&self, id: SegmentId) -> bool {
        self.stretches.iter().filter(|stretch| stretch.whole).any(|stretch| {
            let end = stretch.after.map_or(SegmentId(0), |end| end.position.segment());
            end < id && id < stretch.first
        })
    }

    /// What has no beginning begins with the lowest segment there is, also if its header is damaged.
    fn begin_with_the_lowest(&mut self) {
        let Some(lowest) = self.segments.iter().map(|segment| segment.id).min() else { return };
        match self.stretches.first_mut() {
            Some(oldest) if oldest.whole => {}
            Some(oldest) => oldest.first = oldest.first.min(lowest),
            None => {
                let oldest = Stretch { first: lowest, whole: false, after: None, until: None };
                self.stretches.push(oldest);
            }
        }
    }

    /// Segments that others tell of: what a segment rolled from, where a log ended, where the proven end lies.
    fn find_missing(
        &mut self,
        files: &Files<'_>,
        seen: &[Seen],
        rolled_from: &dyn Fn(SegmentId) -> bool,
    ) {
        let rolled = self
            .segments
            .iter()
            .filter(|segment| segment.header.is_some_and(|header| !header.opened));
        let before = rolled.map(|segment| segment.id.0 - 1);
        let ends = self.stretches.iter().filter_map(|stretch| stretch.until);
        let told: BTreeSet<u32> = before
            .chain(ends.map(|end| end.position.segment().0))
            .chain([self.proven.segment().0])
            .filter(|id| *id > 0 && !seen.iter().any(|seen| seen.listed.id.0 == *id))
            .collect();
        for id in told.into_iter().map(SegmentId) {
            let needed = rolled_from(id) || self.proven.segment() >= id;
            if needed && !self.is_superseded(id) {
                let what = format!("segment {id} is missing: later segments go on from it");
                self.damage.push(Damage::of_segment(&files.path(id), 0, what));
            }
        }
    }
}

/// The stretches, oldest first.
fn stretches(headers: &[SegmentHeader]) -> Vec<Stretch> {
    let mut found = Vec::new();
    // From here on only what lies at or below `until`, and below the segment that states it, is looked at.
    let mut until: Option<End> = None;
    let mut below: Option<SegmentId> = None;
    loop {
        let lies_below = |id: SegmentId| {
            below.is_none_or(|first| id < first)
                && until.is_none_or(|end| id <= end.position.segment())
        };
        let mut here = headers.iter().filter(|header| lies_below(header.id));
        let Some(opened) = here.clone().rfind(|header| header.opened) else {
            // Its beginning is lost. Even with nothing left of it, an end may be stated.
            let first = here.next().map(|header| header.id);
            if let Some(first) = first.or(until.map(|end| end.position.segment())) {
                found.push(Stretch { first, whole: false, after: None, until });
            }
            break;
        };
        found.push(Stretch { first: opened.id, whole: true, after: opened.accepted, until });
        if opened.accepted.is_none() {
            break;
        }
        (until, below) = (opened.accepted, Some(opened.id));
    }
    found.reverse();
    found
}

/// The highest frontier or accepted end that anything whole states. Frontiers never fall along the log: the newest
/// segment with a flush in it knows the highest.
fn prove(
    shard: &Shard,
    files: &mut Files<'_>,
    survey: &Survey,
    seen: &[Seen],
) -> Result<Position, Trouble> {
    let lost = seen.iter().filter_map(|seen| match &seen.header {
        Err(Unusable::Bad { flushes: Some(own), .. }) => Some(own.frontier),
        _ => None,
    });
    let mut proven = lost.max().unwrap_or(Position::START);
    let Some(newest) = survey.stretches.last() else { return Ok(proven) };
    proven = proven.max(newest.after.or(newest.until).map_or(Position::START, |end| end.position));
    for seen in seen.iter().rev().filter(|seen| newest.holds(seen.listed.id)) {
        let Ok(header) = &seen.header else { continue };
        let most = seen.listed.bytes.min(header.bytes);
        let bytes = files.read(&seen.listed.path, 0, most, true)?;
        let place = shard.place(header.id, Some(header.salt));
        let frontiers = flushes(bytes, shard.facts.block, &place)
            .filter_map(|found| found.header.map(|header| header.frontier));
        if let Some(highest) = frontiers.max() {
            return Ok(proven.max(highest));
        }
    }
    Ok(proven)
}

/// What the flush headers in a segment say whose own header is damaged.
fn own_flushes(
    shard: &Shard,
    files: &mut Files<'_>,
    listed: &Listed,
) -> Result<Option<OwnFlushes>, Trouble> {
    let block = shard.facts.block as usize;
    let bytes = files.read(&listed.path, 0, listed.bytes, true)?;
    let mut own: Option<OwnFlushes> = None;
    for (nth, bytes) in bytes.chunks(block).enumerate().skip(1) {
        let place = shard.place(listed.id, own.map(|own| own.salt)).at((nth * block) as u32);
        let Ok(found) = flush(bytes, &place) else { continue };
        let known = own.get_or_insert(OwnFlushes {
            frontier: found.frontier,
            first_sequence: found.sequence,
            salt: found.salt,
        });
        known.frontier = known.frontier.max(found.frontier);
    }
    Ok(own)
}

fn read_header(
    shard: &Shard,
    files: &mut Files<'_>,
    listed: &Listed,
) -> Result<Result<SegmentHeader, Unusable>, Trouble> {
    if !listed.regular {
        let what = "a segment's name, but not a regular file".into();
        return Ok(Err(Unusable::Alien(what)));
    }
    let header = match first_block(shard, files, listed)? {
        Ok(header) => header,
        Err(flaw) if flaw.unknown => {
            let what = format!("{}: {}", listed.path, flaw.what);
            return Err(Trouble::Failed(Error::new(ErrorKind::Unsupported, what)));
        }
        Err(flaw) => {
            let what = format!("the segment header is damaged: {}", flaw.what);
            return Ok(Err(Unusable::Bad { what, flushes: None }));
        }
    };
    let (store, block) = (shard.facts.store, shard.facts.block);
    let what = if header.store != store {
        format!("a segment of store {:032x}, while this is store {store:032x}", header.store)
    } else if header.shard != shard.number {
        format!("a segment of shard {}, found in shard {}", header.shard, shard.number)
    } else if header.id != listed.id {
        let (own, name) = (header.id, listed.id);
        format!("this is segment {own}, under the name of segment {name}: a renamed or copied file")
    } else if header.block != block {
        format!("written in blocks of {} bytes, in a store of blocks of {block}", header.block)
    } else {
        return Ok(Ok(header));
    };
    Ok(Err(Unusable::Alien(what)))
}

fn first_block(
    shard: &Shard,
    files: &mut Files<'_>,
    listed: &Listed,
) -> Result<Result<SegmentHeader, Flaw>, Trouble> {
    let bytes = listed.bytes.min(shard.facts.block.into());
    Ok(segment(files.read(&listed.path, 0, bytes, false)?))
}

/// What a segment under another's name is, if all else about it fits.
fn misnamed(
    shard: &Shard,
    files: &mut Files<'_>,
    listed: &Listed,
) -> Result<Option<SegmentHeader>, Trouble> {
    if !listed.regular {
        return Ok(None);
    }
    let header = first_block(shard, files, listed)?.ok();
    Ok(header.filter(|header| {
        let facts = &shard.facts;
        (header.store, header.block, header.shard) == (facts.store, facts.block, shard.number)
    }))
}

impl Shard {
    /// The beginning of a segment of this shard.
    pub(super) fn place(&self, id: SegmentId, salt: Option<u64>) -> Place {
        let position = Position::new(id, 0);
        Place { store: self.facts.store, shard: self.number, position, salt }
    }
}

impl Place {
    /// The same segment at another offset.
    pub(super) fn at(mut self, offset: u32) -> Place {
        self.position = Position::new(self.position.segment(), offset);
        self
    }
}

/// Every whole segment header of a shard.
pub(super) fn headers(files: &mut Files<'_>) -> Result<Vec<SegmentHeader>, Error> {
    let mut found = Vec::new();
    for listed in files.list()?.into_iter().filter(|listed| listed.regular) {
        // The block is what the header is asked for: 512 bytes of it say it.
        match files.read(&listed.path, 0, listed.bytes.min(HEADER_BYTES as u64), false) {
            Ok(bytes) => found.extend(segment(bytes).ok()),
            Err(Trouble::Moved(_)) => {}
            Err(Trouble::Failed(error)) => return Err(error),
        }
    }
    Ok(found)
}
