//! What a test does that can't be run on this machine: it says so, where `cargo test` does not swallow it.
//!
//! Each skip is a line of the error output that begins with `SKIP: ` and names what was not checked. It is also added to the
//! file that `ANNALS_SKIPS` names, if it does, so that a script can count them. Where `ANNALS_NO_SKIPS` is set to anything, the
//! test fails instead.

use std::env;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, Write};

/// Says what is not checked, and why.
pub fn skip(what: impl Display, why: impl Display) {
    let refused = env::var_os("ANNALS_NO_SKIPS").is_some_and(|set| !set.is_empty());
    assert!(!refused, "not checked: {what} ({why})");
    // Written directly, since the harness keeps to itself what `eprintln` writes in a test that passes.
    let _ = writeln!(io::stderr(), "SKIP: {what} ({why})");
    if let Some(file) = env::var_os("ANNALS_SKIPS").filter(|file| !file.is_empty()) {
        let line = format!("{what} ({why})\n");
        let added = OpenOptions::new().append(true).create(true).open(&file);
        added
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|error| panic!("noting a skip in {}: {error}", file.display()));
    }
}
