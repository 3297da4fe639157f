//! The loop over io_uring: one thread and a ring set up as the engine's, so many requests in flight.

use std::{
    io, mem,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use io_uring::{
    IoUring, opcode,
    squeue::{Entry, Flags},
    types::{Fixed, FsyncFlags},
};

use super::{Action, Buffer, Clock, Load, Target, Turn, nanos};
use crate::measure::histogram;

/// Works for a while with the same bytes in every request. All that was started is waited for.
pub(super) fn turn(
    target: &Target,
    load: Load,
    duration: Duration,
    offset: &mut u64,
) -> io::Result<Turn> {
    let mut clock = None;
    let mut more = |_: &mut [u8]| {
        let clock = clock.get_or_insert_with(|| Clock::start(duration));
        !clock.is_over(Instant::now())
    };
    run(target, load, offset, &mut more)
}

/// Writes what `fill` puts into each request's buffer, until it says `false`; waits for all of them.
///
/// # Errors
///
/// What the system says: that rings can't be had, or that a write failed.
pub fn write_with(
    target: &Target,
    load: Load,
    fill: &mut dyn FnMut(&mut [u8]) -> bool,
) -> io::Result<Turn> {
    run(target, load, &mut 0, fill)
}

/// A request in flight.
struct Request {
    begin: Instant,
    /// Entries of it that have not completed.
    entries: u8,
}

fn run(
    target: &Target,
    load: Load,
    offset: &mut u64,
    fill: &mut dyn FnMut(&mut [u8]) -> bool,
) -> io::Result<Turn> {
    let mut buffers: Vec<Buffer> = (0..load.depth).map(|_| Buffer::random(load.bytes)).collect();
    let mut ring = ring(load.depth as u32 * 2)?;
    ring.submitter().register_files(&[target.file().as_raw_fd()])?;
    let registered = register(&ring, &mut buffers);
    let mut requests: Vec<Option<Request>> = (0..load.depth).map(|_| None).collect();
    let mut latency = histogram::empty();
    let mut failure = None;
    let mut free: Vec<usize> = (0..load.depth).rev().collect();
    let mut more = true;
    let begin = Instant::now();
    let mut end = begin;
    loop {
        while more && let Some(slot) = free.pop() {
            more = fill(buffers[slot].bytes_mut());
            if !more {
                free.push(slot);
                break;
            }
            let at = target.next(offset, load.bytes);
            let entries = entries(load, &mut buffers[slot], at, slot, registered);
            requests[slot] = Some(Request { begin: Instant::now(), entries: entries.len() as u8 });
            // SAFETY: buffer and file outlive the loop, which ends when nothing is in flight; and a buffer is not touched
            // before all entries of its request have completed.
            let pushed = unsafe { ring.submission().push_multiple(&entries) };
            pushed
                .map_err(|_| io::Error::other("the ring has no room for what it was made for"))?;
        }
        if free.len() == load.depth {
            break;
        }
        if let Err(error) = ring.submit_and_wait(1) {
            match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => continue,
                // What is in flight may still use the memory.
                _ => {
                    mem::forget(buffers);
                    return Err(error);
                }
            }
        }
        let now = Instant::now();
        for completion in ring.completion() {
            let slot = (completion.user_data() >> 1) as usize;
            let is_sync = completion.user_data() & 1 == 1;
            let verdict = verdict(completion.result(), if is_sync { 0 } else { load.bytes });
            failure = failure.or(verdict.err());
            let Some(request) = &mut requests[slot] else { continue };
            request.entries -= 1;
            if request.entries == 0 {
                latency.saturating_record(nanos(request.begin, now));
                requests[slot] = None;
                free.push(slot);
                end = now;
            }
        }
        more &= failure.is_none();
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(Turn { requests: latency.len(), elapsed: end - begin, latency }),
    }
}

/// A ring as the engine makes it, or as an older kernel allows.
fn ring(entries: u32) -> io::Result<IoUring> {
    let modern = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries);
    match modern {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(entries),
        other => other,
    }
}

/// Whether the memory-lock limit allows the buffers to be registered.
fn register(ring: &IoUring, buffers: &mut [Buffer]) -> bool {
    let vectors: Vec<libc::iovec> = buffers
        .iter_mut()
        .map(|buffer| {
            let bytes = buffer.bytes_mut();
            libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
        })
        .collect();
    // SAFETY: the memory is valid now, which is when the kernel takes hold of its pages; what is written into it later goes
    // through requests, whose memory is alive.
    unsafe { ring.submitter().register_buffers(&vectors) }.is_ok()
}

/// The entries of one request: the write or read, and the sync linked to it.
fn entries(load: Load, buffer: &mut Buffer, at: u64, slot: usize, registered: bool) -> Vec<Entry> {
    let file = Fixed(0);
    let bytes = buffer.bytes_mut();
    let (start, length) = (bytes.as_mut_ptr(), bytes.len() as u32);
    let number = slot as u16;
    let flags = if load.action == Action::WriteDsync { libc::RWF_DSYNC } else { 0 };
    let entry = match (load.action, registered) {
        (Action::Read, true) => {
            opcode::ReadFixed::new(file, start, length, number).offset(at).build()
        }
        (Action::Read, false) => opcode::Read::new(file, start, length).offset(at).build(),
        (_, true) => {
            opcode::WriteFixed::new(file, start, length, number).offset(at).rw_flags(flags).build()
        }
        (_, false) => opcode::Write::new(file, start, length).offset(at).rw_flags(flags).build(),
    };
    let entry = entry.user_data((slot as u64) << 1);
    if load.action != Action::WriteThenSync {
        return vec![entry];
    }
    let sync = opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build();
    vec![entry.flags(Flags::IO_LINK), sync.user_data((slot as u64) << 1 | 1)]
}

/// What a completion says: it must have moved all bytes.
fn verdict(result: i32, expected: usize) -> io::Result<()> {
    match usize::try_from(result) {
        Err(_) => Err(io::Error::from_raw_os_error(-result)),
        Ok(moved) if moved == expected => Ok(()),
        Ok(moved) => Err(short(expected, moved)),
    }
}

/// A request that moved fewer bytes than it was for. The engine goes on with the rest; a measurement has gone wrong.
pub(super) fn short(expected: usize, moved: usize) -> io::Error {
    io::Error::other(format!(
        "a request moved {moved} bytes, expected {expected}: is the disk full?"
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn every_filled_buffer_lands_where_it_belongs() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        for action in [Action::WriteDsync, Action::WriteThenSync] {
            let path = dir.path().join(format!("{action:?}"));
            let target = Target::create(&path, 64 * 8192).unwrap();
            let mut filled = 0_u8;
            let load = Load { action, depth: 4, bytes: 8192 };
            let turn = write_with(&target, load, &mut |bytes| {
                filled += 1;
                bytes.fill(filled);
                filled <= 50
            });
            let turn = turn.unwrap();
            assert_eq!((turn.requests, turn.latency.len()), (50, 50));
            let mut buffer = Buffer::zeroed(8192);
            for place in 0..64_u64 {
                target.file().read_exact_at(buffer.bytes_mut(), place * 8192).unwrap();
                let expected = if place < 50 { place as u8 + 1 } else { 0 };
                assert!(buffer.bytes().iter().all(|byte| *byte == expected), "{action:?} {place}");
            }
        }
    }

    #[test]
    fn what_is_short_or_fails_is_an_error() {
        assert!(verdict(4096, 4096).is_ok());
        assert!(verdict(0, 0).is_ok());
        assert!(verdict(512, 4096).unwrap_err().to_string().contains("512"));
        assert_eq!(verdict(-libc::EIO, 4096).unwrap_err().raw_os_error(), Some(libc::EIO));
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let target = Target::create(&dir.path().join("file"), 1 << 20).unwrap();
        target.file().set_len(4096).unwrap();
        let load = Load { action: Action::Read, depth: 2, bytes: 65_536 };
        assert!(turn(&target, load, Duration::from_secs(60), &mut 0).is_err());
    }
}
