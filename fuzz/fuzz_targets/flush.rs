//! Any bytes as the flush behind a segment header: no panic, bounded memory, and what is read encodes to itself.

#![no_main]

annals_fuzz::target!(flush);
