//! A history: what threads asked of a store, when, what they were told, and the log that it left.
//!
//! It is plain data. As JSON lines it is one [`Line`] a line: the head, the calls, the log.

use serde::{Deserialize, Serialize};

use crate::mark::WriteId;

/// Nanoseconds of a monotonic clock, since the history began.
pub type Nanos = u64;

/// All that is known of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What it was made from.
    pub head: Head,
    /// In no order. Calls of one thread overlap where it did not wait for a write.
    pub calls: Vec<Call>,
    /// The log of all shards when everything was over: shard by shard, each in its order.
    pub log: Vec<LogRecord>,
}

/// What a history was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The seed.
    pub seed: u64,
    /// The aggregates that it knows. Others name them by their places here.
    pub subjects: Vec<Subject>,
}

/// An aggregate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its key.
    pub key: String,
    /// Where it lives.
    pub shard: u16,
}

/// One line of a history's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// The first line.
    Head(Head),
    /// A call.
    Call(Call),
    /// A record of the log.
    Log(LogRecord),
}

impl History {
    /// The lines of its file.
    pub fn lines(&self) -> impl Iterator<Item = Line> {
        let head = Line::Head(self.head.clone());
        let calls = self.calls.iter().cloned().map(Line::Call);
        [head].into_iter().chain(calls).chain(self.log.iter().cloned().map(Line::Log))
    }

    /// A history from its lines.
    #[must_use]
    pub fn of_lines(lines: impl IntoIterator<Item = Line>) -> History {
        let mut history = History::default();
        for line in lines {
            match line {
                Line::Head(head) => history.head = head,
                Line::Call(call) => history.calls.push(call),
                Line::Log(record) => history.log.push(record),
            }
        }
        history
    }

    /// The shard of an aggregate.
    #[must_use]
    pub fn shard_of(&self, subject: u16) -> u16 {
        self.head.subjects.get(usize::from(subject)).map_or(0, |subject| subject.shard)
    }
}

/// What a write demands of an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Nothing.
    Any,
    /// That it exists.
    Exists,
    /// That it does not.
    Absent,
    /// That it is at this version.
    Version(u64),
}

impl Condition {
    /// Whether it holds at a version. On purpose not the store's own function.
    #[must_use]
    pub fn holds(self, version: u64) -> bool {
        match self {
            Condition::Any => true,
            Condition::Exists => version != 0,
            Condition::Absent => version == 0,
            Condition::Version(wanted) => version == wanted,
        }
    }
}

/// What a write does to one aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which.
    pub subject: u16,
    /// On this condition.
    pub condition: Condition,
    /// Appends so many events; 0: it only checks.
    pub events: u16,
}

/// Who retries what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Client {
    /// The client.
    pub id: u64,
    /// The number of its write.
    pub sequence: u64,
}

/// One call, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Who called.
    pub thread: u16,
    /// Just before the call.
    pub called: Nanos,
    /// Of a write: just after it was decided. Of anything else as `returned`.
    pub decided: Nanos,
    /// Just after the result was there: of a write, that it is durable.
    pub returned: Nanos,
    /// What was asked.
    pub operation: Operation,
    /// What came of it.
    pub outcome: Outcome,
}

/// What is asked of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// A write to one or several aggregates.
    Write {
        /// Its number; that of the original if it is sent again.
        write: WriteId,
        /// Each aggregate once.
        parts: Vec<Part>,
        /// So that it can be sent again.
        client: Option<Client>,
    },
    /// Folds an aggregate, decides, and appends on the version that was seen.
    Execute {
        /// Its number.
        write: WriteId,
        /// The aggregate.
        subject: u16,
        /// Decides on so many events; 0: it declines.
        events: u16,
    },
    /// Reads an aggregate.
    Read {
        /// Which.
        subject: u16,
        /// Also what is not durable.
        accepted: bool,
        /// From this version on.
        from: u64,
        /// Only so many events, the newest.
        newest: Option<u32>,
    },
    /// Asks for the version of an aggregate.
    Version {
        /// Which.
        subject: u16,
        /// Also what is not durable.
        accepted: bool,
    },
    /// Reads a shard in the order of its log.
    Log {
        /// Which.
        shard: u16,
        /// Behind this position.
        after: u64,
        /// At most so many writes.
        limit: Option<u32>,
    },
    /// Follows a shard until the store is closed.
    Follow {
        /// Which.
        shard: u16,
        /// Behind this position.
        after: u64,
    },
    /// Closes the store and opens it again.
    Reopen,
}

/// What a call was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The write is durable.
    Committed(Landed),
    /// The write was accepted. Nobody waited for it.
    Accepted,
    /// An aggregate was at another version.
    Conflict {
        /// Which.
        subject: u16,
        /// Where it was; 0: it did not exist.
        actual: u64,
    },
    /// The sequence of the client can't be answered any more.
    Duplicate,
    /// An execution lost too many races.
    Contended,
    /// An execution decided on a state, and its write is durable.
    Executed(Folded, Landed),
    /// An execution decided on a state to write nothing.
    Declined(Folded),
    /// The events of an aggregate, and its version.
    Shown(u64, Vec<Batch>),
    /// The version of an aggregate.
    Version(u64),
    /// Records of a log, in the order in which they were given.
    Logged(Vec<Item>),
    /// The store is open again.
    Reopened,
    /// The write can't be on disk.
    NotWritten,
    /// The write may be on disk.
    Unknown,
    /// Anything else.
    Failed(String),
}

/// The result of a durable write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landed {
    /// Where it stands in its log; 0 if it only checked.
    pub position: u64,
    /// The version of each aggregate.
    pub versions: Vec<(u16, u64)>,
    /// It is the result of an earlier write.
    pub replay: bool,
}

/// What an execution had seen of its aggregate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folded {
    /// The version.
    pub version: u64,
    /// Over all events up to it.
    pub digest: u64,
}

impl Folded {
    /// Takes in the next event.
    pub fn take(&mut self, version: u64, index: u32, write: Option<WriteId>) {
        self.version = version;
        let write = write.map_or(u64::MAX, |write| write.0);
        for word in [version, index.into(), write] {
            self.digest = (self.digest.rotate_left(23) ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
        }
    }

    /// Takes in what a write appended.
    pub fn take_batch(&mut self, batch: &Batch) {
        for index in batch.first..batch.first + batch.events {
            self.take(batch.version, index.into(), batch.write);
        }
    }
}

/// What was seen of the events that one write appended to an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The version that they made.
    pub version: u64,
    /// The write that their data names; `None` if a byte is not what was written, or they name several.
    pub write: Option<WriteId>,
    /// The part of the write.
    pub part: u16,
    /// The first that was seen.
    pub first: u16,
    /// How many were seen, one after the other.
    pub events: u16,
    /// How many there are, as the store says.
    pub of: u16,
}

/// A record that a read of a log gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its position.
    pub position: u64,
    /// Over all of the record.
    pub digest: u64,
    /// When it was there.
    pub at: Nanos,
}

/// A record of a log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogRecord {
    /// The shard.
    pub shard: u16,
    /// Where it stands.
    pub position: u64,
    /// The client, if it has one.
    pub client: Option<Client>,
    /// What it did.
    pub parts: Vec<LogPart>,
}

/// What a record did to an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogPart {
    /// Which; `None` if the history does not know it.
    pub subject: Option<u16>,
    /// What it demanded.
    pub condition: Condition,
    /// The version after it, or the one that a check has seen.
    pub version: u64,
    /// It appended.
    pub appends: bool,
    /// The write that its events name, if all of them are whole and in order.
    pub write: Option<WriteId>,
    /// The part of that write.
    pub part: u16,
    /// How many events.
    pub events: u16,
}

impl LogRecord {
    /// The write that it is of: the one that all its events name.
    #[must_use]
    pub fn write(&self) -> Option<WriteId> {
        let mut appends = self.parts.iter().filter(|part| part.appends);
        let first = appends.next()?.write?;
        appends.all(|part| part.write == Some(first)).then_some(first)
    }

    /// Over all of it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        use std::hash::{Hash, Hasher};
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}
