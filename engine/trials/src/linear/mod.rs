//! The general checker: is there *any* order of the calls, each at one moment of its own, in which every result is right?
//!
//! It is told nothing of positions or of the order of the log, only what a store of versions has to answer, so a fault in
//! the exact checker, or in the order that the store states, can't hide from it. The search is `todc-utils`'s (Wing and
//! Gong's, with Lowe's memory of what was tried), which no one here wrote.
//!
//! A history is cut into *windows*, one from each opening to the next, when nothing is in flight, and each window by
//! shard, because shards share nothing. A window is searched twice, as two objects:
//!
//! * what is **accepted**: a write takes effect between its call and the moment when it was decided. Conflicts, checks,
//!   executions and accepted reads look at this one;
//! * what is **durable**: a write takes effect between its call and its acknowledgement. Default reads look at this one.
//!
//! The first operation of a window sets what was there, and the last says what must be there. Both come from the log.
//!
//! The search can take very long where many calls overlap, as they do where threads keep writes in flight. So in a
//! window that is not small it is first asked about one order alone, which respects real time (`order.rs`); if that is no answer, about all orders. So
//! what is accepted has an order that the library accepts, and what is rejected has none.
//!
//! What it can't see: calls of which nobody knows what came of them, so it is for histories without failures; positions, so an order of the log that contradicts real time where no version shows it; and reads of
//! the log and followers, which are not operations on versions.

mod order;

use std::collections::{BTreeMap, HashMap};

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History as Search};
use todc_utils::specifications::Specification;

use crate::exact::{Complaint, Fault};
use crate::history::{
    Batch, Call, Client, Condition, Folded, History, LogRecord, Nanos, Operation, Outcome, Part,
};
use crate::mark::WriteId;

/// So many steps are searched without a hint, if no more than so many of them are under way at once.
const STEPS_MAX: usize = 80;
const OVERLAP_MAX: usize = 4;

/// What is searched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Object {
    Accepted,
    Durable,
}

/// Aggregates, and what clients have written to them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct State {
    /// Version, and a digest over all events up to it.
    subjects: BTreeMap<u16, (u64, u64)>,
    /// Of a client on an aggregate: the newest sequence, and the version that it made.
    clients: BTreeMap<(u64, u16), (u64, u64)>,
}

/// A call with its result.
#[derive(Clone, Debug)]
enum Step {
    /// What a window begins with.
    Begins(State),
    /// What a window ends with.
    Ends(State),
    /// A write took effect, and was told these versions.
    Wrote { write: WriteId, parts: Vec<Part>, client: Option<Client>, versions: Vec<(u16, u64)> },
    /// A write was accepted, and nobody knows its versions.
    Took { write: WriteId, parts: Vec<Part>, client: Option<Client> },
    /// The client had written it before.
    Replayed { parts: Vec<Part>, client: Client, versions: Vec<(u16, u64)> },
    /// Refused: an aggregate was at this version.
    Refused { subject: u16, condition: Condition, actual: u64 },
    /// Refused: the client had used a higher sequence.
    Overtaken { parts: Vec<Part>, client: Client },
    /// An aggregate was at this version, and its events, if they were all shown, had this digest.
    Saw { subject: u16, version: u64, digest: Option<u64> },
}

struct Store;

impl Specification for Store {
    type State = State;
    type Operation = Step;

    fn init() -> State {
        State::default()
    }

    fn apply(step: &Step, state: &State) -> (bool, State) {
        match step {
            Step::Begins(begins) => (*state == State::default(), begins.clone()),
            Step::Ends(ends) => (ends == state, state.clone()),
            Step::Wrote { write, parts, client, versions } => {
                match state.written(*write, parts, *client) {
                    Some((next, made)) if made == *versions => (true, next),
                    _ => (false, state.clone()),
                }
            }
            Step::Took { write, parts, client } => {
                // Perhaps a retry of what had landed.
                if client.is_some_and(|client| state.has_newest(client, parts)) {
                    return (true, state.clone());
                }
                match state.written(*write, parts, *client) {
                    Some((next, _)) => (true, next),
                    None => (false, state.clone()),
                }
            }
            Step::Replayed { parts, client, versions } => {
                let right = parts.iter().filter(|part| part.events > 0).all(|part| {
                    let told = versions.iter().find(|(subject, _)| *subject == part.subject);
                    let made = state.clients.get(&(client.id, part.subject));
                    told.is_some_and(|(_, told)| made == Some(&(client.sequence, *told)))
                });
                (right, state.clone())
            }
            Step::Refused { subject, condition, actual } => {
                let right = state.version(*subject) == *actual && !condition.holds(*actual);
                (right, state.clone())
            }
            Step::Overtaken { parts, client } => {
                let right = parts.iter().any(|part| {
                    let made = state.clients.get(&(client.id, part.subject));
                    made.is_some_and(|(sequence, _)| *sequence > client.sequence)
                });
                (right, state.clone())
            }
            Step::Saw { subject, version, digest } => {
                let found = state.subjects.get(subject).copied().unwrap_or_default();
                let right = found.0 == *version && digest.is_none_or(|digest| digest == found.1);
                (right, state.clone())
            }
        }
    }
}

impl State {
    fn version(&self, subject: u16) -> u64 {
        self.subjects.get(&subject).map_or(0, |(version, _)| *version)
    }

    fn has_newest(&self, client: Client, parts: &[Part]) -> bool {
        parts.iter().filter(|part| part.events > 0).all(|part| {
            let made = self.clients.get(&(client.id, part.subject));
            made.is_some_and(|(sequence, _)| *sequence == client.sequence)
        })
    }

    /// The state after a write, and the version of each part; `None` if it may not take effect.
    fn written(
        &self,
        write: WriteId,
        parts: &[Part],
        client: Option<Client>,
    ) -> Option<(State, Vec<(u16, u64)>)> {
        let mut next = self.clone();
        let mut versions = Vec::with_capacity(parts.len());
        for (place, part) in (0..).zip(parts) {
            let before = self.version(part.subject);
            if !part.condition.holds(before) {
                return None;
            }
            let version = before + u64::from(part.events > 0);
            versions.push((part.subject, version));
            if part.events == 0 {
                continue;
            }
            if let Some(client) = client {
                let made = next.clients.entry((client.id, part.subject)).or_default();
                if made.0 >= client.sequence {
                    return None;
                }
                *made = (client.sequence, version);
            }
            let batch = Batch {
                version,
                write: Some(write),
                part: place,
                first: 0,
                events: part.events,
                of: part.events,
            };
            next.append(part.subject, &batch);
        }
        versions.sort_unstable();
        Some((next, versions))
    }

    fn append(&mut self, subject: u16, batch: &Batch) {
        let (version, digest) = self.subjects.entry(subject).or_default();
        let mut folded = Folded { version: *version, digest: *digest };
        folded.take_batch(batch);
        (*version, *digest) = (folded.version, folded.digest);
    }

    /// Takes in a record of the log as it stands there.
    fn follow(&mut self, record: &LogRecord) {
        for part in record.parts.iter().filter(|part| part.appends) {
            let Some(subject) = part.subject else { continue };
            let batch = Batch {
                version: part.version,
                write: part.write,
                part: part.part,
                first: 0,
                events: part.events,
                of: part.events,
            };
            self.append(subject, &batch);
            if let Some(client) = record.client {
                self.clients.insert((client.id, subject), (client.sequence, part.version));
            }
        }
    }
}

/// How many windows a history has.
#[must_use]
pub fn windows(history: &History) -> usize {
    bounds(history).len()
}

/// The moments between which the windows lie.
fn bounds(history: &History) -> Vec<(Nanos, Nanos)> {
    let reopened = history.calls.iter().filter(|call| call.operation == Operation::Reopen);
    let mut cuts: Vec<_> = reopened.map(|call| (call.called, call.returned)).collect();
    cuts.sort_unstable();
    let starts = [0].into_iter().chain(cuts.iter().map(|(_, opened)| *opened));
    let ends = cuts.iter().map(|(closing, _)| *closing).chain([Nanos::MAX]);
    starts.zip(ends).collect()
}

/// Searches one window of a history.
///
/// # Errors
///
/// One complaint for each shard and object for which there is no order.
pub fn check(history: &History, window: usize) -> Result<(), Vec<Complaint>> {
    let Some(&(start, end)) = bounds(history).get(window) else { return Ok(()) };
    let shards = history.head.subjects.iter().map(|subject| subject.shard).max().unwrap_or(0);
    let mut complaints = Vec::new();
    for shard in 0..=shards {
        for object in [Object::Accepted, Object::Durable] {
            if !is_linearizable(history, shard, object, start, end) {
                complaints.push(Complaint {
                    fault: Fault::NoOrder,
                    call: None,
                    text: format!(
                        "window {window}, shard {shard}: no order of the calls explains what was told of what is {object:?}"
                    ),
                });
            }
        }
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints) }
}

fn is_linearizable(
    history: &History,
    shard: u16,
    object: Object,
    start: Nanos,
    end: Nanos,
) -> bool {
    let mut timed: Vec<(Nanos, Nanos, Step)> = Vec::new();
    let in_window = |call: &&Call| call.called >= start && call.called < end;
    for call in history.calls.iter().filter(in_window) {
        if let Some((until, step)) = step_of(history, shard, object, call) {
            timed.push((call.called, until.min(end), step));
        }
    }
    // What the log had before the window, and what it has after it, by who was told that it wrote.
    let mut since: HashMap<WriteId, Nanos> = HashMap::new();
    for call in &history.calls {
        if let Some(write) = wrote(call) {
            let first = since.entry(write).or_insert(Nanos::MAX);
            *first = call.called.min(*first);
        }
    }
    let (mut begins, mut ends) = (State::default(), State::default());
    for record in history.log.iter().filter(|record| record.shard == shard) {
        let sent = record.write().and_then(|write| since.get(&write)).copied().unwrap_or(0);
        if sent < start {
            begins.follow(record);
        }
        if sent < end {
            ends.follow(record);
        }
    }
    let sequential = (timed.len() > STEPS_MAX || overlap(&timed) > OVERLAP_MAX)
        && order::of(history, &begins, &timed).is_some_and(|order| {
            let steps = order.iter().flat_map(|at| one_step(at + 1, &timed[*at].2));
            search(begins.clone(), steps.collect(), ends.clone())
        });
    sequential || {
        let mut actions: Vec<(Nanos, bool, usize, Action<Step>)> = Vec::new();
        for (process, (called, returned, step)) in timed.iter().enumerate() {
            actions.push((*called, false, process + 1, Action::Call(step.clone())));
            actions.push((*returned, true, process + 1, Action::Response(step.clone())));
        }
        // Calls before results at one moment: that allows more orders, never fewer.
        actions.sort_by_key(|(at, responds, process, _)| (*at, *responds, *process));
        let actions = actions.into_iter().map(|(_, _, process, action)| (process, action));
        search(begins, actions.collect(), ends)
    }
}

/// A step that nothing overlaps.
fn one_step(process: usize, step: &Step) -> [(usize, Action<Step>); 2] {
    [(process, Action::Call(step.clone())), (process, Action::Response(step.clone()))]
}

fn search(begins: State, actions: Vec<(usize, Action<Step>)>, ends: State) -> bool {
    let mut all: Vec<(usize, Action<Step>)> = one_step(0, &Step::Begins(begins)).into();
    all.extend(actions);
    all.extend(one_step(0, &Step::Ends(ends)));
    WGLChecker::<Store>::is_linearizable(Search::from_actions(all))
}

/// How many steps are under way at once, at most.
fn overlap(timed: &[(Nanos, Nanos, Step)]) -> usize {
    let mut moments: Vec<(Nanos, i32)> =
        timed.iter().flat_map(|(called, until, _)| [(*called, 1), (*until, -1)]).collect();
    moments.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, change) in moments {
        now += change;
        most = most.max(now);
    }
    most as usize
}

/// A call as a step of an object, and until when it took effect. `None` if it says nothing of it.
fn step_of(history: &History, shard: u16, object: Object, call: &Call) -> Option<(Nanos, Step)> {
    let on_shard = |subject: u16| history.shard_of(subject) == shard;
    let until = match object {
        Object::Accepted => call.decided,
        Object::Durable => call.returned,
    };
    let sorted = |versions: &[(u16, u64)]| {
        let mut versions = versions.to_vec();
        versions.sort_unstable();
        versions
    };
    let step = match (&call.operation, &call.outcome) {
        (Operation::Write { write, parts, client }, outcome) => {
            parts.first().filter(|part| on_shard(part.subject))?;
            let (write, parts, client) = (*write, parts.clone(), *client);
            match (outcome, client) {
                // What only checks is not written, so the durable object knows nothing of it.
                (Outcome::Committed(_), _)
                    if object == Object::Durable && parts.iter().all(|part| part.events == 0) =>
                {
                    return None;
                }
                (Outcome::Committed(landed), Some(client)) if landed.replay => {
                    Step::Replayed { parts, client, versions: sorted(&landed.versions) }
                }
                (Outcome::Committed(landed), _) => {
                    Step::Wrote { write, parts, client, versions: sorted(&landed.versions) }
                }
                // It only checked, and nobody knows what it saw.
                (Outcome::Accepted, _) if parts.iter().all(|part| part.events == 0) => return None,
                (Outcome::Accepted, _) => {
                    // Durable by the end of the window.
                    let until = if object == Object::Durable { Nanos::MAX } else { until };
                    return Some((until, Step::Took { write, parts, client }));
                }
                (Outcome::Conflict { subject, actual }, _) if object == Object::Accepted => {
                    let part = parts.iter().find(|part| part.subject == *subject)?;
                    let condition = part.condition;
                    Step::Refused { subject: *subject, condition, actual: *actual }
                }
                (Outcome::Duplicate, Some(client)) if object == Object::Accepted => {
                    Step::Overtaken { parts, client }
                }
                _ => return None,
            }
        }
        (Operation::Execute { write, subject, events }, outcome) if on_shard(*subject) => {
            match outcome {
                Outcome::Executed(seen, landed) => {
                    let condition = Condition::Version(seen.version);
                    let parts = vec![Part { subject: *subject, condition, events: *events }];
                    let versions = sorted(&landed.versions);
                    Step::Wrote { write: *write, parts, client: None, versions }
                }
                Outcome::Declined(seen) if object == Object::Accepted => Step::Saw {
                    subject: *subject,
                    version: seen.version,
                    digest: Some(seen.digest),
                },
                _ => return None,
            }
        }
        (Operation::Read { subject, accepted, from, newest }, Outcome::Shown(version, shown))
            if on_shard(*subject) && *accepted == (object == Object::Accepted) =>
        {
            let whole = *from <= 1 && newest.is_none();
            let digest = whole.then(|| {
                let mut folded = Folded::default();
                shown.iter().for_each(|batch| folded.take_batch(batch));
                folded.digest
            });
            Step::Saw { subject: *subject, version: *version, digest }
        }
        (Operation::Version { subject, accepted }, Outcome::Version(version))
            if on_shard(*subject) && *accepted == (object == Object::Accepted) =>
        {
            Step::Saw { subject: *subject, version: *version, digest: None }
        }
        _ => return None,
    };
    Some((until, step))
}

/// The write that had landed when a call was decided.
fn wrote(call: &Call) -> Option<WriteId> {
    let made = match &call.outcome {
        Outcome::Accepted => true,
        Outcome::Committed(landed) | Outcome::Executed(_, landed) => !landed.replay,
        _ => false,
    };
    match &call.operation {
        Operation::Write { write, .. } | Operation::Execute { write, .. } if made => Some(*write),
        _ => None,
    }
}
