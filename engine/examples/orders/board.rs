//! The projection: how many orders there are, and the newest of them.
//!
//! It is kept in memory by a subscription that starts at the beginning of the log, so after a restart it is what it was:
//! each event is counted once, and there is nothing beside the log that could disagree with it.

use std::collections::VecDeque;

use annals::{Error, Position, Recorded, Store, Subscription};
use serde::Serialize;
use tokio::sync::watch;

use crate::order::{Details, Happening, Order, OrderId};

/// How many orders the table shows.
const ROWS: usize = 50;

/// What is known of all orders up to a position in the log.
#[derive(Debug, Default, Serialize)]
pub struct Board {
    placed: u64,
    shipped: u64,
    /// The newest first.
    orders: VecDeque<Row>,
    #[serde(skip)]
    pub position: Position,
    /// Why it follows the log no longer, if it does not.
    #[serde(skip)]
    pub failed: Option<Error>,
}

#[derive(Debug, Serialize)]
struct Row {
    order: String,
    status: Order,
    #[serde(flatten)]
    details: Details,
    version: u64,
    /// When the newest of it happened, in milliseconds since 1970.
    time: i64,
}

/// One event of an order, as it is shown outside.
#[derive(Debug, Serialize)]
pub struct Entry {
    pub order: String,
    #[serde(flatten)]
    pub happening: Happening,
    pub version: u64,
    /// When it was committed, in milliseconds since 1970.
    pub time: i64,
    /// As text: a position is a number of 64 bits, more than JavaScript's have.
    pub position: String,
}

impl Entry {
    pub fn of(event: &Recorded) -> Option<Entry> {
        let key = std::str::from_utf8(event.key()).ok()?;
        Some(Entry {
            order: key.strip_prefix(OrderId::PREFIX)?.to_owned(),
            happening: Happening::of(event)?,
            version: event.version(),
            time: event.commit_time() / 1000,
            position: event.position().get().to_string(),
        })
    }
}

impl Board {
    fn apply(&mut self, event: &Recorded) {
        self.position = event.position();
        let Some(Entry { order, happening, version, time, .. }) = Entry::of(event) else { return };
        match happening {
            Happening::Placed(details) => {
                self.placed += 1;
                self.orders.truncate(ROWS - 1);
                let status = Order::Placed;
                self.orders.push_front(Row { order, status, details, version, time });
            }
            Happening::Shipped => {
                self.shipped += 1;
                if let Some(row) = self.orders.iter_mut().find(|row| row.order == order) {
                    (row.status, row.version, row.time) = (Order::Shipped, version, time);
                }
            }
        }
    }
}

/// All events of orders, in the order in which they became durable, from the start of the log.
pub fn follow(store: &Store) -> Subscription {
    store.subscribe(0).with_prefix(OrderId::PREFIX)
}

/// The board as it is now, and a task that keeps it so for as long as the store is open.
pub fn keep(store: &Store) -> Result<watch::Receiver<Board>, Error> {
    let (mut events, mut board) = (follow(store), Board::default());
    while let Some(event) = events.try_next() {
        board.apply(&event?);
    }
    let (board, shown) = watch::channel(board);
    tokio::spawn(async move {
        while let Some(event) = events.next_async().await {
            board.send_modify(|board| match event {
                Ok(event) => board.apply(&event),
                Err(error) => board.failed = Some(error),
            });
        }
    });
    Ok(shown)
}
