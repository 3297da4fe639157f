//! A segment: a byte that says whether to repair the checksums, then the file.

use crate::harness::{self, Outcome, Target};
use crate::{corpus, properties, repair, samples};

/// The target.
pub static TARGET: Target = Target { name: "segment", run, corpus: seeds, repair: Some(repair) };

fn run(input: &[u8]) -> Outcome {
    let Some((mode, bytes)) = input.split_first() else { return Outcome::default() };
    let mut bytes = bytes.to_vec();
    if mode & 1 != 0 {
        repair::repair(&mut bytes);
    }
    let (seen, held) = harness::measure(|| properties::check(&bytes));
    Outcome { reached: seen.records > 0, bytes: input.len(), held, beside: 0 }
}

fn repair(input: &mut [u8]) {
    if let Some((mode, bytes)) = input.split_first_mut()
        && *mode & 1 != 0
    {
        repair::repair(bytes);
    }
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let both = |(name, segment): (&str, samples::Segment)| {
        let input = |mode: u8| [&[mode], segment.bytes.as_slice()].concat();
        [(name.to_owned(), input(0)), (format!("{name}-repaired"), input(1))]
    };
    corpus::corpus().into_iter().flat_map(both).collect()
}
