//! The canary: the target `flush` with a planted fault. A run that does not find it in the time that each target has
//! would not find faults in the others either, so the smoke run fails then.
//!
//! The fault lies behind three checksums (of the flush header, of a record's head and of its events), in a field that no
//! seed has that way: it is met only by an input that was mutated and repaired.

use crate::harness::{Outcome, Target};
use crate::targets::flush;

/// The target.
pub static TARGET: Target =
    Target { name: "canary", run, corpus: flush::TARGET.corpus, repair: flush::TARGET.repair };

fn run(input: &[u8]) -> Outcome {
    let outcome = (flush::TARGET.run)(input);
    let planted = |record: &crate::RecordView<'_>| {
        record.client().is_some_and(|(_, sequence)| sequence > 1 << 32) && record.events() > 0
    };
    flush::records_of(input, |record| {
        assert!(!planted(record), "the planted fault was found");
    });
    outcome
}
