//! Reading what is accepted and not yet durable, out of the requests that wait for the log writer.

use crate::error::Error;
use crate::read::{Decided, Pending, Records, unplaced};
use crate::reserve::accepted::{self, Published};
use crate::reserve::slot_ref::SlotRef;
use crate::sync::{broken, epoch};
use crate::writer::Links;
use crate::writer::request::Payload;

impl Decided for Links {
    fn decided(&self, slot: SlotRef, above: u64) -> Result<Pending, Error> {
        let mut records = Ok(Records::new());
        let published = epoch::pinned(|guard| {
            accepted::visit::<Payload>(slot, guard, above, |_, payload| {
                if let Ok(copied) = &mut records {
                    match unplaced(payload.record.head(), payload.record.body()) {
                        Ok(record) => copied.push(record),
                        Err(error) => records = Err(error),
                    }
                }
            })
        });
        let mut records = records?;
        if broken!(ForgetsPending) {
            records.clear();
        }
        if !records.is_empty() {
            self.check_failed()?;
        }
        let Published { version, quiet } = published;
        Ok(Pending { published: version, below: version.max(above), quiet, records })
    }
}

impl Links {
    /// Whether what is accepted can still become durable: not if a flush has failed, also while the shard closed.
    pub(super) fn check_failed(&self) -> Result<(), Error> {
        self.catalogue.following().ended().unwrap_or(Ok(()))
    }
}
