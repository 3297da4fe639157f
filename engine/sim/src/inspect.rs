//! What an opened store holds, against the reference model.
//!
//! * **D** Every committed operation is there, byte for byte, at its position and versions; so is all that was shown.
//! * **A** Every record is one whole operation.
//! * **N** No operation is there twice, and none that was refused or not written.
//! * **G** Versions go up by one, positions rise, and every condition and check holds where its record stands.
//! * **V** Reads of every kind show the log's bytes.

use std::collections::{BTreeMap, BTreeSet};

use annals::{Recorded, RecordedWrite, Role, Store};

use crate::book::{Book, Entry, Facts, holds, text};
use crate::op::{self, Deed, OpId};

/// What the disk may have done to what was acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Faith {
    /// It kept its promises: nothing acknowledged is missing.
    Kept,
    /// Bytes rotted at one place. Each shard's log may end earlier, but not below what was proven before.
    Rotten(Vec<u64>),
    /// It lied, or lost bytes: the log may end earlier, and what it has must be right all the same.
    Broken,
}

impl Faith {
    /// Whether what was shown at a position of a shard may be gone, where its log ends now.
    fn allows_loss(&self, shard: u16, position: u64, end: u64) -> bool {
        match self {
            Faith::Kept => false,
            Faith::Rotten(proven) => {
                position > end
                    && proven.get(usize::from(shard)).is_none_or(|proven| position >= *proven)
            }
            Faith::Broken => position > end,
        }
    }
}

/// What a log holds, as its records say.
#[derive(Default, Debug)]
pub struct Contents {
    /// The operations of all shards.
    pub landed: BTreeMap<OpId, Facts>,
    /// The version of each aggregate.
    pub versions: BTreeMap<String, u64>,
    /// Where each checkpoint stands.
    pub marks: BTreeMap<String, u64>,
    /// The positions of each shard's records, in order.
    pub positions: Vec<Vec<u64>>,
    /// Those of writes that append: what followers are given.
    given: Vec<Vec<u64>>,
    /// The events of each aggregate: operation, part, index, version.
    pub histories: BTreeMap<String, Vec<(OpId, usize, u32, u64)>>,
    /// The newest snapshot of each aggregate: its position and its version.
    snapshots: BTreeMap<String, (u64, u64)>,
    /// The newest sequence of each client on each aggregate.
    sequences: BTreeMap<(String, u128), u64>,
    /// Snapshots whose operation is known.
    claimed: BTreeSet<OpId>,
}

/// Why an inspection ended early.
#[derive(Debug)]
pub enum Complaint {
    /// The engine is wrong.
    Wrong(String),
    /// A read failed. Right or wrong depends on what the disk was made to do.
    Failed(annals::Error),
}

impl From<String> for Complaint {
    fn from(what: String) -> Complaint {
        Complaint::Wrong(what)
    }
}

impl From<annals::Error> for Complaint {
    fn from(error: annals::Error) -> Complaint {
        Complaint::Failed(error)
    }
}

/// Reads everything that a store has, in every way, and holds it against the book.
pub fn inspect(store: &Store, book: &mut Book, faith: &Faith) -> Result<Contents, Complaint> {
    let mut contents = Contents::default();
    for shard in 0..store.shards() {
        let (mut positions, mut given) = (Vec::new(), Vec::new());
        for write in store.log(shard).writes() {
            let write = write?;
            let at = write.position().get();
            if positions.last().is_some_and(|last| *last >= at) {
                return Err(format!("position {at} of shard {shard} does not rise").into());
            }
            positions.push(at);
            if write.parts().any(|part| part.role() == Role::Append) {
                given.push(at);
            }
            contents.take(book, shard, &write)?;
        }
        contents.positions.push(positions);
        contents.given.push(given);
    }
    contents.compare(book, faith)?;
    contents.read_all(store, book)?;
    Ok(contents)
}

impl Contents {
    /// Takes in one record of the log.
    fn take(
        &mut self,
        book: &mut Book,
        shard: u16,
        write: &RecordedWrite,
    ) -> Result<(), Complaint> {
        let at = write.position().get();
        let entry = self.identify(book, shard, write)?;
        let id = entry.op.id;
        if !entry.may_exist() {
            return Err(format!("{id:?} was refused or not written, and stands at {at}").into());
        }
        if entry.op.shard != shard {
            return Err(format!("{id:?} stands on shard {shard}").into());
        }
        if write.client()
            != entry
                .op
                .client
                .filter(|_| entry.op.parts.iter().any(|part| matches!(part.deed, Deed::Append(_))))
        {
            return Err(format!("{id:?} has client {:?}", write.client()).into());
        }
        let mut versions = BTreeMap::new();
        let parts: Vec<_> = write.parts().collect();
        if parts.len() != entry.op.parts.len() {
            return Err(
                format!("{id:?} has {} of {} parts", parts.len(), entry.op.parts.len()).into()
            );
        }
        for (index, part) in entry.op.parts.iter().enumerate() {
            let role = match part.deed {
                Deed::Append(_) => Role::Append,
                Deed::Check => Role::Check,
                Deed::Move { .. } => Role::Checkpoint,
                Deed::Save { .. } => Role::Snapshot,
            };
            let found = parts
                .iter()
                .find(|found| found.role() == role && found.key() == part.key.as_bytes());
            let Some(found) = found else {
                return Err(format!("{id:?} stands at {at} without its part {part:?}").into());
            };
            let before = self.versions.get(&part.key).copied().unwrap_or(0);
            let wrong = |what: String| Err(format!("{id:?} at {at}, {}: {what}", part.key).into());
            match part.deed {
                Deed::Append(count) => {
                    if found.version() != before + 1 {
                        return wrong(format!("version {} after {before}", found.version()));
                    }
                    let expected = if entry.op.decided { found.expected() } else { part.expect };
                    if !holds(expected, before) || found.expected() != expected {
                        return wrong(format!("written on {expected}, at version {before}"));
                    }
                    let events: Vec<Recorded> = found.events().collect();
                    if events.len() != count as usize {
                        return wrong(format!("{} of {count} events", events.len()));
                    }
                    let history = self.histories.entry(part.key.clone()).or_default();
                    for (number, event) in (0..).zip(&events) {
                        if let Some(differs) = entry.op.differs(index, number, event) {
                            return wrong(format!("event {number}: {differs}"));
                        }
                        history.push((id, index, number, before + 1));
                    }
                    self.versions.insert(part.key.clone(), before + 1);
                    versions.insert(part.key.clone(), before + 1);
                    if let Some((client, sequence)) = entry.op.client {
                        let newest = self.sequences.entry((part.key.clone(), client)).or_default();
                        if *newest >= sequence {
                            return wrong(format!(
                                "sequence {sequence} of a client after {newest}"
                            ));
                        }
                        *newest = sequence;
                    }
                    if let Some(state) = entry.decided_on.get(&part.key)
                        && *state != fold(&history[..history.len() - events.len()])
                    {
                        return wrong("it was decided on another history".into());
                    }
                }
                Deed::Check => {
                    if found.version() != before || !holds(part.expect, before) {
                        return wrong(format!("checked {} at version {before}", part.expect));
                    }
                    versions.insert(part.key.clone(), before);
                }
                Deed::Move { from, to } => {
                    let stood = self.marks.get(&part.key).copied().unwrap_or(0);
                    if found.moved() != Some((from, to)) || stood != from.get() {
                        return wrong(format!("moved from {from}, where it stood at {stood}"));
                    }
                    self.marks.insert(part.key.clone(), to.get());
                }
                Deed::Save { version } => {
                    if found.version() != version || version > before {
                        return wrong(format!("a snapshot of version {version} at {before}"));
                    }
                    self.snapshots.insert(part.key.clone(), (at, version));
                }
            }
        }
        let facts = Facts { position: at, versions };
        let saves = matches!(entry.op.parts[0].deed, Deed::Save { .. });
        if let Some(committed) = &entry.committed
            && (committed.position != at || !saves && committed.versions != facts.versions)
        {
            return Err(
                format!("{id:?} was committed as {committed:?} and stands as {facts:?}").into()
            );
        }
        if let Some(before) = self.landed.insert(id, facts) {
            return Err(format!("{id:?} stands at {} and again at {at}", before.position).into());
        }
        Ok(())
    }

    /// Which operation a record is of.
    fn identify<'b>(
        &mut self,
        book: &'b Book,
        shard: u16,
        write: &RecordedWrite,
    ) -> Result<&'b Entry, Complaint> {
        let at = write.position().get();
        let mut found = None;
        for part in write.parts() {
            match part.role() {
                Role::Append => {
                    let first = part.events().next();
                    found = first.and_then(|event| op::of(event.data())).map(|(id, ..)| id);
                }
                Role::Checkpoint => {
                    found = book.mover(&text(part.key()), part.version());
                }
                Role::Snapshot => {
                    let key = text(part.key());
                    let shown = book.shown(shard).find(|(position, _)| *position == at);
                    let claimed = &self.claimed;
                    let free = |id: &OpId| !claimed.contains(id);
                    found = shown.map(|(_, id)| id).or_else(|| {
                        let unknown = book.snapshots(&key, part.version());
                        let unknown = unknown.filter(|entry| entry.committed.is_none());
                        unknown.map(|entry| entry.op.id).find(free)
                    });
                    self.claimed.extend(found);
                }
                _ => continue,
            }
            if found.is_some() {
                break;
            }
        }
        let entry = found.and_then(|id| book.find(id));
        entry.ok_or_else(|| {
            let parts: Vec<_> = write.parts().collect();
            format!("nobody wrote what stands at {at} of shard {shard}: {parts:?}, {found:?}")
                .into()
        })
    }

    /// What is missing, or should not be there.
    fn compare(&self, book: &mut Book, faith: &Faith) -> Result<(), Complaint> {
        let mut lost = Vec::new();
        for (shard, positions) in (0..).zip(&self.positions) {
            let end = positions.last().copied().unwrap_or(0);
            for (position, id) in book.shown(shard) {
                if self.landed.get(&id).is_some_and(|facts| facts.position == position) {
                    continue;
                }
                if faith.allows_loss(shard, position, end) {
                    lost.push((shard, position));
                    continue;
                }
                return Err(format!(
                    "{id:?} was shown at {position} of shard {shard}, and is gone"
                )
                .into());
            }
        }
        for (shard, position) in lost {
            if *faith == Faith::Broken {
                book.count("lost by a broken disk");
            }
            book.forget(shard, position);
        }
        for (id, entry, facts) in book.committed() {
            if entry.op.changes() && !self.landed.contains_key(&id) {
                return Err(format!("{id:?} was committed as {facts:?}, and is gone").into());
            }
        }
        if *faith != Faith::Kept {
            return Ok(());
        }
        for followed in &book.followed {
            let Some(last) = followed.given.last() else { continue };
            let range = followed.after + 1..=*last;
            let there = self.given[usize::from(followed.shard)].iter().copied();
            let there: Vec<u64> = there.filter(|position| range.contains(position)).collect();
            if there != followed.given {
                return Err(format!(
                    "a follower of shard {} was given {:?}, where {there:?} stands",
                    followed.shard, followed.given
                )
                .into());
            }
        }
        Ok(())
    }

    /// Reads every aggregate, checkpoint and snapshot.
    fn read_all(&self, store: &Store, book: &Book) -> Result<(), Complaint> {
        for (key, history) in &self.histories {
            let wrong = |what: String| Err(Complaint::Wrong(format!("{key}: {what}")));
            let version = store.version(key)?;
            if Some(&version) != self.versions.get(key) {
                return wrong(format!(
                    "version {version}, where the log has {:?}",
                    self.versions.get(key)
                ));
            }
            let mut read = Vec::new();
            for event in store.read(key) {
                let event = event?;
                let Some((id, part, index)) = op::of(event.data()) else {
                    return wrong("an event that nobody wrote".into());
                };
                let Some(entry) = book.find(id) else {
                    return wrong(format!("an event of {id:?}, which there is not"));
                };
                if part >= entry.op.parts.len() || event.key() != key.as_bytes() {
                    return wrong(format!("an event of another aggregate, {}", text(event.key())));
                }
                if let Some(differs) = entry.op.differs(part, index, &event) {
                    return wrong(format!("version {}: {differs}", event.version()));
                }
                read.push((id, part, index, event.version()));
            }
            if read != *history {
                return wrong(format!("a read shows {read:?}, and the log has {history:?}"));
            }
            let mut backwards = 0;
            for (event, expected) in store.read(key).backwards().zip(history.iter().rev()) {
                if event?.version() != expected.3 {
                    return wrong("read backwards it is another".into());
                }
                backwards += 1;
            }
            if backwards != history.len() {
                return wrong(format!(
                    "{backwards} of {} events are read backwards",
                    history.len()
                ));
            }
        }
        for (name, mark) in &self.marks {
            let stands = store.checkpoint(name)?.get();
            if stands != *mark {
                return Err(
                    format!("checkpoint {name} stands at {stands}, in the log at {mark}").into()
                );
            }
        }
        for (key, (at, version)) in &self.snapshots {
            let Some(snapshot) = store.load_snapshot(key)? else {
                return Err(format!("the snapshot of {key} at {at} is not found").into());
            };
            let saved = op::of(snapshot.bytes()).and_then(|(id, ..)| book.find(id));
            let whole = saved.is_some_and(|entry| entry.op.snapshot() == snapshot.bytes());
            if !whole || (snapshot.position().get(), snapshot.version()) != (*at, *version) {
                return Err(format!("the newest snapshot of {key} is not the one at {at}").into());
            }
        }
        Ok(())
    }
}

/// A number over a history, as an execution's state has it.
pub fn fold(history: &[(OpId, usize, u32, u64)]) -> u64 {
    history.iter().fold(0, |state, (id, part, index, _)| fold_one(state, *id, *part, *index))
}

/// The next state.
pub fn fold_one(state: u64, id: OpId, part: usize, index: u32) -> u64 {
    (state ^ id.0 << 16 ^ (part as u64) << 8 ^ u64::from(index))
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(29)
}
