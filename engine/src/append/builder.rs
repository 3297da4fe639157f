//! A write as its caller puts it together.

use std::fmt;

use super::record::{add_checkpoint, add_part, finish, refused};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::expect::Expect;
use crate::format::Role;
use crate::id::Position;
use crate::index::SlotKey;
use crate::key::{self, Shown};
use crate::limits;
use crate::store::{Route, Store};
use crate::ticket::Ticket;
use crate::writer::intake::Patience;
use crate::writer::pool;
use crate::writer::request::Request;

/// A write to one or several aggregates: all of it takes effect, or nothing.
///
/// Made by [`Store::write`]. The aggregates must live on one shard. Each appears once. It may move
/// [checkpoints](Write::checkpoint) as well.
#[must_use = "nothing is written before `submit`"]
pub struct Write {
    store: Store,
    request: Box<Request>,
    shard: Option<usize>,
    client: Option<(u128, u64)>,
    /// What was wrong first.
    wrong: Option<Error>,
}

impl Write {
    pub(crate) fn new(store: Store) -> Write {
        Write { store, request: pool::take(), shard: None, client: None, wrong: None }
    }

    /// Appends events to an aggregate, on a condition.
    pub fn append(
        self,
        key: impl AsRef<[u8]>,
        expect: Expect,
        events: impl IntoIterator<Item = Event>,
    ) -> Write {
        self.with(|write| write.add(key.as_ref(), expect, Some(&mut events.into_iter())))
    }

    /// Demands something of an aggregate that the write does not change. `Any` demands nothing and is refused.
    pub fn check(self, key: impl AsRef<[u8]>, expect: Expect) -> Write {
        self.with(|write| {
            if expect == Expect::Any {
                return Err(Error::invalid(
                    "a check expects any version, which checks nothing: expected `Exists`, `Absent` or a version",
                ));
            }
            write.add(key.as_ref(), expect, None)
        })
    }

    /// Moves a checkpoint: keeps, under a name, the position that a projection has come to, in the same write as what the
    /// projection appends. [`Store::checkpoint`] reads it back. So each event of the log is applied once, whatever fails
    /// in between, and however many instances run.
    ///
    /// The write is conditional: the checkpoint stands at `from`, which is [`Position::START`] if there is none. If it
    /// stands elsewhere, because another instance has moved it, the whole write is refused:
    /// [`ErrorKind::Conflict`], whose text names both positions. `to` is later than `from`; the store compares it
    /// with nothing else, so it may be a position of another shard, or of another store.
    ///
    /// The name is 1 to 1,024 bytes. It is routed as keys are and must live on the shard of the write
    /// ([`Store::shard_of`] tells); each appears once. It has nothing to do with an aggregate of the same key. A write
    /// may move checkpoints and append nothing.
    ///
    /// ```
    /// use annals::{Event, Expect, Position, Store};
    /// # let dir = tempfile::tempdir_in("/var/tmp")?;
    /// # let (orders, totals) = (Store::open(dir.path().join("orders"))?, Store::open(dir.path().join("totals"))?);
    ///
    /// orders.append("order-1", Expect::Absent, [Event::new("Placed", "1 book")])?.wait()?;
    ///
    /// let from = totals.checkpoint("orders-0")?;
    /// for event in orders.log(0).after(from) {
    ///     let event = event?;
    ///     let counted = Event::new("Counted", event.key());
    ///     let write = totals.write().append("total", Expect::Any, [counted]);
    ///     write.checkpoint("orders-0", from, event.position()).submit()?.wait()?;
    /// }
    /// assert!(totals.checkpoint("orders-0")? > Position::START);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn checkpoint(self, name: impl AsRef<[u8]>, from: Position, to: Position) -> Write {
        self.with(|write| {
            let name = name.as_ref();
            key::check_name(name)?;
            if to <= from {
                return Err(Error::invalid(format!(
                    "checkpoint {} is moved from {from} to {to}: expected a later position",
                    Shown(name)
                )));
            }
            let from = Expect::Version(from.get());
            write.plan(SlotKey::Checkpoint(name), name, from, Role::Checkpoint, to.get())?;
            add_checkpoint(&mut write.request, name, from)
        })
    }

    /// Makes a retry safe: names the client and the number of this write among its writes. Numbers of a client rise.
    ///
    /// Sent again as the newest of its client on the aggregates that it appends to, a write returns its original result
    /// ([`Committed::is_replay`](crate::Committed::is_replay)), whatever its expected versions say. With a number that is not higher than
    /// all seen and not the newest it is refused: [`ErrorKind::Duplicate`]. A write that appends to no aggregate is not
    /// known again.
    pub fn client(mut self, client: u128, sequence: u64) -> Write {
        self.client = Some((client, sequence));
        self
    }

    /// Submits the write. Waits while limits on work in flight are reached and somebody works on it.
    ///
    /// # Errors
    ///
    /// See [`ErrorKind`]. After any error, nothing of the write is readable, now or after a crash.
    pub fn submit(self) -> Result<Ticket, Error> {
        self.submit_with(Patience::Wait)
    }

    /// As [`submit`](Write::submit), but says [`Busy`](ErrorKind::Busy) or [`Full`](ErrorKind::Full) instead of waiting.
    pub fn try_submit(self) -> Result<Ticket, Error> {
        self.submit_with(Patience::Refuse)
    }

    fn submit_with(self, patience: Patience) -> Result<Ticket, Error> {
        let Write { store, mut request, shard, client, wrong } = self;
        if let Some(wrong) = wrong {
            pool::give(request);
            return Err(wrong);
        }
        let Some(shard) = shard.and_then(|shard| store.shard(shard)) else {
            pool::give(request);
            return Err(Error::invalid(
                "a write is empty: expected an append, a check or a checkpoint at least",
            ));
        };
        if let Err(wrong) = finish(&mut request, client, store.write_bytes_max()) {
            pool::give(request);
            return Err(wrong);
        }
        shard.submit(request, client, patience)
    }

    fn with(mut self, step: impl FnOnce(&mut Write) -> Result<(), Error>) -> Write {
        if self.wrong.is_none() {
            self.wrong = step(&mut self).err();
        }
        self
    }

    fn add(
        &mut self,
        key: &[u8],
        expect: Expect,
        events: Option<&mut dyn Iterator<Item = Event>>,
    ) -> Result<(), Error> {
        key::check(key)?;
        let role = if events.is_some() { Role::Append } else { Role::Check };
        self.plan(SlotKey::Aggregate(key), key, expect, role, 0)?;
        add_part(&mut self.request, key, expect, events)
    }

    /// Notes what the write asks of the slot of a key or a name.
    fn plan(
        &mut self,
        slot: SlotKey<'_>,
        key: &[u8],
        expect: Expect,
        role: Role,
        stated: u64,
    ) -> Result<(), Error> {
        let plan = &mut self.request.payload.plan;
        if plan.parts.len() == limits::AGGREGATES_PER_WRITE_MAX {
            return Err(Error::too_large(
                "the write",
                plan.parts.len() + 1,
                limits::AGGREGATES_PER_WRITE_MAX,
                "aggregates",
            ));
        }
        let Route { hash, shard } = self.store.route_of(slot, key);
        if plan.parts.iter().any(|part| part.hash == hash && plan.slot_key(part) == slot) {
            let what = if role == Role::Checkpoint { "a checkpoint" } else { "an aggregate" };
            return Err(
                Error::invalid(format!("{what} appears twice in one write")).with_keys([key])
            );
        }
        if *self.shard.get_or_insert(shard) != shard {
            let keys = plan.keys().chain([key]);
            return Err(Error::new(
                ErrorKind::CrossShard,
                "the aggregates and checkpoints of a write live on different shards: expected one shard",
            )
            .with_keys(keys));
        }
        plan.push(key, hash, expect, role, stated).map_err(|e| refused(e, key))
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("aggregates", &self.request.payload.plan.parts.len())
            .field("client", &self.client)
            .field("wrong", &self.wrong)
            .finish_non_exhaustive()
    }
}
