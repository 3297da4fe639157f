//! The log of one shard from a position on, record by record, and on as it grows.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::format::Damage;
use crate::id::Position;
use crate::log::catalogue::{Catalogue, Record};
use crate::log::walk::Walk;
use crate::read::damaged;
use crate::read::follower::Step;

/// See the module.
pub(super) struct Trail {
    walk: Walk,
    /// The position that was asked for, until the first look.
    asked: Option<Position>,
    position: Position,
    /// What it gives next, and nothing behind it.
    failed: Option<Error>,
    ended: bool,
}

impl Trail {
    /// A trail from the start of the log.
    pub(super) fn new(catalogue: Arc<Catalogue>) -> Trail {
        let walk = Walk::following(catalogue, Position::START);
        Trail { walk, asked: None, position: Position::START, failed: None, ended: false }
    }

    /// Starts at a position, with the record that stands there or else the first one behind it.
    pub(super) fn start_from(&mut self, from: Position) {
        let before = Position::from_raw(from.get().saturating_sub(1));
        let walk = Walk::following(Arc::clone(self.catalogue()), from);
        let failed = self.failed.take();
        *self = Trail { walk, asked: Some(from), position: before, failed, ended: false };
    }

    /// Starts behind the record at a position.
    pub(super) fn start_after(&mut self, after: Position) {
        self.start_from(after);
        self.walk.start_after(after);
        self.position = after;
    }

    /// Starts with what becomes durable from now on.
    pub(super) fn start_now(&mut self) {
        self.start_from(self.catalogue().watermark());
    }

    /// Gives an error and nothing behind it, wherever it starts.
    pub(super) fn fail(&mut self, error: Error) {
        self.failed = Some(error);
    }

    /// Gives nothing more.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Of the newest record that was passed; at first, right before where it starts.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Notes that nothing of the record at a position is needed any more.
    pub(super) fn pass(&mut self, position: Position) {
        self.position = position;
    }

    pub(super) fn catalogue(&self) -> &Arc<Catalogue> {
        self.walk.catalogue()
    }

    /// The error for a record whose events are damaged, which ends the trail.
    pub(super) fn damaged(&mut self, record: &Record, damage: &Damage) -> Error {
        self.ended = true;
        damaged(self.catalogue(), record, damage)
    }

    /// Reads the next record, or says why there is none; the item is then the error that ends the trail.
    pub(super) fn step(&mut self) -> Result<Record, Step<Error>> {
        if self.ended {
            return Err(Step::Ended);
        }
        let step = self.look();
        self.ended = matches!(step, Err(Step::Ended | Step::Item(_)));
        step
    }

    fn look(&mut self) -> Result<Record, Step<Error>> {
        if let Some(error) = self.failed.take() {
            return Err(Step::Item(error));
        }
        if let Some(asked) = self.asked.take() {
            self.check(asked).map_err(Step::Item)?;
        }
        loop {
            if let Some(record) = self.walk.next() {
                return record.map_err(Step::Item);
            }
            // In this order: once the end is seen, the watermark moves no more.
            let ended = self.catalogue().following().ended();
            if self.walk.refresh() {
                continue;
            }
            return Err(match ended {
                None => Step::Nothing,
                Some(Ok(())) => Step::Ended,
                Some(Err(why)) => Step::Item(why),
            });
        }
    }

    /// Refuses a position that the log has not reached.
    fn check(&self, asked: Position) -> Result<(), Error> {
        let end = self.catalogue().watermark();
        if asked <= end {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "shard {}: expected a position of at most {end}, where the log ends, found {asked}: \
             the store is perhaps an older copy",
            self.catalogue().shard()
        )))
    }
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trail")
            .field("shard", &self.catalogue().shard())
            .field("position", &self.position)
            .field("ended", &self.is_ended())
            .finish_non_exhaustive()
    }
}
