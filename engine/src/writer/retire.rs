//! When the memory of a request may be used again.
//!
//! | request | steps |
//! |---|---|
//! | published | out of its slots at once (nobody can install it any more); a grace period; free |
//! | rejected | a grace period (late helpers are gone); out of its slots, as soon as all before it is published; a grace period; free |

use std::collections::VecDeque;

use super::pool::Returns;
use super::request::Payload;
use crate::reserve::decide;
use crate::reserve::write::WriteRef;
use crate::sync::epoch::{self, Domain};

type Requests = Vec<WriteRef<Payload>>;

/// Requests that are decided and not yet free, with the epoch that was noted for them.
#[derive(Debug)]
pub(crate) struct Retirement {
    /// Out of every slot, with the bytes that they hold.
    spent: VecDeque<(u64, Requests, u64)>,
    /// Rejected, and perhaps still in the hands of a late helper.
    rejected: VecDeque<(u64, Requests)>,
    /// Rejected, beyond late helpers, and still in a slot.
    standing: Requests,
    /// Empty, to be filled again.
    lists: Vec<Requests>,
    returns: Returns,
    held_bytes: u64,
}

impl Retirement {
    pub(crate) fn new() -> Retirement {
        Retirement {
            spent: VecDeque::new(),
            rejected: VecDeque::new(),
            standing: Vec::new(),
            lists: Vec::new(),
            returns: Returns::new(),
            held_bytes: 0,
        }
    }

    /// An empty list to gather requests in.
    pub(crate) fn list(&mut self) -> Requests {
        self.lists.pop().unwrap_or_default()
    }

    /// Takes requests that were just taken out of every slot.
    pub(crate) fn spend(&mut self, requests: Requests) {
        if requests.is_empty() {
            self.lists.push(requests);
            return;
        }
        let bytes = requests.iter().map(held_bytes).sum();
        self.held_bytes += bytes;
        self.spent.push_back((epoch::domain().epoch(), requests, bytes));
    }

    /// Takes a rejected request.
    pub(crate) fn reject(&mut self, request: WriteRef<Payload>) {
        self.held_bytes += held_bytes(&request);
        let now = epoch::domain().epoch();
        match self.rejected.back_mut() {
            Some((noted, requests)) if *noted == now => requests.push(request),
            _ => {
                let mut requests = self.list();
                requests.push(request);
                self.rejected.push_back((now, requests));
            }
        }
    }

    /// Moves on what grace periods have passed for.
    pub(crate) fn collect(&mut self) {
        if self.spent.is_empty() && self.rejected.is_empty() && self.standing.is_empty() {
            return;
        }
        let now = epoch::domain().advance();
        while self.spent.front().is_some_and(|(noted, ..)| Domain::passed(*noted, now)) {
            let Some((_, mut requests, bytes)) = self.spent.pop_front() else { break };
            self.held_bytes -= bytes;
            for request in requests.drain(..) {
                // SAFETY: it came off the stack, is out of every slot, and a grace period has passed since; it is in
                // this list alone.
                self.returns.give(unsafe { request.into_box() });
            }
            self.lists.push(requests);
        }
        while self.rejected.front().is_some_and(|(noted, _)| Domain::passed(*noted, now)) {
            let Some((_, mut requests)) = self.rejected.pop_front() else { break };
            self.standing.append(&mut requests);
            self.lists.push(requests);
        }
        if !self.standing.is_empty() {
            let mut out = self.list();
            self.standing.retain(|request| {
                // SAFETY: a request in this list is alive: nobody else frees it.
                let cleared = decide::clear_rejected(unsafe { request.get() });
                if cleared {
                    out.push(*request);
                }
                !cleared
            });
            self.held_bytes -= out.iter().map(held_bytes).sum::<u64>();
            self.spend(out);
        }
    }

    /// Memory that grace periods hold back.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Whether everything is free.
    pub(crate) fn is_empty(&self) -> bool {
        self.spent.is_empty() && self.rejected.is_empty() && self.standing.is_empty()
    }

    /// Everything that is not yet free.
    pub(crate) fn into_rest(self) -> impl Iterator<Item = WriteRef<Payload>> {
        let spent = self.spent.into_iter().flat_map(|(_, requests, _)| requests);
        let rejected = self.rejected.into_iter().flat_map(|(_, requests)| requests);
        spent.chain(rejected).chain(self.standing)
    }
}

fn held_bytes(request: &WriteRef<Payload>) -> u64 {
    // SAFETY: a request that is not yet free is alive.
    let request = unsafe { request.get() };
    (size_of_val(request) + request.payload.record.memory_bytes()) as u64
}
