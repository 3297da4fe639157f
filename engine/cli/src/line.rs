//! One line of an import or an export: one write as one JSON object.
//!
//! ```text
//! {"writes":[{"aggregate":"order-1","expected":0,"events":[{"type":"Placed","time":"…","data":{…}}]}],
//!  "checks":[{"aggregate":"customer-9","expected":"exists"}]}
//! ```
//!
//! The short form is one event, `{"aggregate":"order-1","type":"Placed","data":{…}}`. Members that the format does
//! not know are refused: they would be lost.

use annals::{Event, Expect};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::envelope::{self, Contents};
use crate::{recorded, time, value};

/// What is wrong with a line, and where in it.
pub(crate) type Fault = String;

/// One write, ready for the store.
#[derive(Debug)]
pub(crate) struct Write {
    /// What it appends.
    pub(crate) parts: Vec<Part>,
    /// What it only checks.
    pub(crate) checks: Vec<(Vec<u8>, Expect)>,
}

/// What a write appends to one aggregate.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) key: Vec<u8>,
    pub(crate) expect: Expect,
    pub(crate) events: Vec<Event>,
}

/// Every member is kept as text, so that a value comes out as it went in and a fault can be named with its place.
/// `null` is a value here, not a member left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    writes: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    checks: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    aggregate: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    expected: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present", rename = "type")]
    event_type: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    time: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    metadata: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartMembers<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    aggregate: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    expected: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    events: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckMembers<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    aggregate: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    expected: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventMembers<'a> {
    #[serde(borrow, default, deserialize_with = "present", rename = "type")]
    event_type: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    time: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    metadata: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl Write {
    /// The write that a line means.
    pub(crate) fn parse(line: &[u8]) -> Result<Write, Fault> {
        let text = str::from_utf8(line)
            .map_err(|error| format!("not UTF-8 from byte {} on", error.valid_up_to() + 1))?;
        let whole: &RawValue = serde_json::from_str(text)
            .map_err(|error| format!("not JSON: {}", error.to_string().replace(" line 1", "")))?;
        let line: Line<'_> = object(whole, "the line")?;
        if line.writes.is_none() && line.checks.is_none() {
            return short(&line);
        }
        let of_the_short_form = [
            ("aggregate", line.aggregate),
            ("expected", line.expected),
            ("type", line.event_type),
            ("time", line.time),
            ("data", line.data),
            ("id", line.id),
            ("metadata", line.metadata),
        ];
        if let Some((name, _)) = of_the_short_form.iter().find(|(_, member)| member.is_some()) {
            return Err(format!(
                "`{name}` stands beside `writes` or `checks`: expected it within them"
            ));
        }
        let parts = items(line.writes, "writes")?
            .map(|(json, place)| part(json, &place))
            .collect::<Result<_, _>>()?;
        let checks = items(line.checks, "checks")?
            .map(|(json, place)| check(json, &place))
            .collect::<Result<_, _>>()?;
        Ok(Write { parts, checks })
    }
}

fn short(line: &Line<'_>) -> Result<Write, Fault> {
    if line.aggregate.is_none() {
        return Err("expected `writes`, `checks` or `aggregate`, found none of them".to_owned());
    }
    let event = EventMembers {
        event_type: line.event_type,
        time: line.time,
        data: line.data,
        id: line.id,
        metadata: line.metadata,
    };
    let part = Part {
        key: key(line.aggregate, "")?,
        expect: expect(line.expected, "")?,
        events: vec![event_of(&event, "")?],
    };
    Ok(Write { parts: vec![part], checks: Vec::new() })
}

fn part(json: &RawValue, place: &str) -> Result<Part, Fault> {
    let members: PartMembers<'_> = object(json, place)?;
    let place = format!("{place}.");
    let events_place = format!("{place}events");
    if members.events.is_none() {
        return Err(format!("{events_place} is missing"));
    }
    let events = items(members.events, &events_place)?
        .map(|(json, place)| event_of(&object(json, &place)?, &format!("{place}.")))
        .collect::<Result<_, _>>()?;
    Ok(Part {
        key: key(members.aggregate, &place)?,
        expect: expect(members.expected, &place)?,
        events,
    })
}

fn check(json: &RawValue, place: &str) -> Result<(Vec<u8>, Expect), Fault> {
    let members: CheckMembers<'_> = object(json, place)?;
    let place = format!("{place}.");
    if members.expected.is_none() {
        return Err(format!("{place}expected is missing"));
    }
    Ok((key(members.aggregate, &place)?, expect(members.expected, &place)?))
}

fn event_of(members: &EventMembers<'_>, place: &str) -> Result<Event, Fault> {
    let event_type = members.event_type.ok_or_else(|| format!("{place}type is missing"))?;
    let event_type = text(event_type, place, "type")?;
    let data = members.data.map(value::bytes_of).unwrap_or_default();
    let mut event = Event::new(event_type, data);
    let mut kept_time = None;
    if let Some(json) = members.time {
        let given = text(json, place, "time")?;
        let micros = time::micros_of(&given);
        if let Some(micros) = micros {
            event = event.time(micros);
        }
        if micros.map(time::text_of).as_ref() != Some(&given) {
            kept_time = Some(given);
        }
    }
    let mut kept_id = None;
    if let Some(json) = members.id {
        let id = id(json, place)?;
        event = event.id(id);
        if json.get() != recorded::id_json(id) {
            kept_id = Some(json.get());
        }
    }
    let metadata = members.metadata.map(value::bytes_of).unwrap_or_default();
    let contents = Contents { time: kept_time.as_deref(), id: kept_id, metadata: &metadata };
    Ok(event.metadata(envelope::seal(contents)))
}

/// An array would do for a derived struct: it has to be an object.
fn object<'a, T: Deserialize<'a>>(json: &'a RawValue, place: &str) -> Result<T, Fault> {
    if !json.get().starts_with('{') {
        return Err(format!("{place}: expected an object, found {}", value::excerpt(json.get())));
    }
    serde_json::from_str(json.get()).map_err(|error| {
        let error = error.to_string();
        let what = error.rsplit_once(" at line ").map_or(error.as_str(), |(what, _)| what);
        format!("{place}: {what}")
    })
}

/// The items of an array, each with its place; none if the member was left out.
fn items<'a>(
    json: Option<&'a RawValue>,
    place: &str,
) -> Result<impl Iterator<Item = (&'a RawValue, String)>, Fault> {
    let items: Vec<&RawValue> = match json {
        None => Vec::new(),
        Some(json) => serde_json::from_str(json.get()).map_err(|_| {
            format!("{place}: expected an array, found {}", value::excerpt(json.get()))
        })?,
    };
    let numbered = items.into_iter().enumerate();
    Ok(numbered.map(move |(index, json)| (json, format!("{place}[{index}]"))))
}

fn key(json: Option<&RawValue>, place: &str) -> Result<Vec<u8>, Fault> {
    let json = json.ok_or_else(|| format!("{place}aggregate is missing"))?;
    value::key_of(json).map_err(|fault| format!("{place}aggregate: {fault}"))
}

fn text(json: &RawValue, place: &str, name: &str) -> Result<String, Fault> {
    serde_json::from_str(json.get()).map_err(|_| {
        format!("{place}{name}: expected a text, found {}", value::excerpt(json.get()))
    })
}

fn expect(json: Option<&RawValue>, place: &str) -> Result<Expect, Fault> {
    let Some(json) = json else { return Ok(Expect::Any) };
    if let Ok(version) = json.get().parse() {
        return Ok(Expect::Version(version));
    }
    match serde_json::from_str(json.get()) {
        Ok("any") => Ok(Expect::Any),
        Ok("exists") => Ok(Expect::Exists),
        Ok("absent") => Ok(Expect::Absent),
        _ => Err(format!(
            "{place}expected: expected a version, \"any\", \"exists\" or \"absent\", found {}",
            value::excerpt(json.get())
        )),
    }
}

fn id(json: &RawValue, place: &str) -> Result<u128, Fault> {
    if let Ok(number) = json.get().parse() {
        return Ok(number);
    }
    let text: Option<String> = serde_json::from_str(json.get()).ok();
    text.and_then(|text| Uuid::try_parse(&text).ok()).map(|uuid| uuid.as_u128()).ok_or_else(|| {
        format!(
            "{place}id: expected a UUID or a whole number below 2^128, found {}",
            value::excerpt(json.get())
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Write, Fault> {
        Write::parse(line.as_bytes())
    }

    #[test]
    fn the_long_form() {
        let write = parse(
            r#" {"writes":[
                {"aggregate":"a","expected":0,"events":[{"type":"T","data":{"x": 1}},{"type":"U"}]},
                {"aggregate":{"base64":"/w=="},"expected":"exists","events":[{"type":"V","data":{"base64":"AA=="}}]}],
                "checks":[{"aggregate":"c","expected":"absent"},{"aggregate":"d","expected":7}]} "#,
        )
        .unwrap();
        let [a, b] = &write.parts[..] else { panic!("{write:?}") };
        assert_eq!((a.key.as_slice(), a.expect), (&b"a"[..], Expect::Version(0)));
        assert_eq!((b.key.as_slice(), b.expect), (&b"\xff"[..], Expect::Exists));
        let seen: Vec<_> =
            a.events.iter().map(|event| (event.event_type(), event.data())).collect();
        assert_eq!(seen, [("T", &br#"{"x": 1}"#[..]), ("U", b"")]);
        assert_eq!(b.events[0].data(), b"\0");
        let checks = [(b"c".to_vec(), Expect::Absent), (b"d".to_vec(), Expect::Version(7))];
        assert_eq!(write.checks, checks);
    }

    #[test]
    fn the_short_form() {
        let write = parse(r#"{"aggregate":"a","type":"T","data":null}"#).unwrap();
        let [part] = &write.parts[..] else { panic!("{write:?}") };
        assert_eq!((part.key.as_slice(), part.expect), (&b"a"[..], Expect::Any));
        assert_eq!((part.events[0].event_type(), part.events[0].data()), ("T", &b"null"[..]));
        assert!(write.checks.is_empty());
    }

    #[test]
    fn checks_alone_are_a_write() {
        let write = parse(r#"{"checks":[{"aggregate":"a","expected":"exists"}]}"#).unwrap();
        assert_eq!((write.parts.len(), write.checks.len()), (0, 1));
    }

    #[test]
    fn ids_times_and_metadata_are_taken() {
        let event = |members: &str| {
            let write = parse(&format!(r#"{{"aggregate":"a","type":"T",{members}}}"#)).unwrap();
            write.parts[0].events[0].clone()
        };
        let bare = Event::new("T", "");
        let enveloped = |time, id, metadata| envelope::seal(Contents { time, id, metadata });
        assert_eq!(event(r#""time":"1970-01-01T00:00:01Z""#), bare.clone().time(1_000_000));
        assert_eq!(
            event(r#""time":"1970-01-01 00:00:01+00:00","metadata":[1, 2]"#),
            bare.clone().time(1_000_000).metadata(enveloped(
                Some("1970-01-01 00:00:01+00:00"),
                None,
                b"[1, 2]"
            ))
        );
        assert_eq!(
            event(r#""time":"soon""#),
            bare.clone().metadata(enveloped(Some("soon"), None, b""))
        );
        assert_eq!(event(r#""id":"00000000-0000-0000-0000-0000000000ff""#), bare.clone().id(255));
        assert_eq!(
            event(r#""id":340282366920938463463374607431768211455"#),
            bare.id(u128::MAX).metadata(enveloped(
                None,
                Some("340282366920938463463374607431768211455"),
                b""
            ))
        );
    }

    #[test]
    fn every_fault_is_named_with_its_place() {
        let deep = format!("{{\"aggregate\":{}", "[".repeat(200_000));
        for (line, fault) in [
            ("{", "not JSON: EOF while parsing"),
            (r#"{"aggregate":"a","type":"T"} x"#, "not JSON: trailing characters at column 30"),
            (r#"{"aggregate":"a" "type":"T"}"#, "not JSON: expected `,` or `}` at column 18"),
            (r#"{"aggregate":"a","type":"T","data":{"x":}}"#, "not JSON: expected value"),
            (r#"{"aggregate":"a","type":"T","data":nul}"#, "not JSON: expected ident"),
            (r#"{'aggregate':'a'}"#, "not JSON: key must be a string"),
            (deep.as_str(), "not JSON: EOF"),
            ("5", "the line: expected an object, found 5"),
            (r#"[["a"]]"#, "the line: expected an object, found ["),
            ("{}", "expected `writes`, `checks` or `aggregate`, found none"),
            (r#"{"type":"T"}"#, "expected `writes`, `checks` or `aggregate`, found none"),
            (r#"{"aggregate":"a"}"#, "type is missing"),
            (r#"{"aggregate":"a","type":5}"#, "type: expected a text, found 5"),
            (r#"{"aggregate":5,"type":"T"}"#, "aggregate: expected a text"),
            (r#"{"aggregate":{"base64":"%"},"type":"T"}"#, "aggregate: expected a text"),
            (r#"{"aggregate":"a","type":"T","type":"T"}"#, "the line: duplicate field `type`"),
            (r#"{"aggregate":"a","type":"T","extra":1}"#, "the line: unknown field `extra`"),
            (r#"{"aggregate":"a","type":"T","time":5}"#, "time: expected a text, found 5"),
            (r#"{"aggregate":"a","type":"T","time":null}"#, "time: expected a text, found null"),
            (r#"{"aggregate":"a","type":"T","id":-1}"#, "id: expected a UUID"),
            (r#"{"aggregate":"a","type":"T","id":"x"}"#, "id: expected a UUID"),
            (r#"{"aggregate":"a","type":"T","expected":-1}"#, "expected: expected a version"),
            (r#"{"aggregate":"a","type":"T","expected":1.5}"#, "expected: expected a version"),
            (r#"{"aggregate":"a","type":"T","expected":"some"}"#, "expected: expected a version"),
            (r#"{"aggregate":"a","type":"T","expected":null}"#, "expected: expected a version"),
            (r#"{"writes":[],"type":"T"}"#, "`type` stands beside `writes`"),
            (r#"{"writes":{}}"#, "writes: expected an array, found {}"),
            (r#"{"writes":null}"#, "writes: expected an array, found null"),
            (r#"{"writes":[5]}"#, "writes[0]: expected an object, found 5"),
            (r#"{"writes":[{"aggregate":"a"}]}"#, "writes[0].events is missing"),
            (r#"{"writes":[{"events":[]}]}"#, "writes[0].aggregate is missing"),
            (r#"{"writes":[{"aggregate":"a","events":5}]}"#, "writes[0].events: expected an array"),
            (
                r#"{"writes":[{"aggregate":"a","events":[{"type":"T"},{"data":1}]}]}"#,
                "writes[0].events[1].type is missing",
            ),
            (
                r#"{"writes":[{"aggregate":"a","events":[["T"]]}]}"#,
                "writes[0].events[0]: expected an object",
            ),
            (r#"{"checks":[{"aggregate":"a"}]}"#, "checks[0].expected is missing"),
            (r#"{"checks":[{"aggregate":"a","expected":[]}]}"#, "checks[0].expected: expected a"),
            (
                r#"{"checks":[{"aggregate":"a","expected":1,"events":[]}]}"#,
                "checks[0]: unknown field",
            ),
        ] {
            let found = parse(line).unwrap_err();
            assert!(found.starts_with(fault), "{}: {found}", value::excerpt(line));
            assert!(found.len() < 250, "{found}");
        }
        let fault = Write::parse(b"{\"aggregate\":\"\xff\"}").unwrap_err();
        assert_eq!(fault, "not UTF-8 from byte 15 on");
    }
}
