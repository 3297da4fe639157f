//! No space: a full file system, and a limit on the length of files. Writes are refused before anything of them is queued, and
//! go on when there is space again, without opening anew.

use std::fs;
use std::path::Path;

use annals::{ErrorKind, Event, Expect, Options, Store};

use crate::common::{audit, directory, numbered, small};
use crate::images::{check, check_sound, image};
use crate::role::{limit, mount_alone, mount_memory, play, say};

/// Appends until that is refused. Returns how many are durable now.
fn append_until_full(store: &Store, from: u64) -> u64 {
    let data = vec![7u8; 60_000];
    for number in from.. {
        let large = Event::new("Large", data.as_slice());
        match store.append("a", Expect::Version(number), [numbered(number), large]) {
            Ok(ticket) => assert_eq!(ticket.wait().unwrap().version(), number + 1),
            Err(error) => {
                check(&error, ErrorKind::Full, 3002, &["segment"]);
                assert!(std::error::Error::source(&error).is_some(), "it has what the system said");
                return number;
            }
        }
        assert!(number < 10_000, "never full");
    }
    unreachable!("the loop ends by itself")
}

fn fill_twice(path: &Path, make_space: impl FnOnce()) {
    let store = small().open(path).unwrap();
    let first = append_until_full(&store, 0);
    assert!(first > 10, "{first}");
    // Nothing has stopped, and nothing of what was refused is there.
    assert_eq!(store.stats().shards[0].stopped, None);
    assert_eq!(store.version_accepted("a").unwrap(), first);
    let error =
        store.try_append("a", Expect::Any, [Event::new("E", vec![1u8; 60_000])]).unwrap_err();
    check(&error, ErrorKind::Full, 3002, &[]);
    assert_eq!(audit(&store).len() as u64, first);
    make_space();
    let second = append_until_full(&store, first);
    assert!(second > first, "it goes on by itself: {first}, {second}");
    drop(store);
    assert_eq!(audit(&small().open(path).unwrap()).len() as u64, second);
    check_sound(path);
}

/// Role: everything on a file system of some megabytes.
pub fn a_full_file_system(dir: &Path) {
    mount_alone();
    mount_memory(dir, 8 << 20);
    fs::write(dir.join("ballast"), vec![1u8; 4 << 20]).unwrap();
    fill_twice(&dir.join("store"), || fs::remove_file(dir.join("ballast")).unwrap());
    // Not even a store fits.
    let full = fs::write(dir.join("ballast"), vec![1u8; 8 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let error = small().open(dir.join("other")).map(drop).unwrap_err();
    check(&error, ErrorKind::Full, 3002, &[]);
    fs::remove_file(dir.join("ballast")).unwrap();
    drop(small().open(dir.join("other")).unwrap());
    say("as it should be");
}

/// Role: no file may be longer than those that there are.
pub fn a_limit_on_files(dir: &Path) {
    // Who sets this limit ignores the signal that comes with it, or ends by it.
    // SAFETY: a plain call, which changes this process alone.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let store = Options::new().segment_bytes(16 << 20).open(dir).unwrap();
    store.append("a", Expect::Version(0), [numbered(0)]).unwrap().wait().unwrap();
    // Larger segments can't be made; those that are prepared can be filled.
    let longest = image(dir).iter().map(|(_, content)| content.len() as u64).max().unwrap();
    limit(libc::RLIMIT_FSIZE, longest);
    let full = append_until_full(&store, 1);
    assert_eq!(store.stats().shards[0].stopped, None);
    limit(libc::RLIMIT_FSIZE, libc::RLIM_INFINITY);
    for number in full..full + 40 {
        let large = Event::new("Large", vec![3u8; 60_000]);
        let events = [numbered(number), large];
        store.append("a", Expect::Version(number), events).unwrap().wait().unwrap();
    }
    drop(store);
    assert_eq!(audit(&Options::new().open(dir).unwrap()).len() as u64, full + 40);
    say("as it should be");
}

#[test]
fn a_full_file_system_refuses_and_goes_on_when_there_is_space() {
    let dir = directory();
    if let Some(lines) = play("a full file system", dir.path(), "a full file system") {
        assert_eq!(lines, ["as it should be"]);
    }
}

#[test]
fn a_limit_on_the_length_of_files_is_a_full_disk() {
    let dir = directory();
    let lines = play("a limit on files", dir.path(), "a limit on the length of files");
    if let Some(lines) = lines {
        assert_eq!(lines, ["as it should be"]);
    }
    check_sound(dir.path());
}
