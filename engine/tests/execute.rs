//! Deciding: rules that never break, however many threads decide at once, and answers that are given only when what they
//! rest on is durable.

mod common;

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use annals::internals::disk::sim::{Order, SimDisk};
use annals::{
    Backend, Committed, Error, ErrorKind, Event, Execution, Expect, Options, Recorded, State,
    States, Store,
};
use common::{LONG, audit, directory, fail_next_sync, in_time, numbered, open_sim, small};

const THREADS: u64 = 16;
const BACKENDS: [Backend; 2] = [Backend::Uring, Backend::Blocking];

fn number_in(event: &Recorded) -> u64 {
    u64::from_le_bytes(event.data().try_into().unwrap())
}

/// Each event carries the number after the one before.
#[derive(Clone, Default)]
struct Counter {
    last: u64,
    /// The first event that did not.
    wrong: Option<u64>,
}

impl State for Counter {
    fn apply(&mut self, event: &Recorded) {
        let number = number_in(event);
        if number != self.last + 1 {
            self.wrong.get_or_insert(number);
        }
        self.last = number;
    }
}

impl Counter {
    fn step(&self) -> Result<Vec<Event>, String> {
        match self.wrong {
            Some(wrong) => Err(format!("{wrong} is not the number after the one before")),
            None => Ok(vec![numbered(self.last + 1)]),
        }
    }
}

/// The numbers of all events together.
#[derive(Clone, Default)]
struct Sum(u64);

impl State for Sum {
    fn apply(&mut self, event: &Recorded) {
        self.0 += number_in(event);
    }
}

fn refused<R>(execution: Execution<R>) -> R {
    match execution.wait() {
        Ok(Err(refusal)) => refusal,
        Ok(Ok(done)) => panic!("{done:?} instead of a refusal"),
        Err(error) => panic!("{error} instead of a refusal"),
    }
}

fn written<R: std::fmt::Debug>(execution: Execution<R>) -> Committed {
    execution.wait().unwrap().unwrap().expect("it wrote")
}

/// So many threads count together, each with executions in flight. What was acknowledged is what is stored.
fn count(options: &Options, steps: u64) {
    const WINDOW: usize = 64;
    let dir = directory();
    let store = options.open(dir.path()).unwrap();
    let states: States<Counter> = store.states(1);
    let mut acknowledged: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let states = states.clone();
                scope.spawn(move || {
                    let mut versions = Vec::new();
                    let mut flying: VecDeque<Execution<String>> = VecDeque::new();
                    let executor = states.executor().attempts(u32::MAX);
                    for _ in (thread..steps).step_by(THREADS as usize) {
                        flying.push_back(executor.execute("counter", Counter::step));
                        if flying.len() == WINDOW {
                            versions.extend(flying.pop_front().map(|one| written(one).version()));
                        }
                    }
                    versions.extend(flying.into_iter().map(|one| written(one).version()));
                    versions
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    acknowledged.sort_unstable();
    assert!(acknowledged.into_iter().eq(1..=steps), "each version was acknowledged once");
    let check = |store: &Store| {
        let mut last = 0;
        for event in store.read("counter") {
            let event = event.unwrap();
            last += 1;
            assert_eq!((event.version(), number_in(&event)), (last, last));
        }
        assert_eq!(last, steps);
    };
    check(&store);
    store.close().unwrap();
    drop((states, store));
    check(&options.open(dir.path()).unwrap());
}

#[test]
fn sixteen_threads_count_and_no_step_is_lost() {
    in_time("counting", || count(&Options::new().backend(Backend::Uring), 100_000));
}

#[test]
fn sixteen_threads_count_on_the_blocking_back_end() {
    in_time("counting", || count(&small().backend(Backend::Blocking), 20_000));
}

/// Ten million steps, for `just soak-deciding`.
#[test]
fn a_soak_of_counting() {
    if std::env::var_os("ANNALS_SOAK").is_some() {
        for backend in BACKENDS {
            count(&Options::new().backend(backend), 10_000_000);
        }
    }
}

#[test]
fn no_sheet_ever_holds_more_than_forty_hours() {
    const SHEETS: u64 = 60;
    for backend in BACKENDS {
        let dir = directory();
        let store = small().backend(backend).open(dir.path()).unwrap();
        let sheet = |week: u64| format!("sheet-{week}");
        let outcomes: Vec<(u64, u64, Result<u64, u64>)> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let store = &store;
                    scope.spawn(move || {
                        let executor = store.executor::<Sum>().attempts(u32::MAX);
                        let mut told = Vec::new();
                        for week in 0..SHEETS {
                            let hours = 3 + (thread + week) % 6;
                            let log = |sheet: &Sum| match sheet.0 + hours {
                                ..=40 => Ok(vec![numbered(hours)]),
                                _ => Err(sheet.0),
                            };
                            told.push((week, hours, executor.execute(sheet(week), log)));
                        }
                        let waited = told.into_iter().map(|(week, hours, one)| {
                            (week, hours, one.wait().unwrap().map(|done| done.unwrap().version()))
                        });
                        waited.collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let check = |store: &Store| {
            for week in 0..SHEETS {
                let stored: Vec<u64> =
                    store.read(sheet(week)).map(|event| number_in(&event.unwrap())).collect();
                let total: u64 = stored.iter().sum();
                assert!(total <= 40, "week {week}: {stored:?}");
                let mut written = 0;
                for (_, hours, outcome) in outcomes.iter().filter(|told| told.0 == week) {
                    match outcome {
                        Ok(version) => {
                            written += 1;
                            assert_eq!(stored[*version as usize - 1], *hours, "week {week}");
                        }
                        Err(seen) => assert!(seen + hours > 40 && *seen <= total, "week {week}"),
                    }
                }
                assert_eq!(written, stored.len(), "week {week}");
                assert!(written < THREADS as usize, "week {week}: nobody was refused");
            }
            audit(store);
        };
        check(&store);
        drop(store);
        check(&small().open(dir.path()).unwrap());
    }
}

/// What an account holds: credits less debits.
#[derive(Clone, Default)]
struct Account(i64);

impl State for Account {
    fn apply(&mut self, event: &Recorded) {
        let amount = number_in(event) as i64;
        self.0 += if event.event_type() == "Out" { -amount } else { amount };
    }
}

#[test]
fn transfers_keep_the_sum_and_are_refused_when_an_account_is_short() {
    const ACCOUNTS: u64 = 5;
    const OPENING: i64 = 50;
    for backend in BACKENDS {
        let dir = directory();
        let store = small().backend(backend).open(dir.path()).unwrap();
        let key = |account: u64| format!("account-{account}");
        for account in 0..ACCOUNTS {
            let opened = Event::new("In", (OPENING as u64).to_le_bytes());
            store.append(key(account), Expect::Absent, [opened]).unwrap().wait().unwrap();
        }
        let states: States<Account> = store.states(16);
        let (moved, short): (usize, usize) = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread| {
                    let states = states.clone();
                    scope.spawn(move || {
                        let executor = states.executor().attempts(u32::MAX);
                        let transfers = (0..150).map(|nth: u64| {
                            let from = (thread + nth) % ACCOUNTS;
                            let to = (from + 1 + nth % (ACCOUNTS - 1)) % ACCOUNTS;
                            let amount = 1 + (thread * 7 + nth * 13) % 60;
                            let watched = (0..ACCOUNTS).find(|one| *one != from && *one != to);
                            let keys = [from, to, watched.unwrap()].map(key);
                            executor.execute_all(keys, |states: &[Account]| {
                                let [from, _, _] = states else { panic!("{}", states.len()) };
                                if from.0 < amount as i64 {
                                    return Err("short");
                                }
                                let event = |kind| vec![Event::new(kind, amount.to_le_bytes())];
                                Ok(vec![event("Out"), event("In"), Vec::new()])
                            })
                        });
                        let all: Vec<_> = transfers.collect();
                        let total = all.len();
                        let waited = all.into_iter().map(Execution::wait);
                        let moved = waited.filter(|done| done.as_ref().unwrap().is_ok()).count();
                        (moved, total - moved)
                    })
                })
                .collect();
            let told = threads.into_iter().map(|thread| thread.join().unwrap());
            told.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
        });
        assert!(moved > 100 && short > 10, "{moved} moved, {short} were short");
        let check = |store: &Store| {
            let mut balances = [OPENING; ACCOUNTS as usize];
            let mut writes = 0;
            for write in store.log(0).writes().skip(ACCOUNTS as usize) {
                writes += 1;
                for part in write.unwrap().parts() {
                    let account: usize = String::from_utf8_lossy(&part.key()[8..]).parse().unwrap();
                    for event in part.events() {
                        let mut state = Account(balances[account]);
                        state.apply(&event);
                        balances[account] = state.0;
                    }
                }
                assert!(balances.iter().all(|held| *held >= 0), "{balances:?}");
                assert_eq!(balances.iter().sum::<i64>(), OPENING * ACCOUNTS as i64);
            }
            assert_eq!(writes, moved);
            audit(store);
        };
        check(&store);
        drop((states, store));
        check(&small().open(dir.path()).unwrap());
    }
}

/// Another writer changes an aggregate while the closure decides: it decides again, on what is there then.
#[test]
fn whatever_changes_while_it_decides_makes_it_decide_again() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let append = |key: &str, number| {
        store.append(key, Expect::Any, [numbered(number)]).unwrap().wait().unwrap();
    };
    for key in ["one", "two"] {
        append(key, 1);
    }
    // The aggregate that is only checked changes; the one that is not there yet appears; the one that is written changes.
    for (changed, number) in [("two", 10), ("three", 100), ("one", 1000)] {
        let mut seen = Vec::new();
        let keys = ["one", "two", "three"];
        let done = written(store.execute_all(keys, |states: &[Sum]| {
            seen.push(states.iter().map(|sum| sum.0).collect::<Vec<_>>());
            if seen.len() == 1 {
                append(changed, number);
            }
            Ok::<_, ()>(vec![vec![numbered(0)], vec![], vec![]])
        }));
        let place = keys.iter().position(|key| *key == changed).unwrap();
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert_eq!(seen[1][place], seen[0][place] + number, "{seen:?}");
        assert_eq!(done.version_of("two"), Some(store.version("two").unwrap()));
        assert_eq!(done.version_of("three"), Some(store.version("three").unwrap()));
    }
    // A refusal needs no second look: all states were true together when they were handed in.
    let mut calls = 0;
    let refusal = refused(store.execute_all(["one", "two"], |states: &[Sum]| {
        calls += 1;
        append("two", 1);
        Err::<Vec<Vec<Event>>, _>(states[1].0)
    }));
    assert_eq!((refusal, calls), (11, 1));
    audit(&store);
}

/// Two aggregates that always change together are never seen apart.
#[test]
fn states_were_true_at_one_moment() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let states: States<Sum> = store.states(4);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for _ in 0..3000 {
                let both = store.write().append("l", Expect::Any, [numbered(1)]);
                drop(both.append("r", Expect::Any, [numbered(1)]).submit().unwrap());
            }
        });
        let mut seen = 0;
        while !writer.is_finished() {
            let look = |states: &[Sum]| Err::<Vec<Vec<Event>>, _>((states[0].0, states[1].0));
            let executor = states.executor().attempts(u32::MAX);
            let (left, right) = refused(executor.execute_all(["l", "r"], look));
            assert_eq!(left, right);
            assert!(left >= seen);
            seen = left;
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_call_that_cannot_be_right_is_refused() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let nothing = |_: &[Sum]| -> Result<Vec<Vec<Event>>, ()> { panic!("it decides on nothing") };
    let kind = |execution: Execution<()>| execution.wait().unwrap_err().kind();
    assert_eq!(kind(store.execute_all([""; 0], nothing)), ErrorKind::Invalid);
    assert_eq!(kind(store.execute_all(["a", "b", "a"], nothing)), ErrorKind::Invalid);
    assert_eq!(kind(store.execute_all(["a", ""], nothing)), ErrorKind::Invalid);
    assert_eq!(kind(store.execute::<Sum, ()>("", |_| Ok(vec![]))), ErrorKind::Invalid);
    let one_list = |_: &[Sum]| Ok(vec![vec![numbered(1)]]);
    assert_eq!(kind(store.execute_all(["a", "b"], one_list)), ErrorKind::Invalid);
    let one_empty_list = |_: &[Sum]| Ok(vec![vec![]]);
    assert_eq!(kind(store.execute_all(["a", "b"], one_empty_list)), ErrorKind::Invalid);
    let large = |_: &Sum| Ok(vec![Event::new("E", vec![0; 64 << 20])]);
    assert_eq!(kind(store.execute("a", large)), ErrorKind::TooLarge);
    assert_eq!(
        kind(store.executor::<Sum>().client(1, u64::MAX).execute("a", |_| Ok(vec![]))),
        ErrorKind::Invalid
    );
    assert_eq!(store.log(0).count(), 0);

    let dir = directory();
    let store = Options::new().shards(4).open(dir.path()).unwrap();
    let keys: Vec<String> = (0..20).map(|number| format!("key-{number}")).collect();
    let error = store.execute_all(&keys, nothing).wait().unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::CrossShard, 9001));
    assert!(error.keys().count() >= 2);
}

#[test]
fn a_handle_decides_on_its_aggregate() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let handle = store.aggregate("a").unwrap();
    for number in 1..=20 {
        assert_eq!(written(handle.execute(Counter::step)).version(), number);
    }
    assert!(handle.execute::<Counter, ()>(|_| Ok(vec![])).wait().unwrap().unwrap().is_none());
    assert_eq!(audit(&store).len(), 20);
}

/// A client's retry: the original result, and nothing is decided.
#[test]
fn a_retry_gives_the_original_result_and_decides_nothing() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let empty = |sum: &Sum| if sum.0 == 0 { Ok(vec![numbered(5)]) } else { Err("not empty") };
    let again = |_: &Sum| -> Result<Vec<Event>, &str> { panic!("a retry was decided") };
    let executor = |client, sequence| store.executor::<Sum>().client(client, sequence);
    let first = written(executor(1, 7).execute("a", empty));
    // The state would refuse it now.
    assert_eq!(refused(executor(2, 7).execute("a", empty)), "not empty");
    for _ in 0..2 {
        let retried = written(executor(1, 7).execute("a", again));
        assert!(retried.is_replay() && !first.is_replay());
        assert_eq!((retried.position(), retried.version()), (first.position(), 1));
        // A write's retry finds it too, and the other way round.
        let write = store.write().append("a", Expect::Absent, [numbered(9)]).client(1, 7);
        assert_eq!(write.submit().unwrap().wait().unwrap().position(), first.position());
    }
    let more = |_: &Sum| Ok::<_, &str>(vec![numbered(1)]);
    assert_eq!(written(executor(1, 8).execute("a", more)).version(), 2);
    for sequence in [0, 6, 7] {
        let error = executor(1, sequence).execute("a", again).wait().unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Duplicate, 2002));
        let write = store.write().append("a", Expect::Any, [numbered(9)]).client(1, sequence);
        assert_eq!(write.submit().unwrap_err().code(), 2002);
    }
    // Nothing was written, so there is nothing to replay: it decides again.
    let mut calls = 0;
    for _ in 0..2 {
        let nothing = |_: &Sum| {
            calls += 1;
            Ok::<Vec<Event>, ()>(vec![])
        };
        assert!(executor(3, 1).execute("a", nothing).wait().unwrap().unwrap().is_none());
    }
    assert_eq!(calls, 2);
    assert_eq!(audit(&store).len(), 2);
}

#[test]
fn a_retry_of_several_finds_its_original_wherever_that_wrote() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let keys = ["a", "b", "c"];
    let again = |_: &[Sum]| -> Result<Vec<Vec<Event>>, ()> { panic!("a retry was decided") };
    for (sequence, wrote) in
        [[true, true, false], [false, true, false], [true, true, true]].into_iter().enumerate()
    {
        let executor = store.executor::<Sum>().client(4, sequence as u64);
        let decide = |_: &[Sum]| {
            Ok::<_, ()>(wrote.map(|wrote| if wrote { vec![numbered(1)] } else { vec![] }).to_vec())
        };
        let first = written(executor.execute_all(keys, decide));
        // Whatever changes in between.
        drop(store.append("c", Expect::Any, [numbered(2)]).unwrap());
        let retried = written(executor.execute_all(keys, again));
        assert!(retried.is_replay());
        assert_eq!(retried.position(), first.position());
        for key in keys {
            assert_eq!(retried.version_of(key), first.version_of(key));
        }
    }
    let stale = store.executor::<Sum>().client(4, 1).execute_all(keys, again).wait().unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Duplicate);
    audit(&store);
}

/// A retry and its original at once: one of them writes, both are told of it.
#[test]
fn a_retry_that_races_its_original_is_written_once() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    for sequence in 0..300 {
        let once = |sum: &Sum| match sum.0 {
            taken if taken > sequence => Err("taken"),
            _ => Ok(vec![numbered(1)]),
        };
        let send = || {
            let executor = store.executor::<Sum>().client(5, sequence);
            if sequence % 2 == 0 {
                return executor.execute("one", once).wait();
            }
            let both = |sums: &[Sum]| once(&sums[0]).map(|events| vec![events, vec![numbered(1)]]);
            executor.execute_all(["one", "two"], both).wait()
        };
        let told: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(send)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let told: Vec<Committed> =
            told.into_iter().map(|one| one.unwrap().unwrap().unwrap()).collect();
        assert!(told.iter().all(|one| one.position() == told[0].position()), "{told:?}");
        assert_eq!(told.iter().filter(|one| !one.is_replay()).count(), 1, "{told:?}");
    }
    assert_eq!(audit(&store).len(), 300);
}

/// A store with 5 hours durable, and 35 more on their way to a disk that hangs.
fn held(seed: u64) -> (Arc<SimDisk>, Store) {
    let disk = SimDisk::new(seed);
    let store = open_sim(&small().flush_window(16), &disk).unwrap();
    store.append("sheet", Expect::Absent, [numbered(5)]).unwrap().wait().unwrap();
    store.append("quiet", Expect::Absent, [numbered(40)]).unwrap().wait().unwrap();
    disk.set_order(Order::Never);
    drop(store.append("sheet", Expect::Version(1), [numbered(35)]).unwrap());
    (disk, store)
}

fn eight(sum: &Sum) -> Result<Vec<Event>, u64> {
    if sum.0 + 8 > 40 { Err(sum.0) } else { Ok(vec![numbered(8)]) }
}

/// Everything that may rest on what is held: a refusal, no events, a write; of one and of several; with kept states.
fn rest_on_it(store: &Store) -> Vec<Execution<u64>> {
    let states: States<Sum> = store.states(8);
    let both = |sums: &[Sum]| eight(&sums[0]).map(|events| vec![events, vec![]]);
    let none = |_: &Sum| Ok(vec![]);
    vec![
        store.execute("sheet", eight),
        store.execute("sheet", none),
        states.execute("sheet", eight),
        // The state is of the newest version already.
        states.execute("sheet", eight),
        states.execute("sheet", none),
        store.execute_all(["sheet", "quiet"], both),
        store.execute_all(["quiet", "sheet"], |_: &[Sum]| Ok(vec![])),
        store.executor().client(9, 1).execute("sheet", eight),
        store.aggregate("sheet").unwrap().execute(eight),
        store.execute("sheet", |sum: &Sum| Ok(vec![numbered(sum.0)])),
    ]
}

#[test]
fn an_answer_waits_for_what_it_rests_on() {
    let (disk, store) = held(1);
    let mut executions = rest_on_it(&store);
    assert_eq!(refused(store.execute("quiet", eight)), 40, "what is durable is answered at once");
    let absent = |sum: &Sum| if sum.0 == 0 { Err(7) } else { Ok(vec![]) };
    assert_eq!(refused(store.execute("none", absent)), 7);
    for execution in &mut executions {
        assert!(!execution.is_resolved());
        assert!(execution.wait_timeout(Duration::from_millis(5)).is_none());
    }
    disk.set_order(Order::Random);
    for (nth, mut execution) in executions.into_iter().enumerate() {
        let answer = execution.wait_timeout(LONG).expect("in time").unwrap();
        assert!(store.version("sheet").unwrap() >= 2, "{nth}: told before it was durable");
        match nth {
            1 | 4 | 6 => assert!(answer.unwrap().is_none(), "{nth}"),
            9 => assert_eq!(answer.unwrap().unwrap().version(), 3),
            _ => assert_eq!(answer.unwrap_err(), 40, "{nth}"),
        }
        assert!(execution.is_resolved());
        let again = execution.wait_timeout(Duration::ZERO).expect("resolved");
        assert_eq!(again.unwrap_err().kind(), ErrorKind::Invalid, "it was given away");
    }
    assert_eq!(audit(&store).len(), 4);
}

#[test]
fn an_answer_that_rests_on_what_failed_is_not_given() {
    for seed in 0..10 {
        let (disk, store) = held(seed);
        let executions = rest_on_it(&store);
        fail_next_sync(&disk);
        for (nth, execution) in executions.into_iter().enumerate() {
            let error = in_time("an answer", move || execution.wait()).unwrap_err();
            let unknown = [ErrorKind::OutcomeUnknown, ErrorKind::NotWritten];
            assert!(unknown.contains(&error.kind()), "{nth}: {error}");
        }
        for (nth, execution) in rest_on_it(&store).into_iter().enumerate() {
            assert_eq!(execution.wait().unwrap_err().kind(), ErrorKind::Stopped, "{nth}");
        }
        assert_eq!(refused(store.execute("quiet", eight)), 40, "what is durable is answered still");
        drop(store);
        disk.repair();
        let store = open_sim(&small(), &disk).unwrap();
        let (sheet, version) = store.read("sheet").into_state::<Sum>().unwrap();
        assert_eq!(sheet.0, [0, 5, 40, 80][version as usize]);
    }
}

/// An execution that resolves while a time is about to be over is told as it is.
#[test]
fn a_time_that_is_over_is_never_taken_for_a_failure() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let states: States<Count> = store.states(1);
    for round in 0..3000_u64 {
        let mut execution = states.execute("a", |_: &Count| Ok::<_, ()>(vec![numbered(round)]));
        let mut limit = Duration::from_micros(20 + round % 150);
        let done = loop {
            match execution.wait_timeout(limit) {
                Some(done) => break done,
                None => limit = Duration::from_micros(3),
            }
        };
        assert_eq!(done.unwrap().unwrap().unwrap().version(), round + 1);
    }
}

/// A state that is cheap to fold.
#[derive(Clone, Default)]
struct Count;

impl State for Count {
    fn apply(&mut self, _: &Recorded) {}
}

#[test]
fn an_execution_gives_up_after_as_many_attempts_as_it_may() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    for (attempts, expected) in [(None, 64), (Some(0), 1), (Some(1), 1), (Some(5), 5)] {
        let mut calls = 0;
        let before = store.version("a").unwrap();
        let executor = store.executor::<Count>();
        let executor =
            attempts.into_iter().fold(executor, |executor, most| executor.attempts(most));
        let overtaken = executor.execute("a", |_| {
            calls += 1;
            store.append("a", Expect::Any, [numbered(1)]).unwrap().wait().unwrap();
            Ok::<_, ()>(vec![numbered(2)])
        });
        let error = overtaken.wait().unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Contended, 2004));
        assert!(error.to_string().contains(&format!("lost {expected} races")), "{error}");
        assert_eq!(error.key(), Some(b"a".as_slice()));
        assert!(error.winner().is_none());
        assert_eq!((calls, store.version("a").unwrap()), (expected, before + expected));
    }
}

#[test]
fn one_thread_has_ten_thousand_executions_in_flight() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let states: States<Counter> = store.states(1);
    let executions: Vec<_> =
        (0..10_000).map(|_| states.execute("counter", Counter::step)).collect();
    assert_eq!(store.version_accepted("counter").unwrap(), 10_000);
    for (execution, version) in executions.into_iter().zip(1..) {
        assert_eq!(written(execution).version(), version);
    }
}

#[test]
fn a_closure_that_panics_harms_nobody() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let states: States<Sum> = store.states(4);
    for round in 0..20 {
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| match round % 3 {
            0 => drop(store.execute("a", |_: &Sum| -> Result<_, ()> { panic::panic_any(1) })),
            1 => drop(states.execute("a", |_: &Sum| -> Result<_, ()> { panic::panic_any(1) })),
            _ => drop(
                store
                    .executor()
                    .client(1, round)
                    .execute_all(["a", "b"], |_: &[Sum]| -> Result<_, ()> { panic::panic_any(1) }),
            ),
        }));
        assert!(panicked.is_err());
        let one = |sum: &Sum| Ok::<_, ()>(vec![numbered(u64::from(sum.0 < 1000))]);
        let done = written(states.executor().client(1, round).execute("a", one));
        assert_eq!((done.version(), done.is_replay()), (round + 1, false));
    }
    assert_eq!(store.read("a").into_state::<Sum>().unwrap().0.0, 20);
    assert_eq!(audit(&store).len(), 20);
    in_time("closing", move || store.close()).unwrap();
}

/// Counts how many events are folded by all of them together.
#[derive(Clone, Default)]
struct Folds(u64);

mod folds {
    use std::cell::Cell;

    thread_local! {
        pub(super) static SEEN: Cell<u64> = const { Cell::new(0) };
    }
}

impl State for Folds {
    fn apply(&mut self, event: &Recorded) {
        self.0 += number_in(event);
        folds::SEEN.set(folds::SEEN.get() + 1);
    }
}

#[test]
fn kept_states_give_the_same_results_and_fold_what_is_new() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let kept: States<Folds> = store.states(8);
    for round in 0..200 {
        let one = |state: &Folds| Ok::<_, ()>(vec![numbered(state.0 % 7 + 1)]);
        written(kept.execute("kept", one));
        written(store.execute("bare", one));
        if round % 10 == 0 {
            // Somebody else writes too.
            for key in ["kept", "bare"] {
                drop(store.append(key, Expect::Any, [numbered(round)]).unwrap());
            }
        }
    }
    let data =
        |key: &str| store.read(key).map(|event| number_in(&event.unwrap())).collect::<Vec<_>>();
    assert_eq!(data("kept"), data("bare"));
    folds::SEEN.set(0);
    let none = |_: &Folds| Ok::<Vec<Event>, ()>(vec![]);
    for _ in 0..10 {
        drop(kept.execute("kept", none).wait().unwrap());
    }
    assert!(folds::SEEN.get() <= 2, "{} were folded again", folds::SEEN.get());
    // A clone shares what is kept.
    drop(kept.clone().execute("kept", none).wait().unwrap());
    assert!(folds::SEEN.get() <= 2);
    drop(store.execute("kept", none).wait().unwrap());
    assert!(folds::SEEN.get() >= 220, "without it all are folded");
}

#[test]
fn so_many_states_are_kept_and_no_more() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let held = Arc::new(());
    let states: States<Kept> = store.states(64);
    HELD.with(|place| *place.borrow_mut() = Some(Arc::clone(&held)));
    for aggregate in 0..1000 {
        for _ in 0..2 {
            let one = |_: &Kept| Ok::<_, ()>(vec![numbered(1)]);
            written(states.execute(format!("a-{aggregate}"), one));
        }
    }
    HELD.with(|place| place.borrow_mut().take());
    let kept = Arc::strong_count(&held) - 1;
    assert!((32..=64).contains(&kept), "{kept}");
    drop(states);
    assert_eq!(Arc::strong_count(&held), 1);
}

thread_local! {
    static HELD: std::cell::RefCell<Option<Arc<()>>> = const { std::cell::RefCell::new(None) };
}

/// A state of which one can tell how many there are.
#[derive(Clone)]
struct Kept(#[allow(dead_code)] Option<Arc<()>>);

impl Default for Kept {
    fn default() -> Kept {
        Kept(HELD.with(|held| held.borrow().clone()))
    }
}

impl State for Kept {
    fn apply(&mut self, _: &Recorded) {}
}

fn conflict(store: &Store) -> Error {
    let error = store.append("sheet", Expect::Version(1), [numbered(1)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    error
}

#[test]
fn a_loser_waits_for_the_winner() {
    let (disk, store) = held(3);
    let error = conflict(&store);
    assert_eq!(error.winner_is_durable(), Some(false));
    let winner = error.winner().expect("a conflict has one");
    let timed = winner.wait_timeout(Duration::from_millis(10)).unwrap_err();
    assert_eq!(timed.kind(), ErrorKind::OutcomeUnknown);
    assert!(!winner.is_resolved());
    assert_eq!(store.version("sheet").unwrap(), 1);
    // A clone of the error has one too; a write of several as well.
    let wide =
        store.write().check("quiet", Expect::Exists).append("sheet", Expect::Absent, [numbered(1)]);
    let winners = [error.clone().winner().unwrap(), wide.submit().unwrap_err().winner().unwrap()];
    let awaited = thread::spawn(|| winners.map(futures::executor::block_on));
    thread::sleep(Duration::from_millis(10));
    assert!(!awaited.is_finished());
    disk.set_order(Order::Fifo);
    winner.wait_timeout(LONG).unwrap();
    assert_eq!(store.version("sheet").unwrap(), 2);
    winner.wait().unwrap();
    assert!(winner.is_resolved());
    assert!(awaited.join().unwrap().iter().all(Result::is_ok));

    // What does not exist was decided by nobody; other errors are no races.
    let missing = store.append("none", Expect::Exists, [numbered(1)]).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.winner().is_none());
    for error in [
        store.append("", Expect::Any, [numbered(1)]).unwrap_err(),
        store.append("sheet", Expect::Any, []).unwrap_err(),
        store.write().submit().unwrap_err(),
    ] {
        assert!(error.winner().is_none(), "{error}");
    }
}

#[test]
fn a_loser_is_told_that_the_winner_failed() {
    let (disk, store) = held(4);
    let (early, late) = (conflict(&store), conflict(&store));
    let winner = early.winner().unwrap();
    fail_next_sync(&disk);
    let failed = in_time("the winner", move || winner.wait()).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::OutcomeUnknown, "{failed}");
    let stopped = late.winner().unwrap();
    assert_eq!(stopped.wait().unwrap_err().kind(), ErrorKind::Stopped);
    assert_eq!(futures::executor::block_on(stopped).unwrap_err().kind(), ErrorKind::Stopped);
}

#[test]
fn a_loser_may_ask_when_the_store_is_gone() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    drop(store.append("sheet", Expect::Absent, [numbered(1)]).unwrap());
    drop(store.append("sheet", Expect::Any, [numbered(1)]).unwrap());
    let (error, pending) = (conflict(&store), conflict(&store).winner().unwrap());
    store.close().unwrap();
    pending.wait().unwrap();
    assert_eq!(error.winner().unwrap().wait().unwrap_err().kind(), ErrorKind::Closed);
    drop(store);
    assert_eq!(error.winner().unwrap().wait().unwrap_err().kind(), ErrorKind::Closed);
    // The error keeps nothing open.
    Store::open(dir.path()).unwrap();
}

#[test]
fn executions_outlive_their_store() {
    let (disk, store) = held(5);
    let executions = rest_on_it(&store);
    disk.set_order(Order::Random);
    drop(store);
    for execution in executions {
        drop(in_time("an execution", move || execution.wait()).unwrap());
    }
    let store = open_sim(&small(), &disk).unwrap();
    store.close().unwrap();
    let closed = store.execute("sheet", |_: &Sum| Ok::<_, ()>(vec![numbered(1)]));
    assert_eq!(closed.wait().unwrap_err().kind(), ErrorKind::Closed);
}
