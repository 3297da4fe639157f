//! One thread: what it asks next, and the notes that it takes.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use annals::{Committed, Error, ErrorKind, Event, Position, Recorded, State, Store, Ticket};
use fastrand::Rng;

use super::{Clock, Plan, Retries};
use crate::history::{
    Call, Client, Condition, Folded, Item, Landed, Nanos, Operation, Outcome, Part, Subject,
};
use crate::mark::{Mark, WriteId};
use crate::observe;

/// How many writes are kept for sending them again.
const RETRIES_MAX: usize = 16;

/// A write that can be sent again.
#[derive(Clone)]
pub(crate) struct Sent {
    write: WriteId,
    parts: Vec<Part>,
    client: Client,
}

pub(crate) struct Thread {
    number: u16,
    clock: Clock,
    subjects: Arc<[Subject]>,
    rng: Rng,
    calls: Vec<Call>,
    /// Writes that nobody has waited for yet: their calls, by their places.
    pending: VecDeque<(usize, Ticket)>,
    /// The version that it has last seen of each aggregate.
    known: Vec<u64>,
    /// The last position that it has read of each shard.
    read_until: Vec<u64>,
    writes: u64,
    sequence: u64,
}

impl Thread {
    pub(super) fn new(plan: &Plan, number: u16, clock: Clock, subjects: &Arc<[Subject]>) -> Thread {
        let shards = subjects.iter().map(|subject| subject.shard).max().unwrap_or(0);
        Thread {
            number,
            clock,
            subjects: Arc::clone(subjects),
            rng: Rng::with_seed(plan.seed ^ (u64::from(number) + 1) << 48),
            calls: Vec::with_capacity(plan.operations as usize + subjects.len()),
            pending: VecDeque::new(),
            known: vec![0; subjects.len()],
            read_until: vec![0; usize::from(shards) + 1],
            writes: 0,
            sequence: 0,
        }
    }

    pub(super) fn into_calls(self) -> Vec<Call> {
        self.calls
    }

    /// Works, and in the end waits for its writes, or leaves some of them.
    pub(super) fn work(&mut self, store: &Store, retries: &Retries, operations: u32) {
        let in_flight_max = [0, 1, 4, 16][self.rng.usize(..4)];
        for _ in 0..operations {
            match self.rng.u8(..100) {
                0..40 => self.write_one(store, retries),
                40..52 => self.write_several(store, retries),
                52..55 => self.check_only(store),
                55..63 => self.send_again(store, retries),
                63..70 => self.execute(store),
                70..80 => self.read(store, false),
                80..88 => self.read(store, true),
                88..92 => self.version(store, false),
                92..96 => self.version(store, true),
                _ => self.read_log(store),
            }
            while self.pending.len() > in_flight_max {
                self.wait_for_oldest();
            }
        }
        let left = self.rng.usize(..=self.pending.len());
        while self.pending.len() > left {
            self.wait_for_oldest();
        }
        // The others are given up: closing the store writes them all the same.
        self.pending.clear();
    }

    /// Reads every aggregate as a whole.
    pub(super) fn read_all(&mut self, store: &Store) {
        for subject in 0..self.subjects.len() as u16 {
            self.read_so(store, subject, false, 0, None);
        }
    }

    fn note(&mut self, called: Nanos, operation: Operation, outcome: Outcome) {
        let returned = self.clock.now();
        let thread = self.number;
        self.calls.push(Call { thread, called, decided: returned, returned, operation, outcome });
    }

    fn subject(&mut self) -> u16 {
        self.rng.u16(..self.subjects.len() as u16)
    }

    fn next_write(&mut self) -> WriteId {
        self.writes += 1;
        WriteId(u64::from(self.number) << 32 | self.writes)
    }

    fn condition(&mut self, subject: u16) -> Condition {
        let known = self.known[usize::from(subject)];
        match self.rng.u8(..10) {
            0 | 1 => Condition::Any,
            2 => Condition::Exists,
            3 => Condition::Absent,
            4 => Condition::Version(known.saturating_sub(1)),
            _ => Condition::Version(known),
        }
    }

    fn client(&mut self) -> Option<Client> {
        if !self.rng.bool() {
            return None;
        }
        self.sequence += 1;
        Some(Client { id: u64::from(self.number) + 1, sequence: self.sequence })
    }

    fn write_one(&mut self, store: &Store, retries: &Retries) {
        let subject = self.subject();
        let part =
            Part { subject, condition: self.condition(subject), events: self.rng.u16(1..=3) };
        let (write, client) = (self.next_write(), self.client());
        self.send(store, retries, write, vec![part], client);
    }

    /// Other aggregates of the same shard.
    fn neighbours(&mut self, subject: u16, count: usize) -> Vec<u16> {
        let shard = self.subjects[usize::from(subject)].shard;
        let mut others: Vec<u16> = (0..self.subjects.len() as u16)
            .filter(|other| *other != subject)
            .filter(|other| self.subjects[usize::from(*other)].shard == shard)
            .collect();
        self.rng.shuffle(&mut others);
        others.truncate(count);
        others
    }

    fn write_several(&mut self, store: &Store, retries: &Retries) {
        let subject = self.subject();
        let count = self.rng.usize(1..=3);
        let condition = self.condition(subject);
        let mut parts = vec![Part { subject, condition, events: self.rng.u16(1..=3) }];
        for other in self.neighbours(subject, count) {
            let events = self.rng.u16(0..=2);
            let condition = match self.condition(other) {
                Condition::Any if events == 0 => Condition::Exists,
                condition => condition,
            };
            parts.push(Part { subject: other, condition, events });
        }
        let (write, client) = (self.next_write(), self.client());
        self.send(store, retries, write, parts, client);
    }

    fn check_only(&mut self, store: &Store) {
        let subject = self.subject();
        let mut parts = Vec::new();
        for subject in [subject].into_iter().chain(self.neighbours(subject, 2)) {
            let known = self.known[usize::from(subject)];
            let condition = if known == 0 { Condition::Absent } else { Condition::Version(known) };
            parts.push(Part { subject, condition, events: 0 });
        }
        let write = self.next_write();
        self.submit(store, write, parts, None);
    }

    fn send(
        &mut self,
        store: &Store,
        retries: &Retries,
        write: WriteId,
        parts: Vec<Part>,
        client: Option<Client>,
    ) {
        if let Some(client) = client {
            let mut retries = retries.lock().unwrap_or_else(PoisonError::into_inner);
            if retries.len() == RETRIES_MAX {
                retries.remove(0);
            }
            retries.push(Sent { write, parts: parts.clone(), client });
        }
        self.submit(store, write, parts, client);
    }

    /// Sends a write again, its own or another thread's, whatever came of it.
    fn send_again(&mut self, store: &Store, retries: &Retries) {
        let sent = {
            let retries = retries.lock().unwrap_or_else(PoisonError::into_inner);
            let own = |sent: &&Sent| sent.client.id == u64::from(self.number) + 1;
            match self.rng.bool() {
                true => retries.iter().rfind(own).cloned(),
                false => self.rng.choice(retries.iter()).cloned(),
            }
        };
        if let Some(Sent { write, parts, client }) = sent {
            self.submit(store, write, parts, Some(client));
        }
    }

    fn submit(&mut self, store: &Store, write: WriteId, parts: Vec<Part>, client: Option<Client>) {
        let mut request = store.write();
        for (place, part) in (0..).zip(&parts) {
            let key = &self.subjects[usize::from(part.subject)].key;
            request = match part.events {
                0 => request.check(key, part.condition.into()),
                _ => request.append(key, part.condition.into(), events(write, place, part.events)),
            };
        }
        if let Some(client) = client {
            request = request.client(client.id.into(), client.sequence);
        }
        let operation = Operation::Write { write, parts, client };
        let called = self.clock.now();
        match request.submit() {
            Ok(ticket) => {
                self.note(called, operation, Outcome::Accepted);
                self.pending.push_back((self.calls.len() - 1, ticket));
            }
            Err(error) => {
                let outcome = self.refusal(&error);
                self.note(called, operation, outcome);
            }
        }
    }

    fn wait_for_oldest(&mut self) {
        let Some((call, ticket)) = self.pending.pop_front() else { return };
        let outcome = match ticket.wait() {
            Ok(committed) => Outcome::Committed(self.landed(&committed)),
            Err(error) => self.refusal(&error),
        };
        let call = &mut self.calls[call];
        call.returned = self.clock.now();
        call.outcome = outcome;
    }

    fn landed(&mut self, committed: &Committed) -> Landed {
        let mut versions = Vec::new();
        for (key, version) in committed.versions() {
            if let Some(subject) = observe::subject_of(&self.subjects, key) {
                versions.push((subject, version));
            }
        }
        for (subject, version) in &versions {
            let known = &mut self.known[usize::from(*subject)];
            *known = version.max(known).to_owned();
        }
        let (position, replay) = (committed.position().get(), committed.is_replay());
        Landed { position, versions, replay }
    }

    fn refusal(&mut self, error: &Error) -> Outcome {
        let subject = error.key().and_then(|key| observe::subject_of(&self.subjects, key));
        match (error.kind(), subject, error.actual()) {
            (ErrorKind::Conflict | ErrorKind::NotFound, Some(subject), Some(actual)) => {
                self.known[usize::from(subject)] = actual;
                Outcome::Conflict { subject, actual }
            }
            (ErrorKind::Duplicate, ..) => Outcome::Duplicate,
            (ErrorKind::Contended, ..) => Outcome::Contended,
            (ErrorKind::NotWritten, ..) => Outcome::NotWritten,
            (ErrorKind::OutcomeUnknown, ..) => Outcome::Unknown,
            _ => Outcome::Failed(error.to_string()),
        }
    }

    fn execute(&mut self, store: &Store) {
        let (subject, write) = (self.subject(), self.next_write());
        let count = self.rng.u16(0..=2);
        let key = self.subjects[usize::from(subject)].key.clone();
        let operation = Operation::Execute { write, subject, events: count };
        let mut seen = Folded::default();
        let called = self.clock.now();
        let execution = store.execute(&key, |folded: &Prefix| {
            seen = folded.0;
            Ok::<_, std::convert::Infallible>(events(write, 0, count).collect())
        });
        let decided = self.clock.now();
        let outcome = match execution.wait() {
            Ok(Ok(Some(committed))) => Outcome::Executed(seen, self.landed(&committed)),
            Ok(Ok(None)) => Outcome::Declined(seen),
            Ok(Err(never)) => match never {},
            Err(error) => self.refusal(&error),
        };
        self.note(called, operation, outcome);
        if let Some(call) = self.calls.last_mut() {
            call.decided = decided;
        }
    }

    fn read(&mut self, store: &Store, accepted: bool) {
        let subject = self.subject();
        let known = self.known[usize::from(subject)];
        let (from, newest) = match self.rng.u8(..4) {
            0 => (self.rng.u64(0..=known + 1), None),
            1 => (0, Some(self.rng.u32(1..=8))),
            _ => (0, None),
        };
        self.read_so(store, subject, accepted, from, newest);
    }

    fn read_so(
        &mut self,
        store: &Store,
        subject: u16,
        accepted: bool,
        from: u64,
        newest: Option<u32>,
    ) {
        let key = self.subjects[usize::from(subject)].key.clone();
        let operation = Operation::Read { subject, accepted, from, newest };
        let called = self.clock.now();
        let mut read = store.read(&key);
        if accepted {
            read = read.accepted();
        }
        let version = read.version();
        let shown = match newest {
            None => observe::batches(read.from(from)),
            Some(limit) => {
                let mut events: Vec<_> = read.backwards().limit(limit as usize).collect();
                events.reverse();
                observe::batches(events)
            }
        };
        let outcome = match shown {
            Ok(batches) => Outcome::Shown(version, batches),
            Err(error) => Outcome::Failed(error.to_string()),
        };
        self.note(called, operation, outcome);
        self.known[usize::from(subject)] = version;
    }

    fn version(&mut self, store: &Store, accepted: bool) {
        let subject = self.subject();
        let key = self.subjects[usize::from(subject)].key.clone();
        let called = self.clock.now();
        let version = match accepted {
            true => store.version_accepted(&key),
            false => store.version(&key),
        };
        let outcome = match version {
            Ok(version) => Outcome::Version(version),
            Err(error) => Outcome::Failed(error.to_string()),
        };
        self.note(called, Operation::Version { subject, accepted }, outcome);
    }

    fn read_log(&mut self, store: &Store) {
        let shard = self.rng.u16(..self.read_until.len() as u16);
        let after = self.read_until[usize::from(shard)];
        let limit = self.rng.bool().then(|| self.rng.u32(1..=64));
        let operation = Operation::Log { shard, after, limit };
        let called = self.clock.now();
        let mut read = store.log(shard);
        if after > 0 {
            read = read.after(Position::from_raw(after));
        }
        if let Some(limit) = limit {
            read = read.limit(limit as usize);
        }
        let mut items = Vec::new();
        let mut failed = None;
        for write in read.writes() {
            match write {
                Ok(write) => {
                    let digest = observe::record(&self.subjects, shard, &write).digest();
                    let (position, at) = (write.position().get(), self.clock.now());
                    items.push(Item { position, digest, at });
                }
                Err(error) => failed = Some(error.to_string()),
            }
        }
        if let Some(last) = items.last() {
            self.read_until[usize::from(shard)] = last.position;
        }
        let outcome = failed.map_or(Outcome::Logged(items), Outcome::Failed);
        self.note(called, operation, outcome);
    }
}

/// The events of a part.
fn events(write: WriteId, part: u16, count: u16) -> impl Iterator<Item = Event> {
    (0..count).map(move |index| {
        let bytes = 16 + (write.0 as usize * 31 + usize::from(index) * 7) % 90;
        Event::new("Marked", Mark { write, part, index }.data(bytes))
    })
}

/// All events of an aggregate.
#[derive(Default)]
struct Prefix(Folded);

impl State for Prefix {
    fn apply(&mut self, event: &Recorded) {
        let mark = Mark::read(event.data()).filter(|mark| u32::from(mark.index) == event.index());
        self.0.take(event.version(), event.index(), mark.map(|mark| mark.write));
    }
}
