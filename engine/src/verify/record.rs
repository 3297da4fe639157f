//! A record, its parts and its events, as the format draws them.

use super::bytes::{
    Flaw, between, checksum, ensure, i64_at, is_zero, placed, plain, same, slice, u8_at, u16_at,
    u32_at, u64_at, u128_at,
};
use crate::expect::Expect;
use crate::id::Position;
use crate::limits::{
    AGGREGATES_PER_WRITE_MAX, EVENT_TYPE_BYTES_MAX, EVENTS_PER_WRITE_MAX, KEY_BYTES_MAX,
    WRITE_BYTES_MAX,
};

const TABLE: usize = 64;
const LINE: usize = 48;
const EVENT_BYTES_MIN: u64 = 16;
const HEAD_BYTES_MIN: usize = 120;
const HEAD_BYTES_MAX: usize = TABLE + AGGREGATES_PER_WRITE_MAX * (LINE + KEY_BYTES_MAX);

/// What a part is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Append,
    Check,
    Checkpoint,
    Snapshot,
}

/// One part of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) kind: Kind,
    pub(crate) expect: Expect,
    pub(crate) key: &'a [u8],
    pub(crate) version: u64,
    pub(crate) prev: Position,
    pub(crate) skip: Position,
    pub(crate) events: u32,
    /// Its events, as they stand in the body.
    pub(crate) body: &'a [u8],
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventBytes<'a> {
    pub(crate) id: Option<u128>,
    pub(crate) time: Option<i64>,
    pub(crate) name: &'a str,
    pub(crate) metadata: &'a [u8],
    pub(crate) data: &'a [u8],
}

/// One write whose head is whole. Its events are looked at by [`Record::verify_events`].
#[derive(Debug)]
pub(crate) struct Record<'a> {
    /// All of it.
    pub(crate) bytes: &'a [u8],
    pub(crate) checksum: u64,
    pub(crate) time: i64,
    pub(crate) client: Option<(u128, u64)>,
    pub(crate) parts: Vec<Part<'a>>,
    body: &'a [u8],
    body_checksum: u64,
}

/// How long head and record say they are, within the limits and within the bytes that there are.
fn lengths(bytes: &[u8]) -> Result<(usize, usize), Flaw> {
    let there = bytes.len();
    ensure(there >= 16, || format!("the record takes 16 bytes and only {there} are there"))?;
    let (record, head) = (u32_at(bytes, 8) as usize, u32_at(bytes, 12) as usize);
    between("record length", record as u64, HEAD_BYTES_MIN as u64, WRITE_BYTES_MAX as u64)?;
    let most = record.min(HEAD_BYTES_MAX);
    between("record head length", head as u64, HEAD_BYTES_MIN as u64, most as u64)?;
    same("alignment of the record", (record | head) as u64 % 8, 0)?;
    ensure(record <= there, || {
        format!("the record takes {record} bytes and only {there} are there")
    })?;
    Ok((head, record))
}

/// The length of the head that may begin here: what a search for records does before it computes a checksum.
pub(super) fn head_if_plausible(bytes: &[u8]) -> Option<usize> {
    let (head, _) = lengths(bytes).ok()?;
    let parts = usize::from(u16_at(bytes, 58));
    let table_fits = TABLE + parts * LINE < head;
    let first_key = u32_at(bytes, TABLE + 32) as usize == TABLE + parts * LINE;
    (u8_at(bytes, 56) == 1 && u8_at(bytes, 57) <= 1 && parts > 0 && table_fits && first_key)
        .then_some(head)
}

impl<'a> Record<'a> {
    /// Reads the record at the start of these bytes, which stand at `position` in the use of a segment with this salt.
    pub(super) fn read(bytes: &'a [u8], salt: u64, position: Position) -> Result<Record<'a>, Flaw> {
        let (head_bytes, record_bytes) = lengths(bytes)?;
        let bytes = slice(bytes, 0, record_bytes);
        let (head, body) = bytes.split_at(head_bytes);
        let stated = u64_at(head, 0);
        checksum("record head", stated, placed(slice(head, 8, head_bytes), salt, position))?;
        match u8_at(head, 56) {
            1 => {}
            found => return Err(Flaw::unknown("record kind", found.into())),
        }
        let client = match u8_at(head, 57) {
            0 => {
                ensure(is_zero(slice(head, 32, 24)), || "a client without the flag for it".into())?;
                None
            }
            1 => Some((u128_at(head, 32), u64_at(head, 48))),
            found => return Err(Flaw::unknown("record flags", found.into())),
        };
        let count = usize::from(u16_at(head, 58));
        between("number of parts", count as u64, 1, AGGREGATES_PER_WRITE_MAX as u64)?;
        let events = u32_at(head, 60);
        between("number of events", events.into(), 0, EVENTS_PER_WRITE_MAX as u64)?;

        let mut parts = Vec::with_capacity(count);
        let mut key_at = TABLE + count * LINE;
        let mut body_rest = body;
        for line in 0..count {
            let part = part(head, TABLE + line * LINE, key_at, body_rest, position)?;
            key_at += part.key.len();
            body_rest = &body_rest[part.body.len()..];
            parts.push(part);
        }
        let of_kind = |kind| parts.iter().filter(|part: &&Part<'_>| part.kind == kind).count();
        ensure(of_kind(Kind::Check) < count, || "a record that only checks".into())?;
        ensure(of_kind(Kind::Snapshot) == 0 || count == 1 && client.is_none(), || {
            "a snapshot with something beside it".into()
        })?;
        let sum: u64 = parts.iter().map(|part| u64::from(part.events)).sum();
        same("number of events", events.into(), sum)?;
        same("record head length", head_bytes as u64, (key_at as u64).next_multiple_of(8))?;
        ensure(is_zero(slice(head, key_at, head_bytes)), || {
            "the padding of the record head is not zero".into()
        })?;
        same("length of the events", body.len() as u64, (body.len() - body_rest.len()) as u64)?;
        Ok(Record {
            bytes,
            checksum: stated,
            time: i64_at(head, 24),
            client,
            parts,
            body,
            body_checksum: u64_at(head, 16),
        })
    }

    /// Whether it holds a snapshot. Its event is none that anybody appended.
    pub(crate) fn is_snapshot(&self) -> bool {
        self.parts.iter().any(|part| part.kind == Kind::Snapshot)
    }

    /// How many events it appends.
    pub(crate) fn events(&self) -> u64 {
        if self.is_snapshot() {
            return 0;
        }
        self.parts.iter().map(|part| u64::from(part.events)).sum()
    }

    /// Checks the body: its checksum, and every event in it.
    pub(crate) fn verify_events(&self) -> Result<(), Flaw> {
        checksum("events", self.body_checksum, plain(self.body))?;
        self.parts.iter().flat_map(Part::events).try_for_each(|event| event.map(|_| ()))
    }
}

impl<'a> Part<'a> {
    /// Its events. Ends behind the first that can't be read.
    pub(crate) fn events(&self) -> impl Iterator<Item = Result<EventBytes<'a>, Flaw>> + use<'a> {
        let (mut rest, mut left) = (self.body, self.events);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let event = event(rest).and_then(|(event, behind)| {
                let ended = left > 0 || behind.is_empty();
                ensure(ended, || "the events of a part end before its bytes do".into())?;
                rest = behind;
                Ok(event)
            });
            if event.is_err() {
                left = 0;
            }
            Some(event)
        })
    }
}

fn part<'a>(
    head: &'a [u8],
    line: usize,
    key_at: usize,
    body: &'a [u8],
    position: Position,
) -> Result<Part<'a>, Flaw> {
    let line = head
        .get(line..)
        .and_then(<[u8]>::first_chunk::<LINE>)
        .ok_or_else(|| Flaw::new("the part table goes beyond the record head"))?;
    let kind = match u8_at(line, 46) {
        1 => Kind::Append,
        2 => Kind::Check,
        3 => Kind::Checkpoint,
        4 => Kind::Snapshot,
        found => return Err(Flaw::unknown("role", found.into())),
    };
    let number = u64_at(line, 24);
    let expect = match u8_at(line, 47) {
        0 => Expect::Any,
        1 => Expect::Exists,
        2 => Expect::Absent,
        3 => Expect::Version(number),
        found => return Err(Flaw::unknown("condition", found.into())),
    };
    if !matches!(expect, Expect::Version(_)) {
        same("number of a condition that has none", number, 0)?;
    }
    let key_bytes = usize::from(u16_at(line, 44));
    between("key length", key_bytes as u64, 1, KEY_BYTES_MAX as u64)?;
    same("key offset", u32_at(line, 32).into(), key_at as u64)?;
    let key = head
        .get(key_at..)
        .and_then(|rest| rest.get(..key_bytes))
        .ok_or_else(|| Flaw::new("a key goes beyond the record head"))?;
    let (events, events_bytes) = (u32_at(line, 40), u32_at(line, 36));
    let body = body
        .get(..events_bytes as usize)
        .ok_or_else(|| Flaw::new("the events of a part go beyond the record"))?;
    let part = Part {
        kind,
        expect,
        key,
        version: u64_at(line, 0),
        prev: Position::from_raw(u64_at(line, 8)),
        skip: Position::from_raw(u64_at(line, 16)),
        events,
        body,
    };
    match kind {
        Kind::Append => {
            between("number of events", events.into(), 1, EVENTS_PER_WRITE_MAX as u64)?;
        }
        Kind::Snapshot => same("number of events of a snapshot", events.into(), 1)?,
        Kind::Check | Kind::Checkpoint => {
            same("events of a part that has none", (events | events_bytes).into(), 0)?;
        }
    }
    let least = u64::from(events) * EVENT_BYTES_MIN;
    between("length of a part's events", events_bytes.into(), least, WRITE_BYTES_MAX as u64)?;
    same("alignment of a part's events", u64::from(events_bytes) % 8, 0)?;
    links(&part, position)?;
    condition(&part)?;
    Ok(part)
}

/// Links lead back, and from where nothing was before they lead nowhere.
fn links(part: &Part<'_>, position: Position) -> Result<(), Flaw> {
    ensure(part.prev < position && part.skip <= part.prev, || {
        format!("linked to {} and {}, which do not lead back", part.prev, part.skip)
    })?;
    let (none, no_skip) = (part.prev.is_none(), part.skip.is_none());
    let fits = match part.kind {
        Kind::Append => part.version > 1 || none,
        Kind::Check => none && no_skip,
        Kind::Checkpoint => no_skip && none == (part.expect == Expect::Version(0)),
        Kind::Snapshot => no_skip,
    };
    ensure(fits, || format!("linked to {} and {}, where that can't be", part.prev, part.skip))
}

/// The write could be made under its own condition.
fn condition(part: &Part<'_>) -> Result<(), Flaw> {
    let holds = match (part.kind, part.expect) {
        (Kind::Append, expect) => part.version > 0 && expect.holds(part.version - 1),
        (Kind::Check, expect) => expect.holds(part.version),
        (Kind::Checkpoint, Expect::Version(from)) => part.version > from,
        (Kind::Checkpoint, _) => false,
        (Kind::Snapshot, expect) => part.version > 0 && expect == Expect::Any,
    };
    ensure(holds, || format!("version {} under the condition {}", part.version, part.expect))
}

/// The event at the start of these bytes, and what stands behind it.
fn event(bytes: &[u8]) -> Result<(EventBytes<'_>, &[u8]), Flaw> {
    let there = bytes.len() as u64;
    let short =
        |takes| Flaw::new(format!("the event takes {takes} bytes and only {there} are there"));
    if there < EVENT_BYTES_MIN {
        return Err(short(EVENT_BYTES_MIN));
    }
    let flags = u8_at(bytes, 9);
    if flags > 3 {
        return Err(Flaw::unknown("event flags", flags.into()));
    }
    same("padding of an event's header", u16_at(bytes, 10).into(), 0)?;
    let name_bytes = u8_at(bytes, 8);
    between("event type length", name_bytes.into(), 1, EVENT_TYPE_BYTES_MAX as u64)?;
    let (data, metadata) = (u32_at(bytes, 0), u32_at(bytes, 4));
    let optional = u64::from(flags & 1) * 16 + u64::from(flags >> 1) * 8;
    let length = 12 + optional + u64::from(name_bytes) + u64::from(metadata) + u64::from(data);
    let stored = length.next_multiple_of(8);
    if stored > there {
        return Err(short(stored));
    }
    let (event, rest) = bytes.split_at(stored as usize);
    let mut at = 12;
    let mut take = |length: usize| {
        at += length;
        slice(event, at - length, length)
    };
    let id = (flags & 1 != 0).then(|| u128_at(take(16), 0));
    let time = (flags & 2 != 0).then(|| i64_at(take(8), 0));
    let name = take(name_bytes.into());
    let (metadata, data) = (take(metadata as usize), take(data as usize));
    ensure(is_zero(take(8)), || "the padding of an event is not zero".into())?;
    let name =
        std::str::from_utf8(name).map_err(|_| Flaw::new("the type of an event is not UTF-8"))?;
    Ok((EventBytes { id, time, name, metadata, data }, rest))
}
