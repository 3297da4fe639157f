//! Recovery's verdict: what the facts found on disk mean, as two tables.
//!
//! The log of a shard is a row of *stretches*. A stretch begins with a segment that an opening made and goes on with
//! those prepared while that opening lasted, whose ids rise by one. The segment that begins a stretch states where the
//! stretch before it ended: what lies between is *superseded* and never looked at.
//!
//! The *proven end* is the highest position that anything whole states as durable: the frontier of a flush, or the
//! accepted end in a segment's header. The log ends at the first invalid flush at or above it. What is invalid or
//! missing below it was acknowledged and is damage.
//!
//! [`SEGMENTS`] judges each segment by itself, [`STEPS`] each step of the walk along the log. Whatever the facts, exactly
//! one row of a table fits them; the tests try all.

use crate::format::{AcceptedEnd, SegmentKind};
use crate::id::{Position, SegmentId};

/// What a segment's header is found to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Header {
    /// Whole, of this shard, under the name of its own segment.
    Whole,
    /// Not whole: its bytes are damaged, or too few.
    Bad,
    /// There is no file of this segment.
    Missing,
    /// Whole and in the wrong place: of another store, another shard or another segment.
    Alien,
}

/// What is known of one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentCase {
    /// Its header.
    pub(crate) header: Header,
    /// It lies between an accepted end and the segment that states it.
    pub(crate) superseded: bool,
    /// It holds a flush of its own. The header was durable before any was started.
    pub(crate) flushes: bool,
    /// The segment with the next id was prepared behind it. That one's header was made later.
    pub(crate) followed: bool,
    /// It holds the proven end, or lies below it.
    pub(crate) proven: bool,
}

/// What becomes of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SegmentVerdict {
    /// Its flushes may be part of the log.
    Keep,
    /// Nothing in it was ever acknowledged and not superseded.
    LeaveOut,
    /// It held, or may have held, what was acknowledged; or it is not ours to interpret.
    Damage,
}

struct SegmentRow {
    header: Header,
    superseded: Option<bool>,
    flushes: Option<bool>,
    followed: Option<bool>,
    proven: Option<bool>,
    verdict: SegmentVerdict,
}

/// A row: header, then superseded, flushes, followed, proven (`_` is either), then the verdict.
macro_rules! segment_rows {
    (@flag _) => { None };
    (@flag yes) => { Some(true) };
    (@flag no) => { Some(false) };
    ($($header:ident $superseded:tt $flushes:tt $followed:tt $proven:tt => $verdict:ident;)*) => {
        &[$(SegmentRow {
            header: Header::$header,
            superseded: segment_rows!(@flag $superseded),
            flushes: segment_rows!(@flag $flushes),
            followed: segment_rows!(@flag $followed),
            proven: segment_rows!(@flag $proven),
            verdict: SegmentVerdict::$verdict,
        }),*]
    };
}

/// Each segment by itself. `Bad` and `Missing` differ in words alone: a header that can't be read leads nowhere.
#[rustfmt::skip]
const SEGMENTS: &[SegmentRow] = segment_rows! {
    // header  superseded  flushes  followed  proven
    Whole      no          _        _         _     => Keep;
    Whole      yes         _        _         _     => LeaveOut;
    Alien      _           _        _         _     => Damage;
    Bad        yes         _        _         _     => LeaveOut;
    Bad        no          yes      _         _     => Damage;
    Bad        no          no       yes       _     => Damage;
    Bad        no          no       no        yes   => Damage;
    Bad        no          no       no        no    => LeaveOut;
    Missing    yes         _        _         _     => LeaveOut;
    Missing    no          yes      _         _     => Damage;
    Missing    no          no       yes       _     => Damage;
    Missing    no          no       no        yes   => Damage;
    Missing    no          no       no        no    => LeaveOut;
};

/// What becomes of a segment.
pub(crate) fn judge_segment(case: SegmentCase) -> SegmentVerdict {
    let fits = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
    SEGMENTS
        .iter()
        .find(|row| {
            row.header == case.header
                && fits(row.superseded, case.superseded)
                && fits(row.flushes, case.flushes)
                && fits(row.followed, case.followed)
                && fits(row.proven, case.proven)
        })
        // There is always one; a missing row would refuse to serve.
        .map_or(SegmentVerdict::Damage, |row| row.verdict)
}

/// How far the walk has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reached {
    /// Not to the proven end.
    Below,
    /// To the proven end, or beyond it.
    Proven,
    /// To the proven end, and what lies beyond it could not be made durable by this reader.
    Limit,
    /// To the end that the next stretch states: position, sequence and checksum.
    Stated,
    /// To that position or beyond it, by another way.
    Astray,
}

/// What stands where the next flush would.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Here {
    /// The next flush: its sequence is the next, and it carries the checksum of the one before.
    Next,
    /// A whole flush that is not the next.
    Other,
    /// Bytes that are no whole flush.
    Invalid,
    /// Zeros, or the end of the file.
    Nothing,
}

/// What is known at one step of the walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StepCase {
    /// How far the walk has come.
    pub(crate) reached: Reached,
    /// What stands here.
    pub(crate) here: Here,
    /// The first flush of the following segment of the stretch is the next one.
    pub(crate) rolled: bool,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// The flush here is part of the log.
    Accept,
    /// The log goes on in the following segment. Nothing is missing, whatever stands in the rest of this one.
    Roll,
    /// This stretch is whole; go on with the next.
    Reopen,
    /// The log ends here.
    End,
    /// Something that was acknowledged is not there.
    Damage,
}

struct StepRow {
    reached: Reached,
    here: &'static [Here],
    rolled: Option<bool>,
    step: Step,
}

const ANY: &[Here] = &[Here::Next, Here::Other, Here::Invalid, Here::Nothing];
const NOT: &[Here] = &[Here::Other, Here::Invalid, Here::Nothing];
const NEXT: &[Here] = &[Here::Next];

macro_rules! step_rows {
    (@flag _) => { None };
    (@flag yes) => { Some(true) };
    (@flag no) => { Some(false) };
    ($($reached:ident $here:ident $rolled:tt => $step:ident;)*) => {
        &[$(StepRow {
            reached: Reached::$reached,
            here: $here,
            rolled: step_rows!(@flag $rolled),
            step: Step::$step,
        }),*]
    };
}

/// Each step of the walk. `NOT` is anything but the next flush.
#[rustfmt::skip]
const STEPS: &[StepRow] = step_rows! {
    // reached  here   rolled
    Stated      ANY    _      => Reopen;
    Astray      ANY    _      => Damage;
    Limit       ANY    _      => End;
    Below       NEXT   _      => Accept;
    Below       NOT    yes    => Roll;
    Below       NOT    no     => Damage;
    Proven      NEXT   _      => Accept;
    Proven      NOT    yes    => Roll;
    Proven      NOT    no     => End;
};

/// What to do at a step.
pub(crate) fn judge_step(case: StepCase) -> Step {
    STEPS
        .iter()
        .find(|row| {
            row.reached == case.reached
                && row.here.contains(&case.here)
                && row.rolled.is_none_or(|rolled| rolled == case.rolled)
        })
        .map_or(Step::Damage, |row| row.step)
}

/// A stretch of the log: what one opening wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stretch {
    /// The segment that begins it, or the lowest there is if the one that began it can't be found.
    pub(crate) first: SegmentId,
    /// Whether it begins as a stretch does.
    pub(crate) opened: bool,
    /// Where the stretch before it ended; `None` if there is none before.
    pub(crate) after: Option<AcceptedEnd>,
    /// Where it ends, as the next stretch states; `None` for the last one.
    pub(crate) until: Option<AcceptedEnd>,
}

impl Stretch {
    /// Whether a segment lies in it.
    pub(crate) fn holds(&self, segment: SegmentId) -> bool {
        self.first <= segment && self.until.is_none_or(|end| segment <= end.position.segment())
    }
}

/// The stretches that whole headers (by rising ids) make up, oldest first. A segment in none of them is superseded.
pub(crate) fn stretches(headers: &[(SegmentId, SegmentKind)]) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut until: Option<AcceptedEnd> = None;
    let mut rest = headers;
    loop {
        let here = rest.iter();
        let newest = here.clone().rev().find_map(|&(id, kind)| match kind {
            SegmentKind::Opened { accepted } => Some((id, accepted)),
            SegmentKind::Rolled => None,
        });
        let Some((first, after)) = newest else {
            // What is left has no beginning. With nothing left there may still be an end stated for it.
            let lowest = here.map(|(id, _)| *id).next();
            if let Some(first) = lowest.or(until.map(|end| end.position.segment())) {
                stretches.push(Stretch { first, opened: false, after: None, until });
            }
            break;
        };
        stretches.push(Stretch { first, opened: true, after, until });
        let Some(end) = after else { break };
        until = after;
        // An end that a header states lies below that header.
        let below = rest.partition_point(|(id, _)| *id < first && *id <= end.position.segment());
        rest = &rest[..below];
    }
    stretches.reverse();
    stretches
}

/// How far a walk has come that accepted this last.
pub(crate) fn reached(
    accepted: Option<&AcceptedEnd>,
    stretch: &Stretch,
    proven: Position,
    limited: bool,
) -> Reached {
    let at = accepted.map_or(Position::START, |end| end.position);
    match &stretch.until {
        Some(end) if accepted == Some(end) => Reached::Stated,
        Some(end) if at >= end.position => Reached::Astray,
        Some(_) => Reached::Below,
        None if at < proven => Reached::Below,
        None if limited => Reached::Limit,
        None => Reached::Proven,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::FlushSequence;

    const FLAGS: [bool; 2] = [false, true];

    #[test]
    fn exactly_one_row_fits_every_segment() {
        for header in [Header::Whole, Header::Bad, Header::Missing, Header::Alien] {
            for bits in 0..16 {
                let flag = |bit: u32| bits & 1 << bit != 0;
                let case = SegmentCase {
                    header,
                    superseded: flag(0),
                    flushes: flag(1),
                    followed: flag(2),
                    proven: flag(3),
                };
                let fits = |wanted: Option<bool>, is| wanted.is_none() || wanted == Some(is);
                let rows = SEGMENTS.iter().filter(|row| {
                    row.header == header
                        && fits(row.superseded, case.superseded)
                        && fits(row.flushes, case.flushes)
                        && fits(row.followed, case.followed)
                        && fits(row.proven, case.proven)
                });
                assert_eq!(rows.count(), 1, "{case:?}");
                let verdict = judge_segment(case);
                // What the tables are for, said once more in other words.
                let evidence = case.flushes || case.followed || case.proven;
                let expected = match header {
                    Header::Alien => SegmentVerdict::Damage,
                    _ if case.superseded => SegmentVerdict::LeaveOut,
                    Header::Whole => SegmentVerdict::Keep,
                    _ if evidence => SegmentVerdict::Damage,
                    _ => SegmentVerdict::LeaveOut,
                };
                assert_eq!(verdict, expected, "{case:?}");
            }
        }
    }

    #[test]
    fn exactly_one_row_fits_every_step() {
        use Reached::*;
        for reached in [Below, Proven, Limit, Stated, Astray] {
            for &here in ANY {
                for rolled in FLAGS {
                    let case = StepCase { reached, here, rolled };
                    let rows = STEPS.iter().filter(|row| {
                        row.reached == reached
                            && row.here.contains(&here)
                            && row.rolled.is_none_or(|wanted| wanted == rolled)
                    });
                    assert_eq!(rows.count(), 1, "{case:?}");
                    let step = judge_step(case);
                    let continues = here == Here::Next || rolled;
                    assert_eq!(step == Step::Reopen, reached == Stated, "{case:?}");
                    // Damage is what is proven and not there, and nothing else.
                    let damaged = reached == Astray || reached == Below && !continues;
                    assert_eq!(step == Step::Damage, damaged, "{case:?}");
                    let ends = reached == Limit || reached == Proven && !continues;
                    assert_eq!(step == Step::End, ends, "{case:?}");
                }
            }
        }
    }

    fn end(segment: u32, offset: u32, sequence: u64) -> AcceptedEnd {
        AcceptedEnd {
            position: Position::new(SegmentId(segment), offset),
            sequence: FlushSequence(sequence),
            checksum: sequence * 7,
        }
    }

    fn opened(id: u32, accepted: Option<AcceptedEnd>) -> (SegmentId, SegmentKind) {
        (SegmentId(id), SegmentKind::Opened { accepted })
    }

    fn rolled(id: u32) -> (SegmentId, SegmentKind) {
        (SegmentId(id), SegmentKind::Rolled)
    }

    fn stretch(first: u32, after: Option<AcceptedEnd>, until: Option<AcceptedEnd>) -> Stretch {
        Stretch { first: SegmentId(first), opened: true, after, until }
    }

    #[test]
    fn stretches_follow_what_the_newest_states() {
        assert_eq!(stretches(&[]), []);
        assert_eq!(stretches(&[opened(1, None), rolled(2)]), [stretch(1, None, None)]);
        let ended = Some(end(2, 8192, 9));
        let found =
            stretches(&[opened(1, None), rolled(2), rolled(3), opened(4, ended), rolled(5)]);
        assert_eq!(found, [stretch(1, None, ended), stretch(4, ended, None)]);
        let held = |id| found.iter().any(|stretch| stretch.holds(SegmentId(id)));
        assert_eq!([1, 2, 3, 4, 5, 6].map(held), [true, true, false, true, true, true]);
        // An opening after which nothing was written is superseded by the next.
        let ended = Some(end(1, 8192, 9));
        let found = stretches(&[opened(1, None), opened(2, ended), opened(3, ended)]);
        assert_eq!(found, [stretch(1, None, ended), stretch(3, ended, None)]);
    }

    #[test]
    fn a_log_without_a_beginning_is_told() {
        let ended = Some(end(3, 8192, 9));
        let found = stretches(&[rolled(2), rolled(3), opened(4, ended)]);
        assert_eq!((found[0].first, found[0].opened), (SegmentId(2), false));
        let found = stretches(&[opened(4, ended)]);
        assert_eq!((found[0].first, found[0].opened), (SegmentId(3), false));
        assert_eq!(found[0].until, ended);
        // A first log of which nothing was kept leaves nothing behind.
        assert_eq!(stretches(&[opened(1, None), opened(2, None)]), [stretch(2, None, None)]);
    }

    #[test]
    fn how_far_a_walk_has_come() {
        let last = stretch(1, None, None);
        let at = end(1, 8192, 1);
        let proven = |offset| Position::new(SegmentId(1), offset);
        assert_eq!(reached(None, &last, Position::START, false), Reached::Proven);
        assert_eq!(reached(None, &last, proven(4096), false), Reached::Below);
        assert_eq!(reached(Some(&at), &last, proven(8193), false), Reached::Below);
        assert_eq!(reached(Some(&at), &last, proven(8192), false), Reached::Proven);
        assert_eq!(reached(Some(&at), &last, proven(8192), true), Reached::Limit);
        let bound = |until| reached(Some(&at), &stretch(1, None, Some(until)), proven(8192), false);
        assert_eq!(bound(at), Reached::Stated);
        assert_eq!(bound(end(1, 8192, 2)), Reached::Astray);
        assert_eq!(bound(end(1, 4096, 1)), Reached::Astray);
        assert_eq!(bound(end(2, 4096, 1)), Reached::Below);
    }
}
