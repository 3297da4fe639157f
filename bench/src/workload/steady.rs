//! Ten minutes at 50 and at 80 % of capacity: whether latency holds while segments turn over.
//!
//! The open loop of `latency`, its histograms kept apart by the minute: `p999_nanos_minute_01` to `…_10`, and `p999_growth`, the
//! median of the last three minutes by that of the first three. What fills more than half of the free disk in that time is not offered: then the rate
//! is what the disk has room for, and `offered_rate` is less than the share of `capacity_per_second` that the case names.
//! A run that is only to see that everything works has tenths of its time for minutes.

use std::{path::Path, time::Duration};

use hdrhistogram::Histogram;

use super::{
    Case, Measured, Round,
    latency::{Plan, Source, capacity, offer},
};
use crate::{
    measure::folder,
    store::{Result, Store},
};

/// How many slices, and how long each is.
const SLICES: usize = 10;
const SLICE: Duration = Duration::from_secs(60);

/// The share of the free disk that may be filled.
const DISK_SHARE: f64 = 0.5;

/// The names of the slices' figures.
const NAMES: [&str; SLICES] = [
    "p999_nanos_minute_01",
    "p999_nanos_minute_02",
    "p999_nanos_minute_03",
    "p999_nanos_minute_04",
    "p999_nanos_minute_05",
    "p999_nanos_minute_06",
    "p999_nanos_minute_07",
    "p999_nanos_minute_08",
    "p999_nanos_minute_09",
    "p999_nanos_minute_10",
];

/// The cases.
pub fn cases() -> Vec<Case> {
    [50, 80]
        .map(|percent| {
            let parameters = [
                ("offered_share", f64::from(percent) / 100.0),
                ("seconds", (SLICE * SLICES as u32).as_secs_f64()),
                ("aggregates", 1e4),
                ("payload_bytes", 128.0),
                ("threads", 1.0),
            ];
            Case::new("steady", format!("{percent} % of capacity"), parameters)
        })
        .to_vec()
}

/// Runs a case once.
pub fn run<S: Store>(round: &Round<'_>) -> Result<Measured> {
    let slice = if round.quick { round.measure / SLICES as u32 } else { SLICE };
    let store = S::open(round.dir, &round.setup)?;
    let mut source = Source::new(round);
    let capacity = capacity(&store, &mut source, round.measure)?;
    let bytes_each = folder::bytes(round.dir)? as f64 / source.acknowledged().events() as f64;
    let room =
        free_bytes(round.dir)? * DISK_SHARE / bytes_each / (slice.as_secs_f64() * SLICES as f64);
    let rate = (round.case.parameters["offered_share"] * capacity).min(room);
    let plan = Plan { rate, warm_up: round.warm_up, slice, slices: SLICES };
    let offered = offer(&store, &mut source, plan)?;
    source.acknowledged().check_reopened(store, round)?;
    let tails: Vec<f64> = offered.durable.iter().map(p999).collect();
    let mut measured = offered.measured(capacity, rate)?;
    measured.figures.extend(NAMES.into_iter().zip(tails.iter().copied()));
    measured.figures.insert("p999_growth", growth(&tails));
    measured.verified = true;
    Ok(measured)
}

fn free_bytes(dir: &Path) -> Result<f64> {
    let system = rustix::fs::statvfs(dir)?;
    Ok(system.f_bavail as f64 * system.f_frsize as f64)
}

fn p999(histogram: &Histogram<u64>) -> f64 {
    histogram.value_at_quantile(0.999) as f64
}

/// The median of the last three by that of the first three.
fn growth(tails: &[f64]) -> f64 {
    let median = |three: &[f64]| {
        let mut three = three.to_vec();
        three.sort_by(f64::total_cmp);
        three[three.len() / 2]
    };
    median(&tails[tails.len() - 3..]) / median(&tails[..3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_of_the_ends_and_not_moved_by_one_bad_minute() {
        let tails = [2.0, 2.0, 90.0, 50.0, 50.0, 50.0, 50.0, 1.0, 3.0, 3.0];
        assert_eq!(growth(&tails), 1.5);
    }
}
