//! What several benchmarks share: stores without a device, keys and events.

// Each benchmark is a program of its own and uses some of these.
#![allow(dead_code, reason = "each benchmark uses some of these")]

use std::sync::Arc;

use annals::internals::disk::sim::{Order, SimDisk};
use annals::internals::open_on;
use annals::{Error, Event, Expect, Options, Recorded, State, Store, Ticket};

/// So many small writes may be in flight that none waits for room: each reserves a block at least.
pub const BURST: u64 = 10_000;
/// Small, so that a burst finds blocks enough in a small segment.
const BLOCK_BYTES: u32 = 512;
const SEGMENT_BYTES: usize = 64 << 20;

/// A store on a disk in memory, with the disk.
pub struct Place {
    /// The disk.
    pub disk: Arc<SimDisk>,
    /// The store.
    pub store: Store,
}

impl Place {
    /// An empty store with these options.
    pub fn new(options: &Options) -> Place {
        let disk = SimDisk::with_block(1, BLOCK_BYTES);
        disk.set_order(Order::Fifo);
        let store = open_on(options, Arc::clone(&disk) as _).expect("a new store can be opened");
        Place { disk, store }
    }

    /// An empty store whose segments have grown: bursts of writes find room. Segments begin small and double.
    pub fn grown(options: &Options) -> Place {
        const BYTES: usize = 4 << 20;
        let place = Place::new(&options.clone().segment_bytes(SEGMENT_BYTES as u64));
        let large = Events::of(BYTES);
        for _ in 0..SEGMENT_BYTES * 3 / 2 / BYTES {
            settle(place.store.append("large", Expect::Any, [large.event()]).ok());
        }
        place
    }

    /// Closes the store and opens it again, so that nothing of it is in the tail image.
    pub fn reopened(self, options: &Options) -> Place {
        let Place { disk, store } = self;
        drop(store);
        let store = open_on(options, Arc::clone(&disk) as _).expect("the store can be opened");
        Place { disk, store }
    }
}

/// Events that share their data, so that making one is not what is measured.
pub struct Events(Arc<[u8]>);

impl Events {
    /// Events with so many bytes of data.
    pub fn of(bytes: usize) -> Events {
        Events((0..bytes).map(|at| at as u8).collect())
    }

    /// The next one.
    pub fn event(&self) -> Event {
        Event::new("Measured", Arc::clone(&self.0))
    }
}

/// A state that is cheap to fold: how many events there are, and how many bytes of data they have.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Sum {
    pub events: u64,
    pub bytes: u64,
}

impl State for Sum {
    fn apply(&mut self, event: &Recorded) {
        self.events += 1;
        self.bytes += event.data().len() as u64;
    }
}

/// The key of an aggregate: 16 bytes, told apart by all of them.
pub fn key(number: u64) -> [u8; 16] {
    u128::from(number).wrapping_add(1).wrapping_mul(KEY_FACTOR).to_le_bytes()
}

/// Odd, so that no two numbers make the same key.
const KEY_FACTOR: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// Numbers in an order that no cache can foresee.
pub struct Random(u64);

impl Random {
    /// The same order each time.
    pub fn new() -> Random {
        Random(0x9e37_79b9_7f4a_7c15)
    }

    /// One below a bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(bound)) >> 64) as u64
    }
}

/// Makes so many aggregates, each with one event, and waits until they are durable.
pub fn create(store: &Store, aggregates: u64, events: &Events) {
    let write = |number| store.append(key(number), Expect::Absent, [events.event()]);
    settle(newest((0..aggregates).map(write)));
}

/// Makes writes that are all accepted, and keeps the ticket of the last.
pub fn newest(writes: impl Iterator<Item = Result<Ticket, Error>>) -> Option<Ticket> {
    writes.fold(None, |_, ticket| Some(ticket.expect("it is accepted")))
}

/// Waits for the last of many writes: then all before it are durable too.
pub fn settle(last: Option<Ticket>) {
    if let Some(ticket) = last {
        ticket.wait().expect("it becomes durable");
    }
}
