//! A rig: a process that serves drives, loop devices on the drives, file systems on the devices.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};

use crate::control::{Counts, DriveId, Fault, Reply, Request};
use crate::device::{AtStake, Policy};
use crate::release::{self, DRIVES, LOCK, PREFIX, RIGS};

/// A file system to put a store on.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum FileSystem {
    /// The usual one.
    Ext4,
    /// Needs `mkfs.xfs`.
    Xfs,
    /// Needs `mkfs.btrfs`. Never writes in place, so a prepared segment guarantees no space.
    Btrfs,
}

impl FileSystem {
    /// The name that `mount` knows.
    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
            FileSystem::Btrfs => "btrfs",
        }
    }

    /// The smallest that it can be made in, with some room.
    fn bytes(self) -> u64 {
        match self {
            FileSystem::Ext4 => 96 << 20,
            FileSystem::Xfs => 320 << 20,
            FileSystem::Btrfs => 256 << 20,
        }
    }

    fn make(self, device: &Path) -> Command {
        let mut command = Command::new(format!("mkfs.{}", self.name()));
        match self {
            // Nothing is left for the kernel to initialise behind the store's back.
            FileSystem::Ext4 => command
                .args(["-q", "-F", "-b", "4096", "-m", "0", "-E"])
                .arg("lazy_itable_init=0,lazy_journal_init=0,nodiscard"),
            FileSystem::Xfs => command.args(["-q", "-f", "-K"]),
            // Mixed: on so small a device space that data gave back would never serve for a file's name.
            FileSystem::Btrfs => command.args(["-q", "-f", "-K", "-M"]),
        };
        command.arg(device);
        command
    }

    fn mount_options(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "noatime,errors=remount-ro",
            // Images of one file system have one identity.
            FileSystem::Xfs => "noatime,nouuid",
            FileSystem::Btrfs => "noatime",
        }
    }
}

/// A command's failure, in its own words.
pub fn run(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {error}", command.get_program().display()))
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{command:?}: {}", said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[derive(Debug)]
struct Server {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Everything that one run holds of the machine. All of it is let go when this is dropped.
#[derive(Debug)]
pub struct Rig {
    folder: PathBuf,
    /// Says to other runs that this one lives.
    _lock: File,
    server: Mutex<Server>,
    mounts: AtomicU64,
}

/// A drive with a file system on it, mounted. Unmounted when this is dropped.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    device: Option<PathBuf>,
}

impl Mounted {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The device under it, if it has one.
    pub fn device(&self) -> Option<&Path> {
        self.device.as_deref()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        release::unmount(&self.path);
        if let Some(device) = &self.device {
            release::detach(device);
        }
    }
}

impl Rig {
    /// A rig without drives. What killed runs have left is let go first.
    pub fn new() -> io::Result<Rig> {
        for left in release::release_left_over()? {
            tell(&format!("let go of what an earlier run left: {}", left.display()));
        }
        // Under another name until it is locked: what has this one and no lock is a left-over.
        let making =
            tempfile::Builder::new().prefix(&format!(".{PREFIX}")).tempdir_in(RIGS)?.keep();
        let lock = File::create(making.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let name = making.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let folder = Path::new(RIGS).join(name.trim_start_matches('.'));
        std::fs::rename(&making, &folder)?;
        release::remember(&folder);
        match serve_in(&folder) {
            Ok(server) => Ok(Rig {
                folder,
                _lock: lock,
                server: Mutex::new(server),
                mounts: AtomicU64::new(0),
            }),
            Err(error) => {
                release::forget(&folder);
                Err(error)
            }
        }
    }

    /// Its folder, which goes when it goes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn ask(&self, request: &Request) -> io::Result<Reply> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(server.asks, "{}", serde_json::to_string(request)?)?;
        match answer(&mut server.answers)? {
            Reply::Failed(why) => Err(io::Error::other(why)),
            reply => Ok(reply),
        }
    }

    fn ask_for_drive(&self, request: &Request) -> io::Result<DriveId> {
        match self.ask(request)? {
            Reply::Drive(drive) => Ok(drive),
            reply => Err(unexpected(&reply)),
        }
    }

    /// A drive with an empty file system on it.
    pub fn make(&self, file_system: FileSystem) -> io::Result<DriveId> {
        let drive = self.ask_for_drive(&Request::Create { bytes: file_system.bytes() })?;
        let _taking = release::taking();
        let device = self.attach(drive)?;
        let made = run(&mut file_system.make(&device));
        release::detach(&device);
        made.map(|_| drive)
    }

    /// A drive with what a file holds.
    pub fn load(&self, path: &Path) -> io::Result<DriveId> {
        self.ask_for_drive(&Request::Load { path: path.to_owned() })
    }

    /// What a power cut leaves now.
    pub fn cut(&self, drive: DriveId, policy: Policy, seed: u64) -> io::Result<(DriveId, AtStake)> {
        match self.ask(&Request::Cut { drive, policy, seed })? {
            Reply::Image(image, stake) => Ok((image, stake)),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Cuts the power just before the write or flush that comes after so many, if something is at stake then, or else
    /// before the first at which something is.
    pub fn cut_later(
        &self,
        drive: DriveId,
        requests: u64,
        policy: Policy,
        seed: u64,
    ) -> io::Result<()> {
        self.ask(&Request::CutLater { drive, requests, policy, seed }).map(drop)
    }

    /// The image of the later cut, if it has come. If it was asked for the last time there won't be one.
    pub fn collect(&self, drive: DriveId, last: bool) -> io::Result<Option<(DriveId, AtStake)>> {
        match self.ask(&Request::Collect { drive, last })? {
            Reply::Image(image, stake) => Ok(Some((image, stake))),
            Reply::NoImage => Ok(None),
            reply => Err(unexpected(&reply)),
        }
    }

    /// From now on the drive has this fault.
    pub fn misbehave(&self, drive: DriveId, fault: Fault) -> io::Result<()> {
        self.ask(&Request::Misbehave { drive, fault }).map(drop)
    }

    /// Writes what is durable on a drive into a sparse file.
    pub fn save(&self, drive: DriveId, path: &Path) -> io::Result<()> {
        self.ask(&Request::Save { drive, path: path.to_owned() }).map(drop)
    }

    /// Forgets a drive.
    pub fn remove(&self, drive: DriveId) -> io::Result<()> {
        self.ask(&Request::Remove { drive }).map(drop)
    }

    /// What its drives went through.
    pub fn counts(&self) -> io::Result<Counts> {
        match self.ask(&Request::Count)? {
            Reply::Counts(counts) => Ok(counts),
            reply => Err(unexpected(&reply)),
        }
    }

    fn attach(&self, drive: DriveId) -> io::Result<PathBuf> {
        let file = self.folder.join(DRIVES).join(drive.file_name());
        let mut losetup = Command::new("losetup");
        losetup.args(["--direct-io=on", "-f", "--show"]).arg(file);
        // Somebody else may have taken the free device in between.
        let device = run(&mut losetup).or_else(|_| run(&mut losetup))?;
        Ok(PathBuf::from(device))
    }

    fn mount_point(&self) -> io::Result<PathBuf> {
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("mount-{number}"));
        std::fs::create_dir(&path)?;
        Ok(path)
    }

    /// Mounts a drive. The file system first takes up what its journal says.
    pub fn mount(&self, drive: DriveId, file_system: FileSystem) -> io::Result<Mounted> {
        let _taking = release::taking();
        let mounted = Mounted { path: self.mount_point()?, device: Some(self.attach(drive)?) };
        let mut mount = Command::new("mount");
        mount.args(["-t", file_system.name(), "-o", file_system.mount_options()]);
        mount.args(mounted.device()).arg(mounted.path());
        run(&mut mount)?;
        Ok(mounted)
    }

    /// A file system in memory that holds so many bytes.
    pub fn mount_memory(&self, bytes: u64) -> io::Result<Mounted> {
        let _taking = release::taking();
        let mounted = Mounted { path: self.mount_point()?, device: None };
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "annals-power"]);
        run(mount.arg(mounted.path()))?;
        Ok(mounted)
    }

    /// Kills the process that serves the drives: as if the cable were pulled.
    pub fn pull_the_cable(&self) -> io::Result<()> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        server.child.kill()?;
        server.child.wait().map(drop)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        release::forget(&self.folder);
        let server = self.server.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Nothing is mounted on its drives any more, or nothing that can be helped.
        let _dead = server.child.kill();
        let _reaped = server.child.wait();
    }
}

fn serve_in(folder: &Path) -> io::Result<Server> {
    let drives = folder.join(DRIVES);
    std::fs::create_dir(&drives)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("drives").arg(&drives);
    // A group of its own: Ctrl-C is for the run, which lets go in order.
    let mut child =
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let missing = || io::Error::other("a child without pipes");
    let asks = child.stdin.take().ok_or_else(missing)?;
    let mut answers = BufReader::new(child.stdout.take().ok_or_else(missing)?);
    match answer(&mut answers)? {
        Reply::Done => Ok(Server { child, asks, answers }),
        reply => Err(unexpected(&reply)),
    }
}

fn answer(answers: &mut BufReader<ChildStdout>) -> io::Result<Reply> {
    let mut line = String::new();
    if answers.read_line(&mut line)? == 0 {
        return Err(io::Error::other("the process that serves the drives has ended"));
    }
    Ok(serde_json::from_str(&line)?)
}

fn unexpected(reply: &Reply) -> io::Error {
    io::Error::other(format!("the process that serves the drives said {reply:?}"))
}

/// A line for whoever watches; nobody may be there.
pub fn tell(what: &str) {
    let _unread = writeln!(io::stderr(), "{what}");
}
