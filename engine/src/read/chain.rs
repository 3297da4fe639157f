//! From version to version of one aggregate, along the links that its records carry.
//!
//! ```text
//! version   … 126 ◄─ 127 ◄─ 128 ◄─ 129 ◄─ 130 = head        prev: one version back
//!                            ▲──────┴──────┘                 skip: to the newest version before it that is
//!              64 ◄──────────┘                                     divisible by 64
//! ```
//!
//! Which version a link leads to follows from the version it starts at, so every hop is checked: the record there must
//! have the aggregate's key at exactly that version. Versions strictly fall, so no damage makes a read go round.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::format::{Damage, PartPlace, PartView, RecordView, Role};
use crate::id::Position;
use crate::key::KeyBuf;
use crate::log::catalogue::{Catalogue, Record};
use crate::log::cursor::Cursor;
use crate::read::{Pending, ReadSide};
use crate::reserve::slot::SKIP_VERSIONS;
use crate::reserve::slot_ref::SlotRef;

/// The records of one aggregate.
pub(super) struct Chain {
    side: Arc<ReadSide>,
    key: KeyBuf,
    /// The aggregate's slot, if it had one.
    slot: Option<SlotRef>,
}

/// One version, and the ways from it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) version: u64,
    pub(super) record: Record,
    /// The aggregate's part in it.
    pub(super) part: PartPlace,
    prev: Position,
    skip: Position,
}

impl Link {
    pub(super) fn position(&self) -> Position {
        self.record.position()
    }

    /// Where the version before is, and which it is; `None` before version 1.
    pub(super) fn before(&self) -> Option<(Position, u64)> {
        (self.version > 1).then(|| (self.prev, self.version - 1))
    }
}

/// The newest version divisible by 64 before this one; 0 if there is none.
pub(super) const fn milestone_before(version: u64) -> u64 {
    version.saturating_sub(1) / SKIP_VERSIONS * SKIP_VERSIONS
}

impl Chain {
    pub(super) fn new(side: Arc<ReadSide>, key: &[u8], slot: Option<SlotRef>) -> Chain {
        Chain { side, key: KeyBuf::new(key), slot }
    }

    fn catalogue(&self) -> &Catalogue {
        &self.side.catalogue
    }

    pub(super) fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }

    /// What is accepted, and the newest version that is durable with it; `None` if there is none.
    pub(super) fn accepted(&mut self) -> Result<(Pending, Option<Link>), Error> {
        self.slot = self.slot.or_else(|| self.side.slot(self.key.as_bytes()));
        let Some(slot) = self.slot else {
            return Ok((Pending::nothing(0), None));
        };
        let pending = self.side.decided.decided(slot, 0)?;
        let newest = match pending.published {
            0 => None,
            version => Some(self.newest_published(version)?),
        };
        Ok((pending, newest))
    }

    /// A version that the slot has shown as published, the watermark perhaps not yet.
    pub(super) fn newest_published(&self, version: u64) -> Result<Link, Error> {
        let head = self.slot.map_or(Position::START, |slot| slot.head());
        let mut link = self.link(self.published(head)?, None)?;
        while link.version > version {
            link = match milestone_before(link.version) >= version {
                true => self.milestone(&link)?,
                false => self.before(&link)?,
            };
        }
        Ok(link)
    }

    /// The newest durable version.
    pub(super) fn newest(&self) -> Result<Option<Link>, Error> {
        // In this order: what is below the watermark, the slot shows.
        let watermark = self.catalogue().watermark();
        self.newest_below(self.slot.map_or(Position::START, |slot| slot.head()), watermark)
    }

    /// The newest version below a watermark that was taken before `head` was read from the slot.
    pub(super) fn newest_below(
        &self,
        head: Position,
        watermark: Position,
    ) -> Result<Option<Link>, Error> {
        if head.is_none() {
            return Ok(None);
        }
        let mut link = self.link(self.published(head)?, None)?;
        // Above the watermark stand at most the flushes that are being published.
        while link.position() >= watermark {
            let (at, version) = match link.skip >= watermark {
                true => (link.skip, milestone_before(link.version)),
                false => (link.prev, link.version - 1),
            };
            if version == 0 {
                return Ok(None);
            }
            link = self.at(at, version)?;
        }
        Ok(Some(link))
    }

    /// The version before, which must not be 0.
    pub(super) fn before(&self, link: &Link) -> Result<Link, Error> {
        self.at(link.prev, link.version - 1)
    }

    /// The newest version divisible by 64 before, which must not be 0.
    pub(super) fn milestone(&self, link: &Link) -> Result<Link, Error> {
        self.at(link.skip, milestone_before(link.version))
    }

    /// The version that stands at a position.
    pub(super) fn at(&self, position: Position, version: u64) -> Result<Link, Error> {
        self.link(self.published(position)?, Some(version))
    }

    /// For following many links at once.
    pub(super) fn cursor(&self) -> Cursor<'_> {
        self.catalogue().cursor()
    }

    /// As [`Chain::before`].
    pub(super) fn before_by(&self, cursor: &mut Cursor<'_>, link: &Link) -> Result<Link, Error> {
        let record = cursor.record(link.prev).map_err(|error| self.named(error))?;
        self.link(record, Some(link.version - 1))
    }

    fn published(&self, head: Position) -> Result<Record, Error> {
        self.catalogue().published(head).map_err(|error| self.named(error))
    }

    /// The part of this aggregate in a record, for its events.
    pub(super) fn part<'a>(&self, view: &RecordView<'a>) -> Option<PartView<'a>> {
        view.find_part(self.key.as_bytes()).filter(|part| part.role == Role::Append)
    }

    /// An error about a record of the aggregate.
    pub(super) fn damaged(&self, position: Position, damage: &Damage) -> Error {
        self.named(self.catalogue().damaged(position, damage))
    }

    fn corrupt(&self, position: Position, what: impl fmt::Display) -> Error {
        self.named(self.catalogue().corrupt(position, what))
    }

    fn named(&self, error: Error) -> Error {
        error.with_keys([self.key.as_bytes()])
    }

    /// What a record says of this aggregate; it must be at `expected`, if that is known.
    fn link(&self, record: Record, expected: Option<u64>) -> Result<Link, Error> {
        let position = record.position();
        let Some(part) = self.part(&record.view()) else {
            let what = "the record appends nothing to the aggregate whose version should be here";
            return Err(self.corrupt(position, what));
        };
        let PartView { version, prev, skip, .. } = part;
        let part = part.place();
        if let Some(expected) = expected.filter(|expected| *expected != version) {
            let what = format!("the record has version {version}, where {expected} should be");
            return Err(self.corrupt(position, what));
        }
        Ok(Link { version, record, part, prev, skip })
    }
}
