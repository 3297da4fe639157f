//! The command line: what is asked for, and the one way from there to results.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;

use crate::{
    campaign::{self, Plan},
    compare, device,
    folder::Folder,
    machine,
    progress::Progress,
    report,
    results::{Kind, Results, Run},
    roster::{Contender, Roster},
    share,
    store::{Result, Setup},
    workload::{self, CHILD, Case, Round, WORKLOADS},
};

/// Annals side by side with other stores under the same promise, and with the device itself.
///
/// Without a suite this is the canonical run: under three minutes, in a new folder here, removed afterwards.
#[derive(Debug, Parser)]
#[command(name = "bench", version, args_conflicts_with_subcommands = true)]
struct Command {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// Show what changed between two runs, with the noise beside it.
    Compare {
        /// The results before.
        before: PathBuf,
        /// The results after.
        after: PathBuf,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// What to run: names from --list, `canonical` or `all`.
    suites: Vec<String>,
    /// Name the suites with their cases, and the contenders.
    #[arg(long)]
    list: bool,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// Only this contender; may be given several times.
    #[arg(long, value_name = "CONTENDER")]
    only: Vec<String>,
    /// Where to make the folder with the stores.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,
    /// Take a RAM disk for a disk, although nothing is durable there.
    #[arg(long)]
    ram_disk: bool,
    /// How long each round is measured.
    #[arg(long, value_parser = seconds)]
    seconds: Option<Duration>,
    /// How many rounds of each case.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// The folder of event logs for `real`.
    #[arg(long, value_name = "FOLDER", env = "ANNALS_EVENT_LOGS")]
    logs: Option<PathBuf>,
    /// Only see that everything works: short rounds, small stores, figures of no worth.
    #[arg(long)]
    quick: bool,
    /// Where results go, instead of `bench-results/` and the time.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 3600.0);
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("{text}: expected seconds, more than 0 and at most 3600"))
}

/// The whole program, for a roster of contenders.
pub fn main(roster: Roster) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let done = if arguments.get(1).is_some_and(|first| first == CHILD) {
        child(&roster, &arguments[2..]).map(|()| ExitCode::SUCCESS)
    } else {
        obey(&roster, &Command::parse())
    };
    done.unwrap_or_else(|error| {
        // If nobody can read it there is nobody to tell.
        let _ = writeln!(io::stderr(), "bench: {error}");
        ExitCode::FAILURE
    })
}

fn obey(roster: &Roster, command: &Command) -> Result<ExitCode> {
    let mut screen = io::stdout().lock();
    match &command.other {
        Some(Other::Compare { before, after }) => {
            let (before, after) = (report::json::read(before)?, report::json::read(after)?);
            screen.write_all(compare::compare(&before, &after).as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        None if command.run.list => {
            list(roster, &mut screen)?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            drop(screen);
            run(roster, &command.run)
        }
    }
}

/// Runs one case in this process, which somebody else started for it and may kill.
fn child(roster: &Roster, arguments: &[OsString]) -> Result<()> {
    let text: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let [contender, workload, name, dir, seed, blocking, quick, nanos] = text[..] else {
        return Err(
            format!("{CHILD} is for this program itself, which gives it eight arguments").into()
        );
    };
    let contender = roster.find(contender).ok_or("the parent has another roster")?;
    let cases = workload::cases();
    let case = cases.iter().find(|case| case.workload == workload && case.name == name);
    let round = Round {
        case: case.ok_or("the parent has other cases")?,
        contender: &contender.name,
        dir: Path::new(dir),
        setup: Setup { blocking: blocking.parse()? },
        measure: Duration::from_nanos(nanos.parse()?),
        warm_up: Duration::ZERO,
        seed: seed.parse()?,
        logs: None,
        capacity: None,
        quick: quick.parse()?,
        is_child: true,
    };
    contender.run(&round).map(drop)
}

fn list(roster: &Roster, screen: &mut dyn Write) -> Result<()> {
    let cases = workload::cases();
    writeln!(screen, "Suites (the canonical run has the cases marked *):")?;
    for (name, what) in WORKLOADS {
        writeln!(screen, "  {name:10} {what}")?;
        for case in cases.iter().filter(|case| case.workload == name) {
            let mark = if case.canonical { '*' } else { ' ' };
            let whose = if case.annals_only { " (Annals alone)" } else { "" };
            writeln!(screen, "    {mark} {}{whose}", case.name)?;
        }
    }
    writeln!(screen, "\nContenders (the canonical run has those marked *):")?;
    for contender in &roster.contenders {
        let mark = if contender.canonical { '*' } else { ' ' };
        writeln!(screen, "  {mark} {} {}", contender.name, contender.version)?;
        writeln!(screen, "      {}", contender.acknowledges)?;
        if let Some(missing) = &contender.missing {
            writeln!(screen, "      Missing: {missing}")?;
        }
    }
    for remark in &roster.remarks {
        writeln!(screen, "\n{remark}")?;
    }
    Ok(())
}

/// The cases that were asked for, and whether that is the canonical run.
fn cases(arguments: &RunArgs) -> Result<(Vec<Case>, bool)> {
    let known = |name: &str| WORKLOADS.iter().any(|(workload, _)| *workload == name);
    for suite in &arguments.suites {
        if !known(suite) && !matches!(suite.as_str(), "canonical" | "all") {
            return Err(format!("there is no suite {suite}: see --list").into());
        }
    }
    let asked = |name: &str| arguments.suites.iter().any(|suite| suite == name);
    let is_canonical = arguments.suites.iter().all(|suite| suite == "canonical");
    let wanted = |case: &Case| {
        let suite = asked("all")
            || asked(case.workload)
            || case.canonical && (is_canonical || asked("canonical"));
        suite && arguments.case.as_ref().is_none_or(|text| case.name.contains(text.as_str()))
    };
    let mut cases = workload::cases();
    cases.retain(wanted);
    if cases.is_empty() {
        return Err("no case is what was asked for: see --list".into());
    }
    Ok((cases, is_canonical))
}

fn run(roster: &Roster, arguments: &RunArgs) -> Result<ExitCode> {
    let (cases, is_canonical) = cases(arguments)?;
    for name in &arguments.only {
        roster.find(name).ok_or_else(|| format!("there is no contender {name}: see --list"))?;
    }
    let chosen = |contender: &Contender| {
        if arguments.only.is_empty() {
            contender.canonical || !is_canonical
        } else {
            arguments.only.contains(&contender.name)
        }
    };
    let plan = plan(arguments, cases, is_canonical);
    let contenders = roster.contenders.iter().filter(|one| chosen(one)).count();

    let clock = Instant::now();
    let began = Timestamp::now();
    let mut folder = Folder::create(&arguments.dir, arguments.ram_disk)?;
    folder.remove_when_interrupted()?;
    let progress = Progress::new(u64::from(plan.rounds) * (plan.cases.len() * contenders) as u64);
    let mut machine = machine::describe(folder.path());
    let watch = machine::Watch::begin();
    let device = device::measure(folder.path(), arguments.quick, &|what| progress.detail(what));
    let mut remarks = Vec::new();
    let device = device.unwrap_or_else(|error| {
        remarks.push(format!("The device could not be measured: {error}."));
        device::Survey { runs: Vec::new(), remarks: Vec::new() }
    });
    let outcome = campaign::run(&plan, roster, &chosen, &mut folder, &progress);
    watch.end(&mut machine);
    progress.finish();
    drop(folder);

    remarks.extend(device.remarks);
    remarks.extend(outcome.remarks);
    remarks.extend(roster.remarks.iter().cloned());
    remarks.extend(foreign(machine.foreign_share));
    if arguments.quick {
        remarks.push(
            "A run with --quick: it shows that everything works, its figures are of no worth."
                .into(),
        );
    }
    let with_share = |run: &Run| Run { device_share: share::of(run, &device.runs), ..run.clone() };
    let mut results = Results {
        form: Results::FORM,
        began: began.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        seconds: clock.elapsed().as_secs_f64(),
        command: command(),
        machine,
        runs: outcome.runs.iter().map(|finished| with_share(&finished.run)).collect(),
        device: device.runs,
        contenders: outcome.contenders,
        remarks,
    };
    let out = arguments.out.clone().unwrap_or_else(|| {
        Path::new("bench-results").join(began.strftime("%Y-%m-%dT%H-%M-%SZ").to_string())
    });
    report::write(&out, &mut results, &outcome.runs)?;

    let mut screen = io::stdout().lock();
    screen.write_all(report::table::render(&results).as_bytes())?;
    writeln!(
        screen,
        "{:.0} s; everything is in {}, to look at: {}",
        results.seconds,
        out.display(),
        out.join("page.html").display()
    )?;
    let annals_failed = results
        .contenders
        .iter()
        .any(|contender| contender.kind == Kind::Annals && contender.failure.is_some());
    Ok(if annals_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// How long and how often. The canonical run must be over in three minutes; a suite may take its time.
fn plan(arguments: &RunArgs, cases: Vec<Case>, is_canonical: bool) -> Plan {
    let (rounds, millis) = match (arguments.quick, is_canonical) {
        (true, _) => (1, 50),
        (false, true) => (3, 400),
        (false, false) => (3, 2000),
    };
    let measure = arguments.seconds.unwrap_or(Duration::from_millis(millis));
    Plan {
        cases,
        rounds: arguments.rounds.unwrap_or(rounds),
        measure,
        warm_up: measure / 4,
        quick: arguments.quick,
        logs: arguments.logs.clone(),
    }
}

fn foreign(share: f64) -> Option<String> {
    (share > report::table::FOREIGN_MOST).then(|| {
        format!(
            "Noisy: {:.0} % of the processors' time went to others while it ran.",
            share * 100.0
        )
    })
}

/// The command as it was given, without the folder that the program lies in.
fn command() -> String {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let name = Path::new(&program).file_name().map(|name| name.to_string_lossy().into_owned());
    std::iter::once(name.unwrap_or(program)).chain(arguments).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> RunArgs {
        let arguments = std::iter::once("bench").chain(arguments.iter().copied());
        Command::try_parse_from(arguments).expect("they can be given").run
    }

    #[test]
    fn no_argument_is_the_canonical_run() {
        let arguments = parsed(&[]);
        let (cases, is_canonical) = cases(&arguments).expect("there are cases");
        assert!(is_canonical && cases.iter().all(|case| case.canonical));
        let covered = |name: &&str| cases.iter().any(|case| case.workload == *name);
        let canonical = ["solo", "clients", "pipeline", "hot", "transfer", "conflict", "open"];
        let missing: Vec<_> = canonical.iter().filter(|name| !covered(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn a_suite_has_all_its_cases_and_no_others() {
        let (found, is_canonical) = cases(&parsed(&["clients"])).expect("there are cases");
        assert!(!is_canonical && found.iter().all(|case| case.workload == "clients"));
        assert_eq!(found.len(), 5);
        let (found, _) = cases(&parsed(&["clients", "--case", "64"])).expect("there is one");
        assert_eq!(found.len(), 1);
        cases(&parsed(&["client"])).expect_err("there is no such suite");
    }

    #[test]
    fn every_suite_in_the_list_has_cases() {
        for (name, _) in WORKLOADS {
            assert!(cases(&parsed(&[name])).is_ok(), "{name}");
        }
    }

    #[test]
    fn comparing_is_a_command_of_its_own() {
        let command = Command::try_parse_from(["bench", "compare", "a", "b"]).expect("it is one");
        assert!(matches!(command.other, Some(Other::Compare { .. })));
        assert!(Command::try_parse_from(["bench", "--seconds", "0"]).is_err());
    }
}
