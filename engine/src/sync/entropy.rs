//! Random numbers for names: store ids, salts, the key of the hash. Not for secrets.

use std::hash::{BuildHasher, RandomState};

/// 64 bits that nobody has seen before. `RandomState` takes its keys from the operating system.
pub(crate) fn entropy() -> u64 {
    #[cfg(feature = "internals")]
    if let Some(host) = super::host::current() {
        return host.draw();
    }
    // Its keys are drawn once a thread and then counted up: hashing nothing under them spreads that over all bits.
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests {
    use super::entropy;
    use std::collections::HashSet;

    #[test]
    fn no_number_comes_twice() {
        const NUMBERS: usize = if cfg!(miri) { 20 } else { 10_000 };
        let numbers: HashSet<u64> = (0..NUMBERS).map(|_| entropy()).collect();
        assert_eq!(numbers.len(), NUMBERS);
    }
}
