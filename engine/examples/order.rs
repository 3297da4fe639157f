//! The order that ships: read, decide, write, and on a conflict read what is new and decide again.
//!
//! `cargo run -p annals --example order`
#![allow(clippy::print_stdout)]

use std::error::Error;

use annals::{ErrorKind, Event, Expect, Store};

/// What the events of one order add up to.
#[derive(Debug, Default)]
struct Order {
    version: u64,
    paid: bool,
    shipped: bool,
    cancelled: bool,
}

impl Order {
    /// Folds what happened since the version that is known already.
    fn catch_up(&mut self, store: &Store, key: &str) -> Result<(), annals::Error> {
        let read = store.read(key).from(self.version + 1);
        let version = read.version();
        for event in read {
            match event?.event_type() {
                "OrderPaid" => self.paid = true,
                "OrderShipped" => self.shipped = true,
                "OrderCancelled" => self.cancelled = true,
                _ => {}
            }
        }
        self.version = version;
        Ok(())
    }

    /// The decision: an event, or why not.
    fn ship(&self) -> Result<Event, &'static str> {
        match self {
            Order { cancelled: true, .. } => Err("it was cancelled"),
            Order { shipped: true, .. } => Err("it was shipped before"),
            Order { paid: false, .. } => Err("it is not paid"),
            _ => Ok(Event::new("OrderShipped", r#"{"carrier":"post"}"#)),
        }
    }
}

fn ship(store: &Store, key: &str, mut order: Order) -> Result<u64, Box<dyn Error>> {
    loop {
        let event = order.ship()?;
        match store.append(key, Expect::Version(order.version), [event]) {
            Ok(ticket) => return Ok(ticket.wait()?.version()),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                println!("{error}");
                // The winner may not be durable yet, and reads show only what is.
                if let Some(winner) = error.winner() {
                    winner.wait()?;
                }
                order.catch_up(store, key)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir_in(".")?;
    let store = Store::open(folder.path())?;

    let placed = Event::new("OrderPlaced", r#"{"total":42}"#);
    store.append("order-4821", Expect::Absent, [placed])?.wait()?;
    let paid = Event::new("OrderPaid", r#"{"amount":42}"#);
    store.append("order-4821", Expect::Version(1), [paid])?.wait()?;

    let mut order = Order::default();
    order.catch_up(&store, "order-4821")?;
    println!("read at version {}: {order:?}", order.version);

    // Somebody else notes an address meanwhile. The decision still holds, the version does not.
    let moved = Event::new("AddressChanged", r#"{"city":"Bern"}"#);
    store.append("order-4821", Expect::Version(2), [moved])?.wait()?;

    let version = ship(&store, "order-4821", order)?;
    println!("shipped as version {version}");
    assert_eq!(version, 4);

    // And what was decided stays decided: it can't be shipped twice.
    let mut order = Order::default();
    order.catch_up(&store, "order-4821")?;
    let refused = ship(&store, "order-4821", order).unwrap_err();
    println!("a second time: {refused}");
    assert_eq!(refused.to_string(), "it was shipped before");
    assert_eq!(store.version("order-4821")?, 4);
    Ok(())
}
