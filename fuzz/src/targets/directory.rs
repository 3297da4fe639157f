//! A store directory that was tampered with: opened for reading and for writing, read to its end, appended to, opened again.
//!
//! Whatever lies there, a store that opens for writing shows what one that opens for reading shows, takes a write for
//! each shard, and has all of it when it is opened again.

use std::sync::Arc;

use annals::internals::disk::sim::{Order, SimDisk};
use annals::internals::format::decode_pair;
use annals::internals::open_on;
use annals::{Error, Event, Expect, Options, Position, Store};

use crate::edit::Tampered;
use crate::harness::{self, Outcome, Target};
use crate::image::Image;
use crate::stored::{self, Shown};

/// The target.
pub static TARGET: Target = Target { name: "directory", run, corpus: seeds, repair: None };

/// Room for what a store prepares: two of the first segments of a store whose identity says that they are large.
const ROOM: u64 = 2 << 20;
/// Shards beyond it cost time and say nothing new.
const SHARDS_MAX: u16 = 8;
/// The least that a flush takes, as a bound on how many writes a directory can hold.
const RECORD_BYTES_MIN: usize = 64;
/// What an open shard holds from the start, whatever it finds: a chunk of the tail, which is as large as the smallest that
/// `tail_bytes` can ask for, the first piece of the index, and the stacks' bookkeeping of three threads.
pub const SHARD_BYTES: usize = 768 << 10;

/// Options that hold what is held down.
pub fn options() -> Options {
    Options::new().tail_bytes(1 << 20).in_flight_bytes(1 << 20).mapped(false)
}

/// How many writes a directory can hold.
pub fn writes_max(image: &Image) -> usize {
    image.bytes() / RECORD_BYTES_MIN + 16
}

/// The input as a directory, unless there is nothing new to be seen in it.
pub fn image(input: &[u8]) -> Option<Image> {
    let image = Tampered::read(input)?.image();
    let identity = image.nodes.get("identity")?.as_ref();
    let identity = identity.and_then(|file| decode_pair(file).ok());
    let few = identity.is_none_or(|decoded| decoded.identity.shards <= SHARDS_MAX);
    few.then_some(image)
}

fn run(input: &[u8]) -> Outcome {
    let Some(image) = image(input) else { return Outcome::default() };
    let disk = image.disk(ROOM);
    disk.set_order(Order::Fifo);
    let most = writes_max(&image);
    let (shown, read) = harness::measure(|| shown(&disk, most));
    assert!(Image::of(&disk) == image, "opening for reading has changed the directory");
    let ((), written) = harness::measure(|| write(&disk, most, &shown));
    let shards = shown.as_ref().map_or(1, Vec::len);
    Outcome {
        reached: shown.is_ok_and(|logs| logs.iter().any(|log| !log.writes.is_empty())),
        bytes: image.bytes(),
        held: read.max(written),
        beside: shards * SHARD_BYTES + device(&image, shards),
    }
}

/// What a simulated disk holds of the segments that a store makes: two for each shard, as long as the identity says that they
/// become or as the first one is, once as they are now and once as a power cut would leave them.
fn device(image: &Image, shards: usize) -> usize {
    let identity = image.nodes.get("identity").cloned().flatten();
    let decoded = identity.and_then(|file| decode_pair(&file).ok());
    let segment = decoded.map_or(1 << 20, |decoded| decoded.identity.segment_bytes.min(1 << 20));
    2 * ROOM.min(2 * segment * shards as u64) as usize
}

/// What a store that is opened for reading shows.
fn shown(disk: &Arc<SimDisk>, most: usize) -> Result<Vec<Shown>, Error> {
    let store = open_on(&options().read_only(true), disk.clone())?;
    let logs = stored::all(&store, most, false);
    let refused = store.append("a", Expect::Any, [Event::new("Refused", "")]);
    assert!(refused.is_err(), "a store that was opened for reading takes a write");
    Ok(logs)
}

fn write(disk: &Arc<SimDisk>, most: usize, shown: &Result<Vec<Shown>, Error>) {
    let store = match open_on(&options(), disk.clone()) {
        Ok(store) => store,
        Err(error) => return stored::refused(&error),
    };
    let before = stored::all(&store, most, false);
    match shown {
        Ok(shown) => {
            let whole = before.iter().all(|log| log.error.is_none());
            assert!(!whole || before == *shown, "reading and writing show different logs");
        }
        // A file that is no identity may be there before a store is created.
        Err(_) => assert!(before.iter().all(|log| log.writes.is_empty())),
    }

    let mut added: Vec<Vec<Position>> = vec![Vec::new(); before.len()];
    for number in 0_u32..24 {
        let key = format!("added-{number}");
        let shard = usize::from(store.shard_of(&key));
        if added[shard].len() >= 2 {
            continue;
        }
        let ticket = store.append(&key, Expect::Any, [Event::new("Added", number.to_le_bytes())]);
        match ticket.and_then(|ticket| ticket.wait()) {
            Ok(committed) => added[shard].push(committed.position()),
            Err(error) => stored::refused(&error),
        }
    }
    if let Err(error) = store.close() {
        return stored::refused(&error);
    }
    drop(store);

    let store = match open_on(&options(), disk.clone()) {
        Ok(store) => store,
        Err(error) => panic!("a store that was closed does not open again: {error}"),
    };
    let after = stored::all(&store, most + 24, false);
    for ((before, after), added) in before.iter().zip(&after).zip(&added) {
        assert_eq!(before.error.is_some(), after.error.is_some(), "{before:?}, {after:?}");
        if before.error.is_none() {
            let expected = before.writes.len() + added.len();
            assert_eq!(after.writes.len(), expected, "writes were lost or came twice");
            let (kept, new) = after.writes.split_at(before.writes.len());
            assert!(kept == before.writes, "what was read is not what is read now");
            assert!(new.iter().map(|write| write.position).eq(added.iter().copied()));
        }
    }
    close(store);
}

fn close(store: Store) {
    if let Err(error) = store.close() {
        stored::refused(&error);
    }
}

/// The images as they are, and inputs made from numbers.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let whole = (0..4_u8).map(|image| (format!("whole-{image}"), vec![image, 0]));
    let repaired = (0..4_u8).map(|image| (format!("repaired-{image}"), vec![image, 7]));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mixed = (0..96).map(|nth| {
        let mut input = vec![nth as u8 % 4, nth as u8 % 8];
        for _ in 0..24 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            input.extend(state.to_le_bytes());
        }
        // Fewer edits leave more to be read.
        input.truncate(2 + 12 * (1 + nth % 8));
        (format!("mixed-{nth}"), input)
    });
    whole.chain(repaired).chain(mixed.collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image;

    #[test]
    #[should_panic(expected = "reading and writing show different logs")]
    fn a_write_that_is_lost_is_noticed() {
        let disk = image::all()[1].disk(ROOM);
        let mut shown = shown(&disk, 1000);
        shown.as_mut().unwrap()[0].writes.pop();
        write(&disk, 1000, &shown);
    }

    #[test]
    fn an_open_shard_holds_less_than_is_allowed() {
        let disk = image::all()[1].disk(ROOM);
        let shown = shown(&disk, 1000);
        let ((), held) =
            crate::kept::one_at_a_time(|| harness::measure(|| write(&disk, 1000, &shown)));
        eprintln!("{held} bytes");
        assert!((100_000..SHARD_BYTES + (64 << 10)).contains(&held), "{held}");
    }
}
