//! Deciding on several aggregates: a transfer, decided on both balances at one moment and written whole or not at all,
//! by a client that may send it again.
//!
//! `cargo run -p annals --example decide_several`
#![allow(clippy::print_stdout)]

use std::error::Error;

use annals::{Event, Execution, Expect, Recorded, State, Store};

const CLIENT: u128 = 0x51c3_0d9a_77e2_4b18_a6f4_92b0_3e5d_8c71;

/// An account, or the bank, which is only asked whether it is open.
#[derive(Clone, Default)]
struct Account {
    exists: bool,
    balance: i64,
}

impl State for Account {
    fn apply(&mut self, event: &Recorded) {
        let amount = event.data().try_into().map_or(0, i64::from_le_bytes);
        match event.event_type() {
            "Opened" => self.exists = true,
            "Credited" => self.balance += amount,
            "Debited" => self.balance -= amount,
            _ => {}
        }
    }
}

/// Why no money moves.
#[derive(Debug, PartialEq)]
enum Refused {
    Closed,
    NoAccount,
    Short { by: i64 },
}

fn transfer(store: &Store, sequence: u64, from: &str, to: &str, amount: i64) -> Execution<Refused> {
    let executor = store.executor::<Account>().client(CLIENT, sequence);
    executor.execute_all(["bank", from, to], |states| {
        let [bank, from, to] = states else { return Err(Refused::NoAccount) };
        match () {
            () if !bank.exists => Err(Refused::Closed),
            () if !from.exists || !to.exists => Err(Refused::NoAccount),
            () if from.balance < amount => Err(Refused::Short { by: amount - from.balance }),
            () => Ok(vec![
                // No events for the bank: that it is still as it was seen is checked.
                vec![],
                vec![Event::new("Debited", amount.to_le_bytes())],
                vec![Event::new("Credited", amount.to_le_bytes())],
            ]),
        }
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir_in(".")?;
    let store = Store::open(folder.path())?;
    let opened = || Event::new("Opened", "");
    let credit = Event::new("Credited", 100_i64.to_le_bytes());
    store
        .write()
        .append("bank", Expect::Absent, [opened()])
        .append("ada", Expect::Absent, [opened(), credit])
        .append("bob", Expect::Absent, [opened()])
        .submit()?
        .wait()?;

    let first = transfer(&store, 1, "ada", "bob", 70).wait()?;
    let first = first.expect("there is enough").expect("it was written");
    println!(
        "moved 70: ada at version {:?}, bob at {:?}",
        first.version_of("ada"),
        first.version_of("bob")
    );

    // The answer was lost, so it is sent again: the original result, though the account is short by now.
    let again = transfer(&store, 1, "ada", "bob", 70).wait()?;
    let again = again.expect("nothing is decided").expect("it was written");
    assert!(again.is_replay());
    assert_eq!(again.position(), first.position());

    let short = transfer(&store, 2, "ada", "bob", 70).wait()?.unwrap_err();
    println!("once more: {short:?}");
    assert_eq!(short, Refused::Short { by: 40 });
    let nobody = transfer(&store, 2, "ada", "eve", 1).wait()?.unwrap_err();
    assert_eq!(nobody, Refused::NoAccount);

    let balance =
        |key: &str| store.read(key).into_state::<Account>().map(|(account, _)| account.balance);
    println!("ada has {}, bob has {}", balance("ada")?, balance("bob")?);
    assert_eq!((balance("ada")?, balance("bob")?), (30, 70));
    assert_eq!(store.version("bank")?, 1);
    assert_eq!(store.version("eve")?, 0);
    Ok(())
}
