//! Money moves between accounts, eight threads at once: none is made, none is lost, no transfer is half there.
//!
//! A transfer is decided on the balances of both accounts at exactly the versions that it expects, and is refused by the
//! store if one of them has moved. Afterwards the log is read in order and every decision checked again.

mod common;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;

use annals::{Backend, ErrorKind, Event, Expect, Options, Position, Store, Ticket};
use common::{audit, directory, in_time};

const ACCOUNTS: usize = 10;
const OPENING: i64 = 1_000;
const THREADS: u64 = 8;
/// Tickets that a thread has in flight.
const WINDOW: usize = 64;

fn key(account: usize) -> String {
    format!("account-{account}")
}

/// The data of an event: which transfer, and by how much it changes the balance.
fn entry(event_type: &str, transfer: u64, change: i64) -> Event {
    let mut data = [0; 16];
    data[..8].copy_from_slice(&transfer.to_le_bytes());
    data[8..].copy_from_slice(&change.to_le_bytes());
    Event::new(event_type, data)
}

fn parse(data: &[u8]) -> (u64, i64) {
    let (transfer, change) = data.split_at(8);
    (
        u64::from_le_bytes(transfer.try_into().unwrap()),
        i64::from_le_bytes(change.try_into().unwrap()),
    )
}

/// An account as a thread knows it.
#[derive(Clone, Copy, Default, Debug)]
struct Known {
    version: u64,
    balance: i64,
}

/// Where a thread learns what an account is at.
trait Source: Sync {
    /// The account at this version or a later one.
    fn learn(&self, store: &Store, account: usize, known: Known, at_least: u64) -> Known;

    /// A transfer was accepted that brought an account there.
    fn accepted(&self, account: usize, now: Known);
}

/// From the store: what is durable.
struct Durable;

impl Source for Durable {
    fn learn(&self, store: &Store, account: usize, mut known: Known, at_least: u64) -> Known {
        // The winner may not be durable yet. A check waits for what it saw.
        let seen = store.write().check(key(account), Expect::Exists).submit().unwrap();
        assert!(seen.wait().unwrap().version_of(key(account)).unwrap() >= at_least);
        let read = store.read(key(account)).from(known.version + 1);
        let version = read.version();
        assert!(version >= at_least, "a check resolved before what it saw was durable");
        known.balance += read.map(|event| parse(event.unwrap().data()).1).sum::<i64>();
        Known { version, ..known }
    }

    fn accepted(&self, _: usize, _: Known) {}
}

/// From the other threads: what is accepted, at the speed of memory. The balances of each account by version.
#[derive(Default)]
struct Accepted([Mutex<HashMap<u64, i64>>; ACCOUNTS]);

impl Accepted {
    fn account(&self, account: usize) -> MutexGuard<'_, HashMap<u64, i64>> {
        self.0[account].lock().unwrap()
    }
}

impl Source for Accepted {
    fn learn(&self, _: &Store, account: usize, _: Known, at_least: u64) -> Known {
        loop {
            // Whoever won may not have told yet.
            if let Some(&balance) = self.account(account).get(&at_least) {
                return Known { version: at_least, balance };
            }
            thread::yield_now();
        }
    }

    fn accepted(&self, account: usize, now: Known) {
        assert_eq!(self.account(account).insert(now.version, now.balance), None);
    }
}

/// Numbers without end, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A transfer that was acknowledged.
struct Acknowledged {
    transfer: u64,
    from: usize,
    version: u64,
    position: Position,
}

/// What the threads share.
struct Bank<S> {
    store: Store,
    source: S,
    transfers: u64,
    next: AtomicU64,
    conflicts: AtomicU64,
}

impl<S: Source> Bank<S> {
    fn open(store: &Store, source: S, transfers: u64) -> Bank<S> {
        for account in 0..ACCOUNTS {
            let opened = entry("Opened", 0, OPENING);
            store.append(key(account), Expect::Absent, [opened]).unwrap().wait().unwrap();
            source.accepted(account, Known { version: 1, balance: OPENING });
        }
        Bank {
            store: store.clone(),
            source,
            transfers,
            next: AtomicU64::new(1),
            conflicts: AtomicU64::new(0),
        }
    }

    /// One thread's work: transfers until there are enough.
    fn run(&self, thread: u64) -> Vec<Acknowledged> {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 + thread);
        let mut known = [Known { version: 1, balance: OPENING }; ACCOUNTS];
        let mut acknowledged = Vec::new();
        let mut tickets: VecDeque<(u64, usize, Ticket)> = VecDeque::new();
        let mut settle = |(transfer, from, ticket): (u64, usize, Ticket)| {
            let done = ticket.wait().unwrap();
            let version = done.version_of(key(from)).unwrap();
            acknowledged.push(Acknowledged { transfer, from, version, position: done.position() });
        };
        loop {
            let transfer = self.next.fetch_add(1, Ordering::Relaxed);
            if transfer > self.transfers {
                break;
            }
            let (from, ticket) = self.transfer(transfer, &mut known, &mut dice);
            tickets.push_back((transfer, from, ticket));
            if tickets.len() > WINDOW {
                tickets.pop_front().map(&mut settle);
            }
        }
        tickets.into_iter().for_each(settle);
        acknowledged
    }

    /// Decides, submits, and again after a conflict.
    fn transfer(&self, transfer: u64, known: &mut [Known], dice: &mut Dice) -> (usize, Ticket) {
        loop {
            let from = dice.below(ACCOUNTS as u64) as usize;
            let to = (from + 1 + dice.below(ACCOUNTS as u64 - 1) as usize) % ACCOUNTS;
            let amount = 1 + dice.below(100) as i64;
            if known[from].balance < amount {
                // It may have more by now. If not, another account has.
                let Known { version, .. } = known[from];
                known[from] = self.source.learn(&self.store, from, known[from], version);
                if known[from].balance < amount {
                    continue;
                }
            }
            let submitted = self
                .store
                .write()
                .append(
                    key(from),
                    Expect::Version(known[from].version),
                    [entry("Debited", transfer, -amount)],
                )
                .append(
                    key(to),
                    Expect::Version(known[to].version),
                    [entry("Credited", transfer, amount)],
                )
                .submit();
            match submitted {
                Ok(ticket) => {
                    for (account, change) in [(from, -amount), (to, amount)] {
                        let Known { version, balance } = known[account];
                        known[account] = Known { version: version + 1, balance: balance + change };
                        self.source.accepted(account, known[account]);
                    }
                    return (from, ticket);
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                    self.conflicts.fetch_add(1, Ordering::Relaxed);
                    let account = if error.key() == Some(key(from).as_bytes()) { from } else { to };
                    let actual = error.actual().unwrap();
                    assert!(
                        actual > known[account].version,
                        "{error}: it was at {:?}",
                        known[account]
                    );
                    known[account] =
                        self.source.learn(&self.store, account, known[account], actual);
                }
            }
        }
    }
}

/// Reads the log in order: every condition holds (`audit`), every transfer is whole and was covered, and what is stored
/// is what was acknowledged.
fn check(store: &Store, acknowledged: &HashMap<u64, Acknowledged>) {
    let mut balances: HashMap<Vec<u8>, i64> = HashMap::new();
    let mut transfers = 0;
    for write in audit(store) {
        let changes: Vec<_> = write.data.iter().map(|data| parse(data)).collect();
        assert_eq!(write.appended.len(), changes.len());
        for ((account, _), (_, change)) in write.appended.iter().zip(&changes) {
            let balance = balances.entry(account.clone()).or_default();
            *balance += change;
            assert!(*balance >= 0, "{:?} overdrew at {}", changes, write.position);
        }
        let [(transfer, debit), (other, credit)] = changes[..] else {
            assert_eq!(changes, [(0, OPENING)]);
            continue;
        };
        transfers += 1;
        assert_eq!((transfer, debit), (other, -credit));
        let told = &acknowledged[&transfer];
        assert_eq!(told.position, write.position);
        assert!(write.appended.contains(&(key(told.from).into_bytes(), told.version)));
    }
    assert_eq!(transfers, acknowledged.len());
    assert_eq!(balances.values().sum::<i64>(), OPENING * ACCOUNTS as i64);
    let mut read = 0;
    for account in 0..ACCOUNTS {
        let balance = store.read(key(account)).map(|event| parse(event.unwrap().data()).1).sum();
        assert_eq!(balances[key(account).as_bytes()], balance);
        read += balance;
    }
    assert_eq!(read, OPENING * ACCOUNTS as i64);
}

fn transfers(options: Options, source: impl Source + Send + 'static, transfers: u64) {
    let dir = directory();
    let store = options.open(dir.path()).unwrap();
    let bank = Bank::open(&store, source, transfers);
    let (acknowledged, conflicts) = in_time("transfers", move || {
        let done = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    scope.spawn({
                        let bank = &bank;
                        move || bank.run(thread)
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        (done, bank.conflicts.load(Ordering::Relaxed))
    });
    assert!(conflicts > 0, "the threads never met");
    assert_eq!(acknowledged.len() as u64, transfers);
    let acknowledged = acknowledged.into_iter().map(|told| (told.transfer, told)).collect();
    check(&store, &acknowledged);
    store.close().unwrap();
    drop(store);
    check(&options.open(dir.path()).unwrap(), &acknowledged);
}

#[test]
fn a_hundred_thousand_transfers_make_and_lose_no_money() {
    transfers(Options::new().backend(Backend::Uring), Accepted::default(), 100_000);
}

#[test]
fn transfers_on_the_blocking_back_end_make_and_lose_no_money() {
    transfers(Options::new().backend(Backend::Blocking), Accepted::default(), 20_000);
}

#[test]
fn transfers_decided_on_durable_reads_make_and_lose_no_money() {
    for backend in [Backend::Uring, Backend::Blocking] {
        transfers(common::small().backend(backend), Durable, 2_000);
    }
}
