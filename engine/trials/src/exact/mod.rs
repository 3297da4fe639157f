//! The exact checker: it takes the order of the log as the order of all things, and holds every call against it.
//!
//! Moments of a write: it is *called*, then *decided* (the call has returned a ticket, or an error), then
//! *acknowledged*. What follows for a record of the log, which a write left:
//!
//! 1. The log by itself: positions rise, versions have no gap, conditions and checks hold where the record stands.
//! 2. It is of exactly one write, with exactly its parts and events, and that write was not refused.
//! 3. Real time: what was decided before something else was called stands before it.
//!
//! And for every call:
//!
//! 4. A committed write has its record, with the position and versions that were told. A replay tells the original's.
//! 5. A default read is a prefix: nothing is missing that was acknowledged, or shown by anybody, before it began, on the
//!    whole shard; nothing is in it that was called after it ended. An accepted read as well, with *decided* in the
//!    place of *acknowledged*, aggregate by aggregate.
//! 6. A conflict names a version at which the aggregate was at some moment of the call, and which contradicts the
//!    condition. A check that held did so at one moment of the call, with all others of its write.
//! 7. A read of a log and a follower give a part of the log as it is, with no gap and no duplicate.
//!
//! Every rule takes time of the order of the history's length, so long histories can be checked.

mod calls;
mod ledger;
mod reads;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::{Call, History, Operation, Outcome};
use ledger::Ledger;

/// What is wrong with a history.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fault {
    /// Positions of a log do not rise.
    PositionOrder,
    /// The versions of an aggregate have a gap, or one twice.
    VersionGap,
    /// A condition or a check does not hold where its record stands.
    ConditionBroken,
    /// A record of which nobody knows, or bytes that nobody wrote.
    Stranger,
    /// A write is there in part.
    HalfWrite,
    /// A write is there twice.
    WrittenTwice,
    /// A write was refused, and is there.
    RefusedLanded,
    /// A write was acknowledged or accepted, and is not there.
    Lost,
    /// The order of the log contradicts real time.
    RealTime,
    /// A write was told a position or a version that is not its record's.
    WrongResult,
    /// A replay did not tell the original's result.
    BrokenReplay,
    /// A retry was not answered with the original's result.
    ReplayForgotten,
    /// A read misses what was acknowledged before it began.
    StaleRead,
    /// A read shows what was called after it ended.
    FutureRead,
    /// A read shows other events than the log has.
    WrongContents,
    /// A conflict, or another refusal, for which there was no reason.
    PhantomRefusal,
    /// Checks that held at no moment.
    PhantomCheck,
    /// A follower or a read of a log left something out, gave it twice, or in another order.
    Gap,
    /// No order of the calls explains what they were told. Only the general checker says so.
    NoOrder,
    /// An error that nothing explains.
    Unexpected,
}

/// A fault, and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// What is wrong.
    pub fault: Fault,
    /// The call, by its place in the history.
    pub call: Option<usize>,
    /// What was expected, and what was found.
    pub text: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.fault, self.text)?;
        match self.call {
            Some(call) => write!(f, " (call {call})"),
            None => Ok(()),
        }
    }
}

/// Collects complaints. Their number has a bound: one fault of the store can be wrong in every call.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Vec<Complaint>);

/// How many complaints are kept.
const COMPLAINTS_MAX: usize = 100;

impl Complaints {
    pub(crate) fn add(&mut self, fault: Fault, call: Option<usize>, text: String) {
        if self.0.len() < COMPLAINTS_MAX {
            self.0.push(Complaint { fault, call, text });
        }
    }
}

/// What a history has of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls.
    pub calls: u64,
    /// Records in the log.
    pub records: u64,
    /// Writes that were refused because of a version.
    pub conflicts: u64,
    /// Results of earlier writes.
    pub replays: u64,
    /// Reads of aggregates and their versions.
    pub reads: u64,
    /// Those of them that also saw what was not durable.
    pub accepted_reads: u64,
    /// Executions.
    pub executions: u64,
    /// Records that followers were given.
    pub followed: u64,
    /// Reopenings.
    pub reopenings: u64,
}

impl Totals {
    /// Counts a history.
    #[must_use]
    pub fn of(history: &History) -> Totals {
        let mut totals = Totals { records: history.log.len() as u64, ..Totals::default() };
        for Call { operation, outcome, .. } in &history.calls {
            totals.calls += 1;
            match operation {
                Operation::Read { accepted, .. } | Operation::Version { accepted, .. } => {
                    totals.reads += 1;
                    totals.accepted_reads += u64::from(*accepted);
                }
                Operation::Execute { .. } => totals.executions += 1,
                Operation::Reopen => totals.reopenings += 1,
                _ => {}
            }
            match outcome {
                Outcome::Conflict { .. } => totals.conflicts += 1,
                Outcome::Committed(landed) => totals.replays += u64::from(landed.replay),
                Outcome::Logged(items) if matches!(operation, Operation::Follow { .. }) => {
                    totals.followed += items.len() as u64;
                }
                _ => {}
            }
        }
        totals
    }

    /// Adds another history's.
    pub fn add(&mut self, other: &Totals) {
        self.calls += other.calls;
        self.records += other.records;
        self.conflicts += other.conflicts;
        self.replays += other.replays;
        self.reads += other.reads;
        self.accepted_reads += other.accepted_reads;
        self.executions += other.executions;
        self.followed += other.followed;
        self.reopenings += other.reopenings;
    }
}

/// Checks a history.
///
/// # Errors
///
/// What is wrong with it.
pub fn check(history: &History) -> Result<(), Vec<Complaint>> {
    let mut complaints = Complaints::default();
    let mut ledger = Ledger::new(history, &mut complaints);
    ledger.learn(history);
    ledger.check_real_time(&mut complaints);
    calls::check(history, &ledger, &mut complaints);
    reads::check(history, &ledger, &mut complaints);
    match complaints.0.is_empty() {
        true => Ok(()),
        false => Err(complaints.0),
    }
}
