//! The bound of `pipeline`: a loop that encodes, checksums and writes the same bytes as Annals does, and nothing else.
//!
//! No aggregate is looked up, no condition decided, nobody woken. A record has the size of a record of Annals with one event: a head with
//! the key and a checksum, a body with the event and another. Records fill blocks of 1 MiB, four of which are in flight over io_uring, each durable
//! when it completes, over a file whose blocks were written before the clock runs and are written again and again. Afterwards the file is read and
//! every record in it checked.

use std::{fs::File, io::Read, path::Path};

use xxhash_rust::xxh3::xxh3_64;

use crate::{
    device::{Action, Load, Target, write_with},
    measure::{Meter, payload::Payloads},
    store::{Key, Result, key},
    workload::{
        Case, Measured, Round,
        pipeline::{BYTES_LEAST, End},
    },
};

/// What it does before it counts a record.
pub const ACKNOWLEDGES: &str = "no store: encodes, checksums and writes the same bytes, 1 MiB at a time, four in flight over io_uring, each with RWF_DSYNC, \
     over a file whose space was prepared before; no conditions, no index";

const FLUSH_BYTES: usize = 1 << 20;
const DEPTH: usize = 4;
const FILE_FLUSHES: u64 = 256;

/// Of a flush, before its records.
const FLUSH_HEAD: usize = 104;
/// Of a record: 64 bytes, 48 for its one part, the key.
const RECORD_HEAD: usize = 64 + 48 + size_of::<Key>();
/// Of an event: 16 bytes and its type, before the payload.
const EVENT_HEAD: usize = 16 + 8;
/// Where in a record's head the number of the record stands, and the checksum of the body.
const NUMBER_AT: usize = 8;
const BODY_AT: usize = 16;

/// Whether it is a bound for this case: one thread, which goes by key.
pub fn takes(case: &Case) -> bool {
    case.workload == "pipeline" && case.number("threads") == 1 && case.number("by_handle") == 0
}

/// Runs it once.
pub fn run(round: &Round<'_>) -> Result<Measured> {
    let path = round.dir.join("bare");
    let target = Target::create(&path, FILE_FLUSHES * FLUSH_BYTES as u64)?;
    let payload_bytes = round.case.number("payload_bytes");
    let mut payloads = Payloads::new(payload_bytes, round.seed);
    let aggregates = round.case.number("aggregates");
    let end = End { measure: round.measure, bytes: if round.quick { 0 } else { BYTES_LEAST } };

    let load = Load { action: Action::WriteDsync, depth: DEPTH, bytes: FLUSH_BYTES };
    let mut encoded = 0;
    let mut meter = None;
    let turn = write_with(&target, load, &mut |buffer| {
        // The ring and its buffers are made before the first flush is asked for.
        let meter = meter.get_or_insert_with(|| Meter::begin(Vec::new()));
        let bytes = encoded * (size_of::<Key>() as u64 + payload_bytes);
        if end.reached(meter.elapsed(), bytes) {
            return false;
        }
        encoded += encode(buffer, encoded, aggregates, &mut payloads);
        true
    })?;
    let spent = meter.ok_or("no flush was asked for")?.end();
    drop(target);

    check(&path, turn.requests, payload_bytes as usize)?;
    Ok(Measured { verified: true, ..Measured::new("commits", encoded, spent) })
}

fn record_bytes(payload_bytes: usize) -> usize {
    RECORD_HEAD + (EVENT_HEAD + payload_bytes).next_multiple_of(8)
}

/// Fills a flush with records numbered from `first`: how many.
fn encode(buffer: &mut [u8], first: u64, aggregates: u64, payloads: &mut Payloads) -> u64 {
    let mut count = 0;
    let mut rest = &mut buffer[FLUSH_HEAD..];
    loop {
        let payload = payloads.next();
        let bytes = record_bytes(payload.len());
        if rest.len() < bytes {
            break;
        }
        let (record, after) = std::mem::take(&mut rest).split_at_mut(bytes);
        rest = after;
        let number = first + count;
        let (head, body) = record.split_at_mut(RECORD_HEAD);
        body[..8].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        body[16..EVENT_HEAD].copy_from_slice(b"Measured");
        body[EVENT_HEAD..EVENT_HEAD + payload.len()].copy_from_slice(payload);
        head[NUMBER_AT..BODY_AT].copy_from_slice(&number.to_le_bytes());
        head[BODY_AT..BODY_AT + 8].copy_from_slice(&xxh3_64(body).to_le_bytes());
        // Spread over the aggregates as by chance.
        let aggregate = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % aggregates.max(1);
        head[RECORD_HEAD - size_of::<Key>()..].copy_from_slice(&key(aggregate));
        let checksum = xxh3_64(&head[8..]).to_le_bytes();
        head[..8].copy_from_slice(&checksum);
        count += 1;
    }
    rest.fill(0);
    buffer[8..16].copy_from_slice(&first.to_le_bytes());
    let checksum = xxh3_64(&buffer[8..FLUSH_HEAD]).to_le_bytes();
    buffer[..8].copy_from_slice(&checksum);
    count
}

/// Checks that the file holds, whole, the last flush that went to each place.
fn check(path: &Path, flushes: u64, payload_bytes: usize) -> Result<()> {
    let mut file = File::open(path)?;
    let mut flush = vec![0; FLUSH_BYTES];
    let record_bytes = record_bytes(payload_bytes);
    let records_each = ((FLUSH_BYTES - FLUSH_HEAD) / record_bytes) as u64;
    for place in 0..flushes.min(FILE_FLUSHES) {
        file.read_exact(&mut flush)?;
        let last = place + (flushes - 1 - place) / FILE_FLUSHES * FILE_FLUSHES;
        let records = flush[FLUSH_HEAD..].chunks_exact(record_bytes);
        for (number, record) in (last * records_each..).zip(records) {
            let (head, body) = record.split_at(RECORD_HEAD);
            let whole = head[..8] == xxh3_64(&head[8..]).to_le_bytes()
                && head[BODY_AT..BODY_AT + 8] == xxh3_64(body).to_le_bytes();
            if !whole || head[NUMBER_AT..BODY_AT] != number.to_le_bytes() {
                return Err(format!(
                    "record {number} was written and is not in the file: the device does not keep what it acknowledges"
                )
                .into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{stores::contract, workload::pipeline};

    #[test]
    fn it_writes_what_it_says_and_finds_it() {
        let dir = contract::folder();
        let cases = pipeline::cases();
        let case = cases.iter().find(|case| takes(case)).expect("there is one");
        let round = Round::short(case, dir.path());
        let measured = run(&round).expect("it runs");
        assert!(measured.units > 0 && measured.verified);
    }

    #[test]
    fn a_record_that_is_missing_is_found_out() {
        let dir = contract::folder();
        let path = dir.path().join("file");
        let mut payloads = Payloads::new(128, 1);
        let mut bytes = vec![0; 2 * FLUSH_BYTES];
        let (one, two) = bytes.split_at_mut(FLUSH_BYTES);
        let count = encode(one, 0, 10, &mut payloads);
        encode(two, count, 10, &mut payloads);
        let save = |bytes: &[u8]| {
            File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("it is written");
            check(&path, 2, 128)
        };
        save(&bytes).expect("all is there");
        bytes[FLUSH_BYTES + FLUSH_HEAD + 300] ^= 1;
        save(&bytes).expect_err("a byte has changed");
    }
}
