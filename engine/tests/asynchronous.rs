//! Tickets as futures: on any executor, awaited, moved, or dropped at any moment.

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self};
use std::time::{Duration, Instant};

use annals::internals::disk::sim::{Order, SimDisk};
use annals::{Committed, Error, ErrorKind, Expect, Options, Store, Ticket};
use common::{LONG, audit, block_on, directory, event, in_time, numbered, open_sim, small};
use futures::executor::LocalPool;
use futures::stream::FuturesUnordered;
use futures::task::LocalSpawnExt;
use futures::{FutureExt, StreamExt};

/// Counts how often it is woken, and who holds it.
#[derive(Default)]
struct Bell {
    rings: Mutex<usize>,
    rung: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rings.lock().unwrap() += 1;
        self.rung.notify_all();
    }
}

impl Bell {
    fn rings(&self) -> usize {
        *self.rings.lock().unwrap()
    }

    fn wait(&self) {
        let rings = self.rings.lock().unwrap();
        let (rings, _) = self.rung.wait_timeout_while(rings, LONG, |rings| *rings == 0).unwrap();
        assert!(*rings > 0, "nobody rang");
    }
}

fn poll(ticket: &mut Ticket, bell: &Arc<Bell>) -> Poll<Result<Committed, Error>> {
    ticket.poll_unpin(&mut Context::from_waker(&Waker::from(Arc::clone(bell))))
}

/// Waits until something holds, and fails if it never does.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A store whose disk hangs until it is told to go on.
fn hanging() -> (Arc<SimDisk>, Store) {
    let disk = SimDisk::new(11);
    let store = open_sim(&small(), &disk).unwrap();
    store.append("warm", Expect::Any, [event("E")]).unwrap().wait().unwrap();
    disk.set_order(Order::Never);
    (disk, store)
}

#[test]
fn a_ticket_is_a_future_that_any_thread_may_own() {
    fn can_be_moved<T: Send + Sync + Unpin + 'static>() {}
    can_be_moved::<Ticket>();
    can_be_moved::<Committed>();
    can_be_moved::<Error>();
    can_be_moved::<Store>();
}

#[test]
fn a_ticket_is_awaited_on_the_smallest_executor() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    for version in 0..100 {
        let done = block_on(async {
            let ticket = store.append("a", Expect::Version(version), [event("E")])?;
            ticket.await
        });
        assert_eq!(done.unwrap().version(), version + 1);
    }
    let client = |sequence| {
        store.write().append("a", Expect::Any, [event("E")]).client(1, sequence).submit()
    };
    let first = block_on(async { client(7)?.await }).unwrap();
    let again = block_on(async { client(7)?.await }).unwrap();
    assert!(again.is_replay() && again.position() == first.position());
    let checked =
        block_on(store.write().check("a", Expect::Version(101)).submit().unwrap()).unwrap();
    assert_eq!(checked.version_of("a"), Some(101));
}

#[test]
fn an_answered_ticket_is_ready_at_the_first_poll_and_rings_for_nobody() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let mut ticket = store.append("a", Expect::Any, [event("E")]).unwrap();
    ticket.wait().unwrap();
    assert!(ticket.is_resolved());
    let bell = Arc::new(Bell::default());
    let Poll::Ready(Ok(done)) = poll(&mut ticket, &bell) else { panic!("not ready") };
    assert_eq!(done.version(), 1);
    thread::sleep(Duration::from_millis(20));
    assert_eq!((bell.rings(), Arc::strong_count(&bell)), (0, 1));
}

#[test]
fn the_task_that_polled_last_is_woken_once() {
    let (disk, store) = hanging();
    let mut ticket = store.append("a", Expect::Any, [event("E")]).unwrap();
    let bells: Vec<Arc<Bell>> = (0..3).map(|_| Arc::default()).collect();
    for bell in [0, 0, 1, 0, 1, 2, 2].map(|number| &bells[number]) {
        assert!(poll(&mut ticket, bell).is_pending());
    }
    // The tasks that handed the ticket on are held no longer.
    assert_eq!((Arc::strong_count(&bells[0]), Arc::strong_count(&bells[1])), (1, 1));
    assert!(!ticket.is_resolved());
    disk.set_order(Order::Fifo);
    bells[2].wait();
    assert_eq!(bells.iter().map(|bell| bell.rings()).collect::<Vec<_>>(), [0, 0, 1]);
    let Poll::Ready(Ok(done)) = poll(&mut ticket, &bells[2]) else {
        panic!("woken, and not ready")
    };
    assert_eq!(done.version(), 1);
    eventually("the last waker is let go", || Arc::strong_count(&bells[2]) == 1);
}

#[test]
fn a_ticket_is_waited_for_and_awaited_in_turn() {
    let (disk, store) = hanging();
    let mut ticket = store.append("a", Expect::Any, [event("E")]).unwrap();
    let bell = Arc::new(Bell::default());
    assert!(poll(&mut ticket, &bell).is_pending());
    let early = ticket.wait_timeout(Duration::from_millis(10)).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::OutcomeUnknown);
    disk.set_order(Order::Fifo);
    bell.wait();
    assert_eq!(ticket.wait().unwrap().version(), 1);
    assert_eq!(block_on(ticket).unwrap().version(), 1);
}

/// Everything that can happen to a ticket; whether its answer was seen.
fn treat(ticket: Result<Ticket, Error>, how: usize, bell: &Arc<Bell>) -> bool {
    let mut ticket = ticket.unwrap();
    match how {
        0 => drop(ticket),
        1 => return poll(&mut ticket, bell).is_ready(),
        2 => {
            // On another thread, where it is dropped.
            let bell = Arc::clone(bell);
            thread::spawn(move || poll(&mut ticket, &bell).is_ready()).join().unwrap();
        }
        3 => {
            let deadline = Instant::now() + Duration::from_micros(50);
            while Instant::now() < deadline {
                if poll(&mut ticket, bell).is_ready() {
                    return true;
                }
            }
        }
        4 => drop(ticket.wait_timeout(Duration::from_micros(100))),
        5 => {
            // Given up by the other branch of a choice.
            let first = futures::future::select(ticket, futures::future::ready(()));
            return matches!(block_on(first), futures::future::Either::Left(_));
        }
        6 => {
            ticket.wait().unwrap();
            return poll(&mut ticket, bell).is_ready();
        }
        _ => drop(block_on(ticket).unwrap()),
    }
    false
}

#[test]
fn a_ticket_may_be_dropped_at_any_moment_and_the_write_lands() {
    const ROUNDS: usize = 250;
    const WAYS: usize = 8;
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let bell = Arc::new(Bell::default());
    for round in 0..ROUNDS {
        for how in 0..WAYS {
            let at = Expect::Version(round as u64);
            treat(store.append(format!("plain-{how}"), at, [event("E")]), how, &bell);
            let write = || {
                let write = store.write().append(format!("one-{how}"), at, [event("E")]);
                write
                    .append(format!("two-{how}"), at, [event("E")])
                    .client(how as u128, round as u64)
            };
            treat(write().submit(), how, &bell);
            treat(write().submit(), (how + 3) % WAYS, &bell);
            treat(store.write().check(format!("two-{how}"), Expect::Exists).submit(), how, &bell);
        }
    }
    store.write().check("plain-0", Expect::Exists).submit().unwrap().wait().unwrap();
    for how in 0..WAYS {
        for key in ["plain", "one", "two"] {
            assert_eq!(store.version(format!("{key}-{how}")).unwrap(), ROUNDS as u64);
        }
    }
    assert_eq!(audit(&store).len(), 2 * WAYS * ROUNDS);
    eventually("no task is held", || Arc::strong_count(&bell) == 1);
}

#[test]
fn a_leaked_ticket_keeps_nothing_from_closing() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let bell = Arc::new(Bell::default());
    for number in 0..100 {
        let mut ticket = store.append("a", Expect::Version(number), [event("E")]).unwrap();
        let _pending_or_not = poll(&mut ticket, &bell);
        std::mem::forget(ticket);
    }
    in_time("closing", move || store.close().unwrap());
    assert_eq!(Store::open(dir.path()).unwrap().version("a").unwrap(), 100);
}

#[test]
fn tickets_outlive_their_store() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let write =
        || store.write().append("b", Expect::Any, [event("E")]).client(1, 1).submit().unwrap();
    let tickets: Vec<Ticket> = (0..50)
        .map(|version| store.append("a", Expect::Version(version), [event("E")]).unwrap())
        .collect();
    let (original, replay) = (write(), write());
    drop(store);
    let versions = block_on(futures::future::join_all(tickets)).into_iter();
    assert!(versions.map(|done| done.unwrap().version()).eq(1..=50));
    assert_eq!(block_on(replay).unwrap().position(), block_on(original).unwrap().position());
    // The replay kept its shard, and not the lock.
    assert_eq!(Store::open(dir.path()).unwrap().version("b").unwrap(), 1);
}

#[test]
fn tasks_that_wait_when_the_store_is_closed_are_answered() {
    let (disk, store) = hanging();
    let bell = Arc::new(Bell::default());
    let mut tickets: Vec<Ticket> = (0..200)
        .map(|version| store.append("a", Expect::Version(version), [event("E")]).unwrap())
        .collect();
    assert!(tickets.iter_mut().all(|ticket| poll(ticket, &bell).is_pending()));
    let closing = thread::spawn({
        let store = store.clone();
        move || store.close()
    });
    thread::sleep(Duration::from_millis(20));
    assert!(!closing.is_finished(), "closed before what was accepted is durable");
    disk.set_order(Order::Random);
    in_time("closing", move || closing.join().unwrap().unwrap());
    eventually("all tasks are woken", || bell.rings() == 200);
    assert!(tickets.iter_mut().all(|ticket| matches!(poll(ticket, &bell), Poll::Ready(Ok(_)))));
    let late = store.append("a", Expect::Any, [event("E")]).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Closed);
}

/// What foreign code does in a waker.
struct Foreign<F: Fn() + Send + Sync>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Foreign<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

/// Appends, and has something called when it is durable.
fn when_durable(store: &Store, run: impl Fn() + Send + Sync + 'static) {
    let mut ticket = store.append("called", Expect::Any, [event("E")]).unwrap();
    let waker = Waker::from(Arc::new(Foreign(run)));
    assert!(ticket.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
}

#[test]
fn a_waker_that_panics_or_hangs_or_appends_harms_nobody() {
    let (disk, store) = hanging();
    let (appended, was_appended) = mpsc::channel();
    let go_on = common::Gate::default();
    when_durable(&store, || std::panic::panic_any("a waker panics"));
    when_durable(&store, {
        let store = store.clone();
        move || {
            // What it waits for is written meanwhile.
            let done =
                store.append("by the waker", Expect::Absent, [event("E")]).unwrap().wait().unwrap();
            appended.send(done.version()).unwrap();
        }
    });
    when_durable(&store, {
        let go_on = go_on.clone();
        move || go_on.wait()
    });
    disk.set_order(Order::Fifo);
    assert_eq!(was_appended.recv_timeout(LONG), Ok(1));
    // The hanging one holds up neither appends nor threads that wait.
    for version in 0..20 {
        let ticket = store.append("a", Expect::Version(version), [event("E")]).unwrap();
        assert_eq!(ticket.wait_timeout(LONG).unwrap().version(), version + 1);
    }
    let mut late = store.append("late", Expect::Any, [event("E")]).unwrap();
    let bell = Arc::new(Bell::default());
    if poll(&mut late, &bell).is_pending() {
        go_on.open();
        bell.wait();
    }
    go_on.open();
    assert_eq!(block_on(late).unwrap().version(), 1);
    in_time("closing", move || store.close().unwrap());
}

#[test]
fn the_last_handle_may_be_dropped_by_a_waker() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let (dropped, was_dropped) = mpsc::channel();
    let last = Mutex::new(Some(store.clone()));
    let mut ticket = store.append("a", Expect::Any, [event("E")]).unwrap();
    drop(store);
    let drop_last = move || {
        drop(last.lock().unwrap().take());
        dropped.send(()).unwrap();
    };
    let waker = Waker::from(Arc::new(Foreign(drop_last)));
    if ticket.poll_unpin(&mut Context::from_waker(&waker)).is_ready() {
        waker.wake();
    }
    was_dropped.recv_timeout(LONG).unwrap();
    assert_eq!(block_on(ticket).unwrap().version(), 1);
    // The lock is let go.
    assert_eq!(Store::open(dir.path()).unwrap().version("a").unwrap(), 1);
}

/// A small executor of several threads: a task is polled by whichever comes first.
mod pool {
    use super::*;

    type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

    struct Task {
        work: Mutex<Option<Work>>,
        ready: mpsc::Sender<Arc<Task>>,
    }

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            let ready = self.ready.clone();
            // Nobody listens when the pool is over.
            let _over = ready.send(self);
        }
    }

    /// Runs all of them to their end.
    pub(super) fn run(threads: usize, works: Vec<Work>) {
        let (ready, tasks) = mpsc::channel::<Arc<Task>>();
        let (left, tasks) = (AtomicUsize::new(works.len()), Mutex::new(tasks));
        for work in works {
            Arc::new(Task { work: Mutex::new(Some(work)), ready: ready.clone() }).wake();
        }
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while left.load(Ordering::Acquire) > 0 {
                        let task = tasks.lock().unwrap().recv_timeout(Duration::from_millis(10));
                        let Ok(task) = task else { continue };
                        let waker = Waker::from(Arc::clone(&task));
                        let mut work = task.work.lock().unwrap();
                        let Some(running) = work.as_mut() else { continue };
                        if running.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                            *work = None;
                            left.fetch_sub(1, Ordering::Release);
                        }
                    }
                });
            }
        });
    }
}

/// Appends to one of a few aggregates, on the version that it has been told; what it appended is numbered.
async fn append_in_turn(store: Store, key: String, number: u64, conflicts: Arc<AtomicUsize>) {
    let mut expected = 0;
    loop {
        match store.append(&key, Expect::Version(expected), [numbered(number)]) {
            Ok(ticket) => {
                assert_eq!(ticket.await.unwrap().version(), expected + 1);
                return;
            }
            Err(error) => {
                conflicts.fetch_add(1, Ordering::Relaxed);
                expected = error.actual().unwrap();
            }
        }
    }
}

#[test]
fn many_tasks_on_many_threads_append_each_once() {
    const TASKS: u64 = 4_000;
    let dir = directory();
    let store = Options::new().open(dir.path()).unwrap();
    let conflicts = Arc::new(AtomicUsize::new(0));
    let works = (0..TASKS).map(|number| {
        let key = format!("shared-{}", number % 8);
        let work = append_in_turn(store.clone(), key, number, Arc::clone(&conflicts));
        Box::pin(work) as Pin<Box<dyn Future<Output = ()> + Send>>
    });
    let works = works.collect();
    in_time("many tasks", move || pool::run(4, works));
    assert!(conflicts.load(Ordering::Relaxed) > 0);
    let mut numbers: Vec<_> = audit(&store).iter().map(common::Logged::number).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..TASKS));
}

#[test]
fn many_tasks_on_one_thread_append_in_turn() {
    let dir = directory();
    let store = Options::new().shards(2).open(dir.path()).unwrap();
    let mut pool = LocalPool::new();
    for task in 0..500u64 {
        let store = store.clone();
        let work = async move {
            for version in 0..6 {
                let own = store
                    .append(format!("own-{task}"), Expect::Version(version), [event("E")])
                    .unwrap();
                assert_eq!(own.await.unwrap().version(), version + 1);
            }
        };
        pool.spawner().spawn_local(work).unwrap();
    }
    pool.run();
    assert_eq!(store.log(0).count() + store.log(1).count(), 3_000);
}

#[test]
fn tickets_of_a_pipeline_are_answered_in_any_order_they_are_asked_in() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let mut tickets: FuturesUnordered<_> = (0..5_000)
        .map(|version| store.append("a", Expect::Version(version), [event("E")]).unwrap())
        .collect();
    let mut versions = block_on(async {
        let mut versions = Vec::new();
        while let Some(done) = tickets.next().await {
            versions.push(done.unwrap().version());
        }
        versions
    });
    versions.sort_unstable();
    assert!(versions.into_iter().eq(1..=5_000));
}
