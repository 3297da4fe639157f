//! Files as they were written when a format was released: they are read for ever, and format 1 is still written so.

#![cfg(feature = "internals")]

use annals::internals::format::{
    AcceptedEnd, CHAIN_START, Depth, FLUSH_HEADER_BYTES, FlushHeader, Found, IDENTITY_BYTES,
    IDENTITY_OFFSETS, Identity, Origin, RecordEncoder, Role, Scan, SegmentHeader, SegmentKind,
    SyncChoice, chain, decode_pair, records_verified, seal, set_links,
};
use annals::internals::id::{FlushSequence, SegmentId, ShardId, StoreId};
use annals::{Event, Expect, Position};

#[path = "scanner/samples.rs"]
mod samples;

const SEGMENT: &[u8] = include_bytes!("golden/segment-v1.seg");
const CHECKPOINTS: &[u8] = include_bytes!("golden/checkpoints-v1.seg");
const IDENTITY: &[u8] = include_bytes!("golden/identity-v1");

#[test]
fn the_segment_is_still_written_so() {
    assert!(samples::one_of_everything().bytes == SEGMENT);
}

#[test]
fn the_segment_is_read() {
    let header = SegmentHeader::decode(SEGMENT).unwrap();
    assert_eq!(header.origin.store, StoreId(0x000f_1e2d_3c4b_5a69_7887_96a5_b4c3_d2e1));
    assert_eq!((header.origin.shard, header.origin.segment), (ShardId(1), SegmentId(3)));
    assert_eq!((header.origin.salt, header.block_bytes), (0x5a17_5a17_5a17_5a17, 512));
    let accepted = AcceptedEnd {
        position: Position::from_raw(2 << 32 | 0x8000),
        sequence: FlushSequence(41),
        checksum: 0x0123_4567_89ab_cdef,
    };
    assert_eq!(header.kind, SegmentKind::Opened { accepted: Some(accepted) });

    let found: Vec<_> = Scan::new(SEGMENT, &header, Depth::Everything).collect();
    let mut previous = accepted.checksum;
    let mut flushes = Vec::new();
    for (found, sequence) in found.iter().zip(42..=44) {
        let Found::Flush { header, checksum, .. } = found else { panic!("{found:?}") };
        assert_eq!((header.sequence.0, header.previous), (sequence, previous));
        previous = *checksum;
        flushes.push(*header);
    }
    assert_eq!(found[3..], [Found::Unused { offset: 2560, blocks: 11 }]);
    assert_eq!(flushes.iter().map(|flush| flush.records).collect::<Vec<_>>(), [1, 2, 0]);

    let read = flushes.iter().flat_map(|flush| records_verified(SEGMENT, flush));
    let read = read.collect::<Result<Vec<_>, _>>().unwrap();
    let parts = |record: usize| {
        let parts = read[record].1.parts();
        parts.map(|part| (part.key, part.role, part.expect, part.version, part.events))
    };
    use Role::{Append, Check};
    assert_eq!(parts(0).collect::<Vec<_>>(), [(&b"order-1"[..], Append, Expect::Absent, 1, 2)]);
    assert_eq!(
        parts(1).collect::<Vec<_>>(),
        [
            (&b"order-1"[..], Append, Expect::Version(1), 2, 1),
            (b"customer-9", Check, Expect::Exists, 77, 0),
            (b"parcel-5", Append, Expect::Absent, 1, 2),
            (b"parcel-6", Check, Expect::Absent, 0, 0),
        ]
    );
    assert_eq!(parts(2).collect::<Vec<_>>(), [(&b"order-1"[..], Append, Expect::Any, 3, 1)]);
    assert_eq!(read[1].1.client(), Some((0xc11e47, 12)));
    assert_eq!(read[2].1.find_part(b"order-1").unwrap().prev, read[1].0);
    assert_eq!(read[1].1.find_part(b"order-1").unwrap().prev, read[0].0);

    let events = read[0].1.events_of(0).collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!((events[0].event_type, events[0].data), ("OrderPlaced", &br#"{"items":3}"#[..]));
    assert_eq!((events[0].id, events[0].time), (Some(0x2f1c), Some(1_560_000_000_000_000)));
    assert_eq!((events[0].metadata, events[1].event_type), (&b"trace-7"[..], "OrderPaid"));
}

#[test]
fn checkpoints_and_snapshots_are_still_written_so() {
    assert!(samples::checkpoints_and_snapshots().bytes == CHECKPOINTS);
}

#[test]
fn checkpoints_and_snapshots_are_read() {
    let header = SegmentHeader::decode(CHECKPOINTS).unwrap();
    let found = Scan::new(CHECKPOINTS, &header, Depth::Everything);
    let flushes = found.filter_map(|found| match found {
        Found::Flush { header, .. } => Some(header),
        _ => None,
    });
    let read = flushes.flat_map(|flush| records_verified(CHECKPOINTS, &flush).collect::<Vec<_>>());
    let read = read.collect::<Result<Vec<_>, _>>().unwrap();
    let position = Position::from_raw;
    let (one, two) = (9 << 32 | 0x1068, 9 << 32 | 0x2068);
    let parts = |record: usize| {
        let parts = read[record].1.parts();
        parts.map(|part| (part.key, part.role, part.expect, part.version, part.events))
    };
    use Role::{Append, Check, Checkpoint, Snapshot};
    let key = &b"orders-0"[..];
    assert_eq!(parts(0).collect::<Vec<_>>(), [(key, Checkpoint, Expect::Version(0), one, 0)]);
    assert_eq!(
        parts(2).collect::<Vec<_>>(),
        [
            (key, Append, Expect::Version(1), 2, 1),
            (key, Checkpoint, Expect::Version(one), two, 0),
            (b"stopped", Check, Expect::Absent, 0, 0),
            (b"orders-1", Checkpoint, Expect::Version(0), one, 0),
        ]
    );
    assert_eq!(parts(3).collect::<Vec<_>>(), [(key, Snapshot, Expect::Any, 1, 1)]);
    assert_eq!(parts(4).collect::<Vec<_>>(), [(key, Snapshot, Expect::Any, 2, 1)]);
    let last =
        [(key, Check, Expect::Exists, 2, 0), (key, Checkpoint, Expect::Version(two), u64::MAX, 0)];
    assert_eq!(parts(5).collect::<Vec<_>>(), last);
    assert_eq!(read.len(), 6);

    let prev = |record: usize, part: usize| read[record].1.part(part).unwrap().prev;
    assert_eq!((prev(0, 0), prev(2, 1)), (position(0), read[0].0));
    assert_eq!((prev(2, 0), prev(2, 3)), (read[1].0, position(0)));
    assert_eq!((prev(3, 0), prev(4, 0), prev(5, 1)), (position(0), read[3].0, read[2].0));
    let bytes = |record: usize| read[record].1.events_of(0).next().unwrap().unwrap();
    assert_eq!((bytes(3).event_type, bytes(3).data), ("snapshot", &b"state: 7"[..]));
    assert_eq!(bytes(4).data, b"");
    assert_eq!(
        read.iter().map(|(_, record)| record.events()).collect::<Vec<_>>(),
        [0, 1, 1, 0, 0, 0]
    );
}

/// What the first copy says; the second says the same with the next generation.
fn identity() -> Identity {
    Identity {
        store: StoreId(0x000f_1e2d_3c4b_5a69_7887_96a5_b4c3_d2e1),
        hash_key: 0xfeed_face_cafe_beef,
        shards: 4,
        route: Some(b'/'),
        segment_bytes: 64 << 20,
        block_bytes: 4096,
        sync: SyncChoice::WriteThenSync,
        generation: 1,
    }
}

#[test]
fn the_identity_is_still_written_so() {
    let mut file = vec![0; IDENTITY_BYTES];
    for (generation, at) in (1..).zip(IDENTITY_OFFSETS) {
        let copy = Identity { generation, ..identity() }.encode();
        file[at..at + copy.len()].copy_from_slice(&copy);
    }
    assert!(file == IDENTITY);
}

#[test]
fn the_identity_is_read() {
    let decoded = decode_pair(IDENTITY).unwrap();
    assert_eq!(decoded.identity, Identity { generation: 2, ..identity() });
    assert_eq!((decoded.replace, decoded.damaged), (0, None));
}
