//! Counts instructions, for comparisons that noise can't blur: two runs of the same build agree to a fraction of a
//! percent, whatever else the machine does. Needs `valgrind`.
//!
//! The program runs itself under callgrind, once for each count, on a disk in memory.
//!
//! * *Caller*: what happens inside of [`measured`], for each call, the making of its event included. The device hangs
//!   meanwhile with all flushes in flight that may be, so the log writer sleeps and nothing that it does can show.
//! * *Log writer*: its whole thread, placing and publishing and settling, for each write: the difference between a run
//!   with twice as many writes and one with as many.

use std::env;
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use annals::internals::disk::sim::{Op, Order};
use annals::internals::open_on;
use annals::{Aggregate, Execution, Expect, Options, States, Ticket};

#[path = "common/mod.rs"]
mod common;

use common::{Events, Place, Sum, create, key, newest, settle};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Tells the program under callgrind what to do: a case, and how often.
const TASK: &str = "ANNALS_COUNT";
/// The aggregates that appends go to, in turn.
const AGGREGATES: u64 = 1_000;
/// Calls for each count: no more than fit into the requests that are kept for use again.
const CALLS: u64 = 4_096;
/// The writes that the second count of the log writer has more than the first.
const WRITES: u64 = 10_000;

const PAUSE: Duration = Duration::from_millis(1);

/// What is counted.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// An append that becomes durable: there is something for the log writer to do too.
    Append(fn(&Target, u64) -> InFlight),
    /// An append that is refused.
    Refused(fn(&Target, u64)),
    /// One pass over the events or writes of a store.
    Pass(fn(&Place)),
}

/// A write that is on its way.
enum InFlight {
    Append(Ticket),
    Execution(Execution<()>),
}

/// What appends go to.
struct Target {
    place: Place,
    handles: Vec<Aggregate>,
    states: States<Sum>,
    events: Events,
}

const CASES: [Case; 11] = [
    Case { name: "append by key", what: What::Append(by_key) },
    Case { name: "append by handle", what: What::Append(by_handle) },
    Case { name: "append of two keys", what: What::Append(two_keys) },
    Case { name: "execution", what: What::Append(execution) },
    Case {
        name: "conflict by key",
        what: What::Refused(|at, number| {
            let lost = at.place.store.append(key(number), Expect::Absent, [at.events.event()]);
            black_box(lost.expect_err("it exists"));
        }),
    },
    Case {
        name: "conflict by handle",
        what: What::Refused(|at, number| {
            let lost = at.handles[number as usize].append(Expect::Absent, [at.events.event()]);
            black_box(lost.expect_err("it exists"));
        }),
    },
    Case {
        name: "event of an aggregate, memory",
        what: What::Pass(|place| {
            read(place, |place| place.store.read(key(0)).count() as u64);
        }),
    },
    Case {
        name: "event of an aggregate, mapped",
        what: What::Pass(|place| {
            read(&closed(place), |place| place.store.read(key(0)).count() as u64);
        }),
    },
    Case {
        name: "event of the log, memory",
        what: What::Pass(|place| {
            read(place, |place| place.store.log(0).count() as u64);
        }),
    },
    Case {
        name: "event of the log, mapped",
        what: What::Pass(|place| {
            read(&closed(place), |place| place.store.log(0).count() as u64);
        }),
    },
    Case {
        name: "opening, a record",
        what: What::Pass(|place| {
            let place = closed(place);
            measured(|| open_on(&reading(), Arc::clone(&place.disk) as _)).expect("it opens");
        }),
    },
];

fn by_key(at: &Target, number: u64) -> InFlight {
    let ticket = at.place.store.append(key(number), Expect::Any, [at.events.event()]);
    InFlight::Append(ticket.expect("it is accepted"))
}

fn by_handle(at: &Target, number: u64) -> InFlight {
    let ticket = at.handles[number as usize].append(Expect::Any, [at.events.event()]);
    InFlight::Append(ticket.expect("it is accepted"))
}

fn two_keys(at: &Target, number: u64) -> InFlight {
    let write = at.place.store.write().append(key(number), Expect::Any, [at.events.event()]);
    let other = (number + 1) % AGGREGATES;
    let write = write.append(key(other), Expect::Any, [at.events.event()]);
    InFlight::Append(write.submit().expect("it is accepted"))
}

/// On one aggregate, each decided on the accepted result of the one before.
fn execution(at: &Target, _: u64) -> InFlight {
    InFlight::Execution(at.states.execute(key(0), |_| Ok(vec![at.events.event()])))
}

/// The function that callgrind counts in.
#[inline(never)]
fn measured<R>(work: impl FnOnce() -> R) -> R {
    black_box(work())
}

fn options() -> Options {
    Options::new().segment_bytes(64 << 20)
}

fn reading() -> Options {
    options().read_only(true).create(false)
}

/// The store opened anew, for reading, without a tail image.
fn closed(place: &Place) -> Place {
    place.store.close().expect("it closes");
    let store = open_on(&reading(), Arc::clone(&place.disk) as _).expect("it opens");
    Place { disk: Arc::clone(&place.disk), store }
}

/// Counts one pass. The pass before it maps what is to be mapped.
fn read(place: &Place, pass: fn(&Place) -> u64) {
    assert_eq!(pass(place), CALLS);
    assert_eq!(measured(|| pass(black_box(place))), CALLS);
}

impl Target {
    fn new() -> Target {
        let (place, events) = (Place::grown(&options()), Events::of(128));
        create(&place.store, AGGREGATES, &events);
        let handle = |number| place.store.aggregate(key(number)).expect("it exists");
        let handles = (0..AGGREGATES).map(handle).collect();
        let states = place.store.states(AGGREGATES as usize);
        Target { place, handles, states, events }
    }

    /// Makes so many writes while the device hangs, then lets them become durable.
    fn hanging(&self, writes: u64, append: fn(&Target, u64) -> InFlight, counted: bool) {
        let Place { disk, store } = &self.place;
        disk.set_order(Order::Never);
        // One flush after the other, until there are as many as may be in flight.
        for _ in 0..annals::limits::FLUSH_WINDOW_DEFAULT {
            let started = disk.count(Op::Write);
            let _in_flight = append(self, 0);
            while disk.count(Op::Write) == started {
                thread::sleep(PAUSE);
            }
        }
        thread::sleep(20 * PAUSE);
        let all = || (0..writes).fold(None, |_, nth| Some(append(self, nth % AGGREGATES)));
        let last = if counted { measured(all) } else { all() };
        disk.set_order(Order::Fifo);
        match last {
            Some(InFlight::Append(ticket)) => drop(ticket.wait().expect("it becomes durable")),
            Some(InFlight::Execution(execution)) => {
                assert!(matches!(execution.wait(), Ok(Ok(Some(_)))), "it becomes durable");
            }
            None => {}
        }
        // The log writer says what it holds at the end of its turn.
        thread::sleep(100 * PAUSE);
        while store.stats().shards[0].held_bytes > 0 {
            thread::sleep(PAUSE);
        }
    }
}

/// What the program does under callgrind.
fn task(what: What, side: Side) {
    match what {
        What::Append(append) => {
            let target = Target::new();
            if let Side::Writer(writes) = side {
                return target.hanging(writes, append, false);
            }
            // At first, to fill the pool of requests.
            for counted in [false, false, true] {
                target.hanging(CALLS, append, counted);
            }
        }
        What::Refused(append) => {
            let target = Target::new();
            measured(|| (0..CALLS).for_each(|nth| append(&target, nth % AGGREGATES)));
        }
        What::Pass(pass) => {
            let place = Place::new(&options());
            let events = Events::of(128);
            let append = |_| place.store.append(key(0), Expect::Any, [events.event()]);
            settle(newest((0..CALLS).map(append)));
            pass(&place);
        }
    }
}

/// Whose instructions are counted.
#[derive(Clone, Copy)]
enum Side {
    Caller,
    /// The log writer's, for so many writes.
    Writer(u64),
}

/// Runs this program under callgrind and returns the instructions of each of its threads.
fn count(case: usize, side: Side) -> Result<u64> {
    let folder = tempfile::tempdir()?;
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--tool=callgrind").arg("--separate-threads=yes");
    valgrind.arg(format!("--callgrind-out-file={}/out", folder.path().display()));
    let writes = match side {
        Side::Caller => {
            valgrind.arg("--toggle-collect=*instructions::measured*");
            0
        }
        Side::Writer(writes) => writes,
    };
    valgrind.arg(env::current_exe()?).env(TASK, format!("{case} {writes}"));
    let ran = valgrind.stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    if !ran.status.success() {
        return Err(String::from_utf8_lossy(&ran.stderr).into());
    }
    let mut sum = None;
    for entry in fs::read_dir(folder.path())? {
        let path = entry?.path();
        let Some(totals) = totals(&fs::read_to_string(&path)?, side) else { continue };
        sum = Some(sum.unwrap_or(0) + totals);
    }
    sum.filter(|sum| *sum > 0).ok_or_else(|| "callgrind counted nothing".into())
}

/// The instructions of one thread, if it is the one that is meant.
fn totals(profile: &str, side: Side) -> Option<u64> {
    let of_writer = profile.contains("annals::writer::LogWriter");
    let wanted = match side {
        Side::Caller => profile.contains("instructions::measured"),
        Side::Writer(_) => of_writer && !profile.contains("instructions::main"),
    };
    let totals = profile.lines().find_map(|line| line.strip_prefix("totals: "))?;
    if wanted { totals.trim().parse().ok() } else { None }
}

fn main() -> Result<()> {
    if let Ok(asked) = env::var(TASK) {
        let (case, writes) = asked.split_once(' ').ok_or("expected a case and a number")?;
        let side = match writes.parse()? {
            0 => Side::Caller,
            writes => Side::Writer(writes),
        };
        let case = CASES.get(case.parse::<usize>()?).ok_or("there is no such case")?;
        task(case.what, side);
        return Ok(());
    }
    let mut out = io::stdout().lock();
    if !env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        writeln!(out, "no instructions counted: valgrind is not installed")?;
        return Ok(());
    }
    let filter = env::args().skip(1).find(|argument| !argument.starts_with('-'));
    writeln!(out, "{:<32} {:>10} {:>12}", "instructions", "caller", "log writer")?;
    for (nth, case) in CASES.iter().enumerate() {
        if filter.as_ref().is_some_and(|filter| !case.name.contains(filter)) {
            continue;
        }
        let caller = count(nth, Side::Caller)? as f64 / CALLS as f64;
        write!(out, "{:<32} {caller:>10.1}", case.name)?;
        if let What::Append(_) = case.what {
            let once = count(nth, Side::Writer(WRITES))?;
            let twice = count(nth, Side::Writer(2 * WRITES))?;
            let each = twice.saturating_sub(once) as f64 / WRITES as f64;
            write!(out, " {each:>12.1}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
