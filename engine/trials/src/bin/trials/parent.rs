//! Who survives: starts a process, hears what it says until its end, and looks what is back.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use annals::{ErrorKind, Store};
use annals_trials::exact::{Complaint, Fault};
use annals_trials::history::{LogRecord, Subject};
use annals_trials::record::read_log;
use annals_trials::truth::{Truth, Word};

use crate::life::{Life, Settings};
use crate::report::Failure;

/// A process that lives.
pub(crate) struct Running {
    child: Child,
    /// Kept open, unless it is to be closed.
    pub(crate) input: Option<ChildStdin>,
    heard: JoinHandle<Vec<Word>>,
    /// What it has said so far, as far as anybody waits for it.
    said: Receiver<Stage>,
}

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Opening,
    Open,
    /// It was told of a write that it is durable.
    Acked,
}

impl Running {
    /// Starts this program for a life, by `start`, which may put another program before it.
    pub(crate) fn start(mut command: Command, life: &Life) -> Result<Running, Failure> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let Some((mut input, output)) = child.stdin.take().zip(child.stdout.take()) else {
            return Err(Failure::NotRun("a process without pipes".into()));
        };
        let mut line = serde_json::to_vec(life).map_err(std::io::Error::from)?;
        line.push(b'\n');
        // It may be dead already, where it is killed at a system call.
        let _ = input.write_all(&line);
        let (tell, said) = mpsc::channel();
        let heard = std::thread::spawn(move || {
            let mut words = Vec::new();
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                // The last line may have been cut off: nobody said it then.
                let Ok(word) = serde_json::from_slice(&line) else { break };
                let stage = match word {
                    Word::Opening => Some(Stage::Opening),
                    Word::Open => Some(Stage::Open),
                    Word::Acked(..) => Some(Stage::Acked),
                    _ => None,
                };
                if let Some(stage) = stage {
                    let _ = tell.send(stage);
                }
                words.push(word);
            }
            words
        });
        Ok(Running { child, input: Some(input), heard, said })
    }

    /// Waits until it is so far, or has ended.
    pub(crate) fn wait_for(&self, stage: Stage) {
        while let Ok(said) = self.said.recv() {
            if said == stage {
                return;
            }
        }
    }

    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        Ok(self.child.kill()?)
    }

    /// Waits for its end. What it has said is heard later, by [`Ended::words`]: the store is opened first.
    pub(crate) fn ended(mut self) -> Result<Ended, Failure> {
        let status = self.child.wait()?;
        Ok(Ended { status, heard: self.heard })
    }
}

/// A process that has ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    heard: JoinHandle<Vec<Word>>,
}

impl Ended {
    pub(crate) fn words(self) -> Vec<Word> {
        self.heard.join().unwrap_or_default()
    }
}

/// This program.
pub(crate) fn program() -> Result<std::path::PathBuf, Failure> {
    Ok(std::env::current_exe()?)
}

/// A life of this program, with nothing before it.
pub(crate) fn life_of(life: &Life) -> Result<Running, Failure> {
    let mut command = Command::new(program()?);
    command.arg("life");
    Running::start(command, life)
}

/// A store that was opened again, and how long that took.
pub(crate) struct Reopened {
    pub(crate) store: Store,
    pub(crate) took: Duration,
}

/// How long the lock of a killed process may be held. What it has in flight must land first, and a busy disk takes its
/// time; an opening gives up after two seconds, so it is tried again.
const LOCKED_MAX: Duration = Duration::from_secs(60);

/// Opens a store at once after its process is gone.
pub(crate) fn reopen(dir: &Path, settings: &Settings) -> Result<Reopened, Vec<Complaint>> {
    let began = Instant::now();
    loop {
        match settings.options().open(dir) {
            Ok(store) => return Ok(Reopened { store, took: began.elapsed() }),
            Err(error) if error.kind() == ErrorKind::Locked && began.elapsed() < LOCKED_MAX => {}
            Err(error) => return Err(broken(format!("it does not open again: {error:?}"))),
        }
    }
}

pub(crate) fn broken(text: String) -> Vec<Complaint> {
    vec![Complaint { fault: Fault::Unexpected, call: None, text }]
}

/// The whole log of a store.
pub(crate) fn log_of(
    store: &Store,
    subjects: &[Subject],
) -> Result<Vec<LogRecord>, Vec<Complaint>> {
    read_log(store, subjects).map_err(|error| broken(format!("the log can't be read: {error:?}")))
}

/// Holds what is back against what was said.
pub(crate) fn compare(
    truth: &mut Truth,
    words: Vec<Word>,
    store: &Store,
) -> Result<(), Vec<Complaint>> {
    for word in words {
        truth.hear(word);
    }
    let log = log_of(store, truth.subjects())?;
    truth.recovered(&log)
}

/// Everything else that can be asked: the verifier that shares nothing with the store, and every aggregate in both
/// directions against the log.
pub(crate) fn compare_all(
    dir: &Path,
    settings: &Settings,
    truth: &Truth,
) -> Result<(), Vec<Complaint>> {
    let verified = annals::verify(dir, |_, _| {})
        .map_err(|error| broken(format!("it can't be verified: {error:?}")))?;
    if let Some(problem) = verified.problems.first() {
        return Err(broken(format!("verify: {problem}")));
    }
    let store = reopen(dir, settings)?.store;
    let log = log_of(&store, truth.subjects())?;
    if verified.writes != log.len() as u64 {
        let text = format!("verify found {} writes, the log has {}", verified.writes, log.len());
        return Err(broken(text));
    }
    for (number, subject) in (0..).zip(truth.subjects()) {
        let parts = log.iter().flat_map(|record| &record.parts);
        let parts = parts.filter(|part| part.appends && part.subject == Some(number));
        let expected: Vec<_> = parts.map(|part| (part.version, part.write, part.events)).collect();
        for backwards in [false, true] {
            let read = store.read(&subject.key);
            let events = if backwards { read.backwards() } else { read };
            let mut events: Vec<_> = events.collect();
            if backwards {
                events.reverse();
            }
            let batches = annals_trials::observe::batches(events)
                .map_err(|error| broken(format!("{}: {error:?}", subject.key)))?;
            let found = batches.iter().map(|batch| (batch.version, batch.write, batch.events));
            if !found.eq(expected.iter().copied()) {
                return Err(broken(format!("{}: a read differs from the log", subject.key)));
            }
        }
    }
    Ok(())
}
