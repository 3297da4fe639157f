//! What a salvage came to, and exactly what is missing.

use std::fmt;

use crate::id::Position;
use crate::key::Shown;
use crate::read::RecordedWrite;

/// What a salvage came to. Its text is for people.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Salvage {
    /// How many shards the new store has.
    pub shards: u16,
    /// How many writes were copied.
    pub writes: u64,
    /// How many events they have.
    pub events: u64,
    /// How many aggregates the new store has.
    pub aggregates: u64,
    /// How many snapshots were copied, beside the writes.
    pub snapshots: u64,
    /// How many writes, and snapshots, are whole and were set aside.
    pub set_aside: u64,
    /// Versions that are known to have been there, in log order of what tells of them.
    pub missing: Vec<MissingVersions>,
    /// Aggregates that do not go on in the new store, though they did in the old one.
    pub cut_off: Vec<CutOff>,
    /// Checkpoints, none of which was copied.
    pub checkpoints: Vec<LeftCheckpoint>,
    /// Bytes that are not what was written, or not there, shard by shard in log order.
    pub damage: Vec<DamagedRange>,
    /// Why the old identity file said nothing, if it was made up from the segments.
    pub identity: Option<String>,
}

/// Versions of an aggregate of which nothing whole is left.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MissingVersions {
    /// The shard, in the old store.
    pub shard: u16,
    /// The aggregate.
    pub aggregate: Vec<u8>,
    /// The first version that is missing.
    pub from: u64,
    /// The last one.
    pub to: u64,
    /// Where the last one stood, if that is known.
    pub position: Option<Position>,
}

/// An aggregate whose later events are not in the new store.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CutOff {
    /// The shard, in the old store.
    pub shard: u16,
    /// The aggregate.
    pub aggregate: Vec<u8>,
    /// Its version in the new store; 0 if it does not exist there.
    pub kept: u64,
    /// The highest version that anything whole in the old store tells of.
    pub last: u64,
    /// How many of its versions were set aside.
    pub set_aside: u64,
}

/// A checkpoint that was left out: the positions of the new store are others.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LeftCheckpoint {
    /// The shard, in the old store.
    pub shard: u16,
    /// Its name.
    pub name: Vec<u8>,
    /// Where it stood, as far as is known.
    pub stood: Position,
    /// If that is the position of a write on the same shard that was copied: where this write stands now.
    pub now: Option<Position>,
}

/// A range of a file that is not what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DamagedRange {
    /// The shard, in the old store.
    pub shard: u16,
    /// The segment's file, relative to the store's directory.
    pub segment: String,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes; 0 if what is missing has no place there.
    pub bytes: u64,
    /// The aggregate of a damaged write, as far as can be told.
    pub aggregate: Option<Vec<u8>>,
    /// What is wrong.
    pub what: String,
    /// Whether a write may have been lost by it. If not, all that stood there was found.
    pub lost: bool,
}

/// A write that is whole and can't go into the new store.
#[derive(Debug)]
#[non_exhaustive]
pub struct SetAside<'a> {
    /// The shard, in the old store.
    pub shard: u16,
    /// The write, with its old position and versions.
    pub write: &'a RecordedWrite,
    /// The bytes, if it is a snapshot.
    pub snapshot: Option<&'a [u8]>,
    /// Why it was set aside.
    pub why: &'a str,
}

impl Salvage {
    /// Whether the new store has all that the old one had, as far as anything tells: nothing is missing, set aside or left
    /// out.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
            && self.set_aside == 0
            && self.cut_off.is_empty()
            && self.checkpoints.is_empty()
            && !self.damage.iter().any(|range| range.lost)
    }
}

impl fmt::Display for Salvage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Salvage { writes, events, aggregates, snapshots, set_aside, .. } = self;
        if let Some(why) = &self.identity {
            writeln!(f, "what the store is was made up from its segments: {why}")?;
        }
        for damage in &self.damage {
            writeln!(f, "{damage}")?;
        }
        for missing in &self.missing {
            writeln!(f, "{missing}")?;
        }
        for cut_off in &self.cut_off {
            writeln!(f, "{cut_off}")?;
        }
        for checkpoint in &self.checkpoints {
            writeln!(f, "{checkpoint}")?;
        }
        let verdict = if self.is_complete() { "complete" } else { "not complete" };
        write!(f, "{verdict}: {writes} writes with {events} events of {aggregates} aggregates")?;
        write!(f, " and {snapshots} snapshots copied, {set_aside} set aside")
    }
}

impl fmt::Display for MissingVersions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MissingVersions { shard, from, to, .. } = self;
        let key = Shown(&self.aggregate);
        match from == to {
            true => write!(f, "aggregate {key}: version {from} is missing")?,
            false => write!(f, "aggregate {key}: versions {from} to {to} are missing")?,
        }
        match self.position {
            Some(position) => write!(f, "; it stood at {position} of shard {shard}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CutOff { kept, last, set_aside, .. } = self;
        let key = Shown(&self.aggregate);
        write!(f, "aggregate {key}: ends at version {kept} in the new store, was at {last}; ")?;
        write!(f, "{set_aside} later versions were set aside")
    }
}

impl fmt::Display for LeftCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, stood) = (Shown(&self.name), self.stood);
        write!(f, "checkpoint {name} was left out; it stood at {} ({stood})", stood.get())?;
        match self.now {
            Some(now) => {
                write!(f, "; the write of its shard there is now at {} ({now})", now.get())
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for DamagedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DamagedRange { segment, offset, bytes, what, .. } = self;
        write!(f, "{segment}, {bytes} bytes from byte {offset} on: ")?;
        if let Some(key) = &self.aggregate {
            write!(f, "aggregate {}: ", Shown(key))?;
        }
        f.write_str(what)?;
        if self.lost { Ok(()) } else { f.write_str(" (nothing is lost by it)") }
    }
}
