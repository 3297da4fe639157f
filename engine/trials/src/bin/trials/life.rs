//! How a process lives and ends: all that is drawn for it, so that a life can be had again but for its instants.

use std::path::{Path, PathBuf};

use annals::{Backend, Durability, Options};
use annals_trials::history::Subject;
use annals_trials::truth::Intent;
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::arguments::Lie;

/// A life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Life {
    /// Where its store is.
    pub(crate) dir: PathBuf,
    /// Everything that it draws is drawn from it.
    pub(crate) seed: u64,
    /// Which life of its store: writes are numbered by it.
    pub(crate) number: u64,
    pub(crate) settings: Settings,
    /// Known before the store is open: fixed by the options that all its lives have in common.
    pub(crate) subjects: Vec<Subject>,
    /// How many threads write.
    pub(crate) threads: u16,
    /// How many writes each thread keeps in flight.
    pub(crate) in_flight: usize,
    /// The bytes of an event.
    pub(crate) event_bytes: u32,
    /// Pauses for so long after each write, so that short logs come out of long lives.
    pub(crate) pause_micros: u64,
    /// What the life before did not hear the end of.
    pub(crate) retries: Vec<Intent>,
    pub(crate) end: End,
    pub(crate) lie: Option<Lie>,
    /// Does the same each time, and ends by itself.
    pub(crate) scripted: bool,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// Somebody kills it.
    Killed,
    /// It calls `exit` after so many milliseconds, with the store open and writes in flight.
    Exits(u64),
    /// It lets the store go after so many milliseconds, with writes in flight, and waits for them afterwards.
    Drops(u64),
    /// As before, but it closes it.
    Closes(u64),
    /// It drops the store when its standard input is closed.
    InputCloses,
}

/// The options of a store, as they are sent to another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) backend: Kind,
    pub(crate) shards: u16,
    pub(crate) segment_bytes: u64,
    pub(crate) block_bytes: u32,
    pub(crate) dsync: bool,
    pub(crate) flush_window: usize,
    pub(crate) tail_bytes: usize,
    pub(crate) in_flight_bytes: usize,
    pub(crate) mapped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Auto,
    Uring,
    Blocking,
}

impl Kind {
    pub(crate) fn of(backend: Backend) -> Kind {
        match backend {
            Backend::Auto => Kind::Auto,
            Backend::Uring => Kind::Uring,
            Backend::Blocking => Kind::Blocking,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Auto => "auto",
            Kind::Uring => "uring",
            Kind::Blocking => "blocking",
        }
    }
}

impl Settings {
    /// Small, and the same each time.
    pub(crate) fn plain(backend: Kind) -> Settings {
        Settings {
            backend,
            shards: 1,
            segment_bytes: 1 << 20,
            block_bytes: 4096,
            dsync: true,
            flush_window: 2,
            tail_bytes: 1 << 20,
            in_flight_bytes: 1 << 20,
            mapped: true,
        }
    }

    /// Draws what is fixed when a store is created.
    pub(crate) fn created(rng: &mut Rng) -> Settings {
        Settings {
            shards: rng.u16(1..=3),
            segment_bytes: [1 << 20, 1 << 20, 4 << 20][rng.usize(..3)],
            block_bytes: [512, 4096, 4096][rng.usize(..3)],
            ..Settings::plain(Kind::Auto)
        }
    }

    /// Draws what may differ from opening to opening.
    pub(crate) fn redrawn(&self, rng: &mut Rng, backends: &[Backend]) -> Settings {
        Settings {
            backend: Kind::of(backends[rng.usize(..backends.len())]),
            dsync: rng.bool(),
            flush_window: [1, 2, 3, 8, 32][rng.usize(..5)],
            tail_bytes: [1 << 20, 4 << 20, 64 << 20][rng.usize(..3)],
            in_flight_bytes: [1 << 20, 4 << 20, 64 << 20][rng.usize(..3)],
            mapped: rng.bool(),
            ..self.clone()
        }
    }

    /// Whatever back end was asked for: the one that is everywhere.
    pub(crate) fn kind_that_works(&mut self) {
        self.backend = Kind::Blocking;
    }

    pub(crate) fn options(&self) -> Options {
        let durability = match self.dsync {
            true => Durability::WriteDsync,
            false => Durability::WriteThenSync,
        };
        Options::new()
            .shards(self.shards)
            .route_by_prefix(b'/')
            .segment_bytes(self.segment_bytes)
            .block_bytes(self.block_bytes)
            .durability(durability)
            .flush_window(self.flush_window)
            .tail_bytes(self.tail_bytes)
            .in_flight_bytes(self.in_flight_bytes)
            .mapped(self.mapped)
            .backend(match self.backend {
                Kind::Auto => Backend::Auto,
                Kind::Uring => Backend::Uring,
                Kind::Blocking => Backend::Blocking,
            })
    }
}

/// Keys of so many groups; each group lives on one shard. The shards are told when the store is open.
pub(crate) fn subjects(groups: usize, all: usize) -> Vec<Subject> {
    let key = |number| format!("{}/{number}", number % groups);
    (0..all).map(|number| Subject { key: key(number), shard: 0 }).collect()
}

impl Life {
    /// A life as the kills have it.
    pub(crate) fn drawn(
        rng: &mut Rng,
        dir: &Path,
        number: u64,
        settings: Settings,
        subjects: Vec<Subject>,
    ) -> Life {
        let end = match rng.u8(..20) {
            0 => End::Exits(rng.u64(0..100)),
            1 => End::Drops(rng.u64(0..100)),
            2 => End::Closes(rng.u64(0..100)),
            3 => End::InputCloses,
            _ => End::Killed,
        };
        Life {
            dir: dir.to_owned(),
            seed: rng.u64(..),
            number,
            settings,
            subjects,
            threads: rng.u16(1..=4),
            in_flight: [1, 4, 32][rng.usize(..3)],
            event_bytes: [16, 100, 1000, 20_000][rng.usize(..4)],
            pause_micros: [0, 100, 500][rng.usize(..3)],
            retries: Vec::new(),
            end,
            lie: None,
            scripted: false,
        }
    }
}
