//! Segments of different shapes, which mutations start from.
//!
//! Compiled in several places; whoever includes it imports the names of the format beside it.

use super::samples::{Part, Record, Segment, checkpoints_and_snapshots, one_of_everything, order};
use super::{Event, Expect, FLUSH_HEADER_BYTES, SegmentKind};

/// Segments, each with a name.
pub fn corpus() -> Vec<(&'static str, Segment)> {
    let mut many = Segment::new(512, 64);
    for flush in 0..12_u8 {
        let records = (0..flush).map(|record| {
            let event = Event::new("Added", vec![record; usize::from(flush) * 3]);
            Record::new(vec![Part::create(&[flush, record, 0], vec![event])])
        });
        many.flush(&records.collect::<Vec<_>>());
    }

    let mut large = Segment::new(4096, 24);
    let events = (0..40).map(|size| Event::new("Measured", vec![size; usize::from(size) * 50]));
    large.flush(&[Record::new(vec![Part::create(&[b'k'; 1024], events.collect())])]);
    let event = Event::new("t".repeat(255), b"").metadata(vec![9; 3000]);
    let prev = large.position(4096 + FLUSH_HEADER_BYTES);
    let mut long = Part::append(b"long", Expect::Any, 129, prev, vec![event]);
    long.skip = prev;
    large.flush(&[Record::new(vec![long])]);

    let mut wide = Segment::new(512, 64);
    let parts = (0..256_u16).map(|part| {
        let key = part.to_le_bytes();
        if part % 3 == 1 {
            Part::check(&key, Expect::Version(u64::from(part)), part.into())
        } else {
            Part::create(&key, vec![Event::new("E", b"1")])
        }
    });
    wide.flush(&[Record::new(parts.collect())]);

    let mut holes = one_of_everything();
    holes.at += 1024;
    holes.flush(&[Record::new(vec![Part::create(b"behind a hole", order())])]);

    let mut rolled = one_of_everything();
    rolled.header.kind = SegmentKind::Rolled;
    rolled.header.encode(&mut rolled.bytes[..512]);

    vec![
        ("everything", one_of_everything()),
        ("checkpoints", checkpoints_and_snapshots()),
        ("empty", Segment::new(512, 2)),
        ("many", many),
        ("large", large),
        ("wide", wide),
        ("holes", holes),
        ("rolled", rolled),
    ]
}
