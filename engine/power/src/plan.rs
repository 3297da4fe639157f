//! What a write is: decided by a seed, its client and its sequence alone. So the writer, its parent and whoever looks at
//! an image later know every byte of it without telling each other.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The byte up to which a key decides about its shard.
pub const SEPARATOR: u8 = b'/';
/// Groups of aggregates; a group lives on one shard.
pub const GROUPS: u64 = 4;
const AGGREGATES: u64 = 6;

/// Which write of which run.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
pub struct WriteId {
    /// A writer; unique in a run.
    pub client: u64,
    /// Its number among the client's, from 1.
    pub sequence: u64,
}

/// What a write appends to one aggregate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The aggregate.
    pub key: String,
    /// The data of its events.
    pub events: Vec<Vec<u8>>,
}

/// A write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What it appends, at least one part.
    pub parts: Vec<Part>,
    /// An aggregate that it only checks.
    pub check: Option<String>,
    /// Whether it carries client and sequence.
    pub retriable: bool,
}

impl WriteId {
    const BYTES: usize = 16;

    /// The write that an event belongs to.
    pub fn of_event(data: &[u8]) -> Option<WriteId> {
        let (client, rest) = data.split_first_chunk()?;
        let (sequence, _) = rest.split_first_chunk()?;
        Some(WriteId {
            client: u64::from_le_bytes(*client),
            sequence: u64::from_le_bytes(*sequence),
        })
    }

    /// What it is in a run.
    pub fn plan(self, seed: u64) -> Plan {
        let mixed = seed
            ^ self.client.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ self.sequence.wrapping_mul(0xd6e8_feb8_6659_fd93);
        let mut random = ChaCha8Rng::seed_from_u64(mixed);
        let group = random.random_range(0..GROUPS);
        let first = random.random_range(0..AGGREGATES);
        let count = if random.random_bool(0.6) { 1 } else { random.random_range(2..4) };
        let group = group_name(group);
        let key = |index: u64| format!("{group}/a{}", (first + index) % AGGREGATES);
        let parts = (0..count).map(|index| Part {
            key: key(index),
            events: (0..random.random_range(1..4)).map(|_| self.event(&mut random)).collect(),
        });
        let parts = parts.collect();
        let check = random.random_bool(0.3).then(|| key(count));
        Plan { parts, check, retriable: random.random_bool(0.5) }
    }

    fn event(self, random: &mut ChaCha8Rng) -> Vec<u8> {
        let length = match random.random_range(0..20) {
            0 => random.random_range(0..24 << 10),
            1..5 => random.random_range(0..2000),
            _ => random.random_range(0..200),
        };
        let mut data = Vec::with_capacity(WriteId::BYTES + length);
        data.extend(self.client.to_le_bytes());
        data.extend(self.sequence.to_le_bytes());
        data.extend((0..length).map(|_| random.random::<u8>()));
        data
    }
}

/// A group, as keys name it.
pub fn group_name(group: u64) -> String {
    format!("g{group}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_known_by_its_number() {
        let id = WriteId { client: 7, sequence: 9 };
        let plan = id.plan(1);
        assert_eq!(plan, id.plan(1));
        assert_ne!(plan, id.plan(2));
        assert_ne!(plan, WriteId { client: 7, sequence: 10 }.plan(1));
        for part in &plan.parts {
            assert!(part.events.iter().all(|event| WriteId::of_event(event) == Some(id)));
        }
        assert_eq!(WriteId::of_event(&[1; 15]), None);
    }

    #[test]
    fn a_write_names_no_aggregate_twice() {
        for sequence in 0..500 {
            let plan = WriteId { client: 1, sequence }.plan(5);
            let mut keys: Vec<_> =
                plan.parts.iter().map(|part| &part.key).chain(&plan.check).collect();
            let count = keys.len();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), count);
        }
    }
}
