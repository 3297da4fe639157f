//! The real store, log writer and recovery included, on one thread of the system, driven from a seed.
//!
//! A seed stands for a store and several lives of it. In each life callers append, check, send again, read, decide and
//! follow; the disk loses, tears, delays and fails; the power goes at some operation of the disk, also while the store
//! is being opened. After each opening everything that the store holds is held against a reference model ([`book`],
//! [`inspect`]) and against the independent reader of the format, and the model takes over what was recovered.
//!
//! | file | what it is |
//! |---|---|
//! | `world` | who runs when: coroutines, and a clock |
//! | `op`, `book` | what was asked for, answered and shown |
//! | `client`, `follower` | the callers |
//! | `inspect` | what a store holds, against the book |
//! | `rot` | bytes that change at rest |
//! | `profile` | what goes wrong in a seed, and how often |
//! | `life`, `run` | lives, one after the other |
//! | `report` | what came of many seeds |

pub mod book;
mod client;
mod follower;
pub mod inspect;
mod life;
pub mod op;
mod profile;
pub mod report;
mod rot;
pub mod run;
pub mod world;
