//! What the fuzz targets check, and what they share. `targets::ALL` lists them.
//!
//! ```text
//! cargo run --example corpus            writes corpus/<target>: what the encoder makes
//! cargo +nightly fuzz run segment       runs one target
//! cargo run --example smoke             runs each for some seconds, from a fixed seed, and says what that reached
//! cargo test --lib                      runs the kept crashes and the corpus, without a fuzzer
//! ```
//!
//! A crash is kept by copying it to `regressions/<target>/<name>`, under a name that says what was wrong.

// The scanner's files import the names of the format beside them; see `engine/tests/scanner.rs`.
use annals::internals::format::{
    AcceptedEnd, CHAIN_START, Depth, EventView, FLUSH_HEADER_BYTES, FlushHeader, Found, Origin,
    RecordEncoder, RecordView, Role, Scan, SegmentHeader, SegmentKind, chain, records,
    records_verified, seal, set_links,
};
use annals::internals::id::{FlushSequence, SegmentId, ShardId, StoreId};
use annals::{Event, Expect, Position};

pub mod allocation;
pub mod harness;
pub mod targets;

mod edit;
mod image;
mod model;
mod stored;

#[path = "../../engine/tests/scanner/corpus.rs"]
mod corpus;
#[path = "../../engine/tests/scanner/properties.rs"]
mod properties;
#[path = "../../engine/tests/scanner/repair.rs"]
mod repair;
#[path = "../../engine/tests/scanner/samples.rs"]
mod samples;

// The lines of an import, from the command line, which is a program and no library. They find each other here.
#[allow(dead_code)]
#[path = "../../engine/cli/src/envelope.rs"]
mod envelope;
#[allow(dead_code)]
#[path = "../../engine/cli/src/line.rs"]
mod line;
#[allow(dead_code)]
#[path = "../../engine/cli/src/recorded.rs"]
mod recorded;
#[allow(dead_code)]
#[path = "../../engine/cli/src/time.rs"]
mod time;
#[allow(dead_code)]
#[path = "../../engine/cli/src/value.rs"]
mod value;

#[cfg(test)]
mod kept;

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: allocation::Counted = allocation::Counted;
