//! Numbers in and out of byte slices, without a panic.
//!
//! Callers check lengths first. A number that lies outside the slice all the same reads as 0 and is not written, so a
//! mistake here is caught by a checksum and never stops a thread.

/// What records and events are padded to.
pub(super) const ALIGN: usize = 8;

#[inline]
pub(super) const fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

#[inline]
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    debug_assert!(at + N <= bytes.len(), "{N} bytes at {at} of {}", bytes.len());
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

#[inline]
pub(super) fn u8_at(bytes: &[u8], at: usize) -> u8 {
    u8::from_le_bytes(array_at(bytes, at))
}

#[inline]
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

#[inline]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[inline]
pub(super) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(array_at(bytes, at))
}

#[inline]
pub(super) fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(array_at(bytes, at))
}

/// Writes a number, given as its little-endian bytes.
#[inline]
pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, number: [u8; N]) {
    debug_assert!(at + N <= bytes.len(), "{N} bytes at {at} of {}", bytes.len());
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = number;
    }
}

/// Whether there is nothing but zeros. Folds 64 bytes at a time: segments hold megabytes of them.
#[inline]
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // Padding is mostly shorter than a number, and there is some in every record and event.
    if bytes.len() < ALIGN {
        return bytes.iter().fold(0, |seen, byte| seen | byte) == 0;
    }
    is_zero_long(bytes)
}

fn is_zero_long(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| chunk.iter().fold(0, |seen, byte| seen | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_is_not_zero() {
        for length in [0, 1, 7, 8, 63, 64, 65, 200] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes));
            for at in 0..length {
                bytes[at] = 0x10;
                assert!(!is_zero(&bytes), "byte {at} of {length}");
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn numbers_come_back() {
        let mut bytes = [0; 20];
        put(&mut bytes, 3, 0x0102_0304_u32.to_le_bytes());
        assert_eq!(bytes[3..7], [4, 3, 2, 1]);
        assert_eq!(u32_at(&bytes, 3), 0x0102_0304);
        put(&mut bytes, 4, (-2_i64).to_le_bytes());
        assert_eq!(i64_at(&bytes, 4), -2);
    }
}
