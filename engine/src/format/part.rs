//! One aggregate's part in a record: a line of the table in the record's head.
//!
//! ```text
//!  0  u64  version: after the write (append), the one that was seen (check), the position that the checkpoint is moved
//!          to, or the version that the snapshot stands for
//!  8  u64  prev: position of the record of the version before, or of the record that moved the checkpoint or held a
//!          snapshot of the aggregate before; 0 = there is none
//! 16  u64  skip: position of the newest version before that is divisible by 64; 0 = there is none
//! 24  u64  the number of the condition `version n`, else 0
//! 32  u32  key offset, counted from the start of the record
//! 36  u32  length of its events
//! 40  u32  number of its events
//! 44  u16  key length
//! 46  u8   role: 1 = append, 2 = check, 3 = checkpoint, 4 = snapshot
//! 47  u8   condition: 0 = any, 1 = exists, 2 = absent, 3 = version n
//! ```
//!
//! A part that only checks has no events and no links. That of a checkpoint has the checkpoint's name as key, no events,
//! no `skip`, and as condition the position that it was moved from, 0 if there was none. That of a snapshot has one event,
//! whose data are the snapshot's bytes, no `skip` and no condition; it stands in its record alone.

use std::fmt;
use std::ops::Range;

use crate::expect::Expect;
use crate::format::bytes::{ALIGN, put, u8_at, u16_at, u32_at, u64_at};
use crate::format::damage::{Damage, matches, within};
use crate::format::event::{EVENT_BYTES_MIN, EventCursor};
use crate::id::Position;
use crate::limits::{EVENTS_PER_WRITE_MAX, KEY_BYTES_MAX, WRITE_BYTES_MAX};

/// Where the table starts in a record.
pub(super) const PART_TABLE: usize = 64;
/// How long a line of it is.
pub(super) const PART_BYTES: usize = 48;

const VERSION: usize = 0;
const PREV: usize = 8;
const SKIP: usize = 16;
const EXPECTED: usize = 24;
const KEY_OFFSET: usize = 32;
const EVENTS_BYTES: usize = 36;
const EVENTS: usize = 40;
const KEY_BYTES: usize = 44;
const ROLE: usize = 46;
const CONDITION: usize = 47;

/// What a part of a write is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
#[repr(u8)]
pub enum Role {
    /// Appends events to an aggregate: adds a version.
    Append = 1,
    /// Demands a condition of an aggregate and changes nothing.
    Check = 2,
    /// Moves a checkpoint from one position to another.
    Checkpoint = 3,
    /// Keeps a snapshot of an aggregate, which adds no version.
    Snapshot = 4,
}

impl Role {
    /// Whether the part demands or changes the version of an aggregate.
    pub(crate) const fn is_versioned(self) -> bool {
        matches!(self, Role::Append | Role::Check)
    }

    /// Whether the part has events: one for the bytes of a snapshot.
    pub(super) const fn has_events(self) -> bool {
        matches!(self, Role::Append | Role::Snapshot)
    }
}

/// One aggregate's part in a write, or one checkpoint's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PartView<'a> {
    /// Which part of the record, counted from 0.
    pub index: usize,
    /// What it is for.
    pub role: Role,
    /// The condition that held.
    pub expect: Expect,
    /// The aggregate's key, or the checkpoint's name.
    pub key: &'a [u8],
    /// The version after the write, the one a check has seen or a snapshot stands for; where a checkpoint is moved to.
    pub version: u64,
    /// How many events.
    pub events: u32,
    /// How many bytes of the body they take.
    pub events_bytes: u32,
    /// Where they start, counted from the start of the record.
    pub events_at: usize,
    /// Where the key starts, counted so too.
    pub key_at: usize,
    /// The record of the version before, or of the checkpoint or snapshot before.
    pub prev: Position,
    /// The record of the newest version before this one that is divisible by 64.
    pub skip: Position,
}

/// Where a part's key and events stand in its record: with it they are found again without a search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartPlace {
    key_at: u32,
    key_bytes: u32,
    events_at: u32,
    events_bytes: u32,
    events: u32,
}

impl PartView<'_> {
    /// Where it stands. A record is shorter than 4 GiB.
    #[inline]
    #[must_use]
    pub fn place(&self) -> PartPlace {
        PartPlace {
            key_at: self.key_at as u32,
            key_bytes: self.key.len() as u32,
            events_at: self.events_at as u32,
            events_bytes: self.events_bytes,
            events: self.events,
        }
    }
}

impl PartPlace {
    /// The key.
    #[must_use]
    pub fn key(&self) -> Range<usize> {
        let start = self.key_at as usize;
        start..start + self.key_bytes as usize
    }

    /// How many events.
    #[must_use]
    pub fn event_count(&self) -> u32 {
        self.events
    }

    /// Before its first event.
    #[must_use]
    pub fn cursor(&self) -> EventCursor {
        let at = self.events_at as usize;
        EventCursor { at, end: at + self.events_bytes as usize, left: self.events }
    }
}

/// Shows the key's length alone: keys may be secret.
impl fmt::Debug for PartView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartView")
            .field("index", &self.index)
            .field("role", &self.role)
            .field("expect", &self.expect)
            .field("key_bytes", &self.key.len())
            .field("version", &self.version)
            .field("events", &self.events)
            .field("prev", &self.prev)
            .field("skip", &self.skip)
            .finish_non_exhaustive()
    }
}

/// A new line of the table: no events yet, no version, no links.
#[inline]
pub(super) fn encode(role: Role, expect: Expect, key_bytes: u16) -> [u8; PART_BYTES] {
    let (condition, expected) = match expect {
        Expect::Any => (0_u8, 0),
        Expect::Exists => (1, 0),
        Expect::Absent => (2, 0),
        Expect::Version(version) => (3, version),
    };
    let mut line = [0; PART_BYTES];
    put(&mut line, EXPECTED, expected.to_le_bytes());
    put(&mut line, KEY_BYTES, key_bytes.to_le_bytes());
    put(&mut line, ROLE, [role as u8]);
    put(&mut line, CONDITION, [condition]);
    line
}

#[inline]
pub(super) fn set_version(line: &mut [u8], version: u64) {
    put(line, VERSION, version.to_le_bytes());
}

#[inline]
pub(super) fn set_links(line: &mut [u8], prev: Position, skip: Position) {
    put(line, PREV, prev.get().to_le_bytes());
    put(line, SKIP, skip.get().to_le_bytes());
}

#[inline]
pub(super) fn set_key_offset(line: &mut [u8], offset: u32) {
    put(line, KEY_OFFSET, offset.to_le_bytes());
}

#[inline]
pub(super) fn set_events(line: &mut [u8], events: u32, events_bytes: u32) {
    put(line, EVENTS, events.to_le_bytes());
    put(line, EVENTS_BYTES, events_bytes.to_le_bytes());
}

#[inline]
pub(super) fn key_bytes(line: &[u8]) -> usize {
    u16_at(line, KEY_BYTES).into()
}

#[inline]
pub(super) fn events_bytes(line: &[u8]) -> u32 {
    u32_at(line, EVENTS_BYTES)
}

/// Where a part stands in its record: what all lines before its own add up to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) index: usize,
    pub(super) key_offset: usize,
    pub(super) events_at: usize,
}

impl Place {
    /// Where the first of `parts` parts stands in a record whose head has so many bytes.
    pub(super) const fn first(parts: usize, head_bytes: usize) -> Place {
        Place { index: 0, key_offset: PART_TABLE + parts * PART_BYTES, events_at: head_bytes }
    }

    /// Where the part behind this one stands.
    pub(super) const fn behind(self, part: &PartView<'_>) -> Place {
        Place {
            index: self.index + 1,
            key_offset: self.key_offset + part.key.len(),
            events_at: self.events_at + part.events_bytes as usize,
        }
    }
}

type Line = [u8; PART_BYTES];

/// The line of the part with this index.
#[inline]
fn line(head: &[u8], index: usize) -> Option<&Line> {
    head.get(PART_TABLE + index * PART_BYTES..)?.first_chunk()
}

/// Reads and checks the part that stands there. `head` is the record's whole head.
pub(super) fn decode(head: &[u8], place: Place) -> Result<PartView<'_>, Damage> {
    let truncated = |expected: usize| Damage::Truncated {
        what: "record head",
        expected: expected as u64,
        found: head.len() as u64,
    };
    let line = line(head, place.index)
        .ok_or_else(|| truncated(PART_TABLE + (place.index + 1) * PART_BYTES))?;
    let (role, condition) = (u8_at(line, ROLE), u8_at(line, CONDITION));
    if role_of(role).is_none() {
        return Err(Damage::Unsupported { what: "role", found: role.into() });
    }
    match expect_of(line) {
        None => return Err(Damage::Unsupported { what: "condition", found: condition.into() }),
        Some(Expect::Version(_)) => {}
        Some(_) => matches("number of a condition that has none", u64_at(line, EXPECTED), 0)?,
    }
    let key_bytes = key_bytes(line);
    within("key length", key_bytes as u64, 1, KEY_BYTES_MAX as u64)?;
    matches("key offset", u32_at(line, KEY_OFFSET).into(), place.key_offset as u64)?;
    let part = read(head, place).ok_or_else(|| truncated(place.key_offset + key_bytes))?;
    check(&part)?;
    Ok(part)
}

/// Reads the part that stands there, which [`decode`] has accepted before.
#[inline]
pub(super) fn read(head: &[u8], place: Place) -> Option<PartView<'_>> {
    let line = line(head, place.index)?;
    Some(PartView {
        index: place.index,
        role: role_of(u8_at(line, ROLE))?,
        expect: expect_of(line)?,
        key: head.get(place.key_offset..)?.get(..key_bytes(line))?,
        version: u64_at(line, VERSION),
        events: u32_at(line, EVENTS),
        events_bytes: events_bytes(line),
        events_at: place.events_at,
        key_at: place.key_offset,
        prev: Position::from_raw(u64_at(line, PREV)),
        skip: Position::from_raw(u64_at(line, SKIP)),
    })
}

#[inline]
const fn role_of(number: u8) -> Option<Role> {
    match number {
        1 => Some(Role::Append),
        2 => Some(Role::Check),
        3 => Some(Role::Checkpoint),
        4 => Some(Role::Snapshot),
        _ => None,
    }
}

#[inline]
fn expect_of(line: &Line) -> Option<Expect> {
    match u8_at(line, CONDITION) {
        0 => Some(Expect::Any),
        1 => Some(Expect::Exists),
        2 => Some(Expect::Absent),
        3 => Some(Expect::Version(u64_at(line, EXPECTED))),
        _ => None,
    }
}

/// What must hold within one part, wherever its record stands.
fn check(part: &PartView<'_>) -> Result<(), Damage> {
    if part.role.has_events() {
        let most = if part.role == Role::Snapshot { 1 } else { EVENTS_PER_WRITE_MAX };
        within("number of events", part.events.into(), 1, most as u64)?;
        let least = u64::from(part.events) * EVENT_BYTES_MIN as u64;
        let events_bytes = part.events_bytes.into();
        within("length of a part's events", events_bytes, least, WRITE_BYTES_MAX as u64)?;
        matches("alignment of a part's events", events_bytes % ALIGN as u64, 0)?;
    } else {
        matches("number of events of a part that has none", part.events.into(), 0)?;
        matches("length of the events of a part that has none", part.events_bytes.into(), 0)?;
    }
    if part.role != Role::Append {
        matches("link to a version divisible by 64", part.skip.get(), 0)?;
    }
    let before = match part.role {
        Role::Append => {
            within("version", part.version, 1, u64::MAX)?;
            part.version - 1
        }
        Role::Check => {
            matches("link of a check", part.prev.get(), 0)?;
            part.version
        }
        Role::Checkpoint => return check_moved(part),
        Role::Snapshot => {
            within("version of a snapshot", part.version, 1, u64::MAX)?;
            return matches("condition of a snapshot", (part.expect != Expect::Any).into(), 0);
        }
    };
    if !part.expect.holds(before) {
        return Err(Damage::Condition { expected: part.expect, found: before });
    }
    Ok(())
}

/// A checkpoint is moved on, from the position that is its condition.
fn check_moved(part: &PartView<'_>) -> Result<(), Damage> {
    let Expect::Version(from) = part.expect else {
        return Err(Damage::Condition { expected: part.expect, found: part.version });
    };
    if part.version <= from {
        let (least, most) = (from.saturating_add(1), u64::MAX);
        return Err(Damage::Bounds {
            what: "checkpoint's position",
            found: part.version,
            least,
            most,
        });
    }
    Ok(())
}

/// What must hold of the links of a part whose record stands at `position`: they lead back, and from version 1 nowhere.
/// That of a checkpoint leads somewhere if, and only if, it has been moved before.
pub(super) fn check_links(part: &PartView<'_>, position: Position) -> Result<(), Damage> {
    if part.prev >= position {
        return Err(Damage::Bounds {
            what: "link to the version before",
            found: part.prev.get(),
            least: 0,
            most: position.get().saturating_sub(1),
        });
    }
    within("link to a version divisible by 64", part.skip.get(), 0, part.prev.get())?;
    if part.role == Role::Append && part.version == 1 {
        matches("link before version 1", part.prev.get(), 0)?;
    }
    if part.role == Role::Checkpoint {
        let first = part.expect == Expect::Version(0);
        matches(
            "link before a checkpoint's first record",
            part.prev.is_none().into(),
            first.into(),
        )?;
    }
    Ok(())
}
