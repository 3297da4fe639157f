//! Reads of all kinds, and followers, against the log.

use super::ledger::Ledger;
use super::{Complaints, Fault};
use crate::history::{Batch, Call, History, Item, Nanos, Operation, Outcome};

pub(super) fn check(history: &History, ledger: &Ledger<'_>, complaints: &mut Complaints) {
    for (number, call) in history.calls.iter().enumerate() {
        let mut seen = Seen { history, ledger, call, number, complaints };
        match (&call.operation, &call.outcome) {
            (
                Operation::Read { subject, accepted, from, newest },
                Outcome::Shown(version, batches),
            ) => {
                seen.version(*subject, *accepted, *version);
                seen.contents(*subject, *version, *from, *newest, batches);
            }
            (Operation::Version { subject, accepted }, Outcome::Version(version)) => {
                seen.version(*subject, *accepted, *version);
            }
            (Operation::Log { shard, after, limit }, Outcome::Logged(items)) => {
                seen.log(*shard, *after, items, *limit, Some(call.called));
            }
            (Operation::Follow { shard, after }, Outcome::Logged(items)) => {
                seen.log(*shard, *after, items, None, None);
            }
            (Operation::Reopen, Outcome::Reopened)
            | (Operation::Write { .. } | Operation::Execute { .. }, _) => {}
            (operation, outcome) => {
                let text = format!("{operation:?} was told {outcome:?}");
                seen.complain(Fault::Unexpected, text);
            }
        }
    }
}

struct Seen<'a, 'h> {
    history: &'h History,
    ledger: &'a Ledger<'h>,
    call: &'a Call,
    number: usize,
    complaints: &'a mut Complaints,
}

impl Seen<'_, '_> {
    fn complain(&mut self, fault: Fault, text: String) {
        self.complaints.add(fault, Some(self.number), text);
    }

    /// Rule 5.
    fn version(&mut self, subject: u16, accepted: bool, version: u64) {
        let Call { called, returned, .. } = *self.call;
        let durable = self.ledger.durable_before(self.history, subject, called);
        let least = match accepted {
            true => durable.max(self.ledger.accepted_before(subject, called)),
            false => durable,
        };
        if version < least {
            let text = format!(
                "aggregate {subject} was at version {least} when the read began, and it shows {version}"
            );
            self.complain(Fault::StaleRead, text);
        }
        if version == 0 {
            return;
        }
        match self.ledger.moments_of(self.history, subject, version) {
            Some(moments) if moments.called <= returned => {}
            Some(_) => {
                let text = format!("version {version} of aggregate {subject} was called later");
                self.complain(Fault::FutureRead, text);
            }
            None => {
                let text = format!("aggregate {subject} never had version {version}");
                self.complain(Fault::WrongContents, text);
            }
        }
    }

    /// What is shown is what the log has, from one version to another.
    fn contents(
        &mut self,
        subject: u16,
        version: u64,
        from: u64,
        newest: Option<u32>,
        shown: &[Batch],
    ) {
        let Some(versions) = self.ledger.subjects.get(usize::from(subject)) else { return };
        let until = usize::try_from(version).unwrap_or(usize::MAX).min(versions.steps.len());
        let steps = &versions.steps[..until];
        let mut expected: Vec<Batch> = match newest {
            None => {
                let first = usize::try_from(from.max(1) - 1).unwrap_or(usize::MAX).min(until);
                steps[first..].iter().map(|(_, batch)| *batch).collect()
            }
            Some(limit) => {
                let mut left = limit;
                let mut taken = Vec::new();
                for (_, batch) in steps.iter().rev() {
                    let events = left.min(batch.events.into()) as u16;
                    if events == 0 {
                        break;
                    }
                    left -= u32::from(events);
                    taken.push(Batch { first: batch.events - events, events, ..*batch });
                }
                taken.reverse();
                taken
            }
        };
        if shown == expected {
            return;
        }
        let differs = shown.iter().zip(&expected).position(|(shown, expected)| shown != expected);
        let at = differs.unwrap_or(shown.len().min(expected.len()));
        let (found, expected) =
            (shown.get(at), (at < expected.len()).then(|| expected.swap_remove(at)));
        let half = matches!((found, &expected), (Some(found), Some(expected))
            if found.write == expected.write && found.events < expected.events);
        let fault = if half { Fault::HalfWrite } else { Fault::WrongContents };
        let text = format!(
            "aggregate {subject} at version {version}: expected {expected:?}, found {found:?}"
        );
        self.complain(fault, text);
    }

    /// Rule 7. What was asked for by a read that began at a moment has all that was durable then.
    fn log(
        &mut self,
        shard: u16,
        after: u64,
        items: &[Item],
        limit: Option<u32>,
        began: Option<Nanos>,
    ) {
        let Some(log) = self.ledger.shards.get(usize::from(shard)) else { return };
        let start = log.records.partition_point(|record| record.position <= after);
        for (place, item) in (start..).zip(items) {
            let Some(record) = log.records.get(place) else {
                let text = format!(
                    "shard {shard}: it gave a record at {}, and there is none",
                    item.position
                );
                self.complain(Fault::Gap, text);
                return;
            };
            if record.position != item.position {
                let text = format!(
                    "shard {shard}: expected the record at {}, it gave the one at {}",
                    record.position, item.position
                );
                self.complain(Fault::Gap, text);
                return;
            }
            if record.digest() != item.digest {
                let text = format!("shard {shard}: the record at {} was another", item.position);
                self.complain(Fault::WrongContents, text);
            }
            if log.moments[place].called > item.at {
                let text =
                    format!("shard {shard}: the record at {} was called later", item.position);
                self.complain(Fault::FutureRead, text);
            }
        }
        if limit.is_some_and(|limit| items.len() >= limit as usize) {
            return;
        }
        let end = start + items.len();
        // A follower ends when the store is closed, and then has given everything.
        let least = log.durable_before(began.unwrap_or(self.call.returned));
        if end < least {
            let text = format!(
                "shard {shard}: {least} records were durable, and it ended after {end} of them"
            );
            self.complain(if began.is_some() { Fault::StaleRead } else { Fault::Gap }, text);
        }
    }
}
