//! What a slot is looked up by, and the hash of it.
//!
//! Which bits of a hash decide what, so that one decision says nothing about the next:
//!
//! | bits | decide |
//! |---|---|
//! | 0–31 | the line of a table where a probe starts |
//! | 32–47 | the shard |
//! | 48–63 | the tag in a table's cell |

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::limits::KEY_BYTES_MAX;
use crate::reserve::slot::SlotKind;
use crate::reserve::slot_ref::SlotRef;

const CLIENT_BYTES: usize = size_of::<u128>();

/// What a slot is looked up by. A client's key is in two parts, so that nobody joins them before there is need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotKey<'a> {
    /// An aggregate.
    Aggregate(&'a [u8]),
    /// A client on an aggregate.
    Client(u128, &'a [u8]),
    /// A checkpoint, by its name.
    Checkpoint(&'a [u8]),
    /// The snapshots of an aggregate.
    Snapshot(&'a [u8]),
    /// All keys that begin like this.
    Prefix(&'a [u8]),
}

impl<'a> SlotKey<'a> {
    /// The most bytes of key that stand behind a slot.
    pub(super) const BYTES_MAX: usize = CLIENT_BYTES + KEY_BYTES_MAX;

    /// The hash, keyed by store: who does not know `hash_key` can't choose keys that collide.
    #[inline]
    #[must_use]
    pub fn hash(self, hash_key: u64) -> u64 {
        match self {
            SlotKey::Aggregate(key) => xxh3_64_with_seed(key, hash_key),
            SlotKey::Client(client, key) => {
                xxh3_64_with_seed(key, xxh3_64_with_seed(&client.to_le_bytes(), hash_key))
            }
            // What shares its bytes with an aggregate's key is looked for elsewhere.
            SlotKey::Checkpoint(_) | SlotKey::Snapshot(_) | SlotKey::Prefix(_) => {
                xxh3_64_with_seed(self.text(), hash_key.wrapping_add(self.kind() as u64))
            }
        }
    }

    fn kind(self) -> SlotKind {
        match self {
            SlotKey::Aggregate(_) => SlotKind::Aggregate,
            SlotKey::Client(..) => SlotKind::Client,
            SlotKey::Checkpoint(_) => SlotKind::Checkpoint,
            SlotKey::Snapshot(_) => SlotKind::Snapshot,
            SlotKey::Prefix(_) => SlotKind::Prefix,
        }
    }

    /// The bytes that it shares with a key, a name or a prefix.
    fn text(self) -> &'a [u8] {
        match self {
            SlotKey::Aggregate(text)
            | SlotKey::Client(_, text)
            | SlotKey::Checkpoint(text)
            | SlotKey::Snapshot(text)
            | SlotKey::Prefix(text) => text,
        }
    }

    /// Whether the slot stands for this key.
    #[inline]
    pub(super) fn names(self, slot: SlotRef) -> bool {
        if slot.kind() != self.kind() {
            return false;
        }
        let whole = slot.key();
        let SlotKey::Client(client, key) = self else { return same(self.text(), whole) };
        whole
            .split_at_checked(CLIENT_BYTES)
            .is_some_and(|(number, rest)| same(&client.to_le_bytes(), number) && same(key, rest))
    }

    /// The length of the key behind a slot.
    pub(super) fn bytes(self) -> usize {
        let client = if let SlotKey::Client(..) = self { CLIENT_BYTES } else { 0 };
        client + self.text().len()
    }

    /// Hands out kind and key as a slot keeps them.
    pub(super) fn joined<R>(self, take: impl FnOnce(SlotKind, &[u8]) -> R) -> R {
        let SlotKey::Client(client, key) = self else { return take(self.kind(), self.text()) };
        let mut whole = [0; Self::BYTES_MAX];
        let whole = &mut whole[..self.bytes()];
        whole[..CLIENT_BYTES].copy_from_slice(&client.to_le_bytes());
        whole[CLIENT_BYTES..].copy_from_slice(key);
        take(SlotKind::Client, whole)
    }
}

/// Equality of bytes without the call that comparing slices makes, for the length that most keys have.
#[inline]
fn same(left: &[u8], right: &[u8]) -> bool {
    match (<[u8; 16]>::try_from(left), <[u8; 16]>::try_from(right)) {
        (Ok(left), Ok(right)) => u128::from_ne_bytes(left) == u128::from_ne_bytes(right),
        _ => left == right,
    }
}

/// The shard, of so many, on which the aggregate with this hash lives.
///
/// Every slot that belongs to an aggregate lives there, so this takes the hash of the aggregate, never a client's.
#[inline]
#[must_use]
pub fn shard_of(hash: u64, shards: u16) -> u16 {
    let drawn = (hash >> 32) as u16;
    ((u32::from(drawn) * u32::from(shards)) >> 16) as u16
}

/// The bits of a hash that decide where a probe starts.
#[inline]
pub(super) fn start_bits(hash: u64) -> usize {
    hash as u32 as usize
}

/// The bits of a hash that a table's cell repeats. Never 0: that tag says that a cell holds no slot.
#[inline]
pub(super) fn tag(hash: u64) -> u64 {
    (hash >> 48).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_parts_and_stores_hash_apart() {
        let key = [7; 16];
        let hashes = [
            SlotKey::Aggregate(&key).hash(1),
            SlotKey::Aggregate(&key).hash(2),
            SlotKey::Client(7, &key).hash(1),
            SlotKey::Client(8, &key).hash(1),
            SlotKey::Client(7, &key[1..]).hash(1),
            SlotKey::Aggregate(&[7; 32]).hash(1),
        ];
        for (nth, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..nth].contains(hash), "hash {nth}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn shards_are_in_range_and_evenly_used() {
        for shards in [1, 2, 3, 7, crate::limits::SHARDS_MAX] {
            let mut keys = vec![0_u32; usize::from(shards)];
            for n in 0..64 * u64::from(shards) {
                keys[usize::from(shard_of(
                    SlotKey::Aggregate(&n.to_le_bytes()).hash(5),
                    shards,
                ))] += 1;
            }
            assert!(keys.iter().all(|n| (20..=120).contains(n)), "{shards} shards: {keys:?}");
        }
        assert_eq!(shard_of(u64::MAX, 3), 2);
        assert_eq!(shard_of(0, 3), 0);
    }

    #[test]
    fn the_tag_of_no_hash_is_that_of_an_empty_cell() {
        assert_eq!(tag(u64::MAX >> 16), 1);
        assert_eq!(tag(u64::MAX), 0xffff);
    }
}
