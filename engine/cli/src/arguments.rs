//! What can be said on the command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use annals::{Backend, Expect, Options, Store};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::failure::Failure;
use crate::value;

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 a conflict, or damage found; 2 wrong usage or bad input; 3 the store or the disk failed.";

const LINE_FORMAT: &str = r#"A line is one write, all or nothing:
  {"writes":[{"aggregate":"order-1","expected":0,"events":[{"type":"Placed","time":"…","data":{…}}]},…],
   "checks":[{"aggregate":"customer-9","expected":"exists"}]}

  expected   a version, "any", "exists" or "absent"; left out, "any"
  events     each a type, and optionally time (text), data and metadata (any JSON), id (a UUID or a number)
  checks     optional: conditions on aggregates that the write leaves alone
Bytes that are not JSON are {"base64":"…"}, and so may a key be. The short form of a line is one event:
  {"aggregate":"order-1","type":"Placed","data":{…}}"#;

/// An event store: durable, conditional appends.
///
/// Without a command: a tour, which makes a store in a temporary directory, uses it, and shows what happened.
#[derive(Parser, Debug)]
#[command(name = "annals", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    /// Write what a program can read: one JSON object, or one a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Which store, and how it is opened.
#[derive(Args, Debug)]
pub(crate) struct StoreArguments {
    /// The directory of the store.
    #[arg(long = "store", value_name = "DIR", default_value = "annals-data", global = true)]
    pub(crate) directory: PathBuf,
    /// How the disk is written.
    #[arg(long, value_enum, default_value_t = BackendArgument::Auto, global = true)]
    backend: BackendArgument,
    /// How many shards the store has; fixed when it is created.
    #[arg(long, value_name = "N", global = true)]
    shards: Option<u16>,
    /// Keys with the same part before the first such character share a shard; fixed when the store is created.
    #[arg(long, value_name = "C", value_parser = one_byte, global = true)]
    route_prefix: Option<u8>,
    /// The size that segments grow to, also with K, M or G; fixed when the store is created.
    #[arg(long, value_name = "BYTES", value_parser = byte_count, global = true)]
    segment_bytes: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum BackendArgument {
    /// io_uring where it can be had.
    Auto,
    /// io_uring.
    Uring,
    /// Threads that write and wait.
    Blocking,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Append one event.
    Append(AppendArguments),
    /// Show the events of one aggregate.
    Read(ReadArguments),
    /// Show the aggregates and their versions.
    List(ListArguments),
    /// Append writes from a file of JSON lines.
    Import(ImportArguments),
    /// Write the log as JSON lines that `import` takes, shard by shard, in log order.
    ///
    /// Snapshots, checkpoints, and writes that only move checkpoints are left out: positions mean nothing in another store,
    /// and a snapshot can be made again.
    Export(ExportArguments),
    /// Check the whole store: every checksum, chain, version and, in log order, every condition.
    ///
    /// It reads the files by code of its own, changes nothing, needs only the right to read, and works beside a writer: it
    /// then checks what was durable when it began.
    Verify,
    /// Copy everything that is whole out of a damaged store into a new one, and list what is missing.
    ///
    /// FROM is only read. Where a version of an aggregate is missing, its later events do not go into TO: they go, with the
    /// other writes that need them, into a file beside it, one JSON object a line, whose member `write` is a line that
    /// `import` takes.
    /// Checkpoints are left out and listed, because positions are others in TO.
    Salvage(SalvageArguments),
    /// Show what the store holds and how it is set up.
    Stats,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 all is in TO; 1 something is missing, set aside or left out; 2 wrong usage; 3 a disk failed."
)]
pub(crate) struct SalvageArguments {
    /// The directory of the damaged store. Nobody may write to it meanwhile.
    pub(crate) from: PathBuf,
    /// The directory of the new store: must not exist, or be empty.
    pub(crate) to: PathBuf,
    /// Where to write what is whole and can't go into TO; TO.aside.jsonl unless set. Made only if there is something.
    #[arg(long, value_name = "FILE")]
    pub(crate) aside: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct AppendArguments {
    /// The aggregate; one that is no text as {"base64":"…"}.
    #[arg(value_parser = key())]
    pub(crate) key: Key,
    /// The type of the event.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) event_type: String,
    /// A version, `any`, `exists` or `absent`: what must be true of the aggregate.
    #[arg(long, value_name = "WHAT", default_value = "any", value_parser = expect)]
    pub(crate) expect: Expect,
    /// The data of the event; `-` reads it from standard input.
    #[arg(long, value_name = "DATA", allow_hyphen_values = true)]
    pub(crate) data: Option<OsString>,
    /// Reads the data from standard input, as `--data -` does.
    #[arg(value_name = "-", value_parser = ["-"], conflicts_with = "data", hide_possible_values = true)]
    pub(crate) from_stdin: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ReadArguments {
    /// The aggregate; one that is no text as {"base64":"…"}.
    #[arg(value_parser = key())]
    pub(crate) key: Key,
    /// The version to begin with.
    #[arg(long, value_name = "N")]
    pub(crate) from: Option<u64>,
    /// The most events to show.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// From the newest to the oldest.
    #[arg(long)]
    pub(crate) backwards: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ListArguments {
    /// Only aggregates whose keys begin so.
    #[arg(long, value_name = "P", value_parser = key())]
    pub(crate) prefix: Option<Key>,
}

#[derive(Args, Debug)]
#[command(after_help = LINE_FORMAT)]
pub(crate) struct ImportArguments {
    /// The file, also packed with gzip; `-` for standard input.
    pub(crate) file: PathBuf,
    /// Makes the import resumable: started again on the same file under this name, it appends only what is missing.
    ///
    /// The line number is the sequence of a write. A line that only checks leaves nothing in the log, so it is
    /// decided again.
    #[arg(long, value_name = "NAME")]
    pub(crate) client: Option<String>,
    /// Counts conflicts and bad lines instead of stopping at the first.
    #[arg(long)]
    pub(crate) keep_going: bool,
}

#[derive(Args, Debug)]
#[command(after_help = LINE_FORMAT)]
pub(crate) struct ExportArguments {
    /// Only writes that append to these aggregates.
    #[arg(value_name = "KEY", value_parser = key())]
    pub(crate) keys: Vec<Key>,
}

/// The key of an aggregate, as an argument gives it.
#[derive(Clone, Debug)]
pub(crate) struct Key(pub(crate) Vec<u8>);

fn key() -> impl clap::builder::TypedValueParser<Value = Key> {
    use clap::builder::TypedValueParser;
    clap::builder::OsStringValueParser::new()
        .map(|argument: OsString| Key(value::key_of_argument(argument.as_encoded_bytes())))
}

fn expect(argument: &str) -> Result<Expect, String> {
    match argument {
        "any" => Ok(Expect::Any),
        "exists" => Ok(Expect::Exists),
        "absent" => Ok(Expect::Absent),
        _ => argument
            .parse()
            .map(Expect::Version)
            .map_err(|_| "expected a version, `any`, `exists` or `absent`".to_owned()),
    }
}

fn one_byte(argument: &str) -> Result<u8, String> {
    match argument.as_bytes() {
        [byte] => Ok(*byte),
        _ => Err("expected one ASCII character".to_owned()),
    }
}

fn byte_count(argument: &str) -> Result<u64, String> {
    let digits = argument.trim_end_matches(['K', 'M', 'G', 'k', 'm', 'g']);
    let unit = match argument[digits.len()..].to_ascii_uppercase().as_str() {
        "" => Some(1),
        "K" => Some(1 << 10),
        "M" => Some(1 << 20),
        "G" => Some(1 << 30),
        _ => None,
    };
    let count =
        digits.parse::<u64>().ok().zip(unit).and_then(|(count, unit)| count.checked_mul(unit));
    count.ok_or_else(|| "expected a number of bytes, such as 67108864 or 64M".to_owned())
}

impl StoreArguments {
    /// How the disk is written.
    pub(crate) fn backend(&self) -> Backend {
        match self.backend {
            BackendArgument::Auto => Backend::Auto,
            BackendArgument::Uring => Backend::Uring,
            BackendArgument::Blocking => Backend::Blocking,
        }
    }

    fn options(&self) -> Options {
        let mut options = Options::new().backend(self.backend());
        if let Some(shards) = self.shards {
            options = options.shards(shards);
        }
        if let Some(separator) = self.route_prefix {
            options = options.route_by_prefix(separator);
        }
        if let Some(bytes) = self.segment_bytes {
            options = options.segment_bytes(bytes);
        }
        options
    }

    /// Opens the store for writing; creates it if there is none.
    pub(crate) fn open(&self) -> Result<Store, Failure> {
        Ok(self.options().open(&self.directory)?)
    }

    /// The directory of a store that has to be there.
    pub(crate) fn existing_directory(&self) -> Result<&Path, Failure> {
        if !self.directory.exists() {
            let shown = self.directory.display();
            return Err(Failure::Input(format!(
                "there is no store at {shown}: `annals append` and `annals import` make one, --store names another"
            )));
        }
        Ok(&self.directory)
    }

    /// Opens the store for reading, also beside a writer.
    pub(crate) fn open_to_read(&self) -> Result<Store, Failure> {
        let directory = self.existing_directory()?;
        Ok(self.options().read_only(true).create(false).open(directory)?)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn small_values_are_parsed() {
        assert_eq!(expect("4"), Ok(Expect::Version(4)));
        assert_eq!(expect("absent"), Ok(Expect::Absent));
        assert!(expect("-1").is_err() && expect("").is_err() && expect("Any").is_err());
        assert_eq!(one_byte("/"), Ok(b'/'));
        assert!(one_byte("").is_err() && one_byte("é").is_err() && one_byte("ab").is_err());
        assert_eq!(byte_count("1048576"), Ok(1 << 20));
        assert_eq!(byte_count("64M"), Ok(64 << 20));
        assert_eq!(byte_count("1g"), Ok(1 << 30));
        for wrong in ["", "M", "1KM", "1.5M", "-1", "99999999999999999999", "99999999999999G"] {
            assert!(byte_count(wrong).is_err(), "{wrong}");
        }
    }
}
