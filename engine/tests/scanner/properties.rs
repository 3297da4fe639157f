//! What holds of any bytes that are taken for a segment.
//!
//! Compiled in several places; whoever includes it imports the names of the format beside it.

use super::{
    Depth, Event, EventView, FlushHeader, Found, Position, RecordEncoder, RecordView, Role, Scan,
    SegmentHeader, allocation, records, records_verified, seal, set_links,
};

/// What was seen in a segment.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Segments whose header was read.
    pub segments: usize,
    /// Valid flushes.
    pub flushes: usize,
    /// Their records, verified to the last event.
    pub records: usize,
    /// Runs of blocks that are no valid flush.
    pub invalid: usize,
}

/// Scans the bytes in every way there is. Panics if a property fails.
pub fn check(bytes: &[u8]) -> Seen {
    let mut seen = Seen::default();
    let Ok(header) = SegmentHeader::decode(bytes) else {
        return seen;
    };
    seen.segments = 1;
    let mut block = vec![0; header.block_bytes as usize];
    header.encode(&mut block);
    assert_eq!(block[..block.len().min(bytes.len())], bytes[..block.len().min(bytes.len())]);

    let before = allocation::held();
    allocation::reset_peak();
    let everything = walk(bytes, &header, Depth::Everything);
    let heads = walk(bytes, &header, Depth::Heads);
    let allocated = allocation::peak() - before;
    assert!(allocated <= 4 * bytes.len() + (1 << 20), "{allocated} for {} bytes", bytes.len());

    for found in &everything {
        match found {
            Found::Flush { offset, header, checksum, .. } => {
                assert!(heads.contains(found), "a flush valid in full has valid heads");
                let mut again = [0; 104];
                assert_eq!(header.encode(&mut again), *checksum);
                assert_eq!(again, bytes[*offset as usize..][..104]);
                seen.flushes += 1;
                seen.records += check_records(bytes, header);
            }
            Found::Invalid { header, .. } => {
                seen.invalid += 1;
                let left = header.iter().flat_map(|header| records_verified(bytes, header));
                left.flatten().for_each(|(_, record)| walk_events(&record));
            }
            Found::Unused { offset, blocks } => {
                let unused = bytes[*offset as usize..].iter();
                let unused = unused.take(*blocks as usize * header.block_bytes as usize);
                assert!(unused.into_iter().all(|byte| *byte == 0));
            }
        }
    }
    seen
}

/// Every block behind the header is found once, in order.
fn walk(bytes: &[u8], header: &SegmentHeader, depth: Depth) -> Vec<Found> {
    let prepared = bytes.len().min(header.bytes as usize);
    let mut next = header.block_bytes;
    let mut all = Vec::new();
    for found in Scan::new(bytes, header, depth) {
        assert_eq!(found.offset(), next);
        assert!(found.blocks() > 0);
        assert!((next as usize) < prepared);
        next += found.blocks() * header.block_bytes;
        all.push(found);
    }
    assert!(next as usize >= prepared, "the walk ends at {next} of {prepared}");
    all
}

fn check_records(bytes: &[u8], flush: &FlushHeader) -> usize {
    let found = records(bytes, flush).collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(found.len(), flush.records as usize);
    for ((at, record), verified) in found.iter().zip(records_verified(bytes, flush)) {
        assert_eq!(verified.unwrap().0, *at);
        check_record(record, flush.origin.salt, *at);
    }
    found.len()
}

/// What was read encodes to the bytes that it was read from.
fn check_record(record: &RecordView<'_>, salt: u64, position: Position) {
    let mut encoder = RecordEncoder::new();
    for part in record.parts() {
        encoder.begin_part(part.role, part.expect, part.key).unwrap();
        for event in record.events_of(part.index) {
            encoder.push_event(&owned(&event.unwrap())).unwrap();
        }
    }
    encoder.finish(record.client()).unwrap();
    for part in record.parts() {
        encoder.set_version(part.index, part.version);
    }
    let mut head = encoder.head().to_vec();
    for part in record.parts().filter(|part| part.role != Role::Check) {
        set_links(&mut head, part.index, part.prev, part.skip);
    }
    assert_eq!(seal(&mut head, record.time(), salt, position), record.checksum());
    assert_eq!([&head, encoder.body()].concat(), record.bytes());
}

fn owned(view: &EventView<'_>) -> Event {
    let mut event = Event::new(view.event_type, view.data).metadata(view.metadata);
    if let Some(id) = view.id {
        event = event.id(id);
    }
    if let Some(time) = view.time {
        event = event.time(time);
    }
    event
}

fn walk_events(record: &RecordView<'_>) {
    for part in record.parts() {
        assert_eq!(record.events_of(part.index).count(), part.events as usize);
    }
}
