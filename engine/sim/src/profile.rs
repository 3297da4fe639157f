//! What a seed is like: how large its store, how busy its callers, what goes wrong and how often. Each seed turns on some
//! of the faults, so that each is met without the others too.

use std::time::Duration;

use annals::internals::disk::sim::{Chance, FaultKind, Loss, SimDisk};
use annals::{Durability, Options};
use fastrand::Rng;

use crate::world::Temper;

/// Nobody notices these.
const HARMLESS: [FaultKind; 5] = [
    FaultKind::Straggler,
    FaultKind::LateCompletion,
    FaultKind::ShortWrite,
    FaultKind::Interrupted,
    FaultKind::TryAgain,
];

/// These are told to the engine, which tells its callers.
const TOLD: [FaultKind; 12] = [
    FaultKind::WriteError,
    FaultKind::SyncError,
    FaultKind::CreateError,
    FaultKind::CreateDirError,
    FaultKind::OpenError,
    FaultKind::ReadError,
    FaultKind::ListError,
    FaultKind::RenameError,
    FaultKind::RemoveError,
    FaultKind::SyncDirError,
    FaultKind::PrepareError,
    FaultKind::ShortRead,
];

/// After these nothing is promised but that what is read is right.
const BROKEN: [FaultKind; 7] = [
    FaultKind::LyingSync,
    FaultKind::LyingSyncDir,
    FaultKind::LostWrite,
    FaultKind::MisdirectedWrite,
    FaultKind::StrayWrite,
    FaultKind::MisdirectedRead,
    FaultKind::StrayRead,
];

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) block_bytes: u32,
    pub(crate) segment_bytes: u64,
    pub(crate) shards: u16,
    pub(crate) groups: u8,
    pub(crate) aggregates: u8,
    pub(crate) clients: u8,
    pub(crate) calls_per_client: u32,
    pub(crate) event_bytes: u32,
    pub(crate) event_bytes_large: u32,
    pub(crate) pause_micros_max: u64,
    pub(crate) lives: u32,
    pub(crate) ends_broken: bool,
    harmless: Vec<Chance>,
    told: Vec<Chance>,
    broken: Vec<Chance>,
    damages: bool,
}

impl Profile {
    pub(crate) fn draw(random: &mut Rng) -> Profile {
        let block_bytes = [512, 512, 1024, 4096][random.usize(0..4)];
        let segment_bytes = u64::from(block_bytes) * random.u64(8..48);
        let among = |kinds: &[FaultKind], odds: u8, random: &mut Rng| {
            kinds.iter().filter(|_| random.u8(0..odds) == 0).copied().collect::<Vec<_>>()
        };
        let harmless = among(&HARMLESS, 2, random);
        let harmless = harmless.into_iter().map(|kind| Chance {
            kind,
            // A process dies seldom with a flush in flight.
            per_million: match kind {
                FaultKind::Straggler => 500_000,
                _ => 10_u32.pow(random.u32(3..6)),
            },
            lasting: false,
            most: u64::MAX,
        });
        let harmless = harmless.collect();
        let told = if random.u8(0..3) == 0 { Vec::new() } else { among(&TOLD, 3, random) };
        let told = told.into_iter().map(|kind| Chance {
            kind,
            // Directories are created once.
            per_million: match kind {
                FaultKind::CreateDirError => 300_000,
                _ => 10_u32.pow(random.u32(2..5)) / 3,
            },
            lasting: random.u8(0..4) == 0,
            most: random.u64(1..4),
        });
        let told = told.collect();
        let broken = [BROKEN[random.usize(0..BROKEN.len())]].map(|kind| Chance {
            kind,
            per_million: 10_u32.pow(random.u32(3..7)),
            lasting: false,
            most: random.u64(1..50),
        });
        Profile {
            block_bytes,
            segment_bytes,
            shards: [1, 1, 1, 2, 3][random.usize(0..5)],
            groups: random.u8(1..4),
            aggregates: random.u8(1..6),
            clients: random.u8(1..6),
            calls_per_client: random.u32(8..48),
            event_bytes: if random.u8(0..4) == 0 { 3000 } else { random.u32(0..200) },
            event_bytes_large: random.u32(0..segment_bytes as u32 / 2),
            pause_micros_max: 10_u64.pow(random.u32(1..6)),
            lives: random.u32(4..8),
            ends_broken: random.u8(0..3) == 0,
            harmless,
            told,
            broken: broken.into(),
            // Who sets a block smaller than the device's knows that the device does no such thing.
            damages: block_bytes == 4096 && random.bool(),
        }
    }

    /// How the threads of one life are run.
    pub(crate) fn temper(&self, random: &mut Rng) -> Temper {
        Temper {
            steps_per_turn: [1, 2, 8, 64][random.usize(0..4)],
            steps_per_stall: if random.u8(0..4) == 0 { random.u32(200..3000) } else { 0 },
            loyalty_percent: [0, 0, 50, 90][random.usize(0..4)],
            turn_nanos_max: 10_u64.pow(random.u32(2..6)),
        }
    }

    /// The options of one life.
    pub(crate) fn options(&self, random: &mut Rng) -> Options {
        let options = Options::new()
            .shards(self.shards)
            .route_by_prefix(b'/')
            .segment_bytes(self.segment_bytes)
            .block_bytes(self.block_bytes)
            .flush_window([1, 2, 2, 4, 8][random.usize(0..5)])
            .in_flight_bytes(1 << random.u32(12..18))
            .tail_bytes(1 << random.u32(18..21))
            .mapped(random.bool());
        match random.u8(0..3) {
            0 => options.durability(Durability::WriteDsync),
            1 => options.durability(Durability::WriteThenSync),
            _ => options,
        }
    }

    /// What a disk of this seed does in each life. What a power cut loses is drawn anew.
    pub(crate) fn furnish(&self, disk: &SimDisk, random: &mut Rng) {
        let losses = [Loss::Random, Loss::Random, Loss::All, Loss::Nothing];
        disk.set_loss(losses[random.usize(0..4)]);
        disk.set_damage(self.damages);
        disk.set_lateness(40, Duration::from_micros(800));
        for chance in &self.harmless {
            disk.allow(*chance);
        }
    }

    /// Lets faults happen that are told.
    pub(crate) fn trouble(&self, disk: &SimDisk) {
        for chance in &self.told {
            disk.allow(*chance);
        }
    }

    /// Whether a read may fail.
    pub(crate) fn reads_fail(&self) -> bool {
        let reads = [FaultKind::OpenError, FaultKind::ReadError, FaultKind::ShortRead];
        self.told.iter().any(|chance| reads.contains(&chance.kind))
    }

    /// Whether the engine hears of such a fault.
    pub(crate) fn is_told(kind: FaultKind) -> bool {
        TOLD.contains(&kind) || kind == FaultKind::Full
    }

    /// Breaks the disk.
    pub(crate) fn break_down(&self, disk: &SimDisk) {
        for chance in &self.broken {
            disk.allow(*chance);
        }
    }
}
