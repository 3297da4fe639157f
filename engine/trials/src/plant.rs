//! Anomalies put into a history that has none: what a checker is worth is what it finds.

use crate::exact::Fault;
use crate::history::{History, Operation, Outcome};

/// An anomaly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Anomaly {
    /// A default read shows the version before the one that it must show.
    StaleRead,
    /// An accepted read does.
    StaleAcceptedRead,
    /// A write that was acknowledged is not in the log, nor in any read.
    LostWrite,
    /// A conflict names a version that was over when the call began.
    PhantomConflict,
    /// A read shows two batches in each other's place.
    ReorderedBatch,
    /// Two records of the log stand in each other's place, though one was acknowledged before the other was called.
    ReorderedLog,
    /// A read shows a batch without its last event.
    HalfWrite,
    /// A record of several aggregates stands without one of them.
    HalfRecord,
    /// A write is told the version of the one before it.
    DuplicateVersion,
    /// A replay is told another version than its original.
    BrokenReplay,
    /// A write that was refused is in the log all the same.
    RefusedLanded,
    /// A follower left a record out.
    FollowerGap,
    /// A follower gave a record twice.
    FollowerDuplicate,
}

impl Anomaly {
    /// All of them.
    pub const ALL: [Anomaly; 13] = [
        Anomaly::StaleRead,
        Anomaly::StaleAcceptedRead,
        Anomaly::LostWrite,
        Anomaly::PhantomConflict,
        Anomaly::ReorderedBatch,
        Anomaly::ReorderedLog,
        Anomaly::HalfWrite,
        Anomaly::HalfRecord,
        Anomaly::DuplicateVersion,
        Anomaly::BrokenReplay,
        Anomaly::RefusedLanded,
        Anomaly::FollowerGap,
        Anomaly::FollowerDuplicate,
    ];

    /// What the exact checker has to say, among other things.
    #[must_use]
    pub fn fault(self) -> Fault {
        match self {
            Anomaly::StaleRead | Anomaly::StaleAcceptedRead => Fault::StaleRead,
            Anomaly::LostWrite => Fault::Lost,
            Anomaly::PhantomConflict => Fault::PhantomRefusal,
            Anomaly::ReorderedBatch => Fault::WrongContents,
            Anomaly::ReorderedLog => Fault::RealTime,
            Anomaly::HalfWrite | Anomaly::HalfRecord => Fault::HalfWrite,
            Anomaly::DuplicateVersion => Fault::WrongResult,
            Anomaly::BrokenReplay => Fault::BrokenReplay,
            Anomaly::RefusedLanded => Fault::RefusedLanded,
            Anomaly::FollowerGap | Anomaly::FollowerDuplicate => Fault::Gap,
        }
    }

    /// Whether the general checker can see it. It is not told of positions, nor of what followers were given.
    #[must_use]
    pub fn is_of_versions(self) -> bool {
        !matches!(self, Anomaly::ReorderedLog | Anomaly::FollowerGap | Anomaly::FollowerDuplicate)
    }

    /// Puts it into a history, at the last place where it would be one. `false` if there is none.
    pub fn plant(self, history: &mut History) -> bool {
        match self {
            Anomaly::StaleRead => stale(history, false),
            Anomaly::StaleAcceptedRead => stale(history, true),
            Anomaly::LostWrite => lost(history),
            Anomaly::PhantomConflict => phantom(history),
            Anomaly::ReorderedBatch => reordered(history),
            Anomaly::ReorderedLog => reordered_log(history),
            Anomaly::HalfWrite => half(history),
            Anomaly::HalfRecord => half_record(history),
            Anomaly::DuplicateVersion => told_another(history, false),
            Anomaly::BrokenReplay => told_another(history, true),
            Anomaly::RefusedLanded => refused(history),
            Anomaly::FollowerGap => follower(history, |items| {
                items.remove(items.len() / 2);
            }),
            Anomaly::FollowerDuplicate => follower(history, |items| {
                let again = items[items.len() / 2];
                items.insert(items.len() / 2, again);
            }),
        }
    }
}

/// When a version was surely accepted and acknowledged: the latest that any call which wrote it says.
fn acknowledged(history: &History, subject: u16, version: u64) -> Option<u64> {
    let told = history.calls.iter().filter_map(|call| match &call.outcome {
        Outcome::Committed(landed) | Outcome::Executed(_, landed)
            if !landed.replay && landed.versions.contains(&(subject, version)) =>
        {
            Some(call.returned)
        }
        _ => None,
    });
    told.max()
}

fn is_append_to(history: &History, subject: u16, version: u64) -> bool {
    history
        .log
        .iter()
        .flat_map(|record| &record.parts)
        .any(|part| part.appends && part.subject == Some(subject) && part.version == version)
}

fn stale(history: &mut History, wanted: bool) -> bool {
    let place = history.calls.iter().rposition(|call| match (&call.operation, &call.outcome) {
        (Operation::Read { subject, accepted, from, newest: None }, Outcome::Shown(version, _)) => {
            *accepted == wanted
                && *from <= 1
                && *version > 1
                && acknowledged(history, *subject, *version).is_some_and(|at| at < call.called)
        }
        _ => false,
    });
    let Some(place) = place else { return false };
    if let Outcome::Shown(version, batches) = &mut history.calls[place].outcome {
        *version -= 1;
        batches.pop();
    }
    true
}

/// The newest version of an aggregate whose record has nothing else goes away, from reads, logs and followers too.
fn lost(history: &mut History) -> bool {
    let place = history.log.iter().rposition(|record| {
        let [part] = record.parts.as_slice() else { return false };
        let Some(subject) = part.subject else { return false };
        !is_append_to(history, subject, part.version + 1)
            && acknowledged(history, subject, part.version).is_some()
    });
    let Some(place) = place else { return false };
    let record = history.log.remove(place);
    let (subject, newest) = (record.parts[0].subject.unwrap_or(0), record.parts[0].version);
    for call in &mut history.calls {
        match (&call.operation, &mut call.outcome) {
            (Operation::Read { subject: read, .. }, Outcome::Shown(version, batches))
                if *read == subject && *version == newest =>
            {
                *version -= 1;
                batches.retain(|batch| batch.version < newest);
            }
            (Operation::Version { subject: read, .. }, Outcome::Version(version))
                if *read == subject && *version == newest =>
            {
                *version -= 1;
            }
            (_, Outcome::Logged(items)) => items.retain(|item| item.position != record.position),
            _ => {}
        }
    }
    true
}

fn phantom(history: &mut History) -> bool {
    let place = history.calls.iter().rposition(|call| match (&call.operation, &call.outcome) {
        (Operation::Write { parts, .. }, Outcome::Conflict { subject, actual }) => {
            *actual > 1
                && acknowledged(history, *subject, *actual).is_some_and(|at| at < call.called)
                && parts
                    .iter()
                    .any(|part| part.subject == *subject && !part.condition.holds(*actual - 1))
        }
        _ => false,
    });
    let Some(place) = place else { return false };
    if let Outcome::Conflict { actual, .. } = &mut history.calls[place].outcome {
        *actual -= 1;
    }
    true
}

fn reordered(history: &mut History) -> bool {
    for call in history.calls.iter_mut().rev() {
        if let (Operation::Read { newest: None, from: 0 | 1, .. }, Outcome::Shown(_, batches)) =
            (&call.operation, &mut call.outcome)
            && let [.., first, second] = batches.as_mut_slice()
        {
            (first.write, second.write) = (second.write, first.write);
            (first.part, second.part) = (second.part, first.part);
            return true;
        }
    }
    false
}

/// Two neighbours that have no aggregate in common change places, and with them what everybody was told.
fn reordered_log(history: &mut History) -> bool {
    let moment = |history: &History, place: usize| {
        let write = history.log[place].write();
        let call = history.calls.iter().find(|call| match (&call.operation, &call.outcome) {
            (
                Operation::Write { write: sent, .. } | Operation::Execute { write: sent, .. },
                Outcome::Committed(landed) | Outcome::Executed(_, landed),
            ) => Some(*sent) == write && !landed.replay,
            _ => false,
        })?;
        Some((call.called, call.returned))
    };
    for place in (1..history.log.len()).rev() {
        let (first, second) = (&history.log[place - 1], &history.log[place]);
        let common = first
            .parts
            .iter()
            .any(|part| second.parts.iter().any(|other| other.subject == part.subject));
        let (Some((_, acknowledged)), Some((called, _))) =
            (moment(history, place - 1), moment(history, place))
        else {
            continue;
        };
        if common || first.shard != second.shard || acknowledged >= called {
            continue;
        }
        let (lower, higher) = (first.position, second.position);
        history.log.swap(place - 1, place);
        history.log[place - 1].position = lower;
        history.log[place].position = higher;
        let digests = [history.log[place - 1].digest(), history.log[place].digest()];
        for call in &mut history.calls {
            match &mut call.outcome {
                Outcome::Committed(landed) | Outcome::Executed(_, landed) => {
                    if landed.position == lower {
                        landed.position = higher;
                    } else if landed.position == higher {
                        landed.position = lower;
                    }
                }
                Outcome::Logged(items) => {
                    for item in items {
                        if item.position == lower {
                            item.digest = digests[0];
                        } else if item.position == higher {
                            item.digest = digests[1];
                        }
                    }
                }
                _ => {}
            }
        }
        return true;
    }
    false
}

fn half(history: &mut History) -> bool {
    for call in history.calls.iter_mut().rev() {
        if let (Operation::Read { newest: None, from: 0 | 1, .. }, Outcome::Shown(_, batches)) =
            (&call.operation, &mut call.outcome)
            && let Some(batch) = batches.iter_mut().rfind(|batch| batch.events > 1)
        {
            batch.events -= 1;
            return true;
        }
    }
    false
}

fn half_record(history: &mut History) -> bool {
    let place = history.log.iter().rposition(|record| {
        let appends = record.parts.iter().filter(|part| part.appends).count();
        let newest = record.parts.last().is_some_and(|part| {
            let subject = part.subject.unwrap_or(0);
            part.appends && !is_append_to(history, subject, part.version + 1)
        });
        appends > 1 && newest
    });
    let Some(place) = place else { return false };
    history.log[place].parts.pop();
    true
}

fn told_another(history: &mut History, replay: bool) -> bool {
    for call in history.calls.iter_mut().rev() {
        if let (Operation::Write { parts, .. }, Outcome::Committed(landed)) =
            (&call.operation, &mut call.outcome)
            && landed.replay == replay
            && parts.iter().all(|part| part.events > 0)
            && let Some((_, version)) = landed.versions.first_mut().filter(|told| told.1 > 1)
        {
            *version -= 1;
            return true;
        }
    }
    false
}

fn refused(history: &mut History) -> bool {
    for place in (0..history.calls.len()).rev() {
        let call = &history.calls[place];
        let (Operation::Write { write, parts, client: None }, Outcome::Committed(landed)) =
            (&call.operation, &call.outcome)
        else {
            continue;
        };
        let [part] = parts.as_slice() else { continue };
        let (write, subject, version) = (*write, part.subject, landed.versions[0].1);
        if version < 2 || part.events == 0 {
            continue;
        }
        // As if it had expected something else.
        let call = &mut history.calls[place];
        if let Operation::Write { parts, .. } = &mut call.operation {
            parts[0].condition = crate::history::Condition::Absent;
        }
        call.outcome = Outcome::Conflict { subject, actual: version - 1 };
        return history.log.iter().any(|record| record.write() == Some(write));
    }
    false
}

fn follower(history: &mut History, change: impl Fn(&mut Vec<crate::history::Item>)) -> bool {
    for call in history.calls.iter_mut().rev() {
        if let (Operation::Follow { .. }, Outcome::Logged(items)) =
            (&call.operation, &mut call.outcome)
            && items.len() > 2
        {
            change(items);
            return true;
        }
    }
    false
}
