//! Logs written by hand, crashed, damaged and opened again.

mod agreement;
mod beside;
mod crashes;
mod faults;
pub(crate) mod hand;
#[cfg(feature = "mutants")]
mod mutants;
mod prepared;
