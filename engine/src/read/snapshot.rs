//! A snapshot of an aggregate, as it was saved.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::format::Damage;
use crate::id::Position;
use crate::log::bytes::LogBytes;
use crate::log::catalogue::Catalogue;
use crate::read::newest::Newest;

/// Bytes that stand for an aggregate at a version. Saved by [`Store::save_snapshot`](crate::Store::save_snapshot).
///
/// The bytes are verified and not copied: they keep the part of the log's memory that has them, which for what was saved
/// lately is a chunk of some MiB.
#[derive(Clone)]
pub struct Snapshot {
    bytes: LogBytes,
    version: u64,
    position: Position,
}

impl Snapshot {
    pub(super) fn new(
        catalogue: &Arc<Catalogue>,
        key: &[u8],
        newest: Newest,
    ) -> Result<Snapshot, Error> {
        let Newest { version, part, record } = newest;
        let position = record.position();
        let bytes = || {
            let view = record.view();
            record.verify_events(&view)?;
            let event = view.events_of(part).next().transpose()?;
            let bytes = event.and_then(|event| record.bytes().slice(event.data_range));
            bytes.ok_or(Damage::Truncated { what: "snapshot", expected: 1, found: 0 })
        };
        match bytes() {
            Ok(bytes) => Ok(Snapshot { bytes, version, position }),
            Err(damage) => Err(catalogue.damaged(position, &damage).with_keys([key])),
        }
    }

    /// The version that the bytes stand for.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The bytes, as they were saved.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where it stands in the log of its shard: behind every version up to its own.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }
}

/// Shows how many bytes, never what they say: a state may be secret.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("version", &self.version)
            .field("bytes", &self.bytes.len())
            .field("position", &self.position)
            .finish()
    }
}
