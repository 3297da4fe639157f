//! One event in a record's body.
//!
//! ```text
//!  0  u32  data length
//!  4  u32  metadata length
//!  8  u8   type length, 1 to 255
//!  9  u8   flags: 1 = has an id, 2 = has a time
//! 10  u16  zero
//! 12  id (16 bytes, if it has one), time (8 bytes, if it has one), type, metadata, data, zeros to 8
//! ```

use std::fmt;
use std::ops::Range;

use crate::event::Event;
use crate::format::bytes::{aligned, i64_at, is_zero, put, u8_at, u16_at, u32_at, u128_at};
use crate::format::damage::{Damage, matches, within};
use crate::limits::{EVENT_TYPE_BYTES_MAX, WRITE_BYTES_MAX};

const FIXED_BYTES: usize = 12;
const HAS_ID: u8 = 1;
const HAS_TIME: u8 = 2;

/// The least an event takes: a type of one byte and nothing else.
pub(super) const EVENT_BYTES_MIN: usize = aligned(FIXED_BYTES + 1);

/// One event, as bytes that are borrowed from its record.
#[derive(Clone, PartialEq, Eq)]
pub struct EventView<'a> {
    /// Its type.
    pub event_type: &'a str,
    /// The caller's number for it.
    pub id: Option<u128>,
    /// When it happened, in microseconds since 1970.
    pub time: Option<i64>,
    /// Its metadata.
    pub metadata: &'a [u8],
    /// Its data.
    pub data: &'a [u8],
    /// Where the type stands, counted from the start of the record.
    pub type_range: Range<usize>,
    /// Where the metadata stands, counted from the start of the record.
    pub metadata_range: Range<usize>,
    /// Where the data stands, counted from the start of the record.
    pub data_range: Range<usize>,
}

/// Shows lengths, never contents: what a caller stores may be secret.
impl fmt::Debug for EventView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventView")
            .field("event_type", &self.event_type)
            .field("data_bytes", &self.data.len())
            .field("metadata_bytes", &self.metadata.len())
            .field("id", &self.id)
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

/// Goes from event to event of one part of a record, which it does not borrow.
///
/// There are always as many items as the part has events. Once one can't be read, neither can those behind it: each of
/// them is the same error, so that none is left out silently.
#[derive(Clone, Debug)]
pub struct EventCursor {
    /// Where the next one starts, counted from the start of the record.
    pub(super) at: usize,
    /// Where the part's events end.
    pub(super) end: usize,
    /// How many there are still.
    pub(super) left: u32,
}

impl EventCursor {
    /// The next event of the record that the cursor was made for.
    #[inline]
    pub fn next<'r>(&mut self, record: &'r [u8]) -> Option<Result<EventView<'r>, Damage>> {
        self.left = self.left.checked_sub(1)?;
        // What can't be read stays where the next call looks.
        Some(self.read(record))
    }

    fn read<'r>(&mut self, record: &'r [u8]) -> Result<EventView<'r>, Damage> {
        let (event, next) = decode(record, self.at, self.end)?;
        if self.left == 0 {
            ends_at(next, self.end)?;
        }
        self.at = next;
        Ok(event)
    }
}

/// How many bytes an event takes, if its lengths are within the limits.
pub(super) fn stored_bytes(event: &Event) -> Option<usize> {
    let type_bytes = event.type_bytes().len();
    if !(1..=EVENT_TYPE_BYTES_MAX).contains(&type_bytes) {
        return None;
    }
    let optional = event.id_given().map_or(0, |_| 16) + event.time_given().map_or(0, |_| 8);
    (FIXED_BYTES + optional + type_bytes)
        .checked_add(event.metadata_given().len())?
        .checked_add(event.data().len())?
        .checked_next_multiple_of(8)
        .filter(|bytes| *bytes <= WRITE_BYTES_MAX)
}

/// Writes an event that [`stored_bytes`] has measured into exactly as many bytes.
pub(super) fn encode(event: &Event, place: &mut [u8]) {
    let (id, time) = (event.id_given(), event.time_given());
    let (name, metadata, data) = (event.type_bytes(), event.metadata_given(), event.data());
    let flags = id.map_or(0, |_| HAS_ID) | time.map_or(0, |_| HAS_TIME);
    put(place, 0, (data.len() as u32).to_le_bytes());
    put(place, 4, (metadata.len() as u32).to_le_bytes());
    put(place, 8, [name.len() as u8, flags, 0, 0]);
    let mut rest = place.get_mut(FIXED_BYTES..).unwrap_or_default();
    if let Some(id) = id {
        rest = append(rest, &id.to_le_bytes());
    }
    if let Some(time) = time {
        rest = append(rest, &time.to_le_bytes());
    }
    rest = append(rest, name);
    rest = append(rest, metadata);
    append(rest, data).fill(0);
}

/// Writes bytes to the beginning of a place that has room for them, and returns the rest of it.
#[inline]
fn append<'p>(place: &'p mut [u8], bytes: &[u8]) -> &'p mut [u8] {
    debug_assert!(bytes.len() <= place.len());
    match place.split_at_mut_checked(bytes.len()) {
        Some((here, rest)) => {
            here.copy_from_slice(bytes);
            rest
        }
        None => &mut [],
    }
}

/// Reads the event at `at`, which ends at or before `end`; both are counted from the start of the record.
/// Returns it and where the next one starts.
fn decode(record: &[u8], at: usize, end: usize) -> Result<(EventView<'_>, usize), Damage> {
    let room = record.get(..end).and_then(|record| record.get(at..)).unwrap_or_default();
    let truncated =
        |expected| Damage::Truncated { what: "event", expected, found: room.len() as u64 };
    if room.len() < EVENT_BYTES_MIN {
        return Err(truncated(EVENT_BYTES_MIN as u64));
    }
    let data_bytes = u32_at(room, 0);
    let metadata_bytes = u32_at(room, 4);
    let type_bytes = u8_at(room, 8);
    let flags = u8_at(room, 9);
    if flags & !(HAS_ID | HAS_TIME) != 0 {
        return Err(Damage::Unsupported { what: "event flags", found: flags.into() });
    }
    if u16_at(room, 10) != 0 {
        return Err(Damage::Padding { what: "event header" });
    }
    within("event type length", type_bytes.into(), 1, EVENT_TYPE_BYTES_MAX as u64)?;

    let id_bytes = if flags & HAS_ID != 0 { 16 } else { 0 };
    let time_bytes = if flags & HAS_TIME != 0 { 8 } else { 0 };
    let optional_end = FIXED_BYTES + id_bytes + time_bytes;
    // Three numbers below 2^32 and a small one: no overflow in 64 bits.
    let content_end = optional_end as u64
        + u64::from(type_bytes)
        + u64::from(metadata_bytes)
        + u64::from(data_bytes);
    let stored = content_end.next_multiple_of(8);
    if stored > room.len() as u64 {
        return Err(truncated(stored));
    }
    let (content_end, stored) = (content_end as usize, stored as usize);
    let metadata_start = optional_end + usize::from(type_bytes);
    let data_start = metadata_start + metadata_bytes as usize;
    let slice = |range: Range<usize>| room.get(range).unwrap_or_default();
    if !is_zero(slice(content_end..stored)) {
        return Err(Damage::Padding { what: "event" });
    }
    let Ok(event_type) = std::str::from_utf8(slice(optional_end..metadata_start)) else {
        return Err(Damage::Text { what: "event type" });
    };
    let event = EventView {
        event_type,
        id: (id_bytes > 0).then(|| u128_at(room, FIXED_BYTES)),
        time: (time_bytes > 0).then(|| i64_at(room, FIXED_BYTES + id_bytes)),
        metadata: slice(metadata_start..data_start),
        data: slice(data_start..content_end),
        type_range: at + optional_end..at + metadata_start,
        metadata_range: at + metadata_start..at + data_start,
        data_range: at + data_start..at + content_end,
    };
    Ok((event, at + stored))
}

/// Refuses a part whose events end before its bytes do.
fn ends_at(at: usize, end: usize) -> Result<(), Damage> {
    matches("length of a part's events", end as u64, at as u64)
}
