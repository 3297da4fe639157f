//! Larger models, through schedules that are drawn: the shared words with three to six threads, and the whole engine.

#![cfg(shuttle)]

mod deciding;
mod engine;
mod stopping;
mod stores;
mod waiting;
