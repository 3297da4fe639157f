//! `annals salvage`: what is whole in a damaged store, in a new one; what can't go there, beside it; what is missing, told.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use annals::{Position, Role, Salvage, SetAside};
use serde_json::{Value, json};

use crate::arguments::SalvageArguments;
use crate::failure::Failure;
use crate::output::{self, Output, Progress, counted};
use crate::{recorded, value};

pub(crate) fn run(arguments: &SalvageArguments, out: &mut Output) -> Result<ExitCode, Failure> {
    let SalvageArguments { from, to, aside } = arguments;
    if !from.is_dir() {
        return Err(Failure::Input(format!("there is no store at {}", from.display())));
    }
    let mut aside = Aside::new(aside.clone().unwrap_or_else(|| beside(to)))?;
    let progress = Progress::of_bytes("salvaging");
    let salvaged = annals::salvage(
        from,
        to,
        |set_aside| aside.write(set_aside),
        |done, all| {
            progress.expect_bytes(all);
            progress.at(done);
        },
    );
    drop(progress);
    let salvage = match salvaged {
        Ok(salvage) => salvage,
        Err(error) => {
            aside.give_up();
            return Err(error.into());
        }
    };
    let aside = aside.finish()?;
    if out.is_json() {
        out.line(report(&salvage, aside.as_deref()))?;
    } else {
        tell(&salvage, aside.as_deref(), out)?;
    }
    if salvage.is_complete() {
        return Ok(ExitCode::SUCCESS);
    }
    out.flush()?;
    Err(Failure::Damage("the new store does not have all that the old one had".into()))
}

/// `TO.aside.jsonl`.
fn beside(to: &Path) -> PathBuf {
    // Also where it was given with a slash at its end.
    let mut name: OsString = to.components().as_path().as_os_str().to_owned();
    name.push(".aside.jsonl");
    name.into()
}

/// The file of what is set aside, made when there is something.
struct Aside {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    line: Vec<u8>,
}

impl Aside {
    fn new(path: PathBuf) -> Result<Aside, Failure> {
        if path.symlink_metadata().is_ok() {
            let shown = path.display();
            return Err(Failure::Input(format!(
                "{shown} exists: what is set aside goes into a new file, --aside names another"
            )));
        }
        Ok(Aside { path, file: None, line: Vec::new() })
    }

    fn write(&mut self, aside: &SetAside<'_>) -> io::Result<()> {
        self.line.clear();
        push_aside(&mut self.line, aside);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let made = OpenOptions::new().write(true).create_new(true).open(&self.path)?;
                self.file.insert(BufWriter::new(made))
            }
        };
        file.write_all(&self.line)
    }

    /// Makes it durable; its path, if there is anything in it.
    fn finish(self) -> Result<Option<PathBuf>, Failure> {
        let Some(file) = self.file else { return Ok(None) };
        let written = file.into_inner().map_err(io::IntoInnerError::into_error);
        let synced = written.and_then(|file| file.sync_all());
        synced.map_err(|error| {
            Failure::system(format_args!("writing {}", self.path.display()), &error)
        })?;
        Ok(Some(self.path))
    }

    /// A salvage that did not come to its end leaves none.
    fn give_up(self) {
        if self.file.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The line of what is set aside: what it was and why, and in `write` the line that an import takes.
fn push_aside(out: &mut Vec<u8>, aside: &SetAside<'_>) {
    let write = aside.write;
    let position = write.position();
    let (shard, number) = (aside.shard, position.get());
    out.extend_from_slice(
        format!("{{\"shard\":{shard},\"position\":{number},\"at\":\"{position}\",").as_bytes(),
    );
    out.extend_from_slice(b"\"why\":");
    value::push_text(out, aside.why);
    if let Some((client, sequence)) = write.client() {
        let client = format!(",\"client\":\"{client:032x}\",\"sequence\":{sequence}");
        out.extend_from_slice(client.as_bytes());
    }
    let commit_time = write.commit_time();
    out.extend_from_slice(format!(",\"commit_time\":{commit_time},").as_bytes());
    if let Some(bytes) = aside.snapshot {
        for part in write.parts() {
            out.extend_from_slice(b"\"snapshot\":{");
            push_version(out, part.key(), part.version());
            out.extend_from_slice(b",\"data\":");
            value::push(out, bytes);
            out.extend_from_slice(b"}}\n");
        }
        return;
    }
    out.extend_from_slice(b"\"versions\":[");
    let appends = write.parts().filter(|part| part.role() == Role::Append);
    for (index, part) in appends.enumerate() {
        out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
        push_version(out, part.key(), part.version());
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"write\":");
    recorded::push_write(out, write);
    // The end of the line stands behind the outer object.
    out.pop();
    out.extend_from_slice(b"}\n");
}

fn push_version(out: &mut Vec<u8>, key: &[u8], version: u64) {
    out.extend_from_slice(b"\"aggregate\":");
    value::push_key(out, key);
    out.extend_from_slice(format!(",\"version\":{version}").as_bytes());
}

fn tell(salvage: &Salvage, aside: Option<&Path>, out: &mut Output) -> io::Result<()> {
    let text = salvage.to_string();
    let (details, _) = text.rsplit_once('\n').unwrap_or_default();
    for line in details.lines() {
        out.line(output::bad(line))?;
    }
    if let Some(aside) = aside {
        let set_aside = counted(salvage.set_aside, "write");
        out.line(format_args!("set aside: {set_aside}, in {}", aside.display()))?;
    }
    let verdict = match salvage.is_complete() {
        true => output::good("complete"),
        false => output::bad("not complete"),
    };
    out.line(format_args!(
        "{verdict}: {} with {}, {} copied",
        counted(salvage.writes, "write"),
        counted(salvage.events, "event"),
        counted(salvage.aggregates, "aggregate"),
    ))
}

fn report(salvage: &Salvage, aside: Option<&Path>) -> Value {
    let missing = salvage.missing.iter().map(|missing| {
        json!({
            "shard": missing.shard,
            "aggregate": key(&missing.aggregate),
            "from": missing.from,
            "to": missing.to,
            "position": missing.position.map(Position::get),
        })
    });
    let cut_off = salvage.cut_off.iter().map(|cut_off| {
        json!({
            "shard": cut_off.shard,
            "aggregate": key(&cut_off.aggregate),
            "kept": cut_off.kept,
            "last": cut_off.last,
            "set_aside": cut_off.set_aside,
        })
    });
    let checkpoints = salvage.checkpoints.iter().map(|checkpoint| {
        json!({
            "shard": checkpoint.shard,
            "name": key(&checkpoint.name),
            "stood": checkpoint.stood.get(),
            "now": checkpoint.now.map(Position::get),
        })
    });
    let damage = salvage.damage.iter().map(|range| {
        json!({
            "shard": range.shard,
            "segment": range.segment,
            "offset": range.offset,
            "bytes": range.bytes,
            "aggregate": range.aggregate.as_deref().map(key),
            "what": range.what,
            "lost": range.lost,
        })
    });
    json!({
        "complete": salvage.is_complete(),
        "shards": salvage.shards,
        "writes": salvage.writes,
        "events": salvage.events,
        "aggregates": salvage.aggregates,
        "snapshots": salvage.snapshots,
        "set_aside": salvage.set_aside,
        "aside": aside.map(|path| path.display().to_string()),
        "identity": salvage.identity,
        "missing": missing.collect::<Vec<_>>(),
        "cut_off": cut_off.collect::<Vec<_>>(),
        "checkpoints": checkpoints.collect::<Vec<_>>(),
        "damage": damage.collect::<Vec<_>>(),
    })
}

/// A key as the JSON that a line of an import would name it by.
fn key(key: &[u8]) -> Value {
    let mut out = Vec::new();
    value::push_key(&mut out, key);
    serde_json::from_slice(&out).unwrap_or_default()
}
