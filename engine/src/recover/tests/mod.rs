//! Logs written by hand, crashed, damaged and opened again.

mod crashes;
mod faults;
mod hand;
mod prepared;
