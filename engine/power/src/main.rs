//! Cuts the power under the store: `power --help`.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
mod command;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    command::main()
}

/// What this needs, FUSE and loop devices, no other system has.
#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    use std::io::Write;
    let _unread = writeln!(std::io::stderr(), "power needs Linux: FUSE and loop devices");
    ExitCode::from(77)
}
