//! System calls that fail: what each promises then.

use std::path::Path;

use annals_trials::truth::{Truth, Word};

use super::{Variant, recover, traced};
use crate::life::Kind;
use crate::parent::{self, Running};
use crate::report::{Failure, say};

/// What a life with one fault in it must look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Promise {
    /// The shard takes no more writes after the first that failed: nothing later is acknowledged before it is opened
    /// again. At least one of the points must come to that.
    FailStop,
    /// As before, and the process keeps the lock: what it gave to a ring that it can't enter any more may still land.
    FailStopForGood,
    /// Typed errors, or none; whatever goes wrong is told, and nothing is lost.
    Told,
    /// The store opens on the blocking back end.
    FallsBack,
    /// The store opens on a ring all the same.
    TriesAgain,
    /// The store does not open, and says that this is not supported.
    Refuses,
}

struct Case {
    call: &'static str,
    fault: &'static str,
    whens: &'static [&'static str],
    kind: Kind,
    dsync: bool,
    promise: Promise,
}

const fn case(
    call: &'static str,
    fault: &'static str,
    whens: &'static [&'static str],
    (kind, dsync): (Kind, bool),
    promise: Promise,
) -> Case {
    Case { call, fault, whens, kind, dsync, promise }
}

const EACH: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "8"];
const SOME: [&str; 7] = ["8", "12", "16", "20", "24", "28", "32"];

const CASES: [Case; 13] = [
    case("fdatasync", "error=EIO", &EACH, (Kind::Blocking, false), Promise::FailStop),
    case("pwritev2", "error=EIO", &EACH, (Kind::Blocking, true), Promise::FailStop),
    case("pwritev2", "retval=0", &["2+", "4+"], (Kind::Blocking, true), Promise::FailStop),
    case("io_uring_enter", "error=EIO", &SOME, (Kind::Uring, true), Promise::FailStopForGood),
    case("io_uring_enter", "error=EINTR", &EACH, (Kind::Uring, true), Promise::Told),
    case("fsync", "error=EIO", &EACH, (Kind::Blocking, true), Promise::Told),
    case("pwrite64", "error=EIO", &EACH, (Kind::Blocking, true), Promise::Told),
    case("fallocate", "error=ENOSPC", &["1+", "2+", "3+"], (Kind::Blocking, true), Promise::Told),
    case("openat", "error=EMFILE", &SOME, (Kind::Blocking, true), Promise::Told),
    case("io_uring_setup", "error=ENOSYS", &["1+"], (Kind::Auto, true), Promise::FallsBack),
    case("io_uring_setup", "error=EPERM", &["1+"], (Kind::Auto, true), Promise::FallsBack),
    case("io_uring_setup", "error=ENOMEM", &["1", "2"], (Kind::Uring, true), Promise::TriesAgain),
    case("io_uring_setup", "error=ENOSYS", &["1+"], (Kind::Uring, true), Promise::Refuses),
];

pub(super) fn run(place: &Path, variants: Vec<Variant>) -> Result<(), Failure> {
    let (mut lives, mut stops) = (0, 0);
    for case in &CASES {
        let ring_here = variants.iter().any(|variant| variant.kind == Kind::Uring);
        if case.kind != Kind::Blocking && !ring_here {
            continue;
        }
        let mut stopped = false;
        for when in case.whens {
            let inject = format!("inject={}:{}:when={when}", case.call, case.fault);
            let words = live(place, case, &inject)?;
            lives += 1;
            stopped |= stop_of(&words).is_some();
            if let Err(text) = kept(case.promise, &words) {
                let text = format!("{inject} on {}: {text}\n{words:?}", case.kind.name());
                return Err(Failure::Broken(text));
            }
        }
        let is_to_stop = matches!(case.promise, Promise::FailStop | Promise::FailStopForGood);
        if is_to_stop && !stopped {
            let text = format!("{} {}: no life came to a stop by it", case.call, case.fault);
            return Err(Failure::Broken(text));
        }
        stops += u32::from(stopped);
    }
    say(&format!(
        "{lives} lives with a system call that fails, {stops} kinds of failure stopped a shard"
    ));
    Ok(())
}

/// Lives with a fault, and finds nothing missing afterwards.
fn live(place: &Path, case: &Case, inject: &str) -> Result<Vec<Word>, Failure> {
    let dir = tempfile::tempdir_in(place)?;
    let path = dir.path().join("store");
    let variant = Variant { kind: case.kind, dsync: case.dsync };
    let life = variant.life(&path);
    let trace = format!("trace={}", case.call);
    let command = traced(&["-e", &trace, "-e", inject])?;
    let words = Running::start(command, &life)?.ended()?.words();
    let mut truth = Truth::new(life.subjects.clone());
    let mut settings = life.settings.clone();
    settings.kind_that_works();
    recover(&path, &settings, words.clone(), &mut truth)
        .and_then(|()| parent::compare_all(&path, &settings, &truth))
        .map_err(|complaints| Failure::broken(&complaints, &format!("{inject}: {words:?}")))?;
    Ok(words)
}

/// The word by which a shard first said that it has stopped.
fn stop_of(words: &[Word]) -> Option<usize> {
    words.iter().position(|word| matches!(word, Word::Unknown(_) | Word::Refused(_, 6001 | 6002)))
}

fn kept(promise: Promise, words: &[Word]) -> Result<(), String> {
    let ends = |word: &Word| matches!(word, Word::Done | Word::NotOpened(..));
    if !words.last().is_some_and(ends) {
        return Err("it neither came to its end nor said that it could not open".into());
    }
    // Whatever the fault: a shard that has stopped acknowledges nothing until it is opened again.
    if let Some(stop) = stop_of(words) {
        let until = words[stop..].iter().position(|word| *word == Word::Open);
        let rest = &words[stop..until.map_or(words.len(), |until| stop + until)];
        if let Some(late) = rest.iter().find(|word| matches!(word, Word::Acked(..))) {
            return Err(format!("it had stopped, and then acknowledged: {late:?}"));
        }
    }
    let said = |text: &str| words.contains(&Word::Note(text.into()));
    let not_opened = words.iter().find_map(|word| match word {
        Word::NotOpened(code, _) => Some(*code),
        _ => None,
    });
    let kept = match promise {
        Promise::FailStop | Promise::Told => {
            // The errors that the table of errors has for what the system refuses.
            not_opened.is_none_or(|code| [3002, 4003, 5001].contains(&code))
        }
        Promise::FailStopForGood => {
            not_opened.is_none_or(|code| [4001, 4003, 5001].contains(&code))
        }
        Promise::FallsBack => said("backend blocking") && not_opened.is_none(),
        Promise::TriesAgain => said("backend uring") && not_opened.is_none(),
        Promise::Refuses => not_opened == Some(4003),
    };
    if kept { Ok(()) } else { Err(format!("{promise:?} was not kept")) }
}
