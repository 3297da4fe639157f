//! Folding an aggregate: its events, accepted ones included, shown one after the other.

use std::sync::Arc;

use crate::error::Error;
use crate::format::Damage;
use crate::log::catalogue::Record;
use crate::read::ReadSide;
use crate::read::aggregate::Forwards;
use crate::read::chain::{Chain, Link};
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
        let folded = Folded { version: pending.accepted(), quiet: pending.quiet };
        if pending.published <= from && pending.records.is_empty() {
            return Ok(folded);
        }
        let chain = self.chain_of_slot(slot);
        if pending.published > from {
            let newest = chain.newest_published(pending.published)?;
            fold_durable(&chain, newest, from, see)?;
        }
        for (_, record) in pending.versions(&chain)? {
            show(&chain, &record, see)?;
        }
        Ok(folded)
    }
}

fn fold_durable(
    chain: &Chain,
    newest: Link,
    from: u64,
    see: &mut dyn FnMut(&Recorded),
) -> Result<(), Error> {
    let mut forwards = Forwards::new(chain, newest, from + 1)?;
    while let Some(record) = forwards.next(chain)? {
        show(chain, &record, see)?;
    }
    Ok(())
}

fn show(chain: &Chain, record: &Record, see: &mut dyn FnMut(&Recorded)) -> Result<(), Error> {
    let mut shown = || -> Result<(), Damage> {
        let view = record.view();
        record.verify_events(&view)?;
        if let Some(part) = chain.part(&view) {
            for event in Recorded::of_part(record, &view, part) {
                see(&event?);
            }
        }
        Ok(())
    };
    shown().map_err(|damage| chain.damaged(record.position(), &damage))
}
