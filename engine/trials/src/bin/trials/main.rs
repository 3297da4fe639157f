//! `trials`: the real store on the real disk, and whether it keeps its promises there.

mod arguments;
mod child;
mod histories;
mod kill;
mod life;
mod parent;
mod plain;
mod report;
mod stragglers;
mod syscalls;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use report::{Failure, note};

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Histories(histories) => histories::run(&histories),
        Command::Recheck { file } => histories::recheck(&file),
        Command::Kill(kill) => kill::run(&kill),
        Command::Syscalls(syscalls) => syscalls::run(&syscalls),
        Command::Stragglers(stragglers) => stragglers::run(&stragglers),
        Command::Life => child::run(),
        Command::PlainWriter { dir } => plain::write_for_ever(&dir),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            note(&failure.to_string());
            match failure {
                Failure::Broken(_) => ExitCode::from(1),
                Failure::NotRun(_) => ExitCode::from(3),
            }
        }
    }
}
