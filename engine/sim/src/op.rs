//! What callers ask for: writes that can be told from each other by their bytes.

use annals::{Event, Expect, Position, Recorded};

/// The number of an operation, unlike that of any other of the same seed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u64);

/// What one part of a write does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Appends so many events.
    Append(u32),
    /// Demands something alone.
    Check,
    /// Moves a checkpoint; the key is its name.
    Move {
        /// Where it stands.
        from: Position,
        /// Where it goes, unlike any other move of it.
        to: Position,
    },
    /// Saves a snapshot of this version.
    Save {
        /// What it stands for.
        version: u64,
    },
}

/// One part of a write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The aggregate, or the checkpoint's name.
    pub key: String,
    /// What it does.
    pub deed: Deed,
    /// On which condition.
    pub expect: Expect,
}

/// A write, or a check of several aggregates.
#[derive(Clone, Debug)]
pub struct Op {
    /// Its number.
    pub id: OpId,
    /// The shard of all its aggregates.
    pub shard: u16,
    /// Its parts, each aggregate once.
    pub parts: Vec<Part>,
    /// The client and the sequence by which it may be sent again.
    pub client: Option<(u128, u64)>,
    /// The most bytes of an event of it.
    pub bytes_max: u32,
    /// Its conditions are the engine's: it comes from an execution.
    pub decided: bool,
}

impl Op {
    /// Whether it leaves a record.
    pub fn changes(&self) -> bool {
        self.parts.iter().any(|part| part.deed != Deed::Check)
    }

    /// The events of a part.
    pub fn events(&self, part: usize) -> Vec<Event> {
        let Deed::Append(count) = self.parts[part].deed else { return Vec::new() };
        (0..count).map(|index| self.event(part, index)).collect()
    }

    fn event(&self, part: usize, index: u32) -> Event {
        let event = Event::new(event_type(self.id), self.data(part, index));
        match self.id.0 % 4 {
            0 => event.id(u128::from(self.id.0) << 64 | u128::from(index)),
            1 => event.time(self.id.0 as i64).metadata(self.id.0.to_be_bytes().as_slice()),
            _ => event,
        }
    }

    /// The bytes of an event: the operation's number, the part's, its own, then filling that follows from them.
    fn data(&self, part: usize, index: u32) -> Vec<u8> {
        let mut filling =
            fastrand::Rng::with_seed(self.id.0 << 20 ^ (part as u64) << 10 ^ u64::from(index));
        let length = filling.usize(0..=self.bytes_max as usize);
        let mut data = self.id.0.to_le_bytes().to_vec();
        data.push(part as u8);
        data.extend(index.to_le_bytes());
        data.extend((0..length).map(|_| filling.u8(..)));
        data
    }

    /// The bytes of a snapshot.
    pub fn snapshot(&self) -> Vec<u8> {
        self.data(0, 0)
    }

    /// What differs between an event of this write and one that was read.
    pub fn differs(&self, part: usize, index: u32, found: &Recorded) -> Option<String> {
        let expected = self.event(part, index);
        if found.data() != expected.data() {
            return Some("its bytes are others".into());
        }
        if found.event_type() != expected.event_type() {
            return Some(format!("its type is {}", found.event_type()));
        }
        let (id, time, metadata) = match self.id.0 % 4 {
            0 => (Some(u128::from(self.id.0) << 64 | u128::from(index)), None, Vec::new()),
            1 => (None, Some(self.id.0 as i64), self.id.0.to_be_bytes().to_vec()),
            _ => (None, None, Vec::new()),
        };
        if (found.id(), found.time(), found.metadata()) != (id, time, &metadata[..]) {
            return Some("its id, time or metadata are others".into());
        }
        None
    }
}

fn event_type(id: OpId) -> &'static str {
    ["Placed", "Paid", "Shipped"][(id.0 % 3) as usize]
}

/// Which operation, which part and which event of it these bytes are of.
pub fn of(data: &[u8]) -> Option<(OpId, usize, u32)> {
    let (id, rest) = data.split_first_chunk::<8>()?;
    let (part, rest) = rest.split_first()?;
    let (index, _) = rest.split_first_chunk::<4>()?;
    Some((OpId(u64::from_le_bytes(*id)), usize::from(*part), u32::from_le_bytes(*index)))
}
