//! Kills at system calls, and system calls that fail, both by strace.
//!
//! A scripted life is traced once to see which calls it makes. Then it lives again and again, and is killed at the entry of
//! the first, the second, … of each: `when=N` counts the calls of each thread, so it is the first thread that makes its
//! Nth call which dies, and all with it. After each its store is opened, and what is back is held against what it had been
//! told; of some, another life sends again what was in flight.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use annals::Backend;
use annals_trials::exact::Complaint;
use annals_trials::truth::{Truth, Word};

use crate::arguments::{self, Syscalls, What};
use crate::life::{self, End, Kind, Life, Settings};
use crate::parent::{self, Running};
use crate::report::{Failure, Progress, note, say};

mod errors;

/// What changes anything, or can be waited in. `write` is what the process says: a kill there falls between two words.
const CALLS: [&str; 26] = [
    "io_uring_enter",
    "io_uring_setup",
    "io_uring_register",
    "pwrite64",
    "pwritev2",
    "fsync",
    "fdatasync",
    "openat",
    "openat2",
    "renameat",
    "renameat2",
    "unlinkat",
    "ftruncate",
    "fallocate",
    "mkdir",
    "mkdirat",
    "flock",
    "write",
    "futex",
    "pread64",
    "statx",
    "close",
    "eventfd2",
    "clone3",
    "munmap",
    "getdents64",
];

/// The lives that are traced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Variant {
    pub(crate) kind: Kind,
    pub(crate) dsync: bool,
}

impl Variant {
    fn name(self) -> String {
        let sync = if self.dsync { "" } else { "-sync" };
        format!("{}{sync}", self.kind.name())
    }

    pub(crate) fn life(self, dir: &Path) -> Life {
        Life {
            dir: dir.to_owned(),
            seed: 1,
            number: 0,
            settings: Settings { dsync: self.dsync, ..Settings::plain(self.kind) },
            subjects: life::subjects(1, 4),
            threads: 1,
            in_flight: 4,
            event_bytes: 100,
            pause_micros: 0,
            retries: Vec::new(),
            end: End::Killed,
            lie: None,
            scripted: true,
        }
    }
}

fn variants() -> Vec<Variant> {
    let backends = arguments::backends();
    let mut variants = Vec::new();
    if backends.contains(&Backend::Uring) {
        variants.push(Variant { kind: Kind::Uring, dsync: true });
        variants.push(Variant { kind: Kind::Uring, dsync: false });
    } else {
        note("SKIP: system calls of io_uring (it can't be had here)");
    }
    variants.push(Variant { kind: Kind::Blocking, dsync: true });
    variants.push(Variant { kind: Kind::Blocking, dsync: false });
    variants
}

/// One moment at which a life ends.
#[derive(Clone, Debug)]
struct Point {
    variant: Variant,
    call: String,
    number: u64,
}

impl Point {
    fn name(&self) -> String {
        format!("{},{},{}", self.variant.name(), self.call, self.number)
    }
}

/// This program under strace, which does one thing to it.
pub(crate) fn traced(arguments: &[&str]) -> Result<Command, Failure> {
    let mut command = Command::new("strace");
    // Not `--seccomp-bpf`: with it some of what is to be injected is not.
    command.args(["-f", "-o", "/dev/null"]).args(arguments);
    command.arg(parent::program()?).arg("life");
    command.stderr(std::process::Stdio::null());
    Ok(command)
}

pub(crate) fn run(syscalls: &Syscalls) -> Result<(), Failure> {
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        let text = "strace is not here, or may not trace: apt-get install strace";
        return Err(Failure::NotRun(text.into()));
    }
    if syscalls.what != What::Errors {
        kills(syscalls)?;
    }
    if syscalls.what != What::Kills && syscalls.only.is_none() && syscalls.lie.is_none() {
        errors::run(&syscalls.place.dir, variants())?;
    }
    Ok(())
}

fn kills(syscalls: &Syscalls) -> Result<(), Failure> {
    let points = match &syscalls.only {
        Some(only) => vec![parsed(only)?],
        None => sampled(counted(syscalls)?, syscalls.points),
    };
    let progress = Mutex::new(Progress::new("points", points.len() as u64));
    let next = AtomicUsize::new(0);
    let (killed, acked, again) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failed: Mutex<Option<Failure>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let over = failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
                    let Some(point) = points.get(number).filter(|_| !over) else { return };
                    match one(syscalls, point, number) {
                        Ok(done) => {
                            killed.fetch_add(done.killed.into(), Ordering::Relaxed);
                            acked.fetch_add(done.acked, Ordering::Relaxed);
                            again.fetch_add(done.sent_again, Ordering::Relaxed);
                            let mut progress =
                                progress.lock().unwrap_or_else(PoisonError::into_inner);
                            progress.step(|| point.name());
                        }
                        Err(complaints) => {
                            let again =
                                format!("to repeat it: trials syscalls --only {}", point.name());
                            *failed.lock().unwrap_or_else(PoisonError::into_inner) =
                                Some(Failure::broken(&complaints, &again));
                        }
                    }
                }
            });
        }
    });
    let elapsed = progress.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
    if let Some(failure) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(failure);
    }
    let mut by_call: BTreeMap<&str, u64> = BTreeMap::new();
    for point in &points {
        *by_call.entry(&point.call).or_default() += 1;
    }
    let by_call: Vec<String> =
        by_call.iter().map(|(call, count)| format!("{call} {count}")).collect();
    say(&format!(
        "{} points in {:.1} s, {} of them reached and killed there, {} writes acknowledged before, {} sent again after: {}",
        points.len(),
        elapsed.as_secs_f64(),
        killed.into_inner(),
        acked.into_inner(),
        again.into_inner(),
        by_call.join(", "),
    ));
    Ok(())
}

fn parsed(only: &str) -> Result<Point, Failure> {
    let wrong = || Failure::NotRun(format!("{only}: expected something like uring,fsync,3"));
    let [variant, call, number] = only.split(',').collect::<Vec<_>>()[..] else {
        return Err(wrong());
    };
    let variant = variants().into_iter().find(|known| known.name() == variant);
    let variant = variant.ok_or_else(wrong)?;
    Ok(Point { variant, call: call.into(), number: number.parse().map_err(|_| wrong())? })
}

/// How many of each call the busiest thread of each life makes.
fn counted(syscalls: &Syscalls) -> Result<Vec<Vec<Point>>, Failure> {
    let mut all = Vec::new();
    for variant in variants() {
        let dir = tempfile::tempdir_in(&syscalls.place.dir)?;
        let trace = dir.path().join("trace");
        let file = trace.to_string_lossy().into_owned();
        // The last -o counts.
        let command = traced(&["-o", &file])?;
        let running = Running::start(command, &variant.life(&dir.path().join("store")))?;
        let words = running.ended()?.words();
        if words.last() != Some(&Word::Done) {
            let text = format!("the scripted life ended with {:?}", words.last());
            return Err(Failure::NotRun(text));
        }
        let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        let trace = std::fs::read_to_string(&trace)?;
        for line in trace.lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
            *counts.entry((call, thread)).or_default() += 1;
        }
        for call in CALLS {
            let threads = counts.iter().filter(|((counted, _), _)| *counted == call);
            let most = threads.map(|(_, count)| *count).max().unwrap_or(0);
            let point = |number| Point { variant, call: call.into(), number };
            if most > 0 {
                all.push((1..=most).map(point).collect());
            }
        }
    }
    Ok(all)
}

/// At most so many: of each call of each life a fair share, evenly spread over it.
fn sampled(all: Vec<Vec<Point>>, points: usize) -> Vec<Point> {
    let mut share = 1;
    let take = |share: usize| all.iter().map(|calls| calls.len().min(share)).sum::<usize>();
    let most = all.iter().map(Vec::len).max().unwrap_or(0);
    while share < most && take(share + 1) <= points {
        share += 1;
    }
    let spread = |calls: &Vec<Point>| {
        let count = calls.len().min(share);
        let chosen = (0..count).map(|number| calls[number * calls.len() / count].clone());
        chosen.collect::<Vec<_>>()
    };
    all.iter().flat_map(spread).collect()
}

struct Done {
    killed: bool,
    acked: u64,
    sent_again: u64,
}

fn one(syscalls: &Syscalls, point: &Point, number: usize) -> Result<Done, Vec<Complaint>> {
    let failed = |failure: Failure| parent::broken(failure.to_string());
    let dir = tempfile::tempdir_in(&syscalls.place.dir)
        .map_err(|error| parent::broken(error.to_string()))?;
    let path = dir.path().join("store");
    let mut life = point.variant.life(&path);
    life.lie = syscalls.lie;
    let trace = format!("trace={}", point.call);
    let inject = format!("inject={}:signal=SIGKILL:when={}", point.call, point.number);
    let command = traced(&["-e", &trace, "-e", &inject]).map_err(failed)?;
    let ended = Running::start(command, &life).and_then(Running::ended).map_err(failed)?;
    let killed = !ended.status.success();
    let mut truth = Truth::new(life.subjects.clone());
    recover(&path, &life.settings, ended.words(), &mut truth)?;
    let acked = truth.acked;
    // Another life, by turns, which sends again what this one did not hear the end of.
    if number.is_multiple_of(3) {
        life.number = 1;
        life.retries = truth.unresolved();
        let ended = parent::life_of(&life).and_then(Running::ended).map_err(failed)?;
        let words = ended.words();
        if words.last() != Some(&Word::Done) {
            let text = format!("the life after it ended with {:?}", words.last());
            return Err(parent::broken(text));
        }
        recover(&path, &life.settings, words, &mut truth)?;
        parent::compare_all(&path, &life.settings, &truth)?;
    }
    Ok(Done { killed, acked, sent_again: truth.retries.0 + truth.retries.1 })
}

/// Opens the store of a life that has ended, and holds it against what was said.
pub(crate) fn recover(
    path: &Path,
    settings: &Settings,
    words: Vec<Word>,
    truth: &mut Truth,
) -> Result<(), Vec<Complaint>> {
    let reopened = parent::reopen(path, settings)?;
    parent::compare(truth, words, &reopened.store)
}
