//! One event as it is stored.

use std::fmt;
use std::ops::Range;

use crate::format::{Damage, EventView, PartPlace, PartView, RecordView};
use crate::id::Position;
use crate::log::bytes::LogBytes;
use crate::log::catalogue::Record;

/// An event as it is stored, and what the store knows of it.
///
/// Its bytes are not copied: it keeps the part of the log's memory that has them. For an event of the recent log
/// that is a chunk of some MiB, so whoever keeps events for long keeps [`Recorded::detached`] ones.
#[derive(Clone)]
pub struct Recorded {
    /// The record that the ranges refer to.
    record: LogBytes,
    key: Span,
    event_type: Span,
    metadata: Span,
    data: Span,
    version: u64,
    index: u32,
    batch_events: u32,
    id: Option<u128>,
    time: Option<i64>,
    commit_time: i64,
    position: Position,
}

/// A range within a record, which is shorter than 4 GiB.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn new(range: Range<usize>) -> Span {
        Span { start: range.start as u32, end: range.end as u32 }
    }

    fn of(self, record: &[u8]) -> &[u8] {
        record.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

impl Recorded {
    pub(super) fn new(
        record: &Record,
        view: &RecordView<'_>,
        part: &PartView<'_>,
        index: u32,
        event: &EventView<'_>,
    ) -> Recorded {
        Recorded {
            record: record.bytes().clone(),
            key: Span::new(part.place().key()),
            event_type: Span::new(event.type_range.clone()),
            metadata: Span::new(event.metadata_range.clone()),
            data: Span::new(event.data_range.clone()),
            version: part.version,
            index,
            batch_events: part.events,
            id: event.id,
            time: event.time,
            commit_time: view.time(),
            position: record.position(),
        }
    }

    /// Shows each event of one part of a record: one after the other in the same place, so that a fold counts no
    /// references. Gives the record's bytes back.
    pub(super) fn show_each(
        record: Record,
        version: u64,
        part: PartPlace,
        see: &mut dyn FnMut(&Recorded),
    ) -> Result<LogBytes, Damage> {
        let (position, commit_time) = (record.position(), record.view().time());
        let nothing = Span::new(0..0);
        let mut shown = Recorded {
            record: record.into_bytes(),
            key: Span::new(part.key()),
            event_type: nothing,
            metadata: nothing,
            data: nothing,
            version,
            index: 0,
            batch_events: part.event_count(),
            id: None,
            time: None,
            commit_time,
            position,
        };
        let mut events = part.cursor();
        while let Some(event) = events.next(&shown.record) {
            let EventView { type_range, metadata_range, data_range, id, time, .. } = event?;
            (shown.id, shown.time) = (id, time);
            shown.event_type = Span::new(type_range);
            shown.metadata = Span::new(metadata_range);
            shown.data = Span::new(data_range);
            see(&shown);
            shown.index += 1;
        }
        Ok(shown.record)
    }

    /// The events of one part of a record.
    pub(super) fn of_part<'a>(
        record: &'a Record,
        view: &'a RecordView<'a>,
        part: PartView<'a>,
    ) -> impl Iterator<Item = Result<Recorded, Damage>> + use<'a> {
        view.events_in(&part)
            .zip(0_u32..)
            .map(move |(event, index)| Ok(Recorded::new(record, view, &part, index, &event?)))
    }

    /// The key of the aggregate.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.key.of(&self.record)
    }

    /// The version of the aggregate that the event's batch made.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Which event of its batch this is, counted from 0.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// How many events the batch has: what one write appended to this aggregate.
    #[must_use]
    pub fn batch_events(&self) -> u32 {
        self.batch_events
    }

    /// The event's type.
    #[must_use]
    pub fn event_type(&self) -> &str {
        // It was decoded as UTF-8 when this was made.
        std::str::from_utf8(self.event_type.of(&self.record)).unwrap_or_default()
    }

    /// The number that the caller gave it.
    #[must_use]
    pub fn id(&self) -> Option<u128> {
        self.id
    }

    /// When the caller says that it happened, in microseconds since 1970.
    #[must_use]
    pub fn time(&self) -> Option<i64> {
        self.time
    }

    /// When it was committed, in microseconds since 1970; 0 if it [is not durable](Recorded::is_durable).
    #[must_use]
    pub fn commit_time(&self) -> i64 {
        self.commit_time
    }

    /// The event's metadata.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        self.metadata.of(&self.record)
    }

    /// The event's data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.data.of(&self.record)
    }

    /// Whether the event was durable when it was read. Only an [accepted](crate::Read::accepted) read shows others.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        !self.position.is_none()
    }

    /// The position of the write in the log of its shard: all events of one write have the same.
    /// [`Position::START`] if it [is not durable](Recorded::is_durable).
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The same event with a copy of its own bytes, which keeps nothing else of the log's memory.
    #[must_use]
    pub fn detached(&self) -> Recorded {
        let parts = [self.key, self.event_type, self.metadata, self.data];
        let bytes: Vec<u8> = parts.map(|part| part.of(&self.record)).concat();
        let mut end = 0;
        let [key, event_type, metadata, data] = parts.map(|part| {
            let start = end;
            end += part.end - part.start;
            Span { start, end }
        });
        let record = LogBytes::of_memory(bytes.into());
        Recorded { record, key, event_type, metadata, data, ..self.clone() }
    }
}

/// Shows lengths, never contents: what a caller stores may be secret.
impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded")
            .field("key_bytes", &self.key().len())
            .field("version", &self.version)
            .field("index", &self.index)
            .field("event_type", &self.event_type())
            .field("data_bytes", &self.data().len())
            .field("metadata_bytes", &self.metadata().len())
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
