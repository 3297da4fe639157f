//! Snapshots as executions use them: where a fold may start. Without them it starts from the beginning, so nothing that
//! goes wrong here stops an execution.

use std::sync::Arc;

use super::State;
use crate::append::Target;
use crate::index::SlotKey;
use crate::key::Shown;
use crate::reserve::slot_ref::SlotRef;
use crate::shard::Shard;
use crate::writer::intake::Patience;

/// The state that an aggregate's snapshot stands for, and its version.
pub(super) fn load<S: State>(shard: &Shard, slot: SlotRef) -> Option<(u64, S)> {
    let ignored = |why: &dyn std::fmt::Display| {
        tracing::warn!(shard = shard.id.0, key = %Shown(slot.key()), %why, "a snapshot is ignored");
    };
    let snapshot = match shard.read.snapshot(slot.key()) {
        Ok(snapshot) => snapshot?,
        Err(error) => {
            ignored(&error);
            return None;
        }
    };
    let version = snapshot.version();
    match shard.version_accepted(slot) {
        Ok(newest) if version <= newest => {}
        Ok(newest) => {
            ignored(&format_args!("it is of version {version}, the aggregate at {newest}"));
            return None;
        }
        // The fold that follows says so.
        Err(_) => return None,
    }
    let decoded = S::decode(snapshot.bytes());
    if decoded.is_none() {
        ignored(&"its bytes are not those of the state");
    }
    decoded.map(|state| (version, state))
}

/// Saves a snapshot, if the state can be kept so and the store has room for it now.
pub(super) fn save<S: State>(
    shard: &Arc<Shard>,
    target: &Target<'_>,
    version: u64,
    state: &S,
    bytes_max: usize,
) {
    let key = SlotKey::Snapshot(target.key);
    // The one that somebody else has just saved will do.
    if shard.find(shard.index.hash(key), key).is_some_and(|slot| shard.is_pending(slot)) {
        return;
    }
    let Some(bytes) = state.encode() else { return };
    let saved = shard.save_snapshot(target, version, bytes.into(), bytes_max, Patience::Refuse);
    if let Err(error) = saved {
        tracing::debug!(shard = shard.id.0, key = %Shown(target.key), %error, "no snapshot was saved");
    }
}
