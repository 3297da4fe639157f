//! Any text as lines of an import: what is taken comes out of an export and in again as the same events.

#![no_main]

annals_fuzz::target!(import);
