//! Data at any address and of any length, on a file system that refuses direct I/O that is not aligned, and on one that takes
//! anything.

use std::path::Path;

use annals::{Durability, Event, Expect, Store};

use crate::common::{audit, directory, small};
use crate::images::check_sound;
use crate::role::{mount_alone, mount_memory, play, say};

fn lengths() -> impl Iterator<Item = usize> {
    (0..300).chain((300..70_000).step_by(997)).chain([4095, 4096, 4097, 65_535, 65_536])
}

fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + length) as u8).collect()
}

fn append_odd_lengths(path: &Path, block: Option<u32>) {
    for method in [Durability::WriteDsync, Durability::WriteThenSync] {
        let path = path.join(format!("{method:?}"));
        let options = small().durability(method);
        let options = block.map_or(options.clone(), |block| options.block_bytes(block));
        let store = options.open(&path).unwrap();
        for (index, length) in lengths().enumerate() {
            let bytes = data(length + index % 3);
            // From each address within a word.
            let event = Event::new("E", &bytes[index % 3..]);
            store.append("a", Expect::Version(index as u64), [event]).unwrap().wait().unwrap();
        }
        drop(store);
        check_read(&options.open(&path).unwrap());
        check_sound(&path);
    }
}

fn check_read(store: &Store) {
    assert_eq!(audit(store).len(), lengths().count());
    for (index, (event, length)) in store.read("a").zip(lengths()).enumerate() {
        let event = event.unwrap();
        assert!(event.data() == &data(length + index % 3)[index % 3..], "{index}: {length} bytes");
    }
}

#[test]
fn data_of_any_length_from_any_address_on_a_real_disk() {
    let dir = directory();
    append_odd_lengths(dir.path(), None);
}

/// Role: on a file system without sectors.
pub fn a_file_system_in_memory(dir: &Path) {
    mount_alone();
    mount_memory(dir, 128 << 20);
    append_odd_lengths(dir, Some(512));
    say("as it should be");
}

#[test]
fn data_of_any_length_on_a_file_system_that_takes_anything() {
    let dir = directory();
    let unchecked = "a store on a file system in memory";
    if let Some(lines) = play("a file system in memory", dir.path(), unchecked) {
        assert_eq!(lines, ["as it should be"]);
    }
}
