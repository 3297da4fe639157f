//! How far a figure is from what the device can do: the one place that defines it.
//!
//! * A client that **waits** for each write (`solo`, `clients`, `hot`): the median time of a bare durable write of one 4 KiB block, one
//!   at a time, by the median time of a commit. One that spends its time in nothing but the device has 1; with many clients it is what waiting in a
//!   group costs. Absent for events that do not fit the block, and for tasks and chains, which do not wait.
//! * **Throughput** (`pipeline`, `transfer`): all bytes that were written, preparation of space included, a second, by the bandwidth of bare
//!   sequential durable writes of 1 MiB. It says how much of the device is used, not how well.
//! * **Reading** (`open`, `replay` from cold files): bytes of the log read a second, by the bandwidth of bare sequential reads.

use crate::{
    device,
    results::{DeviceRun, Run},
};

/// The figure in which a workload says how many bytes it read from the device a second.
pub const READ_BYTES_PER_SECOND: &str = "read_bytes_per_second";

/// The block of one durable write, and how much of it at most is payload.
const BLOCK_BYTES: u64 = 4 << 10;
const PAYLOAD_MOST: f64 = 3500.0;

/// The share of the device's limit, for a run that has one.
pub fn of(run: &Run, device: &[DeviceRun]) -> Option<f64> {
    let parameter = |name| run.parameters.get(name).copied();
    match run.workload.as_str() {
        "solo" | "clients" | "hot" => {
            let waits = parameter("tasks").or(parameter("window")).is_none();
            let fits = parameter("payload_bytes").unwrap_or(0.0) <= PAYLOAD_MOST;
            let bare = device::reference(device, "write", BLOCK_BYTES, 1)?;
            let commit = run.latency.as_ref().filter(|latency| waits && fits && latency.p50 > 0)?;
            Some(bare.latency.p50 as f64 / commit.p50 as f64)
        }
        "pipeline" | "transfer" => {
            let written = run.written_bytes?.median * run.rate.median;
            Some(written / bandwidth(device, "write")?)
        }
        _ => {
            let read = run.figures.get(READ_BYTES_PER_SECOND)?.median;
            Some(read / bandwidth(device, "read")?)
        }
    }
}

/// The most bytes a second of sequential requests, at any depth.
pub fn bandwidth(device: &[DeviceRun], direction: &str) -> Option<f64> {
    device
        .iter()
        .filter_map(|run| device::reference(device, direction, run.block_bytes, run.depth))
        .map(|run| run.rate.median * run.block_bytes as f64)
        .max_by(f64::total_cmp)
        .filter(|bandwidth| *bandwidth > 0.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::results::{Latency, Spread};

    fn device(direction: &str, block_bytes: u64, rate: f64, p50: u64) -> DeviceRun {
        DeviceRun {
            method: "io_uring".into(),
            direction: direction.into(),
            durability: "RWF_DSYNC".into(),
            depth: 1,
            block_bytes,
            rate: Spread::of([rate]).expect("one figure"),
            latency: Latency { p50, count: 1, ..Latency::default() },
        }
    }

    fn run(workload: &str) -> Run {
        Run {
            workload: workload.into(),
            case: "a case".into(),
            parameters: BTreeMap::from([("payload_bytes".into(), 128.0)]),
            contender: "annals".into(),
            unit: "commits".into(),
            rate: Spread::of([1000.0]).expect("one figure"),
            latency: Some(Latency { p50: 200_000, count: 1, ..Latency::default() }),
            more_latency: BTreeMap::new(),
            processor_nanos: None,
            written_bytes: Spread::of([500.0]),
            conflicts: 0.0,
            device_share: None,
            figures: BTreeMap::new(),
            verified: true,
        }
    }

    #[test]
    fn waiting_is_shared_by_time_and_throughput_by_bytes() {
        let bare = [device("write", 4096, 10_000.0, 100_000), device("write", 1 << 20, 1.0, 1)];
        assert_eq!(of(&run("solo"), &bare), Some(0.5));
        let share = of(&run("pipeline"), &bare).expect("bytes were counted");
        assert!((share - 500_000.0 / 40_960_000.0).abs() < 1e-9, "{share}");
    }

    #[test]
    fn what_has_no_limit_has_no_share() {
        let bare = [device("write", 4096, 10_000.0, 100_000)];
        assert_eq!(of(&run("conflict"), &bare), None);
        assert_eq!(of(&run("solo"), &[]), None);
        let mut large = run("solo");
        large.parameters.insert("payload_bytes".into(), 16384.0);
        assert_eq!(of(&large, &bare), None);
    }
}
