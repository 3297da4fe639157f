//! The time sheet that must never pass 40 hours, with two clients that add 8 at once.
//!
//! Each client reads, decides and writes without telling the other. The condition on the version is all that keeps
//! the sheet within its limit.
//!
//! `cargo run -p annals --example time_sheet`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::sync::Barrier;
use std::thread;

use annals::{ErrorKind, Event, Expect, Store};

const SHEET: &str = "sheet/ada/week-27";
const LIMIT_HOURS: u32 = 40;

fn hours(store: &Store) -> Result<(u64, u32), annals::Error> {
    let read = store.read(SHEET);
    let version = read.version();
    let mut total = 0;
    for event in read {
        total += u32::from(event?.data().first().copied().unwrap_or(0));
    }
    Ok((version, total))
}

/// What became of one client's day.
#[derive(Default)]
struct Tally {
    added: u32,
    conflicts: u32,
}

fn add_until_full(store: &Store, client: &str, start: &Barrier) -> Result<Tally, annals::Error> {
    let mut tally = Tally::default();
    start.wait();
    loop {
        let (version, total) = hours(store)?;
        if total + 8 > LIMIT_HOURS {
            return Ok(tally);
        }
        let event = Event::new("HoursAdded", [8]).metadata(client);
        match store.append(SHEET, Expect::Version(version), [event]) {
            Ok(ticket) => {
                ticket.wait()?;
                tally.added += 8;
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                tally.conflicts += 1;
                // The winner may not be durable yet, and reads show only what is.
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

    let start = Barrier::new(2);
    let (phone, laptop) = thread::scope(|scope| {
        let phone = scope.spawn(|| add_until_full(&store, "phone", &start));
        let laptop = scope.spawn(|| add_until_full(&store, "laptop", &start));
        (phone.join(), laptop.join())
    });
    let phone = phone.map_err(|_| "the phone panicked")??;
    let laptop = laptop.map_err(|_| "the laptop panicked")??;

    let (version, total) = hours(&store)?;
    println!("phone  added {:2} h, {} conflicts", phone.added, phone.conflicts);
    println!("laptop added {:2} h, {} conflicts", laptop.added, laptop.conflicts);
    println!("the sheet stands at {total} h, version {version}");
    assert_eq!(total, LIMIT_HOURS);
    assert_eq!(version, 5);
    assert_eq!(phone.added + laptop.added, total);
    Ok(())
}
