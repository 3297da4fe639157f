//! `annals append`: one event.

use std::io::{self, Read};
use std::process::ExitCode;

use annals::Event;

use crate::arguments::{AppendArguments, StoreArguments};
use crate::failure::Failure;
use crate::output::Output;
use crate::value;

pub(crate) fn run(
    store: &StoreArguments,
    arguments: &AppendArguments,
    out: &mut Output,
) -> Result<ExitCode, Failure> {
    let event = Event::new(&arguments.event_type, data(arguments)?);
    let store = store.open()?;
    let key = &arguments.key.0;
    let done = store.append(key, arguments.expect, [event])?.wait()?;
    store.close()?;
    if out.is_json() {
        let mut line = b"{\"aggregate\":".to_vec();
        value::push_key(&mut line, key);
        line.extend_from_slice(
            format!(",\"version\":{},\"position\":{}}}\n", done.version(), done.position().get())
                .as_bytes(),
        );
        out.bytes(&line)?;
    } else {
        out.line(format_args!("{} is at version {}", value::shown(key), done.version()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn data(arguments: &AppendArguments) -> Result<Vec<u8>, Failure> {
    match &arguments.data {
        Some(data) if data != "-" => Ok(data.as_encoded_bytes().to_vec()),
        None if arguments.from_stdin.is_none() => Ok(Vec::new()),
        _ => from_stdin(),
    }
}

/// All of standard input. No write can hold more than the bound, so that is all that is read; the store refuses it.
fn from_stdin() -> Result<Vec<u8>, Failure> {
    const BYTES_MAX: u64 = 64 << 20;
    let mut data = Vec::new();
    io::stdin()
        .lock()
        .take(BYTES_MAX)
        .read_to_end(&mut data)
        .map_err(|error| Failure::Input(format!("reading standard input: {error}")))?;
    Ok(data)
}
