//! Clocks, histograms and counters.

pub mod crew;
pub mod folder;
pub mod histogram;
pub mod pace;
pub mod payload;
pub mod usage;
pub mod verify;
pub mod window;

use std::time::{Duration, Instant};

use usage::Usage;

/// A clock and the counters of what is used up, started together.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    usage: Usage,
    processes: Vec<u32>,
}

impl Meter {
    /// Starts it, for this process and for those of a server.
    pub fn begin(processes: Vec<u32>) -> Meter {
        Meter { usage: Usage::now(&processes), began: Instant::now(), processes }
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Stops it.
    pub fn end(self) -> Spent {
        let elapsed = self.began.elapsed();
        let (processor, written_bytes) = Usage::now(&self.processes).since(&self.usage);
        Spent { elapsed, processor, written_bytes }
    }
}

/// What something took.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// By the clock.
    pub elapsed: Duration,
    /// Of the processors.
    pub processor: Duration,
    /// Bytes that were written to the device.
    pub written_bytes: u64,
}
