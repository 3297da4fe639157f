//! `.hgrm` files: a histogram as text, as every HdrHistogram writes it and the usual plotters read it, in microseconds.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use hdrhistogram::Histogram;

use crate::{campaign::LATENCY, results::Run, store::Result};

/// How many steps there are for each halving of the distance to 100 %.
const TICKS_PER_HALF: u32 = 5;

/// Writes a run's histograms into a folder and notes the files' names in the run.
pub fn write(
    out: &Path,
    run: &mut Run,
    histograms: &BTreeMap<String, Histogram<u64>>,
) -> Result<()> {
    for (name, histogram) in histograms {
        let mut parts = vec![run.workload.as_str(), run.case.as_str(), run.contender.as_str()];
        let latency = if name == LATENCY {
            run.latency.as_mut()
        } else {
            parts.push(name);
            run.more_latency.get_mut(name)
        };
        let file = format!("{}.hgrm", file_name(&parts));
        let path = out.join(&file);
        fs::write(&path, render(histogram))
            .map_err(|error| format!("writing {} failed: {error}", path.display()))?;
        if let Some(latency) = latency {
            latency.file = Some(file);
        }
    }
    Ok(())
}

/// A name that every file system takes.
fn file_name(parts: &[&str]) -> String {
    let plain = |letter: char| match letter {
        '⁰'..='⁹' => char::from_digit(letter as u32 - '⁰' as u32, 10).unwrap_or('-'),
        '²' => '2',
        '³' => '3',
        letter if letter.is_ascii_alphanumeric() => letter.to_ascii_lowercase(),
        _ => '-',
    };
    let words = parts.iter().map(|part| {
        let plain: String = part.chars().map(plain).collect();
        plain.split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
    });
    words.collect::<Vec<_>>().join("_")
}

fn render(histogram: &Histogram<u64>) -> String {
    let micros = |nanos: f64| nanos / 1000.0;
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut seen = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        seen += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        let value = micros(step.value_iterated_to() as f64);
        let line = if quantile < 1.0 {
            let inverse = 1.0 / (1.0 - quantile);
            writeln!(text, "{value:12.3} {quantile:2.12} {seen:10} {inverse:14.2}")
        } else {
            writeln!(text, "{value:12.3} {quantile:2.12} {seen:10}")
        };
        debug_assert!(line.is_ok(), "text takes what is written to it");
    }
    let (mean, deviation) = (micros(histogram.mean()), micros(histogram.stdev()));
    let (max, count) = (micros(histogram.max() as f64), histogram.len());
    text + &format!(
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]\n#[Max     = {max:12.3}, Total count    = {count:12}]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::histogram;

    #[test]
    fn the_last_line_of_the_body_has_all_values() {
        let mut histogram = histogram::empty();
        for micros in 1..=100_u64 {
            histogram.saturating_record(micros * 1000);
        }
        let text = render(&histogram);
        let body: Vec<&str> =
            text.lines().skip(2).take_while(|line| !line.starts_with('#')).collect();
        let last: Vec<&str> = body.last().expect("there are lines").split_whitespace().collect();
        assert_eq!(last[1..], ["1.000000000000", "100"]);
        assert!((last[0].parse::<f64>().expect("a number") - 100.0).abs() < 0.1);
        let half = body.iter().find(|line| line.contains(" 0.500000000000 ")).expect("the median");
        let columns: Vec<&str> = half.split_whitespace().collect();
        assert_eq!((columns[2], columns[3]), ("50", "2.00"));
    }

    #[test]
    fn names_of_files_are_plain() {
        let parts = ["pipeline", "by key, 10⁶, 128 B", "redb + group"];
        assert_eq!(file_name(&parts), "pipeline_by-key-106-128-b_redb-group");
    }
}
