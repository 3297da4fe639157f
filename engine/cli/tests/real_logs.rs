//! Logs of real events: permits of a municipality and orders of a shop, from the folder that `ANNALS_EVENT_LOGS` names.

mod common;

use common::{Model, Summary, Workplace, backends, real_log};
use serde_json::Value;

/// What is known of a log beforehand.
struct Known {
    name: &'static str,
    writes: u64,
    events: u64,
    aggregates: u64,
    highest_version: u64,
    widest: usize,
}

const PERMITS: Known = Known {
    name: "permits.jsonl.gz",
    writes: 8_577,
    events: 8_577,
    aggregates: 1_434,
    highest_version: 25,
    widest: 1,
};

const ORDERS: Known = Known {
    name: "orders.jsonl.gz",
    writes: 22_367,
    events: 38_685,
    aggregates: 11_484,
    highest_version: 8,
    widest: 23,
};

fn parsed(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn import_again_and_export(known: &Known) {
    let Some((path, lines)) = real_log(known.name) else { return };
    let all = known.writes;
    for backend in backends() {
        let place = Workplace::new();
        let (code, first) = place.import(&[&path, "--client", "ci", "--backend", backend]);
        let expected = Summary {
            writes: known.writes,
            events: known.events,
            aggregates: known.aggregates,
            ..Summary::default()
        };
        assert_eq!((code, first), (0, expected), "{backend}");
        let versions = place.versions();
        assert_eq!(versions.len() as u64, known.aggregates);
        assert_eq!(versions.values().max(), Some(&known.highest_version));

        let exported = place.ok(&["export"]);
        let found = parsed(&exported);
        for (number, (found, given)) in found.iter().zip(parsed(&lines.join("\n"))).enumerate() {
            assert_eq!(*found, given, "line {}", number + 1);
        }
        assert_eq!(found.len(), lines.len());
        let width = |line: &Value| line["writes"].as_array().unwrap().len();
        assert_eq!(found.iter().map(width).max(), Some(known.widest));

        let (code, again) = place.import(&[&path, "--client", "ci", "--backend", backend]);
        let expected = Summary { replays: all, aggregates: known.aggregates, ..Summary::default() };
        assert_eq!((code, again), (0, expected), "{backend}");
        let (code, without) = place.import(&[&path, "--keep-going", "--backend", backend]);
        let expected =
            Summary { conflicts: all, aggregates: known.aggregates, ..Summary::default() };
        assert_eq!((code, without), (1, expected), "{backend}");
        let (code, stopped) = place.import(&[&path, "--backend", backend]);
        assert_eq!((code, stopped.conflicts, stopped.writes), (1, 1, 0), "{backend}");
        assert_eq!(place.ok(&["export"]), exported, "{backend}");
        place.verify_is_clean();

        let second = Workplace::new();
        let (code, summary) =
            second.import(&[&second.file("exported.jsonl", &exported), "--backend", backend]);
        assert_eq!((code, summary.writes), (0, all));
        assert_eq!(second.ok(&["export"]), exported);
        assert_eq!(second.versions(), versions);
    }
}

fn on_four_shards(known: &Known, route: &[&str]) {
    let Some((path, lines)) = real_log(known.name) else { return };
    for backend in backends() {
        let place = Workplace::new();
        let create = [&["--shards", "4", "--backend", backend], route].concat();
        place.ok(&[&create[..], &["append", "first", "--type", "Created"]].concat());
        let store =
            annals::Options::new().read_only(true).create(false).open(place.store()).unwrap();
        let mut model = Model::of(&lines, |key| store.shard_of(key));
        drop(store);

        let (code, summary) = place.import(&[&path, "--keep-going", "--backend", backend]);
        assert_eq!(summary, model.summary, "{backend} {route:?}");
        assert_eq!(summary.writes + summary.conflicts + summary.cross_shard, known.writes);
        assert_eq!(code, if model.summary.cross_shard > 0 { 2 } else { 0 });
        common::say(&format!("{} {backend} {route:?}: {summary:?}", known.name));
        if known.widest == 1 {
            assert_eq!(summary.writes, known.writes);
        } else if route.is_empty() {
            assert!(summary.cross_shard > 0 && summary.conflicts > 0);
        }

        place.verify_is_clean();
        model.versions.insert("first".to_owned(), 1);
        assert_eq!(place.versions(), model.versions.into_iter().collect());
        let mut exported = parsed(&place.ok(&["export"]));
        exported.retain(|line| line["writes"][0]["aggregate"] != "first");
        let landed: Vec<_> = model.landed.into_values().flatten().collect();
        assert!(exported == landed, "{backend} {route:?}: the export differs");
    }
}

#[test]
fn permits() {
    import_again_and_export(&PERMITS);
}

#[test]
fn orders() {
    import_again_and_export(&ORDERS);
}

#[test]
fn permits_on_four_shards() {
    on_four_shards(&PERMITS, &[]);
    on_four_shards(&PERMITS, &["--route-prefix", "/"]);
}

#[test]
fn orders_on_four_shards() {
    on_four_shards(&ORDERS, &[]);
    on_four_shards(&ORDERS, &["--route-prefix", "/"]);
}
