//! The drill: lives of a writer, cuts at random instants of each, and every image looked at.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use annals::ErrorKind;
use indicatif::{ProgressBar, ProgressStyle};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::control::{DriveId, Fault};
use crate::device::{AtStake, Policy};
use crate::draw::Drawn;
use crate::examine::{Findings, Image, STORE};
use crate::judge::Violation;
use crate::rig::{FileSystem, Rig, tell};
use crate::totals::Totals;
use crate::truth::{Stands, Truth};
use crate::writer::{Task, Writer};

/// Where images stay that failed.
pub const FAILED: &str = "/var/tmp/annals-power.failed";
/// Cuts in one life of a writer.
const CUTS_PER_LIFE: usize = 8;
/// Cuts in a row, each while the store opens what the one before left.
const IN_A_ROW_MAX: u64 = 4;
/// Bytes of events in one life: the smallest file system has room for a few lives.
const BYTES_PER_LIFE: u64 = 8 << 20;
/// Bytes of events after which a history is not carried on.
const WRITES_CARRIED_MAX: usize = 6000;

/// What drives do to what is not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Mode {
    /// Keep some sectors and lose others, as they may.
    Honest,
    /// Tear one write and lose what comes after it.
    Torn,
    /// Keep later writes and lose earlier ones.
    Reorder,
    /// Honest, torn and reorder in turn.
    Mixed,
    /// Answer that a flush is done when it is not. The drill fails if it finds no loss.
    Lying,
}

impl Mode {
    fn policy(self, number: usize, random: &mut ChaCha8Rng) -> Policy {
        match self {
            Mode::Honest => Policy::Subset,
            Mode::Torn => Policy::Torn,
            Mode::Reorder => Policy::Reorder,
            Mode::Mixed => [Policy::Subset, Policy::Torn, Policy::Reorder][number % 3],
            Mode::Lying => {
                [Policy::Nothing, Policy::Subset, Policy::Reorder][random.random_range(0..3)]
            }
        }
    }
}

/// A drill.
#[derive(Clone, Copy, Debug)]
pub struct Drill {
    /// Images of writers to look at; those of cuts during recovery come on top.
    pub images: u64,
    /// What the stores lie on.
    pub file_system: FileSystem,
    /// What drives do.
    pub mode: Mode,
    /// Fixes options, load and sectors. Instants are chance.
    pub seed: u64,
    /// Whether io_uring can be had here.
    pub uring: bool,
}

/// What is kept beside an image that failed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Case {
    file_system: FileSystem,
    drawn: Drawn,
    number: u64,
    truth: Truth,
}

/// An image that waits to be looked at.
struct Waiting {
    drive: DriveId,
    truth: Truth,
    drawn: Drawn,
    /// Cuts that led to it, each while the one before was opened.
    row: u64,
    /// Kept as the beginning of a later life, if it is sound.
    carry: bool,
}

/// A store that was recovered, and what it served then: the beginning of a later life.
struct Carried {
    drive: DriveId,
    drawn: Drawn,
    history: Vec<Stands>,
}

struct Run<'a> {
    drill: Drill,
    rig: &'a Rig,
    /// For what a life does, drawn anew for each: how many images were looked at before is chance.
    random: ChaCha8Rng,
    base: DriveId,
    totals: Totals,
    number: u64,
    carried: Option<Carried>,
    failures: u64,
    bar: ProgressBar,
}

impl Drill {
    /// Runs it, and says whether all that was found is as it should be.
    ///
    /// # Errors
    ///
    /// Of the rig.
    pub fn run(self) -> io::Result<bool> {
        let began = Instant::now();
        let rig = Rig::new()?;
        let base = rig.make(self.file_system)?;
        let random = ChaCha8Rng::seed_from_u64(self.seed);
        let style =
            ProgressStyle::with_template("{elapsed:>4} {bar:24} {pos}/{len} images {wide_msg}");
        let bar = ProgressBar::new(self.images)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let mut run = Run {
            drill: self,
            rig: &rig,
            random,
            base,
            totals: Totals::default(),
            number: 0,
            carried: None,
            failures: 0,
            bar,
        };
        while run.totals.images < self.images {
            run.life()?;
        }
        run.bar.finish_and_clear();
        let mut totals = run.totals;
        totals.counts = rig.counts()?;
        totals.time = began.elapsed();
        let failures = run.failures;
        tell(&format!("{} {:?}, seed {}\n{totals}", self.file_system.name(), self.mode, self.seed));
        if self.mode == Mode::Lying && totals.lost == 0 {
            tell("FAILED: a drive that ignores flushes lost nothing that the drill noticed");
            return Ok(false);
        }
        if failures > 0 {
            tell(&format!("FAILED: {failures} images; they are in {FAILED}"));
        }
        Ok(failures == 0)
    }
}

impl Run<'_> {
    fn life(&mut self) -> io::Result<()> {
        self.totals.lives += 1;
        self.random = ChaCha8Rng::seed_from_u64(self.drill.seed ^ (self.totals.lives << 32));
        let carried = self.carried.take_if(|_| self.random.random_bool(0.5));
        let (from, drawn, history) = match carried {
            Some(Carried { drive, drawn, history }) => {
                (drive, drawn.again(&mut self.random, self.drill.uring), history)
            }
            None => (self.base, Drawn::new(&mut self.random, self.drill.uring), Vec::new()),
        };
        let (drive, _) = self.rig.cut(from, Policy::Everything, 0)?;
        if from != self.base {
            self.rig.remove(from)?;
        }
        let images = self.write(drive, drawn, &history)?;
        self.rig.remove(drive)?;
        for image in images {
            self.look_at(image)?;
            self.totals.images += 1;
            self.bar.inc(1);
        }
        Ok(())
    }

    /// One life of a writer, and the images of cuts during it.
    fn write(
        &mut self,
        drive: DriveId,
        drawn: Drawn,
        history: &[Stands],
    ) -> io::Result<Vec<Waiting>> {
        let mounted = self.rig.mount(drive, self.drill.file_system)?;
        let seed = self.drill.seed;
        let task = Task { seed, life: self.totals.lives, drawn, bytes: BYTES_PER_LIFE };
        let mut writer = Writer::start(&mounted.path().join(STORE), &task)?;
        // In most lives the store is open before the first cut.
        let early = self.random.random_bool(0.2);
        while !early && !writer.heard().opened() && writer.is_running()? {
            thread::sleep(Duration::from_millis(1));
        }
        let lies_from = self.random.random_range(1..CUTS_PER_LIFE);
        let mut cuts = Vec::new();
        for number in 0..CUTS_PER_LIFE {
            thread::sleep(Duration::from_micros(self.random.random_range(0..60_000)));
            if self.drill.mode == Mode::Lying && number == lies_from {
                self.rig.misbehave(drive, Fault::Lie)?;
            }
            let policy = self.drill.mode.policy(number, &mut self.random);
            // First what was heard, then the cut: all of it was durable before.
            let heard = writer.heard().acknowledgements();
            let (image, stake) = self.cut(drive, policy)?;
            self.totals.add_stake(&format!("{policy:?}").to_lowercase(), stake);
            cuts.push((image, heard));
        }
        let heard = if self.random.random() {
            writer.kill()?
        } else {
            let (heard, closed) = writer.finish()?;
            if closed {
                // Closed: all is durable, and a cut changes nothing.
                let (image, stake) = self.rig.cut(drive, Policy::Nothing, 0)?;
                self.totals.add_stake("closed", stake);
                cuts.push((image, heard.acknowledgements()));
            }
            heard
        };
        drop(mounted);
        for wrong in heard.wrong() {
            self.failures += 1;
            tell(&format!("WRONG in life {} of seed {seed}: {wrong}", self.totals.lives));
        }
        self.totals.replays += heard.replays_and_unknown().0;
        let last = cuts.len() - 1;
        let waiting = |(index, (drive, heard_then)): (usize, (DriveId, usize))| Waiting {
            drive,
            truth: heard.truth(seed, history, heard_then),
            drawn,
            row: 1,
            carry: index == last,
        };
        Ok(cuts.into_iter().enumerate().map(waiting).collect())
    }

    /// Cuts the power now, or, in most cases, when a write or flush comes and something is at stake.
    fn cut(&mut self, drive: DriveId, policy: Policy) -> io::Result<(DriveId, AtStake)> {
        let seed = self.random.random();
        if self.random.random_bool(0.8) {
            self.rig.cut_later(drive, self.random.random_range(0..6), policy, seed)?;
            let patience = Instant::now() + Duration::from_millis(100);
            while Instant::now() < patience {
                thread::sleep(Duration::from_millis(1));
                if let Some(image) = self.rig.collect(drive, false)? {
                    return Ok(image);
                }
            }
            // The writer has nothing to do, or not even begun.
            if let Some(image) = self.rig.collect(drive, true)? {
                return Ok(image);
            }
        }
        self.rig.cut(drive, policy, seed)
    }

    /// Looks at an image, and at those that come of cutting the power while it is opened.
    fn look_at(&mut self, image: Waiting) -> io::Result<()> {
        let mut waiting = VecDeque::from([image]);
        while let Some(image) = waiting.pop_front() {
            self.number += 1;
            let case = Case {
                file_system: self.drill.file_system,
                drawn: image.drawn.again(&mut self.random, self.drill.uring),
                number: self.number,
                truth: image.truth,
            };
            let again = self.drill.mode != Mode::Lying
                && image.row < IN_A_ROW_MAX
                && (image.row > 1 || self.random.random_bool(0.25));
            // Looking changes a drive; the image stays.
            let (copy, _) = self.rig.cut(image.drive, Policy::Everything, 0)?;
            let mut findings = case.examine(self.rig, copy, again)?;
            self.totals.acknowledged += findings.acknowledged;
            self.totals.read += findings.log.len() as u64;
            self.totals.refused += case.truth.refused.len() as u64;
            self.totals.replays += findings.replays;
            self.totals.appended += findings.appended;
            for again in findings.again.drain(..) {
                let (row, which) = if again.while_opening {
                    self.totals.while_opening += 1;
                    self.totals.in_a_row = self.totals.in_a_row.max(image.row);
                    (image.row + 1, "during recovery")
                } else {
                    self.totals.after_opening += 1;
                    (IN_A_ROW_MAX, "after recovery")
                };
                self.totals.add_stake(which, again.stake);
                let Case { drawn, .. } = case;
                let truth = again.truth;
                waiting.push_back(Waiting { drive: again.drive, truth, drawn, row, carry: false });
            }
            let sound = self.judge(&case, image.drive, &findings)?;
            self.rig.remove(copy)?;
            let carried = findings.log.len() < WRITES_CARRIED_MAX && self.carried.is_none();
            if sound && image.carry && carried && self.drill.mode != Mode::Lying {
                let Case { drawn, .. } = case;
                self.carry_on(image.drive, drawn, &case)?;
            } else {
                self.rig.remove(image.drive)?;
            }
        }
        Ok(())
    }

    /// Recovers the image once more, in full, so that a life can begin with it.
    fn carry_on(&mut self, drive: DriveId, drawn: Drawn, case: &Case) -> io::Result<()> {
        let mounted = self.rig.mount(drive, self.drill.file_system)?;
        let store = drawn.options().open(mounted.path().join(STORE)).map_err(io::Error::other)?;
        let history = crate::judge::read_log(&store, case.truth.seed, &mut Vec::new());
        drop(store);
        drop(mounted);
        self.carried = Some(Carried { drive, drawn, history });
        Ok(())
    }

    /// Whether what was found is as it should be. What is not is told, and the image kept.
    fn judge(&mut self, case: &Case, drive: DriveId, findings: &Findings) -> io::Result<bool> {
        let lying = self.drill.mode == Mode::Lying;
        if lying {
            let has = |which: fn(&Violation) -> bool| findings.violations.iter().any(which);
            let damaged = |violation: &Violation| {
                matches!(violation, Violation::Unreadable(ErrorKind::Corrupt, _))
            };
            if has(|violation| matches!(violation, Violation::Lost(_))) {
                self.totals.lost += 1;
            } else if has(damaged) {
                self.totals.refused_as_damaged += 1;
            } else if has(is_of_file_system) {
                self.totals.file_system_gone += 1;
            }
        }
        let bad: Vec<_> = findings
            .violations
            .iter()
            .filter(|violation| !lying || !is_excused_by_lies(violation))
            .collect();
        if bad.is_empty() {
            return Ok(true);
        }
        self.failures += 1;
        let path = case.keep(self.rig, drive, self.drill.seed)?;
        for violation in bad.iter().take(10) {
            tell(&violation.to_string());
        }
        tell(&format!(
            "  {} in all; life {}, {:?}; check it again with: power check {}",
            bad.len(),
            self.totals.lives,
            case.drawn,
            path.display()
        ));
        Ok(false)
    }
}

/// The file system under the store is damaged: that is not the store's to mend.
fn is_of_file_system(violation: &Violation) -> bool {
    matches!(violation, Violation::Unmounted(_) | Violation::Unreadable(ErrorKind::Io, _))
}

/// What a drive that lies may do to a store: acknowledged writes are gone, or the store says that it is damaged. What is
/// read is never wrong.
fn is_excused_by_lies(violation: &Violation) -> bool {
    matches!(violation, Violation::Lost(_) | Violation::Unreadable(ErrorKind::Corrupt, _))
        || is_of_file_system(violation)
}

impl Case {
    fn examine(&self, rig: &Rig, drive: DriveId, cut_again: bool) -> io::Result<Findings> {
        let Case { file_system, drawn, number, ref truth } = *self;
        Image { drive, file_system, drawn, truth, number, cut_again }.examine(rig)
    }

    /// Saves the image and what is known of it.
    fn keep(&self, rig: &Rig, drive: DriveId, seed: u64) -> io::Result<PathBuf> {
        fs::create_dir_all(FAILED)?;
        let path = Path::new(FAILED).join(format!("{seed}-{}.img", self.number));
        rig.save(drive, &path)?;
        serde_json::to_writer(File::create(beside(&path))?, self)?;
        Ok(path)
    }

    /// Looks again at an image that failed, and says whether it is as it should be. The file is not changed.
    ///
    /// # Errors
    ///
    /// Of the rig, or if the files can't be read.
    pub fn check(path: &Path) -> io::Result<bool> {
        let case: Case = serde_json::from_reader(io::BufReader::new(File::open(beside(path))?))?;
        let rig = Rig::new()?;
        let drive = rig.load(path)?;
        let findings = case.examine(&rig, drive, false)?;
        for violation in &findings.violations {
            tell(&violation.to_string());
        }
        tell(&format!(
            "{} of {} acknowledged writes found, {} writes read, {} violations",
            findings.acknowledged,
            case.truth.acknowledged.len(),
            findings.log.len(),
            findings.violations.len()
        ));
        Ok(findings.violations.is_empty())
    }
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("json")
}
