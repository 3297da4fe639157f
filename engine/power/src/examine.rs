//! One image: mounted, verified, opened, read, held against the truth, written to, closed, verified again. While the store
//! opens it the power can fail once more, and then while it is written to.

use std::path::Path;

use annals::{Options, Store, verify};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::control::DriveId;
use crate::device::{AtStake, Policy};
use crate::draw::Drawn;
use crate::frontier::{self, Stated};
use crate::judge::{self, Violation};
use crate::load;
use crate::plan::{GROUPS, WriteId, group_name};
use crate::rig::{FileSystem, Rig};
use crate::truth::{Stands, Truth};

/// The store's folder on every drive.
pub const STORE: &str = "store";
/// Clients of what is written to images begin here.
const EXAMINERS: u64 = 1 << 40;

/// What to look at, and how.
#[derive(Debug)]
pub struct Image<'a> {
    /// The drive.
    pub drive: DriveId,
    /// What is on it.
    pub file_system: FileSystem,
    /// How the store is opened.
    pub drawn: Drawn,
    /// What is known of it.
    pub truth: &'a Truth,
    /// Decides when the power fails again; in a run no two have the same.
    pub number: u64,
    /// Whether it fails again.
    pub cut_again: bool,
}

/// An image that was taken while another one was looked at.
#[derive(Debug)]
pub struct Again {
    /// The drive.
    pub drive: DriveId,
    /// What may be held against it: what the store served before the cut is a part.
    pub truth: Truth,
    /// Whether the cut came before the store had opened.
    pub while_opening: bool,
    /// What was at stake.
    pub stake: AtStake,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What must not be.
    pub violations: Vec<Violation>,
    /// Acknowledged writes that were found as they should be.
    pub acknowledged: u64,
    /// The log as it was served.
    pub log: Vec<Stands>,
    /// Writes sent again and answered as they were the first time.
    pub replays: u64,
    /// Writes that were made to see that it goes on.
    pub appended: u64,
    /// The power failed again.
    pub again: Vec<Again>,
}

impl Image<'_> {
    /// Looks at all of it.
    ///
    /// # Errors
    ///
    /// Of the rig alone. What is wrong with the image is a violation.
    pub fn examine(&self, rig: &Rig) -> std::io::Result<Findings> {
        let mut findings = Findings::default();
        let mut random = ChaCha8Rng::seed_from_u64(self.truth.seed ^ self.number);
        if self.cut_again {
            self.cut_later(rig, &mut random, 40)?;
        }
        let mounted = match rig.mount(self.drive, self.file_system) {
            Ok(mounted) => mounted,
            Err(error) => {
                findings.violations.push(Violation::Unmounted(error.to_string()));
                return Ok(findings);
            }
        };
        let folder = mounted.path().join(STORE);
        let before = self.stated(&folder, &mut findings);
        if folder.join("identity").exists() {
            self.verify(&folder, "as the cut left it", &mut findings);
        }
        let store = match self.options().open(&folder) {
            Ok(store) => store,
            Err(error) => {
                findings.violations.push(error.into());
                return Ok(findings);
            }
        };
        findings.log = judge::read_log(&store, self.truth.seed, &mut findings.violations);
        findings.acknowledged = judge::compare(&findings.log, self.truth, &mut findings.violations);
        if self.cut_again {
            if let Some((drive, stake)) = rig.collect(self.drive, true)? {
                let truth = self.truth.clone();
                findings.again.push(Again { drive, truth, while_opening: true, stake });
            }
            self.cut_later(rig, &mut random, 20)?;
        }
        self.go_on(&store, &mut findings);
        if let Err(error) = store.close() {
            findings.violations.push(error.into());
        }
        drop(store);
        if self.cut_again
            && let Some((drive, stake)) = rig.collect(self.drive, true)?
        {
            let truth = Truth { history: findings.log.clone(), ..self.truth.clone() };
            findings.again.push(Again { drive, truth, while_opening: false, stake });
        }
        let after = self.stated(&folder, &mut findings);
        for (shard, (before, after)) in before.into_iter().zip(after).enumerate() {
            if frontier::is_cut_short(before, after) {
                findings.violations.push(Violation::Wrong(format!(
                    "shard {shard} was cut below a frontier without a word: {before:?}, then {after:?}"
                )));
            }
        }
        self.verify(&folder, "after it was written to", &mut findings);
        Ok(findings)
    }

    fn options(&self) -> Options {
        self.drawn.options()
    }

    fn cut_later(&self, rig: &Rig, random: &mut ChaCha8Rng, requests: u64) -> std::io::Result<()> {
        let policies = [Policy::Subset, Policy::Torn, Policy::Reorder, Policy::Nothing];
        let policy = policies[random.random_range(0..policies.len())];
        rig.cut_later(self.drive, random.random_range(0..requests), policy, random.random())
    }

    fn stated(&self, folder: &Path, findings: &mut Findings) -> Vec<Stated> {
        let shards = (0..self.drawn.shards).map(|shard| frontier::stated(folder, shard));
        let mut all = Vec::new();
        for stated in shards {
            match stated {
                Ok(stated) => all.push(stated),
                Err(error) => findings.violations.push(Violation::Unmounted(error.to_string())),
            }
        }
        all
    }

    fn verify(&self, folder: &Path, when: &str, findings: &mut Findings) {
        match verify(folder, |_, _| {}) {
            Ok(verification) => {
                for problem in verification.problems {
                    let text = format!("verified {when}: {problem}");
                    let kind = annals::ErrorKind::Corrupt;
                    findings.violations.push(Violation::Unreadable(kind, text));
                }
            }
            Err(error) => findings.violations.push(error.into()),
        }
    }

    /// The newest write of each client, sent again, is known; new ones find their place.
    fn go_on(&self, store: &Store, findings: &mut Findings) {
        let mut newest: Vec<&Stands> = Vec::new();
        for stands in &findings.log {
            match newest.iter_mut().find(|other| other.id.client == stands.id.client) {
                Some(other) if other.id.sequence < stands.id.sequence => *other = stands,
                Some(_) => {}
                None => newest.push(stands),
            }
        }
        let mut violations = Vec::new();
        let mut wrong = |what: String| violations.push(Violation::Wrong(what));
        for stands in newest {
            let plan = stands.id.plan(self.truth.seed);
            if !plan.retriable {
                continue;
            }
            match load::send(store, stands.id, &plan, None).and_then(|ticket| ticket.wait()) {
                Ok(done) if !done.is_replay() => wrong(format!("{stands:?} was written again")),
                Ok(done) => {
                    let now = load::stands(store, stands.id, &plan, &done);
                    if now != *stands {
                        wrong(format!("{stands:?}, sent again, is {now:?}"));
                    }
                    findings.replays += 1;
                }
                Err(error) => wrong(format!("{stands:?}, sent again: {error}")),
            }
        }
        for group in 0..GROUPS {
            let id = self.appended(group);
            let plan = id.plan(self.truth.seed);
            match load::send(store, id, &plan, None).and_then(|ticket| ticket.wait()) {
                Ok(_) => findings.appended += 1,
                Err(error) => wrong(format!("nothing can be appended: {error}")),
            }
        }
        findings.violations.append(&mut violations);
    }

    /// A write to this group: the number of the image is the client, and the sequence what the plan needs.
    fn appended(&self, group: u64) -> WriteId {
        let name = group_name(group);
        let client = EXAMINERS + self.number * GROUPS + group;
        let mut sequence = 1;
        loop {
            let id = WriteId { client, sequence };
            if id.plan(self.truth.seed).parts[0].key.split('/').next() == Some(name.as_str()) {
                return id;
            }
            sequence += 1;
        }
    }
}
