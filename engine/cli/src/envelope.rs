//! Keeps what a line says of an event and the store has no place for, so that it comes out as it went in.
//!
//! A `time` or an `id` that is not in its canonical form is kept beside the event's own metadata, in one envelope:
//!
//! ```text
//! magic "\0annals\0" · flags: 1 time, 2 id · for each: length (u32, little-endian), text · the event's own metadata
//! ```
//!
//! No JSON text begins with a zero byte, so metadata that is JSON is never taken for an envelope; raw metadata that
//! begins with the magic is put into one.

const MAGIC: &[u8] = b"\0annals\0";
const TIME: u8 = 1;
const ID: u8 = 2;

/// What the metadata of an event holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Contents<'a> {
    /// The text of `time`, where the event's time alone would not give it back.
    pub(crate) time: Option<&'a str>,
    /// The JSON of `id`, where the event's id alone would not give it back.
    pub(crate) id: Option<&'a str>,
    /// The event's own metadata.
    pub(crate) metadata: &'a [u8],
}

/// The bytes to store as metadata.
pub(crate) fn seal(contents: Contents<'_>) -> Vec<u8> {
    let texts = [(TIME, contents.time), (ID, contents.id)];
    let flags =
        texts.iter().filter(|(_, text)| text.is_some()).fold(0, |sum, (flag, _)| sum | flag);
    let mut out = Vec::new();
    if flags != 0 || contents.metadata.starts_with(MAGIC) {
        out.extend_from_slice(MAGIC);
        out.push(flags);
        for text in texts.iter().filter_map(|(_, text)| *text) {
            // A line is bounded far below 4 GiB, and so is any text in it.
            out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }
    out.extend_from_slice(contents.metadata);
    out
}

/// What stored metadata holds. Bytes that are no whole envelope are the event's own metadata.
pub(crate) fn open(stored: &[u8]) -> Contents<'_> {
    opened(stored).unwrap_or(Contents { metadata: stored, ..Contents::default() })
}

fn opened(stored: &[u8]) -> Option<Contents<'_>> {
    let (flags, mut rest) = stored.strip_prefix(MAGIC)?.split_first()?;
    if flags & !(TIME | ID) != 0 {
        return None;
    }
    let mut text = |flag| {
        if flags & flag == 0 {
            return Some(None);
        }
        let (length, after) = rest.split_first_chunk()?;
        let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = after;
        str::from_utf8(text).ok().map(Some)
    };
    let (time, id) = (text(TIME)?, text(ID)?);
    Some(Contents { time, id, metadata: rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_comes_out() {
        for time in [None, Some(""), Some("yesterday")] {
            for id in [None, Some("7")] {
                for metadata in
                    [&b""[..], b"{}", b"\0annals\0", b"\0annals\0\x01\xff\xff\xff\xff", b"\0"]
                {
                    let contents = Contents { time, id, metadata };
                    assert_eq!(open(&seal(contents)), contents);
                }
            }
        }
    }

    #[test]
    fn plain_metadata_needs_no_envelope() {
        let contents = Contents { metadata: b"{\"by\":\"ann\"}", ..Contents::default() };
        assert_eq!(seal(contents), contents.metadata);
        assert!(seal(Contents::default()).is_empty());
    }

    #[test]
    fn bytes_that_only_begin_like_an_envelope_are_metadata() {
        for stored in [
            &b"\0annals\0"[..],
            b"\0annals\0\x04",
            b"\0annals\0\x01",
            b"\0annals\0\x01\x05\0\0\0abcd",
            b"\0annals\0\x01\x01\0\0\0\xff",
            b"\0annals\0\x03\x01\0\0\0a",
        ] {
            assert_eq!(open(stored), Contents { metadata: stored, ..Contents::default() });
        }
    }
}
