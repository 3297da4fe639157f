//! M8: what readers see of a flush.

#![cfg(loom)]

use std::sync::Arc;

use annals::internals::id::Position;
use annals::internals::reserve::decide::Look;
use loom::thread;
use loom_tests::{Fault, LogWriter, Part, Shard, broken, holds};

/// In which order a model publishes or reads.
#[derive(Clone, Copy, PartialEq)]
enum First {
    Slots,
    Watermark,
}

/// M8. The log writer publishes a write to two slots: both heads, then the watermark. A reader takes the watermark, then
/// the heads, and ignores a head above: it sees the write in both slots or in neither.
fn a_write_to_two_slots(published: First, read: First) -> impl Fn() {
    move || {
        let shard = Arc::new(Shard::new(2));
        let end = Position::from_raw(2);
        let reader = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || {
                let mut heads = [Position::START; 2];
                if read == First::Slots {
                    heads = [shard.slots[0].head(), shard.slots[1].head()];
                }
                let watermark = shard.watermark.get();
                if read == First::Watermark {
                    heads = [shard.slots[0].head(), shard.slots[1].head()];
                }
                let seen = heads.map(|head| head > Position::START && head < watermark);
                assert_eq!(seen[0], seen[1], "half a write");
                assert_eq!(seen[0], watermark == end, "a durable write that is not shown");
            })
        };
        let parts = [Part::Append(0, Look::NOTHING), Part::Append(1, Look::NOTHING)];
        shard.pinned(|guard| shard.append("a", &parts, guard));
        let mut writer = LogWriter::new(&shard);
        writer.place();
        if published == First::Watermark {
            shard.watermark.publish(end);
        }
        writer.publish();
        reader.join().unwrap();
    }
}

#[test]
fn m8_a_reader_beside_a_write_to_two_slots() {
    holds(4, a_write_to_two_slots(First::Slots, First::Watermark));
}

#[test]
fn m8_broken_the_watermark_published_before_the_slots() {
    broken(
        None,
        4,
        "a durable write that is not shown",
        a_write_to_two_slots(First::Watermark, First::Watermark),
    );
}

#[test]
fn m8_broken_the_watermark_read_after_the_heads() {
    broken(
        None,
        4,
        "a durable write that is not shown",
        a_write_to_two_slots(First::Slots, First::Slots),
    );
}

#[test]
fn m8_broken_a_watermark_stored_without_the_slots() {
    let model = a_write_to_two_slots(First::Slots, First::Watermark);
    broken(Fault::WatermarkRelaxed, 4, "a durable write that is not shown", model);
}

/// M8. A look beside two flushes: a settled look means that the version is published, and its record is the head's.
#[test]
fn m8_a_settled_look_belongs_to_what_is_published() {
    holds(3, || {
        let shard = Arc::new(Shard::new(1));
        let looker = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || {
                let look = shard.pinned(|guard| shard.look(0, guard));
                assert_eq!(look.tick, look.version);
                if look.settled {
                    // One position for each version here.
                    let before = Position::from_raw(look.version.saturating_sub(1));
                    assert!(shard.slots[0].head() >= before, "a version far ahead of its record");
                }
            })
        };
        let mut writer = LogWriter::new(&shard);
        for name in ["a", "b"] {
            shard.pinned(|guard| {
                let seen = shard.look(0, guard);
                shard.append(name, &[Part::Append(0, seen)], guard)
            });
            writer.place();
            writer.publish();
        }
        looker.join().unwrap();
    });
}
