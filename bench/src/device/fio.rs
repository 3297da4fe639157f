//! The same loop by `fio`, where it is installed: whether somebody else's tool finds what ours does.

use std::{process::Command, time::Duration};

use serde::Deserialize;

use super::{Load, Target};
use crate::{
    results::Latency,
    store::{Error, Result},
};

/// What `fio --version` says; `None` if it is not installed.
pub(super) fn version() -> Option<String> {
    let output = Command::new("fio").arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Durable sequential writes (`O_DSYNC`, which is `RWF_DSYNC` for every write) with a ring: requests a second, and their latency.
pub(super) fn turn(target: &Target, load: Load, duration: Duration) -> Result<(f64, Latency)> {
    let mut command = Command::new("fio");
    command
        .args([
            "--name=device",
            "--output-format=json",
            "--ioengine=io_uring",
            "--rw=write",
            "--sync=dsync",
        ])
        .args([
            "--fixedbufs",
            "--registerfiles",
            "--overwrite=1",
            "--allow_file_create=0",
            "--time_based",
        ])
        .args(["--clat_percentiles=0", "--lat_percentiles=1", "--percentile_list=50:90:99:99.9"])
        .args(["--refill_buffers=0", "--randrepeat=1", "--thread"])
        .arg(format!("--direct={}", u8::from(target.is_direct())))
        .arg(format!("--filename={}", target.path().display()))
        .arg(format!("--size={}", target.bytes()))
        .arg(format!("--bs={}", load.bytes))
        .arg(format!("--iodepth={}", load.depth))
        .arg(format!("--runtime={}ms", duration.as_millis()));
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, said.trim()).into());
    }
    parse(&output.stdout)
}

#[derive(Deserialize)]
struct Report {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    write: Direction,
}

#[derive(Deserialize)]
struct Direction {
    iops: f64,
    lat_ns: Times,
}

#[derive(Deserialize)]
struct Times {
    min: u64,
    max: u64,
    mean: f64,
    #[serde(rename = "N")]
    count: u64,
    percentile: std::collections::BTreeMap<String, u64>,
}

fn parse(json: &[u8]) -> Result<(f64, Latency)> {
    let report: Report = serde_json::from_slice(json)
        .map_err(|error| format!("its report is not what was expected: {error}"))?;
    let Some(Job { write: Direction { iops, lat_ns: times } }) = report.jobs.into_iter().next()
    else {
        return Err("its report has no job".into());
    };
    let percentile = |name: &str| {
        times
            .percentile
            .get(name)
            .copied()
            .ok_or_else(|| -> Error { format!("its report has no percentile {name}").into() })
    };
    let latency = Latency {
        count: times.count,
        mean: times.mean,
        min: times.min,
        p50: percentile("50.000000")?,
        p90: percentile("90.000000")?,
        p99: percentile("99.000000")?,
        p999: percentile("99.900000")?,
        max: times.max,
        curve: Vec::new(),
        file: None,
    };
    Ok((iops, latency))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let json = br#"{"fio version":"fio-3","jobs":[{"jobname":"device","write":{"iops":8123.5,"lat_ns":{"min":80,"max":9000,
            "mean":120.5,"stddev":3.0,"N":4000,"percentile":{"50.000000":110,"90.000000":130,"99.000000":300,"99.900000":800}}}}]}"#;
        let (rate, latency) = parse(json).unwrap();
        assert_eq!(rate, 8123.5);
        assert_eq!((latency.count, latency.p50, latency.p999, latency.max), (4000, 110, 800, 9000));
        assert!(parse(br#"{"jobs":[]}"#).is_err());
        assert!(parse(b"fio: engine io_uring not loadable").is_err());
    }
}
