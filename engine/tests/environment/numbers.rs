//! Numbers near their ends: segments, versions, positions, sequences. Typed errors, and nothing wraps.

use std::fs;

use annals::{ErrorKind, Event, Expect, Options, Position};

use crate::common::{audit, directory, event, numbered, small};
use crate::images::{WRITES, check, check_sound, filled, image, segments};

/// A file with a high number makes every later segment's higher. The store takes what fits, and then says that there are none.
#[test]
fn segments_run_out_of_numbers_and_none_is_given_twice() {
    let dir = filled();
    let shard = dir.path().join("shard-0000");
    for spare in segments(dir.path()).iter().map(|path| path.with_extension("spare")) {
        assert!(!spare.exists(), "a number is used once");
    }
    fs::write(shard.join("00000000fffffffe.spare"), b"").unwrap();
    let store = small().open(dir.path()).unwrap();
    let mut written = WRITES;
    let refused = loop {
        let large = Event::new("Large", vec![5u8; 100_000]);
        match store.append("k0", Expect::Any, [numbered(written), large]) {
            Ok(ticket) => drop(ticket.wait().unwrap()),
            Err(refused) => break refused,
        }
        written += 1;
        assert!(written < 10_000, "numbers never end");
    };
    assert!(written > WRITES, "one number was left");
    check(&refused, ErrorKind::TooLarge, 1002, &["segments", "no more numbers"]);
    let again = store.try_append("k1", Expect::Any, [Event::new("Large", vec![5u8; 100_000])]);
    check(&again.unwrap_err(), ErrorKind::TooLarge, 1002, &["no more numbers"]);
    // Nothing has stopped: what is there can be read, and what fits into the last segment may go on.
    assert_eq!(store.stats().shards[0].stopped, None);
    assert_eq!(audit(&store).len() as u64, written);
    drop(store);
    let newest = segments(dir.path()).pop().unwrap();
    assert_eq!(newest.file_name().unwrap(), "00000000ffffffff.seg");
    let before = image(dir.path());
    for _ in 0..2 {
        let store = small().open(dir.path()).unwrap();
        assert_eq!(audit(&store).len() as u64, written);
        let refused = store.append("k0", Expect::Any, [event("E")]).unwrap_err();
        check(&refused, ErrorKind::TooLarge, 1002, &["no more numbers"]);
        drop(store);
    }
    let names = |image: &[(std::path::PathBuf, Vec<u8>)]| -> Vec<_> {
        image
            .iter()
            .map(|(path, _)| path.clone())
            .filter(|path| path.extension().is_some_and(|e| e == "seg"))
            .collect()
    };
    assert_eq!(names(&before), names(&image(dir.path())), "nothing was overwritten or removed");
    check_sound(dir.path());
}

#[test]
fn the_highest_numbers_that_a_caller_can_name_are_answered() {
    let dir = directory();
    let store = Options::new().open(dir.path()).unwrap();
    store.append("a", Expect::Absent, [event("E")]).unwrap().wait().unwrap();
    let high = store.append("a", Expect::Version(u64::MAX), [event("E")]).unwrap_err();
    check(
        &high,
        ErrorKind::Conflict,
        2003,
        &["expected version 18446744073709551615", "found version 1"],
    );
    let check_only = store.write().check("a", Expect::Version(u64::MAX)).submit().unwrap_err();
    assert_eq!(check_only.kind(), ErrorKind::Conflict);
    assert_eq!(store.read("a").from(u64::MAX).count(), 0);
    let highest = Position::from_raw(u64::MAX);
    assert_eq!(store.log(0).from(highest).filter_map(Result::ok).count(), 0);
    let behind = store.subscribe(0).from(highest).next().unwrap().unwrap_err();
    check(&behind, ErrorKind::Invalid, 1001, &["where the log ends"]);
    check(&store.save_snapshot("a", u64::MAX, "").unwrap_err(), ErrorKind::Invalid, 1001, &[]);

    let client = |sequence| {
        store.write().append("a", Expect::Any, [event("E")]).client(u128::MAX, sequence).submit()
    };
    check(&client(u64::MAX).unwrap_err(), ErrorKind::Invalid, 1001, &["sequence is u64::MAX"]);
    assert_eq!(client(u64::MAX - 1).unwrap().wait().unwrap().version(), 2);
    assert!(client(u64::MAX - 1).unwrap().wait().unwrap().is_replay());
    assert_eq!(client(0).unwrap_err().kind(), ErrorKind::Duplicate);

    // A checkpoint at the highest position can't move forward any more.
    let write = store.write().checkpoint("c", Position::START, highest);
    write.submit().unwrap().wait().unwrap();
    drop(store);
    let store = Options::new().open(dir.path()).unwrap();
    assert_eq!(store.checkpoint("c").unwrap(), highest);
    let back = store.write().checkpoint("c", highest, Position::START).submit().unwrap_err();
    check(&back, ErrorKind::Invalid, 1001, &[]);
    assert_eq!(audit(&store).len(), 3);
}
