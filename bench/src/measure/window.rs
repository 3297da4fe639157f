//! Tickets in flight, in the order in which they were given out, so many at most.

use std::collections::VecDeque;

use crate::store::{Outcome, Result, Ticket};

/// How many writes a pipelining thread has in flight at most: enough for several flushes, and few enough that what a store keeps of each
/// stays in the processor's cache.
const TICKETS_MAX: u64 = 16_384;

/// And how many bytes of events.
const BYTES_MAX: u64 = 64 << 20;

/// How many writes are in flight at most, with events of this size.
pub fn tickets(payload_bytes: u64) -> u64 {
    (BYTES_MAX / payload_bytes.max(1)).clamp(1, TICKETS_MAX)
}

/// The writes of one thread that are under way. All of them must be accepted.
#[derive(Debug)]
pub struct Window<T> {
    tickets: VecDeque<T>,
    capacity: usize,
    committed: u64,
}

impl<T: Ticket> Window<T> {
    /// Of so many tickets.
    pub fn new(capacity: u64) -> Window<T> {
        let capacity = capacity.max(1) as usize;
        Window { tickets: VecDeque::with_capacity(capacity), capacity, committed: 0 }
    }

    /// Takes one more. Waits for the oldest if there are too many.
    pub fn push(&mut self, ticket: T) -> Result<()> {
        if self.tickets.len() == self.capacity {
            self.wait_for_oldest()?;
        }
        self.tickets.push_back(ticket);
        Ok(())
    }

    /// Waits for all: how many were committed since it was last empty.
    pub fn finish(&mut self) -> Result<u64> {
        while !self.tickets.is_empty() {
            self.wait_for_oldest()?;
        }
        Ok(std::mem::take(&mut self.committed))
    }

    fn wait_for_oldest(&mut self) -> Result<()> {
        let Some(ticket) = self.tickets.pop_front() else { return Ok(()) };
        match ticket.wait()? {
            Outcome::Committed(_) => self.committed += 1,
            Outcome::Conflict(actual) => return Err(rejected(actual)),
        }
        Ok(())
    }
}

/// What is said when a write is rejected although nobody else writes to its aggregates.
pub fn rejected(actual: u64) -> crate::store::Error {
    format!(
        "a write was rejected, the aggregate being at version {actual}: nobody else writes to it, so its condition holds"
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Done;

    #[test]
    fn it_holds_no_more_than_it_may_and_counts_all() {
        let mut window = Window::new(3);
        for version in 0..10 {
            window.push(Done(Outcome::Committed(version))).expect("it was committed");
            assert!(window.tickets.len() <= 3);
        }
        assert_eq!(window.finish().expect("all were committed"), 10);
        assert_eq!(window.finish().expect("none are left"), 0);
    }

    #[test]
    fn a_rejected_write_is_an_error() {
        let mut window = Window::new(3);
        window.push(Done(Outcome::Conflict(4))).expect("it is not looked at yet");
        assert!(window.finish().expect_err("it was rejected").to_string().contains("version 4"));
    }

    #[test]
    fn large_events_make_fewer_tickets() {
        assert_eq!(tickets(128), 16_384);
        assert_eq!(tickets(64 << 10), 1024);
        assert_eq!(tickets(1 << 30), 1);
    }
}
