//! Any bytes taken for a segment: the corpus of the fuzzer and a few thousand mutations of it, without the fuzzer.

#![cfg(feature = "internals")]

use annals::internals::format::{
    AcceptedEnd, CHAIN_START, Depth, EventView, FLUSH_HEADER_BYTES, FlushHeader, Found, Origin,
    RecordEncoder, RecordView, Role, Scan, SegmentHeader, SegmentKind, chain, records,
    records_verified, seal, set_links,
};
use annals::internals::id::{FlushSequence, SegmentId, ShardId, StoreId};
use annals::{Event, Expect, Position};

#[path = "scanner/allocation.rs"]
mod allocation;
#[path = "scanner/corpus.rs"]
mod corpus;
#[path = "scanner/properties.rs"]
mod properties;
#[path = "scanner/repair.rs"]
mod repair;
#[path = "scanner/samples.rs"]
mod samples;

use properties::{Seen, check};

#[global_allocator]
static ALLOCATOR: allocation::Counted = allocation::Counted;

/// A small generator, so that a failure is found again by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Where to change something: mostly within what is not zero.
    fn place(&mut self, bytes: &[u8]) -> usize {
        for _ in 0..8 {
            let at = self.below(bytes.len());
            if bytes[at] != 0 {
                return at;
            }
        }
        self.below(bytes.len())
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.place(bytes);
            match self.below(7) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.next() as u8,
                2 => bytes[at] = bytes[at].wrapping_add(if self.below(2) == 0 { 1 } else { 255 }),
                3 => bytes.truncate(at.max(512)),
                4 => {
                    let to = self.below(bytes.len());
                    let length = self.below((bytes.len() - at.max(to)).min(600));
                    bytes.copy_within(at..at + length, to);
                }
                5 => {
                    let end = (at + self.below(600)).min(bytes.len());
                    bytes[at..end].fill(0);
                }
                _ => {
                    let field = at & !3;
                    let end = (field + 4).min(bytes.len());
                    let value = [0, 1, 8, 0xffff, 0x7fff_fff8, u32::MAX][self.below(6)];
                    bytes[field..end].copy_from_slice(&value.to_le_bytes()[..end - field]);
                }
            }
        }
    }
}

#[test]
fn the_corpus_is_valid() {
    for (name, segment) in corpus::corpus() {
        let seen = check(&segment.bytes);
        let flushes = usize::try_from(segment.sequence - 42).unwrap();
        assert_eq!(
            (seen.segments, seen.flushes, seen.invalid),
            (1, flushes, 0),
            "{name}: {seen:?}"
        );
        let mut repaired = segment.bytes.clone();
        repair::repair(&mut repaired);
        assert!(repaired == segment.bytes, "{name}: what is right needs no repair");
    }
}

fn mutations(seeds: std::ops::Range<u64>, repaired: bool) -> Seen {
    let corpus = corpus::corpus();
    let mut sum = Seen::default();
    for seed in seeds {
        let mut random = Random(seed);
        let mut bytes = corpus[random.below(corpus.len())].1.bytes.clone();
        random.mutate(&mut bytes);
        if repaired {
            repair::repair(&mut bytes);
        }
        let seen = std::panic::catch_unwind(|| check(&bytes))
            .unwrap_or_else(|panic| panic!("seed {seed}, repaired {repaired}: {panic:?}"));
        sum.segments += seen.segments;
        sum.flushes += seen.flushes;
        sum.records += seen.records;
        sum.invalid += seen.invalid;
    }
    sum
}

#[test]
fn mutations_are_refused_or_walked() {
    let seen = mutations(0..1000, false);
    assert!(seen.segments > 800 && seen.flushes > 2000 && seen.invalid > 400, "{seen:?}");
}

#[test]
fn repaired_mutations_are_refused_or_walked() {
    let seen = mutations(0..1000, true);
    assert!(seen.segments > 800 && seen.records > 2000 && seen.invalid > 200, "{seen:?}");
}
