//! Bytes of the log, shared and never copied: from the tail image, from a mapped segment, or read into memory.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::disk::{Chunk, Mapping};
use crate::error::Error;

/// A range of the log's bytes. Cloning and cutting it counts a reference; the memory behind it lives as long as
/// any of them.
#[derive(Clone)]
pub struct LogBytes {
    owner: Owner,
    /// Within the owner. Checked when this was made, and an owner's length never changes.
    start: usize,
    bytes: usize,
}

#[derive(Clone)]
enum Owner {
    Chunk(Arc<Chunk>),
    Mapping(Arc<Mapping>),
    Memory(Memory),
}

/// Memory of one's own, shared.
#[derive(Clone)]
pub struct Memory(Arc<Box<[u8]>>);

impl Memory {
    /// So many bytes; `None` if there is no memory.
    pub fn new(bytes: usize) -> Option<Memory> {
        let mut all = Vec::new();
        all.try_reserve_exact(bytes).ok()?;
        all.resize(bytes, 0);
        Some(Memory(Arc::new(all.into())))
    }

    /// The bytes, if nobody else has them.
    pub fn get_mut(&mut self) -> Option<&mut [u8]> {
        Arc::get_mut(&mut self.0).map(|all| &mut **all)
    }
}

impl LogBytes {
    /// Bytes of the tail image; `None` if the range is not inside the chunk.
    ///
    /// # Safety
    ///
    /// The range was shown to the caller (see [`Chunk`]): nothing writes into it as long as anybody holds the
    /// chunk.
    pub(crate) unsafe fn of_chunk(chunk: &Arc<Chunk>, range: Range<usize>) -> Option<LogBytes> {
        let bytes = length_within(&range, chunk.len())?;
        Some(LogBytes { owner: Owner::Chunk(Arc::clone(chunk)), start: range.start, bytes })
    }

    /// Bytes of a mapped segment; `None` if the range is not inside the map.
    pub(crate) fn of_mapping(mapping: &Arc<Mapping>, range: Range<usize>) -> Option<LogBytes> {
        let bytes = length_within(&range, mapping.len())?;
        Some(LogBytes { owner: Owner::Mapping(Arc::clone(mapping)), start: range.start, bytes })
    }

    /// Bytes in memory of their own.
    pub(crate) fn of_memory(memory: Box<[u8]>) -> LogBytes {
        let bytes = memory.len();
        LogBytes { owner: Owner::Memory(Memory(Arc::new(memory))), start: 0, bytes }
    }

    /// The first bytes of some memory: so many, or all if they are fewer.
    pub(crate) fn of_shared(memory: Memory, bytes: usize) -> LogBytes {
        let bytes = bytes.min(memory.0.len());
        LogBytes { owner: Owner::Memory(memory), start: 0, bytes }
    }

    /// The memory that they lie in, if it is their own.
    pub(crate) fn into_memory(self) -> Option<Memory> {
        match self.owner {
            Owner::Memory(memory) => Some(memory),
            Owner::Chunk(_) | Owner::Mapping(_) => None,
        }
    }

    /// The same bytes, copied if they lie in the tail image, which has better use for its memory than to wait for whoever
    /// keeps them.
    pub(super) fn off_the_tail(self) -> Result<LogBytes, Error> {
        if !matches!(self.owner, Owner::Chunk(_)) {
            return Ok(self);
        }
        let mut memory = Vec::new();
        memory
            .try_reserve_exact(self.len())
            .map_err(|_| Error::out_of_memory("reading the log"))?;
        memory.extend_from_slice(&self);
        Ok(LogBytes::of_memory(memory.into()))
    }

    /// A part of them; `None` if the range is not inside.
    pub(crate) fn slice(&self, range: Range<usize>) -> Option<LogBytes> {
        let bytes = length_within(&range, self.bytes)?;
        Some(LogBytes { owner: self.owner.clone(), start: self.start + range.start, bytes })
    }

    /// The first `bytes` of them; `None` if they are fewer.
    pub(crate) fn first(mut self, bytes: usize) -> Option<LogBytes> {
        if bytes > self.bytes {
            return None;
        }
        self.bytes = bytes;
        Some(self)
    }

    /// Whether they lie in memory of their own, which they alone keep.
    pub(crate) fn is_memory(&self) -> bool {
        matches!(self.owner, Owner::Memory(_))
    }
}

fn length_within(range: &Range<usize>, bytes: usize) -> Option<usize> {
    (range.start <= range.end && range.end <= bytes).then(|| range.end - range.start)
}

impl Deref for LogBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let range = self.start..self.start + self.bytes;
        match &self.owner {
            // SAFETY: whoever made this promised that nothing writes into the range as long as anybody holds the
            // chunk, and we do.
            Owner::Chunk(chunk) => unsafe { chunk.slice(range) },
            Owner::Mapping(mapping) => &mapping[range],
            Owner::Memory(memory) => &memory.0[range],
        }
    }
}

/// Shows where they come from and how many, never what they say.
impl fmt::Debug for LogBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = match &self.owner {
            Owner::Chunk(_) => "tail",
            Owner::Mapping(_) => "mapped",
            Owner::Memory(_) => "memory",
        };
        write!(f, "LogBytes({owner}, {} bytes)", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> [LogBytes; 3] {
        let text = b"0123456789";
        let mut chunk = Chunk::new(text.len()).unwrap();
        chunk.get_mut().copy_from_slice(text);
        let chunk = Arc::new(chunk);
        let mapping = Arc::new(Mapping::Owned(text.to_vec().into()));
        [
            // SAFETY: nothing writes into the chunk any more.
            unsafe { LogBytes::of_chunk(&chunk, 0..10) }.unwrap(),
            LogBytes::of_mapping(&mapping, 0..10).unwrap(),
            LogBytes::of_memory(text.to_vec().into()),
        ]
    }

    #[test]
    fn a_slice_of_a_slice_keeps_the_bytes() {
        for whole in three() {
            let part = whole.slice(2..9).unwrap().slice(1..4).unwrap();
            drop(whole);
            assert_eq!(*part, *b"345");
            assert_eq!(*part.clone().slice(3..3).unwrap(), *b"");
        }
    }

    #[test]
    fn ranges_outside_are_refused() {
        for whole in three() {
            let part = whole.slice(2..9).unwrap();
            assert!(part.slice(0..8).is_none());
            assert!(part.slice(8..8).is_none());
            #[allow(clippy::reversed_empty_ranges)]
            let backwards = 4..3;
            assert!(part.slice(backwards).is_none());
            assert!(part.slice(0..usize::MAX).is_none());
        }
    }
}
