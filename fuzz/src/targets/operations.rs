//! Operations on a store, faults and crashes of its disk, openings again; beside them the reference in `model`, which knows
//! what each has to say: what was acknowledged is there, what was refused is not, conflicts name the version that is, a
//! replay has the original's answer, and readers see the beginning of what was accepted and at least what was acknowledged.

use std::io;
use std::sync::Arc;

use annals::internals::disk::sim::{Fault, Op, Order, SimDisk};
use annals::internals::open_on;
use annals::{Error, ErrorKind, Options, Store};
use arbitrary::{Arbitrary, Unstructured};

use crate::harness::{self, Outcome, Target};
use crate::image::{self, Image};
use crate::targets::directory;

mod life;
mod send;

/// The target.
pub static TARGET: Target = Target { name: "operations", run, corpus: seeds, repair: None };

/// More operations of one input make it slow and say little more.
const OPERATIONS_MAX: usize = 64;
/// Aggregates, clients and names: few, so that operations meet.
const KEYS: u8 = 5;

/// An input.
#[derive(Clone, Debug)]
struct Session {
    two_shards: bool,
    seed: u8,
    operations: Vec<Operation>,
}

impl Session {
    /// Operations up to the end of the input: bytes that ask for another one would only make inputs short.
    fn read(input: &[u8]) -> arbitrary::Result<Session> {
        let mut input = Unstructured::new(input);
        let (two_shards, seed) = (input.arbitrary()?, input.arbitrary()?);
        let mut operations = Vec::new();
        while !input.is_empty() && operations.len() < OPERATIONS_MAX {
            operations.push(input.arbitrary()?);
        }
        Ok(Session { two_shards, seed, operations })
    }
}

/// A condition, as it stands to what is accepted.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Wish {
    Any,
    Exists,
    Absent,
    /// The version that is accepted.
    Right,
    /// Another one.
    Wrong(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Wanted {
    key: u8,
    wish: Wish,
    /// How many events; none is a check.
    events: u8,
    bytes: u8,
}

#[derive(Arbitrary, Clone, Debug)]
enum Operation {
    Append(Wanted),
    /// A write of several parts, perhaps with a client and a checkpoint that moves.
    Several {
        parts: [Wanted; 3],
        count: u8,
        client: Option<(bool, u8)>,
        checkpoint: Option<(u8, bool)>,
    },
    Execute {
        key: u8,
        refuse: bool,
    },
    Snapshot {
        key: u8,
        version: u8,
    },
    Read {
        key: u8,
        from: u8,
        backwards: bool,
        accepted: bool,
    },
    Follow {
        shard: bool,
    },
    /// Waits for all tickets.
    Settle,
    Fail {
        op: u8,
        nth: u8,
        lasting: bool,
        short: bool,
    },
    /// No more than so many KiB more fit on the disk.
    Fill {
        room: u8,
    },
    /// Closes the store and opens it.
    Close {
        life: Life,
    },
    /// Cuts the power and opens what is left.
    Crash {
        life: Life,
        seed: u8,
    },
}

/// How a store is opened.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Life {
    window: u8,
    mapped: bool,
    random: bool,
    /// The first attempt to open meets a fault, and the power is cut again.
    fault: Option<(u8, u8)>,
}

fn fault(op: u8, nth: u8, lasting: bool, short: bool) -> Fault {
    let ops = [Op::Write, Op::Sync, Op::Create, Op::Read, Op::SyncDir, Op::Prepare];
    let op = ops[usize::from(op) % ops.len()];
    Fault { op, nth: u64::from(nth % 16) + 1, lasting, kind: io::ErrorKind::Other, short }
}

impl Life {
    fn options(self) -> Options {
        let window = usize::from(self.window % 4) + 1;
        directory::options().flush_window(window).mapped(self.mapped)
    }

    /// Opens what is on a disk, at the second attempt if the first is to fail.
    fn open(self, disk: &Arc<SimDisk>) -> (Arc<SimDisk>, Store) {
        let mut disk = Arc::clone(disk);
        if let Some((op, nth)) = self.fault {
            disk.plan(fault(op, nth, true, false));
            match open_on(&self.options(), disk.clone()) {
                Ok(store) => drop(store),
                Err(error) => assert!(is_trouble(&error), "opening on a failing disk: {error}"),
            }
            disk = disk.crash(u64::from(nth));
        }
        disk.repair();
        disk.set_capacity(u64::MAX);
        let order = if self.random { Order::Random } else { Order::Fifo };
        disk.set_order(order);
        let store = open_on(&self.options(), disk.clone())
            .unwrap_or_else(|error| panic!("a store without damage does not open: {error}"));
        (disk, store)
    }
}

/// An error that a failing or full disk explains.
fn is_trouble(error: &Error) -> bool {
    assert!(!error.to_string().contains("panicked"), "{error}");
    matches!(
        error.kind(),
        ErrorKind::Io
            | ErrorKind::Full
            | ErrorKind::Busy
            | ErrorKind::Stopped
            | ErrorKind::NotWritten
            | ErrorKind::OutcomeUnknown
    )
}

fn run(input: &[u8]) -> Outcome {
    let Ok(session) = Session::read(input) else { return Outcome::default() };
    let identity = image::identity(if session.two_shards { 2 } else { 1 }, None);
    let disk = image::empty(&identity).disk(u64::MAX / 2);
    let ((acknowledged, device), held) = harness::measure(|| {
        let first = Life { window: session.seed, mapped: true, random: false, fault: None };
        let mut life = life::Alive::new(&disk, first, identity.shards);
        for operation in &session.operations {
            life.operate(operation);
        }
        life.operate(&Operation::Settle);
        life.operate(&Operation::Crash { life: first, seed: session.seed });
        life.operate(&Operation::Settle);
        (life.acknowledged, Image::of(&life.disk).bytes())
    });
    Outcome {
        reached: acknowledged > 2,
        bytes: device,
        held,
        // A disk before and after a crash, each live and durable; and the reference, which keeps all that was sent.
        beside: 6 * device + usize::from(identity.shards) * 2 * directory::SHARD_BYTES,
    }
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let seeds = (0..64).map(|nth| {
        let mut input = Vec::new();
        for _ in 0..(4 + nth % 5 * 12) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            input.extend(state.to_le_bytes());
        }
        (format!("mixed-{nth}"), input)
    });
    seeds.collect()
}
