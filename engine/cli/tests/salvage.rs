//! `annals salvage` on real files: each kind of damage, what is copied, what is set aside, what is told to be missing.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Ran, Workplace};
use serde_json::{Value, json};

/// A store whose every append is a flush of its own: `a` and `b` in turn, three versions each, then `c` once.
fn written() -> Workplace {
    let place = Workplace::new();
    for version in 0..3 {
        for key in ["a", "b"] {
            let data = format!("{{\"of\":\"{key}\",\"n\":{version}}}");
            let expect = version.to_string();
            place.ok(&["append", key, "--type", "Happened", "--expect", &expect, "--data", &data]);
        }
    }
    place.ok(&["append", "c", "--type", "Happened", "--data", "{\"of\":\"c\",\"n\":0}"]);
    place
}

/// All files below a directory.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// The segment that holds these bytes, and where.
fn find(place: &Workplace, wanted: &str) -> (PathBuf, usize) {
    let segments = files(&place.store()).into_iter();
    let mut found = segments.filter_map(|(path, bytes)| {
        let mut at = bytes.windows(wanted.len()).enumerate();
        at.find(|(_, window)| *window == wanted.as_bytes()).map(|(at, _)| (path, at))
    });
    found.next().unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Salvages into `new` beside the store; the source stays what it was.
fn salvage(place: &Workplace) -> (Ran, Value) {
    let before = files(&place.store());
    let ran = place.run(&["--json", "salvage", place.store().to_str().unwrap(), "new"]);
    assert!(files(&place.store()) == before, "the source was changed");
    let report =
        serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}{}", ran.out, ran.err));
    (ran, report)
}

fn versions(place: &Workplace) -> BTreeMap<String, u64> {
    let listed = on_new(place, &["--json", "list"]);
    let lines = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .map(|line| {
            (line["aggregate"].as_str().unwrap().to_owned(), line["version"].as_u64().unwrap())
        })
        .collect()
}

fn are(versions_are: &BTreeMap<String, u64>, expected: &[(&str, u64)]) {
    let expected = expected.iter().map(|(key, version)| ((*key).to_owned(), *version)).collect();
    assert_eq!(*versions_are, expected);
}

/// Runs what has to succeed on the new store.
fn on_new(place: &Workplace, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annals"));
    command.current_dir(place.path()).args(["--store", "new"]).args(arguments);
    let ran = Ran::of(command.stdin(Stdio::null()));
    assert_eq!(ran.code, 0, "{arguments:?}: {}{}", ran.out, ran.err);
    ran.out
}

#[test]
fn a_healthy_store_is_copied_whole() {
    let place = written();
    let (ran, report) = salvage(&place);
    assert_eq!((ran.code, report["complete"].as_bool()), (0, Some(true)), "{report}");
    assert_eq!((report["writes"].as_u64(), report["aside"].as_str()), (Some(7), None));
    assert_eq!(on_new(&place, &["export"]), place.ok(&["export"]));
    assert!(on_new(&place, &["verify"]).contains("clean: 7 writes with 7 events"));
    assert!(!place.path().join("new.aside.jsonl").exists());
    // It is a store like any other.
    on_new(&place, &["append", "a", "--type", "On", "--expect", "3"]);
}

#[test]
fn a_flipped_payload_cuts_its_aggregate_off() {
    let place = written();
    let export = place.ok(&["export"]);
    let (path, at) = find(&place, "{\"of\":\"a\",\"n\":1}");
    flip(&path, at + 6);
    let (ran, report) = salvage(&place);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.error(), "the new store does not have all that the old one had");
    are(&versions(&place), &[("a", 1), ("b", 3), ("c", 1)]);
    let missing = &report["missing"];
    assert_eq!(missing.as_array().unwrap().len(), 1, "{report}");
    let exactly = (&missing[0]["aggregate"], &missing[0]["from"], &missing[0]["to"]);
    assert_eq!(exactly, (&json!("a"), &json!(2), &json!(2)));
    let damage = &report["damage"][0];
    assert_eq!((&damage["aggregate"], &damage["lost"]), (&json!("a"), &json!(true)));
    let offset = damage["offset"].as_u64().unwrap() as usize;
    assert!(offset < at && at < offset + damage["bytes"].as_u64().unwrap() as usize, "{damage}");
    let cut = json!([{"shard": 0, "aggregate": "a", "kept": 1, "last": 3, "set_aside": 1}]);
    assert_eq!(report["cut_off"], cut);

    // The later version is beside it, and can be imported by hand.
    let aside = fs::read_to_string(place.path().join("new.aside.jsonl")).unwrap();
    let line: Value = serde_json::from_str(&aside).unwrap();
    assert_eq!(line["versions"], json!([{"aggregate": "a", "version": 3}]));
    assert!(line["position"].as_u64() > missing[0]["position"].as_u64(), "{line}");
    assert_eq!(line["why"], "\"a\" is missing a version after 1");
    let mut write = line["write"].clone();
    let original = export.lines().nth(4).unwrap();
    assert_eq!(write, serde_json::from_str::<Value>(original).unwrap());
    write["writes"][0]["expected"] = json!(1);
    let file = place.file("by-hand.jsonl", format!("{write}\n"));
    on_new(&place, &["import", &file]);
    are(&versions(&place), &[("a", 2), ("b", 3), ("c", 1)]);
}

#[test]
fn damage_of_headers_costs_nothing_that_is_whole() {
    let header_of = |place: &Workplace, payload: &str| {
        let (path, at) = find(place, payload);
        let bytes = fs::read(&path).unwrap();
        let flush = bytes[..at].windows(8).rposition(|window| window == b"ANNFLUSH").unwrap();
        (path, flush - 8)
    };
    // A flush header, whose one record is found behind it.
    let place = written();
    let (path, flush) = header_of(&place, "{\"of\":\"b\",\"n\":1}");
    flip(&path, flush + 50);
    let (ran, report) = salvage(&place);
    assert_eq!((ran.code, report["writes"].as_u64()), (0, Some(7)), "{report}");
    assert_eq!(on_new(&place, &["export"]).lines().count(), 7);

    // A segment header.
    let place = written();
    let (path, _) = header_of(&place, "{\"of\":\"b\",\"n\":1}");
    flip(&path, 60);
    let (ran, report) = salvage(&place);
    assert_eq!((ran.code, report["writes"].as_u64()), (0, Some(7)), "{report}");

    // The head of a record: what it was is told by the version behind it.
    let place = written();
    let (path, flush) = header_of(&place, "{\"of\":\"b\",\"n\":1}");
    flip(&path, flush + 104 + 64);
    let (ran, report) = salvage(&place);
    assert_eq!(ran.code, 1);
    are(&versions(&place), &[("a", 3), ("b", 1), ("c", 1)]);
    let missing = &report["missing"][0];
    assert_eq!((&missing["aggregate"], &missing["from"]), (&json!("b"), &json!(2)), "{report}");
    assert_eq!(report["damage"][0]["aggregate"], "b");
    assert_eq!(report["damage"][0]["offset"].as_u64(), Some(flush as u64 + 104));
}

#[test]
fn lost_and_truncated_segments() {
    // Each run of the program begins a segment.
    let place = written();
    let (path, at) = find(&place, "{\"of\":\"a\",\"n\":1}");
    fs::remove_file(&path).unwrap();
    let (ran, report) = salvage(&place);
    assert_eq!(ran.code, 1);
    are(&versions(&place), &[("a", 1), ("b", 3), ("c", 1)]);
    assert_eq!(report["missing"][0]["aggregate"], "a");
    let damage = report["damage"].as_array().unwrap();
    let told = |damage: &Value| damage["what"].as_str().unwrap().contains("is missing");
    assert!(damage.iter().any(told), "{report}");

    let place = written();
    let (path, _) = find(&place, "{\"of\":\"a\",\"n\":1}");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(at as u64).unwrap();
    let (ran, report) = salvage(&place);
    assert_eq!(ran.code, 1);
    are(&versions(&place), &[("a", 1), ("b", 3), ("c", 1)]);
    assert_eq!(report["missing"][0]["from"], 2);
}

#[test]
fn a_damaged_identity_is_made_up() {
    let place = written();
    let identity = place.store().join("identity");
    let mut bytes = fs::read(&identity).unwrap();
    bytes[100] ^= 1;
    bytes[65_536 + 100] ^= 1;
    fs::write(&identity, bytes).unwrap();
    assert_eq!(place.run(&["verify"]).code, 1);
    let (ran, report) = salvage(&place);
    assert_eq!((ran.code, report["writes"].as_u64()), (0, Some(7)), "{report}");
    assert!(report["identity"].as_str().unwrap().contains("both copies are damaged"));
    are(&versions(&place), &[("a", 3), ("b", 3), ("c", 1)]);
}

#[test]
fn what_is_refused() {
    let place = written();
    let store = place.store();
    let store = store.to_str().unwrap();
    let refused = |arguments: &[&str], code: i32, what: &str| {
        let ran = place.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}{}", ran.out, ran.err);
        assert!(ran.error().contains(what), "{}", ran.err);
    };
    fs::create_dir(place.path().join("full")).unwrap();
    place.file("full/something", "");
    refused(&["salvage", store, "full"], 2, "is not empty");
    refused(&["salvage", store, "full/something"], 3, "is not a directory");
    refused(&["salvage", store, store], 2, "is not empty");
    let inside = format!("{store}/inside/new");
    refused(&["salvage", store, &inside], 2, "lies in the store");
    assert!(!place.store().join("inside").exists());
    refused(&["salvage", "nowhere", "new"], 2, "there is no store");
    place.file("new.aside.jsonl", "");
    refused(&["salvage", store, "new"], 2, "new.aside.jsonl exists");
    refused(&["salvage", "full", "new", "--aside", "other"], 3, "there is no store");
    // An empty directory will do.
    fs::create_dir(place.path().join("empty")).unwrap();
    let said = place.ok(&["salvage", store, "empty/"]);
    assert_eq!(said, "complete: 7 writes with 7 events, 3 aggregates copied\n");
}

#[test]
fn a_store_that_may_only_be_read_is_verified_and_salvaged() {
    use std::os::unix::fs::PermissionsExt;
    let place = written();
    let set = |file: u32, directory: u32| {
        for path in files(&place.store()).into_keys() {
            fs::set_permissions(&path, fs::Permissions::from_mode(file)).unwrap();
            let parent = path.parent().unwrap();
            fs::set_permissions(parent, fs::Permissions::from_mode(directory)).unwrap();
        }
    };
    set(0o400, 0o500);
    place.verify_is_clean();
    assert_eq!(salvage(&place).0.code, 0);
    set(0o600, 0o700);
}
