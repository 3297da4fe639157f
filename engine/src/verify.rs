//! Verifying a store: every checksum, chain, version, link, checkpoint and condition, in log order.
//!
//! It keeps books of its own and shares with the store only the walk along the log, so that a fault in the index or in
//! reading can't hide itself. Nothing is changed on disk, and a live writer is not disturbed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::path::Path;

use crate::disk;
use crate::disk::Disk;
use crate::error::Error;
use crate::expect::Expect;
use crate::format::{FileName, PartView, RecordView, Role};
use crate::id::{Position, ShardId};
use crate::identity_file::{open_disk_error, open_or_create};
use crate::key::{KeyBuf, Shown};
use crate::log::prepare::shard_dir;
use crate::options::Options;
use crate::recover::source::Source;
use crate::recover::walk::{Objection, Visit, verify_record};
use crate::recover::{Mode, walk_log};
use crate::reserve::slot::SKIP_VERSIONS;

/// What verifying a store found. Sound if there are no problems.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verification {
    /// How many shards the store has.
    pub shards: u16,
    /// How many segments hold a part of the log.
    pub segments: u64,
    /// How many flushes.
    pub flushes: u64,
    /// How many writes.
    pub writes: u64,
    /// How many events.
    pub events: u64,
    /// How many aggregates.
    pub aggregates: u64,
    /// How many bytes the segments take on disk, what is prepared ahead included.
    pub bytes: u64,
    /// What is wrong, shard by shard in log order. At most a thousand for each shard are told.
    pub problems: Vec<Problem>,
}

/// Something that is wrong in a store.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Problem {
    /// The shard.
    pub shard: u16,
    /// The segment's file, relative to the store's directory.
    pub segment: String,
    /// Where in the file.
    pub offset: u64,
    /// The aggregate, where it is known.
    pub aggregate: Option<Vec<u8>>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: ", self.segment, self.offset)?;
        if let Some(key) = &self.aggregate {
            write!(f, "aggregate {}: ", Shown(key))?;
        }
        f.write_str(&self.what)
    }
}

/// Reads a whole store and checks all of it. `progress` is told how many bytes are done, and how many there are.
///
/// What is found wrong in the log is a [`Problem`], not an error. Beside a writer it checks what was durable when it
/// began.
///
/// ```
/// use annals::{Event, Expect, Store};
/// # let dir = tempfile::tempdir_in("/var/tmp")?;
/// # let path = dir.path().join("data");
///
/// let store = Store::open(&path)?;
/// store.append("order-1", Expect::Absent, [Event::new("Placed", "")])?.wait()?;
/// store.close()?;
///
/// let verification = annals::verify(&path, |_, _| {})?;
/// assert_eq!(verification.events, 1);
/// assert!(verification.problems.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// `Io` for what can't be read, `Corrupt` and `Unsupported` for an identity file that says nothing.
pub fn verify(
    path: impl AsRef<Path>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Verification, Error> {
    let path = path.as_ref();
    let disk = disk::open(path, disk::Opening::ReadOnly, disk::QueueKind::Blocking)
        .map_err(|error| open_disk_error(path, error))?;
    verify_disk(&*disk, &mut progress)
}

pub(crate) fn verify_disk(
    disk: &dyn Disk,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verification, Error> {
    let identity = open_or_create(disk, &Options::new().read_only(true))?;
    let shards = || (0..identity.shards).map(ShardId);
    let mut verification = Verification { shards: identity.shards, ..Verification::default() };
    for shard in shards() {
        verification.bytes += segment_bytes(disk, shard)?;
    }
    let all = verification.bytes;
    let mut done = 0;
    progress(done, all);
    for shard in shards() {
        let mut books = Books {
            aggregates: HashMap::new(),
            clients: HashMap::new(),
            checkpoints: HashMap::new(),
            flushes: 0,
            writes: 0,
            events: 0,
            walked: &mut |bytes| {
                // A live writer adds bytes that were not counted.
                done = (done + bytes).min(all);
                progress(done, all);
            },
        };
        let mut source = Source::new(disk, &identity, shard);
        let found = walk_log(&mut source, Mode::Read, &mut books)?;
        verification.flushes += books.flushes;
        verification.writes += books.writes;
        verification.events += books.events;
        verification.aggregates +=
            books.aggregates.values().filter(|account| account.version > 0).count() as u64;
        verification.segments += found.segments.len() as u64;
        verification.problems.extend(found.damage.into_iter().map(|damage| Problem {
            shard: shard.0,
            segment: damage.file,
            offset: damage.offset,
            aggregate: damage.aggregate.map(|key: KeyBuf| key.as_bytes().to_vec()),
            what: damage.what,
        }));
    }
    progress(all, all);
    Ok(verification)
}

fn segment_bytes(disk: &dyn Disk, shard: ShardId) -> Result<u64, Error> {
    let dir = shard_dir(shard);
    let entries =
        disk.list(&dir).map_err(|error| Error::io(format_args!("listing {dir}"), error))?;
    let segments = entries
        .iter()
        .filter(|entry| matches!(FileName::parse(&entry.name), Some(FileName::Segment(_))));
    Ok(segments.map(|entry| entry.bytes).sum())
}

/// What the log has said of an aggregate so far.
#[derive(Clone, Copy, Default)]
struct Account {
    /// What its clients are kept under.
    number: u64,
    /// The last write that it was part of.
    write: u64,
    version: u64,
    last: Position,
    skip: Position,
    /// The record of its newest snapshot.
    snapshot: Position,
}

/// What the log has said of a checkpoint so far.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// The last write that moved it.
    write: u64,
    at: Position,
    last: Position,
}

/// What the log of one shard has said so far.
struct Books<'a> {
    aggregates: HashMap<Box<[u8]>, Account>,
    /// The highest sequence of a client on an aggregate.
    clients: HashMap<(u128, u64), u64>,
    checkpoints: HashMap<Box<[u8]>, Mark>,
    flushes: u64,
    writes: u64,
    events: u64,
    walked: &'a mut dyn FnMut(u64),
}

impl Visit for Books<'_> {
    fn segment(&mut self, bytes: u64) {
        (self.walked)(bytes);
    }

    fn flush(&mut self) {
        self.flushes += 1;
    }

    fn record(&mut self, record: &RecordView<'_>, at: Position) -> Result<(), Objection> {
        self.writes += 1;
        self.events += u64::from(record.events());
        let mut objection = None;
        let mut object = |key: Option<&[u8]>, what: String| {
            objection.get_or_insert(Objection::Damage { key: key.map(<[u8]>::to_vec), what });
        };
        if let Err(damage) = verify_record(record) {
            let key = record.part(0).map(|part| part.key);
            object(key, format!("an event can't be read: {damage}"));
        }
        let write = self.writes;
        for part in record.parts() {
            if part.role == Role::Checkpoint {
                if let Some(what) = self.checkpoint(&part, at)? {
                    object(None, format!("checkpoint {}: {what}", Shown(part.key)));
                }
                continue;
            }
            let account = self.account(part.key)?;
            if let Some(what) = contradiction(&part, account) {
                object(Some(part.key), what);
            }
            if std::mem::replace(&mut account.write, write) == write {
                object(Some(part.key), "the aggregate is in one write twice".into());
            }
            let number = account.number;
            if part.role == Role::Snapshot {
                account.snapshot = at;
            }
            if part.role == Role::Append {
                // What is there is believed from here on, so that one fault is told once.
                account.version = part.version;
                account.last = at;
                if part.version.is_multiple_of(SKIP_VERSIONS) {
                    account.skip = at;
                }
            }
            if let Some((client, sequence)) = record.client()
                && part.role == Role::Append
            {
                match self.clients.insert((client, number), sequence) {
                    Some(before) if sequence <= before => {
                        let what =
                            format!("client {client:x} has sequence {sequence} after {before}");
                        object(Some(part.key), what);
                    }
                    _ => {}
                }
            }
        }
        objection.map_or(Ok(()), Err)
    }
}

impl Books<'_> {
    /// Moves a checkpoint; what its part says that can't be so after all that the log has said before.
    fn checkpoint(
        &mut self,
        part: &PartView<'_>,
        at: Position,
    ) -> Result<Option<String>, Objection> {
        if self.checkpoints.try_reserve(1).is_err() {
            return Err(Objection::Failed(Error::out_of_memory("what the log says")));
        }
        let mark = self.checkpoints.entry(part.key.into()).or_default();
        let now = Mark { write: self.writes, at: Position::from_raw(part.version), last: at };
        let before = std::mem::replace(mark, now);
        if before.write == self.writes {
            return Ok(Some("it is in one write twice".into()));
        }
        if part.expect != Expect::Version(before.at.get()) {
            let from = if let Expect::Version(from) = part.expect { from } else { 0 };
            let (from, stood) = (Position::from_raw(from), before.at);
            return Ok(Some(format!("moved from {from} to {}, and it stood at {stood}", now.at)));
        }
        if part.prev != before.last {
            return Ok(Some(format!("linked to {}, and was moved at {}", part.prev, before.last)));
        }
        Ok(None)
    }

    fn account(&mut self, key: &[u8]) -> Result<&mut Account, Objection> {
        if self.aggregates.try_reserve(1).is_err() || self.clients.try_reserve(1).is_err() {
            return Err(Objection::Failed(Error::out_of_memory("what the log says")));
        }
        let number = self.aggregates.len() as u64;
        Ok(match self.aggregates.entry(key.into()) {
            Entry::Occupied(account) => account.into_mut(),
            Entry::Vacant(place) => place.insert(Account { number, ..Account::default() }),
        })
    }
}

/// What a part says that can't be so after all that the log has said before.
fn contradiction(part: &PartView<'_>, account: &Account) -> Option<String> {
    let before = account.version;
    match part.role {
        Role::Append if Some(part.version) != before.checked_add(1) => {
            return Some(format!("version {} follows version {before}", part.version));
        }
        Role::Check if part.version != before => {
            return Some(format!("checked at version {}, and it was at {before}", part.version));
        }
        Role::Snapshot if part.version > before => {
            return Some(format!("a snapshot of version {}, and it was at {before}", part.version));
        }
        Role::Snapshot if part.prev != account.snapshot => {
            return Some(format!(
                "a snapshot linked to {}, and the one before stands at {}",
                part.prev, account.snapshot
            ));
        }
        _ => {}
    }
    if !part.expect.holds(before) {
        return Some(format!("written on {}, at version {before}", part.expect));
    }
    if part.role == Role::Append && (part.prev, part.skip) != (account.last, account.skip) {
        return Some(format!(
            "linked to {} and {}, and the versions stand at {} and {}",
            part.prev, part.skip, account.last, account.skip
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::format::{RecordEncoder, seal, set_links};
    use crate::id::SegmentId;

    const SALT: u64 = 4;

    fn at(nth: u32) -> Position {
        Position::new(SegmentId(1), nth * 4096)
    }

    /// One part of a record, as it is written.
    #[derive(Clone, Copy)]
    struct Part {
        role: Role,
        expect: Expect,
        key: &'static [u8],
        version: u64,
        prev: Position,
        skip: Position,
    }

    fn append(key: &'static [u8], expect: Expect, version: u64, prev: Position) -> Part {
        Part { role: Role::Append, expect, key, version, prev, skip: Position::START }
    }

    fn check(key: &'static [u8], expect: Expect, version: u64) -> Part {
        let none = Position::START;
        Part { role: Role::Check, expect, key, version, prev: none, skip: none }
    }

    /// A checkpoint named `c` that is moved from one position to another.
    fn moves(from: Position, to: Position, prev: Position) -> Part {
        let (expect, version) = (Expect::Version(from.get()), to.get());
        Part { role: Role::Checkpoint, expect, key: b"c", version, prev, skip: Position::START }
    }

    fn snapshot(key: &'static [u8], version: u64, prev: Position) -> Part {
        let (expect, skip) = (Expect::Any, Position::START);
        Part { role: Role::Snapshot, expect, key, version, prev, skip }
    }

    /// The parts of a write, and its client's number and sequence.
    type Write<'a> = (&'a [Part], Option<(u128, u64)>);

    /// What the books say of these writes, which stand at 1, 2, 3….
    fn objections(records: &[Write<'_>]) -> Vec<Option<String>> {
        let mut books = Books {
            aggregates: HashMap::new(),
            clients: HashMap::new(),
            checkpoints: HashMap::new(),
            flushes: 0,
            writes: 0,
            events: 0,
            walked: &mut |_| {},
        };
        let mut said = Vec::new();
        for (nth, (parts, client)) in (1..).zip(records) {
            let mut encoder = RecordEncoder::new();
            for part in *parts {
                encoder.begin_part(part.role, part.expect, part.key).unwrap();
                if matches!(part.role, Role::Append | Role::Snapshot) {
                    encoder.push_event(&Event::new("Happened", "x")).unwrap();
                }
            }
            encoder.finish(*client).unwrap();
            for (index, part) in parts.iter().enumerate() {
                encoder.set_version(index, part.version);
            }
            let mut bytes = encoder.head().to_vec();
            for (index, part) in
                parts.iter().enumerate().filter(|(_, part)| part.role != Role::Check)
            {
                set_links(&mut bytes, index, part.prev, part.skip);
            }
            seal(&mut bytes, 0, SALT, at(nth));
            bytes.extend_from_slice(encoder.body());
            let record = RecordView::parse(&bytes, SALT, at(nth)).unwrap();
            said.push(match books.record(&record, at(nth)) {
                Ok(()) => None,
                Err(Objection::Damage { what, .. }) => Some(what),
                Err(Objection::Failed(error)) => panic!("{error}"),
            });
        }
        said
    }

    #[test]
    fn a_sound_log_is_not_objected_to() {
        let said = objections(&[
            (&[append(b"a", Expect::Absent, 1, Position::START)], Some((9, 1))),
            (
                &[
                    append(b"a", Expect::Version(1), 2, at(1)),
                    append(b"b", Expect::Any, 1, Position::START),
                    check(b"c", Expect::Absent, 0),
                ],
                Some((9, 2)),
            ),
            (&[append(b"b", Expect::Exists, 2, at(2)), check(b"a", Expect::Version(2), 2)], None),
            (&[append(b"c", Expect::Absent, 1, Position::START)], Some((9, 7))),
        ]);
        assert_eq!(said, [None, None, None, None]);
    }

    #[test]
    fn what_can_not_be_so_is_told_once() {
        let first: Write<'_> = (&[append(b"a", Expect::Any, 1, Position::START)], Some((9, 5)));
        let second = |part: Part| {
            let said = objections(&[
                first,
                (&[part, append(b"z", Expect::Any, 1, Position::START)], None),
            ]);
            assert_eq!(said[0], None);
            said[1].clone().unwrap()
        };
        let told = |part, what: &str| {
            let said = second(part);
            assert!(said.contains(what), "{said}");
        };
        told(append(b"a", Expect::Any, 3, at(1)), "version 3 follows version 1");
        told(append(b"a", Expect::Any, 2, at(0)), "linked to");
        told(check(b"a", Expect::Exists, 2), "checked at version 2, and it was at 1");
        let skip = Part { skip: at(1), ..append(b"a", Expect::Any, 2, at(1)) };
        told(skip, "linked to");

        // What was told is believed from then on.
        let jump = append(b"a", Expect::Any, 3, at(1));
        let said =
            objections(&[first, (&[jump], None), (&[append(b"a", Expect::Any, 4, at(2))], None)]);
        assert!(said[1].is_some() && said[2].is_none(), "{said:?}");
    }

    #[test]
    fn sequences_of_a_client_rise_on_each_aggregate() {
        let said = objections(&[
            (&[append(b"a", Expect::Any, 1, Position::START)], Some((9, 5))),
            // What is only checked does not count.
            (
                &[append(b"b", Expect::Any, 1, Position::START), check(b"a", Expect::Exists, 1)],
                Some((9, 5)),
            ),
            (&[append(b"a", Expect::Any, 2, at(1))], Some((8, 1))),
            (&[append(b"a", Expect::Any, 3, at(3))], Some((9, 5))),
        ]);
        assert_eq!(said[..3], [None, None, None]);
        assert!(said[3].as_ref().unwrap().contains("sequence 5 after 5"), "{said:?}");
    }

    #[test]
    fn an_aggregate_stands_in_a_write_once() {
        let a = append(b"a", Expect::Any, 1, Position::START);
        let said = objections(&[(&[a, check(b"a", Expect::Exists, 1)], None)]);
        assert!(said[0].as_ref().unwrap().contains("twice"), "{said:?}");
    }

    #[test]
    fn a_checkpoint_goes_on_from_where_it_stood() {
        let none = Position::START;
        let first = [moves(none, at(7), none), append(b"c", Expect::Absent, 1, none)];
        let said = |second: &[Part], third: Part| {
            let said = objections(&[(&first, None), (second, None), (&[third], None)]);
            assert_eq!(said[0], None);
            (said[1].clone(), said[2].clone())
        };
        let sound = moves(at(7), at(8), at(1));
        assert_eq!(said(&[sound], moves(at(8), at(9), at(2))), (None, None));

        let (jump, third) = said(&[moves(at(6), at(8), at(1))], moves(at(8), at(9), at(2)));
        assert!(jump.unwrap().contains("checkpoint \"c\": moved from 1:24576 to 1:32768, and it"));
        assert_eq!(third, None, "what was told is believed from then on");
        let (begun_again, _) = said(&[moves(none, at(8), none)], sound);
        assert!(begun_again.unwrap().contains("it stood at 1:28672"));
        let (back, _) = said(&[sound, append(b"c", Expect::Any, 2, at(1))], sound);
        assert_eq!(back, None, "an aggregate of the same key is another thing");
        let (linked, _) = said(&[Part { prev: at(0), ..sound }], moves(at(8), at(9), at(2)));
        assert!(linked.unwrap().contains("linked to 1:0"));
        let (twice, _) = said(&[sound, moves(at(8), at(9), at(1))], moves(at(9), at(10), at(2)));
        assert!(twice.unwrap().contains("twice"));
    }

    #[test]
    fn a_snapshot_stands_for_a_version_that_was_reached() {
        let said = objections(&[
            (&[append(b"a", Expect::Any, 1, Position::START)], None),
            (&[snapshot(b"a", 1, Position::START)], None),
            (&[append(b"a", Expect::Any, 2, at(1))], None),
            (&[snapshot(b"a", 1, at(2))], None),
            (&[snapshot(b"a", 3, at(4))], None),
            (&[snapshot(b"a", 2, at(2))], None),
            (&[snapshot(b"b", 1, Position::START)], None),
        ]);
        assert_eq!(said[..4], [const { None }; 4]);
        let contains = |nth: usize, what: &str| said[nth].as_ref().unwrap().contains(what);
        assert!(contains(4, "a snapshot of version 3, and it was at 2"), "{said:?}");
        assert!(contains(5, "a snapshot linked to 1:8192"), "{said:?}");
        assert!(contains(6, "a snapshot of version 1, and it was at 0"), "{said:?}");
    }

    #[test]
    fn links_over_many_versions() {
        let mut parts = Vec::new();
        let mut skip = Position::START;
        for version in 1..=130_u32 {
            let prev = if version == 1 { Position::START } else { at(version - 1) };
            parts.push([Part { skip, ..append(b"a", Expect::Any, version.into(), prev) }]);
            if version.is_multiple_of(64) {
                skip = at(version);
            }
        }
        let records: Vec<Write<'_>> = parts.iter().map(|part| (part.as_slice(), None)).collect();
        assert!(objections(&records).iter().all(Option::is_none));
    }
}
