//! Folding an aggregate: its events, accepted ones included, shown one after the other.

use std::sync::Arc;

use crate::error::Error;
use crate::format::{PartView, Role};
use crate::log::catalogue::Record;
use crate::read::ReadSide;
use crate::read::aggregate::Forwards;
use crate::read::chain::{Chain, Link};
use crate::read::pending::{self, misplaced};
use crate::read::recorded::Recorded;
use crate::reserve::slot_ref::SlotRef;

/// How far a fold came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Folded {
    /// The accepted version.
    pub version: u64,
    /// Nothing was pending: all that was shown is below the watermark.
    pub quiet: bool,
}

impl ReadSide {
    /// Shows the events of the versions above `from`, as they are accepted now. On an error some may have been shown.
    pub fn fold(
        self: &Arc<Self>,
        slot: SlotRef,
        from: u64,
        see: &mut dyn FnMut(&Recorded),
    ) -> Result<Folded, Error> {
        let pending = self.decided.decided(slot, from)?;
        if pending.published > from {
            let chain = self.chain_of_slot(slot);
            show_from(&chain, chain.newest_published(pending.published)?, from + 1, see)?;
        }
        let (mut version, mut records) = (pending.below, pending.records);
        // They come newest first.
        while let Some(record) = records.pop() {
            version += 1;
            show_pending(slot.key(), version, record, see)?;
        }
        Ok(Folded { version, quiet: pending.quiet })
    }
}

/// Shows the durable events of the versions from `lowest` to `newest`, which is not below it.
pub(super) fn show_from(
    chain: &Chain,
    newest: Link,
    lowest: u64,
    see: &mut dyn FnMut(&Recorded),
) -> Result<(), Error> {
    let mut forwards = Forwards::new(chain, newest, lowest)?;
    while let Some(Link { version, record, part, .. }) = forwards.next(chain)? {
        let position = record.position();
        let verified = record.verify_events(&record.view());
        let shown = verified.and_then(|()| Recorded::show_each(record, version, part, see));
        shown.map_err(|damage| chain.damaged(position, &damage))?;
    }
    Ok(())
}

/// Shows the events of one accepted version.
pub(super) fn show_pending(
    key: &[u8],
    version: u64,
    record: Record,
    see: &mut dyn FnMut(&Recorded),
) -> Result<(), Error> {
    let part = append_part(&record, key).filter(|part| part.version == version);
    let part = part.ok_or_else(|| misplaced(version))?.place();
    let shown = Recorded::show_each(record, version, part, see);
    // It never left our memory.
    pending::recycle(shown.map_err(|_| misplaced(version))?);
    Ok(())
}

/// The part of a record that appends to an aggregate.
pub(super) fn append_part<'r>(record: &'r Record, key: &[u8]) -> Option<PartView<'r>> {
    record.view().find_part(key).filter(|part| part.role == Role::Append)
}
