//! Segments made by the encoder, for the tests of the format and for what the scanner and the fuzzer start from.
//!
//! Compiled in several places; whoever includes it imports the names of the format beside it.

use super::{
    AcceptedEnd, CHAIN_START, Event, Expect, FLUSH_HEADER_BYTES, FlushHeader, FlushSequence,
    Origin, Position, RecordEncoder, Role, SegmentHeader, SegmentId, SegmentKind, ShardId, StoreId,
    chain, seal, set_links,
};

/// One aggregate's part in a sample record.
#[derive(Clone, Debug)]
pub struct Part {
    pub role: Role,
    pub expect: Expect,
    pub key: Vec<u8>,
    pub version: u64,
    pub prev: Position,
    pub skip: Position,
    pub events: Vec<Event>,
}

impl Part {
    /// The first version of an aggregate.
    pub fn create(key: &[u8], events: Vec<Event>) -> Part {
        Part::append(key, Expect::Absent, 1, Position::START, events)
    }

    pub fn append(
        key: &[u8],
        expect: Expect,
        version: u64,
        prev: Position,
        events: Vec<Event>,
    ) -> Part {
        let skip = Position::START;
        Part { role: Role::Append, expect, key: key.to_vec(), version, prev, skip, events }
    }

    /// A checkpoint that is moved. `prev` is the record that moved it before.
    pub fn checkpoint(name: &[u8], from: Position, to: Position, prev: Position) -> Part {
        let (expect, skip) = (Expect::Version(from.get()), Position::START);
        let (key, version) = (name.to_vec(), to.get());
        Part { role: Role::Checkpoint, expect, key, version, prev, skip, events: vec![] }
    }

    /// A snapshot, of which `prev` is the one before.
    pub fn snapshot(key: &[u8], version: u64, prev: Position, bytes: &[u8]) -> Part {
        let (expect, skip, events) =
            (Expect::Any, Position::START, vec![Event::new("snapshot", bytes)]);
        Part { role: Role::Snapshot, expect, key: key.to_vec(), version, prev, skip, events }
    }

    pub fn check(key: &[u8], expect: Expect, version: u64) -> Part {
        let (prev, skip) = (Position::START, Position::START);
        Part { role: Role::Check, expect, key: key.to_vec(), version, prev, skip, events: vec![] }
    }
}

/// One sample record.
#[derive(Clone, Debug)]
pub struct Record {
    pub parts: Vec<Part>,
    pub client: Option<(u128, u64)>,
    pub time: i64,
}

impl Record {
    pub fn new(parts: Vec<Part>) -> Record {
        Record { parts, client: None, time: 1_560_000_000_000_000 }
    }

    /// The finished bytes, as if written at this place.
    pub fn encode(&self, salt: u64, position: Position) -> Vec<u8> {
        let mut encoder = RecordEncoder::new();
        for part in &self.parts {
            encoder.begin_part(part.role, part.expect, &part.key).unwrap();
            for event in &part.events {
                encoder.push_event(event).unwrap();
            }
        }
        encoder.finish(self.client).unwrap();
        for (index, part) in self.parts.iter().enumerate() {
            encoder.set_version(index, part.version);
        }
        let mut head = encoder.head().to_vec();
        for (index, part) in self.parts.iter().enumerate() {
            if part.role != Role::Check {
                set_links(&mut head, index, part.prev, part.skip);
            }
        }
        seal(&mut head, self.time, salt, position);
        head.extend_from_slice(encoder.body());
        head
    }
}

/// A segment in the making.
#[derive(Clone, Debug)]
pub struct Segment {
    pub header: SegmentHeader,
    pub bytes: Vec<u8>,
    /// Where the next flush starts.
    pub at: usize,
    pub sequence: u64,
    pub previous: u64,
    pub frontier: Position,
}

impl Segment {
    pub fn new(block_bytes: u32, blocks: u32) -> Segment {
        let position = Position::from_raw(2 << 32 | 0x8000);
        let accepted =
            AcceptedEnd { position, sequence: FlushSequence(41), checksum: 0x0123_4567_89ab_cdef };
        let header = SegmentHeader {
            origin: Origin {
                store: StoreId(0x000f_1e2d_3c4b_5a69_7887_96a5_b4c3_d2e1),
                shard: ShardId(1),
                segment: SegmentId(3),
                salt: 0x5a17_5a17_5a17_5a17,
            },
            block_bytes,
            bytes: u64::from(block_bytes) * u64::from(blocks),
            kind: SegmentKind::Opened { accepted: Some(accepted) },
            time: 1_560_000_000_000_000,
        };
        let block = block_bytes as usize;
        let mut bytes = vec![0; block * blocks as usize];
        header.encode(&mut bytes[..block]);
        Segment {
            header,
            bytes,
            at: block,
            sequence: accepted.sequence.0 + 1,
            previous: accepted.checksum,
            frontier: position,
        }
    }

    /// The position of the next flush's first record.
    pub fn next_record(&self) -> Position {
        self.position(self.at + FLUSH_HEADER_BYTES)
    }

    pub fn position(&self, offset: usize) -> Position {
        Position::from_raw(u64::from(self.header.origin.segment.0) << 32 | offset as u64)
    }

    /// Adds a flush of these records; none: it only states the frontier. Returns where the records stand.
    pub fn flush(&mut self, records: &[Record]) -> Vec<Position> {
        let salt = self.header.origin.salt;
        let mut at = self.at + FLUSH_HEADER_BYTES;
        let mut positions = Vec::new();
        let mut chained = CHAIN_START;
        for record in records {
            let position = self.position(at);
            let bytes = record.encode(salt, position);
            chained = chain(chained, u64::from_le_bytes(bytes[..8].try_into().unwrap()));
            self.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
            positions.push(position);
            at += bytes.len();
        }
        let header = FlushHeader {
            origin: self.header.origin,
            offset: self.at as u32,
            sequence: FlushSequence(self.sequence),
            frontier: self.frontier,
            previous: self.previous,
            content_bytes: (at - self.at) as u32,
            records: records.len() as u32,
            records_checksum: chained,
            time: 1_560_000_000_000_000,
        };
        self.previous = header.encode(&mut self.bytes[self.at..]);
        self.sequence += 1;
        self.at = header.end(self.header.block_bytes) as usize;
        self.frontier = header.end_position(self.header.block_bytes);
        positions
    }
}

/// Two events, of which one has all that an event can have.
pub fn order() -> Vec<Event> {
    vec![
        Event::new("OrderPlaced", r#"{"items":3}"#)
            .metadata("trace-7")
            .id(0x2f1c)
            .time(1_560_000_000_000_000),
        Event::new("OrderPaid", b""),
    ]
}

/// A small segment with one of everything. The golden file is this one.
pub fn one_of_everything() -> Segment {
    let mut segment = Segment::new(512, 16);
    let first = segment.flush(&[Record::new(vec![Part::create(b"order-1", order())])]);
    let shipped = Event::new("Shipped", b"\x00\xff");
    let version = Expect::Version(1);
    let mut several = Record::new(vec![
        Part::append(b"order-1", version, 2, first[0], vec![shipped.clone()]),
        Part::check(b"customer-9", Expect::Exists, 77),
        Part::create(b"parcel-5", vec![shipped.clone(); 2]),
        Part::check(b"parcel-6", Expect::Absent, 0),
    ]);
    several.client = Some((0xc11e47, 12));
    let second = segment.next_record();
    let any = Part::append(b"order-1", Expect::Any, 3, second, vec![shipped]);
    segment.flush(&[several, Record::new(vec![any])]);
    segment.flush(&[]);
    segment
}

/// A small segment with checkpoints and snapshots in all their forms. A golden file is this one.
pub fn checkpoints_and_snapshots() -> Segment {
    let mut segment = Segment::new(512, 16);
    let none = Position::START;
    let (one, two) = (Position::from_raw(9 << 32 | 0x1068), Position::from_raw(9 << 32 | 0x2068));
    let counted = || vec![Event::new("Counted", b"7")];
    let first = segment.flush(&[
        Record::new(vec![Part::checkpoint(b"orders-0", none, one, none)]),
        Record::new(vec![Part::create(b"orders-0", counted())]),
    ]);
    let moved = segment.next_record();
    let mut several = Record::new(vec![
        Part::append(b"orders-0", Expect::Version(1), 2, first[1], counted()),
        Part::checkpoint(b"orders-0", one, two, first[0]),
        Part::check(b"stopped", Expect::Absent, 0),
        Part::checkpoint(b"orders-1", none, one, none),
    ]);
    several.client = Some((0xc11e47, 13));
    segment.flush(&[several]);
    let snapshot = segment.next_record();
    segment.flush(&[Record::new(vec![Part::snapshot(b"orders-0", 1, none, b"state: 7")])]);
    segment.flush(&[
        Record::new(vec![Part::snapshot(b"orders-0", 2, snapshot, b"")]),
        Record::new(vec![
            Part::check(b"orders-0", Expect::Exists, 2),
            Part::checkpoint(b"orders-0", two, Position::from_raw(u64::MAX), moved),
        ]),
    ]);
    segment
}
