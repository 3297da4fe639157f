//! Writes and executions against the log: what was told, and what stands there.

use super::ledger::{Ledger, is_fresh, parts_of};
use super::{Complaints, Fault};
use crate::history::{
    Call, Client, Folded, History, Landed, LogRecord, Nanos, Operation, Outcome, Part,
};
use crate::mark::WriteId;

pub(super) fn check(history: &History, ledger: &Ledger<'_>, complaints: &mut Complaints) {
    for (number, call) in history.calls.iter().enumerate() {
        let mut told = Told { history, ledger, call, number, complaints };
        match &call.operation {
            Operation::Write { write, parts, client } => told.write(*write, parts, *client),
            Operation::Execute { write, subject, .. } => told.execution(*write, *subject),
            _ => {}
        }
    }
    let mut writes: Vec<_> = ledger.senders.iter().collect();
    writes.sort_unstable();
    for (write, senders) in writes {
        check_write(history, ledger, *write, senders, complaints);
    }
}

/// A write as a whole: all calls that sent it, and its record.
fn check_write(
    history: &History,
    ledger: &Ledger<'_>,
    write: WriteId,
    senders: &[usize],
    complaints: &mut Complaints,
) {
    let calls = || senders.iter().map(|call| (*call, &history.calls[*call]));
    let fresh = calls().filter(|(_, call)| is_fresh(call) == Some(true)).count();
    let unsure = calls().filter(|(_, call)| is_fresh(call).is_none()).count();
    let appends =
        |call: &Call| parts_of(call).is_some_and(|parts| parts.iter().any(|part| part.events > 0));
    let (first, _) = calls().next().unwrap_or((0, &history.calls[0]));
    let number = write.0;
    if fresh > 1 && calls().any(|(_, call)| appends(call)) {
        let text = format!("{fresh} calls were told that they wrote write {number}");
        complaints.add(Fault::WrittenTwice, Some(first), text);
    }
    let Some(&(shard, place)) = ledger.records.get(&write) else {
        for (at, call) in calls() {
            let promised = match call.outcome {
                Outcome::Committed(_) | Outcome::Executed(..) => appends(call),
                // The store was closed afterwards, and closing writes all that was accepted.
                Outcome::Accepted => appends(call),
                _ => false,
            };
            if promised {
                let text = format!("write {number} is not in the log: {:?}", call.outcome);
                complaints.add(Fault::Lost, Some(at), text);
            }
        }
        return;
    };
    let record = ledger.shards[usize::from(shard)].records[place];
    if fresh + unsure == 0 {
        let replayed = calls()
            .any(|(_, call)| matches!(&call.outcome, Outcome::Committed(landed) if landed.replay));
        let fault = if replayed { Fault::BrokenReplay } else { Fault::RefusedLanded };
        let text = format!(
            "write {number} stands at {}, and nobody was told that it was written",
            record.position
        );
        complaints.add(fault, Some(first), text);
    }
    // Any of them has the parts; that of an execution only if it was told its write.
    if let Some((at, call)) = calls().find(|(_, call)| parts_of(call).is_some()) {
        check_record(call, at, record, complaints);
    }
}

/// The record has what was sent, all of it and nothing else.
fn check_record(call: &Call, number: usize, record: &LogRecord, complaints: &mut Complaints) {
    let sent = parts_of(call).unwrap_or_default();
    let client = match &call.operation {
        Operation::Write { client, .. } => *client,
        _ => None,
    };
    let mut complain = |fault, text: String| {
        complaints.add(fault, Some(number), format!("the record at {}: {text}", record.position));
    };
    if record.client != client {
        let text = format!("expected client {client:?}, found {:?}", record.client);
        complain(Fault::WrongContents, text);
    }
    if record.parts.len() != sent.len() {
        let text = format!("expected {} parts, found {}", sent.len(), record.parts.len());
        complain(Fault::HalfWrite, text);
        return;
    }
    for (place, (found, sent)) in (0..).zip(record.parts.iter().zip(&sent)) {
        if found.events != sent.events && found.write.is_some() {
            let text = format!("expected {} events, found {}", sent.events, found.events);
            complain(Fault::HalfWrite, text);
        } else if found.subject != Some(sent.subject)
            || found.condition != sent.condition
            || found.appends != (sent.events > 0)
            || (found.appends && (found.part != place || found.events != sent.events))
        {
            complain(Fault::WrongContents, format!("part {place}: sent {sent:?}, found {found:?}"));
        }
    }
}

/// One call, and what it was told.
struct Told<'a, 'h> {
    history: &'h History,
    ledger: &'a Ledger<'h>,
    call: &'a Call,
    number: usize,
    complaints: &'a mut Complaints,
}

impl Told<'_, '_> {
    fn complain(&mut self, fault: Fault, text: String) {
        self.complaints.add(fault, Some(self.number), text);
    }

    fn write(&mut self, write: WriteId, parts: &[Part], client: Option<Client>) {
        match &self.call.outcome {
            Outcome::Committed(landed) if parts.iter().all(|part| part.events == 0) => {
                self.check_only(parts, landed);
            }
            Outcome::Committed(landed) => {
                let landed = landed.clone();
                self.landed(write, &landed);
            }
            Outcome::Conflict { subject, actual } => {
                let (subject, actual) = (*subject, *actual);
                self.conflict(write, parts, client, subject, actual);
            }
            Outcome::Duplicate => self.duplicate(parts, client),
            Outcome::Accepted | Outcome::NotWritten | Outcome::Unknown => {}
            other => self.complain(Fault::Unexpected, format!("a write was told {other:?}")),
        }
    }

    fn execution(&mut self, write: WriteId, subject: u16) {
        match &self.call.outcome {
            Outcome::Executed(seen, landed) => {
                let (seen, landed) = (*seen, landed.clone());
                self.saw(subject, seen, self.call.decided);
                self.landed(write, &landed);
            }
            Outcome::Declined(seen) => {
                let seen = *seen;
                self.saw(subject, seen, self.call.decided);
                self.is_not_stale(subject, seen.version);
            }
            Outcome::Contended | Outcome::NotWritten | Outcome::Unknown => {}
            other => self.complain(Fault::Unexpected, format!("an execution was told {other:?}")),
        }
    }

    /// Rule 4.
    fn landed(&mut self, write: WriteId, landed: &Landed) {
        // That there is none is said of the write as a whole.
        let Some(&(shard, place)) = self.ledger.records.get(&write) else { return };
        let record = self.ledger.shards[usize::from(shard)].records[place];
        let fault = if landed.replay { Fault::BrokenReplay } else { Fault::WrongResult };
        if record.position != landed.position {
            let (told, found) = (landed.position, record.position);
            self.complain(fault, format!("it was told position {told} and stands at {found}"));
        }
        for (subject, told) in &landed.versions {
            let part = record.parts.iter().find(|part| part.subject == Some(*subject));
            let found = part.map(|part| part.version);
            if found != Some(*told) {
                let text = format!(
                    "it was told version {told} of aggregate {subject}, its record has {found:?}"
                );
                self.complain(fault, text);
            }
        }
        if landed.versions.len() != record.parts.len() {
            let (told, found) = (landed.versions.len(), record.parts.len());
            self.complain(fault, format!("it was told {told} versions, its record has {found}"));
        }
    }

    /// What an execution has folded is a prefix, and not from the future.
    fn saw(&mut self, subject: u16, seen: Folded, until: Nanos) {
        let Some(versions) = self.ledger.subjects.get(usize::from(subject)) else { return };
        let at = usize::try_from(seen.version).unwrap_or(usize::MAX);
        if versions.digests.get(at).map(|folded| folded.digest) != Some(seen.digest) {
            let text = format!(
                "it decided on other events than version {} of aggregate {subject} has",
                seen.version
            );
            self.complain(Fault::WrongContents, text);
        }
        self.is_not_from_the_future(subject, seen.version, until);
    }

    fn is_not_from_the_future(&mut self, subject: u16, version: u64, until: Nanos) {
        let moments = self.ledger.moments_of(self.history, subject, version);
        if moments.is_some_and(|moments| moments.called > until) {
            let text = format!("version {version} of aggregate {subject} was not yet asked for");
            self.complain(Fault::FutureRead, text);
        }
    }

    fn is_not_stale(&mut self, subject: u16, version: u64) {
        let at = self.call.called;
        let accepted = self.ledger.accepted_before(subject, at);
        let least = accepted.max(self.ledger.durable_before(self.history, subject, at));
        if version < least {
            let text = format!(
                "aggregate {subject} was at version {least} when it began, and it saw {version}"
            );
            self.complain(Fault::StaleRead, text);
        }
    }

    /// Rule 6, for checks: all held at one moment of the call.
    fn check_only(&mut self, parts: &[Part], landed: &Landed) {
        let Some(first) = parts.first() else { return };
        let log = &self.ledger.shards[usize::from(self.history.shard_of(first.subject))];
        let told = |subject| landed.versions.iter().find(|(other, _)| *other == subject);
        let moments = &log.moments;
        let least = moments.iter().rposition(|moments| moments.decided < self.call.called);
        let most = moments.iter().position(|moments| moments.called > self.call.decided);
        let (least, most) = (least.map_or(0, |at| at + 1), most.unwrap_or(moments.len()));
        let held = (least..=most).any(|records| {
            parts.iter().all(|part| {
                let versions = self.ledger.subjects.get(usize::from(part.subject));
                let version = versions.map_or(0, |versions| versions.in_prefix(records));
                part.condition.holds(version)
                    && told(part.subject).is_some_and(|(_, told)| *told == version)
            })
        });
        if !held || landed.position != 0 {
            let text = format!("checks did not hold together: {parts:?}, told {landed:?}");
            self.complain(Fault::PhantomCheck, text);
        }
    }

    /// Rule 6: the aggregate was at that version at some moment of the call.
    fn conflict(
        &mut self,
        write: WriteId,
        parts: &[Part],
        client: Option<Client>,
        subject: u16,
        actual: u64,
    ) {
        let Call { called, returned, .. } = *self.call;
        let part = parts.iter().find(|part| part.subject == subject);
        if part.is_none_or(|part| part.condition.holds(actual)) {
            let text = format!("version {actual} of aggregate {subject} contradicts nothing");
            self.complain(Fault::PhantomRefusal, text);
        }
        let began = self.ledger.moments_of(self.history, subject, actual);
        let ended = self.ledger.moments_of(self.history, subject, actual + 1);
        let was_there = actual == 0 || began.is_some_and(|moments| moments.called < returned);
        let was_over = ended.is_some_and(|moments| moments.decided < called);
        if !was_there || was_over {
            let text = format!(
                "aggregate {subject} was at version {actual} at no moment of the call, of which a conflict was told"
            );
            self.complain(Fault::PhantomRefusal, text);
        }
        // A retry is answered before its conditions are looked at.
        let Some(client) = client else { return };
        let Some(&(shard, place)) = self.ledger.records.get(&write) else { return };
        let landed = self.ledger.shards[usize::from(shard)].moments[place].decided < called;
        if landed && !self.is_overtaken(parts, client) {
            let text = format!("write {} had landed, and its retry was told a conflict", write.0);
            self.complain(Fault::ReplayForgotten, text);
        }
    }

    /// Whether another write of the client, with a higher sequence, may have come in between.
    fn is_overtaken(&self, parts: &[Part], client: Client) -> bool {
        parts.iter().filter(|part| part.events > 0).any(|part| {
            self.ledger.sequences(self.history, client, part.subject).any(|(sequence, moments)| {
                sequence > client.sequence && moments.called < self.call.returned
            })
        })
    }

    fn duplicate(&mut self, parts: &[Part], client: Option<Client>) {
        if client.is_none_or(|client| !self.is_overtaken(parts, client)) {
            let text = "a sequence was refused, and the client had used none above it";
            self.complain(Fault::PhantomRefusal, text.into());
        }
    }
}
