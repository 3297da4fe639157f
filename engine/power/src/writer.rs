//! The process that writes: it opens a store, puts a load on it and says what came of each write. Its parent kills it, or
//! ends its standard input: then it closes the store.

use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use crate::draw::Drawn;
use crate::load::Load;
use crate::release::Owned;
use crate::truth::{Heard, Word};

/// What a writer is told: one line of JSON on its standard input.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Decides what every write is.
    pub seed: u64,
    /// Which life of the run.
    pub life: u64,
    /// How the store is opened.
    pub drawn: Drawn,
    /// Bytes of events after which the load ends.
    pub bytes: u64,
}

fn say(word: &Word) {
    static OUTPUT: Mutex<()> = Mutex::new(());
    let Ok(mut line) = serde_json::to_vec(word) else { return };
    line.push(b'\n');
    let _one_at_a_time = OUTPUT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut output = io::stdout().lock();
    // Without a parent there is nobody to tell, and soon no writer.
    let _nobody = output.write_all(&line).and_then(|()| output.flush());
}

/// The whole life of a writer.
///
/// # Errors
///
/// If the task can't be read, or the store can't be opened or closed.
pub fn run(store: &Path) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let task: Task = serde_json::from_str(&line)?;
    let store = task.drawn.options().open(store).map_err(|error| {
        say(&Word::Wrong(format!("the store does not open: {error}")));
        io::Error::other(error)
    })?;
    say(&Word::Opened);
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    thread::spawn(move || {
        let _ended = io::stdin().lock().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    let Task { seed, life, drawn, bytes } = task;
    let load = Load { seed, life, threads: drawn.threads, burst: drawn.burst, bytes };
    load.run(&store, &stop, &|word| say(&word));
    store.close().map_err(|error| {
        say(&Word::Wrong(format!("the store does not close: {error}")));
        io::Error::other(error)
    })
}

/// A writer, seen from its parent.
#[derive(Debug)]
pub struct Writer {
    child: Owned,
    listener: JoinHandle<()>,
    heard: Arc<Heard>,
}

impl Writer {
    /// Starts one on a store.
    pub fn start(store: &Path, task: &Task) -> io::Result<Writer> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("writer").arg(store).stdin(Stdio::piped()).stdout(Stdio::piped());
        Writer::spawn(&mut command, task)
    }

    fn spawn(command: &mut Command, task: &Task) -> io::Result<Writer> {
        let mut child = Owned(command.spawn()?);
        let missing = || io::Error::other("a child without pipes");
        let output = child.0.stdout.take().ok_or_else(missing)?;
        let input = child.0.stdin.as_mut().ok_or_else(missing)?;
        writeln!(input, "{}", serde_json::to_string(task)?)?;
        let heard = Arc::new(Heard::default());
        let ear = Arc::clone(&heard);
        let listener = thread::spawn(move || ear.listen(output));
        Ok(Writer { child, listener, heard })
    }

    /// What it has said.
    pub fn heard(&self) -> &Arc<Heard> {
        &self.heard
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.child.0.try_wait()?.is_none())
    }

    /// Kills it, and hears what was still in the pipe.
    pub fn kill(mut self) -> io::Result<Arc<Heard>> {
        self.child.kill()?;
        self.end().map(|(heard, _)| heard)
    }

    /// Lets it close its store, and says whether that went well.
    pub fn finish(mut self) -> io::Result<(Arc<Heard>, bool)> {
        drop(self.child.0.stdin.take());
        self.end()
    }

    fn end(mut self) -> io::Result<(Arc<Heard>, bool)> {
        let status = self.child.0.wait()?;
        self.listener.join().map_err(|_| io::Error::other("the listener panicked"))?;
        Ok((self.heard, status.success()))
    }
}
