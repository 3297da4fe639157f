//! Logs written by hand, crashed, damaged and opened again.

mod agreement;
mod beside;
mod crashes;
mod faults;
pub(crate) mod hand;
mod prepared;
