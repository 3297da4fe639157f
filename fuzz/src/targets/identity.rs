//! Two copies of an identity: a byte that says which to repair, then the copies, which are put where they belong in the file.
//! What the file says encodes to the copy it was read from, and a store that opens on it has what it says.

use std::sync::Arc;

use annals::Options;
use annals::internals::disk::sim::SimDisk;
use annals::internals::format::{Identity, SyncChoice, decode_pair};
use annals::internals::id::StoreId;
use annals::internals::open_on;

use crate::harness::{self, Outcome, Target};
use crate::image::{self, Image};
use crate::{repair, stored};

/// The target.
pub static TARGET: Target = Target { name: "identity", run, corpus: seeds, repair: Some(repair) };

const COPY: usize = 512;
/// Shards of a store that is opened. More of them are only more of the same.
const SHARDS_MAX: u16 = 4;

fn run(input: &[u8]) -> Outcome {
    let mut input = input.to_vec();
    repair(&mut input);
    let (_, copies) = input.split_at(input.len().min(1));
    let (first, second) = copies.split_at(copies.len().min(COPY));
    let second = &second[..second.len().min(COPY)];
    let mut file = image::identity_file([first, second]);
    // A file that was cut: its last copy is shorter, or not there.
    file.truncate(file.len() - COPY + second.len());
    let copy = |nth: usize| {
        let mut copy = [first, second][nth].to_vec();
        copy.resize(COPY, 0);
        copy
    };
    let (decoded, held) = harness::measure(|| decode_pair(&file));
    let mut outcome = Outcome { bytes: file.len(), held, ..Outcome::default() };
    if let Ok(decoded) = &decoded {
        let kept = copy(1 - decoded.replace);
        assert_eq!(decoded.identity.encode()[..], kept, "what is read encodes to itself");
        if decoded.damaged.is_none() {
            let alone = decode_pair(&image::identity_file([&copy(decoded.replace), &[]]));
            let alone = alone.expect("both are whole").identity;
            assert!(alone.generation <= decoded.identity.generation);
            assert_eq!(alone.store, decoded.identity.store);
        }
        outcome.reached = true;
    }
    let identity = decoded.ok().map(|decoded| decoded.identity);
    let shards = identity.map_or(1, |identity| identity.shards);
    if shards <= SHARDS_MAX {
        let mut image = image::empty(&image::identity(shards, None));
        image.nodes.insert("identity".to_owned(), Some(file));
        let disk = image.disk(0);
        let ((), held) = harness::measure(|| open(&disk, identity));
        outcome.held = outcome.held.max(held);
        let kept = Image::of(&disk);
        assert!(kept == image, "opening for reading has changed the directory");
    }
    outcome
}

/// A store of that identity, without a log.
fn open(disk: &Arc<SimDisk>, identity: Option<Identity>) {
    let opened = open_on(&Options::new().read_only(true), disk.clone());
    match (&opened, identity) {
        (Ok(store), Some(identity)) => {
            let stats = store.stats();
            assert_eq!(store.shards(), identity.shards);
            assert_eq!(stats.block_bytes, identity.block_bytes);
            assert_eq!(stats.segment_bytes, identity.segment_bytes);
            assert!(stored::all(store, 0, true).iter().all(|log| log.writes.is_empty()));
        }
        (Err(error), None) => stored::refused(error),
        (Ok(_), None) => panic!("a store was opened on an identity that says nothing"),
        (Err(error), Some(_)) => panic!("a store was not opened on a whole identity: {error}"),
    }
}

fn repair(input: &mut [u8]) {
    let Some((mode, copies)) = input.split_first_mut() else { return };
    for (nth, copy) in copies.chunks_exact_mut(COPY).take(2).enumerate() {
        if *mode >> nth & 1 != 0 {
            repair::repair_identity(copy);
        }
    }
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let one = image::identity(1, None);
    let newer = Identity { generation: 2, sync: SyncChoice::WriteThenSync, ..one };
    let routed = image::identity(3, Some(b'/'));
    let other = Identity { store: StoreId(9), ..one };
    let large = Identity { shards: 1024, segment_bytes: 1 << 30, block_bytes: 65_536, ..one };
    let pair = |name: &str, mode: u8, first: Identity, second: Identity| {
        (name.to_owned(), [&[mode][..], &first.encode(), &second.encode()].concat())
    };
    vec![
        pair("same", 3, one, one),
        pair("newer", 3, one, newer),
        pair("older", 3, newer, one),
        pair("routed", 3, routed, routed),
        pair("large", 3, large, large),
        pair("two-stores", 3, one, other),
        pair("disagree", 3, one, Identity { shards: 2, ..one }),
        pair("unrepaired", 0, one, newer),
        ("one-copy".to_owned(), [&[0][..], &one.encode()].concat()),
        ("nothing".to_owned(), vec![0]),
    ]
}
