//! The second pass over a shard: along the log, from the first stretch to its end.
//!
//! At each step there is what stands where the next flush would, and how far the walk has come: not to the proven end, to
//! it or beyond, or to where a later stretch states that this one ended. A flush is the next if it has the next sequence
//! and states the checksum of the one before.
//!
//! | the walk has come | here is the next flush | the next segment begins with it | neither |
//! |---|---|---|---|
//! | not to the proven end, or stated end | it is part of the log | the log goes on there | **damage** |
//! | to the proven end or beyond | it is part of the log | the log goes on there | the log ends |
//! | to the stated end exactly | the next stretch | the next stretch | the next stretch |
//! | to the stated end by another way | **damage** | **damage** | **damage** |
//!
//! At or above the proven end a flush counts only if its events are whole too. Behind damage the walk goes on with the next
//! flush header of a higher sequence, and takes what is whole of its records.
//!
//! A salvage asks for more: it also searches damaged bytes for records, where it is proven that all in them was
//! acknowledged. A record whose head fits salt and position was written there and nowhere else.

use super::bytes::{Flaw, is_zero};
use super::files::Files;
use super::frame::{End, FLUSH_BYTES, FlushHeader, Place, flush};
use super::record::{Record, head_if_plausible};
use super::scan::{Found, flushes, records, verify_events};
use super::survey::{Segment, Stretch, Survey};
use super::{Damage, Shard};
use crate::error::Error;
use crate::id::{Position, SegmentId};

/// Who is told what the log holds, in its order.
pub(crate) trait Visit {
    /// So many bytes of segment are looked at next.
    fn segment(&mut self, bytes: u64);
    /// The log has a flush here.
    fn flush(&mut self);
    /// The log has a write here, whose head is whole.
    fn write(&mut self, record: &Record<'_>, at: Position, path: &str) -> Result<(), Error>;
    /// Something is damaged or missing.
    fn damage(&mut self, damage: Damage);
}

/// How far the walk has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Come {
    NotThere,
    ToProvenEnd,
    ToStatedEnd,
    Astray,
}

enum Turn {
    NextFlush,
    NextSegment,
    NextStretch,
    Over,
}

/// A segment in memory, and what is known of it.
struct Here<'a> {
    stretch: &'a Stretch,
    segment: &'a Segment,
    following: &'a [&'a Segment],
    bytes: &'a [u8],
    /// Sequences from here on stand in a later segment.
    sequence_cap: u64,
    /// All below it in this segment was acknowledged.
    settled: u32,
}

/// See the top of the file.
pub(super) struct Walk<'a, 'd> {
    shard: &'a Shard,
    files: &'a mut Files<'d>,
    survey: &'a Survey,
    visit: &'a mut dyn Visit,
    accepted: Option<End>,
    segments: u64,
    last: Option<SegmentId>,
    /// Damage was met, and no flush behind it yet.
    lost: bool,
    /// In a search: where zeros are instead of a flush, unless the flushes that are missing were all found damaged elsewhere.
    zeros: Vec<Damage>,
    /// How many damaged flush headers were found since, with all that stood behind them.
    headers_found: u64,
    /// How many more bytes a search for records may hash in this segment without finding one.
    search_bytes: usize,
}

impl<'a, 'd> Walk<'a, 'd> {
    pub(super) fn new(
        shard: &'a Shard,
        files: &'a mut Files<'d>,
        survey: &'a Survey,
        visit: &'a mut dyn Visit,
    ) -> Walk<'a, 'd> {
        Walk {
            shard,
            files,
            survey,
            visit,
            accepted: None,
            segments: 0,
            last: None,
            lost: false,
            zeros: Vec::new(),
            headers_found: 0,
            search_bytes: 0,
        }
    }

    /// Goes to the end; returns it, and how many segments hold a part of the log.
    pub(super) fn run(mut self) -> Result<(Option<End>, u64), Error> {
        for damage in &self.survey.damage {
            self.visit.damage(damage.clone());
        }
        'stretches: for stretch in &self.survey.stretches {
            if stretch.whole {
                self.accepted = stretch.after;
            }
            // That its beginning is missing was told; any flush will do.
            self.lost = !stretch.whole;
            let held: Vec<&Segment> =
                self.survey.segments.iter().filter(|held| stretch.holds(held.id)).collect();
            for (nth, segment) in held.iter().enumerate() {
                self.visit.segment(segment.bytes);
                let following = held.get(nth + 1..).unwrap_or_default();
                match self.segment(stretch, segment, following)? {
                    Turn::NextFlush | Turn::NextSegment => {}
                    Turn::NextStretch => continue 'stretches,
                    Turn::Over => break 'stretches,
                }
            }
        }
        self.tell_of_zeros();
        Ok((self.accepted, self.segments))
    }

    fn tell_of_zeros(&mut self) {
        self.headers_found = 0;
        for damage in std::mem::take(&mut self.zeros) {
            self.visit.damage(damage);
        }
    }

    fn segment(
        &mut self,
        stretch: &Stretch,
        segment: &Segment,
        following: &[&Segment],
    ) -> Result<Turn, Error> {
        let tail = stretch.until.is_none() && segment.id >= self.survey.proven.segment();
        let most = segment.header.map_or(segment.bytes, |header| header.bytes);
        let loaded = self.files.load(&segment.path, most, tail)?;
        let bytes = loaded.bytes();
        let place = self.shard.place(segment.id, segment.salt);
        let mut here = Here {
            stretch,
            segment,
            following,
            bytes,
            sequence_cap: following
                .iter()
                .filter_map(|later| later.first_sequence)
                .min()
                .unwrap_or(u64::MAX),
            settled: 0,
        };
        if self.shard.rescue {
            here.settled = self.settled(&here, &place);
            self.search_bytes = bytes.len().saturating_mul(16).saturating_add(1 << 20);
        }
        let turn = self.flushes(&here, &place, tail);
        self.files.give_back(loaded);
        turn
    }

    fn flushes(&mut self, here: &Here<'_>, place: &Place, tail: bool) -> Result<Turn, Error> {
        let mut end = self.shard.facts.block;
        for mut found in flushes(here.bytes, self.shard.facts.block, place) {
            end = found.offset.saturating_add(found.bytes);
            if let Some(header) = &found.header
                && found.flaw.is_none()
                && tail
                && header.position >= self.survey.proven
            {
                found.flaw = verify_events(here.bytes, header).err();
            }
            match self.step(here, &found)? {
                Turn::NextFlush => {}
                turn => return Ok(turn),
            }
        }
        self.step(here, &Found { offset: end, bytes: 0, header: None, flaw: None })
    }

    /// Up to where all in a segment was acknowledged, as far as others prove it.
    fn settled(&self, here: &Here<'_>, place: &Place) -> u32 {
        let (id, proven) = (here.segment.id, self.survey.proven);
        let within = |end: Position| if end.segment() == id { end.offset() } else { 0 };
        if let Some(end) = here.stretch.until.filter(|end| end.position.segment() == id) {
            return end.position.offset();
        }
        match here.following.first() {
            // It was begun when all of this one was durable.
            Some(next) if next.header.is_some_and(|header| !header.opened) => {
                if proven.segment() > id { u32::MAX } else { within(proven) }
            }
            // Whether it was rolled to is unknown. What stands before a flush of the log was acknowledged before it.
            Some(_) => flushes(here.bytes, self.shard.facts.block, place)
                .filter_map(|found| found.header)
                .filter(|header| header.sequence < here.sequence_cap)
                .map(|header| header.position.offset())
                .max()
                .unwrap_or(0),
            None => within(proven),
        }
    }

    fn come(&self, stretch: &Stretch) -> Come {
        let at = self.accepted.map_or(Position::START, |end| end.position);
        match stretch.until {
            Some(_) if self.accepted == stretch.until => Come::ToStatedEnd,
            Some(end) if at >= end.position => Come::Astray,
            Some(_) => Come::NotThere,
            None if at < self.survey.proven => Come::NotThere,
            None => Come::ToProvenEnd,
        }
    }

    fn is_next(&self, header: &FlushHeader) -> bool {
        match self.accepted {
            None => header.sequence == 1 && header.previous == 0,
            Some(end) => {
                end.sequence.checked_add(1) == Some(header.sequence)
                    && header.previous == end.checksum
            }
        }
    }

    fn step(&mut self, here: &Here<'_>, found: &Found) -> Result<Turn, Error> {
        if self.lost {
            return self.step_behind_damage(here, found);
        }
        let come = self.come(here.stretch);
        let fits = found
            .header
            .filter(|header| self.is_next(header) && header.sequence < here.sequence_cap);
        match come {
            Come::ToStatedEnd => return Ok(Turn::NextStretch),
            Come::Astray => {}
            Come::NotThere | Come::ToProvenEnd => {
                if let (Some(header), None) = (fits, &found.flaw) {
                    self.accept(here, &header)?;
                    return Ok(Turn::NextFlush);
                }
                if self.begins_one_of(here.following)? {
                    return Ok(Turn::NextSegment);
                }
                if come == Come::ToProvenEnd {
                    return Ok(Turn::Over);
                }
            }
        }
        self.lost = true;
        let what = self.describe(found, come);
        match fits {
            // Its own header is whole: only a part of it is lost.
            Some(header) if come == Come::NotThere => {
                self.accept_damaged(here, &header, found, what)?;
                Ok(Turn::NextFlush)
            }
            _ => {
                // A damaged flush that is taken all the same is told then.
                if found.flaw.is_none() || self.taken(here, found).is_none() {
                    self.tell(here, found, what)?;
                }
                self.take_up(here, found)
            }
        }
    }

    /// A step behind damage: the next flush that comes later in the log is where it goes on.
    fn step_behind_damage(&mut self, here: &Here<'_>, found: &Found) -> Result<Turn, Error> {
        if found.header.is_none() && found.flaw.is_some() && found.offset < here.settled {
            // More of the same damage: a search may find records in it.
            let what = self.describe(found, Come::NotThere);
            self.tell(here, found, what)?;
        }
        self.take_up(here, found)
    }

    /// The header of a flush that comes later in the log than all that was taken.
    fn taken(&self, here: &Here<'_>, found: &Found) -> Option<FlushHeader> {
        let header = found.header?;
        let later = self.accepted.is_none_or(|end| header.sequence > end.sequence);
        let within = here.stretch.until.is_none_or(|end| header.position < end.position);
        (later && within && header.sequence < here.sequence_cap).then_some(header)
    }

    fn take_up(&mut self, here: &Here<'_>, found: &Found) -> Result<Turn, Error> {
        match self.taken(here, found) {
            Some(header) if found.flaw.is_some() => {
                let what = self.describe(found, Come::NotThere);
                self.accept_damaged(here, &header, found, what)?;
            }
            Some(header) => self.accept(here, &header)?,
            None => {}
        }
        Ok(Turn::NextFlush)
    }

    /// Whether the log goes on in the following segments: the first of them that begins with a flush begins with the next.
    fn begins_one_of(&mut self, following: &[&Segment]) -> Result<bool, Error> {
        let block = self.shard.facts.block;
        for segment in following {
            let place = self.shard.place(segment.id, segment.salt).at(block);
            let mut bytes = [0; FLUSH_BYTES];
            if !self.files.peek(&segment.path, block.into(), &mut bytes)? {
                continue;
            }
            if let Ok(header) = flush(&bytes, &place) {
                return Ok(self.is_next(&header));
            }
        }
        Ok(false)
    }

    /// Takes a flush into the log, all of whose heads are whole.
    fn accept(&mut self, here: &Here<'_>, header: &FlushHeader) -> Result<(), Error> {
        self.take(here, header);
        for record in records(here.bytes, header) {
            let Ok((position, record)) = record else { break };
            self.visit.write(&record, position, &here.segment.path)?;
        }
        Ok(())
    }

    /// Takes what is whole of a damaged flush whose header is whole.
    fn accept_damaged(
        &mut self,
        here: &Here<'_>,
        header: &FlushHeader,
        found: &Found,
        what: String,
    ) -> Result<(), Error> {
        let start = header.position.offset();
        let (at, _) = found.flaw.clone().unwrap_or((start, Flaw::new("")));
        let mut damage = Damage {
            path: here.segment.path.clone(),
            offset: at.into(),
            bytes: found.bytes.into(),
            aggregate: None,
            what,
            lost: true,
        };
        if at != start {
            damage.aggregate = named(here.bytes, at as usize).map(<[u8]>::to_vec);
        }
        if !self.shard.rescue {
            self.visit.damage(damage);
            return self.accept(here, header);
        }
        self.take(here, header);
        let (mut count, mut end) = (0, start as usize + FLUSH_BYTES);
        for record in records(here.bytes, header) {
            let Ok((position, record)) = record else { break };
            self.visit.write(&record, position, &here.segment.path)?;
            count += 1;
            end = position.offset() as usize + record.bytes.len();
        }
        let content_end = start as usize + header.length as usize;
        let there = content_end.min(here.bytes.len());
        let mut gaps = Vec::new();
        let searched = self.search(here, end.min(there), there, false, &mut gaps)?;
        if content_end > there {
            gaps.push((there, content_end));
        }
        if gaps.is_empty() {
            let lost = count + searched != header.records;
            self.visit.damage(Damage { lost, ..damage.clone() });
        }
        for (from, to) in gaps {
            let (offset, bytes) = (from as u64, (to - from) as u64);
            let aggregate = named(here.bytes, from).map(<[u8]>::to_vec);
            self.visit.damage(Damage { offset, bytes, aggregate, ..damage.clone() });
        }
        Ok(())
    }

    fn take(&mut self, here: &Here<'_>, header: &FlushHeader) {
        self.visit.flush();
        self.lost = false;
        let before = self.accepted.map_or(0, |end| end.sequence);
        if header.sequence.checked_sub(before.saturating_add(1)) == Some(self.headers_found) {
            self.zeros.clear();
        }
        self.tell_of_zeros();
        self.accepted = Some(End {
            position: header.end(self.shard.facts.block),
            sequence: header.sequence,
            checksum: header.checksum,
        });
        if self.last.replace(here.segment.id) != Some(here.segment.id) {
            self.segments += 1;
        }
    }

    /// Tells damage that no whole flush header stands in; with it, the records that can be found there.
    fn tell(&mut self, here: &Here<'_>, found: &Found, what: String) -> Result<(), Error> {
        let damage = Damage {
            path: here.segment.path.clone(),
            offset: found.offset.into(),
            bytes: found.bytes.into(),
            aggregate: None,
            what,
            lost: true,
        };
        let from = found.offset as usize;
        let to = from.saturating_add(found.bytes as usize).min(here.settled as usize);
        if self.shard.rescue && found.header.is_none() && found.flaw.is_none() {
            self.zeros.push(damage);
            return Ok(());
        }
        if !self.shard.rescue || found.header.is_some() || from >= to {
            self.visit.damage(damage);
            return Ok(());
        }
        let mut gaps = Vec::new();
        self.search(here, from, to, true, &mut gaps)?;
        if gaps.is_empty() {
            self.visit.damage(Damage { lost: false, ..damage.clone() });
        }
        for (from, to) in gaps {
            let (offset, bytes) = (from as u64, (to - from) as u64);
            self.visit.damage(Damage { offset, bytes, ..damage.clone() });
        }
        Ok(())
    }

    /// Searches bytes for records, which begin at multiples of 8, and notes the gaps between them in which something may
    /// have stood. `bare`: flush headers may stand there too, and padding.
    fn search(
        &mut self,
        here: &Here<'_>,
        from: usize,
        to: usize,
        bare: bool,
        gaps: &mut Vec<(usize, usize)>,
    ) -> Result<u32, Error> {
        let Some(salt) = here.segment.salt else { return Ok(0) };
        let bytes = here.bytes.get(..to).unwrap_or(here.bytes);
        let (mut at, mut behind, mut count) = (from, from, 0);
        while at < to {
            let rest = bytes.get(at..).unwrap_or_default();
            let mut step = 8;
            if let Some(head) = head_if_plausible(rest)
                && let Some(left) = self.search_bytes.checked_sub(head)
            {
                self.search_bytes = left;
                let position = Position::new(here.segment.id, at as u32);
                if let Ok(record) = Record::read(rest, salt, position) {
                    // What was found cost nothing.
                    self.search_bytes += head;
                    self.gap(here, behind, at, bare, true, gaps);
                    self.visit.write(&record, position, &here.segment.path)?;
                    step = record.bytes.len();
                    behind = at + step;
                    count += 1;
                }
            }
            at += step;
        }
        self.gap(here, behind, to, bare, false, gaps);
        Ok(count)
    }

    /// Notes a gap unless no record can have stood in it: it is padding, and headers of flushes without records, or the one
    /// of the flush whose record follows. Those headers are counted.
    fn gap(
        &mut self,
        here: &Here<'_>,
        from: usize,
        to: usize,
        bare: bool,
        followed: bool,
        gaps: &mut Vec<(usize, usize)>,
    ) {
        let block = self.shard.facts.block as usize;
        let zeros = |from: usize, to: usize| {
            here.bytes.get(from..to.min(here.bytes.len())).is_some_and(is_zero)
        };
        let mut at = from.next_multiple_of(block);
        let mut harmless = bare && zeros(from, at.min(to));
        let mut headers = 0;
        while harmless && at < to {
            headers += 1;
            if followed && at + FLUSH_BYTES == to {
                break;
            }
            harmless = at + FLUSH_BYTES <= to && zeros(at + FLUSH_BYTES, at + block);
            at += block;
        }
        if from < to && !harmless {
            gaps.push((from, to));
        } else {
            self.headers_found += headers;
        }
    }

    fn describe(&self, found: &Found, come: Come) -> String {
        let expected = self.accepted.map_or(1, |end| end.sequence.saturating_add(1));
        if come == Come::Astray {
            return "the log does not end where a later segment states".into();
        }
        match (&found.flaw, &found.header) {
            (Some((_, flaw)), header) => {
                let whose = header.map_or(expected, |header| header.sequence);
                format!("flush {whose} was durable and is damaged: {}", flaw.what)
            }
            (None, Some(header)) => {
                let found = header.sequence;
                format!("flush {expected} was durable and is missing: found flush {found}")
            }
            (None, None) => format!("flush {expected} was durable and is missing"),
        }
    }
}

/// The first aggregate that a damaged record names, as far as can be told.
fn named(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let record = bytes.get(at..)?;
    let head = record.get(..head_if_plausible(record)?)?;
    let key_at = u32::from_le_bytes(*head.get(96..)?.first_chunk()?) as usize;
    let length = u16::from_le_bytes(*head.get(108..)?.first_chunk()?) as usize;
    head.get(key_at..)?.get(..length).filter(|key| !key.is_empty())
}
