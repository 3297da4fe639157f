//! What is recorded, as JSON: the members of an event, the line of a write.

use annals::{Expect, Recorded, RecordedWrite, Role};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{envelope, time, value};

/// The canonical JSON of an event's id.
pub(crate) fn id_json(id: u128) -> String {
    format!("\"{}\"", Uuid::from_u128(id).hyphenated())
}

/// The text of an event's time, as it was given.
pub(crate) fn time_text(event: &Recorded) -> Option<String> {
    let kept = envelope::open(event.metadata()).time.map(str::to_owned);
    kept.or_else(|| event.time().map(time::text_of))
}

/// Writes the members of an event, without the braces.
pub(crate) fn push_event(out: &mut Vec<u8>, event: &Recorded) {
    let kept = envelope::open(event.metadata());
    out.extend_from_slice(b"\"type\":");
    value::push_text(out, event.event_type());
    if let Some(time) = time_text(event) {
        out.extend_from_slice(b",\"time\":");
        value::push_text(out, &time);
    }
    if !event.data().is_empty() {
        out.extend_from_slice(b",\"data\":");
        value::push(out, event.data());
    }
    // The text is only as good as whoever wrote the envelope.
    let kept_id = kept.id.filter(|json| serde_json::from_str::<&RawValue>(json).is_ok());
    if let Some(id) = kept_id.map(str::to_owned).or_else(|| event.id().map(id_json)) {
        out.extend_from_slice(b",\"id\":");
        out.extend_from_slice(id.as_bytes());
    }
    if !kept.metadata.is_empty() {
        out.extend_from_slice(b",\"metadata\":");
        value::push(out, kept.metadata);
    }
}

/// Writes a write as the line that an import takes, its end included. Checkpoints are left out: their positions mean
/// nothing in another store.
pub(crate) fn push_write(out: &mut Vec<u8>, write: &RecordedWrite) {
    out.extend_from_slice(b"{\"writes\":[");
    for (index, part) in write.parts().filter(|part| part.role() == Role::Append).enumerate() {
        out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
        push_condition(out, part.key(), part.expected());
        out.extend_from_slice(b",\"events\":[");
        for (index, event) in part.events().enumerate() {
            out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
            push_event(out, &event);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
    for (index, part) in write.parts().filter(|part| part.is_check()).enumerate() {
        out.extend_from_slice(if index == 0 { b",\"checks\":[{" } else { b",{" });
        push_condition(out, part.key(), part.expected());
        out.push(b'}');
    }
    if write.parts().any(|part| part.is_check()) {
        out.push(b']');
    }
    out.extend_from_slice(b"}\n");
}

fn push_condition(out: &mut Vec<u8>, key: &[u8], expect: Expect) {
    out.extend_from_slice(b"\"aggregate\":");
    value::push_key(out, key);
    out.extend_from_slice(b",\"expected\":");
    match expect {
        Expect::Any => out.extend_from_slice(b"\"any\""),
        Expect::Exists => out.extend_from_slice(b"\"exists\""),
        Expect::Absent => out.extend_from_slice(b"\"absent\""),
        Expect::Version(version) => out.extend_from_slice(version.to_string().as_bytes()),
    }
}
