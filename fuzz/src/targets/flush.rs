//! One flush: a byte of which the lowest bit says whether to repair the checksums and the next one chooses the block,
//! then what stands behind the header of a segment.
//!
//! Smaller than a segment, so more of the inputs change a record and not the zeros behind it. The bytes of its records
//! are also given to the parsers that a checksum stands before elsewhere.

use annals::internals::format::Lengths;

use crate::harness::{self, Outcome, Target};
use crate::samples::Segment;
use crate::{
    Depth, FLUSH_HEADER_BYTES, Found, Position, RecordView, Scan, corpus, properties, records,
    repair,
};

/// The target.
pub static TARGET: Target = Target { name: "flush", run, corpus: seeds, repair: Some(repair) };

const BLOCKS_MAX: usize = 64;

/// The segment that the flush is the only one of.
fn segment(mode: u8, flush: &[u8]) -> Segment {
    let block: u32 = if mode & 2 == 0 { 512 } else { 4096 };
    let blocks = flush.len().div_ceil(block as usize).clamp(1, BLOCKS_MAX);
    let mut segment = Segment::new(block, blocks as u32 + 1);
    let room = &mut segment.bytes[block as usize..];
    let length = flush.len().min(room.len());
    room[..length].copy_from_slice(&flush[..length]);
    segment
}

fn run(input: &[u8]) -> Outcome {
    let Some((mode, flush)) = input.split_first() else { return Outcome::default() };
    let mut segment = segment(*mode, flush);
    if mode & 1 != 0 {
        repair::repair(&mut segment.bytes);
    }
    let (reached, held) = harness::measure(|| check(&segment));
    Outcome { reached, bytes: segment.bytes.len(), held, beside: 0 }
}

/// The records of the flush, if it is valid to the last event.
pub fn records_of(input: &[u8], mut look: impl FnMut(&RecordView<'_>)) {
    let Some((mode, flush)) = input.split_first() else { return };
    let mut segment = segment(*mode, flush);
    if mode & 1 != 0 {
        repair::repair(&mut segment.bytes);
    }
    for found in Scan::new(&segment.bytes, &segment.header, Depth::Everything) {
        if let Found::Flush { header, .. } = found {
            for (_, record) in records(&segment.bytes, &header).flatten() {
                look(&record);
            }
        }
    }
}

fn check(segment: &Segment) -> bool {
    let seen = properties::check(&segment.bytes);

    let block = segment.header.block_bytes as usize;
    let record = segment.bytes.get(block + FLUSH_HEADER_BYTES..).unwrap_or_default();
    let _lengths = Lengths::read(record);
    // A head that no checksum stands for may be anything that fits, and its events are told one by one to the last, as
    // errors if they are none.
    if let Ok(view) = RecordView::parse_trusted(record) {
        assert!(view.length() <= record.len());
        let _verified = view.verify_events();
        let again = RecordView::parse_again(record).expect("a view was made of it");
        for (part, same) in view.parts().zip(again.parts()) {
            assert_eq!(part, same);
            assert_eq!(view.events_of(part.index).count(), part.events as usize);
        }
    }
    let elsewhere = Position::from_raw(segment.position(block).get() + 8);
    let moved = RecordView::parse(record, segment.header.origin.salt, elsewhere);
    assert!(moved.is_err() || seen.records == 0, "a record is valid in two places");
    seen.records > 0
}

fn repair(input: &mut [u8]) {
    let Some((mode, flush)) = input.split_first_mut() else { return };
    if *mode & 1 != 0 {
        let mut segment = segment(*mode, flush);
        repair::repair(&mut segment.bytes);
        let repaired = &segment.bytes[segment.header.block_bytes as usize..];
        let length = flush.len().min(repaired.len());
        flush[..length].copy_from_slice(&repaired[..length]);
    }
}

/// The flushes of the segments that `segment` starts from.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (name, segment) in corpus::corpus() {
        let block = segment.header.block_bytes as usize;
        let starts = (block..segment.at).step_by(block);
        let flushes = starts.filter(|at| &segment.bytes[at + 8..at + 16] == b"ANNFLUSH");
        for at in flushes.take(6) {
            let length = segment.bytes[at + 88..at + 92].try_into().expect("four bytes");
            let length = (u32::from_le_bytes(length) as usize).next_multiple_of(block);
            let mode = if block == 512 { 1 } else { 3 };
            // Repaired, since it stands elsewhere now.
            let mut seed = [&[mode], &segment.bytes[at..at + length]].concat();
            repair(&mut seed);
            seeds.push((format!("{name}-{at}"), seed));
        }
    }
    seeds
}
