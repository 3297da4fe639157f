//! Bytes: a record as its caller encodes it, as the log writer completes it in its place, and as a reader takes it
//! apart.

use std::hint::black_box;

use annals::internals::format::{RecordEncoder, RecordView, Role, seal, set_links};
use annals::{Event, Expect, Position};
use criterion::{Criterion, Throughput};

#[path = "common/mod.rs"]
mod common;

use common::{Events, key};

const SALT: u64 = 7;

/// A write of so many parts, each with so many events of so many bytes.
struct Shape {
    name: &'static str,
    parts: u64,
    events: usize,
    bytes: usize,
}

const SHAPES: [Shape; 5] = [
    Shape { name: "128 bytes", parts: 1, events: 1, bytes: 128 },
    Shape { name: "1 KiB", parts: 1, events: 1, bytes: 1 << 10 },
    Shape { name: "16 KiB", parts: 1, events: 1, bytes: 16 << 10 },
    Shape { name: "10 events of 128 bytes", parts: 1, events: 10, bytes: 128 },
    Shape { name: "two aggregates, 128 bytes each", parts: 2, events: 1, bytes: 128 },
];

impl Shape {
    fn keys(&self) -> Vec<[u8; 16]> {
        (0..self.parts).map(key).collect()
    }

    fn event(&self) -> Event {
        Events::of(self.bytes).event()
    }

    /// What the caller's thread does.
    fn encode(&self, encoder: &mut RecordEncoder, keys: &[[u8; 16]], event: &Event) {
        encoder.clear();
        for key in keys {
            encoder.begin_part(Role::Append, Expect::Version(6), key).expect("within the limits");
            for _ in 0..self.events {
                encoder.push_event(event).expect("within the limits");
            }
        }
        encoder.finish(None).expect("it is complete");
        for part in 0..keys.len() {
            encoder.set_version(part, 7);
        }
    }

    fn encoder(&self) -> RecordEncoder {
        let mut encoder = RecordEncoder::new();
        self.encode(&mut encoder, &self.keys(), &self.event());
        encoder
    }
}

/// Where the record is put: segment 3, offset 1 MiB.
fn position() -> Position {
    Position::from_raw(3 << 32 | 1 << 20)
}

/// What the log writer does.
fn place(encoder: &RecordEncoder, into: &mut [u8], parts: usize) {
    let (head, body) = into.split_at_mut(encoder.head().len());
    head.copy_from_slice(encoder.head());
    body.copy_from_slice(encoder.body());
    let link = Position::from_raw(3 << 32 | 1 << 12);
    for part in 0..parts {
        set_links(head, part, link, Position::START);
    }
    seal(head, 1_700_000_000_000_000, SALT, position());
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for shape in &SHAPES {
        let (keys, event) = (shape.keys(), shape.event());
        let mut encoder = shape.encoder();
        let mut record = vec![0; encoder.record_bytes()];
        let mut group = criterion.benchmark_group("encoding");
        group.throughput(Throughput::Bytes(record.len() as u64));
        group.bench_function(format!("encode {}", shape.name), |bencher| {
            bencher.iter(|| {
                shape.encode(&mut encoder, black_box(&keys), black_box(&event));
                black_box(encoder.head());
            });
        });
        group.bench_function(format!("place {}", shape.name), |bencher| {
            bencher.iter(|| place(black_box(&encoder), black_box(&mut record), keys.len()));
        });
        place(&encoder, &mut record, keys.len());
        group.bench_function(format!("read {}", shape.name), |bencher| {
            bencher.iter(|| read(black_box(&record)));
        });
        group.finish();
    }
    criterion.final_summary();
}

/// What a reader of a segment does: verify the head, then the events, and take each apart.
fn read(record: &[u8]) -> usize {
    let view = RecordView::parse(record, SALT, position()).expect("the head is whole");
    view.verify_events().expect("the events are whole");
    let events = (0..view.part_count()).flat_map(|part| view.events_of(part));
    events.map(|event| event.expect("the event is whole").data.len()).sum()
}
