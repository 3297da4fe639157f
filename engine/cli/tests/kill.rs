//! Kills an import in its middle, again and again: what it left is clean, and the import goes on from there.

mod common;

use std::io::Write;
use std::process::Stdio;

use common::{Workplace, backends, real_log};
use serde_json::Value;

const KILLS: usize = 10;
const ATTEMPTS: usize = 60;

/// A real log, or the sample, repeated under new keys until it is long enough to be killed in its middle.
fn long_log() -> Vec<String> {
    let (once, times) = match real_log("permits.jsonl.gz") {
        Some((_, lines)) => (lines, 3),
        None => (include_str!("../src/sample.jsonl").lines().map(str::to_owned).collect(), 100),
    };
    let member = "\"aggregate\":\"";
    let copies = (0..times).flat_map(|copy| {
        let once = &once;
        once.iter().map(move |line| line.replace(member, &format!("{member}copy-{copy}/")) + "\n")
    });
    copies.collect()
}

/// Feeds lines to an import and kills it at once. It may have read and stored any part of them.
fn kill_after(place: &Workplace, backend: &str, lines: &[String]) {
    let import = ["--backend", backend, "import", "-", "--client", "kill"];
    let mut child = place.command(&import).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for line in lines {
        stdin.write_all(line.as_bytes()).unwrap();
    }
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), None, "it ended before it was killed");
}

/// How many writes a verification finds, which has to be clean.
fn stored(place: &Workplace) -> usize {
    let found: Value = serde_json::from_str(&place.ok(&["--json", "verify"])).unwrap();
    assert_eq!(found["clean"], true, "{found}");
    found["writes"].as_u64().unwrap() as usize
}

#[test]
fn ten_kills_and_the_end_is_that_of_one_whole_import() {
    let log = long_log();
    for backend in backends() {
        let place = Workplace::new();
        place.ok(&["--backend", backend, "append", "first", "--type", "Created"]);
        let (mut before, mut landed) = (stored(&place), 0);
        for attempt in 0..ATTEMPTS {
            let step = log.len() / (KILLS + 3) + attempt * 37 % 211;
            let fed = (before + step).min(log.len() - 1);
            kill_after(&place, backend, &log[..fed]);
            let after = stored(&place);
            assert!(after >= before, "{before} lines stored, then {after}");
            landed += usize::from(after > before);
            before = after;
            if landed == KILLS {
                break;
            }
        }
        assert_eq!(landed, KILLS, "{backend}: {before} of {} lines stored", log.len());
        assert!(before < log.len());
        common::say(&format!("{backend}: {landed} kills, {before} of {} lines stored", log.len()));

        let file = place.file("whole.jsonl", log.concat());
        let (code, rest) = place.import(&[&file, "--client", "kill", "--backend", backend]);
        let landed_before = before as u64 - 1;
        assert_eq!((code, rest.replays, rest.conflicts), (0, landed_before, 0));
        assert_eq!(rest.writes, log.len() as u64 - landed_before);
        place.verify_is_clean();

        let whole = Workplace::new();
        whole.ok(&["--backend", backend, "append", "first", "--type", "Created"]);
        whole.import(&[&file, "--backend", backend]);
        assert!(place.ok(&["export"]) == whole.ok(&["export"]), "{backend}: the logs differ");
        assert_eq!(place.versions(), whole.versions());
    }
}
