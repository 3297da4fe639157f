//! A projection that is killed, and resumes with each event applied once.
//!
//! The program writes orders to one store. Then it starts itself as a projection that counts them by item in another store, kills
//! it without warning, starts it again, and so on until the projection has come to the end. Each of the projection's writes
//! moves its checkpoint too, on the condition that it stands where the projection believes: so an event is counted and passed in
//! one step, or neither.
//!
//! `cargo run -p annals --example projection`
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use annals::{Event, Expect, Options, Recorded, State, Store};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ORDERS: u64 = 3_000;
const ITEMS: [&str; 3] = ["book", "lamp", "chair"];
/// Where the projection has come to in the orders.
const CHECKPOINT: &str = "orders";

/// How often an item was ordered, as the projection has counted.
#[derive(Default)]
struct Count(u64);

impl State for Count {
    fn apply(&mut self, _: &Recorded) {
        self.0 += 1;
    }
}

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    if let (Some(orders), Some(counts)) = (arguments.next(), arguments.next()) {
        return project(Path::new(&orders), Path::new(&counts));
    }
    let dir = tempfile::tempdir_in(".")?;
    let (orders, counts) = (dir.path().join("orders"), dir.path().join("counts"));
    place_orders(&orders)?;

    let mut lives = 0;
    loop {
        lives += 1;
        let mut projection = Command::new(env::current_exe()?).arg(&orders).arg(&counts).spawn()?;
        // A little longer each time, so that it comes to the end.
        thread::sleep(Duration::from_millis(20 * lives));
        if projection.try_wait()?.is_some_and(|status| status.success()) {
            break;
        }
        projection.kill()?;
        projection.wait()?;
    }
    check(&orders, &counts)?;
    println!("{ORDERS} orders counted once each, in {lives} lives");
    Ok(())
}

fn place_orders(path: &Path) -> Result<()> {
    let store = Store::open(path)?;
    let mut last = None;
    for number in 0..ORDERS {
        let placed = Event::new("Placed", ITEMS[number as usize % ITEMS.len()]);
        last = Some(store.append(format!("order-{number}"), Expect::Absent, [placed])?);
    }
    // The log is in order: when the last is durable, so are all.
    last.map(|ticket| ticket.wait()).transpose()?;
    Ok(store.close()?)
}

/// The projection: counts what lies behind its checkpoint.
fn project(orders: &Path, counts: &Path) -> Result<()> {
    let orders = Options::new().read_only(true).open(orders)?;
    let counts = Store::open(counts)?;
    let mut from = counts.checkpoint(CHECKPOINT)?;
    let mut last = None;
    for write in orders.subscribe(0).after(from).with_event_types(["Placed"]).writes() {
        let write = write?;
        let to = write.position();
        let mut counting = counts.write().checkpoint(CHECKPOINT, from, to);
        for event in write.parts().flat_map(|part| part.events()) {
            let item = [b"count-", event.data()].concat();
            counting = counting.append(item, Expect::Any, [Event::new("Counted", event.key())]);
        }
        // It does not wait: what comes later is durable later.
        last = Some(counting.submit()?);
        from = to;
    }
    last.map(|ticket| ticket.wait()).transpose()?;
    Ok(counts.close()?)
}

fn check(orders: &Path, counts: &Path) -> Result<()> {
    let mut expected = BTreeMap::new();
    let orders = Options::new().read_only(true).open(orders)?;
    let mut end = None;
    for event in orders.log(0) {
        let event = event?;
        *expected.entry(String::from_utf8(event.data().to_vec())?).or_insert(0) += 1;
        end = Some(event.position());
    }
    let counts = Store::open(counts)?;
    assert_eq!(Some(counts.checkpoint(CHECKPOINT)?), end);
    for (item, count) in expected {
        let (counted, _) = counts.read(format!("count-{item}")).into_state::<Count>()?;
        assert_eq!(counted.0, count, "{item}");
    }
    Ok(())
}
