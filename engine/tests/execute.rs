//! Deciding: rules that never break, however many threads decide at once.

mod common;

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::thread;

use annals::{
    Backend, ErrorKind, Event, Execution, Expect, Options, Recorded, State, States, Store,
};
use common::deciding::{Sum, number_in, refused, written};
use common::{audit, directory, in_time, numbered, small};

const THREADS: u64 = 16;
const BACKENDS: [Backend; 2] = [Backend::Uring, Backend::Blocking];

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
