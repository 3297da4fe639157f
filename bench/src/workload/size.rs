//! Size: bytes on disk an event, and memory an aggregate that nobody writes to.
//!
//! On disk: a store is filled, closed cleanly, and its files are measured. `disk_bytes_per_event` counts everything, and
//! `disk_bytes_per_payload_byte` by the events' own bytes. Alone means an event a write; in batches, ten.
//!
//! In memory (Annals alone): what its index says that it holds, for each slot, the aggregate's key of sixteen bytes included; and what the
//! process grew by when the store was opened, for each aggregate, which counts whatever else an opening keeps (`resident_…`). Then every
//! aggregate takes part in a write of 256 that is rejected, and both are looked at again. A client's slots, one for each aggregate that it
//! wrote to, are measured apart.
//!
//! A unit is an event that was written to fill the store.

use std::any::Any;

use annals::{ErrorKind, Event, Expect, Store as Engine};
use procfs::process::Process;

use super::{Case, Measured, Round};
use crate::{
    measure::{
        Meter, folder,
        payload::Payloads,
        verify::Acknowledged,
        window::{self, Window},
    },
    store::{Append, Result, Session, Store, key},
    stores::annals::Annals,
};

/// How many aggregates an Annals write may have.
const WIDEST: u64 = 256;

/// The cases.
pub fn cases() -> Vec<Case> {
    let on_disk = |name: &str, batch: f64| {
        let parameters = [
            ("events", 2e5),
            ("aggregates", 2e4),
            ("payload_bytes", 128.0),
            ("batch_events", batch),
        ];
        Case::new("size", name, parameters)
    };
    let in_memory = |name: &str, clients: f64| {
        let parameters = [("aggregates", 1e6), ("payload_bytes", 128.0), ("clients", clients)];
        Case::new("size", name, parameters).annals_only()
    };
    vec![
        on_disk("on disk, alone", 1.0),
        on_disk("on disk, batches of 10", 10.0).annals_only(),
        in_memory("in memory, idle aggregates", 0.0),
        in_memory("in memory, client slots", 1.0),
    ]
}

/// Runs a case once.
pub fn run<S: Store>(round: &Round<'_>) -> Result<Measured> {
    match round.case.number("batch_events") {
        0 => in_memory::<S>(round),
        1 => alone::<S>(round),
        batch => in_batches::<S>(round, batch),
    }
}

/// The store behind the adapter, for what only Annals has.
pub(super) fn engine<S: Store>(store: &S) -> Result<&Engine> {
    let annals = (store as &dyn Any).downcast_ref::<Annals>();
    annals
        .map(Annals::engine)
        .ok_or_else(|| "this case is for Annals alone: it needs what its peers do not have".into())
}

fn scaled(round: &Round<'_>, name: &str) -> u64 {
    round.case.number(name) / if round.quick { 100 } else { 1 }
}

fn alone<S: Store>(round: &Round<'_>) -> Result<Measured> {
    let (events, aggregates) = (scaled(round, "events"), scaled(round, "aggregates"));
    let payloads = Payloads::new(round.case.number("payload_bytes"), round.seed);
    let store = S::open(round.dir, &round.setup)?;
    let mut session = store.session()?;
    let mut window = Window::new(window::tickets(round.case.number("payload_bytes")));
    let meter = Meter::begin(store.processes());
    for number in 0..events {
        let append = Append {
            key: key(number % aggregates),
            expected: Some(number / aggregates),
            payload: payloads.at(number),
        };
        window.push(session.submit(&[append])?)?;
    }
    window.finish()?;
    let spent = meter.end();
    drop(session);
    let mut acknowledged = Acknowledged::default();
    for number in 0..aggregates {
        acknowledged.add(key(number), events / aggregates);
    }
    store.close()?;
    let bytes = folder::bytes(round.dir)?;
    acknowledged.check_reopened(S::open(round.dir, &round.setup)?, round)?;
    let mut measured = Measured::new("events", events, spent);
    on_disk(&mut measured, bytes, round);
    measured.verified = true;
    Ok(measured)
}

fn on_disk(measured: &mut Measured, bytes: u64, round: &Round<'_>) {
    let each = bytes as f64 / measured.units as f64;
    measured.figures.insert("disk_bytes_per_event", each);
    let payload = round.case.number("payload_bytes") as f64;
    measured.figures.insert("disk_bytes_per_payload_byte", each / payload);
}

fn in_batches<S: Store>(round: &Round<'_>, batch: u64) -> Result<Measured> {
    let (events, aggregates) = (scaled(round, "events"), scaled(round, "aggregates"));
    let payloads = Payloads::new(round.case.number("payload_bytes"), round.seed);
    let store = S::open(round.dir, &round.setup)?;
    let meter = Meter::begin(store.processes());
    let mut last = None;
    for write in 0..events / batch {
        let events =
            (0..batch).map(|event| Event::new("Measured", payloads.at(write * batch + event)));
        let expect = Expect::Version(write / aggregates);
        last = Some(engine(&store)?.append(key(write % aggregates), expect, events)?);
    }
    // One shard, whose log is one order: what was accepted before it is durable with it.
    last.map(|ticket| ticket.wait()).transpose()?;
    let spent = meter.end();
    store.close()?;
    let bytes = folder::bytes(round.dir)?;
    let reopened = S::open(round.dir, &round.setup)?;
    let found = reopened.session()?.read_all(&mut |_| ())?;
    reopened.close()?;
    let written = events / batch * batch;
    if found != written {
        return Err(format!(
            "opened again, the store holds {found} events: {written} were acknowledged"
        )
        .into());
    }
    let mut measured = Measured::new("events", written, spent);
    on_disk(&mut measured, bytes, round);
    measured.verified = true;
    Ok(measured)
}

/// What the index holds and what the process does.
#[derive(Debug, Clone, Copy)]
struct Memory {
    slots: u64,
    index_bytes: u64,
    held_bytes: u64,
    resident_bytes: u64,
}

impl Memory {
    fn now(engine: Option<&Engine>) -> Result<Memory> {
        // What was freed goes back first, so that the process is as large as what it holds.
        #[cfg(target_env = "gnu")]
        // SAFETY: a plain call that any thread may make.
        unsafe {
            libc::malloc_trim(0);
        }
        let shards = engine.map(|engine| engine.stats().shards).unwrap_or_default();
        Ok(Memory {
            slots: shards.iter().map(|shard| shard.slots).sum(),
            index_bytes: shards.iter().map(|shard| shard.index_bytes).sum(),
            held_bytes: shards.iter().map(|shard| shard.held_bytes).sum(),
            resident_bytes: Process::myself()?.statm()?.resident * procfs::page_size(),
        })
    }
}

fn in_memory<S: Store>(round: &Round<'_>) -> Result<Measured> {
    // All but the last, in groups of so many, meet the last in a write that is rejected.
    let aggregates = scaled(round, "aggregates").next_multiple_of(WIDEST - 1) + 1;
    let payloads = Payloads::new(round.case.number("payload_bytes"), round.seed);
    let clients = round.case.number("clients");
    let store = S::open(round.dir, &round.setup)?;
    let meter = Meter::begin(store.processes());
    let mut last = None;
    for number in 0..aggregates {
        let event = Event::new("Measured", payloads.at(number));
        let write = engine(&store)?.write().append(key(number), Expect::Absent, [event]);
        let write = if clients > 0 { write.client(1, 1) } else { write };
        last = Some(write.submit()?);
    }
    last.map(|ticket| ticket.wait()).transpose()?;
    let spent = meter.end();
    store.close()?;
    let before = Memory::now(None)?;
    let store = S::open(round.dir, &round.setup)?;
    let engine = engine(&store)?;
    let idle = Memory::now(Some(engine))?;
    let mut measured = Measured::new("events", aggregates, spent);
    let slots = aggregates * (1 + clients);
    if idle.slots != slots {
        return Err(format!("the index has {} slots: expected {slots}", idle.slots).into());
    }
    let mut put = |name, bytes: u64, by: u64| {
        measured.figures.insert(name, bytes as f64 / by as f64);
    };
    let resident = idle.resident_bytes.saturating_sub(before.resident_bytes);
    put("index_bytes_per_slot", idle.index_bytes, slots);
    put("resident_bytes_per_aggregate", resident, aggregates);
    if clients == 0 {
        reject(engine, aggregates)?;
        let after = Memory::now(Some(engine))?;
        let resident = after.resident_bytes.saturating_sub(before.resident_bytes);
        put("rejected_index_bytes_per_slot", after.index_bytes, after.slots);
        put("rejected_held_bytes_per_aggregate", after.held_bytes, aggregates);
        put("rejected_resident_bytes_per_aggregate", resident, aggregates);
        if after.slots != slots {
            return Err(format!(
                "after rejected writes the index has {} slots: expected {slots}",
                after.slots
            )
            .into());
        }
    }
    let mut acknowledged = Acknowledged::default();
    for number in 0..aggregates {
        acknowledged.add(key(number), 1);
    }
    acknowledged.check_reopened(store, round)?;
    measured.verified = true;
    Ok(measured)
}

/// Has every aggregate take part in a write of 256, of which the last one's condition does not hold.
fn reject(engine: &Engine, aggregates: u64) -> Result<()> {
    // The last in the order of keys: all others are taken before it fails.
    let last = aggregates - 1;
    for first in (0..last).step_by(WIDEST as usize - 1) {
        let hold = (first..first + WIDEST - 1).fold(engine.write(), |write, number| {
            write.append(key(number), Expect::Version(1), [Event::new("Measured", "")])
        });
        let fails = Expect::Version(7);
        match hold.append(key(last), fails, [Event::new("Measured", "")]).submit() {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Err("a write whose condition does not hold was accepted".into()),
        }
    }
    // A check resolves when all that was decided before it is durable, and the log writer has been round.
    engine.write().check(key(0), Expect::Exists).submit()?.wait()?;
    Ok(())
}
