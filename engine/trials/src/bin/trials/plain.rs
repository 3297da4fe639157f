//! The same without a store: a process that writes by a ring in which no lock is registered, and is killed. What it had in
//! flight may land after somebody else has the lock.

use std::path::Path;

use crate::report::Failure;

#[cfg(target_os = "linux")]
pub(crate) use ring::{run, write_for_ever};

#[cfg(not(target_os = "linux"))]
pub(crate) fn run(_: &crate::arguments::Stragglers) -> Result<(), Failure> {
    Err(Failure::NotRun("this system has no rings".into()))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn write_for_ever(_: &Path) -> Result<(), Failure> {
    Err(Failure::NotRun("this system has no rings".into()))
}

#[cfg(target_os = "linux")]
mod ring {
    use std::fs::{File, OpenOptions};
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use io_uring::{IoUring, opcode, types};

    use super::{Failure, Path};
    use crate::arguments::Stragglers;
    use crate::parent;
    use crate::report::{Progress, say};
    use crate::stragglers::digests_of;

    const WRITES: usize = 64;
    const WRITE_BYTES: usize = 256 << 10;
    const ALIGN: usize = 4096;

    pub(crate) fn run(stragglers: &Stragglers) -> Result<(), Failure> {
        let dir = tempfile::tempdir_in(&stragglers.place.dir)?;
        let mut progress = Progress::new("rounds", stragglers.rounds.into());
        let mut changed = 0;
        for round in 0..u64::from(stragglers.rounds) {
            let mut child = Command::new(parent::program()?)
                .arg("plain-writer")
                .arg(dir.path())
                .stdout(Stdio::piped())
                .spawn()?;
            if let Some(output) = &mut child.stdout {
                output.read_exact(&mut [0])?;
            }
            std::thread::sleep(Duration::from_millis(40 + round * 7 % 23));
            child.kill()?;
            child.wait()?;
            let lock = locked(dir.path())?;
            let before = digests_of(&dir.path().join("data"))?;
            std::thread::sleep(Duration::from_millis(120));
            let after = digests_of(&dir.path().join("data"))?;
            drop(lock);
            changed += u32::from(before != after);
            progress.step(|| format!("{changed} with stragglers"));
        }
        let rounds = stragglers.rounds;
        let seconds = progress.finish().as_secs_f64();
        match changed {
            0 => Err(Failure::NotRun(format!("no straggler in {rounds} rounds: nothing is shown"))),
            _ => {
                say(&format!(
                    "without a registered lock, in {seconds:.1} s: in {changed} of {rounds} rounds something landed after the lock was had"
                ));
                Ok(())
            }
        }
    }

    fn locked(dir: &Path) -> Result<File, Failure> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(dir.join("lock"))?;
        // SAFETY: a plain call on an open descriptor.
        match unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) } {
            0 => Ok(lock),
            _ => Err(std::io::Error::last_os_error().into()),
        }
    }

    /// Writes until it is killed.
    pub(crate) fn write_for_ever(dir: &Path) -> Result<(), Failure> {
        let _lock = locked(dir)?;
        let data = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(dir.join("data"))?;
        let mut ring = IoUring::new(WRITES as u32)?;
        let mut memory = vec![0_u8; WRITE_BYTES + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        let bytes = &mut memory[start..start + WRITE_BYTES];
        std::io::stdout().write_all(b"!")?;
        std::io::stdout().flush()?;
        let (mut in_flight, mut number) = (0, 0_u64);
        loop {
            while in_flight < WRITES {
                number += 1;
                // The kernel may be reading it: then some write has bytes of two numbers, which is as good here.
                bytes[..8].copy_from_slice(&number.to_le_bytes());
                let place = number % WRITES as u64 * WRITE_BYTES as u64;
                let entry = opcode::Write::new(
                    types::Fd(data.as_raw_fd()),
                    bytes.as_ptr(),
                    WRITE_BYTES as u32,
                )
                .offset(place)
                .rw_flags(libc::RWF_DSYNC)
                .build();
                // SAFETY: file and memory live until the process is killed: nothing returns from here but an error, which
                // ends the process as well.
                if unsafe { ring.submission().push(&entry) }.is_err() {
                    break;
                }
                in_flight += 1;
            }
            ring.submit_and_wait(WRITES / 4)?;
            in_flight -= ring.completion().count();
        }
    }
}
