//! `annals import`: writes from JSON lines.
//!
//! One thread reads, parses and submits, so writes are decided in the order of the file; a bounded window of them is
//! in flight. With a client, a line's number is its sequence: what landed before is answered as a replay, or refused
//! with 2002 once later lines of the same client have landed on the same aggregates.

use std::collections::{HashSet, VecDeque};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use annals::{Error, ErrorKind, Store, Ticket};
use xxhash_rust::xxh3::xxh3_128;

use crate::arguments::{ImportArguments, StoreArguments};
use crate::failure::Failure;
use crate::line::Write;
use crate::output::{self, Output, Progress, counted, grouped};
use crate::source::{Next, Source};

/// Writes in flight.
const WINDOW: usize = 4096;
/// Faults told one by one when the import goes on after them.
const NOTES_MAX: u64 = 10;

pub(crate) fn run(
    store: &StoreArguments,
    arguments: &ImportArguments,
    out: &mut Output,
) -> Result<ExitCode, Failure> {
    let progress = Progress::of_bytes("importing");
    let mut source = Source::open(&arguments.file, &progress)
        .map_err(|error| Failure::Input(format!("{}: {error}", arguments.file.display())))?;
    let store = store.open()?;
    let mut import = Import::new(&store);
    import.client = arguments.client.as_deref().map(client_number);
    import.keep_going = arguments.keep_going;
    let (summary, done) = import.run(&mut source);
    let closed = store.close();
    drop(progress);
    out.line(if out.is_json() { summary.json() } else { summary.text() })?;
    out.flush()?;
    done?;
    closed?;
    Ok(summary.exit_code())
}

/// The number of a client: the 128-bit xxh3 hash of its name, the same for every version of this program.
fn client_number(name: &str) -> u128 {
    xxh3_128(name.as_bytes())
}

/// What an import did.
#[derive(Default, Debug)]
pub(crate) struct Summary {
    /// Writes appended.
    pub(crate) writes: u64,
    /// Events appended.
    pub(crate) events: u64,
    /// Different aggregates that the lines append to.
    pub(crate) aggregates: u64,
    /// Lines that had landed before.
    pub(crate) replays: u64,
    /// Lines whose conditions did not hold.
    pub(crate) conflicts: u64,
    /// Lines refused because their aggregates live on different shards.
    pub(crate) cross_shard: u64,
    /// Lines that are no write, or none that any store would take.
    pub(crate) bad_lines: u64,
    /// From the first line to the last answer.
    pub(crate) time: Duration,
}

impl Summary {
    fn writes_per_second(&self) -> f64 {
        self.writes as f64 / self.time.as_secs_f64().max(1e-6)
    }

    fn json(&self) -> String {
        format!(
            "{{\"writes\":{},\"events\":{},\"aggregates\":{},\"replays\":{},\"conflicts\":{},\"cross_shard\":{},\
             \"bad_lines\":{},\"seconds\":{:.6},\"writes_per_second\":{:.1}}}",
            self.writes,
            self.events,
            self.aggregates,
            self.replays,
            self.conflicts,
            self.cross_shard,
            self.bad_lines,
            self.time.as_secs_f64(),
            self.writes_per_second(),
        )
    }

    fn text(&self) -> String {
        let refused = [
            (self.replays, "replay"),
            (self.conflicts, "conflict"),
            (self.cross_shard, "across shards"),
            (self.bad_lines, "bad line"),
        ];
        let mut text = format!(
            "{} with {} appended, {}",
            counted(self.writes, "write"),
            counted(self.events, "event"),
            counted(self.aggregates, "aggregate"),
        );
        for (count, what) in refused.into_iter().filter(|(count, _)| *count > 0) {
            text.push_str(", ");
            match what {
                "across shards" => text.push_str(&format!("{} {what}", grouped(count))),
                _ => text.push_str(&counted(count, what)),
            }
        }
        let rate = self.writes_per_second().round() as u64;
        text + &format!("; {}, {} a second", output::duration(self.time), counted(rate, "write"))
    }

    /// Lines were refused and the import went on: what was bad input outweighs what conflicted.
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            _ if self.bad_lines + self.cross_shard > 0 => 2,
            _ if self.conflicts > 0 => 1,
            _ => 0,
        })
    }
}

/// An import under way.
pub(crate) struct Import<'a> {
    store: &'a Store,
    /// Makes it resumable.
    pub(crate) client: Option<u128>,
    /// Whether it goes on after conflicts and bad lines.
    pub(crate) keep_going: bool,
    window: VecDeque<InFlight>,
    /// Hashes of the keys seen: far smaller than the keys, and two of 2^40 keys share one once in 2^48 imports.
    seen: HashSet<u128>,
    summary: Summary,
    notes: u64,
}

struct InFlight {
    line: u64,
    /// None for a write of checks alone, which appends nothing.
    events: Option<u64>,
    ticket: Ticket,
}

impl<'a> Import<'a> {
    pub(crate) fn new(store: &'a Store) -> Import<'a> {
        Import {
            store,
            client: None,
            keep_going: false,
            window: VecDeque::with_capacity(WINDOW),
            seen: HashSet::new(),
            summary: Summary::default(),
            notes: 0,
        }
    }

    /// Appends every line, waits for all of them, and says what came of it, also if it stopped early.
    pub(crate) fn run(mut self, source: &mut Source) -> (Summary, Result<(), Failure>) {
        let begin = Instant::now();
        let read = self.submit_all(source);
        let mut settled = Ok(());
        while let Some(write) = self.window.pop_front() {
            settled = settled.and(self.settle(write));
        }
        // What is still in flight stands before the line that stopped the reading.
        let done = settled.and(read);
        self.summary.time = begin.elapsed();
        self.summary.aggregates = self.seen.len() as u64;
        (self.summary, done)
    }

    fn submit_all(&mut self, source: &mut Source) -> Result<(), Failure> {
        loop {
            let number = source.number();
            let next = source.next().map_err(|error| {
                Failure::Input(format!("line {}: the input can't be read on: {error}", number + 1))
            })?;
            let parsed = match next {
                Next::End => return Ok(()),
                Next::Line(line) => Write::parse(line),
                Next::TooLong => Err("longer than 64 MiB".to_owned()),
            };
            let number = source.number();
            match parsed {
                Ok(write) => self.submit(number, write)?,
                Err(fault) => self.bad_line(number, &fault)?,
            }
        }
    }

    fn submit(&mut self, line: u64, write: Write) -> Result<(), Failure> {
        while self
            .window
            .front()
            .is_some_and(|first| self.window.len() >= WINDOW || first.ticket.is_resolved())
        {
            let first = self.window.pop_front();
            first.map_or(Ok(()), |first| self.settle(first))?;
        }
        let mut events = None;
        let mut prepared = self.store.write();
        for part in write.parts {
            self.seen.insert(xxh3_128(&part.key));
            *events.get_or_insert(0) += part.events.len() as u64;
            prepared = prepared.append(part.key, part.expect, part.events);
        }
        for (key, expect) in write.checks {
            prepared = prepared.check(key, expect);
        }
        if let Some(client) = self.client {
            prepared = prepared.client(client, line);
        }
        match prepared.submit() {
            Ok(ticket) => {
                self.window.push_back(InFlight { line, events, ticket });
                Ok(())
            }
            Err(error) => self.refused(line, error),
        }
    }

    fn settle(&mut self, write: InFlight) -> Result<(), Failure> {
        match write.ticket.wait() {
            Ok(done) if done.is_replay() => self.summary.replays += 1,
            Ok(_) => {
                self.summary.writes += u64::from(write.events.is_some());
                self.summary.events += write.events.unwrap_or(0);
            }
            Err(error) => self.refused(write.line, error)?,
        }
        Ok(())
    }

    fn refused(&mut self, line: u64, error: Error) -> Result<(), Failure> {
        match error.kind() {
            ErrorKind::Duplicate if self.client.is_some() => {
                self.summary.replays += 1;
                Ok(())
            }
            ErrorKind::Conflict | ErrorKind::NotFound => {
                self.summary.conflicts += 1;
                self.fault(Failure::Conflict(format!("line {line}: {error}")))
            }
            ErrorKind::CrossShard => {
                self.summary.cross_shard += 1;
                self.fault(Failure::Input(format!("line {line}: {error}")))
            }
            ErrorKind::Invalid | ErrorKind::TooLarge => self.bad_line(line, &error.to_string()),
            _ => Err(Failure::Store(error)),
        }
    }

    fn bad_line(&mut self, line: u64, fault: &str) -> Result<(), Failure> {
        self.summary.bad_lines += 1;
        self.fault(Failure::Input(format!("line {line}: {fault}")))
    }

    /// Stops the import, or goes on and tells the first few.
    fn fault(&mut self, fault: Failure) -> Result<(), Failure> {
        if !self.keep_going {
            return Err(fault);
        }
        self.notes += 1;
        match self.notes {
            ..=NOTES_MAX => output::note(&fault),
            _ if self.notes == NOTES_MAX + 1 => {
                output::note("there are more such lines; from here on they are only counted");
            }
            _ => {}
        }
        Ok(())
    }
}
