//! What stands on disk, as bytes: no I/O, no threads, no panics, no unsafe code.
//!
//! ```text
//! segment file  = segment header, then flushes          segment, scan
//! flush         = flush header, records, zeros          flush
//! record        = one write: head (keys, versions,      record, part, encode
//!                 links) and body (its events)          event
//! identity file = what a store is, twice                identity
//! ```
//!
//! Everything is little-endian; records and events are padded to eight bytes, flushes to whole blocks, always
//! with zeros, which are checked. A decoder accepts exactly what the encoder writes: whatever it accepts encodes to
//! the same bytes again. `docs/FORMAT.md` draws every byte.

#![forbid(unsafe_code)]

mod buffer;
mod bytes;
mod checksum;
mod damage;
mod encode;
mod event;
mod flush;
mod identity;
mod part;
mod record;
mod scan;
mod segment;
#[cfg(test)]
mod tests;

pub use buffer::Buffer;
pub use checksum::{CHAIN_START, chain};
pub use damage::Damage;
pub use encode::{EncodeError, RecordEncoder, seal, set_links};
#[cfg(feature = "internals")]
pub use event::EventCursor;
pub use event::EventView;
pub use flush::{FLUSH_HEADER_BYTES, FlushHeader};
pub use identity::{
    IDENTITY_BYTES, IDENTITY_OFFSETS, Identity, IdentityError, SyncChoice, decode_pair,
};
pub use part::{PartPlace, PartView, Role};
pub use record::{Lengths, RecordView, Shape};
pub use scan::{Depth, Found, Scan, records, records_verified};
pub use segment::{AcceptedEnd, FileName, Origin, SegmentHeader, SegmentKind};

/// The version of the format that this code writes, and the only one it reads.
pub const FORMAT: u32 = 1;
