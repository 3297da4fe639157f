//! Which events a subscription gives.

use std::collections::{HashSet, VecDeque};
use std::fmt;

use crate::format::{Damage, PartView, RecordView, Role};
use crate::log::catalogue::Record;
use crate::read::recorded::Recorded;
use crate::read::shard::collect;

/// Conditions that must all hold; those that are not set do.
#[derive(Clone, Default)]
pub(super) struct Filter {
    prefix: Option<Box<[u8]>>,
    event_types: Option<HashSet<Box<str>>>,
    keys: Option<HashSet<Box<[u8]>>>,
}

impl Filter {
    /// The key must begin so.
    pub(super) fn set_prefix(&mut self, prefix: &[u8]) {
        self.prefix = Some(prefix.into());
    }

    /// The event must be of one of these types.
    pub(super) fn set_event_types(&mut self, names: impl IntoIterator<Item = impl AsRef<str>>) {
        self.event_types = Some(names.into_iter().map(|name| name.as_ref().into()).collect());
    }

    /// The key must be one of these.
    pub(super) fn set_keys(&mut self, keys: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        self.keys = Some(keys.into_iter().map(|key| key.as_ref().into()).collect());
    }

    /// Whether events of this part can pass.
    fn passes_part(&self, part: &PartView<'_>) -> bool {
        part.role == Role::Append
            && self.prefix.as_ref().is_none_or(|prefix| part.key.starts_with(prefix))
            && self.keys.as_ref().is_none_or(|keys| keys.contains(part.key))
    }

    /// Whether an event of such a part passes.
    fn passes_type(&self, event_type: &str) -> bool {
        self.event_types.as_ref().is_none_or(|types| types.contains(event_type))
    }

    /// The first event of a record that passes. Those behind it are appended to `rest`.
    pub(super) fn events(
        &self,
        record: &Record,
        rest: &mut VecDeque<Recorded>,
    ) -> Result<Option<Recorded>, Damage> {
        collect(
            record,
            rest,
            |part| self.passes_part(part),
            |event| self.passes_type(event.event_type()),
        )
    }

    /// Whether an event of this record passes.
    pub(super) fn passes(&self, record: &Record) -> Result<bool, Damage> {
        let view = record.view();
        let mut parts = view.parts().filter(|part| self.passes_part(part)).peekable();
        if self.event_types.is_none() || parts.peek().is_none() {
            return Ok(parts.peek().is_some());
        }
        record.verify_events(&view)?;
        for part in parts {
            if self.passes_event_of(&view, &part)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn passes_event_of(&self, view: &RecordView<'_>, part: &PartView<'_>) -> Result<bool, Damage> {
        for event in view.events_in(part) {
            if self.passes_type(event?.event_type) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Shows what is asked for, never the keys.
impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("prefix_bytes", &self.prefix.as_ref().map(|prefix| prefix.len()))
            .field("event_types", &self.event_types)
            .field("keys", &self.keys.as_ref().map(HashSet::len))
            .finish()
    }
}
