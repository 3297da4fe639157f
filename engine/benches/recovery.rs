//! Opening: the log of a store, walked and verified, and replayed into an index. The bytes are in memory already.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use annals::internals::disk::{Access, Disk, File};
use annals::internals::format::{Depth, Found, Scan, SegmentHeader};
use annals::internals::open_on;
use annals::{Expect, Options};
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};

#[path = "common/mod.rs"]
mod common;

use common::{Events, Place, Random, key, settle};

/// How many writes the log holds.
const WRITES: u64 = 200_000;

fn options() -> Options {
    Options::new().segment_bytes(64 << 20)
}

/// A log of writes of one event of 128 bytes each, to so many aggregates in turn; closed.
fn written(aggregates: u64) -> Place {
    let Place { disk, store } = Place::new(&options());
    let events = Events::of(128);
    let mut random = Random::new();
    let mut last = None;
    for nth in 0..WRITES {
        let number = if aggregates == WRITES { nth } else { random.below(aggregates) };
        let ticket = store.append(key(number), Expect::Any, [events.event()]);
        last = Some(ticket.expect("it is accepted"));
    }
    settle(last);
    store.close().expect("it closes");
    Place { disk, store }
}

/// The segments of a closed store, in order.
fn segments(place: &Place) -> Vec<Vec<u8>> {
    let dir = "shard-0000";
    let entries = place.disk.list(dir).expect("the shard is there");
    let mut names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
    names.retain(|name| name.ends_with(".seg"));
    names.sort();
    let read = |name: String| {
        let file = place.disk.open(&format!("{dir}/{name}"), Access::Read).expect("it is there");
        let mut bytes = vec![0; file.len().expect("it has a length") as usize];
        File::read_at(&*file, 0, &mut bytes).expect("it can be read");
        bytes
    };
    names.into_iter().map(read).collect()
}

/// Opens the store, which leaves it as it is.
fn open(group: &mut BenchmarkGroup<'_, WallTime>, place: &Place, aggregates: u64) {
    let options = options().read_only(true).create(false);
    group.bench_function(format!("open, {WRITES} writes to {aggregates} aggregates"), |bencher| {
        bencher.iter_custom(|openings| {
            (0..openings)
                .map(|_| {
                    let disk = Arc::clone(&place.disk) as _;
                    let started = Instant::now();
                    let store = open_on(black_box(&options), disk).expect("it opens");
                    let spent = started.elapsed();
                    assert_eq!(store.stats().shards[0].slots, aggregates);
                    spent
                })
                .sum()
        });
    });
}

/// Walks the flushes of every segment.
fn scan(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, segments: &[Vec<u8>], depth: Depth) {
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let mut records = 0;
            for bytes in black_box(segments) {
                let header = SegmentHeader::decode(bytes).expect("the header is whole");
                for found in Scan::new(bytes, &header, depth) {
                    match found {
                        Found::Flush { header, .. } => records += u64::from(header.records),
                        Found::Unused { .. } => {}
                        Found::Invalid { damage, .. } => panic!("{damage}"),
                    }
                }
            }
            assert_eq!(records, WRITES);
        });
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(10);
    for aggregates in [1_000, WRITES] {
        let place = written(aggregates);
        let segments = segments(&place);
        let bytes: usize = segments.iter().map(Vec::len).sum();
        group.throughput(Throughput::Bytes(bytes as u64));
        open(&mut group, &place, aggregates);
        if aggregates == WRITES {
            scan(&mut group, "scan, heads", &segments, Depth::Heads);
            scan(&mut group, "scan, everything", &segments, Depth::Everything);
        }
    }
    group.finish();
    criterion.final_summary();
}
