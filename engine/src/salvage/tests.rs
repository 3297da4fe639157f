//! Salvage on the simulated disk, against a model of what was written.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::{Salvage, SetAside, salvage_on};
use crate::disk::sim::{Fault, Op, SimDisk};
use crate::disk::{Access, Disk};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::expect::Expect;
use crate::format::Role;
use crate::id::Position;
use crate::options::Options;
use crate::recover::tests::hand::{BLOCK, Hand, furnish, identity, life, life_in_segments};
use crate::store::Store;
use crate::verify::{self, Damage, Files, Record, Shard, Visit, verify_on};

type Image = BTreeMap<String, Vec<u8>>;

/// What a reader has no business with.
const CHANGES: [Op; 5] = [Op::Write, Op::Sync, Op::Create, Op::SyncDir, Op::Prepare];

/// All files of a disk, and its directories, whose names end in a slash.
fn image(disk: &dyn Disk) -> Image {
    let mut files = Image::new();
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        for entry in disk.list(&dir).unwrap() {
            let path = if dir.is_empty() { entry.name } else { format!("{dir}/{}", entry.name) };
            if entry.regular {
                let mut bytes = vec![0; entry.bytes as usize];
                disk.open(&path, Access::Read).unwrap().read_at(0, &mut bytes).unwrap();
                files.insert(path, bytes);
            } else {
                files.insert(format!("{path}/"), Vec::new());
                dirs.push(path);
            }
        }
    }
    files
}

fn disk_of(image: &Image) -> Arc<SimDisk> {
    let disk = SimDisk::with_block(1, BLOCK as u32);
    for (path, bytes) in image {
        if let Some(dir) = path.strip_suffix('/') {
            disk.create_dir(dir).unwrap();
            continue;
        }
        disk.create(path).unwrap().write_at(0, bytes).unwrap();
    }
    disk
}

fn segment(id: u32) -> String {
    format!("shard-0000/{id:016x}.seg")
}

/// A version of an aggregate.
type Version = (Vec<u8>, u64);

/// What a salvage of an image came to.
struct Outcome {
    salvage: Salvage,
    to: Arc<SimDisk>,
    /// Versions that were set aside, and why.
    aside: BTreeMap<Version, String>,
}

fn salvaged(image_before: &Image) -> Result<Outcome, Error> {
    let from = disk_of(image_before);
    let changes = || CHANGES.map(|op| from.count(op));
    let before = changes();
    let to = SimDisk::with_block(2, BLOCK as u32);
    let mut aside = BTreeMap::new();
    let salvage = salvage_on(
        &*from,
        Arc::clone(&to) as Arc<dyn Disk>,
        &mut |set_aside| {
            for part in set_aside.write.parts().filter(|part| part.role() == Role::Append) {
                let version = (part.key().to_vec(), part.version());
                assert!(aside.insert(version, set_aside.why.to_owned()).is_none());
            }
            Ok(())
        },
        &mut |_, _| {},
    );
    assert!(image(&*from) == *image_before, "the source was changed");
    assert_eq!(changes(), before, "the source was written to");
    salvage.map(|salvage| Outcome { salvage, to, aside })
}

/// The writes of a shard, as the verifier finds them: where they stand, and what they append.
#[derive(Default)]
struct Written(Vec<(Position, usize, Vec<Version>)>);

impl Visit for Written {
    fn segment(&mut self, _: u64) {}
    fn flush(&mut self) {}
    fn write(&mut self, record: &Record<'_>, at: Position, _: &str) -> Result<(), Error> {
        record.verify_events().unwrap();
        let appends = record.parts.iter().filter(|part| part.kind == verify::Kind::Append);
        let versions = appends.map(|part| (part.key.to_vec(), part.version)).collect();
        self.0.push((at, record.bytes.len(), versions));
        Ok(())
    }
    fn damage(&mut self, damage: Damage) {
        panic!("{damage:?}");
    }
}

fn written(disk: &dyn Disk, number: u16) -> Written {
    let facts = verify::read_identity(disk).unwrap().unwrap();
    let mut written = Written::default();
    let shard = Shard { facts, number, rescue: false };
    verify::walk(&shard, &mut Files::new(disk, number), &mut written).unwrap();
    written
}

fn versions_in(disk: &dyn Disk) -> BTreeSet<Version> {
    written(disk, 0).0.into_iter().flat_map(|(_, _, versions)| versions).collect()
}

fn missing_in(salvage: &Salvage) -> BTreeSet<Version> {
    let ranges = salvage.missing.iter();
    ranges
        .flat_map(|range| (range.from..=range.to).map(|version| (range.aggregate.clone(), version)))
        .collect()
}

/// What a fault leaves of the model: the writes that are whole.
fn check(image: &Image, model: &Written, is_whole: &dyn Fn(Position, usize) -> bool, what: &str) {
    let outcome = salvaged(image).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut copied = BTreeSet::new();
    let mut aside = BTreeSet::new();
    let mut lost = BTreeSet::new();
    let mut known = BTreeSet::new();
    let mut cut_off: BTreeSet<&[u8]> = BTreeSet::new();
    for (at, bytes, versions) in &model.0 {
        let whole = is_whole(*at, *bytes);
        let goes_on = versions.iter().all(|(key, _)| !cut_off.contains(key.as_slice()));
        match (whole, goes_on) {
            (true, true) => copied.extend(versions.iter().cloned()),
            (true, false) => {
                aside.extend(versions.iter().cloned());
                // A later version tells of all before it.
                for (key, version) in versions {
                    let told = lost.iter().filter(|(lost, at)| lost == key && at < version);
                    known.extend(told.cloned());
                }
            }
            (false, _) => lost.extend(versions.iter().cloned()),
        }
        if !whole || !goes_on {
            cut_off.extend(versions.iter().map(|(key, _)| key.as_slice()));
        }
    }
    let Outcome { salvage, to, aside: found_aside } = outcome;
    assert_eq!(versions_in(&*to), copied, "{what}: copied\n{salvage}");
    assert_eq!(found_aside.into_keys().collect::<BTreeSet<_>>(), aside, "{what}: set aside");
    let missing = missing_in(&salvage);
    assert!(known.is_subset(&missing), "{what}: {known:?} are not told of\n{salvage}");
    // What is told beyond that is lost too: the head of the write was whole.
    assert!(missing.is_subset(&lost), "{what}: {missing:?}, and lost are {lost:?}\n{salvage}");
    assert_eq!(salvage.is_complete(), lost.is_empty(), "{what}\n{salvage}");
}

fn log(write: &dyn Fn(&Arc<dyn Disk>)) -> (Image, Written) {
    let disk: Arc<dyn Disk> = SimDisk::with_block(1, BLOCK as u32);
    furnish(&*disk);
    write(&disk);
    (image(&*disk), written(&*disk, 0))
}

fn logs() -> Vec<(&'static str, Image, Written)> {
    let lives = log(&|disk| {
        life(disk, &[3, 1, 4]);
        life(disk, &[2, 3]);
    });
    let segments = log(&|disk| life_in_segments(disk, &[2, 3, 4]));
    [("lives", lives), ("segments", segments)]
        .map(|(name, (image, written))| (name, image, written))
        .into()
}

#[test]
fn a_healthy_store_is_copied_whole() {
    for (name, image, model) in logs() {
        check(&image, &model, &|_, _| true, name);
        let outcome = salvaged(&image).unwrap();
        assert_eq!(outcome.salvage.damage, []);
        assert_eq!(outcome.salvage.writes as usize, model.0.len());
    }
}

#[test]
fn a_flipped_byte_costs_the_write_that_it_is_in_and_no_other() {
    let mut faults = 0;
    for (name, image, model) in logs() {
        let segments: Vec<&String> = image.keys().filter(|path| path.ends_with(".seg")).collect();
        for (path, id) in segments.into_iter().zip(1..) {
            for at in (0..image[path].len()).step_by(11) {
                let mut image = image.clone();
                image.get_mut(path).unwrap()[at] ^= 0x20;
                let whole = |position: Position, bytes: usize| {
                    let start = position.offset() as usize;
                    position.segment().0 != id || !(start..start + bytes).contains(&at)
                };
                check(&image, &model, &whole, &format!("{name}: {path} byte {at}"));
                faults += 1;
            }
        }
    }
    assert!(faults > 600, "{faults}");
}

#[test]
fn a_lost_block_costs_the_writes_that_it_holds_and_no_other() {
    for (name, image, model) in logs() {
        let segments: Vec<&String> = image.keys().filter(|path| path.ends_with(".seg")).collect();
        for (path, id) in segments.into_iter().zip(1..) {
            for block in 0..image[path].len() / BLOCK as usize {
                for junk in [0, 0x5a] {
                    let from = block * BLOCK as usize;
                    let to = from + BLOCK as usize;
                    let mut image = image.clone();
                    image.get_mut(path).unwrap()[from..to].fill(junk);
                    let whole = |position: Position, bytes: usize| {
                        let start = position.offset() as usize;
                        position.segment().0 != id || start + bytes <= from || start >= to
                    };
                    // Junk where padding was can't be told from junk where a write was: complete it is not.
                    let held = model.0.iter().any(|(at, bytes, _)| !whole(*at, *bytes));
                    if held {
                        check(&image, &model, &whole, &format!("{name}: {path} block {block}"));
                    } else {
                        let outcome = salvaged(&image).unwrap();
                        assert_eq!(outcome.salvage.writes as usize, model.0.len());
                    }
                }
            }
        }
    }
}

#[test]
fn a_lost_segment_costs_what_it_held() {
    for (name, image, model) in logs() {
        let newest = image.keys().filter(|path| path.ends_with(".seg")).count() as u32;
        for id in 1..newest {
            let mut image = image.clone();
            image.remove(&segment(id)).unwrap();
            let whole = |position: Position, _| position.segment().0 != id;
            check(&image, &model, &whole, &format!("{name}: without segment {id}"));
        }
        // Nothing tells of a newest segment that is gone.
        let mut image = image.clone();
        image.remove(&segment(newest)).unwrap();
        let held = model.0.iter().filter(|(at, _, _)| at.segment().0 != newest).count();
        assert_eq!(salvaged(&image).unwrap().salvage.writes as usize, held, "{name}");
    }
}

#[test]
fn a_truncated_segment_costs_what_was_cut_off() {
    for (name, image, model) in logs() {
        let newest = image.keys().filter(|path| path.ends_with(".seg")).count() as u32;
        for id in 1..newest {
            for length in (0..image[&segment(id)].len()).step_by(100) {
                let mut image = image.clone();
                image.get_mut(&segment(id)).unwrap().truncate(length);
                let whole = |position: Position, bytes: usize| {
                    position.segment().0 != id || position.offset() as usize + bytes <= length
                };
                // A segment without a header and a flush header of its own does not tell its salt.
                if length >= BLOCK as usize + 104 {
                    let what = format!("{name}: segment {id} cut to {length}");
                    let outcome = salvaged(&image).unwrap();
                    let cut = model.0.iter().any(|(at, bytes, _)| !whole(*at, *bytes));
                    if cut {
                        check(&image, &model, &whole, &what);
                    } else {
                        assert_eq!(outcome.salvage.writes as usize, model.0.len(), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn renamed_and_swapped_segments_are_taken_for_what_they_say() {
    let (image, model) = log(&|disk| life_in_segments(disk, &[2, 3, 4]));
    let mut swapped = image.clone();
    swapped.insert(segment(1), image[&segment(2)].clone());
    swapped.insert(segment(2), image[&segment(1)].clone());
    check(&swapped, &model, &|_, _| true, "swapped");
    let mut renamed = image.clone();
    let bytes = renamed.remove(&segment(2)).unwrap();
    renamed.insert(segment(7), bytes);
    check(&renamed, &model, &|_, _| true, "renamed");
    let mut copied = image.clone();
    copied.insert(segment(9), image[&segment(1)].clone());
    check(&copied, &model, &|_, _| true, "copied");
}

#[test]
fn what_was_never_acknowledged_is_not_taken() {
    let disk: Arc<dyn Disk> = SimDisk::with_block(1, BLOCK as u32);
    furnish(&*disk);
    let mut hand = Hand::open(Arc::clone(&disk)).unwrap();
    hand.flush(2).unwrap();
    hand.start_lost(1);
    hand.start(2).unwrap();
    let torn = image(&*disk);
    let outcome = salvaged(&torn).unwrap();
    assert!(outcome.salvage.is_complete(), "{}", outcome.salvage);
    assert_eq!(outcome.salvage.writes, 2);

    // Superseded by a segment whose header is lost: its flushes have the sequences of those.
    drop(hand);
    life(&disk, &[1, 1]);
    let (newer, mut image) = (image(&*disk), torn);
    image.insert(segment(2), newer[&segment(2)].clone());
    let model = written(&*disk_of(&image), 0);
    assert_eq!(model.0.len(), 4);
    image.get_mut(&segment(2)).unwrap()[60] ^= 1;
    let outcome = salvaged(&image).unwrap();
    assert_eq!(outcome.salvage.writes, 4, "{}", outcome.salvage);
    let all: BTreeSet<Version> =
        model.0.into_iter().flat_map(|(_, _, versions)| versions).collect();
    assert_eq!(versions_in(&*outcome.to), all);
}

/// A torn flush whose records arrived, superseded by a segment whose header is lost: nothing proves that they were
/// acknowledged, and others have their versions.
#[test]
fn records_of_a_torn_flush_are_not_taken_for_the_log() {
    let disk: Arc<dyn Disk> = SimDisk::with_block(1, BLOCK as u32);
    furnish(&*disk);
    let mut hand = Hand::open(Arc::clone(&disk)).unwrap();
    hand.flush(2).unwrap();
    let torn_at = u64::from(hand.at);
    hand.start(1).unwrap();
    hand.start(1).unwrap();
    drop(hand);
    let file = disk.open(&segment(1), Access::Write).unwrap();
    let mut byte = [0];
    file.read_at(torn_at + 20, &mut byte).unwrap();
    file.write_at(torn_at + 20, &[byte[0] ^ 1]).unwrap();
    let torn = image(&*disk);
    life(&disk, &[1, 1]);
    let mut image = image(&*disk);
    image.insert(segment(1), torn[&segment(1)].clone());
    let written = written(&*disk_of(&image), 0).0;
    let all: BTreeSet<Version> = written.into_iter().flat_map(|(_, _, all)| all).collect();
    assert_eq!(all.len(), 4);
    let bytes = image.get_mut(&segment(2)).unwrap();
    // Its header, and that of its first flush: nothing says any more where it goes on from.
    bytes[60] ^= 1;
    bytes[BLOCK as usize + 50] ^= 1;
    let outcome = salvaged(&image).unwrap();
    assert_eq!(versions_in(&*outcome.to), all, "{}", outcome.salvage);
    assert_eq!(outcome.salvage.set_aside, 0, "{}", outcome.salvage);
}

#[test]
fn a_lost_identity_is_made_up_from_the_segments() {
    let (mut image, model) = log(&|disk| life_in_segments(disk, &[2, 3, 4]));
    for damage in 0..2 {
        match damage {
            0 => image.get_mut("identity").unwrap().fill(7),
            _ => drop(image.remove("identity")),
        }
        let outcome = salvaged(&image).unwrap();
        assert!(outcome.salvage.identity.is_some() && outcome.salvage.is_complete());
        assert_eq!(outcome.salvage.writes as usize, model.0.len());
        assert_ne!(verify::read_identity(&*outcome.to).unwrap().unwrap().store, identity().store.0);
    }
    let path = segment(2);
    image.get_mut(&path).unwrap()[24] ^= 1;
    let rest = xxhash_rust::xxh3::xxh3_64(&image[&path][8..512]).to_le_bytes();
    image.get_mut(&path).unwrap()[..8].copy_from_slice(&rest);
    let error = salvaged(&image).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("not all of one store"), "{error}");
    image.retain(|path, _| !path.ends_with(".seg"));
    let error = salvaged(&image).err().unwrap();
    assert!(error.to_string().contains("no segment header is whole"), "{error}");
}

#[test]
fn a_target_that_is_not_empty_is_refused_and_one_that_is_full_is_no_store() {
    let (image, _) = log(&|disk| life(disk, &[3, 1, 4]));
    let from = disk_of(&image);
    let run = |to: &Arc<SimDisk>| {
        let to = Arc::clone(to) as Arc<dyn Disk>;
        salvage_on(&*from, to, &mut |_| Ok(()), &mut |_, _| {})
    };
    let to = SimDisk::new(2);
    to.create("something").unwrap();
    assert_eq!(run(&to).unwrap_err().kind(), ErrorKind::Invalid);

    for capacity in [0, 4096, 16 * BLOCK + 512] {
        let to = SimDisk::with_block(2, BLOCK as u32);
        to.set_capacity(capacity);
        let error = run(&to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        assert!(verify_on(&*to, &mut |_, _| {}).is_err());
    }
    for op in [Op::Create, Op::Write, Op::Sync, Op::SyncDir, Op::Prepare] {
        let kind = io::ErrorKind::Other;
        for nth in 1.. {
            let to = SimDisk::with_block(2, BLOCK as u32);
            to.plan(Fault { op, nth, lasting: true, kind, short: true });
            match run(&to) {
                Ok(_) => break,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{op:?} {nth}: {error}"),
            }
        }
    }
    // What can't be set aside stops it too.
    let mut broken = image.clone();
    let at = written(&*from, 0).0[0].0;
    broken.get_mut(&segment(1)).unwrap()[at.offset() as usize + 170] ^= 1;
    let to = SimDisk::with_block(2, BLOCK as u32);
    let full = &mut |_: &SetAside<'_>| Err(io::ErrorKind::StorageFull.into());
    let error = salvage_on(&*disk_of(&broken), to.clone(), full, &mut |_, _| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert!(verify_on(&*to, &mut |_, _| {}).is_err());
}

/// A store of four shards with everything that there is, and the position of each write by name.
fn everything() -> (Image, BTreeMap<&'static str, Position>) {
    let disk = SimDisk::with_block(1, BLOCK as u32);
    let options = Options::new().shards(4).route_by_prefix(b'/').segment_bytes(1 << 20);
    let store = options.open_on(disk.clone()).unwrap();
    let mut positions = BTreeMap::new();
    let event = |n: u8| {
        let event = Event::new("Happened", vec![n; 30]).metadata([n]).id(n.into());
        event.time(i64::from(n))
    };
    let mut write = |name, write: crate::Write| {
        positions.insert(name, write.submit().unwrap().wait().unwrap().position());
    };
    let w = || store.write();
    write("a1", w().append("t/a", Expect::Absent, [event(1)]).client(7, 1));
    write("b1", w().append("t/b", Expect::Absent, [event(2), event(3)]));
    write(
        "c1",
        w().append("t/c", Expect::Any, [event(4)]).checkpoint(
            "t/seen",
            Position::START,
            Position::from_raw(5),
        ),
    );
    write(
        "a2b2",
        w().append("t/a", Expect::Version(1), [event(5)])
            .append("t/b", Expect::Exists, [event(6)])
            .client(7, 2),
    );
    write("c2", w().append("t/c", Expect::Version(1), [event(7)]).check("t/a", Expect::Version(2)));
    write("d1", w().append("t/d", Expect::Absent, [event(8)]).check("t/none", Expect::Absent));
    store.save_snapshot("t/b", 2, "state of b").unwrap().wait().unwrap();
    write("b3", w().append("t/b", Expect::Version(2), [event(9)]));
    write("d2", w().append("t/d", Expect::Version(1), [event(10)]).client(8, 4));
    write("other", w().append("u/z", Expect::Absent, [event(11)]));
    store.close().unwrap();
    drop(store);
    (image(&*disk), positions)
}

fn shard_path(image: &Image, position: Position, payload: u8) -> String {
    // The segment that has the write, among those of four shards.
    let id = format!("{:016x}.seg", position.segment().0);
    let fits = |bytes: &[u8]| bytes.windows(30).any(|window| window == [payload; 30]);
    let mut paths = image.iter().filter(|(path, bytes)| path.ends_with(&id) && fits(bytes));
    paths.next().unwrap().0.clone()
}

fn open(disk: &Arc<SimDisk>) -> Store {
    Options::new().open_on(disk.clone()).unwrap()
}

#[test]
fn everything_that_a_write_says_is_kept() {
    let (image, _) = everything();
    let outcome = salvaged(&image).unwrap();
    let salvage = &outcome.salvage;
    assert_eq!((salvage.writes, salvage.events, salvage.aggregates), (9, 11, 5), "{salvage}");
    assert_eq!((salvage.snapshots, salvage.set_aside, salvage.shards), (1, 0, 4));
    assert_eq!((salvage.damage.as_slice(), salvage.missing.as_slice()), (&[][..], &[][..]));
    // A checkpoint is not: positions are others.
    assert_eq!(salvage.checkpoints.len(), 1);
    assert_eq!(salvage.checkpoints[0].name, b"t/seen");
    assert_eq!((salvage.checkpoints[0].stood.get(), salvage.checkpoints[0].now), (5, None));
    assert!(!salvage.is_complete());

    let (old, new) = (open(&disk_of(&image)), open(&outcome.to));
    for shard in 0..4 {
        let writes = |store: &Store| -> Vec<_> {
            let writes = store.log(shard).writes().map(Result::unwrap);
            let shown = writes.map(|write| {
                let parts = write.parts().filter(|part| part.moved().is_none());
                let parts: Vec<_> = parts
                    .map(|part| {
                        let events: Vec<_> = part
                            .events()
                            .map(|e| {
                                let (id, time) = (e.id(), e.time());
                                (
                                    e.event_type().to_owned(),
                                    id,
                                    time,
                                    e.data().to_vec(),
                                    e.metadata().to_vec(),
                                )
                            })
                            .collect();
                        (part.role(), part.key().to_vec(), part.expected(), part.version(), events)
                    })
                    .collect();
                (write.client(), write.commit_time(), parts)
            });
            shown.collect()
        };
        assert_eq!(writes(&old), writes(&new));
    }
    let snapshot = new.load_snapshot("t/b").unwrap().unwrap();
    assert_eq!((snapshot.version(), snapshot.bytes()), (2, &b"state of b"[..]));
    assert_eq!(new.checkpoint("t/seen").unwrap(), Position::START);

    // A retry is answered with the original, and what was written together still can be.
    let retry =
        new.write().append("t/d", Expect::Version(1), [Event::new("Happened", "")]).client(8, 4);
    let committed = retry.submit().unwrap().wait().unwrap();
    assert!(committed.is_replay());
    assert_eq!(new.version("t/d").unwrap(), 2);
    let both = new.write().append("t/a", Expect::Version(2), [Event::new("On", "")]);
    both.append("t/d", Expect::Version(2), [Event::new("On", "")])
        .submit()
        .unwrap()
        .wait()
        .unwrap();
    new.close().unwrap();
}

#[test]
fn a_write_that_needs_what_is_missing_is_set_aside_whole() {
    let (mut image, positions) = everything();
    // The events of b1 rot. So b2 can't follow, nor a2, which was written with it, nor c2, which checked a2.
    let path = shard_path(&image, positions["b1"], 2);
    let at = image[&path].windows(30).position(|window| window == [2; 30]).unwrap();
    image.get_mut(&path).unwrap()[at] ^= 1;
    let outcome = salvaged(&image).unwrap();
    let salvage = &outcome.salvage;
    let version = |key: &str, version: u64| (key.as_bytes().to_vec(), version);
    assert_eq!(missing_in(salvage), [version("t/b", 1)].into());
    assert_eq!(salvage.missing[0].position, Some(positions["b1"]));
    let aside: BTreeSet<_> = outcome.aside.into_keys().collect();
    let expected = [("t/a", 2), ("t/b", 2), ("t/c", 2), ("t/b", 3)];
    assert_eq!(aside, expected.map(|(key, at)| version(key, at)).into());
    // Three writes, and the snapshot of what is not there.
    assert_eq!(salvage.set_aside, 4);
    let cut: Vec<_> = salvage
        .cut_off
        .iter()
        .map(|cut| (cut.aggregate.as_slice(), cut.kept, cut.last, cut.set_aside))
        .collect();
    assert_eq!(cut, [(&b"t/a"[..], 1, 2, 1), (b"t/b", 0, 3, 2), (b"t/c", 1, 2, 1)]);
    let store = open(&outcome.to);
    let versions = ["t/a", "t/b", "t/c", "t/d", "u/z"].map(|key| store.version(key).unwrap());
    assert_eq!(versions, [1, 0, 1, 2, 1]);
    let text = salvage.to_string();
    assert!(text.contains("aggregate \"t/b\": version 1 is missing; it stood at 1:"), "{text}");
    assert!(text.contains("not complete: 5 writes with 5 events of 4 aggregates"), "{text}");
}

#[test]
fn a_check_tells_of_a_version_that_is_missing() {
    let disk = SimDisk::with_block(1, BLOCK as u32);
    let store = Options::new().open_on(disk.clone()).unwrap();
    let on = |key: &str, payload: u8| {
        store.write().append(key, Expect::Any, [Event::new("Happened", vec![payload; 30])])
    };
    on("a", 1).submit().unwrap().wait().unwrap();
    let lost = on("a", 2).submit().unwrap().wait().unwrap().position();
    on("b", 3).check("a", Expect::Version(2)).submit().unwrap().wait().unwrap();
    on("c", 4).submit().unwrap().wait().unwrap();
    store.close().unwrap();
    drop(store);
    let mut image = image(&*disk);
    // The whole block of a2 is gone, its head too.
    let from = lost.offset() as usize / 512 * 512;
    image.get_mut(&segment(1)).unwrap()[from..from + 512].fill(0);
    let outcome = salvaged(&image).unwrap();
    assert_eq!(missing_in(&outcome.salvage), [(b"a".to_vec(), 2)].into());
    assert_eq!(outcome.aside.into_keys().collect::<Vec<_>>(), [(b"b".to_vec(), 1)]);
    assert_eq!(outcome.salvage.writes, 2);
}

#[test]
fn without_the_key_of_the_hash_there_is_one_shard() {
    let (mut image, _) = everything();
    image.get_mut("identity").unwrap().fill(0);
    let outcome = salvaged(&image).unwrap();
    assert_eq!((outcome.salvage.shards, outcome.salvage.writes), (1, 9), "{}", outcome.salvage);
    let store = open(&outcome.to);
    let versions = ["t/a", "t/b", "t/c", "t/d", "u/z"].map(|key| store.version(key).unwrap());
    assert_eq!(versions, [2, 3, 2, 2, 1]);
    let both = store.write().append("t/a", Expect::Version(2), [Event::new("On", "")]);
    both.append("u/z", Expect::Version(1), [Event::new("On", "")])
        .submit()
        .unwrap()
        .wait()
        .unwrap();
    store.close().unwrap();
}

#[test]
fn a_shard_without_its_directory_is_told() {
    let (mut image, _) = everything();
    let full = image.keys().find(|path| path.ends_with(".seg")).unwrap().clone();
    let (dir, _) = full.split_once('/').unwrap();
    let dir = dir.to_owned();
    image.retain(|path, _| !path.starts_with(&dir));
    let outcome = salvaged(&image).unwrap();
    assert!(!outcome.salvage.is_complete());
    assert!(outcome.salvage.to_string().contains("the directory of the shard is missing"));
}

/// Bytes that pass every checksum and mean harm: heads that overlap, lengths at their limits. Both readers and the salvage
/// come to an end, and without a panic.
#[test]
fn hostile_bytes_are_bounded_work() {
    let (image, _) = log(&|disk| life(disk, &[3, 1, 4]));
    let mut state = 11_u64;
    let mut below = |end: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end.max(1)
    };
    let salt = u64::from_le_bytes(image[&segment(1)][48..56].try_into().unwrap());
    let model = written(&*disk_of(&image), 0);
    for round in 0..600 {
        let mut image = image.clone();
        let bytes = image.get_mut(&segment(1)).unwrap();
        for _ in 0..1 + below(6) {
            let (at, bytes_of, _) = &model.0[below(model.0.len())];
            let start = at.offset() as usize;
            match below(3) {
                // A field of the head, with a checksum that fits.
                0 => {
                    let head = 64 + 48 + 8;
                    bytes[start + 8 + below(head - 8)] = below(256) as u8;
                    let seed = salt ^ at.get().wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    let stated =
                        u32::from_le_bytes(bytes[start + 12..start + 16].try_into().unwrap());
                    let end = (start + stated as usize).min(bytes.len()).max(start + 8);
                    let sum = xxhash_rust::xxh3::xxh3_64_with_seed(&bytes[start + 8..end], seed);
                    bytes[start..start + 8].copy_from_slice(&sum.to_le_bytes());
                }
                // A copy of a record elsewhere.
                1 => {
                    let copied = bytes[start..start + bytes_of].to_vec();
                    let to = below(bytes.len() - copied.len()) / 8 * 8;
                    bytes[to..to + copied.len()].copy_from_slice(&copied);
                }
                _ => {
                    let to = below(bytes.len());
                    bytes[to] = below(256) as u8;
                }
            }
        }
        match salvaged(&image) {
            Ok(outcome) => {
                let copied = versions_in(&*outcome.to).len() as u64;
                assert!(copied >= outcome.salvage.writes, "round {round}");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "round {round}: {error}")
            }
        }
    }
}

/// Every 32 bytes a record with a large head seems to begin: 8 GiB to hash, if the search had no budget.
#[test]
fn a_search_for_records_has_a_budget() {
    let (mut image, _) = log(&|disk| {
        life(disk, &[3, 1]);
        life(disk, &[1]);
    });
    let most = 1_usize << 20;
    let reseal = |header: &mut [u8]| {
        let sum = xxhash_rust::xxh3::xxh3_64(&header[8..512]);
        header[..8].copy_from_slice(&sum.to_le_bytes());
    };
    let bytes = image.get_mut(&segment(1)).unwrap();
    bytes[56..64].copy_from_slice(&(most as u64).to_le_bytes());
    reseal(bytes);
    bytes.truncate(512);
    let mut line = [0; 32];
    line[0] = 112; // Where the key of one part would stand.
    line[8..12].copy_from_slice(&(1_u32 << 19).to_le_bytes());
    line[12..16].copy_from_slice(&(1_u32 << 18).to_le_bytes());
    (line[24], line[26]) = (1, 1); // A write of one part.
    while bytes.len() < most {
        bytes.extend_from_slice(&line);
    }
    // The second segment states that the log ended behind all of it.
    let next = image.get_mut(&segment(2)).unwrap();
    next[64..72].copy_from_slice(&(1 << 32 | most as u64).to_le_bytes());
    reseal(next);
    let outcome = salvaged(&image).unwrap();
    let range = outcome.salvage.damage.iter().find(|range| range.bytes > 0).unwrap();
    assert_eq!((range.offset, range.bytes), (512, most as u64 - 512), "{}", outcome.salvage);
    assert!(range.lost && !outcome.salvage.is_complete());
}
