//! An event as a caller hands it in.

use std::fmt;
use std::sync::Arc;

/// One event of a write: a type, its data, and optionally metadata, an id and a time.
///
/// The store reads none of them but the lengths; what they mean is the caller's business.
///
/// ```
/// use annals::Event;
///
/// let event = Event::new("OrderShipped", r#"{"carrier":"post"}"#)
///     .metadata(b"trace-7")
///     .id(0x2f1c)
///     .time(1_560_000_000_000_000);
/// assert_eq!(event.event_type(), "OrderShipped");
/// assert_eq!(event.data(), br#"{"carrier":"post"}"#);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    event_type: TypeName,
    data: Payload,
    metadata: Payload,
    id: Option<u128>,
    time: Option<i64>,
}

impl Event {
    /// An event of this type (1 to 255 bytes) with this data (any bytes, also none).
    #[must_use]
    pub fn new(event_type: impl AsRef<str>, data: impl Into<Payload>) -> Event {
        Event {
            event_type: TypeName::new(event_type.as_ref()),
            data: data.into(),
            metadata: Payload::default(),
            id: None,
            time: None,
        }
    }

    /// Bytes that describe the event without being part of it: who, why, from where.
    #[must_use]
    pub fn metadata(mut self, metadata: impl Into<Payload>) -> Event {
        self.metadata = metadata.into();
        self
    }

    /// A number of the caller's own for the event. The store keeps it and does not compare it.
    #[must_use]
    pub fn id(mut self, id: u128) -> Event {
        self.id = Some(id);
        self
    }

    /// When the event happened, in microseconds since 1970. The time of its commit is kept beside it.
    #[must_use]
    pub fn time(mut self, micros: i64) -> Event {
        self.time = Some(micros);
        self
    }

    /// The event's type.
    #[must_use]
    pub fn event_type(&self) -> &str {
        self.event_type.as_str()
    }

    /// The event's data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.data.as_bytes()
    }

    /// The type's bytes, which are not looked into.
    pub(crate) fn type_bytes(&self) -> &[u8] {
        self.event_type.as_bytes()
    }

    pub(crate) fn metadata_given(&self) -> &[u8] {
        self.metadata.as_bytes()
    }

    pub(crate) fn id_given(&self) -> Option<u128> {
        self.id
    }

    pub(crate) fn time_given(&self) -> Option<i64> {
        self.time
    }
}

/// Shows lengths, never contents: what a caller stores may be secret.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("event_type", &self.event_type())
            .field("data_bytes", &self.data().len())
            .field("metadata_bytes", &self.metadata_given().len())
            .field("id", &self.id)
            .field("time", &self.time)
            .finish()
    }
}

const TYPE_INLINE: usize = 31;
const PAYLOAD_INLINE: usize = 39;

/// Short type names need no memory of their own.
#[derive(Clone)]
enum TypeName {
    Inline(u8, [u8; TYPE_INLINE]),
    Boxed(Box<str>),
}

impl TypeName {
    fn new(name: &str) -> TypeName {
        if name.len() <= TYPE_INLINE {
            let mut bytes = [0; TYPE_INLINE];
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            TypeName::Inline(name.len() as u8, bytes)
        } else {
            TypeName::Boxed(name.into())
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            TypeName::Inline(length, bytes) => &bytes[..usize::from(*length)],
            TypeName::Boxed(name) => name.as_bytes(),
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl PartialEq for TypeName {
    fn eq(&self, other: &TypeName) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for TypeName {}

/// The bytes of an event's data or metadata: made from anything that is bytes or text.
///
/// Short ones are copied, a `Vec` or a `String` is taken as it is, an `Arc<[u8]>` is shared.
#[derive(Clone)]
pub struct Payload(Bytes);

#[derive(Clone)]
enum Bytes {
    Inline(u8, [u8; PAYLOAD_INLINE]),
    Vec(Vec<u8>),
    Shared(Arc<[u8]>),
}

impl Payload {
    fn copied(bytes: &[u8]) -> Payload {
        if bytes.len() <= PAYLOAD_INLINE {
            let mut inline = [0; PAYLOAD_INLINE];
            inline[..bytes.len()].copy_from_slice(bytes);
            Payload(Bytes::Inline(bytes.len() as u8, inline))
        } else {
            Payload(Bytes::Vec(bytes.to_vec()))
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Inline(length, bytes) => &bytes[..usize::from(*length)],
            Bytes::Vec(bytes) => bytes,
            Bytes::Shared(bytes) => bytes,
        }
    }
}

impl Default for Payload {
    fn default() -> Payload {
        Payload(Bytes::Inline(0, [0; PAYLOAD_INLINE]))
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Payload) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.as_bytes().len())
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Payload {
        Payload(Bytes::Vec(bytes))
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Payload {
        Payload(Bytes::Vec(text.into_bytes()))
    }
}

impl From<Box<[u8]>> for Payload {
    fn from(bytes: Box<[u8]>) -> Payload {
        Payload(Bytes::Vec(bytes.into_vec()))
    }
}

impl From<Arc<[u8]>> for Payload {
    fn from(bytes: Arc<[u8]>) -> Payload {
        Payload(Bytes::Shared(bytes))
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Payload {
        Payload::copied(bytes)
    }
}

impl<const N: usize> From<&[u8; N]> for Payload {
    fn from(bytes: &[u8; N]) -> Payload {
        Payload::copied(bytes)
    }
}

impl<const N: usize> From<[u8; N]> for Payload {
    fn from(bytes: [u8; N]) -> Payload {
        Payload::copied(&bytes)
    }
}

impl From<&Vec<u8>> for Payload {
    fn from(bytes: &Vec<u8>) -> Payload {
        Payload::copied(bytes)
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Payload {
        Payload::copied(text.as_bytes())
    }
}

impl From<&String> for Payload {
    fn from(text: &String) -> Payload {
        Payload::copied(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_parts_come_back_as_they_went_in() {
        for length in [0, 1, TYPE_INLINE, TYPE_INLINE + 1, 255, 300] {
            let name = "é".repeat(length / 2) + &"x".repeat(length % 2);
            let bytes = vec![7; length];
            let event = Event::new(&name, &bytes).metadata(bytes.as_slice());
            assert_eq!(event.event_type(), name);
            assert_eq!(event.data(), bytes);
            assert_eq!(event.metadata_given(), bytes);
            assert_eq!(event, event.clone());
        }
    }

    #[test]
    fn debug_shows_no_contents() {
        let shown = format!("{:?}", Event::new("Paid", "secret").metadata("secret"));
        assert!(shown.contains("Paid") && !shown.contains("secret"), "{shown}");
    }
}
