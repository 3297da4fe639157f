//! Any bytes through the scanner of a segment: no panic, bounded memory, and what is read encodes to itself.

#![no_main]

use annals_fuzz::allocation::Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

libfuzzer_sys::fuzz_target!(|input: &[u8]| annals_fuzz::segment(input));
