//! Every command: what it prints, what it changes, and its exit code.

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use common::{Ran, Workplace};
use serde_json::{Value, json};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sample.jsonl");

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn append_and_read() {
    let place = Workplace::new();
    let first = place.ok(&[
        "append",
        "order-1",
        "--type",
        "Placed",
        "--expect",
        "absent",
        "--data",
        r#"{"n": 1}"#,
    ]);
    assert_eq!(first, "order-1 is at version 1\n");
    place.ok(&["append", "order-1", "--type", "Paid", "--expect", "1"]);
    place.ok(&["append", "order-1", "--type", "Shipped", "--expect", "exists", "--data", "-5"]);
    let fourth =
        place.ok(&["--json", "append", "order-1", "--type", "Rated", "--data", "plain text"]);
    assert_eq!(lines(&fourth)[0]["version"], 4);

    let events = lines(&place.ok(&["--json", "read", "order-1"]));
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["Placed", "Paid", "Shipped", "Rated"]);
    assert_eq!(events[0]["data"], json!({"n": 1}));
    assert_eq!(events[1].get("data"), None);
    assert_eq!(events[2]["data"], -5);
    assert_eq!(events[3]["data"], json!({"base64": "cGxhaW4gdGV4dA=="}));
    assert_eq!(events[3]["aggregate"], "order-1");

    let versions = |arguments: &[&str]| -> Vec<u64> {
        let read = place.ok(&[&["--json", "read", "order-1"], arguments].concat());
        lines(&read).iter().map(|event| event["version"].as_u64().unwrap()).collect()
    };
    assert_eq!(versions(&["--from", "3"]), [3, 4]);
    assert_eq!(versions(&["--limit", "2"]), [1, 2]);
    assert_eq!(versions(&["--backwards", "--limit", "2"]), [4, 3]);
    assert_eq!(versions(&["--backwards", "--from", "2"]), [2, 1]);

    let shown = place.ok(&["read", "order-1"]);
    assert!(shown.contains("Placed {\"n\": 1}"), "{shown}");
    assert!(shown.ends_with("order-1 is at version 4; 4 events shown\n"), "{shown}");
    assert_eq!(place.ok(&["read", "order-2"]), "order-2 does not exist\n");
    assert_eq!(place.ok(&["--json", "read", "order-2"]), "");
}

#[test]
fn data_comes_from_standard_input_as_it_is() {
    let place = Workplace::new();
    for arguments in [["--data", "-"].as_slice(), &["-"]] {
        let append = [&["append", "blob", "--type", "Kept"], arguments].concat();
        assert_eq!(place.run_with_input(&append, b"\xff\0").code, 0);
    }
    for event in lines(&place.ok(&["--json", "read", "blob"])) {
        assert_eq!(event["data"], json!({"base64": "/wA="}));
    }
}

#[test]
fn a_conflict_is_exit_code_1_and_changes_nothing() {
    let place = Workplace::new();
    place.ok(&["append", "order-1", "--type", "Placed"]);
    let before = place.ok(&["export"]);
    for (expect, key, code) in [
        ("5", "order-1", "2003"),
        ("0", "order-1", "2003"),
        ("absent", "order-1", "2003"),
        ("1", "order-2", "2003"),
        ("exists", "order-2", "2005"),
    ] {
        let ran = place.run(&["append", key, "--type", "T", "--expect", expect]);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{expect} {key}");
        assert!(ran.error().contains(key) && ran.error().contains(code), "{}", ran.error());
    }
    assert_eq!(place.ok(&["export"]), before);
}

#[test]
fn keys_are_any_bytes() {
    let place = Workplace::new();
    let key = r#"{"base64":"/wA="}"#;
    place.ok(&["append", key, "--type", "T"]);
    place.ok(&["append", "ключ \"1\"", "--type", "T"]);
    let listed = lines(&place.ok(&["--json", "list"]));
    assert_eq!(listed[0]["aggregate"], "ключ \"1\"");
    assert_eq!(listed[1]["aggregate"], json!({"base64": "/wA="}));
    assert_eq!(lines(&place.ok(&["--json", "read", key])).len(), 1);
    assert_eq!(lines(&place.ok(&["--json", "list", "--prefix", "кл"])).len(), 1);
    assert_eq!(lines(&place.ok(&["export", key])).len(), 1);
}

#[test]
fn wrong_usage_is_exit_code_2_and_makes_no_store() {
    let place = Workplace::new();
    let long_key = "k".repeat(1025);
    let long_type = "t".repeat(256);
    for arguments in [
        &["fly"][..],
        &["append"],
        &["append", "order-1"],
        &["append", "order-1", "--type", "T", "--expect", "soon"],
        &["append", "order-1", "--type", "T", "--data", "x", "-"],
        &["append", "order-1", "--type", "T", "--backend", "tape"],
        &["append", "order-1", "--type", "T", "--route-prefix", "ab"],
        &["append", "order-1", "--type", "T", "--segment-bytes", "lots"],
        &["append", "order-1", "--type", "T", "--shards", "0"],
        &["append", "order-1", "--type", "T", "--shards", "1025"],
        &["append", "order-1", "--type", "T", "--segment-bytes", "1023K"],
        &["read"],
        &["read", "order-1"],
        &["list"],
        &["export"],
        &["verify"],
        &["stats"],
        &["import"],
        &["import", "no-such-file.jsonl"],
        &["import", "."],
    ] {
        let ran = place.run(arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {}{}", ran.out, ran.err);
        assert!(!ran.err.is_empty() && ran.out.is_empty(), "{arguments:?}");
        assert!(!place.store().exists(), "{arguments:?}");
    }
    for arguments in [
        &["append", "", "--type", "T"][..],
        &["append", &long_key, "--type", "T"],
        &["append", "order-1", "--type", ""],
        &["append", "order-1", "--type", &long_type],
    ] {
        let ran = place.run(arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.err);
        assert!(ran.error().contains("100"), "{}", ran.error());
        assert_eq!(place.ok(&["list", "--json"]), "", "{arguments:?}");
    }
}

#[test]
fn options_that_contradict_the_store_are_named() {
    let place = Workplace::new();
    place.ok(&["--shards", "3", "--route-prefix", "/", "append", "a/1", "--type", "T"]);
    place.ok(&["--shards", "3", "append", "a/2", "--type", "T"]);
    let ran = place.run(&["--shards", "2", "append", "a/3", "--type", "T"]);
    assert_eq!(ran.code, 2);
    assert!(ran.error().contains('2') && ran.error().contains('3'), "{}", ran.error());
    assert_eq!(place.versions().len(), 2);
}

#[test]
fn a_store_that_is_a_file_is_refused() {
    let place = Workplace::new();
    place.file("store", "not a store");
    for arguments in [&["append", "order-1", "--type", "T"][..], &["list"], &["verify"]] {
        let ran = place.run(arguments);
        assert!(matches!(ran.code, 2 | 3), "{arguments:?}: {}", ran.code);
        assert!(ran.error().contains("store"), "{}", ran.error());
    }
    assert_eq!(std::fs::read(place.store()).unwrap(), b"not a store");
}

#[test]
fn a_store_that_is_open_is_read_and_not_written() {
    let place = Workplace::new();
    let store = annals::Store::open(place.store()).unwrap();
    store
        .append("order-1", annals::Expect::Any, [annals::Event::new("T", "")])
        .unwrap()
        .wait()
        .unwrap();
    let ran = place.run(&["append", "order-1", "--type", "T"]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.error().contains("4001"), "{}", ran.error());
    for command in ["list", "export", "verify", "stats"] {
        place.ok(&[command]);
    }
    assert_eq!(place.versions()["order-1"], 1);
    assert_eq!(store.version("order-1").unwrap(), 1);
}

#[test]
fn list_is_ordered_and_filtered() {
    let place = Workplace::new();
    for key in ["b/2", "a", "b/1", "b/1", "c"] {
        place.ok(&["append", key, "--type", "T"]);
    }
    let versions: Vec<_> = place.versions().into_iter().collect();
    let expected = [("a", 1), ("b/1", 2), ("b/2", 1), ("c", 1)];
    assert_eq!(versions, expected.map(|(key, version)| (key.to_owned(), version)));
    let listed = place.ok(&["list", "--prefix", "b/"]);
    assert_eq!(listed, "version  aggregate\n      2  b/1\n      1  b/2\n2 aggregates\n");
}

#[test]
fn stats_say_what_the_store_holds() {
    let place = Workplace::new();
    let create = ["--shards", "2", "--route-prefix", "/", "--segment-bytes", "2M"];
    for key in ["a/1", "a/2", "b/1", "c/1", "c/1"] {
        place.ok(&[&create[..], &["append", key, "--type", "T"]].concat());
    }
    let found = &lines(&place.ok(&["--json", "stats"]))[0];
    assert_eq!(found["segment_bytes"], 2 << 20);
    assert!(found["disk_bytes"].as_u64().unwrap() > 0);
    let shards = found["shards"].as_array().unwrap();
    let sum = |name: &str| shards.iter().map(|shard| shard[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((shards.len(), sum("aggregates"), sum("versions")), (2, 4, 5));
    let shown = place.ok(&["stats"]);
    assert!(shown.contains("2 of c/1") && shown.contains("2048.0 KiB"), "{shown}");
}

#[test]
fn verify_tells_clean_from_damaged() {
    let place = Workplace::new();
    place.ok(&["import", SAMPLE]);
    let clean = place.ok(&["verify"]);
    assert!(clean.starts_with("clean: 242 writes with 604 events, 82 aggregates;"), "{clean}");

    let segment = std::fs::read_dir(place.store().join("shard-0000"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let text = b"Chiara Rossi";
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();

    let ran = place.run(&["verify"]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(ran.out.contains(name) && ran.error().contains("damaged"), "{}", ran.out);
    let ran = place.run(&["--json", "verify"]);
    assert_eq!(ran.code, 1);
    let found = &lines(&ran.out)[0];
    assert_eq!(found["clean"], false);
    assert!(found["problems"][0]["offset"].as_u64().is_some(), "{found}");
    assert_eq!(std::fs::read(&segment).unwrap(), bytes);
}

#[test]
fn the_tour_fits_a_screen_and_leaves_nothing() {
    let place = Workplace::new();
    for backend in common::backends() {
        let ran = Ran::of(
            place.command(&["--backend", backend]).env_remove("CARGO").stdin(Stdio::null()),
        );
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
        assert!(ran.out.lines().count() <= 24, "{}", ran.out);
        assert!(ran.out.lines().all(|line| line.chars().count() <= 80), "{}", ran.out);
        for part in [
            "242 writes with 604 events",
            "1,000 transfers",
            "10,000 after",
            "conserved",
            "annals append",
        ] {
            assert!(ran.out.contains(part), "{part}: {}", ran.out);
        }
        let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let ran = Ran::of(place.command(&[]).env("CARGO", "cargo"));
    assert!(ran.out.lines().all(|line| line.chars().count() <= 80), "{}", ran.out);
    let found = &lines(&place.ok(&["--json"]))[0];
    assert_eq!((&found["money"], &found["verified_writes"]), (&json!(10_000), &json!(1_243)));
}

#[test]
fn the_commands_that_the_tour_suggests_work() {
    let place = Workplace::new();
    let tour = Ran::of(place.command(&[]).env_remove("CARGO"));
    let suggested = tour.out.lines().filter_map(|line| line.strip_prefix("  annals "));
    let mut count = 0;
    for line in suggested {
        let command = line.split("  ").next().unwrap();
        let arguments: Vec<_> =
            command.split_whitespace().take_while(|word| *word != "durable").collect();
        place.ok(&arguments);
        count += 1;
    }
    assert!(count >= 5, "{}", tour.out);
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let place = Workplace::new();
    place.ok(&["import", SAMPLE]);
    for command in ["export", "list"] {
        let mut child = place.command(&["--json", command]).spawn().unwrap();
        let mut first = String::new();
        BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.starts_with('{'));
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{command}");
    }
}

#[test]
fn help_and_version() {
    let place = Workplace::new();
    let help = place.ok(&["--help"]);
    for word in
        ["append", "import", "export", "verify", "salvage", "stats", "--store", "Exit codes"]
    {
        assert!(help.contains(word), "{word}: {help}");
    }
    for command in ["append", "read", "list", "import", "export", "verify", "salvage", "stats"] {
        assert!(place.ok(&[command, "--help"]).contains("--store"), "{command}");
    }
    assert!(place.ok(&["import", "--help"]).contains(r#"{"writes":[{"aggregate":"order-1""#));
    assert!(place.ok(&["--version"]).starts_with("annals "));
}

#[test]
fn a_hundred_appends_stay_small() {
    let place = Workplace::new();
    place.ok(&["append", "order-0", "--type", "Placed", "--data", "{}"]);
    let (bytes, begin) = (place.bytes_on_disk(), Instant::now());
    for number in 1..=100 {
        let key = format!("order-{number}");
        place.ok(&["append", &key, "--type", "Placed", "--data", "{}"]);
    }
    let (added, time) = (place.bytes_on_disk().saturating_sub(bytes), begin.elapsed());
    common::say(&format!("100 appends: {added} bytes, {time:?}"));
    assert!(added < 10 << 20, "{added} bytes");
    place.verify_is_clean();
    assert_eq!(place.versions().len(), 101);
}
