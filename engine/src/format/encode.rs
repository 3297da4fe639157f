//! A record as it is made.
//!
//! Two threads have a hand in it. The caller's encodes everything that it knows, once, and hashes the events; each attempt to
//! reserve sets the versions anew. The log writer copies head and body into the tail image, where it fills in what only
//! the place tells: the links of each part, then time and checksum.

use std::error::Error;
use std::fmt;

use crate::event::Event;
use crate::expect::Expect;
use crate::format::buffer::Buffer;
use crate::format::bytes::{aligned, put};
use crate::format::checksum;
use crate::format::event;
use crate::format::part::{self, PART_BYTES, PART_TABLE, Role};
use crate::format::record::{
    CHECKSUM, CLIENT, CLIENT_SEQUENCE, EVENTS, EVENTS_CHECKSUM, FLAGS, HAS_CLIENT, HEAD_LENGTH,
    KIND, KIND_WRITE, LENGTH, PARTS, TIME,
};
use crate::id::Position;
use crate::limits::{
    AGGREGATES_PER_WRITE_MAX, EVENTS_PER_WRITE_MAX, KEY_BYTES_MAX, WRITE_BYTES_MAX,
};

/// Why a record can't be made. The encoder must be cleared before it is used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EncodeError {
    /// There is no memory for it.
    OutOfMemory,
    /// Something is longer or more than the limits allow, or empty where it can't be.
    Limit(&'static str),
    /// The calls do not make a record.
    Incomplete(&'static str),
}

impl Error for EncodeError {}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::OutOfMemory => f.write_str("out of memory"),
            EncodeError::Limit(what) => write!(f, "the {what} is outside its limits"),
            EncodeError::Incomplete(what) => write!(f, "not a record: {what}"),
        }
    }
}

/// A record of one small event stands in the encoder itself: one stretch of memory to fetch, not three.
const HEAD_INLINE: usize = aligned(PART_TABLE + PART_BYTES + KEYS_INLINE);
const KEYS_INLINE: usize = 40;
const BODY_INLINE: usize = 256;

/// Makes one record after another in memory that it keeps.
///
/// For each: [`clear`](Self::clear), then for each part [`begin_part`](Self::begin_part) and its
/// [`push_event`](Self::push_event)s, then [`finish`](Self::finish), and [`set_version`](Self::set_version) of every part.
#[derive(Default)]
pub struct RecordEncoder {
    /// The fixed header and the part table; the keys too once finished.
    head: Buffer<HEAD_INLINE>,
    keys: Buffer<KEYS_INLINE>,
    body: Buffer<BODY_INLINE>,
    parts: usize,
    events: u32,
    /// The last part's own.
    part_events: u32,
    part_start: usize,
    part_role: Option<Role>,
    /// Some part does more than check.
    changes: bool,
    finished: bool,
}

impl RecordEncoder {
    /// An encoder without memory.
    #[must_use]
    pub fn new() -> RecordEncoder {
        RecordEncoder::default()
    }

    /// Forgets the record and keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.head.clear();
        self.keys.clear();
        self.body.clear();
        self.parts = 0;
        self.events = 0;
        self.part_events = 0;
        self.part_start = 0;
        self.part_role = None;
        self.changes = false;
        self.finished = false;
    }

    /// Becomes the same record as `other`, in memory of its own.
    pub fn copy_from(&mut self, other: &RecordEncoder) -> Result<(), EncodeError> {
        self.clear();
        self.head.push(other.head())?;
        self.keys.push(other.keys.as_slice())?;
        self.body.push(other.body())?;
        self.parts = other.parts;
        self.events = other.events;
        self.part_events = other.part_events;
        self.part_start = other.part_start;
        self.part_role = other.part_role;
        self.changes = other.changes;
        self.finished = other.finished;
        Ok(())
    }

    /// The memory that it keeps beyond its own size.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.head.heap_bytes() + self.keys.heap_bytes() + self.body.heap_bytes()
    }

    /// Begins the part of one aggregate, or of one checkpoint. The aggregates of a record's parts are all different, and
    /// so are its checkpoints: that is the caller's business.
    #[inline]
    pub fn begin_part(
        &mut self,
        role: Role,
        expect: Expect,
        key: &[u8],
    ) -> Result<(), EncodeError> {
        self.end_part()?;
        if self.parts > 0 && (self.is_snapshot() || role == Role::Snapshot) {
            return Err(EncodeError::Incomplete("a snapshot has another part beside it"));
        }
        if role == Role::Checkpoint && !matches!(expect, Expect::Version(_)) {
            return Err(EncodeError::Incomplete("a checkpoint is not moved from a position"));
        }
        if role == Role::Snapshot && expect != Expect::Any {
            return Err(EncodeError::Incomplete("a snapshot has a condition"));
        }
        if self.parts == AGGREGATES_PER_WRITE_MAX {
            return Err(EncodeError::Limit("number of aggregates"));
        }
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(EncodeError::Limit("length of a key"));
        }
        if self.parts == 0 {
            self.head.push(&[0; PART_TABLE])?;
        }
        self.head.push(&part::encode(role, expect, key.len() as u16))?;
        self.keys.push(key)?;
        self.parts += 1;
        self.part_events = 0;
        self.part_start = self.body.len();
        self.part_role = Some(role);
        self.changes |= role != Role::Check;
        self.fits(0)
    }

    /// Adds an event to the part that was begun last. To that of a snapshot one, for its bytes.
    #[inline]
    pub fn push_event(&mut self, event: &Event) -> Result<(), EncodeError> {
        if self.finished || !self.part_role.is_some_and(Role::has_events) {
            return Err(EncodeError::Incomplete("an event outside a part that appends"));
        }
        if self.is_snapshot() && self.part_events > 0 {
            return Err(EncodeError::Incomplete("a snapshot has a second event"));
        }
        if self.events as usize == EVENTS_PER_WRITE_MAX {
            return Err(EncodeError::Limit("number of events"));
        }
        let bytes = event::stored_bytes(event).ok_or(EncodeError::Limit("length of an event"))?;
        self.fits(bytes)?;
        event::encode(event, self.body.extend(bytes)?);
        self.events += 1;
        self.part_events += 1;
        Ok(())
    }

    /// Completes the record: all but versions, links, time and the head's checksum.
    pub fn finish(&mut self, client: Option<(u128, u64)>) -> Result<(), EncodeError> {
        self.end_part()?;
        if !self.changes {
            return Err(EncodeError::Incomplete("no part does more than check"));
        }
        if self.is_snapshot() && client.is_some() {
            return Err(EncodeError::Incomplete("a snapshot has a client"));
        }
        let head_bytes = self.head_bytes();
        let mut key_offset = self.head.len();
        let table = self.head.as_mut_slice().get_mut(PART_TABLE..).unwrap_or_default();
        for line in table.chunks_exact_mut(PART_BYTES) {
            part::set_key_offset(line, key_offset as u32);
            key_offset += part::key_bytes(line);
        }
        let padding = head_bytes - key_offset;
        self.head.push(self.keys.as_slice())?;
        self.head.extend(padding)?.fill(0);

        let mut fixed = [0; PART_TABLE];
        let length = (head_bytes + self.body.len()) as u32;
        put(&mut fixed, LENGTH, length.to_le_bytes());
        put(&mut fixed, HEAD_LENGTH, (head_bytes as u32).to_le_bytes());
        put(&mut fixed, EVENTS_CHECKSUM, checksum::plain(self.body.as_slice()).to_le_bytes());
        if let Some((client, sequence)) = client {
            put(&mut fixed, CLIENT, client.to_le_bytes());
            put(&mut fixed, CLIENT_SEQUENCE, sequence.to_le_bytes());
            put(&mut fixed, FLAGS, [HAS_CLIENT]);
        }
        put(&mut fixed, KIND, [KIND_WRITE]);
        put(&mut fixed, PARTS, (self.parts as u16).to_le_bytes());
        put(&mut fixed, EVENTS, self.events.to_le_bytes());
        put(self.head.as_mut_slice(), 0, fixed);
        self.finished = true;
        Ok(())
    }

    /// States a part's version: the one after the write, the one that a check has seen or a snapshot stands for, the
    /// position that a checkpoint is moved to. Each attempt to reserve sets it anew.
    #[inline]
    pub fn set_version(&mut self, part: usize, version: u64) {
        debug_assert!(part < self.parts, "part {part} of {}", self.parts);
        if let Some(line) = line_mut(self.head.as_mut_slice(), part) {
            part::set_version(line, version);
        }
    }

    /// The head. Whole once the record is finished.
    #[inline]
    #[must_use]
    pub fn head(&self) -> &[u8] {
        self.head.as_slice()
    }

    /// The body.
    #[inline]
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.body.as_slice()
    }

    /// How many bytes the record takes in the log.
    #[inline]
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.head_bytes() + self.body.len()
    }

    /// How many events it appends. The bytes of a snapshot are none.
    #[inline]
    #[must_use]
    pub fn events(&self) -> u32 {
        if self.is_snapshot() { 0 } else { self.events }
    }

    #[inline]
    fn is_snapshot(&self) -> bool {
        self.part_role == Some(Role::Snapshot)
    }

    #[inline]
    fn head_bytes(&self) -> usize {
        aligned(PART_TABLE + self.parts * PART_BYTES + self.keys.len())
    }

    #[inline]
    fn fits(&self, more: usize) -> Result<(), EncodeError> {
        if self.record_bytes() + more > WRITE_BYTES_MAX {
            return Err(EncodeError::Limit("length of the write"));
        }
        Ok(())
    }

    /// Writes down what the part begun last has got.
    #[inline]
    fn end_part(&mut self) -> Result<(), EncodeError> {
        if self.finished {
            return Err(EncodeError::Incomplete("it is finished already"));
        }
        if self.part_role.is_some_and(Role::has_events) && self.part_events == 0 {
            return Err(EncodeError::Incomplete("a part that appends has no events"));
        }
        let bytes = (self.body.len() - self.part_start) as u32;
        if let Some(line) =
            self.parts.checked_sub(1).and_then(|last| line_mut(self.head.as_mut_slice(), last))
        {
            part::set_events(line, self.part_events, bytes);
        }
        Ok(())
    }
}

/// Shows lengths, never contents.
impl fmt::Debug for RecordEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordEncoder")
            .field("parts", &self.parts)
            .field("events", &self.events)
            .field("record_bytes", &self.record_bytes())
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}

/// States where the versions before a part's own are. `head` is a finished head, where it will be written from. A part
/// that only checks has no links; those of checkpoints and snapshots have no `skip`.
pub fn set_links(head: &mut [u8], part: usize, prev: Position, skip: Position) {
    if let Some(line) = line_mut(head, part) {
        part::set_links(line, prev, skip);
    }
}

/// Completes a head with the time of the commit and its checksum, which is returned. Nothing may be changed after it.
pub fn seal(head: &mut [u8], time: i64, salt: u64, position: Position) -> u64 {
    put(head, TIME, time.to_le_bytes());
    let checksum = checksum::placed(head.get(LENGTH..).unwrap_or_default(), salt, position);
    put(head, CHECKSUM, checksum.to_le_bytes());
    checksum
}

#[inline]
fn line_mut(head: &mut [u8], part: usize) -> Option<&mut [u8]> {
    head.get_mut(PART_TABLE..)?.chunks_exact_mut(PART_BYTES).nth(part)
}
