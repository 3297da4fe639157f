//! Import and export: what goes in comes out, and what is wrong is told and changes nothing.

mod common;

use std::io::Write;

use common::{Summary, Workplace};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

const SAMPLE: &str = include_str!("../src/sample.jsonl");

/// Everything that a line can say, in the form in which an export says it.
const EVERYTHING: &str = r#"{"writes":[{"aggregate":"a","expected":"absent","events":[{"type":"T","time":"2019-05-20 07:07:47.000Z","data":{ "b" : 1.50, "a":[1e400,"\u00e9"] },"id":"3ec2d379-a57a-4953-ac35-6445aa939702","metadata":null},{"type":"U","time":"2019-05-20T07:07:47Z"}]},{"aggregate":{"base64":"/wA="},"expected":0,"events":[{"type":"Typ ü","time":"yesterday","data":null,"id":340282366920938463463374607431768211455}]}]}
{"writes":[{"aggregate":"b","expected":"any","events":[{"type":"T","time":"2010-10-02 09:20:39.266000+02:00","data":{"base64":"/wA="},"metadata":{"base64":"AGFubmFscwA="}}]}],"checks":[{"aggregate":"a","expected":1},{"aggregate":"c","expected":"absent"}]}
{"writes":[{"aggregate":"a","expected":"exists","events":[{"type":"T","time":"","data":"text","id":"3EC2D379-A57A-4953-AC35-6445AA939702"}]},{"aggregate":"c","expected":0,"events":[{"type":"T","time":"2019-05-20T07:07:47.1234567Z","data":{"base64":5}}]}]}
{"writes":[{"aggregate":"\u0000","expected":0,"events":[{"type":"T","time":"9999-12-31T23:59:60-23:59","data":[[]],"metadata":{"by":"ann"}}]}],"checks":[{"aggregate":"a","expected":2}]}
"#;

#[test]
fn everything_comes_out_as_it_went_in() {
    for text in [EVERYTHING, SAMPLE] {
        let (first, second) = (Workplace::new(), Workplace::new());
        let (code, summary) = first.import(&[&first.file("in.jsonl", text)]);
        assert_eq!((code, summary.writes), (0, text.lines().count() as u64));
        first.verify_is_clean();
        let exported = first.ok(&["export"]);
        for (found, given) in exported.lines().zip(text.lines()) {
            assert_eq!(found, given);
        }
        assert_eq!(exported, text);
        let (code, again) = second.import(&[&second.file("out.jsonl", &exported)]);
        assert_eq!((code, again), (0, summary));
        assert_eq!(second.ok(&["export"]), text);
        assert_eq!(second.ok(&["--json", "list"]), first.ok(&["--json", "list"]));
    }
}

#[test]
fn the_short_form_is_one_event() {
    let place = Workplace::new();
    let lines =
        "{\"aggregate\":\"a\",\"type\":\"T\",\"data\":1}\n\n{\"aggregate\":\"a\",\"type\":\"U\"}";
    let ran = place.run_with_input(&["--json", "import", "-"], lines.as_bytes());
    let expected = Summary { writes: 2, events: 2, aggregates: 1, ..Summary::default() };
    assert_eq!((ran.code, Summary::of(&ran)), (0, expected));
    assert_eq!(
        place.ok(&["export"]),
        "{\"writes\":[{\"aggregate\":\"a\",\"expected\":\"any\",\"events\":[{\"type\":\"T\",\"data\":1}]}]}\n\
         {\"writes\":[{\"aggregate\":\"a\",\"expected\":\"any\",\"events\":[{\"type\":\"U\"}]}]}\n"
    );
}

#[test]
fn a_write_of_checks_alone_appends_nothing() {
    let place = Workplace::new();
    let lines = r#"{"aggregate":"a","type":"T"}
{"checks":[{"aggregate":"a","expected":1},{"aggregate":"b","expected":"absent"}]}
{"checks":[{"aggregate":"a","expected":2}]}"#;
    let (code, summary) = place.import(&[&place.file("in.jsonl", lines)]);
    let expected =
        Summary { writes: 1, events: 1, aggregates: 1, conflicts: 1, ..Summary::default() };
    assert_eq!((code, summary), (1, expected));
    assert_eq!(place.ok(&["export"]).lines().count(), 1);
}

#[test]
fn an_export_has_what_was_appended_and_no_checkpoints_or_snapshots() {
    let place = Workplace::new();
    let store = annals::Store::open(place.store()).unwrap();
    let (none, position) = (annals::Position::START, annals::Position::from_raw);
    let event = [annals::Event::new("T", "1")];
    let write = store.write().checkpoint("a", none, position(5));
    let write = write.append("a", annals::Expect::Absent, event);
    write.check("b", annals::Expect::Absent).submit().unwrap().wait().unwrap();
    store.write().checkpoint("a", position(5), position(6)).submit().unwrap().wait().unwrap();
    store.save_snapshot("a", 1, "state").unwrap().wait().unwrap();
    drop(store);
    let line = "{\"writes\":[{\"aggregate\":\"a\",\"expected\":\"absent\",\"events\":\
                [{\"type\":\"T\",\"data\":1}]}],\"checks\":[{\"aggregate\":\"b\",\"expected\":\"absent\"}]}\n";
    assert_eq!(place.ok(&["export"]), line);
    assert_eq!(place.ok(&["export", "a"]), line);
    assert_eq!(place.versions().into_iter().collect::<Vec<_>>(), [("a".to_owned(), 1)]);
    assert_eq!(place.ok(&["read", "a"]).lines().filter(|line| line.contains('T')).count(), 1);
    place.verify_is_clean();
}

#[test]
fn standard_input_and_gzip_are_taken() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(SAMPLE.as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let place = Workplace::new();
    let file = place.file("sample.jsonl.gz", &packed);
    let (code, summary) = place.import(&[&file, "--client", "c"]);
    assert_eq!((code, summary.writes), (0, 242));
    for input in [&packed[..], SAMPLE.as_bytes()] {
        let ran = place.run_with_input(&["--json", "import", "-", "--client", "c"], input);
        assert_eq!((ran.code, Summary::of(&ran).replays), (0, 242), "{}", ran.err);
    }
    let half = place.run_with_input(&["import", "-", "--client", "c"], &packed[..packed.len() / 2]);
    assert_eq!(half.code, 2);
    assert!(half.error().contains("can't be read"), "{}", half.error());
}

#[test]
fn export_of_some_keys_gives_the_writes_that_append_to_them() {
    let place = Workplace::new();
    place.ok(&["import", &place.file("in.jsonl", SAMPLE)]);
    let appends_to = |line: &&str, keys: &[&str]| {
        let line: Value = serde_json::from_str(line).unwrap();
        let mut parts = line["writes"].as_array().unwrap().iter();
        parts.any(|part| keys.contains(&part["aggregate"].as_str().unwrap()))
    };
    for keys in [&["order/1001"][..], &["customer/ann", "stock/mug"], &["nobody"]] {
        let expected: Vec<_> = SAMPLE.lines().filter(|line| appends_to(line, keys)).collect();
        let ran = place.run(&[&["export"], keys].concat());
        assert_eq!(ran.out.lines().collect::<Vec<_>>(), expected, "{keys:?}");
        assert_eq!((ran.code, ran.err.contains("does not exist")), (0, keys == ["nobody"]));
    }
}

#[test]
fn the_last_line_is_the_summary() {
    let place = Workplace::new();
    let file = place.file("in.jsonl", SAMPLE);
    let first = place.ok(&["import", &file, "--client", "c"]);
    assert!(first.starts_with("242 writes with 604 events appended, 82 aggregates; "), "{first}");
    let again = place.ok(&["import", &file, "--client", "c"]);
    assert!(again.contains("82 aggregates, 242 replays; "), "{again}");
    assert_eq!(again.lines().count(), 1);
}

#[test]
fn a_conflict_stops_the_import_unless_told_otherwise() {
    let place = Workplace::new();
    let lines = r#"{"aggregate":"a","type":"T","expected":0}
{"aggregate":"a","type":"T","expected":0}
{"aggregate":"b","type":"T","expected":"exists"}
{"aggregate":"a","type":"T","expected":1}"#;
    let file = place.file("in.jsonl", lines);
    let ran = place.run(&["import", &file]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.error().starts_with("line 2: ") && ran.error().contains("\"a\""),
        "{}",
        ran.error()
    );
    assert!(ran.out.ends_with("a second\n"), "{}", ran.out);
    assert_eq!(place.versions()["a"], 1);

    let place = Workplace::new();
    let (code, summary) = place.import(&[&place.file("in.jsonl", lines), "--keep-going"]);
    let expected =
        Summary { writes: 2, events: 2, aggregates: 2, conflicts: 2, ..Summary::default() };
    assert_eq!((code, summary), (1, expected));
    assert_eq!(place.versions()["a"], 2);
}

#[test]
fn a_client_makes_an_import_resumable() {
    let place = Workplace::new();
    let all: Vec<_> = SAMPLE.lines().collect();
    let part = place.file("part.jsonl", all[..100].join("\n"));
    let whole = place.file("whole.jsonl", SAMPLE);
    assert_eq!(place.import(&[&part, "--client", "c"]).1.writes, 100);
    let (code, summary) = place.import(&[&whole, "--client", "c"]);
    assert_eq!((code, summary.writes, summary.replays), (0, 142, 100));
    assert_eq!(place.ok(&["export"]), SAMPLE);
    let (code, other) = place.import(&[&whole, "--client", "d"]);
    assert_eq!((code, other.conflicts), (1, 1));
    assert_eq!(place.ok(&["export"]), SAMPLE);
}

#[test]
fn lines_across_shards_are_counted_apart() {
    let place = Workplace::new();
    let lines: String = (0..20)
        .map(|n| {
            format!(
                r#"{{"writes":[{{"aggregate":"a/{n}","events":[{{"type":"T"}}]}},{{"aggregate":"b{n}/x","events":[{{"type":"T"}}]}}]}}"#
            ) + "\n"
        })
        .collect();
    let file = place.file("in.jsonl", lines);
    let create = ["--shards", "4", "--route-prefix", "/", "--json", "import", &file];
    let ran = place.run(&[&create[..], &["--keep-going"]].concat());
    let summary = Summary::of(&ran);
    let store = annals::Options::new().read_only(true).open(place.store()).unwrap();
    let across =
        (0..20).filter(|n| store.shard_of(format!("b{n}/x")) != store.shard_of("a/")).count();
    assert!(across > 0 && across < 20, "{across}");
    assert_eq!(store.shard_of("a/0"), store.shard_of("a/19"));
    assert_eq!((ran.code, summary.cross_shard), (2, across as u64));
    assert_eq!((summary.writes, summary.conflicts, summary.bad_lines), (20 - across as u64, 0, 0));
    let text = place.run(&["import", &file, "--keep-going"]);
    assert!(text.out.contains(&format!(", {across} across shards; ")), "{}", text.out);
    let stopped = place.run(&["import", &file]);
    assert_eq!(stopped.code, 2);
    assert!(
        stopped.error().contains("shard") && stopped.error().contains("\"a/"),
        "{}",
        stopped.error()
    );
}

/// Lines that are no write, each with a word of the fault that is to be told.
fn bad_lines() -> Vec<(Vec<u8>, &'static str)> {
    let mut bad: Vec<(Vec<u8>, &str)> = [
        ("{", "not JSON"),
        (r#"{"aggregate":"a","type":"T"},"#, "not JSON"),
        (r#"{"aggregate":"a","type":"T","data":{"x":01}}"#, "not JSON"),
        (r#"{"aggregate":"a","type":"T","data":"\x"}"#, "not JSON"),
        (r#"{"aggregate":"a","type":"T","data":"#, "not JSON"),
        (r#"{"aggregate":"a","type":"T"}{"aggregate":"b","type":"T"}"#, "not JSON"),
        ("aggregate,type,data", "not JSON"),
        ("null", "expected an object"),
        (r#"[{"aggregate":"a","type":"T"}]"#, "expected an object"),
        ("{}", "found none"),
        (r#"{"aggregate":"a"}"#, "type is missing"),
        (r#"{"aggregate":"a","type":"T","version":1}"#, "unknown field `version`"),
        (r#"{"aggregate":"a","aggregate":"b","type":"T"}"#, "duplicate field"),
        (r#"{"aggregate":"a","type":null}"#, "type: expected a text"),
        (r#"{"aggregate":"a","type":"T","time":1558336067}"#, "time: expected a text"),
        (r#"{"aggregate":"a","type":"T","expected":"1"}"#, "expected: expected a version"),
        (r#"{"aggregate":"a","type":"T","expected":18446744073709551616}"#, "expected: expected"),
        (r#"{"aggregate":"a","type":"T","id":"7"}"#, "id: expected a UUID"),
        (r#"{"aggregate":"","type":"T"}"#, "key"),
        (r#"{"aggregate":{"base64":""},"type":"T"}"#, "key"),
        (r#"{"aggregate":{"base64":"?"},"type":"T"}"#, "aggregate: expected"),
        (r#"{"aggregate":"a","type":""}"#, "type"),
        (r#"{"writes":[]}"#, ""),
        (r#"{"writes":[],"checks":[]}"#, ""),
        (r#"{"writes":[{"aggregate":"a","events":[]}]}"#, "event"),
        (r#"{"writes":[{"aggregate":"a","events":[{"type":"T"}]},{"aggregate":"a","events":[{"type":"T"}]}]}"#, "\"a\""),
        (r#"{"writes":[{"aggregate":"a","events":[{"type":"T"}]}],"checks":[{"aggregate":"a","expected":0}]}"#, "\"a\""),
        (r#"{"checks":[{"aggregate":"a","expected":"any"}]}"#, ""),
        (r#"{"writes":[{"aggregate":"a","events":[{"type":"T"}]},{"aggregate":"b"}]}"#, "writes[1].events is missing"),
    ]
    .map(|(line, fault)| (line.as_bytes().to_vec(), fault))
    .to_vec();
    bad.push((b"{\"aggregate\":\"a\",\"type\":\"\xff\"}".to_vec(), "not UTF-8"));
    bad.push((format!(r#"{{"aggregate":"{}","type":"T"}}"#, "k".repeat(1025)).into(), "1024"));
    bad.push((format!(r#"{{"aggregate":"a","type":"{}"}}"#, "t".repeat(256)).into(), "255"));
    bad.push((
        format!(r#"{{"aggregate":"a","type":"T","data":"{}"}}"#, "d".repeat(16 << 20)).into(),
        "bytes",
    ));
    let events = vec![r#"{"type":"T"}"#; 65_536].join(",");
    bad.push((
        format!(r#"{{"writes":[{{"aggregate":"a","events":[{events}]}}]}}"#).into(),
        "65535",
    ));
    let parts: Vec<_> =
        (0..257).map(|n| format!(r#"{{"aggregate":"a{n}","events":[{{"type":"T"}}]}}"#)).collect();
    bad.push((format!(r#"{{"writes":[{}]}}"#, parts.join(",")).into(), "256"));
    bad
}

#[test]
fn a_bad_line_stops_the_import_and_nothing_of_it_is_applied() {
    let place = Workplace::new();
    let good = |n: usize| format!("{{\"aggregate\":\"good-{n}\",\"type\":\"T\"}}\n").into_bytes();
    for (index, (line, fault)) in bad_lines().iter().enumerate() {
        let before = place.versions_or_none();
        let text = [&good(index)[..], line, b"\n", &good(100 + index)].concat();
        let ran = place.run(&["--json", "import", &place.file("in.jsonl", text)]);
        let shown = String::from_utf8_lossy(&line[..line.len().min(100)]).into_owned();
        assert_eq!(ran.code, 2, "{shown}: {}", ran.err);
        assert!(
            ran.error().starts_with("line 2: ") && ran.error().contains(fault),
            "{shown}: {}",
            ran.error()
        );
        assert!(ran.error().len() < 400, "{}", ran.error());
        let expected = Summary { writes: 1, events: 1, ..Summary::default() };
        let summary = Summary { aggregates: 0, ..Summary::of(&ran) };
        assert_eq!(summary, Summary { bad_lines: 1, ..expected }, "{shown}");
        let mut after = place.versions();
        assert_eq!(after.remove(&format!("good-{index}")), Some(1));
        assert_eq!(after, before, "{shown}");
    }
    place.verify_is_clean();
}

#[test]
fn bad_lines_are_counted_if_told_to_keep_going() {
    let place = Workplace::new();
    let bad = bad_lines();
    let mut text = Vec::new();
    for (line, _) in &bad {
        text.extend_from_slice(line);
        text.extend_from_slice(b"\n{\"aggregate\":\"good\",\"type\":\"T\"}\n");
    }
    let ran = place.run(&["--json", "import", &place.file("in.jsonl", text), "--keep-going"]);
    let summary = Summary::of(&ran);
    assert_eq!(ran.code, 2);
    assert_eq!((summary.writes, summary.bad_lines), (bad.len() as u64, bad.len() as u64));
    assert_eq!(
        ran.err.lines().filter(|line| line.starts_with("annals: line ")).count(),
        10,
        "{}",
        ran.err
    );
    assert_eq!(
        place.versions().into_iter().collect::<Vec<_>>(),
        [("good".to_owned(), bad.len() as u64)]
    );
}

#[test]
fn a_line_without_an_end_is_bounded() {
    let place = Workplace::new();
    let mut text = b"{\"aggregate\":\"a\",\"type\":\"T\",\"data\":\"".to_vec();
    text.resize(65 << 20, b'x');
    text.extend_from_slice(b"\n{\"aggregate\":\"good\",\"type\":\"T\"}");
    let ran = place.run(&["--json", "import", &place.file("in.jsonl", text), "--keep-going"]);
    assert_eq!(ran.code, 2);
    assert_eq!(ran.error(), "line 1: longer than 64 MiB");
    assert_eq!(Summary::of(&ran).writes, 1);
}
