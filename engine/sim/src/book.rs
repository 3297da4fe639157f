//! The reference model: what was asked for, what was answered, and what was shown.
//!
//! An operation is *committed* when a ticket said so or a recovered log had it; *open* while an answer may still come;
//! *unknown* when none came, or the answer was that nobody knows. Anything else must never be found in a log.

use std::collections::{BTreeMap, BTreeSet};

use annals::{Committed, Error, ErrorKind, Expect};

use crate::op::{Deed, Op, OpId, Part};

/// Where an operation stands in its log, and the versions that it brought its aggregates to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The number of its position.
    pub position: u64,
    /// Each aggregate that it appended to or checked.
    pub versions: BTreeMap<String, u64>,
}

/// What is known of an operation.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What was asked for.
    pub op: Op,
    /// Calls that have no answer yet.
    open: u32,
    /// A call has no answer and will get none.
    unknown: bool,
    /// It is durable.
    pub committed: Option<Facts>,
    /// What was durable of its aggregates when the last call began.
    floors: Vec<u64>,
    /// The one call that wrote it has its answer, or nobody hears of it any more.
    original_told: bool,
    /// A number over the states that it was decided on, for each aggregate.
    pub decided_on: BTreeMap<String, u64>,
}

impl Entry {
    /// Whether a log may have it.
    pub fn may_exist(&self) -> bool {
        self.open > 0 || self.unknown || self.committed.is_some()
    }
}

/// What a follower was given: everything behind one position up to another, it says.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Its shard.
    pub shard: u16,
    /// Where it began.
    pub after: u64,
    /// The positions of the writes that it was given.
    pub given: Vec<u64>,
}

/// See the module.
#[derive(Clone, Default, Debug)]
pub struct Book {
    ops: BTreeMap<OpId, Entry>,
    next: u64,
    /// What was shown as durable, by shard and position. It must be there for ever.
    served: BTreeMap<(u16, u64), OpId>,
    /// The lowest version that a default read may show now.
    floors: BTreeMap<String, u64>,
    /// The lowest version that an accepted read may show now, unless the shard fails.
    accepted: BTreeMap<String, u64>,
    /// What clients believe the versions to be.
    beliefs: BTreeMap<String, u64>,
    /// Where checkpoints stand, as far as anybody knows.
    marks: BTreeMap<String, u64>,
    /// Shards that said in this life that they failed.
    failed: BTreeSet<u16>,
    /// Of which operations this life has calls.
    open: BTreeSet<OpId>,
    /// What followers were given in this life.
    pub followed: Vec<Followed>,
    /// How often each thing happened.
    pub counts: BTreeMap<String, u64>,
}

/// A call that was made.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Call {
    /// Of which operation.
    pub id: OpId,
    /// Its shard had said that it failed.
    late: bool,
}

impl Book {
    /// Counts something.
    pub fn count(&mut self, what: &str) {
        match self.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(what.to_owned(), 1);
            }
        }
    }

    /// Notes a new operation.
    pub fn add(
        &mut self,
        shard: u16,
        parts: Vec<Part>,
        client: Option<(u128, u64)>,
        bytes_max: u32,
        decided: bool,
    ) -> OpId {
        self.next += 1;
        let id = OpId(self.next);
        let op = Op { id, shard, parts, client, bytes_max, decided };
        let entry = Entry {
            op,
            open: 0,
            unknown: false,
            committed: None,
            floors: Vec::new(),
            original_told: false,
            decided_on: BTreeMap::new(),
        };
        self.ops.insert(id, entry);
        id
    }

    /// What is known of an operation.
    pub fn entry(&self, id: OpId) -> &Entry {
        &self.ops[&id]
    }

    /// The same, if there is such an operation.
    pub fn find(&self, id: OpId) -> Option<&Entry> {
        self.ops.get(&id)
    }

    /// Says what it was decided on.
    pub fn decided_on(&mut self, id: OpId, key: &str, state: u64) {
        if let Some(entry) = self.ops.get_mut(&id) {
            entry.decided_on.insert(key.to_owned(), state);
        }
    }

    /// A call is made.
    pub fn begin(&mut self, id: OpId) -> Call {
        self.open.insert(id);
        let entry = self.ops.get_mut(&id).expect("it was added");
        entry.open += 1;
        let floor = |part: &Part| self.floors.get(&part.key).copied().unwrap_or(0);
        entry.floors = entry.op.parts.iter().map(floor).collect();
        Call { id, late: self.failed.contains(&entry.op.shard) }
    }

    /// A call was refused: nothing of it is to be found, ever. What else the refusal says is checked.
    pub fn refused(&mut self, call: Call, error: &Error, dead: bool) -> Result<(), String> {
        let entry = self.ops.get_mut(&call.id).expect("it was added");
        entry.open -= 1;
        if dead {
            return Ok(());
        }
        let (op, floors) = (entry.op.clone(), entry.floors.clone());
        let committed = entry.committed.is_some();
        self.count(&format!("refused {}", error.code()));
        match error.kind() {
            ErrorKind::Conflict | ErrorKind::NotFound | ErrorKind::Duplicate
                if committed && op.client.is_some() =>
            {
                Err(format!("{:?} is committed, and sent again it is refused: {error}", op.id))
            }
            ErrorKind::Conflict => {
                let Some((key, actual)) = error.key().zip(error.actual()) else {
                    // A checkpoint is no aggregate: its place is in the text.
                    if op.parts.iter().any(|part| matches!(part.deed, Deed::Move { .. })) {
                        return Ok(());
                    }
                    return Err(format!("a conflict without an aggregate or version: {error}"));
                };
                let key = String::from_utf8_lossy(key).into_owned();
                let mut parts = op.parts.iter().zip(floors);
                let Some((part, floor)) = parts.find(|(part, _)| part.key == key) else {
                    return Err(format!("a conflict on {key}, which is not part of {:?}", op.id));
                };
                if holds(part.expect, actual) {
                    return Err(format!(
                        "a conflict: {} holds at version {actual} of {key}",
                        part.expect
                    ));
                }
                if actual < floor {
                    return Err(format!(
                        "a conflict with version {actual} of {key}, durable at {floor}"
                    ));
                }
                self.beliefs.insert(key, actual);
                Ok(())
            }
            ErrorKind::Stopped => {
                self.failed.insert(op.shard);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A ticket failed.
    pub fn lost(&mut self, call: Call, error: &Error, dead: bool) -> Result<(), String> {
        let entry = self.ops.get_mut(&call.id).expect("it was added");
        entry.open -= 1;
        let shard = entry.op.shard;
        match error.kind() {
            ErrorKind::NotWritten => {}
            // A retry's ticket may say that the original was overtaken, or can't be read.
            ErrorKind::Duplicate | ErrorKind::Io | ErrorKind::Corrupt
                if entry.op.client.is_some() =>
            {
                entry.unknown = true;
                return Ok(());
            }
            ErrorKind::OutcomeUnknown => entry.unknown = true,
            _ if dead => entry.unknown = true,
            _ => {
                return Err(format!("the ticket of {:?} failed in no known way: {error}", call.id));
            }
        }
        if !dead {
            self.count(&format!("tickets {}", error.code()));
            self.failed.insert(shard);
        }
        Ok(())
    }

    /// A decision was to write nothing.
    pub fn declined(&mut self, call: Call) {
        self.ops.get_mut(&call.id).expect("it was added").open -= 1;
    }

    /// Whether an execution failed after it was accepted.
    pub fn is_ticket_error(&self, error: &Error) -> bool {
        matches!(error.kind(), ErrorKind::NotWritten | ErrorKind::OutcomeUnknown)
    }

    /// A number that no operation has yet.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Nobody will hear of a call any more.
    pub fn abandoned(&mut self, call: Call) {
        let entry = self.ops.get_mut(&call.id).expect("it was added");
        entry.open -= 1;
        entry.unknown = true;
    }

    /// A ticket said that it is durable. `dead`: after the power was cut.
    pub fn acknowledged(
        &mut self,
        call: Call,
        committed: &Committed,
        dead: bool,
    ) -> Result<(), String> {
        let entry = self.ops.get_mut(&call.id).expect("it was added");
        entry.open -= 1;
        if dead {
            entry.unknown = true;
            return Ok(());
        }
        let versions = committed.versions().map(|(key, version)| (text(key), version)).collect();
        let facts = Facts { position: committed.position().get(), versions };
        let shard = entry.op.shard;
        if call.late && !committed.is_replay() {
            return Err(format!("{:?} was committed by a shard that had failed", call.id));
        }
        let changes = entry.op.changes();
        for part in &entry.op.parts {
            match part.deed {
                Deed::Append(_) => {
                    let Some(version) = facts.versions.get(&part.key) else {
                        return Err(format!("{:?} is committed without {}", call.id, part.key));
                    };
                    if !holds(part.expect, version.wrapping_sub(1)) {
                        return Err(format!(
                            "{:?} is committed as version {version} of {}, on {}",
                            call.id, part.key, part.expect
                        ));
                    }
                    raise(&mut self.floors, &part.key, *version);
                    raise(&mut self.beliefs, &part.key, *version);
                }
                Deed::Check => {}
                Deed::Move { to, .. } => raise(&mut self.marks, &part.key, to.get()),
                Deed::Save { .. } => {}
            }
        }
        if !changes {
            return Ok(());
        }
        let again = committed.is_replay();
        let entry = self.ops.get_mut(&call.id).expect("it was added");
        if let Some(before) = &entry.committed
            && *before != facts
        {
            return Err(format!(
                "{:?} was committed as {before:?} and again as {facts:?}",
                call.id
            ));
        }
        if entry.original_told && !again {
            return Err(format!("{:?} was committed before, and no replay now", call.id));
        }
        entry.original_told |= !again;
        let position = facts.position;
        entry.committed = Some(facts);
        self.count(if again { "replayed" } else { "committed" });
        self.show(shard, position, call.id)
    }

    /// A record was shown as durable.
    pub fn show(&mut self, shard: u16, position: u64, id: OpId) -> Result<(), String> {
        match self.served.insert((shard, position), id) {
            Some(other) if other != id => {
                Err(format!("at {position} of shard {shard} stood {other:?}, and now {id:?}"))
            }
            _ => Ok(()),
        }
    }

    /// All that was shown of a shard.
    pub fn shown(&self, shard: u16) -> impl Iterator<Item = (u64, OpId)> {
        let range = self.served.range((shard, 0)..=(shard, u64::MAX));
        range.map(|((_, position), id)| (*position, *id))
    }

    /// Something was lost that may be lost: it was never shown.
    pub fn forget(&mut self, shard: u16, position: u64) {
        if let Some(id) = self.served.remove(&(shard, position))
            && let Some(entry) = self.ops.get_mut(&id)
        {
            entry.committed = None;
            entry.unknown = false;
        }
    }

    /// A call was accepted: its ticket is there.
    pub fn accepted(&mut self, call: Call) {
        let entry = self.ops.get(&call.id).expect("it was added");
        // A retry is accepted whatever the versions are.
        if entry.op.client.is_some() || call.late {
            return;
        }
        for part in &entry.op.parts {
            let before = match (part.deed, part.expect) {
                (Deed::Append(_), Expect::Version(before)) => before,
                (Deed::Append(_), Expect::Absent) => 0,
                _ => continue,
            };
            raise(&mut self.accepted, &part.key, before + 1);
        }
    }

    /// The lowest version that an accepted read may show, if it is not refused.
    pub fn accepted_floor(&self, key: &str) -> u64 {
        self.floor(key).max(self.accepted.get(key).copied().unwrap_or(0))
    }

    /// The lowest version that a default read may show.
    pub fn floor(&self, key: &str) -> u64 {
        self.floors.get(key).copied().unwrap_or(0)
    }

    /// A default read has shown this version.
    pub fn seen(&mut self, key: &str, version: u64) {
        raise(&mut self.floors, key, version);
        raise(&mut self.beliefs, key, version);
    }

    /// What clients believe the version of an aggregate to be.
    pub fn belief(&self, key: &str) -> u64 {
        self.beliefs.get(key).copied().unwrap_or(0)
    }

    /// A client learns of a version that may not be durable.
    pub fn believe(&mut self, key: &str, version: u64) {
        self.beliefs.insert(key.to_owned(), version);
    }

    /// Where a checkpoint stands, as far as anybody knows.
    pub fn mark(&self, name: &str) -> u64 {
        self.marks.get(name).copied().unwrap_or(0)
    }

    /// The life is over: no answer comes any more.
    pub fn end_life(&mut self) {
        for id in std::mem::take(&mut self.open) {
            let entry = self.ops.get_mut(&id).expect("it was added");
            entry.unknown |= entry.open > 0;
            entry.open = 0;
        }
        self.failed.clear();
        self.accepted.clear();
    }

    /// A recovered log has these operations, and these versions: from here on they are what there is.
    pub fn adopt(
        &mut self,
        landed: &BTreeMap<OpId, Facts>,
        versions: BTreeMap<String, u64>,
        marks: BTreeMap<String, u64>,
    ) {
        for (id, entry) in &mut self.ops {
            entry.unknown = false;
            if let Some(facts) = landed.get(id) {
                entry.committed = Some(facts.clone());
                entry.original_told = true;
                self.served.insert((entry.op.shard, facts.position), *id);
            }
        }
        self.beliefs.clone_from(&versions);
        self.floors = versions;
        self.marks = marks;
        self.followed.clear();
    }

    /// The operations that were committed.
    pub fn committed(&self) -> impl Iterator<Item = (OpId, &Entry, &Facts)> {
        self.ops.iter().filter_map(|(id, entry)| Some((*id, entry, entry.committed.as_ref()?)))
    }

    /// A snapshot that may exist, of this version of an aggregate.
    pub fn snapshots<'a>(&'a self, key: &'a str, version: u64) -> impl Iterator<Item = &'a Entry> {
        self.ops.values().filter(move |entry| {
            entry.may_exist()
                && entry.op.parts[0].deed == Deed::Save { version }
                && entry.op.parts[0].key == key
        })
    }

    /// The operation that moves a checkpoint to a position.
    pub fn mover(&self, name: &str, to: u64) -> Option<OpId> {
        self.ops.values().find_map(|entry| {
            let moves = |part: &Part| {
                part.key == name && matches!(part.deed, Deed::Move { to: at, .. } if at.get() == to)
            };
            (entry.may_exist() && entry.op.parts.iter().any(moves)).then_some(entry.op.id)
        })
    }
}

fn raise(versions: &mut BTreeMap<String, u64>, key: &str, version: u64) {
    match versions.get_mut(key) {
        Some(before) => *before = version.max(*before),
        None => {
            versions.insert(key.to_owned(), version);
        }
    }
}

/// The text of a key of ours.
pub fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// Whether a condition holds of a version.
pub fn holds(expect: Expect, version: u64) -> bool {
    match expect {
        Expect::Any => true,
        Expect::Exists => version > 0,
        Expect::Absent => version == 0,
        Expect::Version(expected) => version == expected,
    }
}
