//! The folder of a run: new, on a disk, and gone afterwards, also when the run is interrupted.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tempfile::TempDir;

use crate::store::Result;

/// How the kernel names file systems that are memory.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;

/// What a process returns that was interrupted.
const INTERRUPTED: i32 = 130;

/// What is to be done when the process is interrupted, before its folder goes.
static ENDINGS: Mutex<Endings> = Mutex::new(Vec::new());

/// By number, in the order in which they were asked for.
type Endings = Vec<(u64, Box<dyn FnMut() + Send>)>;

fn endings() -> MutexGuard<'static, Endings> {
    ENDINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something to be done when the process is interrupted, as long as this lives: stopping a server, removing a folder elsewhere.
#[derive(Debug)]
pub struct Ending(u64);

impl Ending {
    /// Has it done. What was asked for last is done first.
    pub fn new(end: impl FnMut() + Send + 'static) -> Ending {
        let mut endings = endings();
        let number = endings.last().map_or(0, |(number, _)| number + 1);
        endings.push((number, Box::new(end)));
        Ending(number)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        endings().retain(|(number, _)| *number != self.0);
    }
}

/// A new folder. It is removed when this is dropped.
#[derive(Debug)]
pub struct Folder {
    folder: TempDir,
    rounds: u64,
}

impl Folder {
    /// Makes one in `parent`, which must be on a disk unless a RAM disk was asked for.
    pub fn create(parent: &Path, ram_disk: bool) -> Result<Folder> {
        let parent = parent.canonicalize().map_err(|error| {
            format!("{}: {error}: expected an existing folder", parent.display())
        })?;
        if is_memory(&parent)? && !ram_disk {
            return Err(format!(
                "{} is memory, where nothing is durable: start the run on a disk, give a folder on one with --dir, or say --ram-disk",
                parent.display()
            )
            .into());
        }
        let folder = tempfile::Builder::new().prefix("annals-bench-").tempdir_in(&parent)?;
        Ok(Folder { folder, rounds: 0 })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Has the folder removed if somebody interrupts the process, after every [`Ending`].
    pub fn remove_when_interrupted(&self) -> Result<()> {
        let path = self.path().to_owned();
        ctrlc::set_handler(move || {
            // Kept until the process is gone: nobody starts another server meanwhile.
            let mut endings = endings();
            endings.iter_mut().rev().for_each(|(_, end)| end());
            // The threads that run may make files while others are removed.
            for _ in 0..20 {
                match fs::remove_dir_all(&path) {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
            process::exit(INTERRUPTED);
        })?;
        Ok(())
    }

    /// An empty folder for one round. What earlier rounds left to be written is written before it is given out, so that nobody pays for another.
    pub fn round(&mut self) -> Result<PathBuf> {
        self.rounds += 1;
        let path = self.path().join(format!("round-{}", self.rounds));
        fs::create_dir(&path)?;
        rustix::fs::syncfs(fs::File::open(&path)?)?;
        Ok(path)
    }
}

/// Whether a folder is on a file system that keeps nothing.
fn is_memory(folder: &Path) -> Result<bool> {
    let kind = rustix::fs::statfs(folder)?.f_type as i64;
    Ok(matches!(kind, TMPFS | RAMFS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_have_folders_of_their_own_and_nothing_stays() {
        let mut folder = Folder::create(Path::new("/var/tmp"), true).expect("a folder");
        let path = folder.path().to_owned();
        let (one, two) = (folder.round().expect("one"), folder.round().expect("another"));
        assert!(one != two && one.starts_with(&path) && two.is_dir());
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn endings_are_kept_as_long_as_they_are_wanted() {
        let kept = |ending: &Ending| endings().iter().any(|(number, _)| *number == ending.0);
        let (one, two) = (Ending::new(|| ()), Ending::new(|| ()));
        assert!(one.0 != two.0 && kept(&one) && kept(&two));
        let number = one.0;
        drop(one);
        assert!(kept(&two) && endings().iter().all(|(other, _)| *other != number));
    }

    #[test]
    fn memory_is_refused_unless_asked_for() {
        let memory = Path::new("/dev/shm");
        if is_memory(memory).is_ok_and(|is_memory| is_memory) {
            let refused = Folder::create(memory, false).expect_err("it is memory");
            assert!(refused.to_string().contains("--ram-disk"), "{refused}");
            Folder::create(memory, true).expect("it was asked for");
        }
    }
}
