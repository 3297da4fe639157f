//! The benchmark with Annals and the peers that cost little to build.

use std::process::ExitCode;

fn main() -> ExitCode {
    bench::main(bench::roster::light(include_str!("../../Cargo.lock")))
}
