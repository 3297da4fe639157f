//! Waiting for the writes of others: a request with neither record nor entries, which the log writer settles when all
//! that was submitted before it is durable.

use std::sync::Arc;

use crate::error::Error;
use crate::reserve::step;
use crate::shard::Shard;
use crate::ticket::Ticket;
use crate::writer::intake::Patience;
use crate::writer::pool;
use crate::writer::request::{Kind, Request, TicketCell};

impl Shard {
    /// A ticket that resolves when everything accepted by now is durable; its result says nothing else.
    pub(crate) fn barrier(self: &Arc<Self>, patience: Patience) -> Result<Ticket, Error> {
        self.submit_barrier(pool::take(), patience).map(Ticket::new)
    }

    /// Makes a barrier of a request that was not submitted.
    pub(super) fn submit_barrier(
        &self,
        mut request: Box<Request>,
        patience: Patience,
    ) -> Result<triomphe::Arc<TicketCell>, Error> {
        request.reset();
        request.payload.kind = Kind::Watch;
        if let Err(refused) = self.take_permits(&mut request, patience) {
            pool::give(request);
            return Err(refused);
        }
        if let Some(cell) = triomphe::Arc::get_mut(&mut request.payload.cell) {
            let asked = cell.asked_mut();
            asked.clear();
            asked.group = self.links.intake.group();
        }
        let cell = triomphe::Arc::clone(&request.payload.cell);
        step!("submit a wait");
        match self.links.intake.push(request) {
            Ok(_) => {
                step!("wake for a wait");
                self.links.intake.wake_writer();
                Ok(cell)
            }
            Err(request) => {
                self.links.intake.release(request.payload.permits);
                pool::give(request);
                Err(self.closed())
            }
        }
    }
}
