//! What a simulated disk holds, what is done to it, and what a power cut makes of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar};
use std::time::Duration;

use super::content::{Content, SECTOR};
use super::faults::{FaultKind, Faults, Hit, Op};
use super::random::Random;
use super::{Loss, Order};

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
    pub(super) faults: Faults,
    pub(super) counts: BTreeMap<Op, u64>,
    /// Operations of all kinds.
    pub(super) ios: u64,
    pub(super) power: Power,
    pub(super) loss: Loss,
    /// A power cut damages whole blocks.
    pub(super) damages: bool,
    /// Flushes that were written and have not completed.
    pub(super) flying: Vec<InFlight>,
    pub(super) now: Duration,
    /// Of a flush that completes late: how many looks and how much time at most.
    pub(super) lateness: (u64, Duration),
    /// Flushes of the world before that have not landed yet.
    stragglers: VecDeque<Straggler>,
    /// Signalled when a waker is called, the order changes, time passes or the power fails.
    pub(super) changed: Arc<Condvar>,
}

/// Whether the disk has power.
pub(super) enum Power {
    On,
    /// It fails at this operation, the rest being decided by the seed.
    FailsAt(u64, u64),
    /// It has failed. What the disk was then, until somebody takes it.
    Off(Option<Box<State>>),
}

/// A flush on its way.
#[derive(Clone)]
pub(super) struct InFlight {
    pub(super) number: u64,
    pub(super) file: usize,
    pub(super) range: Range<usize>,
    /// The earliest time at which it completes.
    pub(super) due: Duration,
}

/// A write that lands when so many operations of the new world have been made.
struct Straggler {
    file: usize,
    offset: usize,
    bytes: Vec<u8>,
    at: u64,
}

pub(super) type Names = BTreeMap<String, Node>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

/// A straggler lands within so many operations.
const STRAGGLES_MAX: usize = 64;

impl State {
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
            faults: Faults::default(),
            counts: BTreeMap::new(),
            ios: 0,
            power: Power::On,
            loss: Loss::Random,
            damages: false,
            flying: Vec::new(),
            now: Duration::ZERO,
            lateness: (8, Duration::ZERO),
            stragglers: VecDeque::new(),
            changed: Arc::new(Condvar::new()),
        }
    }

    pub(super) fn is_off(&self) -> bool {
        matches!(self.power, Power::Off(_))
    }

    /// Fails if there is no power.
    pub(super) fn powered(&self) -> Result<(), Hit> {
        match self.power {
            Power::Off(_) => Err(Hit { kind: io::ErrorKind::Other, short: false }),
            _ => Ok(()),
        }
    }

    /// Counts an operation, and says how it fails, if it does.
    pub(super) fn meet(&mut self, op: Op) -> Result<(), Hit> {
        self.powered()?;
        self.ios += 1;
        while self.stragglers.front().is_some_and(|straggler| straggler.at <= self.ios) {
            self.land_straggler();
        }
        if let Power::FailsAt(nth, seed) = self.power
            && self.ios >= nth
        {
            let image = self.after_power_cut(self.loss, Random::new(seed));
            self.power = Power::Off(Some(Box::new(image)));
            self.changed.notify_all();
            return self.powered();
        }
        *self.counts.entry(op).or_default() += 1;
        self.faults.meet(op, &mut self.random)
    }

    /// How late it is, as the host of this thread says, if there is one.
    pub(super) fn now(&self) -> Duration {
        #[cfg(feature = "internals")]
        if let Some(host) = crate::sync::host::current() {
            return host.elapsed();
        }
        self.now
    }

    /// Whether something goes wrong by chance now. It is counted by whoever lets it happen.
    pub(super) fn draw(&mut self, kind: FaultKind) -> bool {
        self.faults.draw(kind, &mut self.random)
    }

    /// As `draw`, and counts it.
    pub(super) fn strikes(&mut self, kind: FaultKind) -> bool {
        self.faults.strikes(kind, &mut self.random)
    }

    /// Writes as much as the device does in one go; how much that was.
    pub(super) fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let met = self.meet(Op::Write);
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if let Err(hit) = met {
            if hit.short {
                let half = bytes.len() / 2 / SECTOR * SECTOR;
                self.files[file].write(offset, &bytes[..half]);
                self.faults.happened.add_many(FaultKind::ShortWrite, (half > 0).into());
            }
            return Err(hit.into());
        }
        self.room(file, offset.saturating_add(bytes.len()))?;
        if self.strikes(FaultKind::Interrupted) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.strikes(FaultKind::LostWrite) {
            return Ok(bytes.len());
        }
        if let Some((file, offset)) = self.elsewhere(
            file,
            offset,
            bytes.len(),
            FaultKind::MisdirectedWrite,
            FaultKind::StrayWrite,
        ) {
            self.files[file].overwrite(offset, bytes);
            return Ok(bytes.len());
        }
        let mut written = bytes.len();
        if bytes.len() > SECTOR && self.strikes(FaultKind::ShortWrite) {
            written = (1 + self.random.below(bytes.len().div_ceil(SECTOR) - 1)) * SECTOR;
        }
        self.files[file].write(offset, &bytes[..written]);
        Ok(written)
    }

    /// Writes everything, as a system call does that is repeated until it has.
    pub(super) fn write_all(&mut self, file: usize, mut at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        loop {
            match self.write(file, at, rest) {
                Ok(written) => {
                    at += written as u64;
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Fills the buffer, from the device if `direct`.
    pub(super) fn read(
        &mut self,
        file: usize,
        offset: u64,
        buffer: &mut [u8],
        direct: bool,
    ) -> io::Result<()> {
        self.meet(Op::Read)?;
        while self.strikes(FaultKind::Interrupted) {
            self.meet(Op::Read)?;
        }
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let (file, offset) = self
            .elsewhere(file, offset, buffer.len(), FaultKind::MisdirectedRead, FaultKind::StrayRead)
            .unwrap_or((file, offset));
        if buffer.len() > 1 && self.strikes(FaultKind::ShortRead) {
            let half = buffer.len() / 2;
            let _ = self.files[file].live.read(offset, &mut buffer[..half]);
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let content = &self.files[file];
        let read = match direct {
            true => content.read_direct(offset, buffer),
            false => content.live.read(offset, buffer),
        };
        read.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Where an access lands that misses its place in the file, or the file, if it does.
    fn elsewhere(
        &mut self,
        file: usize,
        offset: usize,
        bytes: usize,
        place: FaultKind,
        other: FaultKind,
    ) -> Option<(usize, usize)> {
        let block = self.block as usize;
        for kind in [place, other] {
            if !self.draw(kind) {
                continue;
            }
            let long = |node: &Node| match node {
                Node::File(of) if (*of == file) == (kind == place) => {
                    let blocks = self.files[*of].live.len().checked_sub(bytes)? / block + 1;
                    Some((*of, blocks))
                }
                _ => None,
            };
            let targets: Vec<_> = self.live.values().filter_map(long).collect();
            if targets.is_empty() {
                continue;
            }
            let (target, blocks) = targets[self.random.below(targets.len())];
            let to = self.random.below(blocks) * block;
            if (target, to) != (file, offset) {
                self.faults.happened.add(kind);
                return Some((target, to));
            }
        }
        None
    }

    /// Whether a file may become that long.
    pub(super) fn room(&mut self, file: usize, bytes: usize) -> io::Result<()> {
        let length = |node: &Node| match node {
            Node::File(index) if *index != file => self.files[*index].live.len() as u64,
            _ => 0,
        };
        let before = self.files[file].live.len();
        if bytes > before {
            let others: u64 = self.live.values().map(length).sum();
            if others.saturating_add(bytes as u64) > self.capacity {
                self.faults.happened.add(FaultKind::Full);
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }

    pub(super) fn add_file(&mut self) -> usize {
        self.files.push(Content::default());
        self.files.len() - 1
    }

    /// Changes bits at rest; where: what of the range the file has.
    pub(super) fn rot(&mut self, path: &str, at: u64, bits: &[u8]) -> io::Result<Range<u64>> {
        let file = self.file(path)?;
        let content = &mut self.files[file];
        let end = at.saturating_add(bits.len() as u64).min(content.live.len() as u64);
        if end <= at {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.rot(at as usize, bits);
        self.faults.happened.add(FaultKind::Rot);
        Ok(at..end)
    }

    /// Makes a file durable, or a part of it.
    pub(super) fn sync(&mut self, file: usize, part: Option<Range<usize>>) -> io::Result<()> {
        let met = self.meet(Op::Sync);
        if met.is_ok() && self.strikes(FaultKind::LyingSync) {
            return Ok(());
        }
        let off = self.is_off();
        let content = &mut self.files[file];
        match (&met, part) {
            (Ok(()), None) => content.settle_all(),
            (Ok(()), Some(part)) => content.settle(part),
            (Err(_), _) if off => {}
            // The system forgets what it could not write.
            (Err(_), None) => content.forget_all(),
            (Err(_), Some(part)) => content.forget(part),
        }
        met.map_err(io::Error::from)
    }

    pub(super) fn sync_dir(&mut self, dir: &str) -> io::Result<()> {
        self.dir(dir)?;
        self.meet(Op::SyncDir)?;
        if self.strikes(FaultKind::LyingSyncDir) {
            return Ok(());
        }
        let (durable, rest) =
            std::mem::take(&mut self.changes).into_iter().partition(|(of, _)| of == dir);
        self.changes = rest;
        for (_, change) in durable {
            apply(&mut self.durable, &change);
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

    /// Whether writes of the world before are still on their way. Each look lets one of them land.
    pub(super) fn straggles(&mut self) -> bool {
        let straggles = !self.stragglers.is_empty();
        self.land_straggler();
        straggles
    }

    fn land_straggler(&mut self) {
        if let Some(Straggler { file, offset, bytes, .. }) = self.stragglers.pop_front() {
            self.files[file].write(offset, &bytes);
            self.faults.happened.add(FaultKind::Straggler);
        }
    }

    /// The state after a power cut, or the death of the process. What happened to it is counted in this one.
    pub(super) fn after_power_cut(&mut self, loss: Loss, mut random: Random) -> State {
        let mut late = Vec::new();
        for flight in self.flying.clone() {
            if self.faults.draw(FaultKind::Straggler, &mut random) {
                late.push(flight);
            }
        }
        let stragglers = self.stragglers_of(&late, &mut random);
        let mut files = self.files.clone();
        for InFlight { file, range, .. } in late {
            files[file].revert(range);
        }
        if loss == Loss::Nothing {
            self.faults.happened.add(FaultKind::ProcessDeath);
            return State {
                random,
                files,
                live: self.live.clone(),
                durable: self.durable.clone(),
                changes: self.changes.clone(),
                stragglers,
                ..State::new(0, self.block)
            };
        }

        let tally = &mut self.faults.happened;
        tally.add(FaultKind::PowerCut);
        let mut names = self.durable.clone();
        let mut stopped = BTreeSet::new();
        for (dir, change) in &self.changes {
            if loss == Loss::Random && !stopped.contains(dir) && random.coin() {
                apply(&mut names, change);
            } else {
                stopped.insert(dir);
                tally.add(FaultKind::LostName);
            }
        }
        let whole = |path: &str| parent(path).is_empty() || names.contains_key(parent(path));
        let live: Names =
            names.iter().filter(|(path, _)| whole(path)).map(|(p, n)| (p.clone(), *n)).collect();
        // What no name leads to is gone.
        let damaged = self.damages.then_some(self.block as usize);
        let named: BTreeSet<_> = live.values().collect();
        for (index, content) in files.iter_mut().enumerate() {
            let before = std::mem::take(content);
            if named.contains(&Node::File(index)) {
                *content = before.after_power_cut(loss, damaged, &mut random, tally);
            }
        }
        let durable = live.clone();
        State { random, files, live, durable, stragglers, ..State::new(0, self.block) }
    }

    fn stragglers_of(&self, late: &[InFlight], random: &mut Random) -> VecDeque<Straggler> {
        let mut at = 0;
        let landing = late.iter().filter_map(|InFlight { file, range, .. }| {
            let mut bytes = vec![0; range.len()];
            self.files[*file].live.read(range.start, &mut bytes)?;
            at += 1 + random.below(STRAGGLES_MAX) as u64;
            Some(Straggler { file: *file, offset: range.start, bytes, at })
        });
        landing.collect()
    }
}

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn apply(names: &mut Names, change: &Change) {
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
