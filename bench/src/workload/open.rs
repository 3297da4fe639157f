//! How long it takes to open a store that holds so many events, after a clean close and after its process was killed.
//!
//! The store is filled, ten events to an aggregate. For a kill that is done in a process of its own, which then goes on writing
//! until it is ended by SIGKILL, and a server that it started with it. Then the system's cache forgets the files, so that they come from the
//! device, and the store is opened: that is what is timed. A unit is an event that the store holds, an operation is an opening.
//! `read_bytes_per_second` is all bytes of the store's files by that time: what a store reads that reads all of it.

use std::{
    io::{BufRead, BufReader, Write},
    ops::Range,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{Case, Measured, Round};
use crate::{
    measure::{Meter, Spent, folder, histogram, payload::Payloads, usage},
    store::{Result, Session, Store, key},
};

/// How many events each aggregate has.
const EVENTS_EACH: u64 = 10;

/// How many events the process that will be killed writes between two reports.
const STEP: u64 = 1_000;

/// How often a store is opened in a round, at most.
const OPENS_MAX: u32 = 5;

/// How long what a killed process had in flight is given to end: a ring lives a moment longer than its process.
const SETTLE: Duration = Duration::from_millis(200);

/// The cases.
pub fn cases() -> Vec<Case> {
    let case = |exponent: i32, killed: bool| {
        let count = ["10⁵", "10⁶", "10⁷"][exponent as usize - 5];
        let end = if killed { "killed" } else { "clean close" };
        let parameters = [
            ("events", 10_f64.powi(exponent)),
            ("killed", f64::from(u8::from(killed))),
            ("payload_bytes", 128.0),
        ];
        Case::new("open", format!("{count} events, {end}"), parameters)
    };
    [5, 6, 7]
        .into_iter()
        .flat_map(|exponent| [case(exponent, false), case(exponent, true)])
        .map(|case| match case.number("events") {
            100_000 => case.canonical(),
            // What a peer takes to be filled with these is out of all proportion.
            10_000_000 => case.annals_only(),
            _ => case,
        })
        .collect()
}

/// Runs a case once.
pub fn run<S: Store>(round: &Round<'_>) -> Result<Measured> {
    if round.is_child {
        return write_until_killed::<S>(round);
    }
    let killed = round.case.number("killed") > 0;
    let expected = if killed { killed_writer(round)? } else { closed_writer::<S>(round)? };
    let mut opens = histogram::empty();
    let mut all: Option<Spent> = None;
    let (mut events, mut bytes) = (0, 0);
    // A kill makes one opening; a clean close makes the next one possible.
    for _ in 0..if killed { 1 } else { OPENS_MAX } {
        folder::drop_cache(round.dir)?;
        bytes += folder::bytes(round.dir)?;
        let meter = Meter::begin(Vec::new());
        let store = S::open(round.dir, &round.setup)?;
        let spent = meter.end();
        histogram::record(&mut opens, spent.elapsed);
        let sum = all.map_or(spent, |all| Spent {
            elapsed: all.elapsed + spent.elapsed,
            processor: all.processor + spent.processor,
            written_bytes: all.written_bytes + spent.written_bytes,
        });
        all = Some(sum);
        events += check(&store, expected)?;
        store.close()?;
        if sum.elapsed >= round.measure {
            break;
        }
    }
    let spent = all.ok_or("a store was expected to be opened at least once")?;
    let mut measured = Measured::new("events", events, spent);
    let seconds = spent.elapsed.as_secs_f64();
    measured.figures.insert("open_seconds", seconds / opens.len() as f64);
    measured.figures.insert("read_bytes_per_second", bytes as f64 / seconds);
    measured.figures.insert("store_bytes", bytes as f64 / opens.len() as f64);
    measured.latency = Some(opens);
    measured.verified = true;
    Ok(measured)
}

/// How many events a store must hold: what was acknowledged, and no more than was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected {
    acknowledged: u64,
    submitted: u64,
}

fn check<S: Store>(store: &S, expected: Expected) -> Result<u64> {
    let events = store.session()?.read_all(&mut |_| ())?;
    if (expected.acknowledged..=expected.submitted).contains(&events) {
        return Ok(events);
    }
    Err(format!(
        "opened again, the store holds {events} events: {} were acknowledged and {} submitted, the store does not keep its promise",
        expected.acknowledged, expected.submitted
    )
    .into())
}

/// How many events the store is to hold.
fn events(round: &Round<'_>) -> u64 {
    let events = round.case.number("events");
    if round.quick { events / 100 } else { events }
}

/// Writes the events from one number to another.
fn write(
    session: &mut impl Session,
    numbers: Range<u64>,
    payloads: &Payloads,
    round: &Round<'_>,
) -> Result<u64> {
    let aggregates = (events(round) / EVENTS_EACH).max(1);
    session.load(&mut numbers.map(|number| (key(number % aggregates), payloads.at(number))))
}

/// Fills the store and closes it.
fn closed_writer<S: Store>(round: &Round<'_>) -> Result<Expected> {
    let store = S::open(round.dir, &round.setup)?;
    let mut session = store.session()?;
    let payloads = Payloads::new(round.case.number("payload_bytes"), round.seed);
    let events = write(&mut session, 0..events(round), &payloads, round)?;
    drop(session);
    store.close()?;
    Ok(Expected { acknowledged: events, submitted: events })
}

/// Has a process fill the store, and kills it while it writes.
fn killed_writer(round: &Round<'_>) -> Result<Expected> {
    let mut child = round.child()?.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let expected = kill_when_filled(&mut child, events(round));
    if expected.is_err() {
        kill(&mut child)?;
    }
    let expected = expected?;
    std::thread::sleep(SETTLE);
    Ok(expected)
}

fn kill_when_filled(child: &mut Child, events: u64) -> Result<Expected> {
    let output = child.stdout.take().ok_or("the writing process was expected to have an output")?;
    let mut killed = false;
    let mut acknowledged = 0;
    // What it had said before it was killed is still in the pipe.
    for line in BufReader::new(output).lines() {
        let line = line?;
        let number = line.strip_prefix(ACKNOWLEDGED).and_then(|number| number.parse().ok());
        acknowledged = number.ok_or_else(|| {
            format!("the writing process said {line:?}: expected {ACKNOWLEDGED:?} and a number")
        })?;
        if acknowledged >= events && !killed {
            kill(child)?;
            killed = true;
        }
    }
    if !killed {
        let status = child.wait()?;
        return Err(format!(
            "the writing process ended by itself ({status}) after {acknowledged} events: expected it to write {events} and go on"
        )
        .into());
    }
    Ok(Expected { acknowledged, submitted: acknowledged + STEP })
}

/// Ends a process at once, and then what it started.
fn kill(child: &mut Child) -> Result<()> {
    let started = usage::trees(&[child.id()]);
    // The error that there is no such process any more is none.
    let _ = child.kill();
    for stat in started.iter().filter(|stat| stat.pid as u32 != child.id()) {
        if let Some(pid) = Pid::from_raw(stat.pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    child.wait()?;
    Ok(())
}

/// What the process that is killed says before the number of events that are durable.
const ACKNOWLEDGED: &str = "acknowledged ";

/// Fills the store and goes on writing; says how many events are durable after each step.
fn write_until_killed<S: Store>(round: &Round<'_>) -> Result<Measured> {
    let store = S::open(round.dir, &round.setup)?;
    let mut session = store.session()?;
    let payloads = Payloads::new(round.case.number("payload_bytes"), round.seed);
    let mut written = write(&mut session, 0..events(round), &payloads, round)?;
    let began = Instant::now();
    // Whoever started this is gone if it does not kill it in an hour.
    while began.elapsed() < Duration::from_secs(3600) {
        let mut output = std::io::stdout().lock();
        writeln!(output, "{ACKNOWLEDGED}{written}")?;
        output.flush()?;
        drop(output);
        written += write(&mut session, written..written + STEP, &payloads, round)?;
    }
    Err("it was not killed: expected that of whoever started it".into())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn child(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn a_writer_is_killed_when_it_has_written_enough() {
        let mut writer = child("echo acknowledged 5; echo acknowledged 10; exec sleep 1000");
        let expected = kill_when_filled(&mut writer, 10).unwrap();
        assert_eq!(expected, Expected { acknowledged: 10, submitted: 10 + STEP });
        assert!(!writer.wait().unwrap().success());
    }

    #[test]
    fn what_a_writer_started_is_killed_with_it() {
        let mut writer = child("sleep 1000 & echo acknowledged 7; wait");
        kill_when_filled(&mut writer, 7).unwrap();
        assert!(usage::trees(&[writer.id()]).is_empty());
    }

    #[test]
    fn a_writer_that_fails_is_an_error() {
        let failed = kill_when_filled(&mut child("echo acknowledged 5; exit 3"), 10).unwrap_err();
        assert!(failed.to_string().contains("5 events"), "{failed}");
        let nonsense = kill_when_filled(&mut child("echo 5"), 10).unwrap_err();
        assert!(nonsense.to_string().contains("expected"), "{nonsense}");
    }
}
