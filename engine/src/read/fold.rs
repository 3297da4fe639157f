//! Folding an aggregate: its events, accepted ones included, shown one after the other.

use std::sync::Arc;

use crate::error::Error;
use crate::format::{Damage, PartView, Role};
use crate::log::catalogue::Record;
use crate::read::ReadSide;
use crate::read::aggregate::Forwards;
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
            self.fold_durable(slot, from, pending.published, see)?;
        }
        let mut version = pending.below;
        for record in pending.records.iter().rev() {
            version += 1;
            let view = record.view();
            let part = append_part(record, slot.key()).filter(|part| part.version == version);
            let part = part.ok_or_else(|| misplaced(version))?;
            let shown = Recorded::each_of_part(record, &view, &part, see);
            shown.map_err(|damage| self.catalogue.damaged(record.position(), &damage))?;
        }
        pending::recycle(pending.records);
        Ok(Folded { version, quiet: pending.quiet })
    }

    fn fold_durable(
        self: &Arc<Self>,
        slot: SlotRef,
        from: u64,
        to: u64,
        see: &mut dyn FnMut(&Recorded),
    ) -> Result<(), Error> {
        let chain = self.chain_of_slot(slot);
        let newest = chain.newest_published(to)?;
        let mut forwards = Forwards::new(&chain, newest, from + 1)?;
        while let Some(record) = forwards.next(&chain)? {
            let mut shown = || -> Result<(), Damage> {
                let view = record.view();
                record.verify_events(&view)?;
                match chain.part(&view) {
                    Some(part) => Recorded::each_of_part(&record, &view, &part, see),
                    None => Ok(()),
                }
            };
            shown().map_err(|damage| chain.damaged(record.position(), &damage))?;
        }
        Ok(())
    }
}

/// The part of a record that appends to an aggregate.
pub(super) fn append_part<'r>(record: &'r Record, key: &[u8]) -> Option<PartView<'r>> {
    record.view().find_part(key).filter(|part| part.role == Role::Append)
}
