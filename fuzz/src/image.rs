//! Store directories made by the encoder: what edits start from.
//!
//! They are made here and not by opening a store, because an input has to mean the same in every process: nothing in them
//! is random, and nothing depends on when a thread ran.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use annals::internals::disk::sim::SimDisk;
use annals::internals::disk::{Access, Disk};
use annals::internals::format::{
    IDENTITY_BYTES, IDENTITY_OFFSETS, Identity, SegmentKind, SyncChoice,
};
use annals::internals::id::{SegmentId, ShardId, StoreId};
use annals::internals::open_on;
use annals::{Event, Expect, Options, Position};

use crate::samples::{self, Segment};
use crate::{AcceptedEnd, FLUSH_HEADER_BYTES, FlushSequence};

/// Blocks of the images: the smallest, so that an image is small and an edit hits something.
pub const BLOCK: u32 = 512;
/// Segments that a store makes on an image are this long, so that it rolls, and costs little.
const SEGMENT_BYTES: u64 = 16 << 10;
const STORE: u128 = 0x000f_1e2d_3c4b_5a69_7887_96a5_b4c3_d2e1;

/// What lies in a store directory, by path; a directory has no bytes.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Image {
    pub nodes: BTreeMap<String, Option<Vec<u8>>>,
}

impl Image {
    /// How long all files are together.
    pub fn bytes(&self) -> usize {
        self.nodes.values().flatten().map(Vec::len).sum()
    }

    /// A disk that holds it, all of it durable, with room for so much more.
    pub fn disk(&self, room: u64) -> Arc<SimDisk> {
        let disk = SimDisk::with_block(1, BLOCK);
        // What holds a file comes before it, in the order of their names. A name that can't be made is left out.
        for (path, node) in &self.nodes {
            match node {
                None => {
                    let _unmade = disk.create_dir(path);
                }
                Some(bytes) => {
                    if let Ok(file) = disk.create(path) {
                        file.write_at(0, bytes).expect("a new file takes bytes");
                        file.sync().expect("a new file is made durable");
                    }
                }
            }
        }
        for dir in self.nodes.iter().filter(|(_, node)| node.is_none()).map(|(path, _)| &**path) {
            let _unmade = disk.sync_dir(dir);
        }
        disk.sync_dir("").expect("the directory of the store is there");
        disk.set_capacity(self.bytes() as u64 + room);
        disk
    }

    /// What a disk holds now.
    pub fn of(disk: &SimDisk) -> Image {
        let mut image = Image::default();
        let mut dirs = vec![String::new()];
        while let Some(dir) = dirs.pop() {
            for entry in disk.list(&dir).expect("it was listed, or is the store's") {
                let path =
                    if dir.is_empty() { entry.name } else { format!("{dir}/{}", entry.name) };
                let content = entry.regular.then(|| {
                    let file = disk.open(&path, Access::Read).expect("it was listed");
                    let mut bytes = vec![0; entry.bytes as usize];
                    file.read_at(0, &mut bytes).expect("it is so long");
                    bytes
                });
                if content.is_none() {
                    dirs.push(path.clone());
                }
                image.nodes.insert(path, content);
            }
        }
        image
    }

    /// How long the files of a disk are together.
    pub fn bytes_on(disk: &SimDisk) -> u64 {
        let list = |dir: &str| disk.list(dir).expect("it is there");
        let dirs: Vec<_> = list("").into_iter().filter(|entry| !entry.regular).collect();
        let below = dirs.iter().flat_map(|entry| list(&entry.name));
        below.chain(list("")).map(|entry| entry.bytes).sum()
    }

    /// The paths of the files.
    pub fn files(&self) -> Vec<String> {
        self.nodes.iter().filter(|(_, node)| node.is_some()).map(|(path, _)| path.clone()).collect()
    }
}

/// What an identity file says of the stores made here.
pub fn identity(shards: u16, route: Option<u8>) -> Identity {
    Identity {
        store: StoreId(STORE),
        hash_key: 7,
        shards,
        route,
        segment_bytes: SEGMENT_BYTES,
        block_bytes: BLOCK,
        sync: SyncChoice::WriteDsync,
        generation: 1,
    }
}

/// An identity file with two copies.
pub fn identity_file(copies: [&[u8]; 2]) -> Vec<u8> {
    let mut file = vec![0; IDENTITY_BYTES];
    for (at, copy) in IDENTITY_OFFSETS.into_iter().zip(copies) {
        file[at..at + copy.len()].copy_from_slice(copy);
    }
    file
}

/// A store without a log.
pub fn empty(identity: &Identity) -> Image {
    let copy = identity.encode();
    let mut image = Image::default();
    image.nodes.insert("identity".to_owned(), Some(identity_file([&copy, &copy])));
    image.nodes.insert("lock".to_owned(), Some(Vec::new()));
    for shard in 0..identity.shards {
        image.nodes.insert(format!("shard-{shard:04}"), None);
    }
    image
}

/// What a write of an image does to one key.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// Appends so many events.
    Append(u8),
    Check,
    /// Moves the checkpoint of this name on.
    Move,
    Snapshot,
}

#[derive(Clone, Copy, Default)]
struct Stand {
    version: u64,
    last: Position,
    skip: Position,
    snapshot: Position,
    checkpoint: Position,
    moved: Position,
}

/// The log of one shard in the making.
struct Log {
    shard: u16,
    /// What all its keys begin with, so that they belong to the shard.
    prefix: String,
    segments: Vec<Segment>,
    stands: BTreeMap<Vec<u8>, Stand>,
    written: u64,
}

impl Log {
    fn new(shard: u16, prefix: &str) -> Log {
        let prefix = prefix.to_owned();
        Log { shard, prefix, segments: Vec::new(), stands: BTreeMap::new(), written: 0 }
    }

    fn last(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("a segment was begun")
    }

    /// Begins a segment, as an opening does or as one that is full does.
    fn begin(&mut self, id: u32, blocks: u32, rolled: bool) {
        let before = self.segments.last();
        let accepted = before.map(|before| AcceptedEnd {
            position: before.frontier,
            sequence: FlushSequence(before.sequence - 1),
            checksum: before.previous,
        });
        let mut segment = Segment::new(BLOCK, blocks);
        segment.header.origin.store = StoreId(STORE);
        segment.header.origin.shard = ShardId(self.shard);
        segment.header.origin.segment = SegmentId(id);
        segment.header.origin.salt = 0x5a17_0000 + u64::from(id) * 0x101 + u64::from(self.shard);
        segment.header.kind =
            if rolled { SegmentKind::Rolled } else { SegmentKind::Opened { accepted } };
        segment.header.encode(&mut segment.bytes[..BLOCK as usize]);
        segment.sequence = before.map_or(1, |before| before.sequence);
        segment.previous = before.map_or(0, |before| before.previous);
        segment.frontier = before.map_or(Position::START, |before| before.frontier);
        self.segments.push(segment);
    }

    /// One flush of writes, each with its client's sequence or 0.
    fn flush(&mut self, writes: &[(u64, &[(&str, Does)])]) {
        let salt = self.last().header.origin.salt;
        let mut at = self.last().at + FLUSH_HEADER_BYTES;
        let mut records = Vec::new();
        for (sequence, write) in writes {
            let position = self.last().position(at);
            let parts = write.iter().map(|(key, does)| self.part(key, *does, position));
            let mut record = samples::Record::new(parts.collect());
            record.client = (*sequence > 0).then_some((0xc11e47, *sequence));
            at += record.encode(salt, position).len();
            records.push(record);
        }
        self.last().flush(&records);
    }

    fn part(&mut self, key: &str, does: Does, at: Position) -> samples::Part {
        self.written += 1;
        let key = format!("{}{key}", self.prefix).into_bytes();
        let written = self.written;
        let stand = self.stands.entry(key.clone()).or_default();
        let before = stand.version;
        match does {
            Does::Append(events) => {
                let expect = match written % 3 {
                    0 => Expect::Any,
                    1 if before == 0 => Expect::Absent,
                    1 => Expect::Exists,
                    _ => Expect::Version(before),
                };
                let events =
                    (0..events).map(|nth| Event::new("Noted", vec![nth; usize::from(nth) * 7 + 1]));
                let mut part =
                    samples::Part::append(&key, expect, before + 1, stand.last, events.collect());
                part.skip = stand.skip;
                (stand.version, stand.last) = (before + 1, at);
                if stand.version.is_multiple_of(64) {
                    stand.skip = at;
                }
                part
            }
            Does::Check => samples::Part::check(&key, Expect::Version(before), before),
            Does::Move => {
                let to = Position::from_raw(stand.checkpoint.get() + 4096);
                let part = samples::Part::checkpoint(&key, stand.checkpoint, to, stand.moved);
                (stand.checkpoint, stand.moved) = (to, at);
                part
            }
            Does::Snapshot => {
                let part =
                    samples::Part::snapshot(&key, before, stand.snapshot, &written.to_le_bytes());
                stand.snapshot = at;
                part
            }
        }
    }

    /// Puts the segments into an image; `cut`: only as much of the last as was used, as closing leaves it.
    fn store(self, image: &mut Image, cut: bool) {
        let last = self.segments.len();
        for (nth, mut segment) in self.segments.into_iter().enumerate() {
            if cut && nth + 1 == last {
                segment.bytes.truncate(segment.at);
            }
            let id = segment.header.origin.segment.0;
            let path = format!("shard-{:04}/{id:016x}.seg", self.shard);
            image.nodes.insert(path, Some(segment.bytes));
        }
    }
}

/// A log with one of everything over three segments: begun, rolled, opened again.
fn everything(shard: u16, prefix: &str) -> Log {
    let mut log = Log::new(shard, prefix);
    log.begin(1, 14, false);
    log.flush(&[(0, &[("a", Does::Append(2))])]);
    log.flush(&[
        (1, &[("a", Does::Append(1)), ("b", Does::Check)]),
        (0, &[("c", Does::Append(3))]),
    ]);
    log.flush(&[(0, &[("p", Does::Move), ("a", Does::Append(1))]), (2, &[("b", Does::Append(1))])]);
    log.flush(&[(0, &[("a", Does::Snapshot)])]);
    log.begin(2, 12, true);
    log.flush(&[(3, &[("a", Does::Append(1)), ("b", Does::Append(4)), ("c", Does::Check)])]);
    log.flush(&[(0, &[("a", Does::Snapshot)]), (0, &[("p", Does::Move)])]);
    log.flush(&[]);
    log.begin(4, 12, false);
    log.flush(&[(4, &[("d", Does::Append(1))])]);
    log.flush(&[(0, &[("d", Does::Append(1)), ("a", Does::Append(1))])]);
    log.flush(&[]);
    log
}

/// For each of two shards a prefix whose keys belong to it.
fn prefixes(image: &Image) -> [String; 2] {
    let store = open_on(&Options::new().read_only(true), image.disk(0)).expect("it is empty");
    let of = |shard| {
        let mut all = (0..64).map(|number| format!("{number}/"));
        all.find(|prefix| store.shard_of(prefix) == shard).expect("one in two is")
    };
    [of(0), of(1)]
}

/// The directories that edits start from. An input names one by its number, so their order stands.
pub fn all() -> &'static [Image] {
    static IMAGES: LazyLock<Vec<Image>> = LazyLock::new(made);
    &IMAGES
}

fn made() -> Vec<Image> {
    let mut images = vec![empty(&identity(1, None))];

    let mut whole = empty(&identity(1, None));
    everything(0, "").store(&mut whole, true);
    images.push(whole);

    let routed = identity(2, Some(b'/'));
    let mut two = empty(&routed);
    let [first, second] = prefixes(&two);
    everything(0, &first).store(&mut two, false);
    let mut second = Log::new(1, &second);
    second.begin(1, 8, false);
    second.flush(&[(1, &[("1", Does::Append(1)), ("2", Does::Append(1))])]);
    second.flush(&[]);
    second.store(&mut two, true);
    images.push(two);

    // More than 64 versions, so that there are skips; the last flushes were not recorded as durable.
    let mut long = empty(&identity(1, None));
    let mut log = Log::new(0, "");
    log.begin(1, 60, false);
    for _ in 0..23 {
        let write: &[(&str, Does)] = &[("long", Does::Append(1))];
        log.flush(&[(0, write), (0, write), (0, write)]);
    }
    log.store(&mut long, false);
    // What a store prepares ahead, and what others leave in a directory.
    long.nodes.insert("shard-0000/0000000000000002.spare".to_owned(), Some(vec![0; 2048]));
    long.nodes.insert("shard-0000/.DS_Store".to_owned(), Some(b"\0\0\0\x01Bud1".to_vec()));
    images.push(long);
    images
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored;
    use crate::targets::directory;

    #[test]
    fn the_images_are_sound_stores() {
        let writes = [[0, 0], [11, 0], [11, 1], [69, 0]];
        for (image, writes) in all().iter().zip(writes) {
            let disk = image.disk(1 << 20);
            let store = open_on(&directory::options(), disk).unwrap();
            let logs = stored::all(&store, 1000, true);
            let found: Vec<usize> = logs.iter().map(|log| log.writes.len()).collect();
            assert_eq!(found[..], writes[..found.len()]);
        }
    }
}
