//! M15: the index keeps a key in one slot, whoever inserts it and however the tables grow meanwhile.
//!
//! The first tables are tiny (two or four cells, with room for one or three), so that keys of a model make the
//! second table while the threads run.

#![cfg(loom)]

use annals::internals::index::{Fault, Index, SlotKey};
use loom::sync::Arc;
use loom::thread;

const KEY: SlotKey<'static> = SlotKey::Aggregate(b"key");
const OTHER: SlotKey<'static> = SlotKey::Aggregate(b"other");

/// Starts its probe at the first cell of every table, with a tag of its own.
const HASH: u64 = 1 << 48;
/// The same start, another tag.
const SAME_START: u64 = 2 << 48;

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// A inserts the key; B inserts another, which uses up the first table's room, and then the same key. A may stand before
/// its swap in the first table when B goes on to the second.
fn one_key_while_a_table_grows(fault: Fault) {
    explore(move || {
        let index = Arc::new(Index::model(2, fault));
        let a = {
            let index = index.clone();
            thread::spawn(move || index.insert(HASH, KEY).unwrap())
        };
        let other = index.insert(SAME_START, OTHER).unwrap();
        let ours = index.insert(HASH, KEY).unwrap();
        let theirs = a.join().unwrap();
        assert!(other.1);
        assert_eq!(ours.0, theirs.0, "one key, two slots");
        assert!(ours.1 != theirs.1, "one of them made it");
        assert_eq!(index.iter().count(), 2);
        assert_eq!(index.find(HASH, KEY), Some(ours.0));
        assert_eq!(index.find(SAME_START, OTHER), Some(other.0));
    });
}

#[test]
fn one_key_two_threads_a_table_growing_between_them() {
    one_key_while_a_table_grows(Fault::None);
}

#[test]
#[should_panic(expected = "one key, two slots")]
fn broken_a_cell_left_open_in_the_older_table() {
    one_key_while_a_table_grows(Fault::LeavesOpen);
}

/// Both threads insert the same two keys in opposite order, so each may meet the other's slot in the first empty cell of
/// its own probe, or lose the swap for it.
#[test]
fn different_keys_meet_in_one_cell() {
    explore(|| {
        let index = Arc::new(Index::model(4, Fault::None));
        let a = {
            let index = index.clone();
            thread::spawn(move || {
                let key = index.insert(HASH, KEY).unwrap();
                (key, index.insert(SAME_START, OTHER).unwrap())
            })
        };
        let other = index.insert(SAME_START, OTHER).unwrap();
        let key = index.insert(HASH, KEY).unwrap();
        let theirs = a.join().unwrap();
        assert_eq!((key.0, other.0), (theirs.0.0, theirs.1.0));
        assert!(key.1 != theirs.0.1 && other.1 != theirs.1.1);
        assert_eq!(index.iter().count(), 2);
    });
}

/// B finds nothing, or the slot with all that it says.
///
/// The insertion is on the thread that loom runs first: loom keeps one last load of a word, so it would not come back to a
/// lookup's load after the load with which an insertion begins.
fn find_beside_insert(fault: Fault) {
    explore(move || {
        let index = Arc::new(Index::model(2, fault));
        let b = {
            let index = index.clone();
            thread::spawn(move || {
                index.find(HASH, KEY).inspect(|slot| assert_eq!(slot.key(), b"key"))
            })
        };
        let made = index.insert(HASH, KEY).unwrap().0;
        let found = b.join().unwrap();
        assert!(found.is_none_or(|slot| slot == made));
        assert_eq!(index.find(HASH, KEY), Some(made));
    });
}

#[test]
fn a_lookup_beside_an_insertion() {
    find_beside_insert(Fault::None);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn broken_an_address_published_without_its_slot() {
    find_beside_insert(Fault::PublishesRelaxed);
}

/// A makes the second table and may stand before counting it when B puts its key there. B must find what it inserted.
fn own_insertion_in_a_table_made_by_another(fault: Fault) {
    explore(move || {
        let index = Arc::new(Index::model(2, fault));
        index.insert(3 << 48, SlotKey::Aggregate(b"first")).unwrap();
        let a = {
            let index = index.clone();
            thread::spawn(move || index.insert(SAME_START, OTHER).unwrap())
        };
        let ours = index.insert(HASH, KEY).unwrap();
        assert_eq!(index.find(HASH, KEY), Some(ours.0), "inserted and not found");
        a.join().unwrap();
    });
}

#[test]
fn an_insertion_is_found_though_the_maker_of_its_table_stopped() {
    own_insertion_in_a_table_made_by_another(Fault::None);
}

#[test]
#[should_panic(expected = "inserted and not found")]
fn broken_a_table_counted_by_its_maker_alone() {
    own_insertion_in_a_table_made_by_another(Fault::LeavesUncounted);
}
