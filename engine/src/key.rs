//! Keys of aggregates: any 1 to 1,024 bytes.

use std::fmt;

use crate::error::Error;
use crate::limits::KEY_BYTES_MAX;

const INLINE: usize = 46;

/// A key kept by value; short ones without memory of their own, so that telling a conflict allocates nothing.
#[derive(Clone)]
pub(crate) enum KeyBuf {
    Inline(u8, [u8; INLINE]),
    Boxed(Box<[u8]>),
}

impl KeyBuf {
    pub(crate) fn new(key: &[u8]) -> KeyBuf {
        if key.len() <= INLINE {
            let mut bytes = [0; INLINE];
            bytes[..key.len()].copy_from_slice(key);
            KeyBuf::Inline(key.len() as u8, bytes)
        } else {
            KeyBuf::Boxed(key.into())
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            KeyBuf::Inline(length, bytes) => &bytes[..usize::from(*length)],
            KeyBuf::Boxed(bytes) => bytes,
        }
    }
}

impl PartialEq for KeyBuf {
    fn eq(&self, other: &KeyBuf) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for KeyBuf {}

impl fmt::Debug for KeyBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Shown(self.as_bytes()), f)
    }
}

/// A key as people read it: quoted, as text where it is text, with escapes otherwise.
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(self.0) {
            Ok(text) => write!(f, "{text:?}"),
            Err(_) => write!(f, "\"{}\"", self.0.escape_ascii()),
        }
    }
}

/// Refuses keys that are empty or too long.
pub(crate) fn check(key: &[u8]) -> Result<(), Error> {
    if key.is_empty() {
        return Err(Error::invalid("a key is empty: expected 1 to 1,024 bytes"));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(Error::too_large("the key", key.len(), KEY_BYTES_MAX, "bytes"));
    }
    Ok(())
}

/// Refuses names of checkpoints that are empty or too long.
pub(crate) fn check_name(name: &[u8]) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::invalid("the name of a checkpoint is empty: expected 1 to 1,024 bytes"));
    }
    if name.len() > KEY_BYTES_MAX {
        let what = "the name of a checkpoint";
        return Err(Error::too_large(what, name.len(), KEY_BYTES_MAX, "bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_length_are_kept_and_shown() {
        for length in [1, INLINE, INLINE + 1, KEY_BYTES_MAX] {
            let key = vec![b'k'; length];
            assert_eq!(KeyBuf::new(&key).as_bytes(), key);
        }
        assert_eq!(Shown(b"order-1").to_string(), "\"order-1\"");
        assert_eq!(Shown(b"\xff\0").to_string(), r#""\xff\x00""#);
    }

    #[test]
    fn the_edges_of_a_key() {
        assert!(check(b"").is_err());
        assert!(check(&[0; 1]).is_ok());
        assert!(check(&[0xff; KEY_BYTES_MAX]).is_ok());
        assert!(check(&[b'k'; KEY_BYTES_MAX + 1]).is_err());
    }
}
