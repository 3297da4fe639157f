//! What is said while a run goes on: a bar on a terminal, a line for each step elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of a run, on standard error.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
}

impl Progress {
    /// Of so many steps.
    pub fn new(steps: u64) -> Progress {
        let bar = io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{elapsed:>4} {bar:24} {pos}/{len} {wide_msg}");
            let bar = ProgressBar::new(steps);
            bar.enable_steady_tick(Duration::from_millis(500));
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Progress { bar, began: Instant::now() }
    }

    /// A group of steps begins.
    pub fn begin(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            // Nobody may be there to read it.
            None => drop(writeln!(io::stderr(), "{:4} s  {what}", self.began.elapsed().as_secs())),
        }
    }

    /// What goes on within a step. Only a terminal shows it.
    pub fn detail(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// Something that stays to be read.
    pub fn note(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| drop(writeln!(io::stderr(), "{what}"))),
            None => drop(writeln!(io::stderr(), "{what}")),
        }
    }

    /// A step is done.
    pub fn step(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// All is done.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
