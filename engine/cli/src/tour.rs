//! `annals` alone: a store in a temporary directory, used for a moment, and what happened.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use annals::{Backend, Error, ErrorKind, Event, Expect, Options, Store};
use serde::Deserialize;
use tempfile::TempDir;

use crate::failure::Failure;
use crate::import::{Import, Summary};
use crate::output::{self, Output, Progress, bold, counted, dim, good, grouped};
use crate::source::Source;

/// Orders, their stock and their customers: what `annals import` takes.
const SAMPLE: &str = include_str!("sample.jsonl");
const ACCOUNTS: u64 = 10;
const OPENING_BALANCE: u64 = 1_000;
const THREADS: u64 = 4;
const TRANSFERS_A_THREAD: u64 = 250;
/// How often, and how many times, a loser looks whether what it lost to is durable.
const LOOK: Duration = Duration::from_micros(50);
const LOOKS_MAX: u32 = 100_000;

pub(crate) fn run(backend: Backend, out: &mut Output) -> Result<ExitCode, Failure> {
    let progress = Progress::new("touring");
    let directory = temporary_directory()?;
    let path = directory.path().join("store");
    let options = Options::new().backend(backend);
    let tour = Tour::take(&options, &path)?;
    drop(progress);
    directory
        .close()
        .map_err(|error| Failure::system("removing the temporary directory", &error))?;
    tour.show(out)?;
    Ok(ExitCode::SUCCESS)
}

/// On a disk rather than in memory: here, or else where temporary files outlive a restart, or else anywhere.
fn temporary_directory() -> Result<TempDir, Failure> {
    let candidates = [PathBuf::from("."), PathBuf::from("/var/tmp"), std::env::temp_dir()];
    let mut builder = tempfile::Builder::new();
    builder.prefix("annals-tour-");
    let made = candidates.iter().find_map(|parent| builder.tempdir_in(parent).ok());
    made.ok_or_else(|| {
        Failure::System("no directory for a temporary store can be written".to_owned())
    })
}

/// What happened.
struct Tour {
    import: Summary,
    transfers: Transfers,
    reopening: Duration,
    recovered_versions: u64,
    verifying: Duration,
    verified_writes: u64,
    money: u64,
}

struct Transfers {
    conflicts: u64,
    time: Duration,
}

impl Tour {
    fn take(options: &Options, path: &Path) -> Result<Tour, Failure> {
        let store = options.clone().open(path)?;
        let mut source =
            Source::new(SAMPLE.as_bytes()).map_err(|error| Failure::system("reading", &error))?;
        let (import, done) = Import::new(&store).run(&mut source);
        done?;
        open_accounts(&store)?;
        let transfers = transfer_money(&store)?;
        store.close()?;
        drop(store);

        let begin = Instant::now();
        let store = options.clone().open(path)?;
        let reopening = begin.elapsed();
        let mut recovered_versions = 0;
        for aggregate in store.aggregates() {
            recovered_versions += aggregate?.1;
        }
        let money = (0..ACCOUNTS).try_fold(0, |sum, account| {
            Balance::of(&store, &account_key(account)).map(|balance| sum + balance.balance)
        })?;
        store.close()?;
        drop(store);

        let begin = Instant::now();
        let verification = annals::verify(path, |_, _| ())?;
        if let Some(problem) = verification.problems.first() {
            return Err(Failure::Damage(problem.to_string()));
        }
        let verifying = begin.elapsed();
        let verified_writes = verification.writes;
        if money != ACCOUNTS * OPENING_BALANCE {
            return Err(Failure::Damage(format!("the accounts hold {money} in all")));
        }
        Ok(Tour {
            import,
            transfers,
            reopening,
            recovered_versions,
            verifying,
            verified_writes,
            money,
        })
    }

    fn show(&self, out: &mut Output) -> Result<(), Failure> {
        let transfers = THREADS * TRANSFERS_A_THREAD;
        if out.is_json() {
            let line = format!(
                "{{\"writes\":{},\"events\":{},\"aggregates\":{},\"transfers\":{transfers},\"conflicts\":{},\
                 \"recovered_versions\":{},\"verified_writes\":{},\"money\":{}}}",
                self.import.writes,
                self.import.events,
                self.import.aggregates,
                self.transfers.conflicts,
                self.recovered_versions,
                self.verified_writes,
                self.money,
            );
            return Ok(out.line(line)?);
        }
        let rate = transfers as f64 / self.transfers.time.as_secs_f64();
        let mut table = output::Table::new(&["", "what happened", "time"], &[2]);
        let mut row = |cells: [&str; 3]| table.row(cells.map(str::to_owned));
        let time = |time: Duration| output::duration(time);
        row([
            &bold("import"),
            &format!(
                "{} with {} to {}",
                counted(self.import.writes, "write"),
                counted(self.import.events, "event"),
                counted(self.import.aggregates, "aggregate"),
            ),
            &time(self.import.time),
        ]);
        row(["", "an order and its stock in one write, all or nothing", ""]);
        row([
            &bold("transfer"),
            &format!(
                "{} transfers among {ACCOUNTS} accounts by {THREADS} threads",
                grouped(transfers)
            ),
            &time(self.transfers.time),
        ]);
        row([
            "",
            &format!(
                "{} refused as conflicts, read again and retried",
                grouped(self.transfers.conflicts)
            ),
            "",
        ]);
        row(["", &format!("{} acknowledged a second, each durable", grouped(rate as u64)), ""]);
        row([
            &bold("reopen"),
            &format!("{} versions recovered from the log", grouped(self.recovered_versions)),
            &time(self.reopening),
        ]);
        row([
            &bold("verify"),
            &format!(
                "{} checked: checksums, chain, conditions",
                counted(self.verified_writes, "write")
            ),
            &time(self.verifying),
        ]);
        row([
            &bold("money"),
            &format!(
                "{} before, {} after",
                grouped(ACCOUNTS * OPENING_BALANCE),
                grouped(self.money)
            ),
            &good("conserved"),
        ]);
        out.line("A store in a temporary directory, used for a moment and removed:")?;
        out.line("")?;
        table.write(out)?;
        out.line("")?;
        out.line("What to try next:")?;
        let program = program();
        for (arguments, what) in [
            ("append order-1 --type Placed --expect absent", "durable"),
            ("append order-1 --type Shipped --expect 1", "twice: a conflict"),
            ("read order-1", "its events"),
            ("export", "JSON, for import"),
            ("verify", "the whole log"),
            ("help", "all the rest"),
        ] {
            out.line(format_args!("  {program} {arguments:<44} {}", dim(what)))?;
        }
        Ok(())
    }
}

/// How this program was called.
fn program() -> &'static str {
    match std::env::var_os("CARGO") {
        Some(_) => "cargo run -r --",
        None => "annals",
    }
}

fn account_key(account: u64) -> String {
    format!("account/{account}")
}

fn open_accounts(store: &Store) -> Result<(), Failure> {
    let write = (0..ACCOUNTS).fold(store.write(), |write, account| {
        let event = Event::new("Opened", format!("{{\"balance\":{OPENING_BALANCE}}}"));
        write.append(account_key(account), Expect::Absent, [event])
    });
    write.submit()?.wait()?;
    Ok(())
}

/// What an account holds, and at which version.
struct Balance {
    version: u64,
    balance: u64,
}

#[derive(Deserialize)]
struct BalanceData {
    balance: u64,
}

impl Balance {
    /// Every event of an account says what it holds after it, so the newest is enough.
    fn of(store: &Store, key: &str) -> Result<Balance, Failure> {
        let mut read = store.read(key).backwards().limit(1);
        let missing = || Failure::Damage(format!("{key} has no events"));
        let newest = read.next().ok_or_else(missing)??;
        let data: BalanceData = serde_json::from_slice(newest.data())
            .map_err(|error| Failure::Damage(format!("{key}: {error}")))?;
        Ok(Balance { version: newest.version(), balance: data.balance })
    }
}

fn transfer_money(store: &Store) -> Result<Transfers, Failure> {
    let conflicts = &AtomicU64::new(0);
    let begin = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|seed| {
                scope.spawn(move || transfer_on_one_thread(store, seed_of(seed), conflicts))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    Ok(Transfers { conflicts: conflicts.load(Ordering::Relaxed), time: begin.elapsed() })
}

fn seed_of(thread: u64) -> u64 {
    0x9e37_79b9_7f4a_7c15 ^ (thread + 1)
}

fn transfer_on_one_thread(
    store: &Store,
    mut random: u64,
    conflicts: &AtomicU64,
) -> Result<(), Failure> {
    let mut below = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    for _ in 0..TRANSFERS_A_THREAD {
        let from = below(ACCOUNTS);
        let to = (from + 1 + below(ACCOUNTS - 1)) % ACCOUNTS;
        let amount = 1 + below(20);
        while !transfer(store, &account_key(from), &account_key(to), amount)? {
            conflicts.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Moves money on the versions that were read. Says false if another thread was faster.
fn transfer(store: &Store, from: &str, to: &str, amount: u64) -> Result<bool, Failure> {
    let (source, target) = (Balance::of(store, from)?, Balance::of(store, to)?);
    // An empty account gives nothing; that too has to be true when the write takes effect.
    let amount = amount.min(source.balance);
    let moved = |kind, balance| {
        [Event::new(kind, format!("{{\"amount\":{amount},\"balance\":{balance}}}"))]
    };
    let write = store
        .write()
        .append(from, Expect::Version(source.version), moved("Debited", source.balance - amount))
        .append(to, Expect::Version(target.version), moved("Credited", target.balance + amount));
    match write.submit().and_then(|ticket| ticket.wait()) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Conflict => {
            wait_for_the_winner(store, &error)?;
            Ok(false)
        }
        Err(error) => Err(Failure::Store(error)),
    }
}

/// A read shows only what is durable, so until the winner is, it would show the version that lost.
fn wait_for_the_winner(store: &Store, conflict: &Error) -> Result<(), Failure> {
    if let (Some(key), Some(actual)) = (conflict.key(), conflict.actual()) {
        for _ in 0..LOOKS_MAX {
            if store.version(key)? >= actual {
                break;
            }
            thread::sleep(LOOK);
        }
    }
    Ok(())
}
