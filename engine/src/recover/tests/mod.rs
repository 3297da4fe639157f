//! Logs written by hand, crashed, damaged and opened again.

mod beside;
mod crashes;
mod faults;
mod hand;
#[cfg(feature = "mutants")]
mod mutants;
mod prepared;
