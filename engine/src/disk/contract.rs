//! What every [`Queue`] must do, tested on each.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sim::SimDisk;
use super::{
    Access, Chunk, Completion, Disk, File, Flush, Opening, Queue, QueueKind, SyncMethod, open,
};
use crate::sync::thread;

const BLOCK: usize = 4096;
const DEPTH: usize = 4;

fn each(test: impl Fn(&dyn Disk, SyncMethod)) {
    for method in [SyncMethod::WriteDsync, SyncMethod::WriteThenSync] {
        test(&*SimDisk::new(7), method);
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        for kind in kinds() {
            test(
                &*open(&root.path().join(format!("{kind:?}")), Opening::Create, kind).unwrap(),
                method,
            );
        }
    }
}

/// Both, unless this machine has no rings, which must be seen.
fn kinds() -> Vec<QueueKind> {
    let root = tempfile::tempdir_in("/var/tmp").unwrap();
    match open(root.path(), Opening::Existing, QueueKind::Uring) {
        Ok(_) => vec![QueueKind::Uring, QueueKind::Blocking],
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            assert!(
                !cfg!(target_os = "linux") || std::env::var_os("ANNALS_NO_URING").is_some(),
                "{error}"
            );
            vec![QueueKind::Blocking]
        }
    }
}

fn chunk(bytes: usize, fill: impl Fn(usize) -> u8) -> Arc<Chunk> {
    let mut chunk = Chunk::new(bytes).unwrap();
    chunk.get_mut().iter_mut().enumerate().for_each(|(at, byte)| *byte = fill(at));
    Arc::new(chunk)
}

fn prepared(disk: &dyn Disk, path: &str, bytes: usize) -> Arc<dyn File> {
    let _ = disk.remove(path);
    let file = disk.create(path).unwrap();
    file.prepare(bytes as u64).unwrap();
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    file
}

fn flush(
    token: u64,
    file: &Arc<dyn File>,
    at: usize,
    memory: &Arc<Chunk>,
    start: usize,
    bytes: usize,
) -> Flush {
    let (file, memory) = (Arc::clone(file), Arc::clone(memory));
    Flush { token, file, offset: at as u64, memory, start, bytes }
}

fn wait_for(queue: &mut dyn Queue, count: usize) -> Vec<Completion> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut completed = Vec::new();
    while completed.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} completed", completed.len());
        queue.wait(Some(Duration::from_secs(1)), &mut completed);
    }
    completed
}

#[test]
fn flushes_at_random_offsets_complete_and_are_there() {
    const BLOCKS: usize = 256;
    each(|disk, method| {
        let lock = disk.lock().unwrap();
        let mut queue = disk.queue(&lock, DEPTH, method).unwrap();
        let file = prepared(disk, "data", BLOCKS * BLOCK);
        // Several chunks, so that the tables of a ring overflow.
        let chunks: Vec<_> = (0..6)
            .map(|n| chunk(BLOCKS / 2 * BLOCK, |at| (at / BLOCK * 7 + n * 31 + 1) as u8))
            .collect();
        let mut expected = vec![0; BLOCKS * BLOCK];
        let mut seen = vec![false; BLOCKS];
        let (mut at, mut token, mut in_flight) = (0, 0_u64, 0);
        while at < BLOCKS {
            let blocks = (1 + token as usize % 5).min(BLOCKS - at);
            let source = &chunks[token as usize % chunks.len()];
            let start = (token as usize * 13 % (BLOCKS / 2 - 5)) * BLOCK;
            // Not in order: 77 is odd, so each block of 256 comes once.
            for block in 0..blocks {
                let to = (at + block) * 77 % BLOCKS * BLOCK;
                // SAFETY: nobody writes into it any more.
                let bytes =
                    unsafe { source.slice(start + block * BLOCK..start + (block + 1) * BLOCK) };
                expected[to..to + BLOCK].copy_from_slice(bytes);
                queue.start(flush(
                    (at + block) as u64,
                    &file,
                    to,
                    source,
                    start + block * BLOCK,
                    BLOCK,
                ));
                in_flight += 1;
                if in_flight == DEPTH {
                    for completion in wait_for(&mut *queue, 1) {
                        completion.result.unwrap();
                        assert!(!std::mem::replace(&mut seen[completion.token as usize], true));
                        in_flight -= 1;
                    }
                }
            }
            at += blocks;
            token += 1;
        }
        for completion in wait_for(&mut *queue, in_flight) {
            completion.result.unwrap();
            assert!(!std::mem::replace(&mut seen[completion.token as usize], true));
        }
        assert!(seen.iter().all(|&seen| seen));
        let mut bytes = vec![0; BLOCKS * BLOCK];
        file.read_direct_at(0, &mut bytes).unwrap();
        assert!(bytes == expected);
        // A large one over several files.
        for turn in 0..5 {
            let file = prepared(disk, "data", BLOCKS * BLOCK);
            queue.start(flush(turn, &file, BLOCK, &chunks[0], 0, 100 * BLOCK));
            wait_for(&mut *queue, 1).remove(0).result.unwrap();
            let mut bytes = vec![0; 100 * BLOCK];
            disk.open("data", Access::Read)
                .unwrap()
                .read_direct_at(BLOCK as u64, &mut bytes)
                .unwrap();
            // SAFETY: nobody writes into it any more.
            assert!(bytes == unsafe { chunks[0].slice(0..100 * BLOCK) });
        }
    });
}

#[test]
fn a_waker_ends_a_wait_also_one_that_comes_later() {
    each(|disk, method| {
        let lock = disk.lock().unwrap();
        let mut queue = disk.queue(&lock, DEPTH, method).unwrap();
        let mut completed = Vec::new();
        // Before the first wait.
        queue.waker().wake();
        let start = Instant::now();
        queue.wait(Some(Duration::from_secs(20)), &mut completed);
        // Between two.
        queue.waker().wake();
        queue.waker().wake();
        queue.wait(Some(Duration::from_secs(20)), &mut completed);
        assert!(start.elapsed() < Duration::from_secs(5));
        // During one, several times, each of which is answered. Two wakes at once may be one.
        let waker = queue.waker();
        let (answer, answered) = std::sync::mpsc::channel();
        let other = thread::spawn(move || {
            for _ in 0..20 {
                thread::sleep(Duration::from_millis(1));
                waker.wake();
                answered.recv_timeout(Duration::from_secs(10)).unwrap();
            }
        });
        for _ in 0..20 {
            let start = Instant::now();
            queue.wait(Some(Duration::from_secs(20)), &mut completed);
            assert!(start.elapsed() < Duration::from_secs(5));
            answer.send(()).unwrap();
        }
        other.join().unwrap();
        assert!(completed.is_empty());
        // And nothing is left of it: a wait that nobody ends lasts.
        let start = Instant::now();
        for _ in 0..3 {
            queue.wait(Some(Duration::from_millis(60)), &mut completed);
        }
        assert!(start.elapsed() >= Duration::from_millis(100), "{:?} {queue:?}", start.elapsed());
    });
}

#[test]
fn a_queue_works_on_the_thread_that_first_uses_it() {
    each(|disk, method| {
        let lock = disk.lock().unwrap();
        let mut queue = disk.queue(&lock, DEPTH, method).unwrap();
        let file = prepared(disk, "data", 4 * BLOCK);
        let memory = chunk(BLOCK, |_| 9);
        let thread = thread::spawn(move || {
            queue.start(flush(1, &file, BLOCK, &memory, 0, BLOCK));
            wait_for(&mut *queue, 1).remove(0).result.unwrap();
        });
        thread.join().unwrap();
        // Never used at all.
        drop(disk.queue(&lock, DEPTH, method).unwrap());
    });
}

#[test]
fn dropping_waits_for_what_is_in_flight() {
    each(|disk, method| {
        let lock = disk.lock().unwrap();
        let file = prepared(disk, "data", 64 * BLOCK);
        for turn in 1..=8_u8 {
            let mut queue = disk.queue(&lock, DEPTH, method).unwrap();
            let memory = chunk(16 * BLOCK, |_| turn);
            let watch = Arc::downgrade(&memory);
            for n in 0..DEPTH {
                queue.start(flush(n as u64, &file, n * 16 * BLOCK, &memory, 0, 16 * BLOCK));
            }
            drop(memory);
            drop(queue);
            assert!(watch.upgrade().is_none());
            let mut bytes = vec![0; 64 * BLOCK];
            file.read_direct_at(0, &mut bytes).unwrap();
            assert!(bytes.iter().all(|&b| b == turn));
        }
    });
}

#[test]
fn the_lock_is_held_until_every_queue_is_gone() {
    each(|disk, method| {
        let lock = disk.lock().unwrap();
        let mut queue = disk.queue(&lock, DEPTH, method).unwrap();
        queue.wait(Some(Duration::from_millis(1)), &mut Vec::new());
        drop(lock);
        assert_eq!(disk.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(queue);
        let start = Instant::now();
        let lock = disk.lock().unwrap();
        assert!(start.elapsed() < Duration::from_secs(1));
        disk.queue(&lock, DEPTH, method).unwrap();
    });
}

#[test]
fn what_can_not_be_flushed_fails_and_the_rest_goes_on() {
    each(|disk, method| {
        let lock = disk.lock().unwrap();
        let mut queue = disk.queue(&lock, DEPTH, method).unwrap();
        let file = prepared(disk, "data", 4 * BLOCK);
        let memory = chunk(2 * BLOCK, |_| 1);
        let read_only = disk.open("data", Access::Read).unwrap();
        queue.start(flush(1, &file, 0, &memory, BLOCK, 2 * BLOCK));
        queue.start(flush(2, &read_only, 0, &memory, 0, BLOCK));
        queue.start(flush(3, &file, 0, &memory, 0, BLOCK));
        let mut completed = wait_for(&mut *queue, 3);
        completed.sort_by_key(|completion| completion.token);
        let results: Vec<_> =
            completed.iter().map(|completion| completion.result.is_ok()).collect();
        assert_eq!(results, [false, false, true], "{completed:?}");
    });
}
