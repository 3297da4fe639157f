//! Runs each target for some seconds from a fixed seed, and says what that reached.
//!
//! ```text
//! cargo run --example smoke                                 10 seconds for each target
//! cargo run --example smoke -- --seconds 240 --seed 7       longer, and another run
//! cargo run --example smoke -- --sanitizer address segment  one target, with AddressSanitizer
//! ```
//!
//! It fails if a target finds something, executes fewer inputs than it should or reaches too few of those that are
//! accepted; and if the canary does *not* find its planted fault. A slow machine gets its least numbers with more
//! seconds. What was found lies in `artifacts/<target>`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use annals_fuzz::harness::Target;
use annals_fuzz::targets::{ALL, canary};

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
const SEED: u32 = 20_261_130;
/// The fewest inputs a second, far below what an idle core does, so that a target that does nothing is noticed.
const EXECUTIONS_MIN: u64 = 5;
/// The fewest of them a second that are accepted behind checksums and syntax.
const REACHED_MIN: u64 = 1;
/// The canary is given so many times the seconds of the others before it is given up: it stops when it finds.
const CANARY_PATIENCE: u64 = 6;

struct Arguments {
    seconds: u64,
    seed: u32,
    sanitizer: String,
    targets: Vec<&'static Target>,
}

/// What a run of a target came to.
struct Ran {
    executed: u64,
    reached: u64,
    found: bool,
    seconds: f64,
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("expected [--seconds N] [--seed N] [--sanitizer none|address] [TARGET…]");
        return ExitCode::from(2);
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !build(root, &arguments.sanitizer) {
        return ExitCode::FAILURE;
    }
    println!("{:<12} {:>10} {:>10} {:>10}  outcome", "target", "inputs", "a second", "reached");
    let mut failed = false;
    for target in &arguments.targets {
        let ran = run(root, target, &arguments);
        let wrong = wrong(target, &ran, arguments.seconds);
        println!(
            "{:<12} {:>10} {:>10.0} {:>10}  {}",
            target.name,
            ran.executed,
            ran.executed as f64 / ran.seconds,
            ran.reached,
            wrong.as_deref().unwrap_or(if ran.found {
                "found, as it has to be"
            } else {
                "nothing found"
            }),
        );
        failed |= wrong.is_some();
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn arguments() -> Option<Arguments> {
    let mut arguments =
        Arguments { seconds: 10, seed: SEED, sanitizer: "none".to_owned(), targets: Vec::new() };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--seconds" => arguments.seconds = given.next()?.parse().ok()?,
            "--seed" => arguments.seed = given.next()?.parse().ok()?,
            "--sanitizer" => arguments.sanitizer = given.next()?,
            name => arguments.targets.push(ALL.iter().copied().find(|target| target.name == name)?),
        }
    }
    if arguments.targets.is_empty() {
        arguments.targets = ALL.to_vec();
    }
    Some(arguments)
}

/// All targets with one build.
fn build(root: &Path, sanitizer: &str) -> bool {
    let begun = Instant::now();
    let built = Command::new("cargo")
        .args(["+nightly", "fuzz", "build", "--sanitizer", sanitizer])
        .current_dir(root)
        .env_remove("RUSTUP_TOOLCHAIN")
        .status();
    println!("built in {:.0} s, sanitizer {sanitizer}", begun.elapsed().as_secs_f64());
    built.is_ok_and(|status| status.success())
}

fn run(root: &Path, target: &Target, arguments: &Arguments) -> Ran {
    let artifacts = root.join("artifacts").join(target.name);
    // What the fuzzer adds to a corpus is kept apart, so that a run from one seed begins as the last one did.
    let added = root.join("target/smoke").join(target.name);
    let seeds = root.join("target/smoke-seeds").join(target.name);
    for directory in [&artifacts, &added, &seeds] {
        let _none = fs::remove_dir_all(directory).err();
        fs::create_dir_all(directory).expect("the checkout can be written to");
    }
    for (name, input) in (target.corpus)() {
        fs::write(seeds.join(name), input).expect("the checkout can be written to");
    }
    let mut directories = vec![added, seeds];
    // What is kept of the canary is what finds it.
    let kept = root.join("regressions").join(target.name);
    if kept.is_dir() && target.name != canary::TARGET.name {
        directories.push(kept);
    }
    let is_canary = target.name == canary::TARGET.name;
    let seconds = arguments.seconds * if is_canary { CANARY_PATIENCE } else { 1 };
    let begun = Instant::now();
    let output = Command::new(program(root, target))
        .args(directories)
        .arg(format!("-seed={}", arguments.seed))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1", "-max_len=8192"])
        .current_dir(root)
        .output()
        .expect("the target was built");
    let said = String::from_utf8_lossy(&output.stderr);
    let found = !output.status.success();
    if found && !is_canary {
        eprintln!("{said}");
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ran { executed: executed(&said), reached: reached(&said), found, seconds }
}

fn program(root: &Path, target: &Target) -> PathBuf {
    root.join("target").join(TRIPLE).join("release").join(target.name)
}

/// How many inputs ran, as the fuzzer says also when it ends with a crash.
fn executed(said: &str) -> u64 {
    let name = "stat::number_of_executed_units:";
    let line = said.lines().rev().find_map(|line| line.strip_prefix(name));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// How many of them were accepted, from `annals: 5 of 7 inputs reached`; a crash leaves that unsaid.
fn reached(said: &str) -> u64 {
    let line = said.lines().rev().find_map(|line| line.strip_prefix("annals: "));
    line.and_then(|line| line.split_once(" of ")?.0.parse().ok()).unwrap_or(0)
}

/// What is wrong with a run, if anything is.
fn wrong(target: &Target, ran: &Ran, seconds: u64) -> Option<String> {
    if target.name == canary::TARGET.name {
        return (!ran.found).then(|| "FAILED: the planted fault was not found".to_owned());
    }
    if ran.found {
        return Some(format!("FAILED: see artifacts/{}", target.name));
    }
    let least = EXECUTIONS_MIN * seconds;
    if ran.executed < least {
        return Some(format!("FAILED: expected at least {least} inputs"));
    }
    let least = REACHED_MIN * seconds;
    (ran.reached < least).then(|| format!("FAILED: expected at least {least} inputs to reach"))
}
