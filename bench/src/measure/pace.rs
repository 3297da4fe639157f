//! An absolute schedule: when each operation of an open loop is due, whatever became of those before it.
//!
//! A latency that counts from when an operation was *due*, not from when its turn came, has no coordinated omission: a stall is felt by all
//! operations that were due while it lasted.

use std::time::{Duration, Instant};

/// How long before an operation is due sleeping gives way to waiting: what a timer of the system is late by.
const SPIN: Duration = Duration::from_micros(60);

/// A schedule with a fixed rate.
#[derive(Debug, Clone)]
pub struct Pace {
    began: Instant,
    nanos_each: f64,
    next: u64,
}

impl Pace {
    /// So many operations a second, the first of them due now.
    ///
    /// # Panics
    ///
    /// If the rate is no positive number.
    pub fn new(rate: f64) -> Pace {
        assert!(
            rate > 0.0 && rate.is_finite(),
            "a rate of {rate} operations a second: expected more than none"
        );
        Pace { began: Instant::now(), nanos_each: 1e9 / rate, next: 0 }
    }

    /// When the next operation is due.
    pub fn due(&self) -> Instant {
        self.began + Duration::from_nanos((self.next as f64 * self.nanos_each) as u64)
    }

    /// How many operations were let go.
    pub fn passed(&self) -> u64 {
        self.next
    }

    /// If the next operation is due, when it was, and on to the one after it.
    pub fn due_now(&mut self) -> Option<Instant> {
        let due = self.due();
        (Instant::now() >= due).then(|| {
            self.next += 1;
            due
        })
    }

    /// Waits until the next operation is due: when it was. Late, it does not wait.
    pub fn wait(&mut self) -> Instant {
        let due = self.due();
        let ahead = due.saturating_duration_since(Instant::now());
        if ahead > SPIN {
            std::thread::sleep(ahead - SPIN);
        }
        while Instant::now() < due {
            std::thread::yield_now();
        }
        self.next += 1;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_does_not_move_when_an_operation_is_late() {
        let mut pace = Pace::new(1000.0);
        let first = pace.wait();
        std::thread::sleep(Duration::from_millis(5));
        let following: Vec<Instant> = (0..3).map(|_| pace.wait()).collect();
        for (number, due) in (1..).zip(following) {
            assert_eq!(due - first, Duration::from_millis(number));
        }
        assert_eq!(pace.passed(), 4);
    }

    #[test]
    fn nothing_is_let_go_before_it_is_due() {
        let mut pace = Pace::new(200.0);
        for _ in 0..5 {
            let due = pace.wait();
            assert!(Instant::now() >= due);
        }
        assert_eq!(pace.due_now(), None);
    }
}
