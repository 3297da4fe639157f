//! Tests of the index as a whole: one slot for each key, through growth, from many threads.

use std::collections::HashSet;
use std::sync::Barrier;

use super::*;
use crate::limits::KEY_BYTES_MAX;

const HASH_KEY: u64 = 7;

fn insert(index: &Index, key: SlotKey<'_>) -> (SlotRef, bool) {
    index.insert(index.hash(key), key).unwrap()
}

fn find(index: &Index, key: SlotKey<'_>) -> Option<SlotRef> {
    index.find(index.hash(key), key)
}

#[test]
fn what_was_inserted_is_found_once_through_growth() {
    let keys = if cfg!(miri) { 60 } else { 50_000_u32 };
    let index = Index::new(HASH_KEY);
    assert_eq!((index.len(), index.iter().count()), (0, 0));
    assert_eq!(find(&index, SlotKey::Aggregate(b"k")), None);
    let mut slots = Vec::new();
    for n in 0..keys {
        let key = n.to_le_bytes();
        assert_eq!(find(&index, SlotKey::Aggregate(&key)), None, "before {n}");
        let (slot, new) = insert(&index, SlotKey::Aggregate(&key));
        assert!(new);
        assert_eq!(slot.key(), key);
        slots.push(slot);
    }
    assert!(index.row.tables.load(Ordering::Relaxed) > 1, "the index grew");
    for (n, slot) in slots.iter().enumerate() {
        let key = (n as u32).to_le_bytes();
        assert_eq!(find(&index, SlotKey::Aggregate(&key)), Some(*slot));
        assert_eq!(insert(&index, SlotKey::Aggregate(&key)), (*slot, false));
    }
    assert_eq!(index.len(), slots.len());
    let listed: Vec<_> = index.iter().collect();
    assert_eq!(listed.len(), slots.len(), "each slot is listed once");
    assert_eq!(listed.iter().collect::<HashSet<_>>(), slots.iter().collect::<HashSet<_>>());
}

#[test]
fn keys_that_differ_in_kind_length_or_zeroes_are_kept_apart_under_one_hash() {
    let index = Index::new(HASH_KEY);
    let long = [0; KEY_BYTES_MAX];
    let mut longer_by_one_bit = long;
    longer_by_one_bit[KEY_BYTES_MAX - 1] = 1;
    let mut joined = [0; 17];
    joined[16] = b'k';
    let keys = [
        SlotKey::Aggregate(&long[..1]),
        SlotKey::Aggregate(&long[..2]),
        SlotKey::Aggregate(&long[..16]),
        SlotKey::Aggregate(&long[..17]),
        SlotKey::Aggregate(&long),
        SlotKey::Aggregate(&longer_by_one_bit),
        SlotKey::Aggregate(&joined),
        SlotKey::Client(0, b"k"),
        SlotKey::Client(0, &long),
        SlotKey::Client(0, &long[..1]),
        SlotKey::Client(1, &long[..1]),
        SlotKey::Client(1 << 127, &long[..1]),
    ];
    for hash in [0, u64::MAX, 2 << 48] {
        let slots = keys.map(|key| index.insert(hash, key).unwrap());
        for (nth, (slot, new)) in slots.into_iter().enumerate() {
            assert!(new, "{:?}", keys[nth]);
            assert_eq!(index.find(hash, keys[nth]), Some(slot));
        }
    }
    assert_eq!(index.find(3 << 48, keys[0]), None);
}

#[test]
fn one_hash_for_more_keys_than_a_probe_is_long_fills_several_tables() {
    let keys = if cfg!(miri) { 40 } else { PROBE_CELLS_MAX as u32 * 2 + 100 };
    let index = Index::new(HASH_KEY);
    for n in 0..keys {
        assert!(index.insert(1 << 48, SlotKey::Aggregate(&n.to_le_bytes())).unwrap().1);
    }
    for n in 0..keys {
        assert!(index.find(1 << 48, SlotKey::Aggregate(&n.to_le_bytes())).is_some(), "{n}");
        assert!(!index.insert(1 << 48, SlotKey::Aggregate(&n.to_le_bytes())).unwrap().1, "{n}");
    }
    assert_eq!(index.iter().count(), keys as usize);
}

#[test]
fn many_threads_agree_on_one_slot_for_each_key() {
    let (threads, shared, own) = if cfg!(miri) { (3, 20, 10) } else { (8, 4_000, 2_000_u32) };
    for round in 0..if cfg!(miri) { 1 } else { 8_u64 } {
        let index = Index::new(round);
        let start = Barrier::new(threads);
        let seen: Vec<(Vec<SlotRef>, usize)> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads as u32)
                .map(|thread| {
                    let (index, start) = (&index, &start);
                    scope.spawn(move || {
                        start.wait();
                        let mut slots = Vec::new();
                        let mut made = 0;
                        for n in 0..shared.max(own) {
                            if n < shared {
                                let key = n.to_le_bytes();
                                let (slot, new) = insert(index, SlotKey::Aggregate(&key));
                                made += usize::from(new);
                                assert_eq!(find(index, SlotKey::Aggregate(&key)), Some(slot));
                                slots.push(slot);
                            }
                            if n < own {
                                let key = n.to_le_bytes();
                                let key = SlotKey::Client(u128::from(thread), &key);
                                let (slot, new) = insert(index, key);
                                assert!(new, "nobody else inserts this key");
                                assert_eq!(find(index, key), Some(slot));
                                made += 1;
                            }
                        }
                        (slots, made)
                    })
                })
                .collect();
            all.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (slots, _) in &seen {
            assert!(*slots == seen[0].0, "every thread has the same slots for the same keys");
        }
        let distinct = shared as usize + threads * own as usize;
        assert_eq!(seen.iter().map(|(_, made)| made).sum::<usize>(), distinct);
        assert_eq!(index.len(), distinct);
        let keys: HashSet<_> =
            index.iter().map(|slot| (slot.kind() as u8, slot.key().to_vec())).collect();
        assert_eq!(keys.len(), distinct);
        assert_eq!(index.iter().count(), distinct);
    }
}

/// The tables together have at most 2 / (3/4) cells a slot, right after a new one: 21.4 bytes. A slot is at most 64
/// bytes and wastes at most 7 behind its key. The arena is at most a sixteenth ahead.
#[test]
#[cfg_attr(miri, ignore)]
fn an_idle_aggregate_takes_at_most_100_bytes_beyond_its_key() {
    for key_bytes in [9, 16] {
        let index = Index::new(HASH_KEY);
        let mut most = 0;
        for n in 1..=200_000_usize {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&n.to_le_bytes());
            let tables = index.row.tables.load(Ordering::Relaxed);
            insert(&index, SlotKey::Aggregate(&key[..key_bytes]));
            if n >= 100_000 && (n % 64 == 0 || tables != index.row.tables.load(Ordering::Relaxed)) {
                most = most.max((index.memory_bytes() - n * key_bytes).div_ceil(n));
            }
        }
        assert!(most <= 100, "{most} bytes with keys of {key_bytes}");
        assert!(most >= 80, "{most} bytes is too little to be true");
    }
}
