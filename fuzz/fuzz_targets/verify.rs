//! A store directory that was tampered with: `verify` and the reader say the same of it.

#![no_main]

annals_fuzz::target!(verify);
