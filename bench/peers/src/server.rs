//! A server that the harness starts for one round: a child process that never outlives it.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use bench::{folder::Ending, store::Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal},
};

/// How long a server may take to be ready, or to stop before it is killed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server process and what it says.
#[derive(Debug)]
pub struct Server {
    child: Child,
    name: &'static str,
    stop_signal: Signal,
    log: PathBuf,
    /// Whoever interrupts the harness stops the server, before its folder is removed.
    ending: Option<Ending>,
}

impl Server {
    /// Starts a server. What it prints goes to a file in `dir`; `stop_signal` is the one that it ends itself at.
    pub fn start(
        mut command: Command,
        name: &'static str,
        dir: &Path,
        stop_signal: Signal,
    ) -> Result<Server> {
        let log = dir.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        // A group of its own: what the terminal sends at Ctrl-C is for the harness, which stops the server in its turn.
        command.process_group(0);
        let parent = std::process::id();
        // SAFETY: between fork and exec only system calls are made, which are safe there; nothing is allocated.
        unsafe {
            command.pre_exec(move || end_with(parent, stop_signal.as_raw()));
        }
        let child = command.spawn().map_err(|error| {
            format!("{name} was to be started as {:?}: {error}", command.get_program())
        })?;
        let mut server = Server { child, name, stop_signal, log, ending: None };
        // Unlike its number, this names no other process once the server is gone.
        let process = pidfd_open(Pid::from_child(&server.child), PidfdFlags::empty())?;
        server.ending = Some(Ending::new(move || {
            let _ = pidfd_send_signal(&process, stop_signal);
            let seconds = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&seconds));
            if ended != Ok(1) {
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
        }));
        Ok(server)
    }

    /// Tries `ready` until it gives something.
    pub fn wait_for<T>(&mut self, mut ready: impl FnMut() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.ended(status).into());
            }
            match ready() {
                Ok(value) => return Ok(value),
                Err(error) if began.elapsed() > PATIENCE => {
                    let (name, seconds) = (self.name, PATIENCE.as_secs());
                    return Err(format!("{name} was not ready after {seconds} s: {error}").into());
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// It, and the processes that it started, now.
    pub fn processes(&self) -> Vec<u32> {
        let mut processes = vec![self.child.id()];
        let mut next = 0;
        while let Some(&process) = processes.get(next) {
            next += 1;
            let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
            processes.extend(
                children
                    .unwrap_or_default()
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
        processes
    }

    /// Has it stop by itself, and waits for that.
    pub fn stop(mut self) -> Result<()> {
        let status = self.end()?;
        if status.success() { Ok(()) } else { Err(self.ended(status).into()) }
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        // The child was not waited for, so the number is still its own.
        kill_process(Pid::from_child(&self.child), self.stop_signal)?;
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if began.elapsed() > PATIENCE {
                self.child.kill()?;
                return self.child.wait();
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn ended(&self, status: ExitStatus) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join(" | ");
        format!("{} ended with {status}; the last it said: {last}", self.name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nobody is left to tell; what was not stopped here ends with this process.
        let _ = self.end();
    }
}

/// Has the calling process get `signal` when the process `parent`, which started it, is gone.
fn end_with(parent: u32, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: two calls without memory of ours.
    let (set, now) = unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, signal), libc::getppid()) };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    // It may have gone before.
    if u32::try_from(now) == Ok(parent) { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
}
