//! The data of an event: it says which write it belongs to, and every byte of it follows from that.
//!
//! ```text
//! 0   write   u64      12  length  u32, of the whole
//! 8   part    u16      16  bytes that follow from the sixteen before
//! 10  index   u16
//! ```

use serde::{Deserialize, Serialize};

/// The fewest bytes of an event's data.
pub const BYTES_MIN: usize = 16;

/// The number of a write. A retry has the number of its original.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct WriteId(pub u64);

/// Which event of which write some data is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The write.
    pub write: WriteId,
    /// The part of the write, counted from 0.
    pub part: u16,
    /// The event of the part, counted from 0.
    pub index: u16,
}

impl Mark {
    /// The data, of so many bytes, [`BYTES_MIN`] at least.
    #[must_use]
    pub fn data(self, bytes: usize) -> Vec<u8> {
        let bytes = bytes.max(BYTES_MIN);
        let mut data = Vec::with_capacity(bytes);
        data.extend(self.write.0.to_le_bytes());
        data.extend(self.part.to_le_bytes());
        data.extend(self.index.to_le_bytes());
        data.extend((bytes as u32).to_le_bytes());
        let mut words = Words::after(&data);
        while data.len() < bytes {
            let word = words.next().to_le_bytes();
            data.extend(&word[..word.len().min(bytes - data.len())]);
        }
        data
    }

    /// Reads data back. `None` if any byte of it is not what was written.
    #[must_use]
    pub fn read(data: &[u8]) -> Option<Mark> {
        let (head, rest) = data.split_at_checked(BYTES_MIN)?;
        let mark = Mark {
            write: WriteId(u64::from_le_bytes(head[..8].try_into().ok()?)),
            part: u16::from_le_bytes(head[8..10].try_into().ok()?),
            index: u16::from_le_bytes(head[10..12].try_into().ok()?),
        };
        let length = u32::from_le_bytes(head[12..].try_into().ok()?);
        let mut words = Words::after(head);
        let whole = rest.chunks(8).all(|chunk| words.next().to_le_bytes().starts_with(chunk));
        (whole && length as usize == data.len()).then_some(mark)
    }
}

/// The bytes behind a head (xorshift).
struct Words(u64);

impl Words {
    fn after(head: &[u8]) -> Words {
        Words(xxhash_rust::xxh3::xxh3_64(head) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let mark = Mark { write: WriteId(77), part: 2, index: 5 };
        for bytes in [0, 16, 17, 24, 100] {
            let data = mark.data(bytes);
            assert_eq!((data.len(), Mark::read(&data)), (bytes.max(BYTES_MIN), Some(mark)));
            for at in 0..data.len() {
                let mut changed = data.clone();
                changed[at] ^= 1;
                // The shortest data has nothing behind its head that a changed head would contradict.
                assert!(Mark::read(&changed) != Some(mark), "byte {at} of {bytes}");
            }
            assert_eq!(Mark::read(&data[..data.len() - 1]), None);
        }
    }
}
