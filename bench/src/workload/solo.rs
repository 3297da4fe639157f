//! One client, which waits for each conditional append before it begins the next: what durability costs when nothing can share it.
//!
//! An operation is a conditional append of one event, from the call until it is durable.

use super::{Case, Measured, Round, clients::Client};
use crate::{
    measure::{
        crew::{self, Shift},
        verify::Acknowledged,
    },
    store::{Result, Store},
};

/// The cases.
pub fn cases() -> Vec<Case> {
    [("128 B", 128.0), ("1 KiB", 1024.0), ("16 KiB", 16384.0)]
        .into_iter()
        .map(|(name, payload_bytes)| {
            let parameters = [("threads", 1.0), ("payload_bytes", payload_bytes)];
            let case = Case::new("solo", name, parameters);
            if payload_bytes == 128.0 { case.canonical() } else { case }
        })
        .collect()
}

/// Runs a case once.
pub fn run<S: Store>(round: &Round<'_>) -> Result<Measured> {
    let store = S::open(round.dir, &round.setup)?;
    let mut client = Client::all(1, 0, round);
    let shift = Shift { warm_up: round.warm_up, measure: round.measure };
    let (spent, tally) = crew::run(&store, &mut client, shift)?;
    let mut acknowledged = Acknowledged::default();
    client[0].acknowledged(&mut acknowledged);
    acknowledged.check_reopened(store, round)?;
    Ok(Measured {
        latency: Some(tally.latency),
        verified: true,
        ..Measured::new("commits", tally.units, spent)
    })
}
