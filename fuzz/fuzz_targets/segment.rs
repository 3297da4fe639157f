//! Any bytes through the scanner of a segment: no panic, bounded memory, and what is read encodes to itself.

#![no_main]

annals_fuzz::target!(segment);
