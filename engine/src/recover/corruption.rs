//! What was found damaged, and where.

use std::fmt;

use crate::error::{Error, ErrorKind};
use crate::id::ShardId;
use crate::key::KeyBuf;

/// Something that was acknowledged and is not there, or not what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Corruption {
    /// The shard.
    pub(crate) shard: ShardId,
    /// The file, relative to the store's directory.
    pub(crate) file: String,
    /// Where in the file.
    pub(crate) offset: u64,
    /// The aggregate, where it is known.
    pub(crate) aggregate: Option<KeyBuf>,
    /// What is wrong.
    pub(crate) what: String,
}

impl Corruption {
    /// Names an aggregate that the damage concerns.
    pub(crate) fn of(mut self, key: &[u8]) -> Corruption {
        self.aggregate = Some(KeyBuf::new(key));
        self
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file, self.offset, self.what)
    }
}

impl From<Corruption> for Error {
    fn from(corruption: Corruption) -> Error {
        let error = Error::new(ErrorKind::Corrupt, corruption.to_string());
        error.with_keys(corruption.aggregate.iter().map(KeyBuf::as_bytes))
    }
}
