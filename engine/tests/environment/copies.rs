//! Copies: of one file, of some files, of all of them from earlier, and while the store is in use.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use annals::{ErrorKind, Event, Expect};

use crate::common::{audit, directory, numbered, small};
use crate::images::{WRITES, check, check_whole, copy, fill, filled, refused, segments};

#[test]
fn one_file_from_an_earlier_copy_is_corruption() {
    let dir = directory();
    let store = small().open(dir.path()).unwrap();
    let mut earlier = Vec::new();
    for number in 0..WRITES {
        fill(&store, number..number + 1);
        let newest = segments(dir.path()).pop().unwrap();
        earlier.push((newest.clone(), fs::read(&newest).unwrap()));
    }
    drop(store);
    let mut refusals = 0;
    for (path, bytes) in &earlier {
        // One that was prepared and never used is gone.
        let Ok(now) = fs::read(path) else { continue };
        let used = bytes.len().min(now.len());
        if bytes[..used] == now[..used] {
            // What the file has lost since is what was prepared and never used.
            continue;
        }
        fs::write(path, bytes).unwrap();
        if segments(dir.path()).last() != Some(path) {
            let error = refused(dir.path(), &small());
            check(&error, ErrorKind::Corrupt, 4002, &[".seg"]);
            refusals += 1;
        }
        fs::write(path, now).unwrap();
    }
    assert!(refusals > 10, "{refusals}");
    assert_eq!(check_whole(dir.path()).len() as u64, WRITES);
}

/// A log has no list of its files elsewhere: what ends earlier, and is whole, is what the store was then. Only who has seen more
/// can tell.
#[test]
fn a_whole_copy_from_earlier_is_told_by_those_who_had_seen_more() {
    let dir = filled();
    let other = directory();
    copy(dir.path(), other.path());
    let store = small().open(dir.path()).unwrap();
    fill(&store, WRITES..WRITES + 20);
    let seen = store.stats().shards[0].end;
    drop(store);
    // Restored over the newer one.
    let older = small().open(other.path()).unwrap();
    assert_eq!(audit(&older).len() as u64, WRITES);
    let error = older.subscribe(0).from(seen).next().unwrap().unwrap_err();
    check(&error, ErrorKind::Invalid, 1001, &["the store is perhaps an older copy"]);
}

#[test]
fn without_its_newest_segment_a_store_is_whole_or_refused_and_never_has_a_gap() {
    let original = filled();
    let count = segments(original.path()).len();
    let (mut whole, mut refusals) = (0, 0);
    for missing in 0..count {
        let dir = directory();
        copy(original.path(), dir.path());
        fs::remove_file(&segments(dir.path())[missing]).unwrap();
        match small().open(dir.path()) {
            Ok(store) => {
                // Each version that is there follows on the one before: `audit` looks.
                let numbers: Vec<u64> = audit(&store).iter().map(|write| write.number()).collect();
                assert!(numbers.iter().copied().eq(0..numbers.len() as u64));
                assert_eq!(missing, count - 1, "only the newest can't be missed");
                whole += 1;
            }
            Err(error) => {
                check(&error, ErrorKind::Corrupt, 4002, &["missing"]);
                refusals += 1;
            }
        }
    }
    assert_eq!((whole, refusals), (1, count - 1));
}

/// Copied file by file without stopping, a store is at least what it was when the copying began, or it is refused.
#[test]
fn a_copy_taken_while_it_is_used_loses_nothing_silently() {
    let dir = directory();
    let store = small().open(dir.path()).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let durable = Arc::new(AtomicU64::new(0));
    let writer = thread::spawn({
        let (store, over, durable) = (store.clone(), Arc::clone(&over), Arc::clone(&durable));
        move || {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                let large = Event::new("Large", vec![9u8; 8_000]);
                let ticket = store.append("a", Expect::Version(number), [numbered(number), large]);
                ticket.unwrap().wait().unwrap();
                number += 1;
                durable.store(number, Ordering::Release);
            }
        }
    });
    let (mut opened, mut refusals) = (0, 0);
    for _ in 0..12 {
        let before = durable.load(Ordering::Acquire);
        while durable.load(Ordering::Acquire) < before + 40 {
            thread::yield_now();
        }
        let begun = durable.load(Ordering::Acquire);
        let other = directory();
        copy(dir.path(), other.path());
        match small().open(other.path()) {
            Ok(copied) => {
                let numbers: Vec<u64> = audit(&copied).iter().map(|write| write.number()).collect();
                assert!(numbers.iter().copied().eq(0..numbers.len() as u64));
                assert!(numbers.len() as u64 >= begun, "{} of {begun}", numbers.len());
                opened += 1;
            }
            Err(error) => {
                check(&error, ErrorKind::Corrupt, 4002, &[".seg"]);
                refusals += 1;
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(opened + refusals, 12);
    assert!(opened > 0, "none of the copies opens");
}
