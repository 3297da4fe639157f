//! Many clients, each with aggregates of its own, each waiting for its write before it begins the next: threads, and tasks.
//!
//! The tasks run on two threads. Each of them polls its half of the tasks itself (`FuturesUnordered` under `block_on` of the `futures`
//! crate): the least that an executor can do. A store that can only wait keeps a whole thread waiting with every task's write.
//!
//! An operation is a conditional append of one event, from the call until the client knows that it is durable.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    sync::Barrier,
    task::Poll,
    time::{Duration, Instant},
};

use futures::{StreamExt, executor::block_on, stream::FuturesUnordered};

use super::{Case, Measured, Round};
use crate::{
    measure::{
        Meter, Spent,
        crew::{self, Shift, Tally, Worker},
        histogram,
        payload::Payloads,
        verify::Acknowledged,
        window::rejected,
    },
    store::{Append, Error, Outcome, Result, Session, Store, key},
};

/// How many aggregates each client has.
pub const AGGREGATES_EACH: u64 = 16;

/// On how many threads the tasks run.
const TASK_THREADS: u64 = 2;

/// The cases.
pub fn cases() -> Vec<Case> {
    let case = |name: String, kind, count: u64| {
        let parameters = [
            (kind, count as f64),
            ("payload_bytes", 128.0),
            ("aggregates", (count * AGGREGATES_EACH) as f64),
        ];
        Case::new("clients", name, parameters)
    };
    let threads = [4, 16, 64, 256].map(|count| case(format!("{count} threads"), "threads", count));
    let mut cases: Vec<Case> = threads
        .into_iter()
        .map(|case| if case.number("threads") == 64 { case.canonical() } else { case })
        .collect();
    let mut tasks = case("256 tasks on 2 threads".into(), "tasks", 256);
    tasks.parameters.insert("task_threads", TASK_THREADS as f64);
    cases.push(tasks);
    cases
}

/// Runs a case once.
pub fn run<S: Store>(round: &Round<'_>) -> Result<Measured> {
    let store = S::open(round.dir, &round.setup)?;
    let shift = Shift { warm_up: round.warm_up, measure: round.measure };
    let tasks = round.case.number("tasks");
    let count = tasks.max(round.case.number("threads"));
    let mut clients = Client::all(count, 0, round);
    let (spent, tally) = if tasks > 0 {
        run_tasks(&store, &mut clients, shift)?
    } else {
        crew::run(&store, &mut clients, shift)?
    };
    let mut acknowledged = Acknowledged::default();
    clients.iter().for_each(|client| client.acknowledged(&mut acknowledged));
    acknowledged.check_reopened(store, round)?;
    Ok(Measured {
        latency: Some(tally.latency),
        verified: true,
        ..Measured::new("commits", tally.units, spent)
    })
}

/// A client and the versions of its aggregates.
#[derive(Debug)]
pub struct Client {
    first: u64,
    versions: Vec<u64>,
    next: usize,
    payloads: Payloads,
}

impl Client {
    /// So many of them. Their aggregates are numbered from `first`.
    pub fn all(count: u64, first: u64, round: &Round<'_>) -> Vec<Client> {
        let payload_bytes = round.case.number("payload_bytes");
        (0..count)
            .map(|number| Client {
                first: first + number * AGGREGATES_EACH,
                versions: vec![0; AGGREGATES_EACH as usize],
                next: 0,
                payloads: Payloads::new(payload_bytes, round.seed ^ number),
            })
            .collect()
    }

    /// What was acknowledged to it.
    pub fn acknowledged(&self, acknowledged: &mut Acknowledged) {
        for (number, version) in (self.first..).zip(&self.versions) {
            acknowledged.add(key(number), *version);
        }
    }

    /// The next write, to the next of its aggregates.
    fn submit<S: Session>(&mut self, session: &mut S) -> Result<S::Ticket> {
        self.next = (self.next + 1) % self.versions.len();
        session.submit(&[Append {
            key: key(self.first + self.next as u64),
            expected: Some(self.versions[self.next]),
            payload: self.payloads.next(),
        }])
    }

    fn answered(&mut self, outcome: Outcome) -> Result<()> {
        match outcome {
            Outcome::Committed(version) if version == self.versions[self.next] + 1 => {
                self.versions[self.next] = version;
                Ok(())
            }
            Outcome::Committed(version) => Err(format!(
                "a write was said to lead to version {version}: expected {}",
                self.versions[self.next] + 1
            )
            .into()),
            Outcome::Conflict(actual) => Err(rejected(actual)),
        }
    }

    /// A task that writes and awaits until then. If it need not wait, because the store had waited already, the next task has its turn.
    async fn work<S: Session>(
        &mut self,
        session: &RefCell<&mut S>,
        end: Instant,
        tally: &RefCell<Tally>,
    ) -> Result<()> {
        loop {
            let began = Instant::now();
            if began >= end {
                return Ok(());
            }
            let mut ticket = self.submit(*session.borrow_mut())?;
            let mut polls = 0;
            let outcome = poll_fn(|context| {
                polls += 1;
                Pin::new(&mut ticket).poll(context)
            });
            self.answered(outcome.await?)?;
            tally.borrow_mut().done(began);
            if polls == 1 {
                next_task().await;
            }
        }
    }
}

/// Comes back when the other tasks have had their turn.
async fn next_task() {
    let mut is_back = false;
    poll_fn(|context| {
        if std::mem::replace(&mut is_back, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl<S: Store> Worker<S> for Client {
    fn turn(&mut self, session: &mut S::Session, tally: &mut Tally) -> Result<()> {
        use crate::store::Ticket;
        let began = Instant::now();
        let ticket = self.submit(session)?;
        self.answered(ticket.wait()?)?;
        tally.done(began);
        Ok(())
    }
}

/// The clients as tasks on few threads.
fn run_tasks<S: Store>(store: &S, clients: &mut [Client], shift: Shift) -> Result<(Spent, Tally)> {
    let start = Barrier::new(TASK_THREADS as usize + 1);
    let warm = Barrier::new(TASK_THREADS as usize + 1);
    let each = clients.len().div_ceil(TASK_THREADS as usize);
    let mut sessions = (0..TASK_THREADS).map(|_| store.session()).collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .chunks_mut(each)
            .zip(&mut sessions)
            .map(|(clients, session)| {
                let (warm, start) = (&warm, &start);
                scope.spawn(move || {
                    let warmed = poll_all(clients, session, shift.warm_up);
                    warm.wait();
                    start.wait();
                    warmed?;
                    poll_all(clients, session, shift.measure)
                })
            })
            .collect();
        warm.wait();
        let meter = Meter::begin(store.processes());
        start.wait();
        let joined: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        let spent = meter.end();
        let mut all = Tally::default();
        for tally in joined {
            let tally = tally.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            all.units += tally.units;
            histogram::merge(&mut all.latency, &tally.latency)?;
        }
        Ok::<_, Error>((spent, all))
    })
}

/// Polls a task for each client on this thread until all have ended.
fn poll_all<S: Session>(clients: &mut [Client], session: &mut S, time: Duration) -> Result<Tally> {
    let session = RefCell::new(session);
    let tally = RefCell::new(Tally::default());
    let end = Instant::now() + time;
    let tasks: FuturesUnordered<_> =
        clients.iter_mut().map(|client| client.work(&session, end, &tally)).collect();
    block_on(async {
        let mut tasks = tasks;
        while let Some(ended) = tasks.next().await {
            ended?;
        }
        Ok::<_, Error>(())
    })?;
    Ok(tally.into_inner())
}
