//! M18: what an accepted read sees, while writers cover each other and the log writer publishes, lets entries go and
//! uses their memory again.

#![cfg(loom)]

use std::sync::Arc;

use annals::internals::id::Position;
use annals::internals::reserve::accepted::{self, Published};
use annals::internals::reserve::decide::Look;
use annals::internals::reserve::write::Status;
use annals::internals::sync::epoch::Guard;
use loom::thread;
use loom_tests::{Fault, LogWriter, Part, Payload, Shard, broken, holds};

const X: usize = 0;
const Y: usize = 1;

/// The name of the write that makes each version of X. Others are never accepted.
const NAMES: [&str; 5] = ["none", "one", "two", "three", "four"];

/// An accepted read of X: versions above `above`, without a gap, each made by the write that was accepted. Returns
/// what was published and the version that is accepted.
fn read(shard: &Shard, guard: &Guard<'_>, above: u64) -> (Published, u64) {
    let (mut versions, mut whole) = (Vec::new(), true);
    let published = accepted::visit::<Payload>(shard.slots[X], guard, above, |entry, payload| {
        // SAFETY: nobody writes to it while it is seen; the model checks that.
        let name = payload.with(|name| unsafe { *name });
        whole &= NAMES.get(entry.version_after as usize) == Some(&name);
        versions.push(entry.version_after);
    });
    assert!(whole, "a write that was not accepted: {versions:?}");
    let below = published.version.max(above);
    let newest = versions.first().copied().unwrap_or(below);
    let gapless = versions.into_iter().rev().eq(below + 1..=newest);
    assert!(gapless, "a gap in what is accepted");
    assert!(!published.quiet || newest == below);
    (published, newest)
}

/// Appends the next version to X.
fn append(shard: &Shard) {
    shard.pinned(|guard| {
        let seen = shard.look(X, guard);
        let name = NAMES[seen.version as usize + 1];
        assert_eq!(shard.append(name, &[Part::Append(X, seen)], guard), Status::Accepted);
    });
}

/// M18. Two versions are accepted. A reader looks while both are published, let go and used again, and another writer
/// covers them.
fn a_read_beside_publication() {
    let shard = Arc::new(Shard::with_epochs(1));
    append(&shard);
    append(&shard);
    let reader = thread::spawn({
        let shard = Arc::clone(&shard);
        move || {
            let (published, newest) = shard.pinned(|guard| read(&shard, guard, 0));
            // The second look goes on from the first.
            let (later, last) = shard.pinned(|guard| read(&shard, guard, newest));
            assert!(newest >= 2 && last >= newest, "a version was lost");
            assert!(later.version >= published.version, "what was published is not");
        }
    });
    let mut writer = LogWriter::new(&shard);
    writer.place();
    let spent = writer.publish();
    if shard.grace_passes() {
        spent.into_iter().for_each(|write| shard.reuse(write));
    }
    append(&shard);
    reader.join().unwrap();
}

#[test]
fn m18_a_read_beside_publication() {
    holds(3, a_read_beside_publication);
}

/// M18. Two versions are accepted. The first is published and its memory used again, while a reader looks at both.
fn a_read_beside_reuse<R: 'static>(look: fn(&Shard, &Guard<'_>) -> R) -> impl Fn() {
    move || {
        let shard = Arc::new(Shard::with_epochs(1));
        append(&shard);
        append(&shard);
        let reader = thread::spawn({
            let shard = Arc::clone(&shard);
            move || drop(shard.pinned(|guard| look(&shard, guard)))
        });
        publish_first_and_reuse(&shard);
        reader.join().unwrap();
    }
}

/// Publishes the write that was submitted first, alone, and uses its memory again when a grace period has passed.
fn publish_first_and_reuse(shard: &Shard) {
    let mut writer = LogWriter::new(shard);
    let first = shard.stack.take().next().unwrap();
    writer.place_one(first);
    let spent = writer.publish();
    if shard.grace_passes() {
        spent.into_iter().for_each(|write| shard.reuse(write));
    }
}

#[test]
fn m18_a_read_beside_the_reuse_of_what_is_covered() {
    holds(4, a_read_beside_reuse(|shard, guard| assert_eq!(read(shard, guard, 0).1, 2)));
}

#[test]
fn m18_broken_what_is_published_is_followed() {
    let looks = |shard: &Shard, guard: &Guard<'_>| {
        accepted::visit::<Payload>(shard.slots[X], guard, 0, |_, payload| {
            // SAFETY: the model finds that it is not safe.
            payload.with(|name| unsafe { *name }.len());
        })
    };
    broken(Fault::FollowsPublished, 3, "Causality violation", a_read_beside_reuse(looks));
}

/// M18. As above, and the reader knows from an earlier guard which version was published.
fn a_read_with_what_an_earlier_guard_saw() {
    let shard = Arc::new(Shard::with_epochs(1));
    append(&shard);
    append(&shard);
    let reader = thread::spawn({
        let shard = Arc::clone(&shard);
        move || {
            let known = shard.pinned(|_| shard.slots[X].head().get());
            shard.pinned(|guard| read(&shard, guard, known).1)
        }
    });
    publish_first_and_reuse(&shard);
    assert_eq!(reader.join().unwrap(), 2);
}

#[test]
fn m18_a_read_with_what_an_earlier_guard_saw() {
    holds(4, a_read_with_what_an_earlier_guard_saw);
}

#[test]
fn m18_broken_the_version_read_before_the_guard() {
    let model = a_read_with_what_an_earlier_guard_saw;
    broken(Fault::ReadsBeforeGuard, 3, "Causality violation", model);
}

/// M18. A write to two slots is rejected over an accepted one that is not published, and covered in turn, while a
/// reader looks and the log writer publishes.
fn a_rejected_write_in_the_chain() {
    let shard = Arc::new(Shard::with_epochs(2));
    append(&shard);
    shard.pinned(|guard| {
        let seen = shard.look(X, guard);
        shard.append("other", &[Part::Append(Y, Look::NOTHING)], guard);
        let parts = [Part::Append(X, seen), Part::Append(Y, Look::NOTHING)];
        assert_eq!(shard.append("rejected", &parts, guard), Status::Rejected);
    });
    let reader = thread::spawn({
        let shard = Arc::clone(&shard);
        move || shard.pinned(|guard| read(&shard, guard, 0).1)
    });
    append(&shard);
    publish_first_and_reuse(&shard);
    assert!((1..=2).contains(&reader.join().unwrap()), "a version was lost");
}

#[test]
fn m18_a_rejected_write_in_the_chain() {
    holds(3, a_rejected_write_in_the_chain);
}

#[test]
fn m18_broken_a_rejected_write_that_hides_what_it_covers() {
    let model = a_rejected_write_in_the_chain;
    broken(Fault::ForgetsCovered, 2, "a gap in what is accepted", model);
}

/// M18. Whoever sees a version as published finds it from the head.
fn a_version_and_its_head() {
    let shard = Arc::new(Shard::new(1));
    append(&shard);
    append(&shard);
    let reader = thread::spawn({
        let shard = Arc::clone(&shard);
        move || {
            let (published, _) = shard.pinned(|guard| read(&shard, guard, 0));
            // One position for each version here.
            let at_least = Position::from_raw(published.version);
            assert!(shard.slots[X].head() >= at_least, "a version ahead of its record");
        }
    });
    let mut writer = LogWriter::new(&shard);
    writer.place();
    writer.publish();
    reader.join().unwrap();
}

#[test]
fn m18_a_version_that_is_published_is_found_from_the_head() {
    holds(4, a_version_and_its_head);
}

#[test]
fn m18_broken_a_head_published_after_its_version() {
    broken(Fault::PublishesHeadLast, 3, "a version ahead of its record", a_version_and_its_head);
}

#[test]
fn m18_broken_a_version_shown_without_its_head() {
    broken(Fault::PublishesRelaxed, 3, "a version ahead of its record", a_version_and_its_head);
}
