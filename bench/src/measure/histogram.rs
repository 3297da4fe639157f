//! Histograms of nanoseconds, and what the results keep of them.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::{results::Latency, store::Result};

/// The longest time that is told apart from a longer one.
const LONGEST: u64 = 1_000_000_000_000;

/// An empty histogram of nanoseconds, three digits exact, up to a quarter of an hour.
pub fn empty() -> Histogram<u64> {
    let histogram = Histogram::new_with_bounds(1, LONGEST, 3);
    histogram.expect("1 to 10^12 with three digits are bounds that a histogram can have")
}

/// Adds one time. What is longer than the longest counts as that.
pub fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(LONGEST).max(1));
}

/// Both together.
pub fn merge(into: &mut Histogram<u64>, from: &Histogram<u64>) -> Result<()> {
    Ok(into.add(from)?)
}

/// The summary that goes into the results.
pub fn summary(histogram: &Histogram<u64>) -> Latency {
    let curve = histogram
        .iter_quantiles(5)
        .map(|step| (step.quantile_iterated_to() * 100.0, step.value_iterated_to()))
        .collect();
    Latency {
        count: histogram.len(),
        mean: histogram.mean(),
        min: histogram.min(),
        p50: histogram.value_at_quantile(0.5),
        p90: histogram.value_at_quantile(0.9),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
        curve,
        file: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_the_percentiles() {
        let mut histogram = empty();
        for micros in 1..=1000 {
            record(&mut histogram, Duration::from_micros(micros));
        }
        let latency = summary(&histogram);
        let near = |found: u64, expected: f64| (found as f64 / expected - 1.0).abs() < 0.002;
        assert_eq!(latency.count, 1000);
        assert!(near(latency.p50, 500e3) && near(latency.p90, 900e3), "{latency:?}");
        assert!(near(latency.p99, 990e3) && near(latency.p999, 999e3), "{latency:?}");
        assert!(
            latency.curve.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1)
        );
        assert_eq!(latency.curve.last().map(|point| point.0), Some(100.0));
    }

    #[test]
    fn the_summary_of_nothing_counts_nothing() {
        assert_eq!(summary(&empty()).count, 0);
    }

    #[test]
    fn what_is_longer_than_the_longest_is_kept() {
        let mut histogram = empty();
        record(&mut histogram, Duration::from_secs(100_000));
        record(&mut histogram, Duration::ZERO);
        assert_eq!((histogram.len(), histogram.min()), (2, 1));
        assert!(histogram.max() >= LONGEST);
    }
}
