//! The loop of threads that block: one for each request in flight.

use std::{
    io::{self, IoSlice},
    os::unix::fs::FileExt,
    sync::{
        Barrier, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rustix::io::ReadWriteFlags;

use super::{Action, Buffer, Clock, Load, Target, Turn, nanos};
use crate::measure::histogram;

/// Works for a while. All that was started is waited for.
pub(super) fn turn(
    target: &Target,
    load: Load,
    duration: Duration,
    offset: &mut u64,
) -> io::Result<Turn> {
    let next = Mutex::new(offset);
    let failed = AtomicBool::new(false);
    let ready = Barrier::new(load.depth);
    let work = || -> io::Result<(Instant, Instant, Histogram<u64>)> {
        let mut buffer = Buffer::random(load.bytes);
        let mut latency = histogram::empty();
        ready.wait();
        let clock = Clock::start(duration);
        let mut now = clock.begin;
        while !clock.is_over(now) && !failed.load(Ordering::Relaxed) {
            let at =
                target.next(&mut next.lock().unwrap_or_else(PoisonError::into_inner), load.bytes);
            let begin = Instant::now();
            request(target, load.action, &mut buffer, at)
                .inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            now = Instant::now();
            latency.saturating_record(nanos(begin, now));
        }
        Ok((clock.begin, now, latency))
    };
    let parts: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..load.depth).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<io::Result<_>>()
    })?;
    let mut latency = histogram::empty();
    for (_, _, part) in &parts {
        latency.add(part).map_err(io::Error::other)?;
    }
    let begin = parts.iter().map(|part| part.0).min();
    let end = parts.iter().map(|part| part.1).max();
    let elapsed = begin.zip(end).map_or(Duration::ZERO, |(begin, end)| end - begin);
    Ok(Turn { requests: latency.len(), elapsed, latency })
}

fn request(target: &Target, action: Action, buffer: &mut Buffer, at: u64) -> io::Result<()> {
    let file = target.file();
    match action {
        Action::Read => file.read_exact_at(buffer.bytes_mut(), at),
        Action::WriteThenSync => {
            file.write_all_at(buffer.bytes(), at)?;
            file.sync_data()
        }
        Action::WriteDsync => {
            let written = loop {
                let bytes = [IoSlice::new(buffer.bytes())];
                match rustix::io::pwritev2(file, &bytes, at, ReadWriteFlags::DSYNC) {
                    Err(rustix::io::Errno::INTR) => {}
                    result => break result?,
                }
            };
            let expected = buffer.bytes().len();
            if written == expected { Ok(()) } else { Err(super::uring::short(expected, written)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_action_moves_the_bytes() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let target = Target::create(&dir.path().join("file"), 8 << 12).unwrap();
        for action in [Action::WriteDsync, Action::WriteThenSync] {
            let mut given = Buffer::random(4096);
            given.bytes_mut()[0] = action as u8 + 1;
            request(&target, action, &mut given, 8192).unwrap();
            let mut found = Buffer::zeroed(4096);
            request(&target, Action::Read, &mut found, 8192).unwrap();
            assert!(found.bytes() == given.bytes(), "{action:?}");
        }
        assert!(request(&target, Action::Read, &mut Buffer::zeroed(4096), 8 << 12).is_err());
    }

    #[test]
    fn every_thread_takes_part() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let target = Target::create(&dir.path().join("file"), 1 << 20).unwrap();
        let load = Load { action: Action::WriteDsync, depth: 4, bytes: 4096 };
        let mut offset = 0;
        let turn = turn(&target, load, Duration::from_millis(5), &mut offset).unwrap();
        assert!(turn.requests >= 4);
        assert_eq!(turn.requests, turn.latency.len());
    }
}
