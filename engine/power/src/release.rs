//! Letting go of what a rig holds of the machine: mounts, loop devices, folders. All of it is found by name alone, so that
//! what a killed run has left behind is let go of by the next one, and nothing of anybody else's is ever touched.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

/// Where rigs stand: on a real disk.
pub const RIGS: &str = "/var/tmp";
/// How the name of every rig's folder begins.
pub const PREFIX: &str = "annals-power-";
/// The folder of a rig whose files are its drives.
pub const DRIVES: &str = "drives";
/// Locked for as long as the rig's process lives.
pub const LOCK: &str = "lock";

/// The rigs of this process, for whoever has to let go of them all at once.
static OWN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Held by whoever takes something of the machine, so that nothing is taken behind the back of who lets go of all.
static TAKING: Mutex<()> = Mutex::new(());

/// To be held while something is mounted or attached.
pub fn taking() -> MutexGuard<'static, ()> {
    TAKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers a rig of this process.
pub fn remember(rig: &Path) {
    OWN.lock().unwrap_or_else(PoisonError::into_inner).push(rig.to_owned());
}

/// Lets go of one rig of this process.
pub fn forget(rig: &Path) {
    OWN.lock().unwrap_or_else(PoisonError::into_inner).retain(|own| own != rig);
    release(rig);
}

/// Lets go of all that this process holds: its last act after a signal. Nothing can be taken from then on.
pub fn release_own() {
    std::mem::forget(taking());
    for rig in OWN.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        release(&rig);
    }
}

/// Lets go of what killed runs have left, and says of which.
pub fn release_left_over() -> io::Result<Vec<PathBuf>> {
    let mut released = Vec::new();
    for entry in fs::read_dir(RIGS)? {
        let entry = entry?;
        let path = entry.path();
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if ours && entry.file_type()?.is_dir() && is_abandoned(&path) {
            release(&path);
            released.push(path);
        }
    }
    Ok(released)
}

/// Nobody holds its lock. A folder without one is perhaps being made just now.
fn is_abandoned(rig: &Path) -> bool {
    match File::open(rig.join(LOCK)) {
        Ok(lock) => flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(_) => fs::metadata(rig).and_then(|metadata| metadata.modified()).is_ok_and(|time| {
            SystemTime::now().duration_since(time).is_ok_and(|age| age > Duration::from_secs(60))
        }),
    }
}

/// Unmounts everything under a rig's folder, the latest first, detaches the loop devices on its files, and removes it.
fn release(rig: &Path) {
    debug_assert!(rig.starts_with(RIGS) && rig != Path::new(RIGS));
    // File systems, then devices, and only then what the devices lie on: a device whose file's mount is gone has lost its
    // name, and nobody would find it.
    let drives = rig.join(DRIVES);
    for mount in mounts_under(rig).iter().rev().filter(|mount| **mount != drives) {
        unmount(mount);
    }
    for device in loops_under(rig) {
        detach(&device);
    }
    for mount in mounts_under(&drives) {
        unmount(&mount);
    }
    if mounts_under(rig).is_empty() {
        // What remains is empty folders and a lock; a failure leaves them for the next run.
        let _left = fs::remove_dir_all(rig);
    }
}

/// A process that ends when nobody wants it any more.
#[derive(Debug)]
pub struct Owned(pub Child);

impl Owned {
    /// Kills it and waits for its end.
    ///
    /// # Errors
    ///
    /// Of the system.
    pub fn kill(&mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ended_already = self.kill();
    }
}

/// Unmounts; where somebody still has a file open the mount goes when they close it.
pub fn unmount(mount: &Path) {
    for _ in 0..20 {
        if quiet(Command::new("umount").arg(mount)) {
            return;
        }
        if !mounts_under(mount).iter().any(|each| each == mount) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    quiet(Command::new("umount").arg("-l").arg(mount));
}

/// Detaches a loop device from its file.
pub fn detach(device: &Path) {
    quiet(Command::new("losetup").arg("-d").arg(device));
}

fn quiet(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

/// Mount points at and below a folder, in the order in which they were mounted.
fn mounts_under(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(folder)).collect()
}

/// Loop devices on files below a folder.
fn loops_under(folder: &Path) -> Vec<PathBuf> {
    let Ok(blocks) = fs::read_dir("/sys/block") else { return Vec::new() };
    let devices = blocks.filter_map(Result::ok).filter(|block| {
        let file = fs::read_to_string(block.path().join("loop/backing_file"));
        file.is_ok_and(|file| Path::new(file.trim_end()).starts_with(folder))
    });
    devices.map(|block| Path::new("/dev").join(block.file_name())).collect()
}
