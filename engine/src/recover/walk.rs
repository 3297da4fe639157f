//! The walk along the log: from the first stretch to the last, segment by segment, flush by flush.
//!
//! At every step the facts go through [`judge_step`]; this file gathers them and does what is decided. One segment is
//! in memory at a time.
//!
//! Flush headers and the heads of records are verified throughout. What lies at or above the proven end may be torn, so
//! there the events are verified too, from the device and not from a cache, and the file is synced *before* anything
//! of it is accepted: what is shown once must still be there after the next loss of power. A reader that can't sync
//! stops at the proven end instead.
//!
//! Where damage is tolerated the walk goes on behind it: with what is whole of a damaged flush, then with the next flush
//! of a higher sequence.

use super::corruption::Corruption;
use super::source::{Loaded, Source};
use super::survey::{Kept, Survey};
use super::verdict::{Here, Reached, Step, StepCase, Stretch, judge_step, reached};
use super::{Mode, SegmentFacts};
use crate::error::Error;
use crate::format::{
    AcceptedEnd, Damage, Depth, FLUSH_HEADER_BYTES, FlushHeader, Found, RecordView, Scan, records,
    records_verified,
};
use crate::id::{FlushSequence, Position, SegmentId};
use crate::sync::broken;

/// Damage is told in so many items at most.
pub(super) const DAMAGE_MAX: usize = 1000;

/// Who is told what the walk accepts, in log order.
pub(crate) trait Visit {
    /// A segment is about to be walked, or was left out; so many bytes of file.
    fn segment(&mut self, bytes: u64) {
        let _ = bytes;
    }

    /// A flush.
    fn flush(&mut self) {}

    /// A write whose head is whole. Tells what is wrong with it in its place.
    fn record(&mut self, record: &RecordView<'_>, at: Position) -> Result<(), Objection>;
}

/// Why a record can't stand where it stands.
#[derive(Debug)]
pub(crate) enum Objection {
    /// The record is damage: of this aggregate, this.
    Damage {
        /// The aggregate, if it concerns one.
        key: Option<Vec<u8>>,
        /// What is wrong.
        what: String,
    },
    /// The walk can't go on.
    Failed(Error),
}

/// What the walk came to.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// The last flush accepted.
    pub(super) accepted: Option<AcceptedEnd>,
    /// The segments that hold accepted flushes.
    pub(super) segments: Vec<SegmentFacts>,
    /// What is damaged.
    pub(super) damage: Vec<Corruption>,
}

/// Where the walk goes on.
enum Turn {
    NextFlush,
    NextSegment,
    NextStretch,
    Over,
}

pub(super) struct Walk<'a, 'd> {
    source: &'a mut Source<'d>,
    survey: &'a Survey,
    mode: Mode,
    visit: &'a mut dyn Visit,
    walked: Walked,
    /// Damage was met, and no flush behind it yet.
    lost: bool,
    /// This reader could not make the tail durable.
    limited: bool,
}

impl<'a, 'd> Walk<'a, 'd> {
    pub(super) fn new(
        source: &'a mut Source<'d>,
        survey: &'a Survey,
        mode: Mode,
        visit: &'a mut dyn Visit,
    ) -> Walk<'a, 'd> {
        Walk { source, survey, mode, visit, walked: Walked::default(), lost: false, limited: false }
    }

    /// Walks the log to its end.
    pub(super) fn run(mut self) -> Result<Walked, Error> {
        for damage in self.survey.damage.clone() {
            self.damaged(damage)?;
        }
        'stretches: for stretch in &self.survey.stretches {
            if stretch.opened {
                self.walked.accepted = stretch.after;
            }
            // What has no beginning was told of already; any flush will do.
            self.lost = !stretch.opened;
            let segments: Vec<&Kept> =
                self.survey.kept.iter().filter(|kept| stretch.holds(kept.id())).collect();
            for (nth, kept) in segments.iter().enumerate() {
                self.visit.segment(kept.bytes);
                let following = segments.get(nth + 1..).unwrap_or_default();
                match self.segment(stretch, kept, following)? {
                    Turn::NextFlush | Turn::NextSegment => {}
                    Turn::NextStretch => continue 'stretches,
                    Turn::Over => break 'stretches,
                }
            }
        }
        Ok(self.walked)
    }

    fn segment(
        &mut self,
        stretch: &Stretch,
        kept: &Kept,
        following: &[&Kept],
    ) -> Result<Turn, Error> {
        let tail = stretch.until.is_none() && kept.id() >= self.survey.proven.segment();
        let direct = tail && !broken!(TrustsCache);
        let loaded = self.source.load(kept.id(), &kept.header, direct)?;
        if tail
            && !broken!(RecoversUnsynced)
            && let Some(file) = &loaded.file
        {
            match (file.sync(), self.mode) {
                (Ok(()), _) => {}
                (Err(_), Mode::Read) => self.limited = true,
                (Err(error), Mode::Write) => {
                    return Err(Error::io(format_args!("syncing {}", kept.path), error));
                }
            }
        }
        let turn = self.flushes(stretch, kept, following, &loaded, tail);
        self.source.give_back(loaded);
        turn
    }

    fn flushes(
        &mut self,
        stretch: &Stretch,
        kept: &Kept,
        following: &[&Kept],
        loaded: &Loaded,
        tail: bool,
    ) -> Result<Turn, Error> {
        let bytes = loaded.bytes();
        let mut end = kept.header.block_bytes;
        for mut found in Scan::new(bytes, &kept.header, Depth::Heads) {
            end = found.offset() + found.blocks() * kept.header.block_bytes;
            if let Found::Flush { offset, header, blocks, .. } = found
                && tail
                && !broken!(AcceptsTornEvents | AcceptsTornRecords)
                && header.position() >= self.survey.proven
                && let Err((at, damage)) = verify_events(bytes, &header)
            {
                found = Found::Invalid { offset, blocks, at, damage, header: Some(header) };
            }
            match self.step(stretch, kept, following, bytes, &found)? {
                Turn::NextFlush => {}
                turn => return Ok(turn),
            }
        }
        self.step(stretch, kept, following, bytes, &Found::Unused { offset: end, blocks: 0 })
    }

    fn step(
        &mut self,
        stretch: &Stretch,
        kept: &Kept,
        following: &[&Kept],
        bytes: &[u8],
        found: &Found,
    ) -> Result<Turn, Error> {
        if self.lost {
            return self.step_lost(stretch, kept, bytes, found);
        }
        let here = match found {
            Found::Flush { header, .. } if self.is_next(header) => Here::Next,
            Found::Flush { .. } => Here::Other,
            Found::Invalid { .. } => Here::Invalid,
            Found::Unused { .. } => Here::Nothing,
        };
        let reached =
            reached(self.walked.accepted.as_ref(), stretch, self.survey.proven, self.limited);
        let rolled = match (here, reached) {
            (Here::Next, _) | (_, Reached::Stated | Reached::Astray | Reached::Limit) => false,
            _ => self.goes_on_in(following)?,
        };
        match judge_step(StepCase { reached, here, rolled }) {
            Step::Accept => {
                self.accept(kept, bytes, found, false)?;
                Ok(Turn::NextFlush)
            }
            Step::Roll => Ok(Turn::NextSegment),
            Step::Reopen => Ok(Turn::NextStretch),
            Step::End => Ok(Turn::Over),
            Step::Damage if broken!(CutsOnRot) => Ok(Turn::Over),
            Step::Damage => {
                self.damaged(self.describe(kept, bytes, found, reached))?;
                self.lost = true;
                match found {
                    // Its own header fits: only a part of it is lost.
                    Found::Invalid { header: Some(header), .. }
                        if reached == Reached::Below && self.is_next(header) =>
                    {
                        self.accept(kept, bytes, found, true)?;
                        Ok(Turn::NextFlush)
                    }
                    _ => self.step_lost(stretch, kept, bytes, found),
                }
            }
        }
    }

    /// A step behind damage: the next flush that comes later in the log is where it goes on.
    fn step_lost(
        &mut self,
        stretch: &Stretch,
        kept: &Kept,
        bytes: &[u8],
        found: &Found,
    ) -> Result<Turn, Error> {
        let (Found::Flush { header, .. } | Found::Invalid { header: Some(header), .. }) = found
        else {
            return Ok(Turn::NextFlush);
        };
        let later = self.walked.accepted.is_none_or(|end| header.sequence > end.sequence);
        let within = stretch.until.is_none_or(|end| header.position() < end.position);
        // What lies above the proven end may never have been acknowledged.
        let shown = !self.limited || header.position() < self.survey.proven;
        if later && within && shown {
            let damaged = matches!(found, Found::Invalid { .. });
            if damaged {
                self.damaged(self.describe(kept, bytes, found, Reached::Below))?;
            }
            self.accept(kept, bytes, found, damaged)?;
        }
        Ok(Turn::NextFlush)
    }

    fn is_next(&self, header: &FlushHeader) -> bool {
        match &self.walked.accepted {
            None => header.sequence == FlushSequence(1) && header.previous == 0,
            Some(end) => {
                Some(header.sequence.0) == end.sequence.0.checked_add(1)
                    && header.previous == end.checksum
            }
        }
    }

    /// Whether the log goes on in the following segments: the first of them that begins with a flush begins with the
    /// next one. A segment can stay empty when a write that is too large for it comes.
    fn goes_on_in(&self, following: &[&Kept]) -> Result<bool, Error> {
        for kept in following {
            let mut bytes = [0; FLUSH_HEADER_BYTES];
            let direct = kept.id() >= self.survey.proven.segment();
            if !self.source.first_flush(kept.id(), &mut bytes, direct)? {
                continue;
            }
            let flush = FlushHeader::decode(&bytes, &kept.header.origin, kept.header.block_bytes);
            if let Ok((header, _)) = flush {
                return Ok(self.is_next(&header));
            }
        }
        Ok(false)
    }

    /// Takes a flush into the log. Of a `damaged` one, whose header is whole, what can be read.
    fn accept(
        &mut self,
        kept: &Kept,
        bytes: &[u8],
        found: &Found,
        damaged: bool,
    ) -> Result<(), Error> {
        let (Found::Flush { header, .. } | Found::Invalid { header: Some(header), .. }) = found
        else {
            return Ok(());
        };
        let start = bytes.get(header.offset as usize..).unwrap_or_default();
        let Ok((_, checksum)) = FlushHeader::decode(start, &header.origin, header.offset) else {
            return Ok(());
        };
        self.visit.flush();
        let content =
            if damaged { records_verified(bytes, header) } else { records(bytes, header) };
        // Where the next record of a damaged flush begins is unknown behind the first that is damaged.
        for (position, record) in content.map_while(Result::ok) {
            match self.visit.record(&record, position) {
                Ok(()) => {}
                Err(Objection::Failed(error)) => return Err(error),
                Err(Objection::Damage { key, what }) => {
                    let mut damage =
                        self.source.corruption(kept.id(), position.offset().into(), what);
                    if let Some(key) = key {
                        damage = damage.of(&key);
                    }
                    self.damaged(damage)?;
                }
            }
        }
        self.lost = false;
        let position = header.end_position(kept.header.block_bytes);
        self.walked.accepted = Some(AcceptedEnd { position, sequence: header.sequence, checksum });
        let end = position.offset();
        match self.walked.segments.last_mut() {
            Some(facts) if facts.id == kept.id() => facts.end = end,
            _ => self.walked.segments.push(SegmentFacts {
                id: kept.id(),
                salt: kept.header.origin.salt,
                path: kept.path.clone(),
                end,
                bytes: kept.bytes,
            }),
        }
        Ok(())
    }

    /// Notes damage; where none is tolerated that is the end.
    fn damaged(&mut self, corruption: Corruption) -> Result<(), Error> {
        match self.mode {
            Mode::Write => Err(corruption.into()),
            Mode::Read => {
                if self.walked.damage.len() < DAMAGE_MAX {
                    self.walked.damage.push(corruption);
                }
                Ok(())
            }
        }
    }

    fn describe(&self, kept: &Kept, bytes: &[u8], found: &Found, reached: Reached) -> Corruption {
        let expected = self.walked.accepted.map_or(1, |end| end.sequence.0.saturating_add(1));
        let offset = u64::from(found.offset());
        let corruption = |offset, what| self.source.corruption(kept.id(), offset, what);
        if reached == Reached::Astray {
            return corruption(offset, "the log does not end where a later segment states".into());
        }
        match *found {
            Found::Invalid { at, damage, header, .. } => {
                let whose = header.map_or(expected, |header| header.sequence.0);
                let what = format!("flush {whose} was durable and is damaged: {damage}");
                let damaged = corruption(at.into(), what);
                match aggregate(bytes, at, header.as_ref(), &damage) {
                    Some(key) => damaged.of(key),
                    None => damaged,
                }
            }
            Found::Flush { header, .. } => {
                let found = header.sequence;
                corruption(
                    offset,
                    format!("flush {expected} was durable and is missing: found flush {found}"),
                )
            }
            Found::Unused { .. } => {
                corruption(offset, format!("flush {expected} was durable and is missing"))
            }
        }
    }
}

/// The first aggregate that a damaged record names, as far as can be told.
fn aggregate<'a>(
    bytes: &'a [u8],
    at: u32,
    header: Option<&FlushHeader>,
    damage: &Damage,
) -> Option<&'a [u8]> {
    let header = header?;
    if at == header.offset || matches!(damage, Damage::Truncated { .. }) {
        return None;
    }
    let record = RecordView::parse_trusted(bytes.get(at as usize..)?).ok()?;
    Some(record.part(0)?.key)
}

/// Verifies the events of a flush whose heads are whole; says which record is not.
fn verify_events(bytes: &[u8], header: &FlushHeader) -> Result<(), (u32, Damage)> {
    let mut content = records(bytes, header);
    loop {
        let at = content.offset();
        let Some(record) = content.next() else { return Ok(()) };
        record.and_then(|(_, record)| verify_record(&record)).map_err(|damage| (at, damage))?;
    }
}

/// Verifies the events of one record.
pub(crate) fn verify_record(record: &RecordView<'_>) -> Result<(), Damage> {
    record.verify_events()?;
    for part in 0..record.part_count() {
        for event in record.events_of(part) {
            event?;
        }
    }
    Ok(())
}

/// Whether a segment lies wholly above the end of the log.
pub(super) fn is_above(id: SegmentId, accepted: Option<&AcceptedEnd>) -> bool {
    accepted.is_none_or(|end| id > end.position.segment())
}
