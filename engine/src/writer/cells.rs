//! Cells that tickets keep, and where they go when nobody needs them any more.
//!
//! A request and its cell part when the request is used again while its ticket is still kept. The request then takes
//! another cell: one that a ticket of the same thread has left behind. So a caller that keeps any number of tickets in
//! flight needs no memory in the steady state.

use std::cell::RefCell;
use std::ops::Deref;

use triomphe::Arc;

use super::request::{Asked, TicketCell};
use crate::sync::thread_local;

/// A thread keeps so many cells at most.
const KEPT_MAX: usize = 1024;

thread_local! {
    static SPARE: RefCell<Vec<Arc<TicketCell>>> = const { RefCell::new(Vec::new()) };
}

/// A pending cell that nobody else holds.
pub(crate) fn take() -> Arc<TicketCell> {
    let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
    let mut cell = spare.unwrap_or_else(|| Arc::new(TicketCell::new(Asked::default())));
    reset(&mut cell);
    cell
}

/// Makes a cell pending again, unless somebody else holds it.
pub(crate) fn reset(cell: &mut Arc<TicketCell>) -> bool {
    let Some(cell) = Arc::get_mut(cell) else { return false };
    cell.reset();
    cell.asked_mut().clear();
    true
}

/// A ticket's hold on its cell.
#[derive(Clone)]
pub(crate) struct Held(Option<Arc<TicketCell>>);

impl Held {
    pub(crate) fn new(cell: Arc<TicketCell>) -> Held {
        Held(Some(cell))
    }
}

impl Deref for Held {
    type Target = TicketCell;

    #[inline]
    fn deref(&self) -> &TicketCell {
        self.0.as_deref().expect("a cell is let go of when its holder is dropped")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut cell) = self.0.take() else { return };
        // If the request still has it, both are used again together.
        if Arc::get_mut(&mut cell).is_none() {
            return;
        }
        let _torn_down = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < KEPT_MAX {
                spare.push(cell);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_its_last_holder_leaves_is_taken_again() {
        let cell = take();
        let address = Arc::as_ptr(&cell);
        let ticket = Held::new(Arc::clone(&cell));
        let committed = ticket.clone();
        drop(cell);
        drop(ticket);
        assert_ne!(Arc::as_ptr(&take()), address, "somebody still holds it");
        drop(committed);
        assert_eq!(Arc::as_ptr(&take()), address);
    }
}
