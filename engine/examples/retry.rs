//! The retry after a lost answer: the same client and sequence get the original result, whatever happened since.
//!
//! `cargo run -p annals --example retry`
#![allow(clippy::print_stdout)]

use std::error::Error;

use annals::{Committed, ErrorKind, Event, Expect, Store};

/// A number for this client that stays the same when it starts again; drawn once, kept with its settings.
const CLIENT: u128 = 0x9f2c_41d7_0b66_4e0c_8a35_1e6d_c7b0_5512;

fn pay(store: &Store, sequence: u64, version: u64) -> Result<Committed, annals::Error> {
    store
        .write()
        .append("invoice-7", Expect::Version(version), [Event::new("Paid", r#"{"amount":120}"#)])
        .append("ledger", Expect::Any, [Event::new("Booked", r#"{"invoice":7}"#)])
        .client(CLIENT, sequence)
        .submit()?
        .wait()
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir_in(".")?;
    let store = Store::open(folder.path())?;
    store
        .append("invoice-7", Expect::Absent, [Event::new("Issued", r#"{"amount":120}"#)])?
        .wait()?;

    let first = pay(&store, 1, 1)?;
    println!("paid: invoice-7 at version {}", first.version());
    store.close()?;
    drop(store);

    // The program stopped before it could use the answer. It starts again, and does not know whether it had paid.
    let store = Store::open(folder.path())?;
    let again = pay(&store, 1, 1)?;
    println!("sent again: version {}, a replay: {}", again.version(), again.is_replay());
    assert!(again.is_replay() && !first.is_replay());
    assert_eq!(again.version(), first.version());
    assert_eq!(again.version_of("ledger"), first.version_of("ledger"));
    assert_eq!(again.position(), first.position());
    assert_eq!(store.version("invoice-7")?, 2);
    assert_eq!(store.version("ledger")?, 1);

    // The next thing the client does has the next sequence.
    let refund = store
        .write()
        .append("invoice-7", Expect::Version(2), [Event::new("Refunded", "")])
        .append("ledger", Expect::Any, [Event::new("Booked", "")])
        .client(CLIENT, 2)
        .submit()?
        .wait()?;
    assert_eq!(refund.version(), 3);

    // From then on the first can't be answered any more, and is not written twice either.
    let stale = pay(&store, 1, 1).unwrap_err();
    println!("sent once more, too late: {stale}");
    assert_eq!(stale.kind(), ErrorKind::Duplicate);
    assert_eq!(store.version("invoice-7")?, 3);
    Ok(())
}
