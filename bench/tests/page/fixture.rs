//! Results that no machine measured, of every kind that a run can leave: for tests of what is made from results.

use std::collections::BTreeMap;

use bench::results::{Contender, DeviceRun, Kind, Latency, Machine, Results, Run, Spread};

/// A contender whose name and texts would be tags and scripts if anything forgot to escape them.
pub const HOSTILE: &str = "</script><img src=x onerror=alert(1)>";

/// A complete run: four workloads with plots, one without, a contender that failed, one that did not keep what it promised.
pub fn results() -> Results {
    let mut runs = Vec::new();
    // A commit's time for one waiting client, in nanoseconds, and how much of it more clients share.
    let stores = [
        ("annals", 96e3, 0.93),
        ("annals (blocking)", 99e3, 0.9),
        ("redb", 238e3, 0.0),
        ("fjall", 190e3, 0.35),
        ("fjall + group", 172e3, 0.72),
        (HOSTILE, 400e3, 0.5),
        ("okaywal", 110e3, 0.6),
    ];
    for (name, wait, shared) in stores {
        let mut solo =
            run("solo", "128 B", name, 1e9 / wait, &[("threads", 1.0), ("payload_bytes", 128.0)]);
        solo.latency = Some(latency(wait));
        solo.device_share = (name == "annals").then_some(0.913);
        runs.push(solo);
        for threads in [4.0_f64, 16.0, 64.0, 256.0] {
            let rate = 1e9 / wait * threads.powf(shared);
            let case = format!("{threads} threads");
            let mut clients = run(
                "clients",
                &case,
                name,
                rate,
                &[("threads", threads), ("payload_bytes", 128.0)],
            );
            clients.latency = Some(latency(threads * 1e9 / rate));
            runs.push(clients);
        }
        for share in [0.2, 0.5, 0.8] {
            let rate = 64_f64.powf(shared) * 1e9 / wait * share;
            let case = format!("{:.0} % of capacity", share * 100.0);
            let mut open = run("latency", &case, name, rate, &[("offered_share", share)]);
            open.latency = Some(latency(wait / (1.05 - share)));
            open.more_latency.insert("submit".into(), latency(wait / (1.05 - share) / 200.0));
            runs.push(open);
        }
    }
    for (name, nanos) in [("annals", 210.0), ("fjall + group", 9_000.0)] {
        for (aggregates, text) in [(1e4, "10⁴"), (1e5, "10⁵"), (1e6, "10⁶"), (1e7, "10⁷")] {
            let cost = nanos * f64::powf(aggregates / 1e4, 0.12);
            let case = format!("{text} aggregates");
            runs.push(run("growth", &case, name, 1e9 / cost, &[("aggregates", aggregates)]));
        }
    }
    let mut hot = run("hot", "16 threads", "annals", 88_000.0, &[("threads", 16.0)]);
    hot.conflicts = 1.25;
    hot.figures.insert("own_ratio".into(), spread(0.83, 0.02));
    hot.figures.insert("memory_bytes_per_aggregate".into(), spread(96.0, 0.0));
    runs.push(hot);
    let mut slow = run("hot", "16 threads", "redb", 4_100.0, &[("threads", 16.0)]);
    slow.rate = spread(4_100.0, 0.31);
    runs.push(slow);
    let mut lost = run("hot", "16 threads", "fjall", 7_000_000.0, &[("threads", 16.0)]);
    lost.verified = false;
    runs.push(lost);

    Results {
        form: Results::FORM,
        began: "2026-01-31T12:00:00Z".into(),
        seconds: 171.3,
        command: "bench --rounds 3".into(),
        machine: Machine {
            processor: "Made-up 9000 <fast>".into(),
            processors: 2,
            memory_bytes: 8 << 30,
            kernel: "Linux 6.12.0".into(),
            compiler: "rustc 1.95.0".into(),
            annals: "0.1.0".into(),
            file_system: "ext4".into(),
            block_device: "vda".into(),
            load_before: 0.12,
            load_after: 2.5,
            foreign_share: 0.034,
        },
        device: device(),
        contenders: contenders(),
        runs,
        remarks: vec![
            "fio is not installed: the device's figures are those of our own loops alone.".into(),
            "KurrentDB & Celeriant can't be installed from a registry.".into(),
        ],
    }
}

fn contenders() -> Vec<Contender> {
    let one = |name: &str, version: &str, kind, acknowledges: &str| Contender {
        name: name.into(),
        version: version.into(),
        kind,
        acknowledges: acknowledges.into(),
        failure: None,
    };
    let mut all = vec![
        one(
            "annals",
            "0.1.0",
            Kind::Annals,
            "A direct write of whole blocks with data sync, up to four in flight.",
        ),
        one("annals (blocking)", "0.1.0", Kind::Annals, "The same through pwritev2(RWF_DSYNC)."),
        one(
            "redb",
            "4.0.0",
            Kind::Embedded,
            "A write transaction with Durability::Immediate: two fsyncs.",
        ),
        one("fjall", "3.0.1", Kind::Embedded, "A batch, then persist(SyncAll)."),
        one(
            "fjall + group",
            "3.0.1",
            Kind::Grouped,
            "One batch for all that wait, then persist(SyncAll).",
        ),
        one(HOSTILE, "1.0 & up", Kind::Server, "\"Nothing\" <b>at all</b>."),
        one(
            "okaywal",
            "0.3.1",
            Kind::Bound,
            "A record appended and synced; it knows no conditions.",
        ),
        one("umadb", "0.1.0", Kind::Server, "A commit of its log."),
    ];
    if let Some(last) = all.last_mut() {
        last.failure = Some("no `umadb` in PATH: install it with cargo".into());
    }
    all
}

fn device() -> Vec<DeviceRun> {
    let mut runs = Vec::new();
    for (method, base) in [("io_uring", 88e3), ("blocking", 90e3)] {
        for (depth, faster) in [(1, 1.0), (4, 2.4), (16, 6.0)] {
            runs.push(DeviceRun {
                method: method.into(),
                direction: "write".into(),
                durability: "RWF_DSYNC".into(),
                depth,
                block_bytes: 4096,
                rate: spread(1e9 / base * faster, 0.02),
                latency: latency(base * f64::from(depth) / faster),
            });
        }
    }
    runs
}

fn run(workload: &str, case: &str, contender: &str, rate: f64, parameters: &[(&str, f64)]) -> Run {
    Run {
        workload: workload.into(),
        case: case.into(),
        parameters: parameters.iter().map(|(name, value)| ((*name).into(), *value)).collect(),
        contender: contender.into(),
        unit: "commits".into(),
        rate: spread(rate, 0.04),
        latency: None,
        more_latency: BTreeMap::new(),
        processor_nanos: Some(spread(0.3e9 / rate, 0.05)),
        written_bytes: Some(spread(4_096.0, 0.0)),
        conflicts: 0.0,
        device_share: None,
        figures: BTreeMap::new(),
        verified: true,
    }
}

/// Three rounds, the extremes this share of the median away from it.
fn spread(median: f64, noise: f64) -> Spread {
    Spread { median, min: median * (1.0 - noise), max: median * (1.0 + noise), rounds: 3 }
}

/// A curve with a tail, round a median.
fn latency(median: f64) -> Latency {
    let at = |percentile: f64| {
        let rarer = 100.0 / (100.0 - percentile);
        (median * (0.8 + 0.1 * f64::log2(rarer) + 0.012 * f64::log2(rarer).powi(2))) as u64
    };
    let mut curve: Vec<(f64, u64)> = Vec::new();
    let mut missing = 100.0;
    while missing > 0.005 {
        curve.push((100.0 - missing, at(100.0 - missing)));
        missing *= 0.8;
    }
    let max = at(99.995) * 2;
    curve.push((100.0, max));
    Latency {
        count: 20_000,
        mean: median * 1.05,
        min: at(0.0),
        p50: at(50.0),
        p90: at(90.0),
        p99: at(99.0),
        p999: at(99.9),
        max,
        curve,
        file: None,
    }
}
