//! Trials of the store: what it did is recorded, and held against what it promises.
//!
//! ```text
//! mark      the bytes of an event, which say whose they are          history   calls, results, and the log
//! observe   what a store shows, as values of the history             exact     the checker that knows the log's order
//! record    threads on a store, every call and return noted          linear    the checker that knows nothing of it
//! plant     anomalies put into a history, which both must find       truth     what a killed process promised, and what is back
//! ```
//!
//! Nothing here does I/O of its own: the checkers take values, and what drives a store is given the way to open it. So
//! they serve a store on a simulated disk as well.

#![forbid(unsafe_code)]

pub mod exact;
pub mod history;
pub mod linear;
pub mod mark;
pub mod observe;
pub mod plant;
pub mod record;
pub mod truth;
