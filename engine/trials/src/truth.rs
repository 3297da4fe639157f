//! What a process promised before it died, and what is back.
//!
//! The process says each thing through a pipe, which survives it: *what it is about to write* before it calls, and *what it
//! was told* afterwards. A line that stands before another in the pipe was said before it, so the numbers of the lines are
//! the moments of a history; after each recovery the log that is back is held against it by the exact checker:
//!
//! | promise | who complains |
//! |---|---|
//! | D: acknowledged is back, same bytes, version and position | `Lost`, `WrongResult`, `Stranger` |
//! | A: whole or not at all | `HalfWrite` |
//! | N: at most once; refused never; absent once is absent for ever, unless it is sent again | `WrittenTwice`, `RefusedLanded` |
//! | G: versions without a gap, positions rise, what was seen once stays where it is | `VersionGap`, `PositionOrder`, `Lost` |
//! | a retry is answered with its original, or written once | `BrokenReplay`, `WrittenTwice`, `ReplayForgotten` |

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::exact::{self, Complaint, Fault};
use crate::history::{
    Call, Client, Head, History, Landed, LogRecord, Nanos, Operation, Outcome, Part, Subject,
};
use crate::mark::WriteId;

/// What a process is about to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Its number.
    pub write: WriteId,
    /// Each aggregate once.
    pub parts: Vec<Part>,
    /// So that it can be sent again.
    pub client: Option<Client>,
    /// The bytes of each event.
    pub bytes: u32,
}

/// What a process says through its pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// It begins to open the store.
    Opening,
    /// The store is open.
    Open,
    /// The store could not be opened: the number of the error, and its text.
    NotOpened(u32, String),
    /// It is about to send a write.
    Intent(Intent),
    /// A write is durable, with its result.
    Acked(WriteId, Landed),
    /// A write is durable, it says, and does not say where.
    Claimed(WriteId),
    /// A write was refused: nothing of it was written. The number of the error.
    Refused(WriteId, u32),
    /// Perhaps it was written.
    Unknown(WriteId),
    /// The store was closed, or let go, and nothing is in flight.
    Done,
    /// Anything else that it has seen, for who reads it.
    Note(String),
}

/// What a process that stopped taking writes says of them: the errors' numbers.
const STOPPED: u32 = 6001;
const NOT_WRITTEN: u32 = 6002;
const CLOSED: u32 = 6004;
const DUPLICATE: u32 = 2002;

/// The truth about a store.
#[derive(Clone, Debug)]
pub struct Truth {
    subjects: Vec<Subject>,
    calls: Vec<Call>,
    intents: HashMap<WriteId, Intent>,
    /// The calls that have heard nothing.
    open: BTreeMap<WriteId, usize>,
    /// What was seen in the log: where, and what.
    seen: HashMap<(u16, u64), u64>,
    /// Writes that were in the log when somebody looked.
    landed: HashMap<WriteId, u64>,
    /// Those that were not acknowledged when their process died, and can be sent again.
    unresolved: Vec<WriteId>,
    complaints: Vec<Complaint>,
    now: Nanos,
    /// How many were acknowledged.
    pub acked: u64,
    /// How many retries were answered with their original, and how many were written anew.
    pub retries: (u64, u64),
}

impl Truth {
    /// A store in which there is nothing.
    #[must_use]
    pub fn new(subjects: Vec<Subject>) -> Truth {
        Truth {
            subjects,
            calls: Vec::new(),
            intents: HashMap::new(),
            open: BTreeMap::new(),
            seen: HashMap::new(),
            landed: HashMap::new(),
            unresolved: Vec::new(),
            complaints: Vec::new(),
            now: 0,
            acked: 0,
            retries: (0, 0),
        }
    }

    /// The aggregates.
    #[must_use]
    pub fn subjects(&self) -> &[Subject] {
        &self.subjects
    }

    /// How many writes it knows.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.intents.len()
    }

    /// Hears the next word.
    pub fn hear(&mut self, word: Word) {
        self.now += 1;
        match word {
            Word::Intent(intent) => {
                let Intent { write, parts, client, .. } = intent.clone();
                self.intents.insert(write, intent);
                self.unresolved.retain(|other| *other != write);
                self.open.insert(write, self.calls.len());
                self.calls.push(Call {
                    thread: 0,
                    called: self.now,
                    decided: Nanos::MAX,
                    returned: Nanos::MAX,
                    operation: Operation::Write { write, parts, client },
                    outcome: Outcome::Unknown,
                });
            }
            Word::Acked(write, landed) => {
                self.acked += 1;
                if let Some(at) = self.landed.get(&write) {
                    self.retries.0 += 1;
                    if !landed.replay || landed.position != *at {
                        let text = format!(
                            "write {} stands at {at}, and its retry was told {landed:?}",
                            write.0
                        );
                        self.complain(Fault::BrokenReplay, text);
                    }
                } else if self.calls_of(write) > 1 {
                    self.retries.1 += 1;
                }
                self.settle(write, Outcome::Committed(landed));
            }
            Word::Claimed(write) => {
                self.acked += 1;
                self.settle(write, Outcome::Accepted);
            }
            Word::Refused(write, code) => {
                let stopped = [STOPPED, NOT_WRITTEN, CLOSED].contains(&code);
                if self.landed.contains_key(&write) && !stopped {
                    let text =
                        format!("write {} had landed, and its retry was told {code}", write.0);
                    self.complain(Fault::ReplayForgotten, text);
                } else if code == DUPLICATE {
                    let text = format!("write {} is the newest of its client: {code}", write.0);
                    self.complain(Fault::PhantomRefusal, text);
                }
                self.settle(write, Outcome::NotWritten);
            }
            Word::Unknown(write) => {
                self.open.remove(&write);
            }
            Word::Opening | Word::Open | Word::NotOpened(..) | Word::Done | Word::Note(_) => {}
        }
    }

    fn complain(&mut self, fault: Fault, text: String) {
        self.complaints.push(Complaint { fault, call: None, text });
    }

    fn calls_of(&self, write: WriteId) -> usize {
        let of = |call: &&Call| matches!(call.operation, Operation::Write { write: sent, .. } if sent == write);
        self.calls.iter().filter(of).count()
    }

    fn settle(&mut self, write: WriteId, outcome: Outcome) {
        let Some(call) = self.open.remove(&write) else { return };
        let call = &mut self.calls[call];
        (call.decided, call.returned, call.outcome) = (self.now, self.now, outcome);
    }

    /// Writes that their process did not live to hear of, and that are to be sent again.
    #[must_use]
    pub fn unresolved(&self) -> Vec<Intent> {
        self.unresolved.iter().filter_map(|write| self.intents.get(write).cloned()).collect()
    }

    /// Holds the log that is back against what was said, and takes it for the truth from here on.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub fn recovered(&mut self, log: &[LogRecord]) -> Result<(), Vec<Complaint>> {
        self.now += 1;
        let history = History {
            head: Head { seed: 0, subjects: self.subjects.clone() },
            calls: self.calls.clone(),
            log: log.to_vec(),
        };
        let mut complaints = std::mem::take(&mut self.complaints);
        if let Err(found) = exact::check(&history) {
            complaints.extend(found);
        }
        let found: HashMap<(u16, u64), u64> =
            log.iter().map(|record| ((record.shard, record.position), record.digest())).collect();
        for ((shard, position), digest) in &self.seen {
            if found.get(&(*shard, *position)) != Some(digest) {
                let text = format!(
                    "what an earlier opening showed at {position} of shard {shard} is not there any more"
                );
                complaints.push(Complaint { fault: Fault::Lost, call: None, text });
            }
        }
        self.adopt(log, found);
        if complaints.is_empty() { Ok(()) } else { Err(complaints) }
    }

    /// From here on what landed has landed, and what did not never will.
    fn adopt(&mut self, log: &[LogRecord], found: HashMap<(u16, u64), u64>) {
        self.seen = found;
        for record in log {
            if let Some(write) = record.write() {
                self.landed.insert(write, record.position);
            }
        }
        self.open.clear();
        self.unresolved.clear();
        let records: HashMap<WriteId, &LogRecord> =
            log.iter().filter_map(|record| Some((record.write()?, record))).collect();
        // A write that several calls have sent has landed by one of them.
        let mut told: Vec<WriteId> = Vec::new();
        for call in &self.calls {
            if let (Operation::Write { write, .. }, Outcome::Committed(landed)) =
                (&call.operation, &call.outcome)
                && !landed.replay
            {
                told.push(*write);
            }
        }
        told.sort_unstable();
        for call in &mut self.calls {
            let (Operation::Write { write, client, .. }, Outcome::Unknown) =
                (&call.operation, &call.outcome)
            else {
                continue;
            };
            let write = *write;
            if client.is_some() && !self.unresolved.contains(&write) {
                self.unresolved.push(write);
            }
            call.outcome = match records.get(&write) {
                Some(record) if told.binary_search(&write).is_err() => {
                    if let Err(place) = told.binary_search(&write) {
                        told.insert(place, write);
                    }
                    let versions = record.parts.iter();
                    let versions =
                        versions.filter_map(|part| Some((part.subject?, part.version))).collect();
                    Outcome::Committed(Landed {
                        position: record.position,
                        versions,
                        replay: false,
                    })
                }
                _ => Outcome::NotWritten,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Condition, LogPart};

    fn intent(number: u64, sequence: u64) -> Word {
        let part = Part { subject: 0, condition: Condition::Any, events: 1 };
        let client = Some(Client { id: 1, sequence });
        Word::Intent(Intent { write: WriteId(number), parts: vec![part], client, bytes: 16 })
    }

    fn record(number: u64, version: u64) -> LogRecord {
        LogRecord {
            shard: 0,
            position: version * 100,
            client: Some(Client { id: 1, sequence: number }),
            parts: vec![LogPart {
                subject: Some(0),
                condition: Condition::Any,
                version,
                appends: true,
                write: Some(WriteId(number)),
                part: 0,
                events: 1,
            }],
        }
    }

    fn landed(version: u64, replay: bool) -> Landed {
        Landed { position: version * 100, versions: vec![(0, version)], replay }
    }

    fn truth() -> Truth {
        let mut truth = Truth::new(vec![Subject { key: "a".into(), shard: 0 }]);
        truth.hear(intent(1, 1));
        truth.hear(Word::Acked(WriteId(1), landed(1, false)));
        truth.hear(intent(2, 2));
        truth
    }

    fn faults(result: Result<(), Vec<Complaint>>) -> Vec<Fault> {
        result.err().into_iter().flatten().map(|complaint| complaint.fault).collect()
    }

    #[test]
    fn in_flight_may_be_there_or_not() {
        for log in [vec![record(1, 1)], vec![record(1, 1), record(2, 2)]] {
            let mut truth = truth();
            assert_eq!(truth.recovered(&log), Ok(()));
            assert_eq!(truth.unresolved().len(), 1);
            assert_eq!(truth.recovered(&log), Ok(()));
        }
    }

    #[test]
    fn what_must_not_be_is_told() {
        assert!(faults(truth().recovered(&[])).contains(&Fault::Lost));
        let mut moved = record(1, 1);
        moved.position += 8;
        assert!(faults(truth().recovered(&[moved])).contains(&Fault::WrongResult));
        let twice = [record(1, 1), record(2, 2), record(2, 3)];
        assert!(faults(truth().recovered(&twice)).contains(&Fault::WrittenTwice));
        let stranger = [record(1, 1), record(9, 2)];
        assert!(faults(truth().recovered(&stranger)).contains(&Fault::Stranger));
        let gap = [record(1, 1), record(2, 3)];
        assert!(faults(truth().recovered(&gap)).contains(&Fault::VersionGap));
    }

    #[test]
    fn what_was_absent_does_not_come_back_and_what_was_seen_stays() {
        let mut truth = truth();
        assert_eq!(truth.recovered(&[record(1, 1)]), Ok(()));
        let late = truth.clone().recovered(&[record(1, 1), record(2, 2)]);
        assert!(faults(late).contains(&Fault::RefusedLanded));
        assert!(faults(truth.recovered(&[])).contains(&Fault::Lost));
    }

    #[test]
    fn a_retry_resolves_as_the_original_or_once_anew() {
        let log = [record(1, 1), record(2, 2)];
        let mut there = truth();
        assert_eq!(there.recovered(&log), Ok(()));
        there.hear(intent(2, 2));
        let (mut replayed, mut again, mut refused) = (there.clone(), there.clone(), there);
        replayed.hear(Word::Acked(WriteId(2), landed(2, true)));
        assert_eq!(replayed.recovered(&log), Ok(()));
        again.hear(Word::Acked(WriteId(2), landed(3, false)));
        assert!(faults(again.recovered(&log)).contains(&Fault::BrokenReplay));
        refused.hear(Word::Refused(WriteId(2), 2003));
        assert!(faults(refused.recovered(&log)).contains(&Fault::ReplayForgotten));

        let mut absent = truth();
        assert_eq!(absent.recovered(&log[..1]), Ok(()));
        absent.hear(intent(2, 2));
        absent.hear(Word::Acked(WriteId(2), landed(2, false)));
        assert_eq!(absent.recovered(&log), Ok(()));
    }

    #[test]
    fn a_claim_without_a_place_must_be_there() {
        let mut truth = truth();
        truth.hear(Word::Claimed(WriteId(2)));
        assert!(faults(truth.recovered(&[record(1, 1)])).contains(&Fault::Lost));
    }
}
