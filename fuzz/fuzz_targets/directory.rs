//! A store directory that was tampered with: opened, read to its end, appended to, opened again.

#![no_main]

annals_fuzz::target!(directory);
