//! tephra: an embedded event store with dynamic consistency boundaries, whose one writer thread commits in groups.

use std::{path::Path, sync::Arc};

use bench::store::{Key, Result, Setup, Store};
use futures::{
    executor::block_on,
    future::{BoxFuture, FutureExt},
};
use tephra::{
    AppendCondition, AppendError, Event, EventType, Position, Query, QueryItem, SegmentConfig,
    SegmentSet, Tag, Tags, WriteCoordinator, WriteHandle, WriterConfig,
};

use crate::boundary::{Boundary, BoundarySession, Tips, Written};

/// What tephra does before it acknowledges.
pub const ACKNOWLEDGES: &str = "its writer thread takes all waiting appends, checks their conditions (no event with the aggregate's tag after the position of the \
     version expected), writes them to a segment with its space allocated and syncs it with one fdatasync a group";

const SEGMENT_BYTES: usize = 256 << 20;

/// A tephra store.
#[derive(Debug)]
pub struct Tephra {
    coordinator: Coordinator,
    log: Log,
    tips: Arc<Tips>,
}

struct Coordinator(WriteCoordinator);

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator").finish_non_exhaustive()
    }
}

impl Store for Tephra {
    type Session = BoundarySession<Log>;

    fn open(dir: &Path, _: &Setup) -> Result<Self> {
        let set = SegmentSet::open(dir.join("tephra"), SegmentConfig::new(SEGMENT_BYTES))?;
        let (coordinator, handle) = WriteCoordinator::start(set, WriterConfig::default())?;
        let log = Log { handle, event_type: EventType::new("event")? };
        Ok(Tephra { coordinator: Coordinator(coordinator), log, tips: Arc::default() })
    }

    fn session(&self) -> Result<BoundarySession<Log>> {
        Ok(BoundarySession::new(self.log.clone(), Arc::clone(&self.tips)))
    }

    fn close(self) -> Result<()> {
        drop(self.coordinator.0.shutdown());
        Ok(())
    }
}

/// A way to the writer thread and to what it has published.
#[derive(Clone)]
pub struct Log {
    handle: WriteHandle,
    event_type: EventType,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

/// A key's tag: it is text already.
fn tags(key: &Key) -> Result<Tags> {
    Ok(Tags::new([Tag::new(std::str::from_utf8(key)?)?])?)
}

impl Boundary for Log {
    async fn head(&self) -> Result<u64> {
        Ok(self.handle.head().get())
    }

    async fn last(&self, key: Key, limit: usize) -> Result<Vec<(u64, Vec<u8>)>> {
        let query = Query::item(QueryItem::with_tags(tags(&key)?));
        let mut reads = self.handle.read_back(&query, Position::MAX, Some(limit as u64));
        let mut last = Vec::new();
        while let Some(read) = reads.next() {
            let read = read?;
            last.push((read.position.get(), read.event.data().to_vec()));
        }
        Ok(last)
    }

    fn all(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        let mut reads = self.handle.read(&Query::all(), Position::ZERO, None);
        while let Some(read) = reads.next() {
            each(read?.event.data());
        }
        Ok(())
    }

    async fn append(&self, events: Vec<Written>, after: u64) -> Result<Option<u64>> {
        let mut items = Vec::with_capacity(events.len());
        let mut encoded = Vec::with_capacity(events.len());
        for event in &events {
            let tags = tags(&event.key)?;
            encoded.push(Event::new(&self.event_type, &tags, &event.data)?);
            items.push(QueryItem::with_tags(tags));
        }
        let condition = AppendCondition::new(Query::items(items)).after(Position::new(after));
        match self.handle.append_async(encoded, Some(condition)).await {
            Ok(range) => Ok(Some(range.last.get())),
            Err(AppendError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The writer thread does the work; what is left runs in whoever waits.
    fn start<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        future.boxed()
    }

    fn wait<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        block_on(future)
    }
}
