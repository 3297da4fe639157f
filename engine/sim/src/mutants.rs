//! Whether the simulation finds what is broken on purpose.

use std::io::{self, BufRead, BufReader};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use annals::internals::sync::fault::{self, Fault};
use annals_sim::run::Outcome;
use clap::Args;
use indicatif::ProgressBar;

use crate::{Arguments, Worker, say};

/// Which fault of the engine.
#[derive(Args, Debug)]
pub(crate) struct Choice {
    /// Looks for each fault of the engine, in so many seeds at most; fails unless all are found.
    #[arg(long)]
    mutants: bool,
    /// Runs with this fault.
    #[arg(long)]
    mutant: Option<String>,
}

/// How a fault was found.
struct Hunted {
    name: &'static str,
    found: Option<Outcome>,
}

/// Sets the fault that was chosen, or looks for all of them.
pub(crate) fn hunt(arguments: &Arguments) -> Option<ExitCode> {
    if let Some(name) = &arguments.mutants.mutant {
        let Some(chosen) = Fault::named(name) else {
            let known: Vec<_> = Fault::STORAGE.iter().map(|(name, _)| *name).collect();
            say(&format!("there is no mutant {name}: expected one of {}", known.join(", ")));
            return Some(ExitCode::from(2));
        };
        fault::set(Some(chosen));
    }
    arguments.mutants.mutants.then(|| {
        hunt_all(arguments).unwrap_or_else(|error| {
            say(&format!("the hunt can't go on: {error}"));
            ExitCode::from(3)
        })
    })
}

fn hunt_all(arguments: &Arguments) -> io::Result<ExitCode> {
    let jobs =
        arguments.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let progress = ProgressBar::new(Fault::STORAGE.len() as u64);
    let (next, hunted) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        let hunters: Vec<_> = (0..jobs.max(1))
            .map(|_| {
                scope.spawn(|| -> io::Result<()> {
                    while let Some((name, _)) =
                        Fault::STORAGE.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let found = hunt_one(arguments, name)?;
                        progress.inc(1);
                        hunted
                            .lock()
                            .map_err(|_| io::Error::other("a hunter has panicked"))?
                            .push(Hunted { name, found });
                    }
                    Ok(())
                })
            })
            .collect();
        hunters.into_iter().try_for_each(|hunter| hunter.join().unwrap_or(Ok(())))
    })?;
    progress.finish_and_clear();
    let mut hunted = hunted.into_inner().map_err(|_| io::Error::other("a hunter has panicked"))?;
    hunted.sort_by_key(|hunted| hunted.name);
    let mut missed = 0;
    for Hunted { name, found } in &hunted {
        match found {
            Some(outcome) => {
                let seeds = outcome.seed - arguments.from + 1;
                let what = outcome.failure.as_deref().unwrap_or_default();
                say(&format!(
                    "{name}: after {seeds} seeds: {}",
                    what.chars().take(160).collect::<String>()
                ));
            }
            None => {
                missed += 1;
                say(&format!("{name}: NOT FOUND in {} seeds", arguments.seeds));
            }
        }
    }
    say(&format!("{} of {} mutants are found", hunted.len() - missed, hunted.len()));
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The first seed that finds something.
fn hunt_one(arguments: &Arguments, name: &str) -> io::Result<Option<Outcome>> {
    let seeds = arguments.from..arguments.from + arguments.seeds;
    let mut worker = Worker::start(&seeds, &["--mutant", name])?;
    let output =
        worker.0.stdout.take().ok_or_else(|| io::Error::other("a worker without output"))?;
    let mut next = seeds.start;
    for line in BufReader::new(output).lines() {
        let outcome: Outcome = serde_json::from_str(&line?)?;
        if outcome.failure.is_some() {
            return Ok(Some(outcome));
        }
        next = outcome.seed + 1;
    }
    let status = worker.0.wait()?;
    let failure = (!status.success()).then(|| format!("the worker ended: {status}"));
    Ok(failure.map(|failure| Outcome { seed: next, failure: Some(failure), ..Outcome::default() }))
}
