//! The store: shards behind one handle.

use std::fmt;
use std::io;
use std::panic;
use std::path::Path;
use std::sync::Arc;
use std::task::Waker;

use crate::append::{Target, Write};
use crate::disk::{self, Disk, Opening, QueueKind, SyncMethod, Trust};
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Payload};
use crate::execute::{Execution, Executor, State, States};
use crate::expect::Expect;
use crate::format::{Identity, SyncChoice};
use crate::id::{Position, ShardId};
use crate::identity_file;
use crate::index::{SlotKey, shard_of};
use crate::key;
use crate::limits;
use crate::options::{Backend, Durability, Options};
use crate::read::{LogRead, Read, ReadSide, Snapshot};
use crate::reserve::slot_ref::SlotRef;
use crate::shard::{self, Shard};
use crate::stats::Stats;
use crate::sync::{mailbox, thread, waker};
use crate::ticket::Ticket;
use crate::writer::intake::Patience;

/// An event store in a directory.
///
/// A handle is cheap to clone and can be used from any thread. When the last one is dropped, or at
/// [`close`](Store::close), everything that was accepted is written before the lock is let go. Dropping waits for that:
/// an asynchronous program closes the store where it may block.
///
/// A handle belongs to the process that opened it: a child made by `fork` is told [`Forked`](crate::ErrorKind::Forked) by
/// whatever it calls, and its end disturbs nothing. Nothing here may be called in a signal handler, which may have
/// interrupted the allocator; let a thread do it.
#[derive(Clone)]
pub struct Store(Arc<Opened>);

struct Opened {
    shards: Vec<Arc<Shard>>,
    identity: Identity,
    method: SyncMethod,
    backend: &'static str,
    disk: Arc<dyn Disk>,
    /// Let go last.
    _lock: Option<Arc<dyn disk::Lock>>,
}

/// Where a key belongs.
pub(crate) struct Route {
    pub(crate) hash: u64,
    pub(crate) shard: usize,
}

/// What a store takes at most. Made by [`Store::limits`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// The longest key, and the longest name of a checkpoint, in bytes.
    pub key_bytes: usize,
    /// The longest event type, in bytes.
    pub event_type_bytes: usize,
    /// The most events in one write.
    pub events_per_write: usize,
    /// The most aggregates in one write, its checkpoints included.
    pub aggregates_per_write: usize,
    /// The largest write as it is stored, in bytes: keys, events and about 100 bytes for each write, 48 for each
    /// aggregate and 16 for each event.
    pub write_bytes: usize,
}

impl Options {
    /// Opens the store in a directory, and creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// `Locked` if somebody else holds it for writing; `Corrupt`, `Unsupported`, `Io` for what is found there;
    /// `Invalid` if an option contradicts what is stored.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Store, Error> {
        self.check()?;
        let path = path.as_ref();
        let opening = match (self.read_only, self.create) {
            (true, _) => Opening::ReadOnly,
            (false, true) => Opening::Create,
            (false, false) => Opening::Existing,
        };
        let queue = match self.backend {
            Backend::Auto => QueueKind::Auto,
            Backend::Uring => QueueKind::Uring,
            Backend::Blocking => QueueKind::Blocking,
        };
        let trust = if self.world_writable { Trust::Anyone } else { Trust::Owner };
        let disk = disk::open_trusting(path, opening, queue, trust)
            .map_err(|error| identity_file::open_disk_error(path, error))?;
        self.open_on(disk)
    }

    /// Opens the store on a disk.
    pub(crate) fn open_on(&self, disk: Arc<dyn Disk>) -> Result<Store, Error> {
        if !self.create {
            identity_file::expect_store(&*disk)?;
        }
        let lock = if self.read_only { None } else { Some(lock(&*disk)?) };
        let identity = identity_file::open_or_create(&*disk, self)?;
        let method = match (self.durability, identity.sync) {
            (Some(Durability::WriteDsync), _) | (None, SyncChoice::WriteDsync) => {
                SyncMethod::WriteDsync
            }
            (Some(Durability::WriteThenSync), _) | (None, SyncChoice::WriteThenSync) => {
                SyncMethod::WriteThenSync
            }
        };
        let (wakers, woken) = mailbox::channel();
        let opening = shard::Opening {
            disk: &disk,
            lock: lock.as_ref(),
            identity: &identity,
            options: self,
            method,
            wakers: &wakers,
        };
        let shards = open_shards(&opening, identity.shards)?;
        if !self.read_only {
            thread::start("annals-wake".into(), move || call_wakers(&woken))
                .map_err(|error| Error::io("starting a thread", error))?;
        }
        let backend = if self.read_only { "none" } else { disk.backend() };
        Ok(Store(Arc::new(Opened { shards, identity, method, backend, disk, _lock: lock })))
    }
}

fn lock(disk: &dyn Disk) -> Result<Arc<dyn disk::Lock>, Error> {
    disk.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::new(
            ErrorKind::Locked,
            "the store is open for writing elsewhere, in this process or another: close it there, or open it read-only",
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Error::io("locking the store for writing (opening it read-only may do)", error)
        }
        _ => Error::io("locking the store", error),
    })
}

impl Drop for Opened {
    fn drop(&mut self) {
        // A ticket may keep a shard alive; its threads end here all the same.
        for shard in &self.shards {
            if let Err(error) = shard.close()
                && error.kind() != ErrorKind::Forked
            {
                tracing::warn!(shard = shard.id.0, %error, "the shard did not close cleanly");
            }
        }
    }
}

/// Opens all shards, as many at a time as there are processors.
fn open_shards(opening: &shard::Opening<'_>, count: u16) -> Result<Vec<Arc<Shard>>, Error> {
    let at_once = thread::parallelism().min(usize::from(count));
    let next = crate::sync::atomic::AtomicU16::new(0);
    let open_some = || -> Result<Vec<_>, Error> {
        let mut opened = Vec::new();
        loop {
            let id = next.fetch_add(1, crate::sync::atomic::Ordering::Relaxed);
            if id >= count {
                return Ok(opened);
            }
            opened.push(Arc::new(Shard::open(ShardId(id), opening)?));
        }
    };
    let mut shards = Vec::with_capacity(count.into());
    thread::scope(|scope| {
        let helpers: Vec<_> = (1..at_once).map(|_| scope.spawn(open_some)).collect();
        shards.extend(open_some()?);
        for helper in helpers {
            match helper.join() {
                Ok(opened) => shards.extend(opened?),
                Err(panic) => panic::resume_unwind(panic),
            }
        }
        Ok::<_, Error>(())
    })?;
    shards.sort_by_key(|shard| shard.id);
    Ok(shards)
}

/// The thread on which wakers of tasks are called: they are foreign code. It ends with the store.
fn call_wakers(woken: &mailbox::Receiver<Vec<Waker>>) {
    while let Some(wakers) = woken.next() {
        waker::call(wakers);
    }
}

impl Store {
    /// Opens the store in a directory with the default options, and creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Store, Error> {
        Options::new().open(path)
    }

    /// Appends events to an aggregate, on a condition: one write, one version.
    ///
    /// On return the write is decided. If it is accepted, its ticket resolves when it is durable. Waits while limits on
    /// work in flight are reached and somebody works on it.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::ErrorKind::Conflict) or [`NotFound`](crate::ErrorKind::NotFound) if the condition does not
    /// hold, told without waiting for the disk; see [`ErrorKind`](crate::ErrorKind) for the others. After any error,
    /// nothing of the write is readable, now or after a crash.
    pub fn append(
        &self,
        key: impl AsRef<[u8]>,
        expect: Expect,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<Ticket, Error> {
        self.append_with(key.as_ref(), None, expect, &mut events.into_iter(), Patience::Wait)
    }

    /// As [`append`](Store::append), but says [`Busy`](crate::ErrorKind::Busy) or
    /// [`Full`](crate::ErrorKind::Full) instead of waiting.
    pub fn try_append(
        &self,
        key: impl AsRef<[u8]>,
        expect: Expect,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<Ticket, Error> {
        self.append_with(key.as_ref(), None, expect, &mut events.into_iter(), Patience::Refuse)
    }

    fn append_with(
        &self,
        key: &[u8],
        slot: Option<SlotRef>,
        expect: Expect,
        events: &mut dyn Iterator<Item = Event>,
        patience: Patience,
    ) -> Result<Ticket, Error> {
        key::check(key)?;
        let route = self.route(key);
        let target = Target { key, hash: route.hash, slot, looked: false };
        let shard = &self.0.shards[route.shard];
        shard.append(&target, expect, events, self.write_bytes_max(), patience)
    }

    /// Begins a write to several aggregates.
    pub fn write(&self) -> Write {
        Write::new(self.clone())
    }

    /// Reads an aggregate as it is durable now.
    pub fn read(&self, key: impl AsRef<[u8]>) -> Read {
        let key = key.as_ref();
        match key::check(key) {
            Ok(()) => self.0.shards[self.route(key).shard].read.read(key),
            Err(error) => Read::failed(error),
        }
    }

    /// Reads everything on a shard, in the order of its log, as it is durable now.
    pub fn log(&self, shard: u16) -> LogRead {
        match self.0.shards.get(usize::from(shard)) {
            Some(shard) => shard.read.log(),
            None => LogRead::failed(self.no_shard(shard)),
        }
    }

    /// The durable version of an aggregate; 0 if it does not exist.
    ///
    /// # Errors
    ///
    /// `Invalid` or `TooLarge` for the key; `Io` or `Corrupt` if its newest record can't be read.
    pub fn version(&self, key: impl AsRef<[u8]>) -> Result<u64, Error> {
        let key = key.as_ref();
        key::check(key)?;
        self.0.shards[self.route(key).shard].read.version(key)
    }

    /// The version of an aggregate, writes included that are decided and not yet durable; 0 if it does not exist. Right
    /// for deciding the next write, wrong for answering anybody outside: see [`Read::accepted`].
    ///
    /// # Errors
    ///
    /// `Invalid` or `TooLarge` for the key; `Stopped` if the shard has failed before such a write was durable.
    pub fn version_accepted(&self, key: impl AsRef<[u8]>) -> Result<u64, Error> {
        let key = key.as_ref();
        key::check(key)?;
        let route = self.route(key);
        let shard = &self.0.shards[route.shard];
        match shard.find(route.hash, SlotKey::Aggregate(key)) {
            Some(slot) => shard.version_accepted(slot),
            None => shard.read.check_process().map(|()| 0),
        }
    }

    /// Decides on an aggregate: folds its events into a state, calls `decide`, and appends what that returns on the
    /// version that it saw. If another writer comes in between, folds what is new and decides again, 64 times at most.
    ///
    /// The state includes writes that are accepted and not yet durable, so this waits for no flush, and one thread can
    /// keep many executions of one aggregate in flight. As [`append`](Store::append) it waits while limits on work in
    /// flight are reached, and it reads old events from wherever they are. `decide` runs on this thread, before this
    /// returns; it may be called several times. What it returned is told by the [`Execution`], once it is durable: also
    /// a refusal and a decision on no events, which may rest on writes that are not durable yet.
    ///
    /// Errors are told by the [`Execution`] as well.
    ///
    /// ```
    /// use annals::{Event, Recorded, State, Store};
    /// # let dir = tempfile::tempdir_in("/var/tmp")?;
    /// # let store = Store::open(dir.path())?;
    ///
    /// #[derive(Default)]
    /// struct Stock(u64);
    ///
    /// impl State for Stock {
    ///     fn apply(&mut self, event: &Recorded) {
    ///         match event.event_type() {
    ///             "Stored" => self.0 += 1,
    ///             _ => self.0 -= 1,
    ///         }
    ///     }
    /// }
    ///
    /// store.append("shelf-1", annals::Expect::Any, [Event::new("Stored", "")])?;
    /// let take = || {
    ///     store.execute("shelf-1", |stock: &Stock| match stock.0 {
    ///         0 => Err("nothing left"),
    ///         _ => Ok(vec![Event::new("Taken", "")]),
    ///     })
    /// };
    /// let (first, second) = (take(), take());
    /// assert_eq!(first.wait()?.expect("there was one").map(|committed| committed.version()), Some(2));
    /// assert_eq!(second.wait()?.unwrap_err(), "nothing left");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn execute<S: State, R>(
        &self,
        key: impl AsRef<[u8]>,
        decide: impl FnMut(&S) -> Result<Vec<Event>, R>,
    ) -> Execution<R> {
        self.executor().execute(key, decide)
    }

    /// Decides on several aggregates of one shard: all states in, in the order of the keys, and events for each out,
    /// which are written together or not at all. The states were all true at one moment. An aggregate for which there are
    /// no events is only checked: it is still at the version that was seen. If there are no events at all, or no lists, that is
    /// a decision on none.
    ///
    /// Otherwise as [`execute`](Store::execute). The execution fails with [`CrossShard`](crate::ErrorKind::CrossShard) if
    /// the aggregates live on different shards, and with [`Invalid`](crate::ErrorKind::Invalid) if there is none, if one
    /// appears twice, or if there are lists, and more or fewer than keys.
    pub fn execute_all<S: State, R>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<[u8]>>,
        decide: impl FnMut(&[S]) -> Result<Vec<Vec<Event>>, R>,
    ) -> Execution<R> {
        self.executor().execute_all(keys, decide)
    }

    /// Executions with another limit on attempts, or of a client whose retries are safe. The type of the state is named
    /// here: `store.executor::<Stock>().client(7, 1).execute("shelf-1", …)`.
    pub fn executor<S: State>(&self) -> Executor<'_, S> {
        Executor::new(self)
    }

    /// Executions that keep the states of so many aggregates, so that a busy one is not folded from its start each
    /// time. To be made once for a type of state, and cloned. The number is rounded up, to four times a power of two.
    pub fn states<S>(&self, aggregates: usize) -> States<S>
    where
        S: State + Clone + Send + Sync + 'static,
    {
        States::new(self.clone(), aggregates)
    }

    /// Where a [checkpoint](Write::checkpoint) durably stands; [`Position::START`] if there is none.
    ///
    /// # Errors
    ///
    /// `Invalid` or `TooLarge` for the name; `Io` or `Corrupt` if the record that moved it can't be read.
    pub fn checkpoint(&self, name: impl AsRef<[u8]>) -> Result<Position, Error> {
        let name = name.as_ref();
        key::check_name(name)?;
        self.0.shards[self.route(name).shard].read.checkpoint(name)
    }

    /// Saves a snapshot of an aggregate: bytes that stand for all its events up to a version. The one that was saved last
    /// is the one that [`load_snapshot`](Store::load_snapshot) returns, whatever its version.
    ///
    /// It is no event and adds no version: reads do not show it, and no condition notices it. The ticket resolves when it
    /// is durable; it follows in the log on all versions that it stands for. As a write it waits while limits on work in
    /// flight are reached, and is at most as large as one.
    ///
    /// ```
    /// use annals::{Event, Expect, Store};
    /// # let dir = tempfile::tempdir_in("/var/tmp")?;
    /// # let store = Store::open(dir.path())?;
    ///
    /// store.append("account-1", Expect::Absent, [Event::new("Deposited", "100")])?.wait()?;
    /// store.append("account-1", Expect::Version(1), [Event::new("Withdrawn", "30")])?.wait()?;
    /// store.save_snapshot("account-1", 2, "70")?.wait()?;
    ///
    /// let snapshot = store.load_snapshot("account-1")?.expect("one was saved");
    /// assert_eq!((snapshot.version(), snapshot.bytes()), (2, "70".as_bytes()));
    /// assert_eq!(store.version("account-1")?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) if the aggregate does not exist; `Invalid` for version 0 and for one that
    /// the aggregate has not reached, where accepted writes count that are not yet durable; `TooLarge`; and as
    /// [`append`](Store::append) where the shard takes no writes.
    pub fn save_snapshot(
        &self,
        key: impl AsRef<[u8]>,
        version: u64,
        bytes: impl Into<Payload>,
    ) -> Result<Ticket, Error> {
        let key = key.as_ref();
        key::check(key)?;
        let route = self.route(key);
        let target = Target { key, hash: route.hash, slot: None, looked: false };
        let shard = &self.0.shards[route.shard];
        let bytes_max = self.write_bytes_max();
        shard.save_snapshot(&target, version, bytes.into(), bytes_max, Patience::Wait)
    }

    /// The snapshot of an aggregate that was saved last, as far as is durable now; `None` if there is none.
    ///
    /// # Errors
    ///
    /// `Invalid` or `TooLarge` for the key; `Io` or `Corrupt` if its record can't be read.
    pub fn load_snapshot(&self, key: impl AsRef<[u8]>) -> Result<Option<Snapshot>, Error> {
        let key = key.as_ref();
        key::check(key)?;
        self.0.shards[self.route(key).shard].read.snapshot(key)
    }

    /// How many shards the store has.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.0.identity.shards
    }

    /// The shard that an aggregate lives on.
    #[must_use]
    pub fn shard_of(&self, key: impl AsRef<[u8]>) -> u16 {
        self.route(key.as_ref()).shard as u16
    }

    /// What the store takes at most.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            key_bytes: limits::KEY_BYTES_MAX,
            event_type_bytes: limits::EVENT_TYPE_BYTES_MAX,
            events_per_write: limits::EVENTS_PER_WRITE_MAX,
            aggregates_per_write: limits::AGGREGATES_PER_WRITE_MAX,
            write_bytes: self.write_bytes_max(),
        }
    }

    /// What the store has done since it was opened, and what it holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            backend: self.0.backend,
            durability: match self.0.method {
                SyncMethod::WriteDsync => "write-dsync",
                SyncMethod::WriteThenSync => "write-then-sync",
            },
            block_bytes: self.0.identity.block_bytes,
            segment_bytes: self.0.identity.segment_bytes,
            shards: self.0.shards.iter().map(|shard| shard.stats()).collect(),
        }
    }

    /// Waits until everything accepted is durable, and takes no more writes. Reads go on. Other handles find the
    /// store closed. Closing again does nothing.
    ///
    /// # Errors
    ///
    /// `Forked` in a child of the process that opened the store; `Stopped` if a shard had stopped; `Io` if the log could not be cut to its used size (nothing is lost by it).
    pub fn close(&self) -> Result<(), Error> {
        let mut first = Ok(());
        for shard in &self.0.shards {
            first = first.and(shard.close());
        }
        first
    }

    pub(crate) fn route(&self, key: &[u8]) -> Route {
        let identity = &self.0.identity;
        let hash = SlotKey::Aggregate(key).hash(identity.hash_key);
        if identity.shards == 1 {
            return Route { hash, shard: 0 };
        }
        let by =
            identity.route.and_then(|separator| key.iter().position(|byte| *byte == separator));
        let routing = match by {
            Some(end) => SlotKey::Aggregate(&key[..end]).hash(identity.hash_key),
            None => hash,
        };
        Route { hash, shard: shard_of(routing, identity.shards).into() }
    }

    /// Where the slot of a key or a name belongs.
    pub(crate) fn route_of(&self, slot: SlotKey<'_>, key: &[u8]) -> Route {
        let route = self.route(key);
        match slot {
            SlotKey::Aggregate(_) => route,
            _ => Route { hash: slot.hash(self.0.identity.hash_key), ..route },
        }
    }

    pub(crate) fn all_shards(&self) -> &[Arc<Shard>] {
        &self.0.shards
    }

    pub(crate) fn shard(&self, number: usize) -> Option<&Arc<Shard>> {
        self.0.shards.get(number)
    }

    /// The error for a shard that there is not.
    pub(crate) fn no_shard(&self, shard: u16) -> Error {
        Error::invalid(format!(
            "there is no shard {shard}: the store has {}, counted from 0",
            self.shards()
        ))
    }

    /// What reads of each shard start from, in the order of their numbers.
    pub(crate) fn sides(&self) -> impl Iterator<Item = &Arc<ReadSide>> {
        self.0.shards.iter().map(|shard| &shard.read)
    }

    pub(crate) fn write_bytes_max(&self) -> usize {
        shard::write_bytes_max(&self.0.identity)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("disk", &self.0.disk)
            .field("shards", &self.shards())
            .finish_non_exhaustive()
    }
}
