//! Recovery and the verifier read the same bytes by different code. Over many damaged images they agree on where the log
//! ends, on how much of it there is, and on whether and where it is damaged.

use std::sync::Arc;

use super::hand::*;
use crate::disk::sim::{Op, SimDisk};
use crate::disk::{Access, Disk};
use crate::recover::Mode;
use crate::verify::verify_on;

/// The files of one shard.
type Image = Vec<(String, Vec<u8>)>;

fn image(disk: &dyn Disk) -> Image {
    let mut files: Image = disk
        .list("shard-0000")
        .unwrap()
        .into_iter()
        .map(|entry| {
            let path = format!("shard-0000/{}", entry.name);
            let mut bytes = vec![0; entry.bytes as usize];
            disk.open(&path, Access::Read).unwrap().read_at(0, &mut bytes).unwrap();
            (path, bytes)
        })
        .collect();
    files.sort();
    files
}

fn disk_of(image: &Image) -> Arc<SimDisk> {
    let disk = SimDisk::with_block(1, BLOCK as u32);
    furnish(&*disk);
    for (path, bytes) in image {
        disk.create(path).unwrap().write_at(0, bytes).unwrap();
    }
    disk
}

/// What one reader makes of an image, in the words of both.
#[derive(PartialEq, Eq, Debug)]
struct Reading {
    end: u64,
    sequence: u64,
    writes: u64,
    /// The first place where something is wrong that both look at.
    first_damage: Option<(String, u64)>,
}

/// Returns whether the image is damaged.
fn agree(image: &Image, what: &dyn Fn() -> String) -> bool {
    let disk = disk_of(image);
    let recovered = open(&*disk, Mode::Read);
    let changes =
        || [Op::Write, Op::Sync, Op::Create, Op::SyncDir, Op::Prepare].map(|op| disk.count(op));
    let before = changes();
    let verified = verify_on(&*disk, &mut |_, _| {});
    assert_eq!(changes(), before, "{}: the verifier changes nothing", what());
    let (recovered, verified) = match (recovered, verified) {
        (Ok((recovered, _)), Ok(verified)) => (recovered, verified),
        (Err(left), Err(right)) => {
            assert_eq!(left.kind(), right.kind(), "{}", what());
            return true;
        }
        (left, right) => panic!("{}: {:?} and {:?}", what(), left.err(), right.err()),
    };
    // Recovery leaves the events of what is proven to those who read them.
    let common = verified.problems.iter().filter(|problem| {
        recovered.damage.iter().any(|damage| damage.offset == problem.offset)
            || !problem.what.contains("an event can't be read")
    });
    let by_recovery = Reading {
        end: recovered.end.get(),
        sequence: recovered.accepted.map_or(0, |end| end.sequence.0),
        writes: recovered.records,
        first_damage: recovered.damage.first().map(|damage| (damage.file.clone(), damage.offset)),
    };
    let by_verifier = Reading {
        end: verified.ends[0].position.get(),
        sequence: verified.ends[0].sequence,
        writes: verified.writes,
        first_damage: common.map(|problem| (problem.segment.clone(), problem.offset)).next(),
    };
    assert_eq!(
        by_recovery,
        by_verifier,
        "{}\n{:?}\n{:?}",
        what(),
        recovered.damage,
        verified.problems
    );
    !verified.problems.is_empty()
}

/// Logs of every shape: what they are, and the files.
fn logs() -> Vec<(&'static str, Image)> {
    let mut logs = Vec::new();
    let mut log = |name, write: &dyn Fn(&Arc<dyn Disk>)| {
        let disk: Arc<dyn Disk> = SimDisk::with_block(1, BLOCK as u32);
        furnish(&*disk);
        write(&disk);
        logs.push((name, image(&*disk)));
    };
    log("one life", &|disk| life(disk, &[2, 1, 3]));
    log("two lives", &|disk| {
        life(disk, &[1, 2]);
        life(disk, &[3, 1]);
    });
    log("segments", &|disk| life_in_segments(disk, &[1, 2, 1]));
    log("a tail in flight", &|disk| {
        life(disk, &[1]);
        let mut hand = Hand::open(Arc::clone(disk)).unwrap();
        hand.flush(2).unwrap();
        hand.start(1).unwrap();
        hand.start_lost(1);
        hand.start(2).unwrap();
    });
    log("a superseded tail", &|disk| {
        let mut hand = Hand::open(Arc::clone(disk)).unwrap();
        hand.flush(2).unwrap();
        hand.start_lost(1);
        hand.start(1).unwrap();
        let tail = image(&**disk);
        drop(hand);
        life(disk, &[1, 1]);
        // As if nobody had cut it.
        let (path, bytes) = &tail[0];
        disk.open(path, Access::Write).unwrap().write_at(0, bytes).unwrap();
    });
    log("a superseded segment", &|disk| {
        let mut hand = Hand::open(Arc::clone(disk)).unwrap();
        hand.flush(2).unwrap();
        hand.prepare_next().unwrap();
        let (path, bytes) = image(&**disk).remove(1);
        drop(hand);
        life(disk, &[1, 1]);
        // As if nobody had made a spare of it.
        assert!(disk.open(&path, Access::Read).is_err());
        disk.create(&path).unwrap().write_at(0, &bytes[..3 * BLOCK as usize]).unwrap();
    });
    log("prepared ahead", &|disk| {
        let mut hand = Hand::open(Arc::clone(disk)).unwrap();
        hand.flush(1).unwrap();
        hand.prepare_next().unwrap();
        hand.roll().unwrap();
        hand.prepare_next().unwrap();
    });
    logs
}

#[test]
fn on_logs_that_are_whole() {
    for (name, image) in logs() {
        assert!(!agree(&image, &|| name.to_owned()), "{name}");
    }
}

#[test]
fn on_every_flipped_byte() {
    let (mut images, mut damaged) = (0, 0);
    for (nth, (name, image)) in logs().into_iter().enumerate() {
        // Every byte of the first log, some of each field in the others.
        let step = if nth == 0 { 1 } else { 5 };
        for file in 0..image.len() {
            let used = image[file].1.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            let used = (used + 600).min(image[file].1.len());
            for at in (0..used).step_by(step) {
                let mut image = image.clone();
                image[file].1[at] ^= 0x41;
                images += 1;
                damaged += u32::from(agree(&image, &|| format!("{name}: file {file}, byte {at}")));
            }
        }
    }
    assert!(images > 4_000 && damaged > images / 2, "{damaged} of {images}");
}

#[test]
fn on_blocks_that_are_lost_and_files_that_are_cut() {
    for (name, image) in logs() {
        for file in 0..image.len() {
            let blocks = image[file].1.len().div_ceil(BLOCK as usize);
            for block in 0..blocks {
                let from = block * BLOCK as usize;
                let mut zeroed = image.clone();
                let to = (from + BLOCK as usize).min(zeroed[file].1.len());
                zeroed[file].1[from..to].fill(0);
                agree(&zeroed, &|| format!("{name}: file {file}, block {block} zeroed"));
                for length in [from, from + 1, from + 200] {
                    let mut cut = image.clone();
                    cut[file].1.truncate(length);
                    agree(&cut, &|| format!("{name}: file {file} cut to {length}"));
                }
            }
        }
    }
}

#[test]
fn on_files_that_are_missing_swapped_or_copied() {
    for (name, image) in logs() {
        for file in 0..image.len() {
            let mut missing = image.clone();
            missing.remove(file);
            agree(&missing, &|| format!("{name}: file {file} missing"));
            let mut copied = image.clone();
            copied.push(("shard-0000/0000000000000009.seg".into(), image[file].1.clone()));
            agree(&copied, &|| format!("{name}: file {file} copied"));
            for other in 0..file {
                let mut swapped = image.clone();
                (swapped[file].1, swapped[other].1) =
                    (image[other].1.clone(), image[file].1.clone());
                agree(&swapped, &|| format!("{name}: files {file} and {other} swapped"));
                let mut overlaid = image.clone();
                overlaid[file].1.clone_from(&image[other].1);
                agree(&overlaid, &|| format!("{name}: file {other} over {file}"));
            }
        }
    }
}

#[test]
fn on_several_faults_at_once() {
    let logs = logs();
    let mut state = 7_u64;
    let mut below = |end: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end.max(1)
    };
    for round in 0..4000 {
        let (name, whole) = &logs[below(logs.len())];
        let mut image = whole.clone();
        let mut faults = Vec::new();
        for _ in 0..2 + below(3) {
            let file = below(image.len());
            let bytes = &mut image[file].1;
            let at = below(bytes.len());
            let block = at - at % BLOCK as usize;
            let end = (block + BLOCK as usize).min(bytes.len());
            let kind = below(4);
            faults.push((kind, file, at));
            match kind {
                0 | 1 if at < bytes.len() => bytes[at] ^= 1 << below(8),
                2 => bytes[block..end].fill(0),
                3 if below(4) == 0 => bytes.truncate(at),
                _ => {}
            }
        }
        agree(&image, &|| format!("round {round}, {name}: {faults:?}"));
    }
}
