//! Lines of a file or of standard input, unpacked if they are gzip, none longer than a bound.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::output::Progress;

/// The longest line, in bytes: well above the largest write with its data in base64.
const LINE_BYTES_MAX: usize = 64 << 20;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What comes next.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Next<'a> {
    /// A line that is not blank, without its end.
    Line(&'a [u8]),
    /// A line beyond the bound, skipped.
    TooLong,
    /// There are no more lines.
    End,
}

/// A reader of lines that counts them.
pub(crate) struct Source {
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
    line_bytes_max: usize,
}

impl Source {
    /// Opens a file, or standard input for `-`, and shows on the progress bar how much of it is read.
    pub(crate) fn open(path: &Path, progress: &Progress) -> io::Result<Source> {
        if path == Path::new("-") {
            return Source::new(progress.wrap(io::stdin().lock()));
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if metadata.is_file() {
            progress.expect_bytes(metadata.len());
        }
        Source::new(progress.wrap(file))
    }

    /// Reads from anything.
    pub(crate) fn new(mut raw: impl Read + 'static) -> io::Result<Source> {
        let mut head = Vec::new();
        raw.by_ref().take(2).read_to_end(&mut head)?;
        let packed = head == GZIP_MAGIC;
        let whole = BufReader::with_capacity(256 << 10, Cursor::new(head).chain(raw));
        let reader: Box<dyn BufRead> = if packed {
            Box::new(BufReader::with_capacity(256 << 10, MultiGzDecoder::new(whole)))
        } else {
            Box::new(whole)
        };
        Ok(Source { reader, line: Vec::new(), number: 0, line_bytes_max: LINE_BYTES_MAX })
    }

    /// The number of the line that came last, counted from 1, blank ones included.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next line that is not blank.
    pub(crate) fn next(&mut self) -> io::Result<Next<'_>> {
        loop {
            self.line.clear();
            let bound = self.line_bytes_max as u64 + 1;
            if self.reader.by_ref().take(bound).read_until(b'\n', &mut self.line)? == 0 {
                return Ok(Next::End);
            }
            self.number += 1;
            if self.line.last() == Some(&b'\n') {
                self.line.pop();
            } else if self.line.len() > self.line_bytes_max {
                self.reader.skip_until(b'\n')?;
                return Ok(Next::TooLong);
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        Ok(Next::Line(&self.line))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn lines(mut source: Source) -> Vec<(u64, Option<String>)> {
        let mut found = Vec::new();
        loop {
            let line = match source.next().unwrap() {
                Next::End => return found,
                Next::Line(line) => Some(String::from_utf8(line.to_vec()).unwrap()),
                Next::TooLong => None,
            };
            found.push((source.number(), line));
        }
    }

    fn packed(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn blank_lines_count_and_are_skipped() {
        let text = "\na\n \t\r\nb\r\n\nc";
        let expected =
            [(2, "a"), (4, "b\r"), (6, "c")].map(|(at, line)| (at, Some(line.to_owned())));
        assert_eq!(lines(Source::new(text.as_bytes()).unwrap()), expected);
        let twice = [packed("\na\n \t\r\nb\r\n"), packed("\nc")].concat();
        assert_eq!(lines(Source::new(Cursor::new(twice)).unwrap()), expected);
        assert_eq!(lines(Source::new(&b""[..]).unwrap()), []);
    }

    #[test]
    fn a_line_beyond_the_bound_is_skipped_and_the_next_one_read() {
        let mut source = Source::new(&b"12345\n1234\n123456\n1\n1234567890"[..]).unwrap();
        source.line_bytes_max = 5;
        let found: Vec<_> =
            lines(source).into_iter().map(|(at, line)| (at, line.is_some())).collect();
        assert_eq!(found, [(1, true), (2, true), (3, false), (4, true), (5, false)]);
    }

    #[test]
    fn damaged_gzip_is_an_error() {
        let whole = packed(&"line\n".repeat(1000));
        let mut source = Source::new(Cursor::new(whole[..whole.len() / 2].to_vec())).unwrap();
        let error = loop {
            match source.next() {
                Err(error) => break error,
                Ok(Next::End) => panic!("it ended as if it were whole"),
                Ok(_) => {}
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
