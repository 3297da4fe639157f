//! The command line of Annals: `annals help` says what it can do, `annals` alone shows it.

mod append;
mod arguments;
mod envelope;
mod export;
mod failure;
mod import;
mod line;
mod list;
mod output;
mod read;
mod recorded;
mod salvage;
mod source;
mod stats;
mod time;
mod tour;
mod value;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = Output::new(arguments.json);
    let done = run(&arguments, &mut out);
    // What a command wrote before it failed counts.
    let written = out.flush().map_err(Failure::from);
    let failure = match (done, written) {
        (Ok(code), Ok(()) | Err(Failure::Unread)) => return code,
        (Err(failure), _) | (Ok(_), Err(failure)) => failure,
    };
    if !matches!(failure, Failure::Unread) {
        output::note(&failure);
    }
    failure.exit_code()
}

fn run(arguments: &Arguments, out: &mut Output) -> Result<ExitCode, Failure> {
    let store = &arguments.store;
    match &arguments.command {
        None => tour::run(store.backend(), out),
        Some(Command::Append(append)) => append::run(store, append, out),
        Some(Command::Read(read)) => read::run(store, read, out),
        Some(Command::List(list)) => list::run(store, list, out),
        Some(Command::Import(import)) => import::run(store, import, out),
        Some(Command::Export(export)) => export::run(store, export, out),
        Some(Command::Verify) => verify::run(store, out),
        Some(Command::Salvage(salvage)) => salvage::run(salvage, out),
        Some(Command::Stats) => stats::run(store, out),
    }
}
