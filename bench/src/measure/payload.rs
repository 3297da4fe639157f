//! The bytes of events: random, so that nobody gains by compressing them, and made before the clock runs.

use rand::{Rng, SeedableRng, rngs::SmallRng};

/// How many random bytes events are cut from.
const POOL_BYTES: usize = 1 << 20;

/// Payloads of one size.
#[derive(Debug, Clone)]
pub struct Payloads {
    pool: Vec<u8>,
    bytes: usize,
    at: usize,
}

impl Payloads {
    /// Of so many bytes each.
    pub fn new(bytes: u64, seed: u64) -> Payloads {
        let bytes = bytes as usize;
        let mut pool = vec![0; POOL_BYTES.max(2 * bytes)];
        SmallRng::seed_from_u64(seed).fill_bytes(&mut pool);
        Payloads { pool, bytes, at: 0 }
    }

    /// That of an event, by its number.
    pub fn at(&self, number: u64) -> &[u8] {
        let places = (self.pool.len() - self.bytes) as u64;
        let at = (number * (self.bytes as u64 + 61) % places) as usize;
        &self.pool[at..at + self.bytes]
    }

    /// The next one.
    #[expect(clippy::should_implement_trait, reason = "an iterator's items may not borrow from it")]
    pub fn next(&mut self) -> &[u8] {
        // Odd, so that the same bytes come again late.
        self.at = (self.at + self.bytes + 61) % (self.pool.len() - self.bytes);
        &self.pool[self.at..self.at + self.bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_their_size_and_differ() {
        for bytes in [1, 128, 4096, POOL_BYTES as u64] {
            let mut payloads = Payloads::new(bytes, 1);
            let first = payloads.next().to_vec();
            assert_eq!(first.len() as u64, bytes);
            assert!(bytes < 16 || first != payloads.next(), "{bytes} bytes");
            assert_eq!(payloads.at(u64::from(u32::MAX)).len() as u64, bytes);
            assert!(bytes < 16 || payloads.at(1) != payloads.at(2), "{bytes} bytes");
        }
    }
}
