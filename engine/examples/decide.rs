//! Deciding on one aggregate: fold what happened, decide, append on the version that was seen, and again if somebody
//! came in between. Many decisions are in flight at once, each on the accepted result of the one before.
//!
//! `cargo run -p annals --example decide`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::thread;

use annals::{Event, Execution, Recorded, State, States, Store};

const SHEET: &str = "sheet/ada/week-27";
const LIMIT_HOURS: u64 = 40;

/// What the events of a time sheet add up to.
#[derive(Clone, Default)]
struct Sheet {
    hours: u64,
}

impl State for Sheet {
    fn apply(&mut self, event: &Recorded) {
        if event.event_type() == "HoursAdded" {
            self.hours += event.data().first().copied().map_or(0, u64::from);
        }
    }
}

/// Why hours are not added.
#[derive(Debug, PartialEq)]
struct TooMany {
    already: u64,
}

/// Decides at once. What was decided is durable when the execution resolves, a refusal too.
fn add(sheets: &States<Sheet>, client: &str, hours: u8) -> Execution<TooMany> {
    sheets.execute(SHEET, |sheet| match sheet.hours + u64::from(hours) {
        ..=LIMIT_HOURS => Ok(vec![Event::new("HoursAdded", [hours]).metadata(client)]),
        _ => Err(TooMany { already: sheet.hours }),
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir_in(".")?;
    let store = Store::open(folder.path())?;
    // The folded sheets of so many people are kept, so that none is folded from its start again.
    let sheets: States<Sheet> = store.states(1000);

    // Two clients, four days each, none of which waits for the disk before the next.
    let outcomes = thread::scope(|scope| {
        let clients = ["phone", "laptop"].map(|client| {
            let sheets = &sheets;
            scope.spawn(move || {
                let days: Vec<_> = (0..4).map(|_| add(sheets, client, 8)).collect();
                days.into_iter().map(Execution::wait).collect::<Result<Vec<_>, _>>()
            })
        });
        clients.map(|client| client.join().map_err(|_| "a client panicked"))
    });

    let (mut added, mut refused) = (0, 0);
    for outcome in outcomes {
        for day in outcome?? {
            match day {
                Ok(_) => added += 1,
                Err(TooMany { already }) => {
                    refused += 1;
                    assert_eq!(already, LIMIT_HOURS);
                }
            }
        }
    }
    println!("{added} days were added, {refused} refused");
    assert_eq!((added, refused), (5, 3));

    // A decision on no events is `None`.
    let nothing = sheets.execute(SHEET, |_| Ok::<_, TooMany>(vec![])).wait()?;
    assert!(nothing.expect("it did not refuse").is_none());

    let (sheet, version) = store.read(SHEET).into_state::<Sheet>()?;
    println!("the sheet stands at {} h, version {version}", sheet.hours);
    assert_eq!((sheet.hours, version), (LIMIT_HOURS, 5));
    Ok(())
}
