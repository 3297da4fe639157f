//! The folder of a run: new, on a disk, and gone afterwards, also when the run is interrupted.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use tempfile::TempDir;

use crate::store::Result;

/// How the kernel names file systems that are memory.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;

/// What a process returns that was interrupted.
const INTERRUPTED: i32 = 130;

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

    /// Has the folder removed if somebody interrupts the process.
    pub fn remove_when_interrupted(&self) -> Result<()> {
        let path = self.path().to_owned();
        ctrlc::set_handler(move || {
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
    fn memory_is_refused_unless_asked_for() {
        let memory = Path::new("/dev/shm");
        if is_memory(memory).is_ok_and(|is_memory| is_memory) {
            let refused = Folder::create(memory, false).expect_err("it is memory");
            assert!(refused.to_string().contains("--ram-disk"), "{refused}");
            Folder::create(memory, true).expect("it was asked for");
        }
    }
}
