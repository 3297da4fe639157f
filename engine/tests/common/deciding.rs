//! What the tests of deciding share.

use std::fmt::Debug;
use std::sync::Arc;

use annals::internals::disk::sim::{Order, SimDisk};
use annals::{Committed, Execution, Expect, Recorded, State, Store};

use super::{numbered, open_sim, small};

/// What a `numbered` event says.
pub fn number_in(event: &Recorded) -> u64 {
    u64::from_le_bytes(event.data().try_into().unwrap())
}

/// The numbers of all events together.
#[derive(Clone, Default)]
pub struct Sum(pub u64);

impl State for Sum {
    fn apply(&mut self, event: &Recorded) {
        self.0 += number_in(event);
    }
}

/// The refusal of an execution.
pub fn refused<R>(execution: Execution<R>) -> R {
    match execution.wait() {
        Ok(Err(refusal)) => refusal,
        Ok(Ok(done)) => panic!("{done:?} instead of a refusal"),
        Err(error) => panic!("{error} instead of a refusal"),
    }
}

/// What an execution has written.
pub fn written<R: Debug>(execution: Execution<R>) -> Committed {
    execution.wait().unwrap().unwrap().expect("it wrote")
}

/// A store with 5 hours durable, and 35 more on their way to a disk that hangs.
pub fn held(seed: u64) -> (Arc<SimDisk>, Store) {
    let disk = SimDisk::new(seed);
    let store = open_sim(&small().flush_window(16), &disk).unwrap();
    store.append("sheet", Expect::Absent, [numbered(5)]).unwrap().wait().unwrap();
    store.append("quiet", Expect::Absent, [numbered(40)]).unwrap().wait().unwrap();
    disk.set_order(Order::Never);
    drop(store.append("sheet", Expect::Version(1), [numbered(35)]).unwrap());
    (disk, store)
}
