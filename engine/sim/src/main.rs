//! The command line of the simulation.

use std::io::{self, BufRead, BufReader, Write};
use std::ops::Range;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;

use annals::internals::disk::sim::FaultKind;
use annals_sim::report::Report;
use annals_sim::run::{Outcome, run};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// So many seeds show every kind of fault.
const SEEDS_FOR_ALL_FAULTS: u64 = 1000;

/// Runs the real store on one thread and on a disk that fails in every way, from seeds.
#[derive(Parser, Debug)]
#[command(name = "sim", version)]
struct Arguments {
    /// Runs this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many processes run them. As many as there are processors unless set.
    #[arg(long)]
    jobs: Option<usize>,
    /// Stops after so many minutes, if not all seeds are run by then.
    #[arg(long)]
    minutes: Option<u64>,
    /// Fails if fewer recoveries than this were inspected.
    #[arg(long, default_value_t = 0)]
    recoveries_min: u64,
    /// Runs the seeds in this process, and prints what came of each as JSON.
    #[arg(long, hide = true)]
    worker: bool,
    #[cfg(feature = "mutants")]
    #[command(flatten)]
    mutants: mutants::Choice,
}

#[cfg(feature = "mutants")]
mod mutants;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // What panics is a finding, and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    #[cfg(feature = "mutants")]
    if let Some(code) = mutants::hunt(&arguments) {
        return code;
    }
    if arguments.worker {
        return work(arguments.from..arguments.from + arguments.seeds);
    }
    let code = match arguments.seed {
        Some(seed) => replay(seed),
        None => campaign(&arguments),
    };
    code.unwrap_or_else(|error| {
        say(&format!("the simulation can't go on: {error}"));
        ExitCode::from(3)
    })
}

fn say(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(io::stdout(), "{text}");
}

/// Runs seeds and prints what came of each. Ends after a failure: this process is then of no use any more.
fn work(seeds: Range<u64>) -> ExitCode {
    for seed in seeds {
        let outcome = run(seed);
        let failed = outcome.failure.is_some();
        match serde_json::to_string(&outcome) {
            Ok(line) => say(&line),
            Err(_) => return ExitCode::from(3),
        }
        if failed {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn replay(seed: u64) -> io::Result<ExitCode> {
    let outcome = run(seed);
    let failure = outcome.failure.clone();
    let path = outcome.path;
    let mut report = Report::default();
    report.add(outcome);
    say(&report.to_string());
    say(&format!("path {path:016x}"));
    Ok(match failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            say(&format!("seed {seed}: {failure}"));
            ExitCode::FAILURE
        }
    })
}

fn campaign(arguments: &Arguments) -> io::Result<ExitCode> {
    let progress = ProgressBar::new(arguments.seeds);
    let style = "{bar:30} {pos} of {len} seeds, {per_sec}, {msg} {elapsed_precise} (ends in {eta})";
    progress.set_style(ProgressStyle::with_template(style).map_err(io::Error::other)?);
    let deadline = arguments.minutes.map(|minutes| {
        std::time::Instant::now() + std::time::Duration::from_secs(minutes.saturating_mul(60))
    });
    let mut report = Report::default();
    let began = std::time::Instant::now();
    let ended = gather(arguments, |outcome| {
        report.add(outcome);
        progress.inc(1);
        progress.set_message(format!("{} recoveries,", report.count("recoveries inspected")));
        report.failures.len() < 10 && deadline.is_none_or(|end| std::time::Instant::now() < end)
    });
    progress.finish_and_clear();
    ended?;
    say(&format!("{report}"));
    say(&format!("in {:.1} s", began.elapsed().as_secs_f64()));
    for failure in &report.failures {
        let what = failure.failure.as_deref().unwrap_or_default();
        say(&format!(
            "seed {}: {what}\n  cargo run --profile checked -p annals-sim -- --seed {}",
            failure.seed, failure.seed
        ));
    }
    let mut sound = report.failures.is_empty();
    // Twins have directed tests of their own.
    let kinds = FaultKind::ALL.iter().filter(|kind| **kind != FaultKind::Grafted);
    let never = report.never(kinds.map(|kind| kind.name()));
    if report.seeds >= SEEDS_FOR_ALL_FAULTS && !never.is_empty() {
        say(&format!("never happened, in {} seeds: {}", report.seeds, never.join(", ")));
        sound = false;
    }
    let recoveries = report.count("recoveries inspected");
    if recoveries < arguments.recoveries_min {
        say(&format!(
            "{recoveries} recoveries were inspected: expected {}",
            arguments.recoveries_min
        ));
        sound = false;
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs seeds in processes of their own, which share nothing that could make a seed run otherwise; as long as `go_on`.
fn gather(arguments: &Arguments, mut go_on: impl FnMut(Outcome) -> bool) -> io::Result<()> {
    let jobs =
        arguments.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let jobs = jobs.max(1) as u64;
    let share = arguments.seeds.div_ceil(jobs);
    let end = arguments.from + arguments.seeds;
    let (sender, outcomes) = mpsc::channel();
    let mut workers = Vec::new();
    for job in 0..jobs {
        let from = arguments.from + job * share;
        let seeds = from..(from + share).min(end);
        let sender = sender.clone();
        workers.push(thread::spawn(move || oversee(seeds, &sender)));
    }
    drop(sender);
    for outcome in outcomes {
        if !go_on(outcome) {
            break;
        }
    }
    workers.into_iter().try_for_each(|worker| worker.join().unwrap_or(Ok(())))
}

/// Starts a worker again behind each failure, until its seeds are run or nobody listens.
fn oversee(mut seeds: Range<u64>, sender: &mpsc::Sender<Outcome>) -> io::Result<()> {
    while !seeds.is_empty() {
        let mut worker = Worker::start(&seeds, &[])?;
        let output =
            worker.0.stdout.take().ok_or_else(|| io::Error::other("a worker without output"))?;
        let mut last = None;
        for line in BufReader::new(output).lines() {
            let outcome: Outcome = serde_json::from_str(&line?)?;
            last = Some(outcome.seed);
            if sender.send(outcome).is_err() {
                return Ok(());
            }
        }
        let status = worker.0.wait()?;
        let next = last.map_or(seeds.start, |seed| seed + 1);
        if next < seeds.end && status.code() != Some(1) {
            // It was killed, or aborted.
            let failure = Some(format!("the worker ended: {status}"));
            let outcome = Outcome { seed: next, failure, ..Outcome::default() };
            if sender.send(outcome).is_err() {
                return Ok(());
            }
            seeds.start = next + 1;
        } else {
            seeds.start = next;
        }
    }
    Ok(())
}

/// A process that runs seeds. Ended with its overseer.
struct Worker(Child);

impl Worker {
    fn start(seeds: &Range<u64>, more: &[&str]) -> io::Result<Worker> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--worker").args(["--from", &seeds.start.to_string()]);
        command.args(["--seeds", &(seeds.end - seeds.start).to_string()]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map(Worker)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}
