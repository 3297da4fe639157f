//! A record: one write, as it is read.
//!
//! ```text
//!  0  u64   checksum of the head from byte 8 on, seeded with salt and position
//!  8  u32   length of the record, a multiple of 8
//! 12  u32   length of the head, a multiple of 8
//! 16  u64   checksum of the body
//! 24  i64   when it was committed, in microseconds since 1970
//! 32  u128  client, else 0
//! 48  u64   the client's sequence, else 0
//! 56  u8    kind: 1 = write
//! 57  u8    flags: 1 = has a client
//! 58  u16   number of parts, 1 to 256
//! 60  u32   number of events, 0 to 65,535
//! 64  part table, 48 bytes a part; then the keys in the same order, end to end, and zeros to 8
//!     body: the events of the first part, of the second, …
//! ```
//!
//! At least one part does something other than check. A part of a snapshot is the only one of its record, which has no
//! client.
//!
//! The head can be trusted without the body: it states the body's checksum and is covered by its own. A view is made
//! only of bytes whose head was checked whole, so everything it answers from the head it can answer without an error;
//! events are checked as they are walked.

use std::fmt;

use crate::format::bytes::{
    ALIGN, aligned, i64_at, is_zero, u8_at, u16_at, u32_at, u64_at, u128_at,
};
use crate::format::checksum;
use crate::format::damage::{Damage, matches, within};
use crate::format::event::{EventCursor, EventView};
use crate::format::part::{self, PART_BYTES, PART_TABLE, PartView, Place, Role};
use crate::id::Position;
use crate::limits::{
    AGGREGATES_PER_WRITE_MAX, EVENTS_PER_WRITE_MAX, KEY_BYTES_MAX, WRITE_BYTES_MAX,
};

pub(super) const CHECKSUM: usize = 0;
pub(super) const LENGTH: usize = 8;
pub(super) const HEAD_LENGTH: usize = 12;
pub(super) const EVENTS_CHECKSUM: usize = 16;
pub(super) const TIME: usize = 24;
pub(super) const CLIENT: usize = 32;
pub(super) const CLIENT_SEQUENCE: usize = 48;
pub(super) const KIND: usize = 56;
pub(super) const FLAGS: usize = 57;
pub(super) const PARTS: usize = 58;
pub(super) const EVENTS: usize = 60;

pub(super) const KIND_WRITE: u8 = 1;
pub(super) const HAS_CLIENT: u8 = 1;

const HEAD_BYTES_MIN: usize = aligned(PART_TABLE + PART_BYTES + 1);
const HEAD_BYTES_MAX: usize = PART_TABLE + AGGREGATES_PER_WRITE_MAX * (PART_BYTES + KEY_BYTES_MAX);
/// The least a record takes: one checkpoint with a name of one byte.
pub(super) const RECORD_BYTES_MIN: usize = HEAD_BYTES_MIN;

/// How long a record says it is, before anything of it was verified: enough to read the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lengths {
    /// Of the head.
    pub head: usize,
    /// Of the whole record.
    pub record: usize,
}

impl Lengths {
    /// How many bytes of a record [`Lengths::read`] takes.
    pub const BYTES: usize = 16;

    /// Reads them from the first bytes of a record. They are within the limits.
    pub fn read(bytes: &[u8]) -> Result<Lengths, Damage> {
        if bytes.len() < Lengths::BYTES {
            return Err(truncated(Lengths::BYTES, bytes.len()));
        }
        let record = u32_at(bytes, LENGTH);
        let head = u32_at(bytes, HEAD_LENGTH);
        let most = WRITE_BYTES_MAX as u64;
        within("record length", record.into(), RECORD_BYTES_MIN as u64, most)?;
        let most = u64::from(record).min(HEAD_BYTES_MAX as u64);
        within("record head length", head.into(), HEAD_BYTES_MIN as u64, most)?;
        matches("alignment of the record", u64::from(record | head) % ALIGN as u64, 0)?;
        Ok(Lengths { head: head as usize, record: record as usize })
    }
}

/// How a record whose head was checked is made up: with it, the same bytes are viewed again without being checked again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    head_bytes: u32,
    parts: u16,
}

/// One write, borrowed from the bytes it was read from.
#[derive(Clone, Copy)]
pub struct RecordView<'a> {
    /// The record and nothing behind it.
    bytes: &'a [u8],
    head_bytes: usize,
    parts: usize,
}

impl<'a> RecordView<'a> {
    /// Reads the record at the start of these bytes, which may go on behind it. Its head is verified against salt and
    /// position; its events are not looked at.
    pub fn parse(bytes: &'a [u8], salt: u64, position: Position) -> Result<RecordView<'a>, Damage> {
        let lengths = RecordView::bound(bytes)?;
        let head = bytes.get(..lengths.head).unwrap_or_default();
        let expected = u64_at(head, CHECKSUM);
        let found = checksum::placed(head.get(LENGTH..).unwrap_or_default(), salt, position);
        if found != expected {
            return Err(Damage::Checksum { what: "record head", expected, found });
        }
        RecordView::structured(bytes, lengths, |part| part::check_links(part, position))
    }

    /// As [`RecordView::parse`] without checksum and links: for bytes that were verified before, or never left memory.
    pub fn parse_trusted(bytes: &'a [u8]) -> Result<RecordView<'a>, Damage> {
        let lengths = RecordView::bound(bytes)?;
        RecordView::structured(bytes, lengths, |_| Ok(()))
    }

    /// As [`RecordView::parse_trusted`], for bytes that a view was made of before: only lengths are looked at again.
    pub fn parse_again(bytes: &'a [u8]) -> Result<RecordView<'a>, Damage> {
        let lengths = RecordView::bound(bytes)?;
        let bytes = bytes.get(..lengths.record).unwrap_or_default();
        let parts = u16_at(bytes, PARTS).into();
        Ok(RecordView { bytes, head_bytes: lengths.head, parts })
    }

    /// The view whose [`shape`](RecordView::shape) this is, of the bytes it was made of.
    #[inline]
    #[must_use]
    pub fn of_shape(bytes: &'a [u8], shape: Shape) -> RecordView<'a> {
        let (head_bytes, parts) = (shape.head_bytes as usize, usize::from(shape.parts));
        RecordView { bytes, head_bytes, parts }
    }

    /// How the record is made up.
    #[inline]
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape { head_bytes: self.head_bytes as u32, parts: self.parts as u16 }
    }

    fn bound(bytes: &[u8]) -> Result<Lengths, Damage> {
        let lengths = Lengths::read(bytes)?;
        if lengths.record > bytes.len() {
            return Err(truncated(lengths.record, bytes.len()));
        }
        Ok(lengths)
    }

    /// Checks everything that the head says against the rest of it, and each part as the caller wants.
    fn structured(
        bytes: &'a [u8],
        lengths: Lengths,
        check: impl Fn(&PartView<'a>) -> Result<(), Damage>,
    ) -> Result<RecordView<'a>, Damage> {
        let bytes = bytes.get(..lengths.record).unwrap_or_default();
        let head = bytes.get(..lengths.head).unwrap_or_default();
        let kind = u8_at(head, KIND);
        if kind != KIND_WRITE {
            return Err(Damage::Unsupported { what: "record kind", found: kind.into() });
        }
        let flags = u8_at(head, FLAGS);
        if flags & !HAS_CLIENT != 0 {
            return Err(Damage::Unsupported { what: "record flags", found: flags.into() });
        }
        if flags == 0 {
            let client = u128_at(head, CLIENT) | u128::from(u64_at(head, CLIENT_SEQUENCE));
            if client != 0 {
                return Err(Damage::Padding { what: "record's client" });
            }
        }
        let parts = u16_at(head, PARTS);
        within("number of parts", parts.into(), 1, AGGREGATES_PER_WRITE_MAX as u64)?;
        let events = u32_at(head, EVENTS);
        within("number of events", events.into(), 0, EVENTS_PER_WRITE_MAX as u64)?;

        let parts = usize::from(parts);
        let mut place = Place::first(parts, lengths.head);
        let mut events_sum = 0_u64;
        let (mut changes, mut snapshots) = (0_u64, 0_u64);
        for _ in 0..parts {
            let part = part::decode(head, place)?;
            check(&part)?;
            events_sum += u64::from(part.events);
            changes += u64::from(part.role != Role::Check);
            snapshots += u64::from(part.role == Role::Snapshot);
            place = place.behind(&part);
        }
        within("number of parts that do more than check", changes, 1, parts as u64)?;
        if snapshots > 0 {
            matches("number of parts beside a snapshot", parts as u64, 1)?;
            matches("client of a snapshot", flags.into(), 0)?;
        }
        matches("record head length", lengths.head as u64, aligned(place.key_offset) as u64)?;
        if !is_zero(head.get(place.key_offset..).unwrap_or_default()) {
            return Err(Damage::Padding { what: "record head" });
        }
        matches("number of events", events.into(), events_sum)?;
        matches("record length", lengths.record as u64, place.events_at as u64)?;
        Ok(RecordView { bytes, head_bytes: lengths.head, parts })
    }

    /// Verifies the events against their checksum.
    pub fn verify_events(&self) -> Result<(), Damage> {
        let expected = u64_at(self.bytes, EVENTS_CHECKSUM);
        let found = checksum::plain(self.body());
        if found != expected {
            return Err(Damage::Checksum { what: "events", expected, found });
        }
        Ok(())
    }

    /// The whole record.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The events of all parts.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(self.head_bytes..).unwrap_or_default()
    }

    /// How many bytes it takes, padding included.
    #[must_use]
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// The checksum of its head.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        u64_at(self.bytes, CHECKSUM)
    }

    /// When it was committed, in microseconds since 1970.
    #[must_use]
    pub fn time(&self) -> i64 {
        i64_at(self.bytes, TIME)
    }

    /// The client and its sequence, if the write carried them.
    #[must_use]
    pub fn client(&self) -> Option<(u128, u64)> {
        (u8_at(self.bytes, FLAGS) & HAS_CLIENT != 0)
            .then(|| (u128_at(self.bytes, CLIENT), u64_at(self.bytes, CLIENT_SEQUENCE)))
    }

    /// How many events all parts append. The bytes of a snapshot are none.
    #[must_use]
    pub fn events(&self) -> u32 {
        let snapshot = self.part(0).is_some_and(|part| part.role == Role::Snapshot);
        if snapshot { 0 } else { u32_at(self.bytes, EVENTS) }
    }

    /// How many parts there are.
    #[must_use]
    pub fn part_count(&self) -> usize {
        self.parts
    }

    /// Its parts, in the order in which the caller gave them.
    pub fn parts(&self) -> impl Iterator<Item = PartView<'a>> + use<'a> {
        let head = self.bytes.get(..self.head_bytes).unwrap_or_default();
        let mut place = Place::first(self.parts, self.head_bytes);
        (0..self.parts).map_while(move |_| {
            // Decoded once already when the view was made, so this does not fail.
            let part = part::read(head, place)?;
            place = place.behind(&part);
            Some(part)
        })
    }

    /// One part.
    #[must_use]
    pub fn part(&self, index: usize) -> Option<PartView<'a>> {
        self.parts().nth(index)
    }

    /// The part that appends to an aggregate or checks it.
    #[must_use]
    pub fn find_part(&self, key: &[u8]) -> Option<PartView<'a>> {
        self.parts().find(|part| part.key == key && part.role.is_versioned())
    }

    /// The part with this role and this key or name.
    #[must_use]
    pub fn find_role(&self, role: Role, key: &[u8]) -> Option<PartView<'a>> {
        self.parts().find(|part| part.key == key && part.role == role)
    }

    /// The events of one part; none for a part that there is not.
    #[must_use]
    pub fn events_of(&self, part: usize) -> Events<'a> {
        match self.part(part) {
            Some(part) => self.events_in(&part),
            None => Events { record: self.bytes, cursor: EventCursor { at: 0, end: 0, left: 0 } },
        }
    }

    /// The events of one of its parts.
    #[inline]
    #[must_use]
    pub fn events_in(&self, part: &PartView<'a>) -> Events<'a> {
        Events { record: self.bytes, cursor: part.place().cursor() }
    }
}

impl fmt::Debug for RecordView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordView")
            .field("length", &self.length())
            .field("time", &self.time())
            .field("client", &self.client())
            .field("parts", &self.parts().collect::<Vec<_>>())
            .finish()
    }
}

/// The events of one part of a record, as an [`EventCursor`] finds them.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    record: &'a [u8],
    cursor: EventCursor,
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<EventView<'a>, Damage>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.cursor.next(self.record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.cursor.left as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Events<'_> {}

fn truncated(expected: usize, found: usize) -> Damage {
    Damage::Truncated { what: "record", expected: expected as u64, found: found as u64 }
}
