//! What stands in the blocks of one segment: flushes, their records, zeros, and what is none of these.

use super::bytes::{Flaw, is_zero, link, same, slice};
use super::frame::{FLUSH_BYTES, FlushHeader, Place, flush, flush_begins};
use super::record::Record;
use crate::id::Position;

/// What stands in a run of blocks: a flush, zeros, or something else.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) offset: u32,
    /// Whole blocks, or what there is of them.
    pub(super) bytes: u32,
    pub(super) header: Option<FlushHeader>,
    /// What is wrong, and where that was noticed. Neither a header nor a flaw: zeros.
    pub(super) flaw: Option<(u32, Flaw)>,
}

/// Goes over the blocks of a segment behind its header. `place` is its beginning.
pub(super) fn flushes<'a>(
    bytes: &'a [u8],
    block: u32,
    place: &Place,
) -> impl Iterator<Item = Found> + use<'a> {
    let (block, place) = (block as usize, *place);
    let mut at = block;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let run = |like: &dyn Fn(&[u8]) -> bool, from: usize| {
            let more = rest.get(from..).unwrap_or_default();
            let blocks = more.chunks(block).take_while(|block| like(block)).count();
            (from + blocks * block).min(rest.len())
        };
        let here = slice(rest, 0, block);
        let offset = at as u32;
        let found = if is_zero(here) {
            let bytes = run(&is_zero, 0) as u32;
            Found { offset, bytes, header: None, flaw: None }
        } else {
            match flush(here, &place.at(offset)) {
                Ok(header) => {
                    let stored = header.stored(block as u32) as usize;
                    let flaw = verify_flush(bytes, &header, stored).err();
                    let bytes = stored.min(rest.len()) as u32;
                    Found { offset, bytes, header: Some(header), flaw }
                }
                Err(flaw) => {
                    let other = |block: &[u8]| !is_zero(block) && !flush_begins(block);
                    let bytes = run(&other, block.min(rest.len())) as u32;
                    Found { offset, bytes, header: None, flaw: Some((offset, flaw)) }
                }
            }
        };
        at += (found.bytes as usize).next_multiple_of(block);
        Some(found)
    })
}

/// Checks what a whole flush header says of what stands behind it: all but the events.
fn verify_flush(bytes: &[u8], header: &FlushHeader, stored: usize) -> Result<(), (u32, Flaw)> {
    let offset = header.position.offset();
    let here = |flaw| (offset, flaw);
    let there = bytes.len().saturating_sub(offset as usize);
    if stored > there {
        let what = format!("the flush takes {stored} bytes and only {there} are there");
        return Err(here(Flaw::new(what)));
    }
    let (mut count, mut chain) = (0_u64, 0);
    for record in records(bytes, header) {
        let (_, record) = record?;
        count += 1;
        chain = link(chain, record.checksum);
    }
    same("number of records", header.records.into(), count).map_err(here)?;
    same("chain over the records", header.chain, chain).map_err(here)?;
    let padding = slice(bytes, offset as usize, stored);
    if !is_zero(padding.get(header.length as usize..).unwrap_or_default()) {
        return Err(here(Flaw::new("the padding of the flush is not zero")));
    }
    Ok(())
}

/// The records of a flush, one behind the other, up to the first whose head is not whole.
pub(super) fn records<'a>(
    bytes: &'a [u8],
    header: &FlushHeader,
) -> impl Iterator<Item = Result<(Position, Record<'a>), (u32, Flaw)>> + use<'a> {
    let (salt, segment) = (header.salt, header.position.segment());
    let mut at = header.position.offset() as usize + FLUSH_BYTES;
    let mut end = header.position.offset() as usize + header.length as usize;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let position = Position::new(segment, at as u32);
        let found = Record::read(slice(bytes, at, end - at), salt, position);
        Some(match found {
            Ok(record) => {
                at += record.bytes.len();
                Ok((position, record))
            }
            Err(flaw) => {
                end = at;
                Err((at as u32, flaw))
            }
        })
    })
}

/// The events of all records of a flush whose heads are whole.
pub(super) fn verify_events(bytes: &[u8], header: &FlushHeader) -> Result<(), (u32, Flaw)> {
    records(bytes, header).try_for_each(|record| {
        let (position, record) = record?;
        record.verify_events().map_err(|flaw| (position.offset(), flaw))
    })
}
