//! A disk that calls every flush durable, whatever came of it: what the checks of histories must find out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use annals::internals::disk::{
    Access, Completion, Disk, Entry, File, Flush, Lock, Queue, SyncMethod, Waker, sim::SimDisk,
};

/// See the module.
#[derive(Debug)]
pub struct Lying(pub Arc<SimDisk>);

#[derive(Debug)]
struct LyingQueue(Box<dyn Queue>);

impl Disk for Lying {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.0.create_dir(dir)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.0.list(dir)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.0.create(path)
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        self.0.open(path, access)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.0.sync_dir(dir)
    }

    fn block_bytes(&self) -> u32 {
        self.0.block_bytes()
    }

    fn lock(&self) -> io::Result<Arc<dyn Lock>> {
        self.0.lock()
    }

    fn queue(
        &self,
        lock: &Arc<dyn Lock>,
        depth: usize,
        method: SyncMethod,
    ) -> io::Result<Box<dyn Queue>> {
        Ok(Box::new(LyingQueue(self.0.queue(lock, depth, method)?)))
    }

    fn probe(&self) -> io::Result<SyncMethod> {
        self.0.probe()
    }

    fn backend(&self) -> &'static str {
        self.0.backend()
    }
}

impl LyingQueue {
    fn call_durable(completed: &mut [Completion]) {
        for completion in completed {
            completion.result = Ok(());
        }
    }
}

impl Queue for LyingQueue {
    fn start(&mut self, flush: Flush) {
        self.0.start(flush);
    }

    fn poll(&mut self, completed: &mut Vec<Completion>) {
        self.0.poll(completed);
        LyingQueue::call_durable(completed);
    }

    fn wait(&mut self, limit: Option<Duration>, completed: &mut Vec<Completion>) {
        self.0.wait(limit, completed);
        LyingQueue::call_durable(completed);
    }

    fn waker(&self) -> Arc<dyn Waker> {
        self.0.waker()
    }
}
