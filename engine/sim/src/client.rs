//! A caller: appends, checks, sends again, reads, decides, and sometimes drops what it holds or panics.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use annals::internals::sync::host::Host;
use annals::{Committed, Error, ErrorKind, Event, Expect, Position, Recorded, State, Ticket};
use fastrand::Rng;

use crate::book::{Book, Call, text};
use crate::inspect::fold_one;
use crate::life::Scene;
use crate::op::{self, Deed, OpId, Part};

/// The most tickets that a caller keeps.
const TICKETS_MAX: usize = 24;

/// See the module.
pub(crate) struct Client {
    scene: Rc<Scene>,
    random: Rng,
    number: u128,
    /// The newest write of this client that may be sent again.
    newest: Option<OpId>,
    tickets: Vec<(Call, Ticket)>,
}

/// A fold that tells histories apart.
#[derive(Default)]
struct Tally(u64);

impl State for Tally {
    fn apply(&mut self, event: &Recorded) {
        if let Some((id, part, index)) = op::of(event.data()) {
            self.0 = fold_one(self.0, id, part, index);
        }
    }
}

type Said = Result<(), String>;

impl Client {
    pub(crate) fn new(scene: Rc<Scene>, number: u128, seed: u64) -> Client {
        let newest = scene.newest.borrow().get(&number).copied();
        Client { scene, random: Rng::with_seed(seed), number, newest, tickets: Vec::new() }
    }

    /// The thread.
    pub(crate) fn run(mut self) {
        let mut left = self.scene.profile.calls_per_client;
        while left > 0 && !self.scene.is_over() {
            left -= 1;
            if let Err(wrong) = self.act() {
                return self.scene.fail(wrong);
            }
        }
        for (call, ticket) in std::mem::take(&mut self.tickets) {
            if let Err(wrong) = self.settle(call, ticket.wait()) {
                return self.scene.fail(wrong);
            }
        }
    }

    fn act(&mut self) -> Said {
        if self.tickets.len() >= TICKETS_MAX {
            let (call, ticket) = self.tickets.swap_remove(0);
            return self.settle(call, ticket.wait());
        }
        match self.random.u8(0..100) {
            0..=27 => self.append(),
            28..=41 => self.write_several(),
            42..=47 => self.send_again(),
            48..=57 => self.execute(),
            58..=60 => self.execute_several(),
            61..=69 => self.read(),
            70..=76 => self.read_accepted(),
            77..=79 => self.check_alone(),
            80..=82 => self.save_snapshot(),
            83..=85 => self.move_checkpoint(),
            86..=87 => self.mistake(),
            88..=94 => self.resolve_one(),
            95..=97 => self.pause(),
            _ => self.panics(),
        }
    }

    fn book<R>(&self, with: impl FnOnce(&mut Book) -> R) -> R {
        with(&mut self.scene.book.borrow_mut())
    }

    fn group(&mut self) -> u8 {
        self.random.u8(0..self.scene.profile.groups)
    }

    fn key(&mut self, group: u8) -> String {
        // Some aggregates are busier than others.
        let among = self.scene.profile.aggregates;
        let number = self.random.u8(0..among).min(self.random.u8(0..among));
        format!("g{group}/a{number}")
    }

    fn expect(&mut self, key: &str) -> Expect {
        match self.random.u8(0..10) {
            0 => Expect::Any,
            1 => Expect::Exists,
            2 => Expect::Absent,
            3 => Expect::Version(self.book(|book| book.belief(key)) + self.random.u64(0..3)),
            4..=6 => match self.scene.store.version_accepted(key) {
                Ok(version) => Expect::Version(version),
                Err(_) => Expect::Any,
            },
            _ => Expect::Version(self.book(|book| book.belief(key))),
        }
    }

    fn append_part(&mut self, key: String) -> Part {
        let expect = self.expect(&key);
        let events =
            if self.random.u8(0..20) == 0 { self.random.u32(2..40) } else { self.random.u32(1..4) };
        Part { key, deed: Deed::Append(events), expect }
    }

    fn bytes_max(&mut self) -> u32 {
        match self.random.u8(0..20) {
            0 => self.scene.profile.event_bytes_large,
            1 => 0,
            _ => self.scene.profile.event_bytes,
        }
    }

    /// A client and the next sequence of its own.
    fn sequence(&mut self) -> (u128, u64) {
        self.scene.next_sequence.set(self.scene.next_sequence.get() + 1);
        (self.number, self.scene.next_sequence.get())
    }

    fn add(&mut self, parts: Vec<Part>, client: Option<(u128, u64)>) -> OpId {
        let bytes_max = self.bytes_max();
        let shard = self.scene.store.shard_of(&parts[0].key);
        self.book(|book| book.add(shard, parts, client, bytes_max, false))
    }

    /// An operation whose conditions the engine fills in.
    fn add_decided(&mut self, parts: Vec<Part>) -> OpId {
        let bytes_max = self.bytes_max();
        let shard = self.scene.store.shard_of(&parts[0].key);
        self.book(|book| book.add(shard, parts, None, bytes_max, true))
    }

    fn append(&mut self) -> Said {
        let group = self.group();
        let key = self.key(group);
        let part = self.append_part(key);
        if self.random.u8(0..4) == 0 {
            let client = self.sequence();
            let id = self.add(vec![part], Some(client));
            self.keep_newest(id);
            return self.submit(id);
        }
        let id = self.add(vec![part.clone()], None);
        let events = self.book(|book| book.entry(id).op.events(0));
        let call = self.book(|book| book.begin(id));
        let store = &self.scene.store;
        let answer = match self.random.bool() {
            true => store.append(&part.key, part.expect, events),
            false => store.try_append(&part.key, part.expect, events),
        };
        self.answered(call, answer)
    }

    fn write_several(&mut self) -> Said {
        let group = self.group();
        let mut keys: Vec<String> = (0..self.random.u8(2..5)).map(|_| self.key(group)).collect();
        keys.sort();
        keys.dedup();
        self.random.shuffle(&mut keys);
        let mut parts: Vec<Part> = keys.into_iter().map(|key| self.append_part(key)).collect();
        for part in parts.iter_mut().skip(1) {
            if part.expect != Expect::Any && self.random.u8(0..3) == 0 {
                part.deed = Deed::Check;
            }
        }
        let client = (self.random.u8(0..3) == 0).then(|| self.sequence());
        let id = self.add(parts, client);
        if client.is_some() {
            self.keep_newest(id);
        }
        self.submit(id)
    }

    fn keep_newest(&mut self, id: OpId) {
        self.newest = Some(id);
        self.scene.newest.borrow_mut().insert(self.number, id);
    }

    fn send_again(&mut self) -> Said {
        match self.newest {
            Some(id) => self.submit(id),
            None => Ok(()),
        }
    }

    /// Sends an operation, perhaps not for the first time.
    fn submit(&mut self, id: OpId) -> Said {
        let op = self.book(|book| book.entry(id).op.clone());
        let mut write = self.scene.store.write();
        for (index, part) in op.parts.iter().enumerate() {
            write = match part.deed {
                Deed::Append(_) => write.append(&part.key, part.expect, op.events(index)),
                Deed::Check => write.check(&part.key, part.expect),
                Deed::Move { from, to } => write.checkpoint(&part.key, from, to),
                Deed::Save { .. } => return Ok(()),
            };
        }
        if let Some((client, sequence)) = op.client {
            write = write.client(client, sequence);
        }
        let call = self.book(|book| book.begin(id));
        let answer = if self.random.bool() { write.submit() } else { write.try_submit() };
        self.answered(call, answer)
    }

    fn answered(&mut self, call: Call, answer: Result<Ticket, Error>) -> Said {
        match answer {
            Err(error) => {
                let dead = self.scene.is_dead();
                self.book(|book| book.refused(call, &error, dead))?;
                if error.kind() == ErrorKind::Conflict && self.random.u8(0..4) == 0 {
                    self.wait_for_winner(&error);
                }
                Ok(())
            }
            Ok(ticket) => match self.accepted(call) {
                0 => {
                    drop(ticket);
                    self.book(|book| book.abandoned(call));
                    Ok(())
                }
                1 => {
                    std::mem::forget(ticket);
                    self.book(|book| book.abandoned(call));
                    Ok(())
                }
                2..=4 => self.settle(call, ticket.wait()),
                _ => {
                    self.tickets.push((call, ticket));
                    Ok(())
                }
            },
        }
    }

    /// A ticket is there; what becomes of it.
    fn accepted(&mut self, call: Call) -> u8 {
        self.book(|book| book.accepted(call));
        self.random.u8(0..10)
    }

    fn wait_for_winner(&mut self, error: &Error) {
        if let Some(winner) = error.winner()
            && winner.wait().is_ok()
            && !self.scene.is_dead()
        {
            self.book(|book| {
                if let Some((key, actual)) = error.key().zip(error.actual()) {
                    // A checkpoint's version is a position.
                    if !text(key).ends_with("mark") {
                        book.seen(&text(key), actual);
                    }
                }
                book.count("winners waited for");
            });
        }
    }

    fn settle(&mut self, call: Call, answer: Result<Committed, Error>) -> Said {
        let dead = self.scene.is_dead();
        self.book(|book| match answer {
            Ok(committed) => book.acknowledged(call, &committed, dead),
            Err(error) => book.lost(call, &error, dead),
        })
    }

    fn resolve_one(&mut self) -> Said {
        if self.tickets.is_empty() {
            return Ok(());
        }
        let nth = self.random.usize(0..self.tickets.len());
        let (call, mut ticket) = self.tickets.swap_remove(nth);
        match self.random.u8(0..3) {
            0 => self.settle(call, ticket.wait()),
            1 => {
                let limit = Duration::from_micros(self.random.u64(0..2000));
                match ticket.wait_timeout(limit) {
                    Err(_) if !ticket.is_resolved() => {
                        self.tickets.push((call, ticket));
                        Ok(())
                    }
                    Err(_) => self.settle(call, ticket.wait()),
                    answer => self.settle(call, answer),
                }
            }
            _ => match Pin::new(&mut ticket).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(answer) => self.settle(call, answer),
                Poll::Pending => {
                    self.tickets.push((call, ticket));
                    Ok(())
                }
            },
        }
    }

    fn execute(&mut self) -> Said {
        let group = self.group();
        let key = self.key(group);
        let events = self.random.u32(1..3);
        let part = Part { key: key.clone(), deed: Deed::Append(events), expect: Expect::Any };
        let id = self.add_decided(vec![part]);
        let events = self.book(|book| book.entry(id).op.events(0));
        let declines = self.random.u8(0..6) == 0;
        let seen = Cell::new(0);
        let call = self.book(|book| book.begin(id));
        let execution = self.scene.store.execute(&key, |state: &Tally| {
            seen.set(state.0);
            if declines { Err(()) } else { Ok(events.clone()) }
        });
        // What is appended was decided on the state that was shown last.
        self.book(|book| book.decided_on(id, &key, seen.get()));
        self.executed(call, execution.wait())
    }

    fn execute_several(&mut self) -> Said {
        let group = self.group();
        let mut keys = [self.key(group), self.key(group)];
        if keys[0] == keys[1] {
            return Ok(());
        }
        keys.sort();
        let parts = keys.iter().map(|key| Part {
            key: key.clone(),
            deed: Deed::Append(1),
            expect: Expect::Any,
        });
        let id = self.add_decided(parts.collect());
        let events = self.book(|book| {
            let op = &book.entry(id).op;
            vec![op.events(0), op.events(1)]
        });
        let seen = Cell::new([0; 2]);
        let call = self.book(|book| book.begin(id));
        let execution = self.scene.store.execute_all(&keys, |states: &[Tally]| {
            seen.set([states[0].0, states[1].0]);
            Ok::<_, ()>(events.clone())
        });
        self.book(|book| {
            for (key, state) in keys.iter().zip(seen.get()) {
                book.decided_on(id, key, state);
            }
        });
        self.executed(call, execution.wait())
    }

    fn executed(
        &mut self,
        call: Call,
        outcome: Result<Result<Option<Committed>, ()>, Error>,
    ) -> Said {
        let dead = self.scene.is_dead();
        self.book(|book| match outcome {
            Ok(Ok(Some(committed))) => book.acknowledged(call, &committed, dead),
            Ok(Ok(None)) => {
                Err(format!("{:?} was executed with events and without a result", call.id))
            }
            Ok(Err(())) => {
                book.count("declined");
                book.declined(call);
                Ok(())
            }
            Err(error) if book.is_ticket_error(&error) => book.lost(call, &error, dead),
            Err(error) => book.refused(call, &error, dead),
        })
    }

    /// A default read is a prefix, not shorter than what was known as durable when it began.
    fn read(&mut self) -> Said {
        let group = self.group();
        let key = self.key(group);
        let floor = self.book(|book| book.floor(&key));
        let dead = self.scene.is_dead();
        let read = self.scene.store.read(&key);
        let version = read.version();
        self.show_events(&key, read, version, true, if dead { 0 } else { floor })
    }

    fn read_accepted(&mut self) -> Said {
        let group = self.group();
        let key = self.key(group);
        let floor = self.book(|book| book.accepted_floor(&key));
        let dead = self.scene.is_dead();
        let read = self.scene.store.read(&key).accepted();
        let version = read.version();
        self.show_events(&key, read, version, false, if dead { 0 } else { floor })?;
        if !self.scene.is_dead() {
            self.book(|book| book.believe(&key, version));
        }
        Ok(())
    }

    fn show_events(
        &mut self,
        key: &str,
        read: impl Iterator<Item = Result<Recorded, Error>>,
        version: u64,
        durable: bool,
        floor: u64,
    ) -> Said {
        let shard = self.scene.store.shard_of(key);
        let (mut version_shown, mut index_shown, mut left) = (0, 0, 0);
        for event in read {
            let event = match event {
                Ok(event) => event,
                Err(error) => return self.scene.read_failed(&error),
            };
            // The next event of the version, or the first of the next version.
            let next =
                if left == 0 { (version_shown + 1, 0) } else { (version_shown, index_shown + 1) };
            if (event.version(), event.index()) != next {
                let (version, index) = (event.version(), event.index());
                return Err(format!(
                    "a read of {key} shows event {index} of version {version}, next is {next:?}"
                ));
            }
            (version_shown, index_shown) = next;
            left = event.batch_events() - event.index() - 1;
            let Some((id, part, index)) = op::of(event.data()) else {
                return Err(format!("a read of {key} shows what nobody wrote"));
            };
            let (position, is_durable) = (event.position().get(), event.is_durable());
            let dead = self.scene.is_dead();
            self.book(|book| {
                let Some(entry) = book.find(id) else {
                    return Err(format!("a read of {key} shows {id:?}, which there is not"));
                };
                if !entry.may_exist() && !dead {
                    return Err(format!("a read of {key} shows {id:?}, which was refused"));
                }
                if let Some(differs) = entry.op.differs(part, index, &event) {
                    return Err(format!("a read of {key} shows {id:?}, event {index}: {differs}"));
                }
                if durable && !is_durable {
                    return Err(format!(
                        "a default read of {key} shows {id:?}, which is not durable"
                    ));
                }
                if is_durable && !dead {
                    book.show(shard, position, id)?;
                }
                Ok(())
            })?;
        }
        if version < floor {
            return Err(format!("a read of {key} is at version {version}, durable was {floor}"));
        }
        if left != 0 || version_shown != version {
            return Err(format!(
                "a read of {key} at version {version} ends in version {version_shown}, {left} events early"
            ));
        }
        if durable && !self.scene.is_dead() {
            self.book(|book| book.seen(key, version));
        }
        Ok(())
    }

    fn check_alone(&mut self) -> Said {
        let group = self.group();
        let key = self.key(group);
        let expect = self.expect(&key);
        if expect == Expect::Any {
            return Ok(());
        }
        let id = self.add(vec![Part { key, deed: Deed::Check, expect }], None);
        self.submit(id)
    }

    fn save_snapshot(&mut self) -> Said {
        let group = self.group();
        let key = self.key(group);
        let version = self.book(|book| book.belief(&key));
        if version == 0 {
            return Ok(());
        }
        let part = Part { key: key.clone(), deed: Deed::Save { version }, expect: Expect::Any };
        let id = self.add(vec![part], None);
        let bytes = self.book(|book| book.entry(id).op.snapshot());
        let call = self.book(|book| book.begin(id));
        let answer = self.scene.store.save_snapshot(&key, version, bytes);
        self.answered(call, answer)
    }

    fn move_checkpoint(&mut self) -> Said {
        let group = self.group();
        let name = format!("g{group}/mark");
        let from = self.book(|book| book.mark(&name));
        // The number of the operation keeps moves of the same checkpoint apart.
        let number = (from >> 20).max(self.book(|book| book.next_number())) + 1;
        let to = number << 20 | self.random.u64(0..1 << 20);
        let deed = Deed::Move { from: Position::from_raw(from), to: Position::from_raw(to) };
        let mut parts = Vec::new();
        if self.random.bool() {
            let key = self.key(group);
            parts.push(self.append_part(key));
        }
        parts.push(Part { key: name, deed, expect: Expect::Version(from) });
        let id = self.add(parts, None);
        self.submit(id)
    }

    /// Calls that no store takes.
    fn mistake(&mut self) -> Said {
        let store = &self.scene.store;
        let event = || [Event::new("Placed", "")];
        let (what, code, answer) = match self.random.u8(0..6) {
            0 => ("an empty key", 1001, store.append("", Expect::Any, event())),
            1 => ("no events", 1001, store.append("g0/a0", Expect::Any, [])),
            2 => ("a long key", 1002, store.append([b'k'; 1025], Expect::Any, event())),
            3 => {
                let large = Event::new("Placed", vec![0; store.limits().write_bytes]);
                ("a large write", 1002, store.append("g0/a0", Expect::Any, [large]))
            }
            4 => {
                let twice = store.write().check("g0/a0", Expect::Exists);
                ("a key twice", 1001, twice.append("g0/a0", Expect::Any, event()).submit())
            }
            _ => {
                let far = (0..=255_u8).map(|group| format!("g{group}/a0"));
                let here = store.shard_of("g0/a0");
                let Some(far) = far.into_iter().find(|key| store.shard_of(key) != here) else {
                    return Ok(());
                };
                let both = store.write().append("g0/a0", Expect::Any, event());
                ("two shards", 9001, both.append(far, Expect::Any, event()).submit())
            }
        };
        match answer {
            Err(error) if error.code() == code => {
                self.book(|book| book.count(&format!("refused {code}")));
                Ok(())
            }
            // The conditions of the writes above may fail first.
            Err(error) if self.scene.is_dead() || error.kind() == ErrorKind::Stopped => Ok(()),
            Err(error) => Err(format!("{what} is refused with {}: {error}", error.code())),
            Ok(_) => Err(format!("{what} is taken")),
        }
    }

    /// A caller's code that panics in the middle of a call leaves nothing behind.
    fn panics(&mut self) -> Said {
        let group = self.group();
        let key = self.key(group);
        let store = &self.scene.store;
        let decides = self.random.bool();
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
            if decides {
                drop(store.execute(&key, |_: &Tally| -> Result<Vec<Event>, ()> {
                    panic::resume_unwind(Box::new("a caller"))
                }));
            } else {
                let events = std::iter::from_fn(|| -> Option<Event> {
                    panic::resume_unwind(Box::new("a caller"))
                });
                drop(store.append(&key, Expect::Any, events));
            }
        }));
        self.book(|book| book.count("panics of callers"));
        match panicked {
            Err(_) => Ok(()),
            // A read that failed comes first.
            Ok(()) if decides => Ok(()),
            Ok(()) => Err("the events were not asked for".into()),
        }
    }

    fn pause(&mut self) -> Said {
        let limit = Duration::from_micros(self.random.u64(0..self.scene.profile.pause_micros_max));
        self.scene.world.wait(&|| false, Some(limit));
        Ok(())
    }
}
