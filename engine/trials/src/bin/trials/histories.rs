//! Checked histories.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use annals::{Backend, Options};
use annals_trials::exact::{self, Complaint, Totals};
use annals_trials::history::{History, Line};
use annals_trials::linear;
use annals_trials::record::{self, Plan};
use fastrand::Rng;

use crate::arguments::{self, Histories};
use crate::report::{Failure, Progress, note, say};

pub(crate) fn run(histories: &Histories) -> Result<(), Failure> {
    let backends = arguments::backends();
    if backends.len() == 1 {
        note("SKIP: histories on io_uring (it can't be had here)");
    }
    let next = AtomicU64::new(0);
    let progress = Mutex::new(Progress::new("histories", histories.histories));
    let totals = Mutex::new((Totals::default(), 0_u64));
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..histories.at_once.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let over = failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
                    if number >= histories.histories || over {
                        return;
                    }
                    let seed = histories.seed + number;
                    let backend = backends[number as usize % backends.len()];
                    match one(histories, seed, backend) {
                        Ok((checked, searched)) => {
                            let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                            totals.0.add(&checked);
                            totals.1 += searched;
                            let message = || described(&totals.0, totals.1);
                            progress.lock().unwrap_or_else(PoisonError::into_inner).step(message);
                        }
                        Err(failure) => {
                            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                        }
                    }
                }
            });
        }
    });
    let elapsed = progress.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
    if let Some(failure) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(failure);
    }
    let (totals, windows) = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seconds = elapsed.as_secs_f64();
    let (count, all) = (histories.histories, described(&totals, windows));
    say(&format!("{count} histories checked in {seconds:.1} s: {all}"));
    Ok(())
}

fn described(totals: &Totals, windows: u64) -> String {
    format!(
        "{} calls, {} records, {} conflicts, {} replays, {} executions, {} reads ({} of what is accepted), {} records followed, {} reopenings, {windows} windows searched",
        totals.calls,
        totals.records,
        totals.conflicts,
        totals.replays,
        totals.executions,
        totals.reads,
        totals.accepted_reads,
        totals.followed,
        totals.reopenings,
    )
}

/// Keys of so many groups; each group lives on one shard.
fn keys(groups: usize, all: usize) -> Vec<String> {
    (0..all).map(|number| format!("{}/{number}", number % groups)).collect()
}

/// What a history is made of, and on which options: all drawn from its seed.
fn drawn(histories: &Histories, seed: u64, backend: Backend) -> (Plan, Options) {
    let mut rng = Rng::with_seed(seed);
    let shards = rng.u16(1..=4);
    // Few are hot: every write meets others. Many are cold.
    let all = [2, 4, 8, 32][rng.usize(..4)].max(usize::from(shards));
    let groups = usize::from(shards) * rng.usize(1..=2);
    let plan = Plan {
        seed,
        threads: histories.threads,
        operations: histories.operations,
        rounds: rng.u32(3..=6),
        keys: keys(groups.min(all), all),
    };
    let options = Options::new()
        .shards(shards)
        .route_by_prefix(b'/')
        .segment_bytes([1 << 20, 2 << 20][rng.usize(..2)])
        .block_bytes([512, 4096][rng.usize(..2)])
        .durability(
            [annals::Durability::WriteDsync, annals::Durability::WriteThenSync][rng.usize(..2)],
        )
        .tail_bytes([1 << 20, 8 << 20][rng.usize(..2)])
        .in_flight_bytes([1 << 20, 64 << 20][rng.usize(..2)])
        .flush_window([1, 2, 4, 16][rng.usize(..4)])
        .mapped(rng.bool())
        .backend(backend);
    (plan, options)
}

fn one(histories: &Histories, seed: u64, backend: Backend) -> Result<(Totals, u64), Failure> {
    let dir = tempfile::tempdir_in(&histories.place.dir)?;
    let (plan, options) = drawn(histories, seed, backend);
    let history = record::run(&plan, &mut || options.open(dir.path()))
        .map_err(|error| Failure::Broken(format!("seed {seed} on {backend:?}: {error:?}")))?;
    let windows = linear::windows(&history);
    let searched = histories.windows.min(windows);
    // Not always the first ones.
    let chosen = (0..searched).map(|number| (seed as usize + number) % windows);
    if let Err(complaints) = check(&history, chosen) {
        let file = saved(&histories.place.dir, &history)?;
        let again = format!(
            "history {seed} on {backend:?} is in {0}\nto check it again: trials recheck {0}",
            file.display()
        );
        return Err(Failure::broken(&complaints, &again));
    }
    Ok((Totals::of(&history), searched as u64))
}

fn check(
    history: &History,
    windows: impl IntoIterator<Item = usize>,
) -> Result<(), Vec<Complaint>> {
    let mut complaints = exact::check(history).err().unwrap_or_default();
    for window in windows {
        complaints.extend(linear::check(history, window).err().unwrap_or_default());
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints) }
}

fn saved(dir: &Path, history: &History) -> Result<PathBuf, Failure> {
    let path = dir.join(format!("annals-history-{}.jsonl", history.head.seed));
    let mut file = BufWriter::new(File::create(&path)?);
    for line in history.lines() {
        serde_json::to_writer(&mut file, &line).map_err(std::io::Error::from)?;
        file.write_all(b"\n")?;
    }
    file.flush()?;
    Ok(path)
}

/// Checks a history from its file, every window of it.
pub(crate) fn recheck(path: &Path) -> Result<(), Failure> {
    let file = BufReader::new(File::open(path)?);
    let mut lines = Vec::new();
    for line in file.lines() {
        let line: Line = serde_json::from_str(&line?).map_err(std::io::Error::from)?;
        lines.push(line);
    }
    let history = History::of_lines(lines);
    let windows = linear::windows(&history);
    match check(&history, 0..windows) {
        Ok(()) => {
            let all = described(&Totals::of(&history), windows as u64);
            say(&format!("nothing is wrong: {all}"));
            Ok(())
        }
        Err(complaints) => {
            for complaint in &complaints {
                let call = complaint.call.and_then(|call| history.calls.get(call));
                note(&format!("{complaint}\n    {call:?}"));
            }
            Err(Failure::broken(&complaints, "that is all of it"))
        }
    }
}
