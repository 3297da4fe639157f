//! Logs of real events: every `.jsonl` and `.jsonl.gz` in a folder, in the order of their names, appended with their conditions.
//!
//! A line is a write in the form that `annals import` takes: `{"writes":[{"aggregate":…,"expected":…,"events":[{"type":…,"time":…,
//! "data":…}]}],"checks":[…]}`, or one event alone. The text of a time is kept as the event's metadata. Members beyond these are an error,
//! and so is a condition that does not hold.
//!
//! The files are unpacked in memory before the clock runs. Either they are parsed then too, and what is timed is appending;
//! or parsing is part of it, as in an import. All of it goes into a new store, as often as the time allows. A unit is an event;
//! the clock stops when the last write is durable.

use std::{
    borrow::Cow,
    collections::HashSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use annals::{Event, Expect, Store as Engine};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Case, Measured, Round, size::engine};
use crate::{
    measure::{
        Meter, Spent,
        window::{self, Window},
    },
    store::{Result, Session, Store},
    stores::annals::AnnalsTicket,
};

/// How often all of it is appended in a round, at most.
const TIMES_MAX: u32 = 50;

/// Names the folder if nothing else does.
const FOLDER_VARIABLE: &str = "ANNALS_EVENT_LOGS";

/// The cases.
pub fn cases() -> Vec<Case> {
    let case = |name, parsing: f64| Case::new("real", name, [("parsing", parsing)]).annals_only();
    vec![case("appended", 0.0), case("parsed and appended", 1.0)]
}

/// Runs a case once.
pub fn run<S: Store>(round: &Round<'_>) -> Result<Measured> {
    let folder =
        round.logs.clone().or_else(|| std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from));
    let folder = folder.ok_or_else(|| {
        format!("there are no event logs: name their folder with --logs or in {FOLDER_VARIABLE}")
    })?;
    let texts = texts(&folder)?;
    let expected = Expected::of(&texts)?;
    let parsing = round.case.number("parsing") > 0;
    let mut spent = Spent { elapsed: Duration::ZERO, processor: Duration::ZERO, written_bytes: 0 };
    let mut times = 0;
    while times == 0 || (spent.elapsed < round.measure && times < TIMES_MAX) {
        let dir = round.dir.join(times.to_string());
        fs::create_dir(&dir)?;
        let store = S::open(&dir, &round.setup)?;
        let once = if parsing {
            append(engine(&store)?, lines(&texts).map(|(number, line)| parse(number, line)))?
        } else {
            let writes = lines(&texts).map(|(number, line)| parse(number, line));
            let writes: Vec<Write> = writes.collect::<Result<_>>()?;
            append(engine(&store)?, writes.into_iter().map(Ok))?
        };
        store.close()?;
        expected.check(&S::open(&dir, &round.setup)?)?;
        fs::remove_dir_all(&dir)?;
        spent.elapsed += once.elapsed;
        spent.processor += once.processor;
        spent.written_bytes += once.written_bytes;
        times += 1;
    }
    let mut measured = Measured::new("events", expected.events * u64::from(times), spent);
    measured.figures.insert("events_per_write", expected.events as f64 / expected.writes as f64);
    measured
        .figures
        .insert("events_per_aggregate", expected.events as f64 / expected.aggregates as f64);
    measured.verified = true;
    Ok(measured)
}

/// Appends all, waits for all.
fn append(engine: &Engine, writes: impl Iterator<Item = Result<Write>>) -> Result<Spent> {
    let mut window = Window::new(window::tickets(1));
    let meter = Meter::begin(Vec::new());
    for write in writes {
        let Write { parts, checks } = write?;
        let write = parts
            .into_iter()
            .fold(engine.write(), |write, part| write.append(part.key, part.expect, part.events));
        let write = checks.into_iter().fold(write, |write, (key, expect)| write.check(key, expect));
        window.push(AnnalsTicket::Accepted(write.submit()?))?;
    }
    window.finish()?;
    Ok(meter.end())
}

/// What a store holds in the end.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    writes: u64,
    events: u64,
    aggregates: u64,
}

impl Expected {
    fn of(texts: &[Text]) -> Result<Expected> {
        let (mut writes, mut events, mut keys) = (0, 0, HashSet::new());
        for (number, line) in lines(texts) {
            let write = parse(number, line)?;
            writes += 1;
            for part in write.parts {
                events += part.events.len() as u64;
                keys.insert(part.key);
            }
        }
        if writes == 0 {
            return Err("the event logs have no lines: expected a write in each".into());
        }
        Ok(Expected { writes, events, aggregates: keys.len() as u64 })
    }

    fn check<S: Store>(&self, store: &S) -> Result<()> {
        let events = store.session()?.read_all(&mut |_| ())?;
        let aggregates =
            engine(store)?.aggregates().collect::<std::result::Result<Vec<_>, _>>()?.len() as u64;
        if (events, aggregates) == (self.events, self.aggregates) {
            return Ok(());
        }
        Err(format!("opened again, the store holds {events} events of {aggregates} aggregates: expected {self:?}").into())
    }
}

/// A file in memory.
struct Text {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// Where a line stands.
type Place<'a> = (&'a Path, usize);

fn texts(folder: &Path) -> Result<Vec<Text>> {
    let listed = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths = listed.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| {
        let name = path.to_string_lossy();
        name.ends_with(".jsonl") || name.ends_with(".jsonl.gz")
    });
    paths.sort();
    let read = |path: PathBuf| -> Result<Text> {
        let mut bytes = fs::read(&path)?;
        if path.extension().is_some_and(|extension| extension == "gz") {
            let mut unpacked = Vec::new();
            MultiGzDecoder::new(&bytes[..]).read_to_end(&mut unpacked)?;
            bytes = unpacked;
        }
        Ok(Text { path, bytes })
    };
    paths.into_iter().map(read).collect()
}

fn lines(texts: &[Text]) -> impl Iterator<Item = (Place<'_>, &[u8])> {
    texts
        .iter()
        .flat_map(|text| {
            let lines = text.bytes.split(|byte| *byte == b'\n').enumerate();
            lines.map(|(number, line)| ((text.path.as_path(), number + 1), line))
        })
        .filter(|(_, line)| !line.trim_ascii().is_empty())
}

/// One write, ready for the store.
#[derive(Debug)]
struct Write {
    parts: Vec<Part>,
    checks: Vec<(String, Expect)>,
}

#[derive(Debug)]
struct Part {
    key: String,
    expect: Expect,
    events: Vec<Event>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongLine<'a> {
    #[serde(borrow, default)]
    writes: Vec<PartMembers<'a>>,
    #[serde(borrow, default)]
    checks: Vec<CheckMembers<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartMembers<'a> {
    #[serde(borrow)]
    aggregate: Cow<'a, str>,
    #[serde(default)]
    expected: Condition,
    #[serde(borrow)]
    events: Vec<EventMembers<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckMembers<'a> {
    #[serde(borrow)]
    aggregate: Cow<'a, str>,
    expected: Condition,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventMembers<'a> {
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShortLine<'a> {
    #[serde(borrow)]
    aggregate: Cow<'a, str>,
    #[serde(default)]
    expected: Condition,
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// A condition as it is written.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum Condition {
    Version(u64),
    Word(Word),
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Word {
    Any,
    Exists,
    Absent,
}

impl Default for Condition {
    fn default() -> Condition {
        Condition::Word(Word::Any)
    }
}

impl From<Condition> for Expect {
    fn from(written: Condition) -> Expect {
        match written {
            Condition::Version(version) => Expect::Version(version),
            Condition::Word(Word::Any) => Expect::Any,
            Condition::Word(Word::Exists) => Expect::Exists,
            Condition::Word(Word::Absent) => Expect::Absent,
        }
    }
}

fn parse(place: Place<'_>, line: &[u8]) -> Result<Write> {
    let long = match serde_json::from_slice::<LongLine<'_>>(line) {
        Ok(long) => Ok(long),
        Err(not_long) => short(line).map_err(|_| not_long),
    };
    let long = long.map_err(|error| {
        format!("{} line {}: no write that is understood here: {error}", place.0.display(), place.1)
    })?;
    let parts = long.writes.into_iter().map(|part| Part {
        key: part.aggregate.into_owned(),
        expect: part.expected.into(),
        events: part.events.into_iter().map(event).collect(),
    });
    let checks = long.checks.into_iter();
    Ok(Write {
        parts: parts.collect(),
        checks: checks.map(|check| (check.aggregate.into_owned(), check.expected.into())).collect(),
    })
}

/// The short form, as the long one.
fn short(line: &[u8]) -> std::result::Result<LongLine<'_>, serde_json::Error> {
    let ShortLine { aggregate, expected, event_type, time, data } = serde_json::from_slice(line)?;
    let events = vec![EventMembers { event_type, time, data }];
    Ok(LongLine { writes: vec![PartMembers { aggregate, expected, events }], checks: Vec::new() })
}

fn event(members: EventMembers<'_>) -> Event {
    let event = Event::new(&members.event_type, members.data.map_or("", RawValue::get).as_bytes());
    match members.time {
        Some(time) => event.metadata(time.as_bytes()),
        None => event,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const LONG: &str = r#"{"writes":[{"aggregate":"a","expected":0,"events":[{"type":"T","time":"t\u0031","data":{"x": 1}},{"type":"U"}]}],
        "checks":[{"aggregate":"c","expected":"absent"}]}"#;

    fn parsed(line: &str) -> Result<Write> {
        parse((Path::new("log"), 7), line.as_bytes())
    }

    #[test]
    fn both_forms_are_understood() {
        let long = parsed(LONG).unwrap();
        assert_eq!((long.parts[0].key.as_str(), long.parts[0].expect), ("a", Expect::Version(0)));
        let data: Vec<&[u8]> = long.parts[0].events.iter().map(Event::data).collect();
        assert_eq!(data, [&br#"{"x": 1}"#[..], b""]);
        assert_eq!(long.checks, [("c".to_owned(), Expect::Absent)]);
        let short = parsed(r#"{"aggregate":"a","type":"T","data":[1]}"#).unwrap();
        assert_eq!(
            (short.parts[0].expect, short.parts[0].events[0].data()),
            (Expect::Any, &b"[1]"[..])
        );
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_place() {
        for line in [
            "{}x",
            r#"{"aggregate":"a"}"#,
            r#"{"aggregate":"a","type":"T","id":7}"#,
            r#"{"writes":[{"aggregate":"a","expected":-1,"events":[]}]}"#,
        ] {
            assert!(parsed(line).unwrap_err().to_string().starts_with("log line 7"), "{line}");
        }
    }

    #[test]
    fn files_are_taken_in_the_order_of_their_names_packed_or_not() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"3\n\n4\n").unwrap();
        fs::write(dir.path().join("b.jsonl.gz"), packed.finish().unwrap()).unwrap();
        fs::write(dir.path().join("a.jsonl"), "1\n2").unwrap();
        fs::write(dir.path().join("c.txt"), "5").unwrap();
        let texts = texts(dir.path()).unwrap();
        let found: Vec<(usize, &[u8])> =
            lines(&texts).map(|((_, number), line)| (number, line)).collect();
        assert_eq!(found, [(1, &b"1"[..]), (2, b"2"), (1, b"3"), (3, b"4")]);
    }
}
