//! Tickets, executions and winners on the executors that people use: thousands of tasks on few threads, some of which
//! are dropped on their way.

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use annals::{ErrorKind, Event, Expect, Options, Recorded, State, States, Store};
use common::{audit, directory, in_time, numbered};

const TASKS: u64 = 3000;
const AGGREGATES: u64 = 7;

/// How many events there are, and the number that is to come.
#[derive(Clone, Default)]
struct Counter(u64);

impl State for Counter {
    fn apply(&mut self, event: &Recorded) {
        let number = u64::from_le_bytes(event.data().try_into().unwrap());
        assert_eq!(number, self.0);
        self.0 += 1;
    }
}

/// What the tasks share.
struct Shared {
    store: Store,
    states: States<Counter>,
    /// Tasks that came to their end, and what they know to be stored.
    finished: AtomicU64,
    acknowledged: AtomicU64,
}

impl Shared {
    fn new(store: &Store) -> Arc<Shared> {
        Arc::new(Shared {
            store: store.clone(),
            states: store.states(AGGREGATES as usize),
            finished: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
        })
    }
}

fn step(counter: &Counter) -> Result<Vec<Event>, u64> {
    Ok(vec![numbered(counter.0)])
}

fn decline(counter: &Counter) -> Result<Vec<Event>, u64> {
    Err(counter.0)
}

/// One task: something to await, of each kind in turn.
async fn task(shared: Arc<Shared>, nth: u64) {
    let key = format!("counter-{}", nth % AGGREGATES);
    let own = format!("own-{nth}");
    let executor = shared.states.executor().attempts(u32::MAX);
    let acknowledged = match nth % 6 {
        0 => {
            shared.store.append(&own, Expect::Absent, [numbered(0)]).unwrap().await.unwrap();
            1
        }
        1 => {
            let (first, second) = (executor.execute(&key, step), executor.execute(&key, step));
            let second = second.await.unwrap().unwrap().unwrap();
            assert!(second.version() > first.await.unwrap().unwrap().unwrap().version());
            2
        }
        2 => {
            let seen = executor.execute(&key, decline).await.unwrap().unwrap_err();
            assert!(shared.store.version(&key).unwrap() >= seen, "told before it was durable");
            0
        }
        3 => {
            let both = |states: &[Counter]| {
                Ok::<_, u64>(vec![vec![numbered(states[0].0)], step(&states[1])?])
            };
            let done = executor.execute_all([&own, &key], both).await.unwrap().unwrap().unwrap();
            assert_eq!(done.version_of(&own), Some(1));
            1
        }
        4 => {
            let write = || executor.execute(&own, step);
            write().await.unwrap().unwrap();
            let lost = shared.store.append(&own, Expect::Absent, [numbered(9)]).unwrap_err();
            assert_eq!(lost.kind(), ErrorKind::Conflict);
            lost.winner().unwrap().await.unwrap();
            1
        }
        _ => {
            let retried = || shared.states.executor().client(nth.into(), 1).execute(&own, step);
            let (one, other) = (retried().await, retried().await);
            let (one, other) = (one.unwrap().unwrap().unwrap(), other.unwrap().unwrap().unwrap());
            assert!(other.is_replay() && other.position() == one.position());
            1
        }
    };
    shared.acknowledged.fetch_add(acknowledged, Ordering::Relaxed);
    shared.finished.fetch_add(1, Ordering::Relaxed);
}

/// Whether a task is dropped on its way, and after how many polls.
fn polls_before_drop(nth: u64) -> Option<u64> {
    let dice = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
    (dice < 4).then_some(dice / 2)
}

/// A future that is given up after so many polls.
struct Until<F> {
    future: Option<Pin<Box<F>>>,
    polls: Option<u64>,
}

impl<F: Future<Output = ()>> Future for Until<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.polls == Some(0) {
            self.future = None;
        }
        self.polls = self.polls.map(|polls| polls.saturating_sub(1));
        match &mut self.future {
            Some(future) => {
                let polled = future.as_mut().poll(context);
                if polled.is_pending() && self.polls == Some(0) {
                    // Nobody may wake it any more: it is polled once more, and dropped.
                    context.waker().wake_by_ref();
                }
                polled
            }
            None => Poll::Ready(()),
        }
    }
}

fn some_task(shared: &Arc<Shared>, nth: u64) -> Until<impl Future<Output = ()> + Send + use<>> {
    let future = Some(Box::pin(task(Arc::clone(shared), nth)));
    Until { future, polls: polls_before_drop(nth) }
}

/// Has an executor run all tasks, and compares what they were told with what is stored.
fn run_on(executor: impl FnOnce(Arc<Shared>) + Send + 'static) {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let shared = Shared::new(&store);
    let running = Arc::clone(&shared);
    in_time("all tasks", move || executor(running));
    let kept = (0..TASKS).filter(|nth| polls_before_drop(*nth).is_none()).count() as u64;
    let finished = shared.finished.load(Ordering::Relaxed);
    assert!((kept..TASKS).contains(&finished), "{finished} of {TASKS}, {kept} were kept");
    in_time("closing", {
        let store = store.clone();
        move || store.close()
    })
    .unwrap();
    let acknowledged = shared.acknowledged.load(Ordering::Relaxed);
    let stored = audit(&store).len() as u64;
    assert!(stored >= acknowledged && stored <= 2 * TASKS, "{stored}, told of {acknowledged}");
    drop((shared, store));
    let store = Options::new().open(dir.path()).unwrap();
    assert_eq!(audit(&store).len() as u64, stored);
    for nth in 0..AGGREGATES {
        let (counter, version) =
            store.read(format!("counter-{nth}")).into_state::<Counter>().unwrap();
        assert_eq!(counter.0, version);
    }
}

#[test]
fn on_tokio() {
    run_on(|shared| {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(async {
            let tasks: Vec<_> =
                (0..TASKS).map(|nth| tokio::spawn(some_task(&shared, nth))).collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
}

#[test]
fn on_one_thread_of_tokio_with_time_outs() {
    run_on(|shared| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        runtime.block_on(local.run_until(async {
            let tasks = (0..TASKS).map(|nth| {
                let limit = Duration::from_micros(200 * (nth % 10));
                let task = some_task(&shared, nth);
                tokio::task::spawn_local(async move {
                    if polls_before_drop(nth).is_some() {
                        let _time_is_over = tokio::time::timeout(limit, task).await;
                    } else {
                        task.await;
                    }
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
        }));
    });
}

#[test]
fn on_tokio_with_tasks_that_are_aborted() {
    run_on(|shared| {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(async {
            let mut tasks = Vec::new();
            for nth in 0..TASKS {
                let running = tokio::spawn(task(Arc::clone(&shared), nth));
                if polls_before_drop(nth).is_some() {
                    tokio::task::yield_now().await;
                    running.abort();
                }
                tasks.push(running);
            }
            for (task, nth) in tasks.into_iter().zip(0..) {
                let aborted =
                    task.await.is_err_and(|error| error.is_cancelled() || panic!("{error}"));
                assert!(!aborted || polls_before_drop(nth).is_some());
            }
        });
    });
}

#[test]
fn on_smol() {
    run_on(|shared| {
        let executor = smol::Executor::new();
        let (stop, stopped) = smol::channel::unbounded::<()>();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| smol::block_on(executor.run(stopped.recv())));
            }
            smol::block_on(async {
                let tasks: Vec<_> =
                    (0..TASKS).map(|nth| executor.spawn(some_task(&shared, nth))).collect();
                // A task of smol that is dropped is cancelled, wherever it is.
                for (task, nth) in tasks.into_iter().zip(0..) {
                    match polls_before_drop(nth) {
                        Some(_) => drop(task),
                        None => task.await,
                    }
                }
            });
            drop(stop);
        });
    });
}

/// A small executor: tasks that are ready stand in a queue, from which few threads take them.
struct Queued {
    running: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    ready: mpsc::Sender<Option<Arc<Queued>>>,
}

impl Wake for Queued {
    fn wake(self: Arc<Self>) {
        let ready = self.ready.clone();
        // Nobody listens when all is done.
        let _over = ready.send(Some(self));
    }
}

#[test]
fn on_an_executor_written_by_hand() {
    const THREADS: usize = 2;
    run_on(|shared| {
        let (ready, queue) = mpsc::channel();
        let queue = Mutex::new(queue);
        let left = AtomicU64::new(TASKS);
        for nth in 0..TASKS {
            let running = Mutex::new(Some(Box::pin(some_task(&shared, nth)) as Pin<Box<_>>));
            Arc::new(Queued { running, ready: ready.clone() }).wake();
        }
        let next = || queue.lock().unwrap().recv().unwrap();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while let Some(task) = next() {
                        let waker = Waker::from(Arc::clone(&task));
                        let mut running = task.running.lock().unwrap();
                        let Some(future) = running.as_mut() else { continue };
                        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                            *running = None;
                            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                                (0..THREADS).for_each(|_| ready.send(None).unwrap());
                            }
                        }
                    }
                });
            }
        });
    });
}
