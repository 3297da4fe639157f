//! The process that serves drives: files of a FUSE file system, on which a rig puts loop devices.
//!
//! It is a process of its own, because whoever has a file open on a drive that it serves itself can't be killed: the
//! kernel waits for an answer that nobody can give any more. It ends when its standard input does.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request as Asked, TimeOrNow, WriteFlags,
};

use crate::control::{Counts, DriveId, Fault, Reply, Request};
use crate::device::{AtStake, Device, Policy};

/// The source of every mount that a rig makes of its drives.
pub const FUSE_SOURCE: &str = "annals-power";

/// The inode of the folder; drive *n* has inode *n* + 2.
const ROOT: u64 = 1;

/// A cut that comes just before a later request.
struct Later {
    requests: u64,
    policy: Policy,
    seed: u64,
}

struct Drive {
    device: Device,
    fault: Fault,
    later: Option<Later>,
    image: Option<(DriveId, AtStake)>,
}

impl Drive {
    fn new(device: Device) -> Drive {
        Drive { device, fault: Fault::None, later: None, image: None }
    }
}

#[derive(Default)]
struct Drives {
    drives: BTreeMap<DriveId, Drive>,
    made: u64,
    counts: Counts,
}

/// What is done with a request, decided before it is done.
enum Turn {
    Do,
    Fail,
    Wait(Duration),
    Lie,
}

impl Drives {
    fn add(&mut self, device: Device) -> DriveId {
        let id = DriveId(self.made);
        self.made += 1;
        self.drives.insert(id, Drive::new(device));
        id
    }

    fn drive(&mut self, id: DriveId) -> Result<&mut Drive, String> {
        self.drives.get_mut(&id).ok_or_else(|| format!("there is no {}", id.file_name()))
    }

    /// Takes the later cut if its time has come.
    fn tick(&mut self, id: DriveId) {
        let Some(drive) = self.drives.get_mut(&id) else { return };
        match &mut drive.later {
            Some(later) if later.requests > 0 => later.requests -= 1,
            Some(later) if drive.device.has_unsynced() => {
                let (device, stake) = drive.device.cut(later.policy, later.seed);
                drive.later = None;
                let image = self.add(device);
                if let Some(drive) = self.drives.get_mut(&id) {
                    drive.image = Some((image, stake));
                }
            }
            Some(_) | None => {}
        }
    }

    fn turn(&mut self, id: DriveId, flush: bool) -> Turn {
        self.tick(id);
        let counts = &mut self.counts;
        let Some(drive) = self.drives.get_mut(&id) else { return Turn::Fail };
        let (after, times, failed) = match (&mut drive.fault, flush) {
            (Fault::FailWrites { after, times }, false) => {
                (after, times, &mut counts.failed_writes)
            }
            (Fault::FailFlushes { after, times }, true) => {
                (after, times, &mut counts.failed_flushes)
            }
            (Fault::Slow { millis }, _) => {
                counts.delayed += 1;
                return Turn::Wait(Duration::from_millis(*millis));
            }
            (Fault::Lie, true) => {
                counts.lies += 1;
                return Turn::Lie;
            }
            _ => return Turn::Do,
        };
        if *after > 0 {
            *after -= 1;
            return Turn::Do;
        }
        if *times == 0 {
            return Turn::Do;
        }
        *times -= 1;
        *failed += 1;
        Turn::Fail
    }

    /// Whether a read goes well.
    fn may_read(&mut self, id: DriveId) -> bool {
        let fault = self.drives.get_mut(&id).map(|drive| &mut drive.fault);
        match fault {
            Some(Fault::FailReads { after: 0 }) => {
                self.counts.failed_reads += 1;
                false
            }
            Some(Fault::FailReads { after }) => {
                *after -= 1;
                true
            }
            Some(_) => true,
            None => false,
        }
    }

    fn answer(&mut self, request: Request) -> Result<Reply, String> {
        Ok(match request {
            Request::Create { bytes } => Reply::Drive(self.add(Device::new(bytes))),
            Request::Load { path } => {
                let device = load(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                Reply::Drive(self.add(device))
            }
            Request::Cut { drive, policy, seed } => {
                let (device, stake) = self.drive(drive)?.device.cut(policy, seed);
                Reply::Image(self.add(device), stake)
            }
            Request::CutLater { drive, requests, policy, seed } => {
                let drive = self.drive(drive)?;
                drive.image = None;
                drive.later = Some(Later { requests, policy, seed });
                Reply::Done
            }
            Request::Collect { drive, last } => {
                let drive = self.drive(drive)?;
                drive.later = drive.later.take().filter(|_| !last);
                drive.image.take().map_or(Reply::NoImage, |(id, stake)| Reply::Image(id, stake))
            }
            Request::Misbehave { drive, fault } => {
                self.drive(drive)?.fault = fault;
                Reply::Done
            }
            Request::Save { drive, path } => {
                save(&self.drive(drive)?.device, &path)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                Reply::Done
            }
            Request::Remove { drive } => {
                self.drives.remove(&drive);
                Reply::Done
            }
            Request::Count => Reply::Counts(self.counts),
        })
    }
}

fn save(device: &Device, path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.set_len(device.bytes())?;
    for (offset, page) in device.durable_pages() {
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(page)?;
    }
    file.sync_all()
}

fn load(path: &Path) -> io::Result<Device> {
    let mut file = File::open(path)?;
    let mut device = Device::new(file.metadata()?.len());
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            device.flush();
            return Ok(device);
        }
        device.write(offset, &buffer[..length]);
        offset += length as u64;
    }
}

/// The drives as a file system.
struct Served(Arc<Mutex<Drives>>);

impl Served {
    fn lock(&self) -> MutexGuard<'_, Drives> {
        lock(&self.0)
    }

    fn attributes(&self, inode: u64) -> Option<FileAttr> {
        let size = match inode {
            ROOT => 0,
            _ => self.lock().drives.get(&drive_of(inode)?)?.device.bytes(),
        };
        let folder = inode == ROOT;
        Some(FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if folder { FileType::Directory } else { FileType::RegularFile },
            perm: if folder { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        })
    }
}

/// A panic elsewhere has left the drives as a power cut would: nothing is half done under the lock.
fn lock(drives: &Mutex<Drives>) -> MutexGuard<'_, Drives> {
    drives.lock().unwrap_or_else(PoisonError::into_inner)
}

fn drive_of(inode: u64) -> Option<DriveId> {
    inode.checked_sub(2).map(DriveId)
}

/// How long the kernel may believe an attribute: not at all, since drives come and go.
const NO_TIME: Duration = Duration::ZERO;

impl Filesystem for Served {
    fn lookup(&self, _: &Asked, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = name.to_str().and_then(|name| name.strip_prefix("drive-"));
        let inode = number.and_then(|number| number.parse::<u64>().ok()).map(|number| number + 2);
        match inode.and_then(|inode| self.attributes(inode)) {
            Some(attributes) => reply.entry(&NO_TIME, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Asked, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode.0) {
            Some(attributes) => reply.attr(&NO_TIME, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Asked,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.attributes(inode.0) {
            Some(attributes) => reply.attr(&NO_TIME, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Asked, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // No page cache of the kernel's: what a drive has answered is all there is.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Asked,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut drives = self.lock();
        let id = drive_of(inode.0).filter(|id| drives.may_read(*id));
        let Some(Ok(drive)) = id.map(|id| drives.drive(id)) else {
            return reply.error(Errno::EIO);
        };
        let left = drive.device.bytes().saturating_sub(offset);
        let mut bytes = vec![0; u64::from(size).min(left) as usize];
        drive.device.read(offset, &mut bytes);
        drop(drives);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Asked,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(id) = drive_of(inode.0) else { return reply.error(Errno::EIO) };
        let turn = self.lock().turn(id, false);
        match turn {
            Turn::Fail => return reply.error(Errno::EIO),
            Turn::Wait(time) => thread::sleep(time),
            Turn::Do | Turn::Lie => {}
        }
        let mut drives = self.lock();
        drives.counts.writes += 1;
        match drives.drive(id) {
            Ok(drive) if drive.device.has(offset, data.len()) => {
                drive.device.write(offset, data);
                drop(drives);
                reply.written(data.len() as u32);
            }
            Ok(_) => reply.error(Errno::ENOSPC),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _: &Asked, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let Some(id) = drive_of(inode.0) else { return reply.error(Errno::EIO) };
        let turn = self.lock().turn(id, true);
        match turn {
            Turn::Fail => return reply.error(Errno::EIO),
            Turn::Lie => return reply.ok(),
            Turn::Wait(time) => thread::sleep(time),
            Turn::Do => {}
        }
        let mut drives = self.lock();
        drives.counts.flushes += 1;
        match drives.drive(id) {
            Ok(drive) => {
                drive.device.flush();
                drop(drives);
                reply.ok();
            }
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn flush(&self, _: &Asked, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing a file is no flush of the drive.
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Asked,
        _: INodeNo,
        _: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        // No discards and no quick zeros: zeros are written, and can be lost like other bytes.
        reply.error(Errno::ENOSYS);
    }
}

/// Serves drives under a folder until standard input ends.
///
/// # Errors
///
/// If the file system can't be mounted, or nobody hears the answers.
pub fn serve(mount: &Path) -> io::Result<()> {
    let drives = Arc::new(Mutex::new(Drives::default()));
    let mut config = Config::default();
    config.mount_options.push(MountOption::FSName(FUSE_SOURCE.to_owned()));
    let session = fuser::spawn_mount(Served(Arc::clone(&drives)), mount, &config)?;
    let mut output = io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(&Reply::Done)?)?;
    output.flush()?;
    for line in io::stdin().lock().lines() {
        let reply = match serde_json::from_str(&line?) {
            Ok(request) => lock(&drives).answer(request).unwrap_or_else(Reply::Failed),
            Err(error) => Reply::Failed(error.to_string()),
        };
        writeln!(output, "{}", serde_json::to_string(&reply)?)?;
        output.flush()?;
    }
    // The mount stays: it gives the devices on the drives their names, by which the next run lets go of them.
    std::mem::forget(session);
    Ok(())
}
