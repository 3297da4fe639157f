//! Figures as people read them: three digits and the unit that fits.

/// A number with three digits that count, and a prefix of thousands.
pub fn number(value: f64) -> String {
    scaled(value, &[(1e9, " G"), (1e6, " M"), (1e3, " k")], "")
}

/// So many a second.
pub fn rate(value: f64) -> String {
    scaled(value, &[(1e9, " G/s"), (1e6, " M/s"), (1e3, " k/s")], " /s")
}

/// A time, from nanoseconds.
pub fn nanos(value: f64) -> String {
    scaled(value, &[(1e9, " s"), (1e6, " ms"), (1e3, " µs")], " ns")
}

/// A size in decimal units, as bandwidth and what an event costs are given.
pub fn bytes(value: f64) -> String {
    scaled(value, &[(1e9, " GB"), (1e6, " MB"), (1e3, " kB")], " B")
}

/// A size in binary units, as blocks and memory are given.
pub fn binary(value: f64) -> String {
    const KIB: f64 = 1024.0;
    scaled(value, &[(KIB * KIB * KIB, " GiB"), (KIB * KIB, " MiB"), (KIB, " KiB")], " B")
}

/// A share as a percentage.
pub fn percent(share: f64) -> String {
    format!("{} %", digits(share * 100.0))
}

/// How many times as good: above and below 1 with the digits that count.
pub fn ratio(ratio: f64) -> String {
    let places = if ratio < 1.0 { 2 } else { usize::from(ratio < 100.0) };
    format!("{ratio:.places$}\u{202f}×")
}

/// A named figure whose name says what it is in: its name in words and its value.
pub fn figure(name: &str, value: f64) -> (String, String) {
    let words: Vec<&str> = name.split('_').collect();
    let (unit, text) = if words.contains(&"nanos") {
        ("nanos", nanos(value))
    } else if words.contains(&"bytes") {
        ("bytes", bytes(value))
    } else if words.contains(&"share") {
        ("", percent(value))
    } else {
        ("", number(value))
    };
    let rest: Vec<&str> = words.into_iter().filter(|word| *word != unit).collect();
    (rest.join(" "), text)
}

fn scaled(value: f64, steps: &[(f64, &str)], plain: &str) -> String {
    // 999.7 is shown as the next unit's 1, not as 1000 of this one.
    let step = steps.iter().find(|(step, _)| value.abs() >= step * 0.9995);
    let (by, unit) = step.copied().unwrap_or((1.0, plain));
    format!("{}{unit}", digits(value / by))
}

fn digits(value: f64) -> String {
    let places = match value.abs() {
        0.0 => 0,
        large if large >= 99.95 => 0,
        large if large >= 9.995 => 1,
        large if large >= 0.0995 => 2,
        _ => 4,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_takes_the_unit_that_fits() {
        assert_eq!(rate(193_214.0), "193 k/s");
        assert_eq!(rate(5_012_345.0), "5.01 M/s");
        assert_eq!(rate(0.4), "0.4 /s");
        assert_eq!(nanos(88_400.0), "88.4 µs");
        assert_eq!(nanos(200.0), "200 ns");
        assert_eq!(nanos(4_000_000.0), "4 ms");
        assert_eq!(bytes(4_096.0), "4.1 kB");
        assert_eq!(binary(4_096.0), "4 KiB");
        assert_eq!(percent(0.872), "87.2 %");
        assert_eq!(number(50_000.0), "50 k");
        assert_eq!(number(10_000_000.0), "10 M");
    }

    #[test]
    fn what_rounds_up_to_a_thousand_is_one_of_the_next_unit() {
        assert_eq!(nanos(999_700.0), "1 ms");
        assert_eq!(rate(999_999.0), "1 M/s");
    }

    #[test]
    fn a_figure_is_read_by_its_name() {
        let (name, value) = figure("memory_bytes_per_aggregate", 96.0);
        assert_eq!((name.as_str(), value.as_str()), ("memory per aggregate", "96 B"));
        let (name, value) = figure("own_ratio", 0.83);
        assert_eq!((name.as_str(), value.as_str()), ("own ratio", "0.83"));
        assert_eq!(figure("chase_nanos", 1_500.0).1, "1.5 µs");
    }
}
