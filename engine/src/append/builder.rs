//! A write as its caller puts it together.

use std::fmt;

use super::record::{add_part, finish, refused};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::expect::Expect;
use crate::key;
use crate::limits;
use crate::store::Store;
use crate::ticket::Ticket;
use crate::writer::intake::Patience;
use crate::writer::pool;
use crate::writer::request::Request;

/// A write to one or several aggregates: all of it takes effect, or nothing.
///
/// Made by [`Store::write`]. The aggregates must live on one shard. Each appears once.
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

    /// Makes a retry safe: names the client and the number of this write among its writes. Numbers of a client rise.
    ///
    /// Sent again as the newest of its client on the aggregates that it appends to, a write returns its original result
    /// ([`Committed::is_replay`](crate::Committed::is_replay)), whatever its expected versions say. With a number that is not higher than
    /// all seen and not the newest it is refused: [`ErrorKind::Duplicate`].
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
            return Err(Error::invalid("a write is empty: expected an append or a check at least"));
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
        let plan = &mut self.request.payload.plan;
        if plan.parts.len() == limits::AGGREGATES_PER_WRITE_MAX {
            return Err(Error::too_large(
                "the write",
                plan.parts.len() + 1,
                limits::AGGREGATES_PER_WRITE_MAX,
                "aggregates",
            ));
        }
        let route = self.store.route(key);
        if plan.parts.iter().any(|part| part.hash == route.hash && plan.key(part) == key) {
            return Err(Error::invalid("an aggregate appears twice in one write").with_keys([key]));
        }
        if *self.shard.get_or_insert(route.shard) != route.shard {
            let keys = plan.keys().chain([key]);
            return Err(Error::new(
                ErrorKind::CrossShard,
                "the aggregates of a write live on different shards: expected one shard",
            )
            .with_keys(keys));
        }
        plan.push(key, route.hash, expect, events.is_none()).map_err(|e| refused(e, key))?;
        add_part(&mut self.request, key, expect, events)
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
