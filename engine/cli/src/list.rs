//! `annals list`: the aggregates and their versions, ordered by key.

use std::process::ExitCode;

use crate::arguments::{ListArguments, StoreArguments};
use crate::failure::Failure;
use crate::output::{self, Output, Table};
use crate::value;

pub(crate) fn run(
    store: &StoreArguments,
    arguments: &ListArguments,
    out: &mut Output,
) -> Result<ExitCode, Failure> {
    let store = store.open_to_read()?;
    let prefix = arguments.prefix.as_ref().map_or(&[][..], |prefix| &prefix.0);
    let mut found = Vec::new();
    for aggregate in store.aggregates() {
        let (key, version) = aggregate?;
        if key.starts_with(prefix) {
            found.push((key, version));
        }
    }
    found.sort_unstable();
    if out.is_json() {
        let mut line = Vec::new();
        for (key, version) in found {
            line.clear();
            line.extend_from_slice(b"{\"aggregate\":");
            value::push_key(&mut line, &key);
            line.extend_from_slice(format!(",\"version\":{version}}}\n").as_bytes());
            out.bytes(&line)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["version", "aggregate"], &[0]);
    for (key, version) in &found {
        table.row([output::grouped(*version), value::shown(key)]);
    }
    table.write(out)?;
    out.line(output::counted(found.len() as u64, "aggregate"))?;
    Ok(ExitCode::SUCCESS)
}
