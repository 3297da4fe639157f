//! A store directory that was tampered with: what is salvaged is sound, and as it was.

#![no_main]

annals_fuzz::target!(salvage);
