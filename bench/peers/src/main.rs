//! The benchmark with all peers.

use std::process::ExitCode;

fn main() -> ExitCode {
    bench_peers::uma::serve()
        .unwrap_or_else(|| bench::main(bench_peers::roster(include_str!("../Cargo.lock"))))
}
