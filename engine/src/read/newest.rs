//! The newest record of a checkpoint, or of an aggregate's snapshots, below a watermark.
//!
//! Their slots name the newest record, as an aggregate's does, just before the watermark passes it. A reader that comes in
//! between goes back by `prev` to what its watermark covers.

use std::sync::Arc;

use crate::error::Error;
use crate::format::Role;
use crate::id::Position;
use crate::log::catalogue::{Catalogue, Record};

/// What was found.
#[derive(Debug)]
pub(super) struct Newest {
    /// The position of the checkpoint, as a number, or the version that the snapshot stands for.
    pub(super) version: u64,
    /// Which part of the record says so.
    pub(super) part: usize,
    pub(super) record: Record,
}

/// `watermark` was taken before `head` was read from the slot.
pub(super) fn newest(
    catalogue: &Arc<Catalogue>,
    role: Role,
    key: &[u8],
    head: Position,
    watermark: Position,
) -> Result<Option<Newest>, Error> {
    let named = |error: Error| error.with_keys([key]);
    let mut at = head;
    while !at.is_none() {
        let record = catalogue.published(at).map_err(named)?;
        let Some(part) = record.view().find_role(role, key) else {
            let what = "the record has no such checkpoint or snapshot as should be here";
            return Err(named(catalogue.corrupt(at, what)));
        };
        let (version, index, prev) = (part.version, part.index, part.prev);
        if at < watermark {
            return Ok(Some(Newest { version, part: index, record }));
        }
        at = prev;
    }
    Ok(None)
}
