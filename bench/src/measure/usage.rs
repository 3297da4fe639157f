//! What a measurement uses up: processor time, and bytes written.
//!
//! Processor time is that of all threads of this process, those included that the kernel runs for it (a ring's workers belong to the
//! process), and of the servers under test with all processes that they started, to a hundredth of a second.
//!
//! Bytes are the kernel's count of what these processes caused to be written to a device: direct I/O when it is issued, other
//! writes when they make a page of the system's cache dirty, a page that is written to twice before it goes out once. Neither the file
//! system's journal nor zeros that a device writes by itself (`FALLOC_FL_WRITE_ZEROES`) are in it.

use std::{collections::HashMap, time::Duration};

use procfs::process::{Process, Stat, all_processes};
use rustix::time::{ClockId, clock_gettime};

/// What has been used up until some moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    processor: Duration,
    written_bytes: u64,
}

impl Usage {
    /// Until now: by this process, and by those that are named with all that they started.
    #[must_use]
    pub fn now(pids: &[u32]) -> Usage {
        let mut usage = Usage {
            processor: own_processor_time(),
            written_bytes: written_by(Process::myself().ok()),
        };
        if !pids.is_empty() {
            for stat in trees(pids) {
                usage.processor += processor_time(&stat);
                usage.written_bytes += written_by(Process::new(stat.pid).ok());
            }
        }
        usage
    }

    /// What was used since then: processor time, and bytes written.
    #[must_use]
    pub fn since(&self, earlier: &Usage) -> (Duration, u64) {
        (
            self.processor.saturating_sub(earlier.processor),
            self.written_bytes.saturating_sub(earlier.written_bytes),
        )
    }
}

/// The processor time of all threads of this process so far, also of those that have ended.
#[must_use]
pub fn own_processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// The processor time of another process, and of those that it started and has waited for.
#[must_use]
pub fn processor_time(stat: &Stat) -> Duration {
    let waited_for = u64::try_from(stat.cutime + stat.cstime).unwrap_or(0);
    ticks(stat.utime + stat.stime + waited_for)
}

/// So many ticks of the kernel's accounting.
#[must_use]
pub fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(count as f64 / procfs::ticks_per_second() as f64)
}

/// The processes of these numbers that there are, and all that they started.
#[must_use]
pub fn trees(roots: &[u32]) -> Vec<Stat> {
    let Ok(processes) = all_processes() else { return Vec::new() };
    // One that ends meanwhile is left out.
    let stats = processes.filter_map(|process| process.ok()?.stat().ok());
    let mut by_parent: HashMap<i32, Vec<Stat>> = HashMap::new();
    let mut found = Vec::new();
    for stat in stats {
        match u32::try_from(stat.pid).is_ok_and(|pid| roots.contains(&pid)) {
            true => found.push(stat),
            false => by_parent.entry(stat.ppid).or_default().push(stat),
        }
    }
    let mut next = 0;
    while next < found.len() {
        found.extend(by_parent.remove(&found[next].pid).unwrap_or_default());
        next += 1;
    }
    found
}

fn written_by(process: Option<Process>) -> u64 {
    process.and_then(|process| process.io().ok()).map_or(0, |io| io.write_bytes)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::device::{Action, Load, Target, write_with};

    #[test]
    fn direct_writes_of_a_ring_are_counted() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let target = Target::create(&dir.path().join("file"), 4 << 20).unwrap();
        let before = Usage::now(&[]);
        let load = Load { action: Action::WriteDsync, depth: 2, bytes: 1 << 20 };
        let mut left = 16;
        write_with(&target, load, &mut |_| {
            left -= 1;
            left >= 0
        })
        .unwrap();
        let (_, written) = Usage::now(&[]).since(&before);
        // A floor: other tests of this process may write meanwhile.
        assert!(written >= 16 << 20, "{written}");
    }

    #[test]
    fn time_that_any_thread_spends_is_counted() {
        let before = Usage::now(&[]);
        std::thread::spawn(|| {
            let begin = own_thread_time();
            while own_thread_time() - begin < Duration::from_millis(20) {}
        })
        .join()
        .unwrap();
        assert!(Usage::now(&[]).since(&before).0 >= Duration::from_millis(20));
    }

    fn own_thread_time() -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    #[test]
    fn a_server_counts_with_what_it_started() {
        // The shell has a child that works, and waits for it.
        let script = "i=0; (while [ $i -lt 100000 ]; do i=$((i+1)); done); read line";
        let mut server =
            Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        let pid = server.id();
        while Usage::now(&[pid]).since(&Usage::now(&[])).0 < Duration::from_millis(10) {}
        assert!(trees(&[std::process::id()]).iter().any(|stat| stat.pid == pid as i32));
        drop(server.stdin.take());
        server.wait().unwrap();
        assert!(trees(&[pid]).is_empty());
    }
}
