//! Kills: a process writes, is killed at a random moment, its store is opened at once, and what is back is held against what
//! it was told. Some lives end otherwise: by `exit`, or with the store let go while writes are in flight.
//!
//! Twenty lives share a store; then it is verified, read in every way, and thrown away.

use std::time::Duration;

use annals::Backend;
use annals_trials::exact::Complaint;
use annals_trials::history::Subject;
use annals_trials::truth::{Truth, Word};
use fastrand::Rng;

use crate::arguments::{self, Kill, Lie};
use crate::life::{self, End, Life, Settings};
use crate::parent::{self, Stage};
use crate::report::{Failure, Progress, note, say};

/// How many lives a store has.
const LIVES_MAX: u32 = 20;

/// What happened.
#[derive(Default)]
struct Totals {
    kills: u32,
    in_opening: u32,
    other_ends: u32,
    acked: u64,
    writes: u64,
    replayed: u64,
    anew: u64,
    opening_max: Duration,
    verified: u32,
}

impl Totals {
    fn described(&self) -> String {
        format!(
            "{} kills ({} while opening), {} other ends, {} writes sent, {} acknowledged, retries: {} answered with their original and {} written anew, {} stores verified, longest opening {:.0} ms",
            self.kills,
            self.in_opening,
            self.other_ends,
            self.writes,
            self.acked,
            self.replayed,
            self.anew,
            self.verified,
            self.opening_max.as_secs_f64() * 1e3,
        )
    }
}

pub(crate) fn run(kill: &Kill) -> Result<(), Failure> {
    let backends = arguments::backends();
    if backends.len() == 1 {
        note("SKIP: kills on io_uring (it can't be had here)");
    }
    let mut progress = Progress::new("kills", kill.kills.into());
    let mut totals = Totals::default();
    let mut seed = kill.seed;
    while totals.kills < kill.kills {
        let before = totals.kills;
        if let Err(complaints) = one_store(kill, seed, &backends, &mut totals, &mut progress) {
            let kills = totals.kills - before;
            let lie = if kill.lie.is_some() { " --lie ack-early" } else { "" };
            let again = format!(
                "store {seed}, kill {kills}; {}\nthis repeats the lives' options, not their instants: trials kill --seed {seed} --kills {}{lie}",
                totals.described(),
                kills.max(1),
            );
            return Err(Failure::broken(&complaints, &again));
        }
        seed += 1;
    }
    let seconds = progress.finish().as_secs_f64();
    say(&format!("nothing acknowledged was lost, in {seconds:.1} s: {}", totals.described()));
    Ok(())
}

fn one_store(
    kill: &Kill,
    seed: u64,
    backends: &[Backend],
    totals: &mut Totals,
    progress: &mut Progress,
) -> Result<(), Vec<Complaint>> {
    let failed = |failure: Failure| parent::broken(failure.to_string());
    let dir =
        tempfile::tempdir_in(&kill.place.dir).map_err(|error| parent::broken(error.to_string()))?;
    let path = dir.path().join("store");
    let mut rng = Rng::with_seed(seed);
    let created = Settings::created(&mut rng);
    let groups = usize::from(created.shards) * 2;
    let mut subjects = life::subjects(groups, groups * rng.usize(1..=4));
    let mut truth: Option<Truth> = None;
    for number in 0..LIVES_MAX {
        if totals.kills >= kill.kills {
            break;
        }
        let settings = created.redrawn(&mut rng, backends);
        let mut life = Life::drawn(&mut rng, &path, number.into(), settings, subjects.clone());
        life.lie = kill.lie;
        if kill.lie == Some(Lie::AckEarly) {
            // As many as can be are accepted and not on their way.
            (life.end, life.in_flight, life.pause_micros) = (End::Killed, 32, 0);
        }
        life.retries = truth.as_ref().map(Truth::unresolved).unwrap_or_default();
        let in_opening = rng.u8(..10) == 0;
        let until = if in_opening { rng.u64(..8_000) } else { rng.u64(..200_000) };
        let reopened_so = created.redrawn(&mut rng, backends);

        let mut running = parent::life_of(&life).map_err(failed)?;
        running.wait_for(if in_opening { Stage::Opening } else { Stage::Open });
        let until = Duration::from_micros(until);
        match life.end {
            End::Killed => {
                std::thread::sleep(until);
                running.kill().map_err(failed)?;
                totals.kills += 1;
                totals.in_opening += u32::from(in_opening);
            }
            End::InputCloses => {
                std::thread::sleep(until);
                running.input = None;
                totals.other_ends += 1;
            }
            End::Exits(_) | End::Drops(_) | End::Closes(_) => totals.other_ends += 1,
        }
        let ended = running.ended().map_err(failed)?;
        // At once: what a killed process has in flight may land now.
        let reopened = parent::reopen(&path, &reopened_so)?;
        totals.opening_max = totals.opening_max.max(reopened.took);
        let words = ended.words();
        let truth = truth.get_or_insert_with(|| {
            note_shards(&mut subjects, &reopened.store);
            Truth::new(subjects.clone())
        });
        let before = truth.clone();
        check_end(&life, &words)?;
        let compared = parent::compare(truth, words, &reopened.store);
        totals.acked += truth.acked - before.acked;
        totals.writes += (truth.writes() - before.writes()) as u64;
        totals.replayed += truth.retries.0 - before.retries.0;
        totals.anew += truth.retries.1 - before.retries.1;
        compared?;
        drop(reopened);
        if life.end == End::Killed {
            progress.step(|| totals.described());
        }
    }
    if let Some(truth) = &truth {
        parent::compare_all(&path, &created.redrawn(&mut rng, backends), truth)?;
        totals.verified += 1;
    }
    Ok(())
}

fn note_shards(subjects: &mut [Subject], store: &annals::Store) {
    for subject in subjects {
        subject.shard = store.shard_of(&subject.key);
    }
}

/// A process that was not killed, and did not exit in the middle, has heard of every write.
fn check_end(life: &Life, words: &[Word]) -> Result<(), Vec<Complaint>> {
    let not_opened = words.iter().find_map(|word| match word {
        Word::NotOpened(code, text) => Some(format!("it did not open: {code} {text}")),
        Word::Unknown(write) => Some(format!("write {} is unknown on a healthy disk", write.0)),
        _ => None,
    });
    if let Some(text) = not_opened {
        return Err(parent::broken(text));
    }
    if matches!(life.end, End::Drops(_) | End::Closes(_) | End::InputCloses)
        && words.last() != Some(&Word::Done)
    {
        let text = format!("{:?}: its last word was {:?}", life.end, words.last());
        return Err(parent::broken(text));
    }
    Ok(())
}
