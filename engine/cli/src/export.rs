//! `annals export`: the log as JSON lines that an import takes, shard by shard, in log order.

use std::collections::HashSet;
use std::process::ExitCode;

use annals::Role;

use crate::arguments::{ExportArguments, StoreArguments};
use crate::failure::Failure;
use crate::output::{self, Output, Progress};
use crate::{recorded, value};

pub(crate) fn run(
    store: &StoreArguments,
    arguments: &ExportArguments,
    out: &mut Output,
) -> Result<ExitCode, Failure> {
    let store = store.open_to_read()?;
    let keys: HashSet<&[u8]> = arguments.keys.iter().map(|key| key.0.as_slice()).collect();
    for key in &keys {
        if store.version(key)? == 0 {
            output::note(format_args!("{} does not exist", value::shown(key)));
        }
    }
    // Lines that run past on a terminal show progress enough.
    let progress = (!out.is_terminal()).then(|| Progress::of_bytes("exporting"));
    let shards: Vec<u16> = if keys.is_empty() {
        (0..store.shards()).collect()
    } else {
        let mut shards: Vec<_> = keys.iter().map(|key| store.shard_of(key)).collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    };
    let mut line = Vec::new();
    for shard in shards {
        for write in store.log(shard).writes() {
            let write = write?;
            // Snapshots, and writes that move checkpoints alone, hold nothing to import.
            let mut appended = write.parts().filter(|part| part.role() == Role::Append);
            if appended.any(|part| keys.is_empty() || keys.contains(part.key())) {
                line.clear();
                recorded::push_write(&mut line, &write);
                out.bytes(&line)?;
                if let Some(progress) = &progress {
                    progress.advance(line.len() as u64);
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
