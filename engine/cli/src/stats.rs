//! `annals stats`: what a store holds and how it is set up.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use annals::Stats;

use crate::arguments::StoreArguments;
use crate::failure::Failure;
use crate::output::{Output, Table, bold, bytes, grouped};
use crate::value;

pub(crate) fn run(arguments: &StoreArguments, out: &mut Output) -> Result<ExitCode, Failure> {
    let directory = arguments.existing_directory()?;
    let store = arguments.open_to_read()?;
    let mut shards = vec![Holdings::default(); usize::from(store.shards())];
    for aggregate in store.aggregates() {
        let (key, version) = aggregate?;
        shards[usize::from(store.shard_of(&key))].add(&key, version);
    }
    let stats = store.stats();
    let disk_bytes =
        bytes_below(directory).map_err(|error| Failure::system(directory.display(), &error))?;
    if out.is_json() {
        out.bytes(&json(&stats, &shards, disk_bytes))?;
    } else {
        show(&stats, &shards, disk_bytes, directory, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the aggregates of a shard come to.
#[derive(Clone, Default)]
struct Holdings {
    aggregates: u64,
    versions: u64,
    highest_version: u64,
    highest_key: Box<[u8]>,
}

impl Holdings {
    fn add(&mut self, key: &[u8], version: u64) {
        self.aggregates += 1;
        self.versions += version;
        if version > self.highest_version {
            self.highest_version = version;
            self.highest_key = key.into();
        }
    }
}

/// The bytes of all files in a directory and in those within it. A writer beside may take files away meanwhile.
fn bytes_below(directory: &Path) -> std::io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        sum += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path())?,
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => 0,
        };
    }
    Ok(sum)
}

fn show(
    stats: &Stats,
    shards: &[Holdings],
    disk_bytes: u64,
    directory: &Path,
    out: &mut Output,
) -> Result<(), Failure> {
    for (name, value) in [
        ("directory", directory.display().to_string()),
        ("on disk", bytes(disk_bytes)),
        ("segments", format!("up to {}", bytes(stats.segment_bytes))),
        ("blocks", bytes(stats.block_bytes.into())),
        ("durability", stats.durability.to_owned()),
    ] {
        out.line(format_args!("{}{value}", bold(format_args!("{name:<12}"))))?;
    }
    out.line("")?;
    let headings = ["shard", "aggregates", "versions", "segments", "end", "highest version"];
    let mut table = Table::new(&headings, &[0, 1, 2, 3, 4]);
    for (index, (shard, holdings)) in stats.shards.iter().zip(shards).enumerate() {
        let highest = match holdings.highest_version {
            0 => String::new(),
            version => format!("{} of {}", grouped(version), value::shown(&holdings.highest_key)),
        };
        table.row([
            index.to_string(),
            grouped(holdings.aggregates),
            grouped(holdings.versions),
            grouped(shard.segments),
            shard.end.to_string(),
            highest,
        ]);
    }
    Ok(table.write(out)?)
}

fn json(stats: &Stats, shards: &[Holdings], disk_bytes: u64) -> Vec<u8> {
    let mut out = format!(
        "{{\"disk_bytes\":{disk_bytes},\"segment_bytes\":{},\"block_bytes\":{},\"durability\":\"{}\",\"shards\":[",
        stats.segment_bytes, stats.block_bytes, stats.durability,
    )
    .into_bytes();
    for (index, (shard, holdings)) in stats.shards.iter().zip(shards).enumerate() {
        let comma = if index > 0 { "," } else { "" };
        out.extend_from_slice(
            format!(
                "{comma}{{\"shard\":{index},\"aggregates\":{},\"versions\":{},\"highest_version\":{},\
                 \"segments\":{},\"end\":{},\"index_bytes\":{}}}",
                holdings.aggregates,
                holdings.versions,
                holdings.highest_version,
                shard.segments,
                shard.end.get(),
                shard.index_bytes,
            )
            .as_bytes(),
        );
    }
    out.extend_from_slice(b"]}\n");
    out
}
