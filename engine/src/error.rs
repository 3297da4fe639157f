//! The one error type: what happened, whether anything was written, and what to do.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::{Arc, Weak};

use crate::expect::Expect;
use crate::key::{KeyBuf, Shown};

/// What kind of error, one for each way in which a caller reacts. `docs/ERRORS.md` has the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The aggregate is at another version than expected, or the checkpoint at another position. Nothing was written: read
    /// again, decide again, try again.
    Conflict,
    /// An execution lost as many races for its aggregates as it may. Nothing was written: try again later.
    Contended,
    /// The aggregate was expected to exist and does not. Nothing was written.
    NotFound,
    /// The client's sequence is not the newest on these aggregates, so what became of it can't be answered. Nothing
    /// was written by this call.
    Duplicate,
    /// The aggregates of one write live on different shards. Nothing was written.
    CrossShard,
    /// The call can't be right as it stands. Nothing was written.
    Invalid,
    /// Something is over its limit. Nothing was written.
    TooLarge,
    /// A limit on memory or work in flight is reached. Nothing was written: try again later.
    Busy,
    /// The disk is full. Nothing was written; the store goes on by itself when there is space again.
    Full,
    /// Another process, or another handle of this one, holds the store for writing.
    Locked,
    /// Bytes on disk are not what was written. Nothing is served from them.
    Corrupt,
    /// The store was written by a version or with options that this one does not support.
    Unsupported,
    /// The operating system reported an error.
    Io,
    /// The shard stopped taking writes after a failed write or flush; reads go on. Nothing was written by this call:
    /// open the store again.
    Stopped,
    /// The write was accepted, but the shard stopped before any of it reached the disk: send it again after opening
    /// the store again.
    NotWritten,
    /// The write may or may not be on disk. Open the store again (or wait on), read, then decide; with a client and
    /// a sequence it is safe to send it again.
    OutcomeUnknown,
    /// The store is closed.
    Closed,
    /// The store was opened by the parent of this process, before a `fork`. Nothing was written or waited for by this call.
    Forked,
}

impl ErrorKind {
    /// The stable number of the kind.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            ErrorKind::Invalid => 1001,
            ErrorKind::TooLarge => 1002,
            ErrorKind::Duplicate => 2002,
            ErrorKind::Conflict => 2003,
            ErrorKind::Contended => 2004,
            ErrorKind::NotFound => 2005,
            ErrorKind::Busy => 3001,
            ErrorKind::Full => 3002,
            ErrorKind::Locked => 4001,
            ErrorKind::Corrupt => 4002,
            ErrorKind::Unsupported => 4003,
            ErrorKind::Io => 5001,
            ErrorKind::Stopped => 6001,
            ErrorKind::NotWritten => 6002,
            ErrorKind::OutcomeUnknown => 6003,
            ErrorKind::Closed => 6004,
            ErrorKind::Forked => 6005,
            ErrorKind::CrossShard => 9001,
        }
    }
}

/// An error of the store. Its text says what was expected, what was found and what to do.
///
/// ```
/// use annals::{ErrorKind, Event, Expect, Options};
/// # let dir = tempfile::tempdir_in("/var/tmp")?;
/// # let store = Options::new().open(dir.path())?;
///
/// let error = store.append("order-1", Expect::Version(3), [Event::new("Shipped", "")]).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Conflict);
/// assert_eq!(error.code(), 2003);
/// assert_eq!(error.key(), Some("order-1".as_bytes()));
/// assert_eq!(error.expected(), Some(Expect::Version(3)));
/// assert_eq!(error.actual(), Some(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Error(Repr);

#[derive(Clone)]
enum Repr {
    /// By value, so that a loser is told without an allocation.
    Condition {
        key: KeyBuf,
        expected: Expect,
        actual: u64,
        durable: bool,
        place: Option<Place>,
    },
    Other(Box<Other>),
}

/// The shard where a race was lost. What an error is made of knows no more of it; [`Error::winner`] does.
pub(crate) type Place = Weak<dyn Any + Send + Sync>;

#[derive(Clone)]
struct Other {
    kind: ErrorKind,
    message: String,
    keys: Vec<KeyBuf>,
    source: Option<Arc<io::Error>>,
    place: Option<Place>,
}

impl Error {
    /// What kind of error this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &self.0 {
            Repr::Condition { expected: Expect::Exists, .. } => ErrorKind::NotFound,
            Repr::Condition { .. } => ErrorKind::Conflict,
            Repr::Other(other) => other.kind,
        }
    }

    /// The stable number of the kind.
    #[must_use]
    pub fn code(&self) -> u32 {
        self.kind().code()
    }

    /// The aggregate that the error is about, or the first of several.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.keys().next()
    }

    /// The aggregates that the error is about.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let (one, many) = match &self.0 {
            Repr::Condition { key, .. } => (Some(key), [].as_slice()),
            Repr::Other(other) => (None, other.keys.as_slice()),
        };
        one.into_iter().chain(many).map(KeyBuf::as_bytes)
    }

    /// The condition that did not hold.
    #[must_use]
    pub fn expected(&self) -> Option<Expect> {
        match &self.0 {
            Repr::Condition { expected, .. } => Some(*expected),
            Repr::Other(_) => None,
        }
    }

    /// The version that the aggregate is at, 0 where it does not exist.
    #[must_use]
    pub fn actual(&self) -> Option<u64> {
        match &self.0 {
            Repr::Condition { actual, .. } => Some(*actual),
            Repr::Other(_) => None,
        }
    }

    /// Whether the version that contradicts the condition was durable when this was told. If not, its writer has
    /// been accepted and will be durable unless the shard fails first.
    #[must_use]
    pub fn winner_is_durable(&self) -> Option<bool> {
        match &self.0 {
            Repr::Condition { durable, .. } => Some(*durable),
            Repr::Other(_) => None,
        }
    }

    pub(crate) fn condition(key: &[u8], expected: Expect, actual: u64, durable: bool) -> Error {
        let key = KeyBuf::new(key);
        Error(Repr::Condition { key, expected, actual, durable, place: None })
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Repr::Other(Box::new(Other {
            kind,
            message: message.into(),
            keys: Vec::new(),
            source: None,
            place: None,
        })))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn too_large(what: &str, found: usize, limit: usize, unit: &str) -> Error {
        Error::new(
            ErrorKind::TooLarge,
            format!("{what} has {found} {unit}: expected at most {limit}"),
        )
    }

    pub(crate) fn out_of_memory(what: &str) -> Error {
        Error::new(ErrorKind::Busy, format!("no memory for {what}: try again when some is free"))
    }

    /// What a child made by `fork` is told by a handle that it has from its parent.
    #[cold]
    pub(crate) fn forked() -> Error {
        Error::new(
            ErrorKind::Forked,
            "the store was opened in the process that this one was forked from, and is used there: open it here, once the parent has closed it",
        )
    }

    /// Says where the race was lost.
    pub(crate) fn lost_at(mut self, shard: Place) -> Error {
        match &mut self.0 {
            Repr::Condition { place, .. } => *place = Some(shard),
            Repr::Other(other) => other.place = Some(shard),
        }
        self
    }

    /// Where the race was lost, if one was.
    pub(crate) fn place(&self) -> Option<&Place> {
        match &self.0 {
            Repr::Condition { place, .. } => place.as_ref(),
            Repr::Other(other) => other.place.as_ref(),
        }
    }

    /// Names the aggregates that an error is about.
    pub(crate) fn with_keys<'a>(mut self, keys: impl IntoIterator<Item = &'a [u8]>) -> Error {
        if let Repr::Other(other) = &mut self.0 {
            other.keys.extend(keys.into_iter().map(KeyBuf::new));
        }
        self
    }

    /// An error of the operating system, with what was being done; a full disk and a lack of memory are told apart.
    pub(crate) fn io(doing: impl fmt::Display, source: io::Error) -> Error {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            io::ErrorKind::OutOfMemory => ErrorKind::Busy,
            _ => ErrorKind::Io,
        };
        Error(Repr::Other(Box::new(Other {
            kind,
            message: format!("{doing}: {source}"),
            keys: Vec::new(),
            source: Some(Arc::new(source)),
            place: None,
        })))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Condition { key, expected, actual, durable, .. } => {
                let key = Shown(key.as_bytes());
                let pending = if *durable { "" } else { ", not yet durable" };
                match actual {
                    0 => write!(
                        f,
                        "aggregate {key}: expected {expected}, found that it does not exist{pending}; read it and decide again"
                    ),
                    _ => write!(
                        f,
                        "aggregate {key}: expected {expected}, found version {actual}{pending}; read it and decide again"
                    ),
                }
            }
            Repr::Other(other) => {
                f.write_str(&other.message)?;
                for (index, key) in other.keys.iter().enumerate() {
                    let before = if index == 0 { ": " } else { ", " };
                    write!(f, "{before}{}", Shown(key.as_bytes()))?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({}): {self}", self.kind(), self.code())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Repr::Other(other) => other.source.as_deref().map(|e| e as _),
            Repr::Condition { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_names_key_expected_and_actual() {
        let error = Error::condition(b"order-1", Expect::Version(3), 5, false);
        assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, 2003));
        assert_eq!(error.key(), Some(b"order-1".as_slice()));
        assert_eq!(error.winner_is_durable(), Some(false));
        assert_eq!(
            error.to_string(),
            "aggregate \"order-1\": expected version 3, found version 5, not yet durable; read it and decide again"
        );
        let missing = Error::condition(b"order-1", Expect::Exists, 0, true);
        assert_eq!((missing.kind(), missing.code()), (ErrorKind::NotFound, 2005));
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let full = Error::io("preparing a segment", io::ErrorKind::StorageFull.into());
        assert_eq!(full.kind(), ErrorKind::Full);
        let broken = Error::io("reading", io::Error::other("EIO"));
        assert_eq!(broken.kind(), ErrorKind::Io);
    }

    #[test]
    fn telling_a_conflict_needs_no_memory_of_its_own() {
        assert!(size_of::<Error>() <= 96, "{}", size_of::<Error>());
    }
}
