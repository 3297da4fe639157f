//! Stragglers: writes of a killed process that land after it is gone.
//!
//! A ring's operations can outlive its process. While they do, the ring does too, and with it the lock file that is
//! registered in it; so nobody opens the store before the last of them has landed. This looks whether that is so: a process
//! is killed with many large flushes in flight, its store is opened at once, and everything that its segments hold is read
//! past the system's cache, then and a while later.
//!
//! `--plain` shows what happens without the registered lock, with a process that has no store: writes do land after the lock
//! was had. So the test can fail.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use annals_trials::truth::Truth;
use fastrand::Rng;

use crate::arguments::{self, Stragglers};
use crate::life::{self, End, Kind, Life, Settings};
use crate::parent::{self, Stage};
use crate::plain;
use crate::report::{Failure, Progress, say};

/// Stragglers land within some tens of milliseconds.
const LATER: Duration = Duration::from_millis(120);
/// Direct reads are aligned to it.
const ALIGN: usize = 4096;
const STEP_BYTES: usize = 1 << 20;
/// How many writes are acknowledged before a process is killed.
const ACKED_BEFORE: u32 = 40;

pub(crate) fn run(stragglers: &Stragglers) -> Result<(), Failure> {
    if !arguments::backends().contains(&annals::Backend::Uring) {
        return Err(Failure::NotRun(
            "io_uring can't be had here, and only it has stragglers".into(),
        ));
    }
    if stragglers.plain {
        return plain::run(stragglers);
    }
    let mut progress = Progress::new("rounds", stragglers.rounds.into());
    let mut waited = Duration::ZERO;
    let (mut acked, mut in_flight, mut bytes) = (0, 0, 0);
    for round in 0..stragglers.rounds {
        let seed = stragglers.seed + u64::from(round);
        let done = one(&stragglers.place.dir, seed)?;
        waited = waited.max(done.opening);
        acked += done.acked;
        in_flight += done.in_flight;
        bytes += done.bytes;
        progress.step(|| format!("{acked} writes acknowledged"));
    }
    let seconds = progress.finish().as_secs_f64();
    say(&format!(
        "{} processes killed with large flushes in flight, in {seconds:.1} s: nothing changed after the store was open again; {acked} writes acknowledged, {in_flight} in flight, {} MiB looked at twice, longest opening {:.0} ms",
        stragglers.rounds,
        bytes >> 20,
        waited.as_secs_f64() * 1e3,
    ));
    Ok(())
}

struct Done {
    opening: Duration,
    acked: u64,
    in_flight: u64,
    bytes: u64,
}

fn one(place: &Path, seed: u64) -> Result<Done, Failure> {
    let mut rng = Rng::with_seed(seed);
    let dir = tempfile::tempdir_in(place)?;
    let path = dir.path().join("store");
    let settings = Settings {
        segment_bytes: 64 << 20,
        dsync: rng.bool(),
        flush_window: 64,
        tail_bytes: 32 << 20,
        in_flight_bytes: 16 << 20,
        ..Settings::plain(Kind::Uring)
    };
    let life = Life {
        dir: path.clone(),
        seed,
        number: 0,
        settings: settings.clone(),
        subjects: life::subjects(1, 4),
        threads: 2,
        in_flight: 64,
        event_bytes: 130_000,
        pause_micros: 0,
        retries: Vec::new(),
        end: End::Killed,
        lie: None,
        scripted: false,
    };
    let again = format!(
        "this repeats the life's options, not its instant: trials stragglers --rounds 1 --seed {seed}"
    );
    let broken = |complaints: Vec<_>| Failure::broken(&complaints, &again);
    let mut running = parent::life_of(&life)?;
    // By then segments are large enough, and many flushes at once under way.
    for _ in 0..ACKED_BEFORE {
        running.wait_for(Stage::Acked);
    }
    std::thread::sleep(Duration::from_millis(rng.u64(0..40)));
    running.kill()?;
    let ended = running.ended()?;
    let reopened = parent::reopen(&path, &settings).map_err(broken)?;
    let first = digests(&path)?;
    let began = Instant::now();
    let mut truth = Truth::new(life.subjects.clone());
    parent::compare(&mut truth, ended.words(), &reopened.store).map_err(broken)?;
    std::thread::sleep(LATER.saturating_sub(began.elapsed()));
    let log = parent::log_of(&reopened.store, truth.subjects()).map_err(broken)?;
    truth.recovered(&log).map_err(broken)?;
    let second = digests(&path)?;
    let mut bytes = 0;
    for ((file, before), (_, after)) in first.iter().zip(&second) {
        bytes += (before.len() * STEP_BYTES) as u64;
        if let Some(step) = (0..before.len()).find(|step| before.get(*step) != after.get(*step)) {
            let at = step * STEP_BYTES;
            let text = format!(
                "{}: something landed behind byte {at} after the store was open\n{again}",
                file.display()
            );
            return Err(Failure::Broken(text));
        }
    }
    let in_flight = truth.writes() as u64 - truth.acked;
    Ok(Done { opening: reopened.took, acked: truth.acked, in_flight, bytes })
}

/// Digests of every segment that is there, step by step, as the device has them.
fn digests(store: &Path) -> Result<Vec<(PathBuf, Vec<u64>)>, Failure> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(store.join("shard-0000"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            segments.push(path);
        }
    }
    segments.sort();
    let digest = |path: PathBuf| Ok((path.clone(), digests_of(&path)?));
    segments.into_iter().map(digest).collect()
}

pub(crate) fn digests_of(path: &Path) -> Result<Vec<u64>, Failure> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
    // Where a file system refuses direct reads.
    let mut file = file.or_else(|_| File::open(path))?;
    file.seek(SeekFrom::Start(0))?;
    let mut memory = vec![0_u8; STEP_BYTES + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    let buffer = &mut memory[start..start + STEP_BYTES];
    let mut digests = Vec::new();
    loop {
        let read = file.read(buffer)?;
        if read == 0 {
            return Ok(digests);
        }
        digests.push(xxhash_rust::xxh3::xxh3_64(&buffer[..read]));
    }
}
