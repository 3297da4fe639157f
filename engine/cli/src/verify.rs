//! `annals verify`: every checksum, chain, version and, in log order, every condition.

use std::process::ExitCode;

use annals::{Problem, Verification};

use crate::arguments::StoreArguments;
use crate::failure::Failure;
use crate::output::{self, Output, Progress, counted};
use crate::value;

pub(crate) fn run(store: &StoreArguments, out: &mut Output) -> Result<ExitCode, Failure> {
    let progress = Progress::of_bytes("verifying");
    let found = annals::verify(store.existing_directory()?, |done, all| {
        progress.expect_bytes(all);
        progress.at(done);
    })?;
    drop(progress);
    if out.is_json() {
        out.bytes(&json(&found))?;
    } else {
        for problem in &found.problems {
            out.line(output::bad(problem))?;
        }
        out.line(summary(&found))?;
    }
    if found.problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    out.flush()?;
    let problems = counted(found.problems.len() as u64, "problem");
    Err(Failure::Damage(format!("the store is damaged: {problems}")))
}

/// What was checked, in a line.
fn summary(found: &Verification) -> String {
    let verdict = match found.problems.is_empty() {
        true => output::good("clean"),
        false => output::bad(counted(found.problems.len() as u64, "problem")),
    };
    format!(
        "{verdict}: {} with {}, {}; {} in {}",
        counted(found.writes, "write"),
        counted(found.events, "event"),
        counted(found.aggregates, "aggregate"),
        output::bytes(found.bytes),
        counted(found.segments, "segment"),
    )
}

fn json(found: &Verification) -> Vec<u8> {
    let mut out = format!(
        "{{\"clean\":{},\"shards\":{},\"segments\":{},\"flushes\":{},\"writes\":{},\"events\":{},\
         \"aggregates\":{},\"bytes\":{},\"problems\":[",
        found.problems.is_empty(),
        found.shards,
        found.segments,
        found.flushes,
        found.writes,
        found.events,
        found.aggregates,
        found.bytes,
    )
    .into_bytes();
    for (index, problem) in found.problems.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_problem(&mut out, problem);
    }
    out.extend_from_slice(b"]}\n");
    out
}

fn push_problem(out: &mut Vec<u8>, problem: &Problem) {
    out.extend_from_slice(format!("{{\"shard\":{},\"segment\":", problem.shard).as_bytes());
    value::push_text(out, &problem.segment);
    out.extend_from_slice(format!(",\"offset\":{},", problem.offset).as_bytes());
    if let Some(key) = &problem.aggregate {
        out.extend_from_slice(b"\"aggregate\":");
        value::push_key(out, key);
        out.push(b',');
    }
    out.extend_from_slice(b"\"what\":");
    value::push_text(out, &problem.what);
    out.push(b'}');
}
