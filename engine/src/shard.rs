//! A shard: an index, a log, the log writer, and the thread that prepares segments for it.

use std::fmt;
use std::io;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use crate::disk::{self, Disk, SyncMethod};
use crate::error::{Error, ErrorKind};
use crate::format::Identity;
use crate::id::ShardId;
use crate::index::{Index, SlotKey};
use crate::limits::WRITE_BYTES_MAX;
use crate::log::catalogue::{Catalogue, ShardFacts};
use crate::log::prepare::Preparer;
use crate::log::segment::Segment;
use crate::log::tail::Tail;
use crate::options::Options;
use crate::read::{Decided, ReadSide};
use crate::recover::{self, Mode};
use crate::reserve::slot_ref::SlotRef;
use crate::stats::{Counters, ShardStats};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::mailbox;
use crate::sync::thread::{self, Started};
use crate::writer::intake::Intake;
use crate::writer::{Ended, Links, LogWriter, Start};

/// See the module.
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) index: Arc<Index>,
    pub(crate) read: Arc<ReadSide>,
    pub(crate) links: Arc<Links>,
    threads: Mutex<Option<Threads>>,
    /// Taken while the shard closes: whoever comes second waits for the first.
    closing: Mutex<()>,
}

#[derive(Debug)]
struct Threads {
    writer: Started<Ended>,
    preparer: Started<Preparer>,
}

/// What a shard is opened with.
pub(crate) struct Opening<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    /// None for reading alone.
    pub(crate) lock: Option<&'a Arc<dyn disk::Lock>>,
    pub(crate) identity: &'a Identity,
    pub(crate) options: &'a Options,
    pub(crate) method: SyncMethod,
    pub(crate) wakers: &'a mailbox::Sender<Vec<Waker>>,
}

impl Shard {
    pub(crate) fn open(id: ShardId, opening: &Opening<'_>) -> Result<Shard, Error> {
        let Opening { disk, identity, options, .. } = opening;
        let index = Arc::new(Index::new(identity.hash_key));
        let mode = if opening.lock.is_some() { Mode::Write } else { Mode::Read };
        let recovered = recover::recover(&***disk, identity, id, mode, &index)?;
        for damage in &recovered.damage {
            tracing::warn!(shard = id.0, %damage, "the shard is damaged");
        }
        let segments = recovered.segments.iter();
        let segments =
            segments.map(|facts| Segment::sealed(facts.id, facts.salt, &facts.path, facts.end));
        let facts = ShardFacts {
            store: identity.store,
            shard: id,
            block_bytes: identity.block_bytes,
            disk: Arc::clone(disk),
            mapped: options.mapped,
        };
        let catalogue = Arc::new(Catalogue::new(facts, segments.collect(), recovered.end));
        let links = |waker| {
            Arc::new(Links {
                intake: Intake::new(
                    waker,
                    identity.block_bytes,
                    options.in_flight_bytes,
                    // Shards start in groups of their own, so that none wakes another's waiters.
                    (id.0 as u8).wrapping_mul(64),
                ),
                catalogue: Arc::clone(&catalogue),
                index: Arc::clone(&index),
                prepared: Mutex::new(None),
                closing: AtomicBool::new(false),
                counters: Counters::default(),
                rest: Mutex::new(Vec::new()),
            })
        };
        let Some(lock) = opening.lock else {
            let links = links(Arc::new(NoWriter));
            catalogue.following().end(Ok(()));
            links.intake.refuse(Error::new(
                ErrorKind::Stopped,
                "the store was opened read-only: open it for writing to append",
            ));
            return Ok(Shard::new(id, index, links, None));
        };
        let queue =
            disk.queue(lock, options.flush_window, opening.method).map_err(|error| match error
                .kind()
            {
                io::ErrorKind::Unsupported => Error::new(ErrorKind::Unsupported, error.to_string()),
                _ => Error::io("setting up the queue of flushes", error),
            })?;
        let links = links(queue.waker());
        let start = Start {
            store: identity.store,
            shard: id,
            block_bytes: identity.block_bytes,
            window: options.flush_window,
            capacity_blocks: capacity_blocks(identity),
            accepted: recovered.accepted,
            wakers: opening.wakers.clone(),
        };
        let tail = Tail::new(Arc::clone(&catalogue), identity.block_bytes, options.tail_bytes);
        let preparer = Preparer::new(Arc::clone(disk), identity, id, recovered.start);
        let writer = LogWriter::new(start, Arc::clone(&links), queue, tail);
        let spawned = |error| Error::io("starting a thread", error);
        let preparing = Arc::clone(&links);
        let capacity = capacity_blocks(identity);
        let preparer = thread::start(format!("annals-prepare-{id}"), move || {
            prepare(&preparing, preparer, capacity)
        })
        .map_err(spawned)?;
        let writer =
            thread::start(format!("annals-write-{id}"), move || writer.run()).map_err(|error| {
                links.intake.preparation.close();
                spawned(error)
            })?;
        Ok(Shard::new(id, index, links, Some(Threads { writer, preparer })))
    }

    fn new(id: ShardId, index: Arc<Index>, links: Arc<Links>, threads: Option<Threads>) -> Shard {
        let decided = Arc::clone(&links) as Arc<dyn Decided>;
        let read = ReadSide::new(Arc::clone(&links.catalogue), Arc::clone(&index), decided);
        Shard { id, index, read, links, threads: Mutex::new(threads), closing: Mutex::new(()) }
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, key: SlotKey<'_>) -> Option<SlotRef> {
        self.index.find(hash, key)
    }

    /// Waits for what was accepted, states the frontier, and cuts the log to what is used.
    pub(crate) fn close(&self) -> Result<(), Error> {
        // In a child the threads are not there, and a lock may be one that somebody held.
        self.links.intake.check_process()?;
        let _one_at_a_time = thread::hold(&self.closing);
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Threads { writer, preparer }) = threads else { return Ok(()) };
        self.links.closing.store(true, Ordering::Release);
        self.links.intake.wake_writer();
        let ended = writer.join();
        self.links.intake.preparation.close();
        let preparer = preparer.join();
        let (Ok(ended), Ok(mut preparer)) = (ended, preparer) else {
            return Err(Error::new(ErrorKind::Stopped, "a thread of the shard has panicked"));
        };
        let next = self.links.take_prepared();
        let finished = match &ended.failure {
            Some(why) => Err(why.clone()),
            None => {
                let active = ended.active.as_ref();
                let active = active.map(|(active, used)| (&*active.file, u64::from(*used)));
                preparer.finish(active, next)
            }
        };
        *self.links.rest.lock().unwrap_or_else(PoisonError::into_inner) = ended.rest;
        finished
    }

    pub(crate) fn stats(&self) -> ShardStats {
        let catalogue = &self.links.catalogue;
        ShardStats {
            segments: catalogue.segment_count() as u64,
            slots: self.index.len() as u64,
            index_bytes: self.index.memory_bytes() as u64,
            held_bytes: self.links.intake.permits().held_bytes(),
            end: catalogue.watermark(),
            stopped: self.links.intake.halted().map(ToString::to_string),
            ..self.links.counters.read()
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        if self.links.intake.check_process().is_err() {
            // They are the parent's: joining or letting go of them touches what is not there.
            mem::forget(self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).take());
            return;
        }
        if let Err(error) = self.close() {
            tracing::warn!(shard = self.id.0, %error, "the shard did not close cleanly");
        }
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("id", &self.id)
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}

/// The thread that prepares segments: one ahead of the log writer. If it panics, the shard stops.
fn prepare(links: &Links, mut preparer: Preparer, capacity_blocks: i64) -> Preparer {
    while let Some(wanted) = links.intake.preparation.next() {
        // Somewhat more, so that small writes that come first do not take what a large one waits for.
        let blocks = (wanted + wanted / 4).min(capacity_blocks);
        let attempt = AssertUnwindSafe(|| prepare_one(links, &mut preparer, blocks));
        if panic::catch_unwind(attempt).is_err() {
            links.intake.preparing_broke();
            break;
        }
    }
    preparer
}

/// Prepares a segment that holds so many blocks of records, and tells what came of it.
fn prepare_one(links: &Links, preparer: &mut Preparer, blocks: i64) {
    let block_bytes = links.catalogue.block_bytes();
    // One block more, for the last frontier.
    let bytes = (blocks as u64 + 1) * u64::from(block_bytes);
    let attempt = preparer.prepare(bytes);
    links.intake.attempted();
    let outcome = attempt.map(|prepared| {
        let whole = prepared.bytes - u64::from(prepared.header_bytes);
        let blocks = (whole / u64::from(block_bytes)) as i64 - 1;
        links.hand_over(prepared, blocks);
        blocks
    });
    let failure = outcome.as_ref().err().cloned();
    links.intake.prepared(outcome);
    // Those who wait have been told: who listens to what is said may panic.
    if let Some(error) = failure {
        tracing::warn!(shard = links.catalogue.shard().0, %error, "a segment could not be prepared");
    }
}

/// The most blocks of records that a segment of the store can hold: less its header, and one block for a frontier.
fn capacity_blocks(identity: &Identity) -> i64 {
    (identity.segment_bytes / u64::from(identity.block_bytes)) as i64 - 2
}

/// The largest write that the store takes, as it is stored.
pub(crate) fn write_bytes_max(identity: &Identity) -> usize {
    let flush = capacity_blocks(identity) as usize * identity.block_bytes as usize;
    WRITE_BYTES_MAX.min(flush - crate::format::FLUSH_HEADER_BYTES)
}

/// There is nobody to wake in a store that was opened for reading.
#[derive(Debug)]
struct NoWriter;

impl disk::Waker for NoWriter {
    fn wake(&self) {}
}
