//! What the fuzz targets check, shared with the tests of the library, which run it without a fuzzer.
//!
//! ```text
//! cargo run --bin corpus             writes corpus/segment
//! cargo +nightly fuzz run segment
//! ```

use annals::internals::format::{
    AcceptedEnd, CHAIN_START, Depth, EventView, FLUSH_HEADER_BYTES, FlushHeader, Found, Origin,
    RecordEncoder, RecordView, Role, Scan, SegmentHeader, SegmentKind, chain, records,
    records_verified, seal, set_links,
};
use annals::internals::id::{FlushSequence, SegmentId, ShardId, StoreId};
use annals::{Event, Expect, Position};

#[path = "../../engine/tests/scanner/allocation.rs"]
pub mod allocation;
#[path = "../../engine/tests/scanner/corpus.rs"]
mod corpus;
#[path = "../../engine/tests/scanner/properties.rs"]
mod properties;
#[path = "../../engine/tests/scanner/repair.rs"]
mod repair;
#[path = "../../engine/tests/scanner/samples.rs"]
mod samples;

/// One input of the target `segment`: a byte that says whether to repair the checksums, then the segment.
pub fn segment(input: &[u8]) {
    let Some((mode, bytes)) = input.split_first() else {
        return;
    };
    if mode & 1 == 0 {
        properties::check(bytes);
    } else {
        let mut bytes = bytes.to_vec();
        repair::repair(&mut bytes);
        properties::check(&bytes);
    }
}

/// Inputs of the target `segment` that the encoder has made, each with a name.
pub fn segment_corpus() -> Vec<(String, Vec<u8>)> {
    let both = |(name, segment): (&str, samples::Segment)| {
        let input = |mode: u8| [&[mode], segment.bytes.as_slice()].concat();
        [(name.to_owned(), input(0)), (format!("{name}-repaired"), input(1))]
    };
    corpus::corpus().into_iter().flat_map(both).collect()
}
