//! Runs the program on a store of its own and reads what it says.

#![allow(dead_code, reason = "each test file uses its own part")]

#[path = "../../../tests/common/skip.rs"]
mod skip;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;
use serde_json::Value;
use tempfile::TempDir;

use skip::skip;

/// A directory for one store, on a disk, removed at the end.
pub struct Workplace {
    directory: TempDir,
}

/// What a run of the program came to.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Workplace {
    pub fn new() -> Workplace {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Workplace { directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// Writes a file beside the store and returns its path.
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.path().join(name);
        fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The program on this store, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_annals"));
        command.current_dir(self.path()).arg("--store").arg(self.store()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    /// Runs with this on standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || {
            // The program may have stopped reading.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        Ran::from(output)
    }

    /// Runs what has to succeed and returns its output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}{}", ran.out, ran.err);
        ran.out
    }

    /// Imports with a summary for programs.
    pub fn import(&self, arguments: &[&str]) -> (i32, Summary) {
        let ran = self.run(&[&["--json", "import"], arguments].concat());
        (ran.code, Summary::of(&ran))
    }

    pub fn versions(&self) -> BTreeMap<String, u64> {
        let listed = self.ok(&["--json", "list"]);
        listed
            .lines()
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                (line["aggregate"].as_str().unwrap().to_owned(), line["version"].as_u64().unwrap())
            })
            .collect()
    }

    /// The versions, none if there is no store yet.
    pub fn versions_or_none(&self) -> BTreeMap<String, u64> {
        if self.store().exists() { self.versions() } else { BTreeMap::new() }
    }

    pub fn verify_is_clean(&self) {
        let found: Value = serde_json::from_str(&self.ok(&["--json", "verify"])).unwrap();
        assert_eq!(found["clean"], true, "{found}");
    }

    /// The bytes of all files of the store.
    pub fn bytes_on_disk(&self) -> u64 {
        fn below(directory: &Path) -> u64 {
            let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
            entries
                .map(|entry| match entry.metadata().unwrap() {
                    metadata if metadata.is_dir() => below(&entry.path()),
                    metadata => metadata.len(),
                })
                .sum()
        }
        below(&self.store())
    }
}

impl Ran {
    pub fn of(command: &mut Command) -> Ran {
        Ran::from(command.output().unwrap())
    }

    /// The one line on standard error.
    pub fn error(&self) -> &str {
        let error = self.err.strip_prefix("annals: ").and_then(|line| line.strip_suffix('\n'));
        let error = error.unwrap_or_else(|| panic!("no error line: {:?}", self.err));
        assert!(!error.contains('\n'), "{error}");
        error
    }
}

impl From<std::process::Output> for Ran {
    fn from(output: std::process::Output) -> Ran {
        let ran = Ran {
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
        assert!(!ran.out.contains('\x1b') && !ran.err.contains('\x1b'), "colours in a pipe");
        ran
    }
}

/// The summary of an import.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Summary {
    pub writes: u64,
    pub events: u64,
    pub aggregates: u64,
    pub replays: u64,
    pub conflicts: u64,
    pub cross_shard: u64,
    pub bad_lines: u64,
}

impl Summary {
    pub fn of(ran: &Ran) -> Summary {
        let last = ran.out.lines().last().unwrap_or_else(|| panic!("no summary: {}", ran.err));
        let found: Value = serde_json::from_str(last).unwrap();
        let seconds = found["seconds"].as_f64().unwrap();
        assert!(seconds > 0.0 && found["writes_per_second"].as_f64().is_some(), "{found}");
        let count = |name: &str| found[name].as_u64().unwrap_or_else(|| panic!("{name}: {found}"));
        Summary {
            writes: count("writes"),
            events: count("events"),
            aggregates: count("aggregates"),
            replays: count("replays"),
            conflicts: count("conflicts"),
            cross_shard: count("cross_shard"),
            bad_lines: count("bad_lines"),
        }
    }
}

/// The back ends that this machine has.
pub fn backends() -> Vec<&'static str> {
    let probe = Workplace::new();
    let ring = probe.run(&["--backend", "uring", "append", "probe", "--type", "Probe"]);
    if ring.code != 0 {
        skip("the command line on io_uring", ring.err.trim_end());
        return vec!["blocking"];
    }
    vec!["blocking", "uring"]
}

/// A log of real events, if the folder is named.
pub fn real_log(name: &str) -> Option<(String, Vec<String>)> {
    let Some(folder) = std::env::var_os("ANNALS_EVENT_LOGS") else {
        skip("imports of real event logs", "ANNALS_EVENT_LOGS names no folder of them");
        return None;
    };
    let path = Path::new(&folder).join(name);
    let path =
        fs::canonicalize(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut text = String::new();
    GzDecoder::new(File::open(&path).unwrap()).read_to_string(&mut text).unwrap();
    Some((path.to_str().unwrap().to_owned(), text.lines().map(str::to_owned).collect()))
}

/// Says something that the test runner does not hold back.
pub fn say(what: &str) {
    let mut err = std::io::stderr().lock();
    writeln!(err, "{what}").unwrap();
}

/// What a log should come to, worked out from its lines alone.
#[derive(Default)]
pub struct Model {
    pub summary: Summary,
    pub versions: HashMap<String, u64>,
    /// The lines that land, by shard, in order.
    pub landed: BTreeMap<u16, Vec<Value>>,
    pub widest: usize,
}

impl Model {
    /// Every line of these logs states a version for each of its aggregates.
    pub fn of(lines: &[String], shard_of: impl Fn(&str) -> u16) -> Model {
        let mut model = Model::default();
        let mut seen = std::collections::HashSet::new();
        for line in lines {
            let line: Value = serde_json::from_str(line).unwrap();
            let parts = line["writes"].as_array().unwrap();
            let key = |part: &Value| part["aggregate"].as_str().unwrap().to_owned();
            seen.extend(parts.iter().map(key));
            let shard = shard_of(&key(&parts[0]));
            if parts.iter().any(|part| shard_of(&key(part)) != shard) {
                model.summary.cross_shard += 1;
                continue;
            }
            let holds = |part: &Value| {
                let version = model.versions.get(&key(part)).copied().unwrap_or(0);
                part["expected"].as_u64().unwrap() == version
            };
            if !parts.iter().all(holds) {
                model.summary.conflicts += 1;
                continue;
            }
            for part in parts {
                *model.versions.entry(key(part)).or_default() += 1;
                model.summary.events += part["events"].as_array().unwrap().len() as u64;
            }
            model.summary.writes += 1;
            model.widest = model.widest.max(parts.len());
            model.landed.entry(shard).or_default().push(line);
        }
        model.summary.aggregates = seen.len() as u64;
        model
    }
}
