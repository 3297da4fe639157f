//! What a simulated disk holds: live and durable, and what a power cut makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use super::{Fault, Op, Order};

const SECTOR: usize = 512;

pub(super) struct State {
    pub(super) random: Random,
    pub(super) block: u32,
    /// Bytes of all live files together.
    pub(super) capacity: u64,
    pub(super) files: Vec<Content>,
    pub(super) live: Names,
    pub(super) durable: Names,
    /// Changes of names that are not durable, each with its directory.
    pub(super) changes: Vec<(String, Change)>,
    pub(super) locked: bool,
    pub(super) order: Order,
    pub(super) stepped: bool,
    pub(super) faults: Vec<Fault>,
    pub(super) counts: BTreeMap<Op, u64>,
}

pub(super) type Names = BTreeMap<String, Node>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    /// An index of `State::files`.
    File(usize),
}

#[derive(Clone)]
pub(super) enum Change {
    Add(String, Node),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) live: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// Sectors whose live content is not durable, and whether the length is.
    marked: BTreeSet<usize>,
    length_marked: bool,
}

impl Content {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.live.len() {
            self.set_len(end);
        }
        self.live[offset..end].copy_from_slice(bytes);
        self.marked.extend(sectors(offset, end));
    }

    pub(super) fn set_len(&mut self, bytes: usize) {
        self.length_marked |= bytes != self.live.len();
        // What is cut off and grown again is zeros.
        self.marked.extend(sectors(self.live.len().min(bytes), self.live.len().max(bytes)));
        self.live.resize(bytes, 0);
    }

    fn settle_length(&mut self) {
        self.length_marked = false;
        self.durable.resize(self.live.len(), 0);
    }

    fn settle(&mut self, sectors: impl IntoIterator<Item = usize>) {
        for sector in sectors {
            let from = sector * SECTOR;
            let end = (from + SECTOR).min(self.durable.len()).min(self.live.len());
            if self.marked.remove(&sector) && from < end {
                self.durable[from..end].copy_from_slice(&self.live[from..end]);
            }
        }
    }

    fn settle_all(&mut self) {
        self.settle_length();
        self.settle(self.marked.clone());
    }
}

pub(super) fn sectors(from: usize, end: usize) -> Range<usize> {
    from / SECTOR..end.div_ceil(SECTOR)
}

/// xorshift64*, with a seed that is spread first.
#[derive(Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        let spread = seed.wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        Random((spread ^ spread >> 31) | 1)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        ((high * end as u64) >> 32) as usize
    }

    pub(super) fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

impl State {
    /// Counts an operation and says how it fails, if it does.
    pub(super) fn meet(&mut self, op: Op) -> Result<(), Fault> {
        *self.counts.entry(op).or_default() += 1;
        let mut hit = None;
        self.faults.retain_mut(|fault| {
            if fault.op != op {
                return true;
            }
            fault.nth = fault.nth.saturating_sub(1);
            if fault.nth == 0 {
                hit = hit.or(Some(*fault));
            }
            fault.nth > 0 || fault.lasting
        });
        hit.map_or(Ok(()), Err)
    }

    pub(super) fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let met = self.meet(Op::Write);
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        match met {
            Ok(()) => {
                self.room(file, offset.saturating_add(bytes.len()))?;
                self.files[file].write(offset, bytes);
                Ok(())
            }
            Err(fault) => {
                if fault.short {
                    let half = bytes.len() / 2 / SECTOR * SECTOR;
                    self.files[file].write(offset, &bytes[..half]);
                }
                Err(fault.kind.into())
            }
        }
    }

    /// Whether a file may become that long.
    pub(super) fn room(&self, file: usize, bytes: usize) -> io::Result<()> {
        let length = |node: &Node| match node {
            Node::File(index) if *index != file => self.files[*index].live.len() as u64,
            _ => 0,
        };
        let others: u64 = self.live.values().map(length).sum();
        let wanted = bytes.max(self.files[file].live.len()) as u64;
        if wanted > self.files[file].live.len() as u64 && others + wanted > self.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, file: usize, part: Option<Range<usize>>) -> io::Result<()> {
        let met = self.meet(Op::Sync);
        let content = &mut self.files[file];
        match (met, part) {
            (Ok(()), None) => content.settle_all(),
            (Ok(()), Some(part)) => {
                content.settle_length();
                content.settle(part);
            }
            // The system forgets what it could not write.
            (Err(fault), None) => {
                content.marked.clear();
                content.length_marked = false;
                return Err(fault.kind.into());
            }
            (Err(fault), Some(part)) => {
                content.marked.retain(|sector| !part.contains(sector));
                return Err(fault.kind.into());
            }
        }
        Ok(())
    }

    pub(super) fn change(&mut self, path: &str, change: Change) {
        apply(&mut self.live, &change);
        self.changes.push((parent(path).to_owned(), change));
    }

    pub(super) fn file(&self, path: &str) -> io::Result<usize> {
        match self.live.get(path) {
            Some(Node::File(index)) => Ok(*index),
            Some(Node::Dir) => Err(io::ErrorKind::InvalidInput.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn dir(&self, dir: &str) -> io::Result<()> {
        match self.live.get(dir) {
            Some(Node::Dir) => Ok(()),
            None if dir.is_empty() => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The state after a power cut, as far as it is durable and as `random`, if there is one, decides the rest.
    pub(super) fn after_power_cut(&self, mut random: Option<Random>) -> State {
        let mut names = self.durable.clone();
        let mut stopped = BTreeSet::new();
        for (dir, change) in &self.changes {
            if stopped.contains(dir) || !random.as_mut().is_some_and(Random::coin) {
                stopped.insert(dir);
            } else {
                apply(&mut names, change);
            }
        }
        let whole = |path: &str| parent(path).is_empty() || names.contains_key(parent(path));
        let live: Names =
            names.iter().filter(|(path, _)| whole(path)).map(|(p, n)| (p.clone(), *n)).collect();
        let mut files = self.files.clone();
        for file in &mut files {
            if let Some(random) = &mut random {
                if file.length_marked && random.coin() {
                    file.settle_length();
                }
                let kept: Vec<_> = file.marked.iter().copied().filter(|_| random.coin()).collect();
                file.settle(kept);
            }
            *file = Content {
                live: file.durable.clone(),
                durable: std::mem::take(&mut file.durable),
                ..Content::default()
            };
        }
        State {
            random: random.unwrap_or_else(|| self.random.clone()),
            files,
            durable: live.clone(),
            live,
            ..State::new(0, self.block)
        }
    }

    pub(super) fn new(seed: u64, block: u32) -> State {
        State {
            random: Random::new(seed),
            block,
            capacity: u64::MAX,
            files: Vec::new(),
            live: Names::new(),
            durable: Names::new(),
            changes: Vec::new(),
            locked: false,
            order: Order::default(),
            stepped: false,
            faults: Vec::new(),
            counts: BTreeMap::new(),
        }
    }
}

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

pub(super) fn apply(names: &mut Names, change: &Change) {
    match change {
        Change::Add(path, node) => {
            names.insert(path.clone(), *node);
        }
        Change::Rename(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
        Change::Remove(path) => {
            names.remove(path);
        }
    }
}
