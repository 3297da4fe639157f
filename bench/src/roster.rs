//! Who takes part: every store under its name, with what it does before it acknowledges.

use std::fmt;

use crate::{
    results::Kind,
    store::{Result, Setup, Store},
    stores::{
        annals::Annals,
        bare,
        file::{self, LoneFile},
        fjall::{self, Fjall},
        grouped::Grouped,
        redb::{self, Redb},
    },
    workload::{self, Case, Measured, Round},
};

/// A contender: something that can be given a round of a case.
pub struct Contender {
    /// Its name in every run.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is.
    pub kind: Kind,
    /// What it does before it acknowledges.
    pub acknowledges: String,
    /// How it is opened.
    pub setup: Setup,
    /// Whether a run without arguments includes it.
    pub canonical: bool,
    /// Why it can't take part on this machine, and what to do about it.
    pub missing: Option<String>,
    takes: Box<dyn Fn(&Case) -> bool>,
    run: Box<Run>,
}

/// Does a round.
type Run = dyn Fn(&Round<'_>) -> Result<Measured>;

impl Contender {
    /// A store, which takes part in every case that is not for Annals alone.
    pub fn new<S: Store>(name: &str, version: &str, kind: Kind, acknowledges: &str) -> Contender {
        Contender {
            name: name.into(),
            version: version.into(),
            kind,
            acknowledges: acknowledges.into(),
            setup: Setup::default(),
            canonical: true,
            missing: None,
            takes: Box::new(move |case| !case.annals_only || kind == Kind::Annals),
            run: Box::new(workload::run::<S>),
        }
    }

    /// Something that is no store and can do some cases only.
    pub fn bare(
        name: &str,
        acknowledges: &str,
        takes: impl Fn(&Case) -> bool + 'static,
        run: impl Fn(&Round<'_>) -> Result<Measured> + 'static,
    ) -> Contender {
        Contender {
            name: name.into(),
            version: String::new(),
            kind: Kind::Bound,
            acknowledges: acknowledges.into(),
            setup: Setup::default(),
            canonical: true,
            missing: None,
            takes: Box::new(takes),
            run: Box::new(run),
        }
    }

    /// The same, opened in another way.
    pub fn set_up(self, setup: Setup) -> Contender {
        Contender { setup, ..self }
    }

    /// The same, which takes no part without something that was looked for on this machine.
    pub fn needs(self, found: Result<()>) -> Contender {
        Contender { missing: found.err().map(|error| error.to_string()), ..self }
    }

    /// The same, only in suites that are asked for by name.
    pub fn on_request(self) -> Contender {
        Contender { canonical: false, ..self }
    }

    /// The same, only in some of the cases that it would take.
    pub fn only(self, some: impl Fn(&Case) -> bool + 'static) -> Contender {
        let takes = self.takes;
        Contender { takes: Box::new(move |case| takes(case) && some(case)), ..self }
    }

    /// Whether it can do this case.
    pub fn takes(&self, case: &Case) -> bool {
        (self.takes)(case)
    }

    /// Does it once.
    pub fn run(&self, round: &Round<'_>) -> Result<Measured> {
        (self.run)(round)
    }
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contender")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// All who take part, Annals first, and what is to be said about those who can't.
#[derive(Debug, Default)]
pub struct Roster {
    /// In the order in which they take turns.
    pub contenders: Vec<Contender>,
    /// Who is missing, and why.
    pub remarks: Vec<String>,
}

impl Roster {
    /// The contender of that name.
    pub fn find(&self, name: &str) -> Option<&Contender> {
        self.contenders.iter().find(|contender| contender.name == name)
    }
}

/// Annals and the peers that cost little to build. `lock` is the text of the `Cargo.lock` that the program is built with, which
/// names their versions.
pub fn light(lock: &str) -> Roster {
    let annals = |name| {
        let what = "one thread, without a timer, writes all that was accepted meanwhile as whole blocks to prepared space, RWF_DSYNC or \
             fdatasync as its probe chose; the ticket resolves after that. A conflict is told at once, also while the winner is not yet \
             durable";
        Contender::new::<Annals>(name, env!("CARGO_PKG_VERSION"), Kind::Annals, what)
    };
    let redb = locked_version(lock, "redb");
    let fjall = locked_version(lock, "fjall");
    let contenders = vec![
        annals("annals"),
        annals("annals (blocking)").set_up(Setup { blocking: true }).on_request(),
        Contender::new::<Fjall>("fjall", &fjall, Kind::Embedded, fjall::ACKNOWLEDGES),
        Contender::new::<Grouped<Fjall>>(
            "fjall + group",
            &fjall,
            Kind::Grouped,
            fjall::ACKNOWLEDGES_GROUPED,
        ),
        Contender::new::<Redb>("redb", &redb, Kind::Embedded, redb::ACKNOWLEDGES),
        Contender::new::<Grouped<Redb>>(
            "redb + group",
            &redb,
            Kind::Grouped,
            redb::ACKNOWLEDGES_GROUPED,
        ),
        Contender::new::<LoneFile>("file", "", Kind::Embedded, file::ACKNOWLEDGES).on_request(),
        Contender::bare(
            "bare loop",
            bare::ACKNOWLEDGES,
            |case| case.workload == "pipeline" && bare::takes(case),
            bare::run,
        ),
    ];
    Roster { contenders, remarks: Vec::new() }
}

/// The version of a package that a lock file names; empty if it names none.
pub fn locked_version(lock: &str, package: &str) -> String {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    let version = lines.nth(1).and_then(|line| line.strip_prefix("version = \""));
    version.map(|version| version.trim_end_matches('"').to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "[[package]]\nname = \"redb-derive\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"redb\"\nversion = \"4.6.0\"\n";

    #[test]
    fn versions_come_from_the_lock_file() {
        assert_eq!(locked_version(LOCK, "redb"), "4.6.0");
        assert_eq!(locked_version(LOCK, "fjall"), "");
    }

    #[test]
    fn names_are_unique_and_annals_is_first() {
        let roster = light(LOCK);
        assert_eq!(roster.contenders[0].kind, Kind::Annals);
        for (number, contender) in roster.contenders.iter().enumerate() {
            let first = roster.contenders.iter().position(|other| other.name == contender.name);
            assert_eq!(first, Some(number), "{}", contender.name);
        }
    }

    #[test]
    fn what_is_for_annals_alone_is_given_to_nobody_else() {
        let case = Case::new("size", "a case", []).annals_only();
        let roster = light(LOCK);
        assert!(
            roster
                .contenders
                .iter()
                .all(|contender| { contender.takes(&case) == (contender.kind == Kind::Annals) })
        );
    }
}
