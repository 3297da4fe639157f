//! Who follows a shard's log, and whether it goes on.
//!
//! A subscription waits for the watermark in one list for the shard. A watch of an aggregate, or of all keys that begin
//! alike, waits in the list of a slot, so that the log writer passes those by whose keys it did not touch. What the log
//! writer has to know beforehand stands here: which lengths of prefixes are watched, and whether anything is.

use std::sync::OnceLock;

use crate::error::Error;
use crate::limits::KEY_BYTES_MAX;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::followers::Followers;
use crate::sync::process::Forks;

const LENGTH_WORDS: usize = KEY_BYTES_MAX / 64 + 1;

/// See the module.
#[derive(Debug)]
pub struct Following {
    /// Who waits for the watermark to move, or for the end.
    pub followers: Followers,
    /// A copy in a child is never rung.
    forks: Forks,
    /// Set when the watermark moves no more.
    ended: OnceLock<Result<(), Error>>,
    /// Some slot had a watcher once.
    watched: AtomicBool,
    /// Some prefix was watched once.
    prefixes: AtomicBool,
    /// Which lengths such prefixes have, a bit for each.
    lengths: [AtomicU64; LENGTH_WORDS],
}

impl Following {
    /// Nobody follows.
    pub fn new() -> Following {
        Following {
            followers: Followers::new(),
            forks: Forks::watch(),
            ended: OnceLock::new(),
            watched: AtomicBool::new(false),
            prefixes: AtomicBool::new(false),
            lengths: [const { AtomicU64::new(0) }; LENGTH_WORDS],
        }
    }

    /// The log writer, or who opens without one: nothing more becomes durable, because the shard was closed, or for
    /// this reason. Those who wait are rung afterwards. The first reason stays.
    pub fn end(&self, why: Result<(), Error>) {
        let _first_stays = self.ended.set(why);
    }

    /// Whether nothing more becomes durable, and why. In a child of the process that follows, nothing ever does.
    pub fn ended(&self) -> Option<Result<(), Error>> {
        match self.check_process() {
            Ok(()) => self.ended.get().cloned(),
            forked => Some(forked),
        }
    }

    /// Refuses a child of the process that opened the shard.
    #[inline]
    pub fn check_process(&self) -> Result<(), Error> {
        if self.forks.is_copy() { Err(Error::forked()) } else { Ok(()) }
    }

    /// Before a slot's watchers are joined.
    pub fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Before the watchers of a prefix of this length are joined. It is never too long to be a key's.
    pub fn watch_prefix(&self, bytes: usize) {
        self.watch();
        if let Some(word) = self.lengths.get(bytes / 64) {
            word.fetch_or(1 << (bytes % 64), Ordering::Relaxed);
            self.prefixes.store(true, Ordering::Relaxed);
        }
    }

    /// Whether some slot may have watchers.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// The prefixes of a key that have lengths which are watched.
    #[inline]
    pub fn prefixes_of<'k>(&self, key: &'k [u8]) -> impl Iterator<Item = &'k [u8]> + use<'_, 'k> {
        let words = if self.prefixes.load(Ordering::Relaxed) { &self.lengths[..] } else { &[] };
        words.iter().zip((0..=key.len()).step_by(64)).flat_map(move |(word, first)| {
            let mut bits = word.load(Ordering::Relaxed);
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
                bits &= bits - 1;
                Some(first + bit)
            })
            .map_while(|length| key.get(..length))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_prefixes_whose_lengths_are_watched() {
        let following = Following::new();
        let key = [7; KEY_BYTES_MAX];
        let lengths = |bytes: usize| -> Vec<usize> {
            following.prefixes_of(&key[..bytes]).map(<[u8]>::len).collect()
        };
        assert_eq!(lengths(KEY_BYTES_MAX), []);
        assert!(!following.is_watched());
        for bytes in [0, 3, 63, 64, 65, 500, KEY_BYTES_MAX] {
            following.watch_prefix(bytes);
        }
        assert!(following.is_watched());
        assert_eq!(lengths(1), [0]);
        assert_eq!(lengths(3), [0, 3]);
        assert_eq!(lengths(64), [0, 3, 63, 64]);
        assert_eq!(lengths(499), [0, 3, 63, 64, 65]);
        assert_eq!(lengths(KEY_BYTES_MAX), [0, 3, 63, 64, 65, 500, KEY_BYTES_MAX]);
    }
}
