//! What people see: standard output, tables, numbers, progress. Colours and progress only on a terminal.

use std::fmt::Display;
use std::io::{self, BufWriter, Read, StdoutLock, Write};
use std::time::Duration;

use console::{Style, Term};
use indicatif::{ProgressBar, ProgressStyle};

/// Standard output, buffered.
#[derive(Debug)]
pub(crate) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    json: bool,
    columns: Option<usize>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Output {
        let term = Term::stdout();
        let columns = term.is_term().then(|| usize::from(term.size().1));
        Output { out: BufWriter::with_capacity(64 << 10, io::stdout().lock()), json, columns }
    }

    /// Whether a program reads it.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether somebody is watching.
    pub(crate) fn is_terminal(&self) -> bool {
        self.columns.is_some()
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: impl Display) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// Writes a line, cut to the width of the terminal if it is one.
    pub(crate) fn cut_line(&mut self, line: &str) -> io::Result<()> {
        match self.columns {
            Some(columns) => self.line(console::truncate_str(line, columns, "…")),
            None => self.line(line),
        }
    }

    /// Writes out what is buffered.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What is emphasised in a table or a message.
pub(crate) fn bold(text: impl Display) -> String {
    Style::new().bold().apply_to(text).to_string()
}

/// What matters less.
pub(crate) fn dim(text: impl Display) -> String {
    Style::new().dim().apply_to(text).to_string()
}

/// What went well.
pub(crate) fn good(text: impl Display) -> String {
    Style::new().green().apply_to(text).to_string()
}

/// What went wrong.
pub(crate) fn bad(text: impl Display) -> String {
    Style::new().red().apply_to(text).to_string()
}

/// Tells people something beside the output, on standard error, in one line.
pub(crate) fn note(text: impl Display) {
    let text = text.to_string().replace(['\n', '\r'], " ");
    // Nobody is left to be told that standard error is closed.
    let _ = writeln!(io::stderr().lock(), "annals: {text}");
}

/// A whole number with its thousands apart: `8,577`.
pub(crate) fn grouped(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count of bytes in the unit that suits it.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..=9_999 => format!("{} B", grouped(count)),
        10_000..=9_999_999 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

/// A duration in the unit that suits it.
pub(crate) fn duration(time: Duration) -> String {
    match time.as_micros() {
        0..=999 => format!("{} µs", time.as_micros()),
        1_000..=999_999 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

/// A count with its noun: `1 write`, `2 writes`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

/// Rows of cells, each column as wide as its widest cell.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    numbers: Vec<usize>,
}

impl Table {
    /// A table with these headings; the columns with these indexes hold numbers, set to the right.
    pub(crate) fn new(headings: &[&str], numbers: &[usize]) -> Table {
        let headings = headings.iter().map(bold).collect();
        Table { rows: vec![headings], numbers: numbers.to_vec() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn write(&self, out: &mut Output) -> io::Result<()> {
        self.lines().try_for_each(|line| out.cut_line(&line))
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column| {
            let cells = self.rows.iter().filter_map(|row| row.get::<usize>(column));
            cells.map(|cell| console::measure_text_width(cell)).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        self.rows.iter().map(move |row| {
            let padded = row.iter().enumerate().map(|(column, cell)| {
                let alignment = match self.numbers.contains(&column) {
                    true => console::Alignment::Right,
                    false => console::Alignment::Left,
                };
                console::pad_str(cell, widths[column], alignment, None)
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
    }
}

/// A progress bar on standard error, seen only if that is a terminal.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Of something that has no measure.
    pub(crate) fn new(doing: &'static str) -> Progress {
        let bar = ProgressBar::new_spinner().with_message(doing);
        bar.set_style(style("{spinner} {msg} {elapsed}"));
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Progress(bar)
    }

    /// Of something measured in bytes; how many there will be is said later, or never.
    pub(crate) fn of_bytes(doing: &'static str) -> Progress {
        let progress = Progress::new(doing);
        progress.0.set_style(style("{spinner} {msg} {bytes} {elapsed}"));
        progress
    }

    /// Says how many bytes there will be.
    pub(crate) fn expect_bytes(&self, bytes: u64) {
        if self.0.length() == Some(bytes) {
            return;
        }
        self.0.set_style(style("{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left"));
        self.0.set_length(bytes);
    }

    /// Counts what is read.
    pub(crate) fn wrap<R: Read>(&self, reader: R) -> impl Read + use<R> {
        self.0.wrap_read(reader)
    }

    /// Says how many more bytes are done.
    pub(crate) fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Says how many bytes are done in all.
    pub(crate) fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

/// The bar goes when the work ends, however it ends.
impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates of this file are well formed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number as u64), text);
        }
        assert_eq!(counted(1, "write"), "1 write");
        assert_eq!(counted(8_577, "write"), "8,577 writes");
    }

    #[test]
    fn units_suit() {
        assert_eq!(bytes(4096), "4,096 B");
        assert_eq!(bytes(1 << 20), "1024.0 KiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(duration(Duration::from_micros(999)), "999 µs");
        assert_eq!(duration(Duration::from_micros(1500)), "1.5 ms");
        assert_eq!(duration(Duration::from_secs(2)), "2.00 s");
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["n", "key"], &[0]);
        table.row(["1,000".to_owned(), "a".to_owned()]);
        table.row(["7".to_owned(), "bé".to_owned()]);
        let lines: Vec<_> =
            table.lines().map(|line| console::strip_ansi_codes(&line).into_owned()).collect();
        assert_eq!(lines, ["    n  key", "1,000  a", "    7  bé"]);
    }
}
