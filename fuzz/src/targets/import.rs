//! Any text as lines of an import. Each line is refused, or it is a write: then it goes into a store, comes out of an
//! export as a line that is taken again, and goes into a second store, which then exports the same and holds the same.

use std::sync::Arc;

use annals::internals::disk::sim::{Order, SimDisk};
use annals::internals::open_on;
use annals::{RecordedWrite, Role, Store};

use crate::harness::{self, Outcome, Target};
use crate::image;
use crate::line::Write;
use crate::recorded;
use crate::stored;
use crate::targets::directory;

/// The target.
pub static TARGET: Target = Target { name: "import", run, corpus: seeds, repair: None };

/// What the disks of both stores may grow to.
const ROOM: u64 = 256 << 10;
/// Lines that are taken go into stores only if they are no more than this: a few say as much as many.
const LINES_MAX: usize = 64;

fn run(input: &[u8]) -> Outcome {
    let lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').take(LINES_MAX).collect();
    let (writes, mut held) = harness::measure(|| {
        lines.iter().filter_map(|line| Write::parse(line).ok()).collect::<Vec<_>>()
    });
    let mut outcome = Outcome { bytes: input.len(), ..Outcome::default() };
    if !writes.is_empty() {
        let disks = [(), ()].map(|()| {
            let disk = image::empty(&image::identity(1, None)).disk(ROOM);
            disk.set_order(Order::Fifo);
            disk
        });
        let (taken, both) = harness::measure(|| through(writes, &disks));
        outcome.reached = taken;
        held = held.max(both);
        outcome.beside = 2 * (2 * ROOM as usize + directory::SHARD_BYTES);
    }
    outcome.held = held;
    outcome
}

/// Whether anything was taken.
fn through(writes: Vec<Write>, disks: &[Arc<SimDisk>; 2]) -> bool {
    let open = |disk: &Arc<SimDisk>| {
        open_on(&directory::options(), disk.clone()).expect("an empty store opens")
    };
    let first = open(&disks[0]);
    for write in writes {
        let sent = sent(&write);
        match append(&first, write) {
            Err(error) => stored::refused(&error),
            Ok(None) => {}
            Ok(Some(position)) => {
                let mut log = first.log(0).from(position).writes();
                let kept = log.next().expect("it is durable").expect("it is whole");
                assert_eq!(held(&kept), sent, "what was taken is not what is stored");
            }
        }
    }
    let lines = export(&first);
    let shown = stored::shard(&first, 0, usize::MAX);
    assert_eq!(shown.error, None);
    first.close().expect("nothing has failed");
    drop(first);

    let second = open(&disks[1]);
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let write = Write::parse(line).unwrap_or_else(|fault| {
            panic!("an exported line is refused: {fault}: {}", String::from_utf8_lossy(line))
        });
        append(&second, write).unwrap_or_else(|error| {
            panic!("an exported line is refused: {error}: {}", String::from_utf8_lossy(line))
        });
    }
    assert_eq!(
        String::from_utf8_lossy(&export(&second)),
        String::from_utf8_lossy(&lines),
        "a second export differs"
    );
    let again = stored::shard(&second, 0, usize::MAX);
    let appended = |shown: &stored::Shown| {
        shown.writes.iter().map(|write| write.appended.clone()).collect::<Vec<_>>()
    };
    assert_eq!(appended(&again), appended(&shown));
    second.close().expect("nothing has failed");
    !shown.writes.is_empty()
}

/// Type and data of each event, with its key.
type Events = Vec<(Vec<u8>, String, Vec<u8>)>;

fn sent(write: &Write) -> Events {
    let events = write.parts.iter().flat_map(|part| {
        let event = |event: &annals::Event| {
            (part.key.clone(), event.event_type().to_owned(), event.data().to_vec())
        };
        part.events.iter().map(event)
    });
    events.collect()
}

fn held(write: &RecordedWrite) -> Events {
    let events = write.parts().flat_map(|part| {
        part.events().map(move |event| {
            (part.key().to_vec(), event.event_type().to_owned(), event.data().to_vec())
        })
    });
    events.collect()
}

/// Where it stands; `None` if it only checked.
fn append(store: &Store, write: Write) -> Result<Option<annals::Position>, annals::Error> {
    let mut builder = store.write();
    for part in write.parts {
        builder = builder.append(part.key, part.expect, part.events);
    }
    for (key, expect) in write.checks {
        builder = builder.check(key, expect);
    }
    let position = builder.submit()?.wait()?.position();
    Ok((position != annals::Position::START).then_some(position))
}

fn export(store: &Store) -> Vec<u8> {
    let mut lines = Vec::new();
    for write in store.log(0).writes() {
        let write = write.expect("it was just written");
        if write.parts().any(|part| part.role() == Role::Append) {
            recorded::push_write(&mut lines, &write);
        }
    }
    lines
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let sample = include_str!("../../../engine/cli/src/sample.jsonl");
    let mut seeds: Vec<(String, Vec<u8>)> = (0..)
        .zip(sample.lines().collect::<Vec<_>>().chunks(3))
        .take(20)
        .map(|(nth, lines)| (format!("sample-{nth}"), lines.join("\n").into_bytes()))
        .collect();
    for (name, line) in [
        (
            "short",
            r#"{"aggregate":"a","type":"T","data":null,"id":255,"time":"1970-01-01T00:00:01Z"}"#,
        ),
        (
            "long",
            r#"{"writes":[{"aggregate":"a","expected":0,"events":[{"type":"T","data":{"x": 1}},{"type":"U"}]},{"aggregate":{"base64":"/w=="},"expected":"any","events":[{"type":"V","data":{"base64":"AA=="}}]}],"checks":[{"aggregate":"c","expected":"absent"}]}"#,
        ),
        (
            "kept",
            r#"{"aggregate":"a","type":"T","time":"soon","id":"00000000-0000-0000-0000-0000000000FF","metadata":[1, 2]}"#,
        ),
        (
            "envelope",
            r#"{"aggregate":"a","type":"T","metadata":{"base64":"AGFubmFscwADAgAAAGFi"}}"#,
        ),
        (
            "beyond",
            r#"{"aggregate":"a","type":"T","time":"@-9223372036854775808us","expected":"absent"}"#,
        ),
        ("checks", r#"{"checks":[{"aggregate":"a","expected":"exists"}]}"#),
    ] {
        seeds.push((name.to_owned(), line.into()));
        seeds.push((format!("{name}-twice"), format!("{line}\n{line}\n").into_bytes()));
    }
    seeds
}
