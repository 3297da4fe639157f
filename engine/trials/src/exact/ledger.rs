//! The log as the checker knows it: what stands where, since when it may have been there, and since when it surely was.

use std::collections::HashMap;

use super::{Complaints, Fault};
use crate::history::{
    Batch, Call, Client, Condition, Folded, History, LogRecord, Nanos, Operation, Outcome, Part,
};
use crate::mark::WriteId;

/// The log and what is known about the moments of its records.
pub(super) struct Ledger<'h> {
    pub(super) shards: Vec<ShardLog<'h>>,
    pub(super) subjects: Vec<Versions>,
    /// Where the record of a write stands: shard, and place in its log.
    pub(super) records: HashMap<WriteId, (u16, usize)>,
    /// The calls that sent a write.
    pub(super) senders: HashMap<WriteId, Vec<usize>>,
}

/// One shard.
#[derive(Default)]
pub(super) struct ShardLog<'h> {
    pub(super) records: Vec<&'h LogRecord>,
    pub(super) moments: Vec<Moments>,
    /// By time: so many records were durable.
    durable: Since,
}

/// When a record became what it is.
#[derive(Clone, Copy)]
pub(super) struct Moments {
    /// Not before.
    pub(super) called: Nanos,
    /// Accepted by then.
    pub(super) decided: Nanos,
}

/// One aggregate.
#[derive(Default)]
pub(super) struct Versions {
    /// The record of each version, from 1 on: its place in the shard's log, and what it appended.
    pub(super) steps: Vec<(usize, Batch)>,
    /// All events up to each version, from 0 on.
    pub(super) digests: Vec<Folded>,
    /// By time: this version was accepted.
    accepted: Since,
}

/// A number that only grows, by time.
#[derive(Default)]
struct Since(Vec<(Nanos, u64)>);

impl Since {
    fn note(&mut self, at: Nanos, value: u64) {
        self.0.push((at, value));
    }

    /// To be called once, before it is asked.
    fn settle(&mut self) {
        self.0.sort_unstable();
        let mut highest = 0;
        for (_, value) in &mut self.0 {
            highest = highest.max(*value);
            *value = highest;
        }
    }

    /// The highest that was noted before a moment.
    fn before(&self, at: Nanos) -> u64 {
        match self.0.partition_point(|(noted, _)| *noted < at) {
            0 => 0,
            count => self.0[count - 1].1,
        }
    }
}

impl<'h> Ledger<'h> {
    /// Walks the log, and complains of what is wrong with it by itself.
    pub(super) fn new(history: &'h History, complaints: &mut Complaints) -> Ledger<'h> {
        let shards = history.head.subjects.iter().map(|subject| subject.shard);
        let logged = history.log.iter().map(|record| record.shard);
        let count = shards.chain(logged).max().map_or(0, |shard| usize::from(shard) + 1);
        let mut ledger = Ledger {
            shards: (0..count).map(|_| ShardLog::default()).collect(),
            subjects: history.head.subjects.iter().map(|_| Versions::new()).collect(),
            records: HashMap::new(),
            senders: HashMap::new(),
        };
        for (call, Call { operation, .. }) in history.calls.iter().enumerate() {
            if let Operation::Write { write, .. } | Operation::Execute { write, .. } = operation {
                ledger.senders.entry(*write).or_default().push(call);
            }
        }
        for record in &history.log {
            ledger.add(history, record, complaints);
        }
        ledger
    }

    fn add(&mut self, history: &History, record: &'h LogRecord, complaints: &mut Complaints) {
        let LogRecord { shard, position, .. } = record;
        let at = format!("the record at {position} of shard {shard}");
        let mut complain =
            |fault, text: String| complaints.add(fault, None, format!("{at}: {text}"));
        let log = &mut self.shards[usize::from(*shard)];
        if let Some(before) = log.records.last().filter(|before| before.position >= *position) {
            complain(Fault::PositionOrder, format!("it stands behind {}", before.position));
        }
        let place = log.records.len();
        for part in &record.parts {
            let Some(versions) =
                part.subject.and_then(|subject| self.subjects.get_mut(usize::from(subject)))
            else {
                complain(Fault::Stranger, "nobody knows its aggregate".into());
                continue;
            };
            let before = versions.steps.len() as u64;
            if !part.condition.holds(before) {
                complain(
                    Fault::ConditionBroken,
                    format!("it demanded {:?} and found version {before}", part.condition),
                );
            }
            let expected = before + u64::from(part.appends);
            if part.version != expected {
                complain(
                    Fault::VersionGap,
                    format!("expected version {expected}, found {}", part.version),
                );
            }
            if part.appends {
                versions.step(
                    place,
                    Batch {
                        version: before + 1,
                        write: part.write,
                        part: part.part,
                        first: 0,
                        events: part.events,
                        of: part.events,
                    },
                );
            }
        }
        log.records.push(record);
        let moments = match record.write().filter(|write| self.senders.contains_key(write)) {
            None => {
                complain(Fault::Stranger, "it is not of one write that somebody sent".into());
                Moments { called: 0, decided: Nanos::MAX }
            }
            Some(write) => {
                if let Some((_, first)) = self.records.insert(write, (*shard, place)) {
                    let first = self.shards[usize::from(*shard)].records[first].position;
                    complain(
                        Fault::WrittenTwice,
                        format!("write {} stands at {first} as well", write.0),
                    );
                }
                self.moments(history, write)
            }
        };
        self.shards[usize::from(*shard)].moments.push(moments);
    }

    /// When the record of a write was made: by the call that was told so, or by any that may have.
    fn moments(&self, history: &History, write: WriteId) -> Moments {
        let calls = self.senders[&write].iter().map(|call| &history.calls[*call]);
        let fresh = calls.clone().filter(|call| is_fresh(call) == Some(true));
        let may = calls.filter(|call| is_fresh(call).is_none());
        let mut moments = Moments { called: Nanos::MAX, decided: 0 };
        let mut any = false;
        // Exactly one call is told that it wrote; those who were told nothing count only if none is.
        let mut take = |call: &Call| {
            any = true;
            moments.called = moments.called.min(call.called);
            let decided = match call.outcome {
                Outcome::Unknown => Nanos::MAX,
                _ => call.decided,
            };
            moments.decided = moments.decided.max(decided);
        };
        if fresh.clone().count() > 0 {
            fresh.for_each(&mut take)
        } else {
            may.for_each(&mut take)
        }
        if any { moments } else { Moments { called: 0, decided: Nanos::MAX } }
    }

    /// Takes in what calls were told: from then on everybody else must be told it too.
    pub(super) fn learn(&mut self, history: &History) {
        for call in &history.calls {
            let at = call.returned;
            match (&call.operation, &call.outcome) {
                (
                    Operation::Write { write, .. } | Operation::Execute { write, .. },
                    Outcome::Committed(_) | Outcome::Executed(..),
                ) => {
                    if let Some(&(shard, place)) = self.records.get(write) {
                        self.shards[usize::from(shard)].durable.note(at, place as u64 + 1);
                    }
                }
                (Operation::Execute { subject, .. }, Outcome::Declined(seen)) => {
                    self.learn_durable(history, *subject, seen.version, at);
                }
                (Operation::Write { .. }, Outcome::Conflict { subject, actual }) => {
                    self.learn_accepted(*subject, *actual, at);
                }
                (
                    Operation::Read { subject, accepted, .. }
                    | Operation::Version { subject, accepted },
                    Outcome::Shown(version, _) | Outcome::Version(version),
                ) => match accepted {
                    true => self.learn_accepted(*subject, *version, at),
                    false => self.learn_durable(history, *subject, *version, at),
                },
                (
                    Operation::Log { shard, .. } | Operation::Follow { shard, .. },
                    Outcome::Logged(items),
                ) => {
                    if let Some(log) = self.shards.get_mut(usize::from(*shard)) {
                        for item in items {
                            if let Some(place) = log.place(item.position) {
                                log.durable.note(item.at, place as u64 + 1);
                            }
                        }
                    }
                }
                (Operation::Reopen, Outcome::Reopened) => {
                    for log in &mut self.shards {
                        let count = log.moments.iter().filter(|m| m.decided < call.called).count();
                        log.durable.note(at, count as u64);
                    }
                }
                _ => {}
            }
        }
        for (subject, versions) in (0..).zip(&mut self.subjects) {
            let shard = history.shard_of(subject);
            let moments = &self.shards[usize::from(shard)].moments;
            for (version, (place, _)) in (1..).zip(&versions.steps) {
                versions.accepted.note(moments[*place].decided, version);
            }
            versions.accepted.settle();
        }
        for log in &mut self.shards {
            log.durable.settle();
        }
    }

    fn learn_durable(&mut self, history: &History, subject: u16, version: u64, at: Nanos) {
        if let Some(place) = self.place_of(subject, version) {
            let shard = history.shard_of(subject);
            self.shards[usize::from(shard)].durable.note(at, place as u64 + 1);
        }
        self.learn_accepted(subject, version, at);
    }

    fn learn_accepted(&mut self, subject: u16, version: u64, at: Nanos) {
        if let Some(versions) = self.subjects.get_mut(usize::from(subject))
            && version <= versions.newest()
        {
            versions.accepted.note(at, version);
        }
    }

    /// Rule 3. What stands behind something was not decided before that was called.
    pub(super) fn check_real_time(&self, complaints: &mut Complaints) {
        for (shard, log) in self.shards.iter().enumerate() {
            let mut latest = (0, 0);
            for (record, moments) in log.records.iter().zip(&log.moments) {
                if moments.decided < latest.0 {
                    complaints.add(
                        Fault::RealTime,
                        None,
                        format!(
                            "shard {shard}: the record at {} was decided before the one at {} was called, and stands behind it",
                            record.position, latest.1
                        ),
                    );
                }
                latest = latest.max((moments.called, record.position));
            }
        }
    }

    /// The place in the shard's log of a version's record.
    pub(super) fn place_of(&self, subject: u16, version: u64) -> Option<usize> {
        let versions = self.subjects.get(usize::from(subject))?;
        let step = usize::try_from(version).ok()?.checked_sub(1)?;
        versions.steps.get(step).map(|(place, _)| *place)
    }

    /// The moments of a version's record.
    pub(super) fn moments_of(
        &self,
        history: &History,
        subject: u16,
        version: u64,
    ) -> Option<Moments> {
        let shard = history.shard_of(subject);
        self.place_of(subject, version).map(|place| self.shards[usize::from(shard)].moments[place])
    }

    /// The version that nobody may miss any more who begins at a moment, among what is durable.
    pub(super) fn durable_before(&self, history: &History, subject: u16, at: Nanos) -> u64 {
        let Some(versions) = self.subjects.get(usize::from(subject)) else { return 0 };
        let shard = history.shard_of(subject);
        versions.in_prefix(self.shards[usize::from(shard)].durable_before(at))
    }

    /// The same, among what is accepted.
    pub(super) fn accepted_before(&self, subject: u16, at: Nanos) -> u64 {
        self.subjects.get(usize::from(subject)).map_or(0, |versions| versions.accepted.before(at))
    }

    /// The sequences of a client on an aggregate that stand in the log, with the moments of their records.
    pub(super) fn sequences<'a>(
        &'a self,
        history: &History,
        client: Client,
        subject: u16,
    ) -> impl Iterator<Item = (u64, Moments)> + use<'a, 'h> {
        let log = &self.shards[usize::from(history.shard_of(subject))];
        log.records.iter().zip(&log.moments).filter_map(move |(record, moments)| {
            let found = record.client.filter(|found| found.id == client.id)?;
            let appends =
                record.parts.iter().any(|part| part.appends && part.subject == Some(subject));
            appends.then_some((found.sequence, *moments))
        })
    }
}

impl ShardLog<'_> {
    pub(super) fn place(&self, position: u64) -> Option<usize> {
        self.records.binary_search_by_key(&position, |record| record.position).ok()
    }

    /// How many records nobody may miss any more who begins at a moment.
    pub(super) fn durable_before(&self, at: Nanos) -> usize {
        self.durable.before(at) as usize
    }
}

impl Versions {
    fn new() -> Versions {
        Versions { digests: vec![Folded::default()], ..Versions::default() }
    }

    fn step(&mut self, place: usize, batch: Batch) {
        let mut folded = self.digests.last().copied().unwrap_or_default();
        folded.take_batch(&batch);
        self.digests.push(folded);
        self.steps.push((place, batch));
    }

    pub(super) fn newest(&self) -> u64 {
        self.steps.len() as u64
    }

    /// The version when the log has so many records.
    pub(super) fn in_prefix(&self, records: usize) -> u64 {
        self.steps.partition_point(|(place, _)| *place < records) as u64
    }
}

/// Whether a call wrote its record: `None` if it was not told.
pub(super) fn is_fresh(call: &Call) -> Option<bool> {
    match &call.outcome {
        Outcome::Committed(landed) | Outcome::Executed(_, landed) => Some(!landed.replay),
        Outcome::Accepted | Outcome::Unknown => None,
        _ => Some(false),
    }
}

/// The parts of what a call sent, as its record must have them. `None` if it sent no write, or is not known to have.
pub(super) fn parts_of(call: &Call) -> Option<Vec<Part>> {
    match (&call.operation, &call.outcome) {
        (Operation::Write { parts, .. }, _) => Some(parts.clone()),
        (Operation::Execute { subject, events, .. }, Outcome::Executed(seen, _)) => {
            let condition = match seen.version {
                0 => Condition::Absent,
                version => Condition::Version(version),
            };
            Some(vec![Part { subject: *subject, condition, events: *events }])
        }
        _ => None,
    }
}
