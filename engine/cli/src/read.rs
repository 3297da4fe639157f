//! `annals read`: the events of one aggregate.

use std::process::ExitCode;

use annals::Recorded;

use crate::arguments::{ReadArguments, StoreArguments};
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::{recorded, time, value};

pub(crate) fn run(
    store: &StoreArguments,
    arguments: &ReadArguments,
    out: &mut Output,
) -> Result<ExitCode, Failure> {
    let store = store.open_to_read()?;
    let key = &arguments.key.0;
    let mut read = store.read(key);
    if let Some(version) = arguments.from {
        read = read.from(version);
    }
    if let Some(limit) = arguments.limit {
        read = read.limit(limit);
    }
    if arguments.backwards {
        read = read.backwards();
    }
    let version = read.version();
    let mut shown = 0;
    let mut line = Vec::new();
    for event in read {
        let event = event?;
        shown += 1;
        if out.is_json() {
            line.clear();
            push_json(&mut line, &event);
            out.bytes(&line)?;
        } else {
            out.cut_line(&text(&event))?;
        }
    }
    if !out.is_json() {
        let key = value::shown(key);
        out.line(match version {
            0 => format!("{key} does not exist"),
            _ => {
                format!("{key} is at version {version}; {} shown", output::counted(shown, "event"))
            }
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(event: &Recorded) -> String {
    let mut data = Vec::new();
    if !event.data().is_empty() {
        value::push(&mut data, event.data());
    }
    // JSON may hold control characters beyond ASCII, which a terminal would obey.
    let safe = |text: &str| text.replace(char::is_control, "\u{fffd}");
    let time = recorded::time_text(event).unwrap_or_else(|| time::text_of(event.commit_time()));
    let line = format!(
        "{} {} {}",
        output::bold(format_args!("{:>5}", event.version())),
        output::dim(format_args!("{:<27}", safe(&time))),
        safe(event.event_type()),
    );
    match data.is_empty() {
        true => line,
        false => format!("{line} {}", output::dim(safe(&String::from_utf8_lossy(&data)))),
    }
}

fn push_json(line: &mut Vec<u8>, event: &Recorded) {
    line.extend_from_slice(b"{\"aggregate\":");
    value::push_key(line, event.key());
    line.extend_from_slice(
        format!(
            ",\"version\":{},\"index\":{},\"position\":{},\"committed\":\"{}\",",
            event.version(),
            event.index(),
            event.position().get(),
            time::text_of(event.commit_time()),
        )
        .as_bytes(),
    );
    recorded::push_event(line, event);
    line.extend_from_slice(b"}\n");
}
