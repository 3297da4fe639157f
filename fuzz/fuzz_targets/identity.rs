//! Any two copies of an identity, and a store that is opened on them.

#![no_main]

annals_fuzz::target!(identity);
