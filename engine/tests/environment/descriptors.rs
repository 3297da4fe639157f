//! No more descriptors: reads of segments that are not open fail, each by itself; the log writer goes on.

use std::fs::File;
use std::path::Path;

use annals::{ErrorKind, Event, Expect};

use crate::common::{audit, numbered, small};
use crate::images::{check, check_whole, filled};
use crate::role::{descriptors, limit, play, say};

/// Role: uses up its descriptors beside a store that is open.
pub fn no_more_descriptors(dir: &Path) {
    let store = small().mapped(false).open(dir).unwrap();
    store.append("k0", Expect::Any, [numbered(40)]).unwrap().wait().unwrap();
    let most = descriptors() as u64 + 8;
    limit(libc::RLIMIT_NOFILE, most);
    let mut all: Vec<File> = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        all.push(file);
    }
    assert!(!all.is_empty());

    let errors: Vec<_> = store.read("k0").filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1, "an error is the last that a read gives");
    check(&errors[0], ErrorKind::Io, 5001, &["Too many open files", ".seg"]);
    check(
        &store.log(0).find_map(Result::err).unwrap(),
        ErrorKind::Io,
        5001,
        &["Too many open files"],
    );
    // The segment that is being filled is open.
    for number in 41..44 {
        store.append("new", Expect::Any, [numbered(number)]).unwrap().wait().unwrap();
    }
    // What needs a segment more is refused, and nothing stops.
    let refused = (0..100).find_map(|_| {
        let large = Event::new("Large", vec![1u8; 400_000]);
        let ticket = store.append("large", Expect::Any, [numbered(44), large]);
        ticket.map(|ticket| ticket.wait().unwrap()).err()
    });
    check(&refused.expect("segments can't be made"), ErrorKind::Io, 5001, &["Too many open files"]);
    assert_eq!(store.stats().shards[0].stopped, None);
    let other = small().open(dir.join("../another")).map(drop).unwrap_err();
    check(&other, ErrorKind::Io, 5001, &["Too many open files"]);

    drop(all);
    let before = audit(&store).len();
    for number in 45..50 {
        let large = Event::new("Large", vec![1u8; 400_000]);
        store.append("large", Expect::Any, [numbered(number), large]).unwrap().wait().unwrap();
    }
    drop(store);
    assert_eq!(audit(&small().open(dir).unwrap()).len(), before + 5);
    say("as it should be");
}

#[test]
fn without_descriptors_reads_fail_and_the_log_writer_goes_on() {
    let dir = filled();
    let lines = play("no more descriptors", dir.path(), "a process without descriptors");
    assert_eq!(lines.unwrap(), ["as it should be"]);
    check_whole(dir.path());
}
