//! The process that is killed. It says what it is about to write before it does, and what it was told afterwards, each in
//! one write to its standard output, which is a pipe to somebody who survives it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::FromRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::{Error, ErrorKind, Event, Store, Ticket};
use annals_trials::history::{Client, Condition, Landed, Part, Subject};
use annals_trials::mark::{Mark, WriteId};
use annals_trials::observe;
use annals_trials::truth::{Intent, Word};
use fastrand::Rng;

use crate::arguments::Lie;
use crate::life::{End, Life};
use crate::report::Failure;

/// The pipe. A line shorter than a page goes into it as a whole, whoever else writes.
struct Pipe(File);

impl Pipe {
    fn say(&self, word: &Word) {
        let mut line = serde_json::to_vec(word).unwrap_or_default();
        line.push(b'\n');
        // Nobody listens any more: then nobody kills it either.
        if (&self.0).write_all(&line).is_err() {
            std::process::exit(4);
        }
    }
}

pub(crate) fn run() -> Result<(), Failure> {
    // SAFETY: the descriptor is open, and nothing else of this process uses it.
    let pipe = Pipe(unsafe { File::from_raw_fd(libc::STDOUT_FILENO) });
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let mut life: Life = serde_json::from_str(&line).map_err(io::Error::from)?;
    pipe.say(&Word::Opening);
    let Some(store) = open(&mut life, &pipe) else { return Ok(()) };
    if life.scripted {
        script(&life, store, &pipe);
        return Ok(());
    }
    let stop = AtomicBool::new(false);
    retry_all(&life, &store, &pipe);
    let left: Vec<(WriteId, Ticket)> = std::thread::scope(|scope| {
        let (life, store, pipe, stop) = (&life, &store, &pipe, &stop);
        let writers: Vec<_> = (0..life.threads)
            .map(|thread| scope.spawn(move || Writer::new(life, store, pipe, thread).work(stop)))
            .collect();
        match life.end {
            End::Killed => {}
            End::Exits(millis) => {
                std::thread::sleep(Duration::from_millis(millis));
                std::process::exit(0);
            }
            End::Drops(millis) | End::Closes(millis) => {
                std::thread::sleep(Duration::from_millis(millis));
                stop.store(true, Ordering::Relaxed);
            }
            End::InputCloses => {
                let _ = io::stdin().read(&mut [0]);
                stop.store(true, Ordering::Relaxed);
            }
        }
        writers.into_iter().flat_map(|writer| writer.join().unwrap_or_default()).collect()
    });
    if let End::Closes(_) = life.end
        && let Err(error) = store.close()
    {
        pipe.say(&Word::Note(format!("closing: {error}")));
    }
    drop(store);
    for (write, ticket) in left {
        heard(&life.subjects, &pipe, write, &ticket);
    }
    pipe.say(&Word::Done);
    Ok(())
}

/// Opens the store, and notes where the aggregates live.
fn open(life: &mut Life, pipe: &Pipe) -> Option<Store> {
    match life.settings.options().open(&life.dir) {
        Ok(store) => {
            for subject in &mut life.subjects {
                subject.shard = store.shard_of(&subject.key);
            }
            pipe.say(&Word::Note(format!("backend {}", store.stats().backend)));
            pipe.say(&Word::Open);
            Some(store)
        }
        Err(error) => {
            pipe.say(&Word::NotOpened(error.code(), error.to_string()));
            None
        }
    }
}

fn send(life: &Life, store: &Store, pipe: &Pipe, intent: Intent) -> Result<Ticket, Error> {
    let Intent { write, parts, client, bytes } = intent.clone();
    let mut request = store.write();
    for (place, part) in (0..).zip(&parts) {
        let key = &life.subjects[usize::from(part.subject)].key;
        let events = (0..part.events).map(|index| {
            Event::new("Marked", Mark { write, part: place, index }.data(bytes as usize))
        });
        request = match part.events {
            0 => request.check(key, part.condition.into()),
            _ => request.append(key, part.condition.into(), events),
        };
    }
    if let Some(client) = client {
        request = request.client(client.id.into(), client.sequence);
    }
    pipe.say(&Word::Intent(intent));
    let sent = request.submit();
    match &sent {
        Ok(_) if life.lie == Some(Lie::AckEarly) => pipe.say(&Word::Claimed(write)),
        Ok(_) => {}
        Err(error) => pipe.say(&Word::Refused(write, error.code())),
    }
    sent
}

/// Waits for a write and says what came of it. `false` if it can't be written.
fn heard(subjects: &[Subject], pipe: &Pipe, write: WriteId, ticket: &Ticket) -> bool {
    match ticket.wait() {
        Ok(committed) => {
            let versions = committed.versions();
            let versions = versions
                .filter_map(|(key, version)| Some((observe::subject_of(subjects, key)?, version)))
                .collect();
            let (position, replay) = (committed.position().get(), committed.is_replay());
            pipe.say(&Word::Acked(write, Landed { position, versions, replay }));
            true
        }
        Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
            pipe.say(&Word::Unknown(write));
            false
        }
        Err(error) => {
            pipe.say(&Word::Refused(write, error.code()));
            false
        }
    }
}

/// Sends again what the life before did not hear the end of.
fn retry_all(life: &Life, store: &Store, pipe: &Pipe) {
    for intent in &life.retries {
        if let Ok(ticket) = send(life, store, pipe, intent.clone()) {
            heard(&life.subjects, pipe, intent.write, &ticket);
        }
    }
}

/// One thread that writes until it is told to stop, or killed.
struct Writer<'a> {
    life: &'a Life,
    store: &'a Store,
    pipe: &'a Pipe,
    thread: u16,
    rng: Rng,
    writes: u64,
    pending: VecDeque<(WriteId, Ticket, bool)>,
}

impl<'a> Writer<'a> {
    fn new(life: &'a Life, store: &'a Store, pipe: &'a Pipe, thread: u16) -> Writer<'a> {
        let rng = Rng::with_seed(life.seed ^ u64::from(thread) << 32);
        Writer { life, store, pipe, thread, rng, writes: 0, pending: VecDeque::new() }
    }

    fn work(mut self, stop: &AtomicBool) -> Vec<(WriteId, Ticket)> {
        while !stop.load(Ordering::Relaxed) {
            let intent = self.next();
            let (write, of_client) = (intent.write, intent.client.is_some());
            if let Ok(ticket) = send(self.life, self.store, self.pipe, intent) {
                self.pending.push_back((write, ticket, of_client));
            }
            while self.pending.len() >= self.life.in_flight {
                self.wait_for_oldest();
            }
            if self.life.pause_micros > 0 {
                std::thread::sleep(Duration::from_micros(self.life.pause_micros));
            }
        }
        self.pending.into_iter().map(|(write, ticket, _)| (write, ticket)).collect()
    }

    fn wait_for_oldest(&mut self) {
        if let Some((write, ticket, _)) = self.pending.pop_front()
            && self.life.lie.is_none()
        {
            heard(&self.life.subjects, self.pipe, write, &ticket);
        }
    }

    /// A client has one write in flight: what is sent again is its newest.
    fn next(&mut self) -> Intent {
        self.writes += 1;
        let number = self.life.number << 32 | u64::from(self.thread) << 24 | self.writes;
        let count = self.life.subjects.len() as u16;
        let subject = self.rng.u16(..count);
        let condition = match self.rng.u8(..8) {
            0 => Condition::Exists,
            1 => Condition::Absent,
            2 | 3 => {
                let key = &self.life.subjects[usize::from(subject)].key;
                Condition::Version(self.store.version_accepted(key).unwrap_or(0))
            }
            _ => Condition::Any,
        };
        let mut parts = vec![Part { subject, condition, events: self.rng.u16(1..=3) }];
        if self.rng.u8(..3) == 0 {
            let shard = self.life.subjects[usize::from(subject)].shard;
            let others = (0..count).filter(|other| {
                *other != subject && self.life.subjects[usize::from(*other)].shard == shard
            });
            let others: Vec<u16> = others.collect();
            if let Some(&other) = self.rng.choice(&others) {
                let events = self.rng.u16(0..=2);
                let condition = if events == 0 { Condition::Exists } else { Condition::Any };
                parts.push(Part { subject: other, condition, events });
            }
        }
        let client = (self.rng.bool() && !self.pending.iter().any(|(_, _, client)| *client))
            .then(|| Client { id: u64::from(self.thread) + 1, sequence: number });
        Intent { write: WriteId(number), parts, client, bytes: self.life.event_bytes }
    }
}

/// The same each time: fills the store, rolls a segment, closes it, opens it again, goes on, and closes it for good.
fn script(life: &Life, mut store: Store, pipe: &Pipe) {
    let mut life = life.clone();
    let mut number = life.number << 32;
    retry_all(&life, &store, pipe);
    for round in 0..2 {
        let mut left = Vec::new();
        for step in 0..10_u16 {
            number += 1;
            let subject = step % 3;
            let mut parts = vec![Part { subject, condition: Condition::Any, events: 1 }];
            if step % 4 == 3 {
                parts.push(Part { subject: 3, condition: Condition::Any, events: 2 });
            }
            let client = (step % 2 == 0).then_some(Client { id: 1, sequence: number });
            // Three of them do not fit into one segment.
            let large = round == 0 && (4..7).contains(&step);
            let bytes = if large { 400_000 } else { life.event_bytes };
            let write = WriteId(number);
            if let Ok(ticket) = send(&life, &store, pipe, Intent { write, parts, client, bytes }) {
                left.push((write, ticket));
            }
            if step % 2 == 0 || step == 9 {
                for (write, ticket) in left.drain(..) {
                    heard(&life.subjects, pipe, write, &ticket);
                }
            }
        }
        for subject in &life.subjects {
            for event in store.read(&subject.key) {
                if let Err(error) = event {
                    pipe.say(&Word::Note(format!("reading: {}", error.code())));
                }
            }
        }
        if let Err(error) = store.close() {
            pipe.say(&Word::Note(format!("closing: {}", error.code())));
        }
        drop(store);
        if round == 1 {
            break;
        }
        match open(&mut life, pipe) {
            Some(opened) => store = opened,
            None => return,
        }
    }
    pipe.say(&Word::Done);
}
