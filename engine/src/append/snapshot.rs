//! Saving a snapshot: a record of its own, which adds no version.
//!
//! That the aggregate has reached the version is seen before the snapshot is submitted, and what is submitted first stands
//! first in the log. So no condition on the aggregate is needed: wherever the log ends, a snapshot in it has every
//! version up to its own before it.

use std::sync::Arc;

use super::record::{finish, refused};
use super::{Target, look_at};
use crate::error::Error;
use crate::event::{Event, Payload};
use crate::expect::Expect;
use crate::format::Role;
use crate::index::SlotKey;
use crate::reserve::step;
use crate::shard::Shard;
use crate::sync::epoch;
use crate::ticket::Ticket;
use crate::writer::intake::Patience;
use crate::writer::pool;
use crate::writer::request::Request;

/// The type of the event that holds a snapshot's bytes.
const EVENT_TYPE: &str = "snapshot";

impl Shard {
    /// Saves a snapshot of an aggregate, for which the aggregate must have reached the version.
    pub(crate) fn save_snapshot(
        self: &Arc<Self>,
        target: &Target<'_>,
        version: u64,
        bytes: Payload,
        bytes_max: usize,
        patience: Patience,
    ) -> Result<Ticket, Error> {
        self.links.intake.check_open()?;
        let key = target.key;
        let slot = target.slot.or_else(|| self.find(target.hash, SlotKey::Aggregate(key)));
        let seen = epoch::pinned(|guard| look_at(slot, guard));
        if seen.version == 0 {
            return Err(Error::condition(key, Expect::Exists, 0, seen.settled));
        }
        if version == 0 || version > seen.version {
            let what = format!(
                "a snapshot of version {version}, and the aggregate is at version {}: expected 1 to that",
                seen.version
            );
            return Err(Error::invalid(what).with_keys([key]));
        }
        step!("encode");
        let mut request = pool::take();
        let hash = self.index.hash(SlotKey::Snapshot(key));
        if let Err(wrong) = encode(&mut request, key, hash, version, bytes)
            .and_then(|()| finish(&mut request, None, bytes_max))
        {
            pool::give(request);
            return Err(wrong);
        }
        self.submit(request, None, patience)
    }
}

fn encode(
    request: &mut Request,
    key: &[u8],
    hash: u64,
    version: u64,
    bytes: Payload,
) -> Result<(), Error> {
    let payload = &mut request.payload;
    payload
        .plan
        .push(key, hash, Expect::Any, Role::Snapshot, version)
        .and_then(|()| payload.record.begin_part(Role::Snapshot, Expect::Any, key))
        .and_then(|()| payload.record.push_event(&Event::new(EVENT_TYPE, bytes)))
        .map_err(|e| refused(e, key))
}
