//! Logs written by hand, crashed, damaged and opened again.

mod agreement;
mod beside;
mod crashes;
mod faults;
mod hand;
#[cfg(feature = "mutants")]
mod mutants;
pub(crate) mod hand;
mod prepared;
