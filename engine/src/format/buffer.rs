//! Bytes that grow at the end, and stand in the buffer itself as long as they are few.

use std::fmt;

use crate::format::encode::EncodeError;

/// See the module. Memory beyond the first `INLINE` bytes is kept when it is cleared.
pub struct Buffer<const INLINE: usize> {
    length: u32,
    /// All of the bytes, unless they were ever too many.
    inline: [u8; INLINE],
    /// All of the bytes, once they are too many; empty before.
    heap: Box<[u8]>,
}

/// Shows the length, never contents.
impl<const INLINE: usize> fmt::Debug for Buffer<INLINE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("bytes", &self.length).finish_non_exhaustive()
    }
}

impl<const INLINE: usize> Default for Buffer<INLINE> {
    fn default() -> Self {
        Buffer { length: 0, inline: [0; INLINE], heap: Box::default() }
    }
}

impl<const INLINE: usize> Buffer<INLINE> {
    /// Forgets the bytes and keeps the memory.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// How many bytes there are.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        let bytes = if self.len() <= INLINE { &self.inline[..] } else { &self.heap[..] };
        bytes.get(..self.len()).unwrap_or_default()
    }

    /// The bytes, to be changed.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let length = self.len();
        let bytes = if length <= INLINE { &mut self.inline[..] } else { &mut self.heap[..] };
        bytes.get_mut(..length).unwrap_or_default()
    }

    /// Adds so many bytes, whose values are of no meaning: the caller writes all of them.
    #[inline]
    pub fn extend(&mut self, more: usize) -> Result<&mut [u8], EncodeError> {
        let from = self.len();
        let to = from.checked_add(more).and_then(|to| u32::try_from(to).ok());
        let to = to.ok_or(EncodeError::OutOfMemory)?;
        if to as usize > INLINE {
            self.spill(to as usize)?;
        }
        self.length = to;
        Ok(self.as_mut_slice().get_mut(from..).unwrap_or_default())
    }

    /// Adds these bytes.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.extend(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Makes room for so many bytes outside of the buffer, and moves what there is if it stood inside.
    #[cold]
    fn spill(&mut self, bytes: usize) -> Result<(), EncodeError> {
        let length = self.len();
        if self.heap.len() < bytes {
            let room = bytes.max(2 * self.heap.len());
            let mut grown = Vec::new();
            grown.try_reserve_exact(room).map_err(|_| EncodeError::OutOfMemory)?;
            grown.extend_from_slice(self.as_slice());
            grown.resize(room, 0);
            self.heap = grown.into_boxed_slice();
        } else if length <= INLINE {
            self.heap[..length].copy_from_slice(&self.inline[..length]);
        }
        Ok(())
    }

    /// Memory outside of the buffer.
    pub fn heap_bytes(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_wherever_they_stand() {
        let mut buffer = Buffer::<8>::default();
        let mut model = Vec::new();
        for round in 0..3 {
            for step in 0..40_u8 {
                let bytes = vec![step.wrapping_mul(7); usize::from(step + round) % 5];
                buffer.push(&bytes).unwrap();
                model.extend_from_slice(&bytes);
                assert_eq!(buffer.as_slice(), model);
                assert_eq!(buffer.len(), model.len());
                buffer.as_mut_slice().iter_mut().for_each(|byte| *byte ^= 1);
                model.iter_mut().for_each(|byte| *byte ^= 1);
            }
            buffer.clear();
            model.clear();
            assert!(buffer.as_slice().is_empty());
        }
    }

    #[test]
    fn few_bytes_need_no_memory_and_memory_is_kept() {
        let mut buffer = Buffer::<8>::default();
        buffer.push(&[1; 8]).unwrap();
        assert_eq!(buffer.heap_bytes(), 0);
        buffer.push(&[2]).unwrap();
        assert_eq!(buffer.as_slice(), [1, 1, 1, 1, 1, 1, 1, 1, 2]);
        let kept = buffer.heap_bytes();
        assert!(kept >= 9);
        buffer.clear();
        buffer.push(&[3; 9]).unwrap();
        assert_eq!((buffer.as_slice(), buffer.heap_bytes()), (&[3; 9][..], kept));
    }

    #[test]
    fn more_than_there_can_be_is_refused() {
        let mut buffer = Buffer::<8>::default();
        buffer.push(&[1]).unwrap();
        assert_eq!(buffer.extend(usize::MAX).map(|_| ()), Err(EncodeError::OutOfMemory));
        assert_eq!(buffer.as_slice(), [1]);
    }
}
