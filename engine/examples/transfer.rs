//! The transfer: money leaves one account and reaches another in one write, or not at all.
//!
//! `cargo run -p annals --example transfer`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::thread;

use annals::{ErrorKind, Event, Expect, Store};

const ACCOUNTS: u64 = 4;
const START: i64 = 100;

fn key(account: u64) -> String {
    format!("account-{account}")
}

/// The version and the balance of one account.
fn balance(store: &Store, account: u64) -> Result<(u64, i64), annals::Error> {
    let read = store.read(key(account));
    let version = read.version();
    let mut balance = 0;
    for event in read {
        let event = event?;
        let amount = event.data().try_into().map(i64::from_le_bytes).unwrap_or(0);
        match event.event_type() {
            "Debited" => balance -= amount,
            _ => balance += amount,
        }
    }
    Ok((version, balance))
}

/// Whether the money moved: not if the account does not hold it.
fn transfer(store: &Store, from: u64, to: u64, amount: i64) -> Result<bool, annals::Error> {
    loop {
        let (from_version, held) = balance(store, from)?;
        if held < amount {
            return Ok(false);
        }
        let written = store
            .write()
            .append(
                key(from),
                Expect::Version(from_version),
                [Event::new("Debited", amount.to_le_bytes())],
            )
            // Whoever receives need not be read: it is enough that the account exists.
            .append(key(to), Expect::Exists, [Event::new("Credited", amount.to_le_bytes())])
            .check("bank", Expect::Version(1))
            .submit();
        match written {
            Ok(ticket) => return ticket.wait().map(|_| true),
            // Wait until the winner is durable: reads show nothing that is not.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                if let Some(winner) = error.winner() {
                    winner.wait()?;
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir_in(".")?;
    let store = Store::open(folder.path())?;

    let mut opening = store.write().append("bank", Expect::Absent, [Event::new("Opened", "")]);
    for account in 0..ACCOUNTS {
        let event = Event::new("Credited", START.to_le_bytes());
        opening = opening.append(key(account), Expect::Absent, [event]);
    }
    opening.submit()?.wait()?;

    let moved: u32 = thread::scope(|scope| {
        let threads: Vec<_> = (0..ACCOUNTS)
            .map(|from| {
                let store = &store;
                scope.spawn(move || -> Result<u32, annals::Error> {
                    let mut moved = 0;
                    for step in 1..ACCOUNTS * 5 {
                        let to = (from + 1 + step % (ACCOUNTS - 1)) % ACCOUNTS;
                        moved += u32::from(transfer(store, from, to, 15)?);
                    }
                    Ok(moved)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|each| each.join().expect("no transfer panics"))
            .sum::<Result<_, _>>()
    })?;

    let mut total = 0;
    for account in 0..ACCOUNTS {
        let (version, balance) = balance(&store, account)?;
        println!("{}: {balance:4} at version {version}", key(account));
        assert!(balance >= 0);
        total += balance;
    }
    println!("{moved} transfers, {total} in all accounts");
    assert_eq!(total, START * ACCOUNTS as i64);

    // A missing account refuses the write whole: nothing is debited.
    let before = store.version(key(0))?;
    let refused = store
        .write()
        .append(key(0), Expect::Any, [Event::new("Debited", 1_i64.to_le_bytes())])
        .append("account-99", Expect::Exists, [Event::new("Credited", 1_i64.to_le_bytes())])
        .submit()
        .unwrap_err();
    println!("{refused}");
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert_eq!(store.version(key(0))?, before);
    Ok(())
}
