//! Every limit of the store, in one place.
//!
//! A length read from disk is checked against these before it is used; a length given by a caller is checked
//! before anything is reserved.

/// The longest key of an aggregate, and the longest name of a checkpoint, in bytes. The shortest is 1.
pub const KEY_BYTES_MAX: usize = 1024;
/// The longest event type, in bytes of UTF-8. The shortest is 1.
pub const EVENT_TYPE_BYTES_MAX: usize = 255;
/// The most events in one write, over all its aggregates.
pub const EVENTS_PER_WRITE_MAX: usize = 65_535;
/// The most aggregates in one write, those that are only checked included, and its checkpoints.
pub const AGGREGATES_PER_WRITE_MAX: usize = 256;
/// The largest write as it is stored, in bytes. A small `segment_bytes` lowers it: see `Store::limits`.
pub const WRITE_BYTES_MAX: usize = 16 << 20;

/// The most shards in a store.
pub const SHARDS_MAX: u16 = 1024;
/// The smallest and the largest `segment_bytes`. A position names an offset in 32 bits.
pub const SEGMENT_BYTES_MIN: u64 = if cfg!(shuttle) { 32 << 10 } else { 1 << 20 };
/// See [`SEGMENT_BYTES_MIN`].
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// `segment_bytes` unless set.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// The first segment of a store has this size; later ones double up to `segment_bytes`.
pub const SEGMENT_BYTES_FIRST: u64 = SEGMENT_BYTES_MIN;

/// The smallest block a flush is padded to, in bytes.
pub const BLOCK_BYTES_MIN: u32 = 512;
/// The largest block a flush is padded to, in bytes.
pub const BLOCK_BYTES_MAX: u32 = 64 << 10;

/// Flushes in flight on one shard, unless set. With more of them each is smaller: on two cores, two carried half as
/// much again as four from one pipelining thread, and a third more from 64 waiting ones.
pub const FLUSH_WINDOW_DEFAULT: usize = 2;
/// The most flushes in flight on one shard.
pub const FLUSH_WINDOW_MAX: usize = 64;
/// A flush stops growing here, unless one write alone is larger.
pub const FLUSH_BYTES_TARGET: usize = 1 << 20;

/// Bytes accepted and not yet durable on one shard, unless set.
pub const IN_FLIGHT_BYTES_DEFAULT: usize = 64 << 20;
/// How much of the recent log of one shard stays in memory, unless set.
pub const TAIL_BYTES_DEFAULT: usize = 64 << 20;
/// Memory that stalled threads and kept events may hold back on one shard before appends are refused as busy.
pub const HELD_BYTES_MAX: usize = 256 << 20;

const _: () = assert!(SEGMENT_BYTES_MAX <= u32::MAX as u64);
const _: () = assert!(SEGMENT_BYTES_FIRST >= SEGMENT_BYTES_MIN);
const _: () = assert!(BLOCK_BYTES_MIN.is_power_of_two() && BLOCK_BYTES_MAX.is_power_of_two());
const _: () = assert!(WRITE_BYTES_MAX < IN_FLIGHT_BYTES_DEFAULT);
