//! What a trial shows: progress while it runs, one line of totals, and what was broken.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use annals_trials::exact::Complaint;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Why a trial does not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A promise was broken.
    Broken(String),
    /// Nothing was shown.
    NotRun(String),
}

impl Failure {
    /// A promise was broken: what is wrong, and a command that goes there again.
    pub(crate) fn broken(complaints: &[Complaint], again: &str) -> Failure {
        let all = complaints.iter().take(10).map(|complaint| format!("  {complaint}\n"));
        let count = complaints.len();
        Failure::Broken(format!("BROKEN, {count} complaints:\n{}{again}", all.collect::<String>()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Broken(text) => f.write_str(text),
            Failure::NotRun(text) => write!(f, "the trial could not be run: {text}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::NotRun(error.to_string())
    }
}

/// A line for who reads the result.
pub(crate) fn say(line: &str) {
    // A reader who has gone away is no reason to fail.
    let _ = writeln!(io::stdout(), "{line}");
}

/// A line beside the result.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A bar on a terminal; a line every ten seconds elsewhere.
pub(crate) struct Progress {
    bar: ProgressBar,
    last_said: std::time::Instant,
    what: &'static str,
}

impl Progress {
    pub(crate) fn new(what: &'static str, length: u64) -> Progress {
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr_with_hz(8),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        let style = "{prefix} {pos}/{len} {wide_bar} {elapsed}, {eta} left  {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        Progress { bar, last_said: std::time::Instant::now(), what }
    }

    pub(crate) fn step(&mut self, message: impl FnOnce() -> String) {
        self.bar.inc(1);
        let due = self.last_said.elapsed() >= Duration::from_secs(10);
        if self.bar.is_hidden() && !due {
            return;
        }
        let message = message();
        if self.bar.is_hidden() {
            let (done, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
            note(&format!("{} {done}/{all}: {message}", self.what));
            self.last_said = std::time::Instant::now();
        }
        self.bar.set_message(message);
    }

    /// Ends, and tells how long it took.
    pub(crate) fn finish(self) -> Duration {
        self.bar.finish_and_clear();
        self.bar.elapsed()
    }
}
