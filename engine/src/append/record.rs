//! From what a caller hands in to the record of a request, or to an error that says what is wrong with it.

use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::expect::Expect;
use crate::format::{EncodeError, Role};
use crate::id::Position;
use crate::key::Shown;
use crate::limits;
use crate::reserve::slot::client_version;
use crate::writer::request::{Kind, Request};

/// Encodes one part; `None` for one that only checks.
pub(super) fn add_part(
    request: &mut Request,
    key: &[u8],
    expect: Expect,
    events: Option<&mut dyn Iterator<Item = Event>>,
) -> Result<(), Error> {
    let Some(events) = events else {
        let record = &mut request.payload.record;
        return record.begin_part(Role::Check, expect, key).map_err(|e| refused(e, key));
    };
    match events.next() {
        Some(first) => add_events(request, key, expect, first, events),
        None => Err(no_events(key)),
    }
}

/// Encodes a part that appends.
pub(super) fn add_events(
    request: &mut Request,
    key: &[u8],
    expect: Expect,
    first: Event,
    more: &mut dyn Iterator<Item = Event>,
) -> Result<(), Error> {
    let record = &mut request.payload.record;
    record.begin_part(Role::Append, expect, key).map_err(|e| refused(e, key))?;
    let mut push = |event: &Event| {
        check_event(event)?;
        record.push_event(event).map_err(|e| refused(e, key))
    };
    push(&first)?;
    for event in more {
        push(&event)?;
    }
    Ok(())
}

/// Encodes a part that moves a checkpoint.
pub(super) fn add_checkpoint(
    request: &mut Request,
    name: &[u8],
    from: Expect,
) -> Result<(), Error> {
    let record = &mut request.payload.record;
    record.begin_part(Role::Checkpoint, from, name).map_err(|e| refused(e, name))
}

/// A checkpoint stands elsewhere than the write expects.
pub(super) fn moved(name: &[u8], expect: Expect, found: u64, settled: bool) -> Error {
    let at = |raw| match Position::from_raw(raw) {
        Position::START => "none".to_owned(),
        position => format!("it at {position}"),
    };
    let expected = if let Expect::Version(from) = expect { from } else { 0 };
    let pending = if settled { "" } else { ", not yet durable" };
    Error::new(
        ErrorKind::Conflict,
        format!(
            "checkpoint {}: expected {}, found {}{pending}; another instance has moved it: read it again, and the log from there",
            Shown(name),
            at(expected),
            at(found),
        ),
    )
}

pub(super) fn no_events(key: &[u8]) -> Error {
    Error::invalid("an append has no events: expected one at least").with_keys([key])
}

fn check_event(event: &Event) -> Result<(), Error> {
    let type_bytes = event.type_bytes().len();
    if type_bytes == 0 {
        return Err(Error::invalid("an event type is empty: expected 1 to 255 bytes"));
    }
    if type_bytes > limits::EVENT_TYPE_BYTES_MAX {
        return Err(Error::too_large(
            "the event type",
            type_bytes,
            limits::EVENT_TYPE_BYTES_MAX,
            "bytes",
        ));
    }
    Ok(())
}

pub(super) fn refused(error: EncodeError, key: &[u8]) -> Error {
    match error {
        EncodeError::OutOfMemory => Error::out_of_memory("a write"),
        EncodeError::Limit(what) => Error::new(
            ErrorKind::TooLarge,
            format!(
                "the {what} is over its limit: expected at most {} events, {} aggregates and {} bytes a write",
                limits::EVENTS_PER_WRITE_MAX,
                limits::AGGREGATES_PER_WRITE_MAX,
                limits::WRITE_BYTES_MAX
            ),
        )
        .with_keys([key]),
        EncodeError::Incomplete(what) => Error::invalid(what).with_keys([key]),
    }
}

pub(super) fn no_such_sequence() -> Error {
    Error::invalid("the client's sequence is u64::MAX: expected less")
}

/// Completes the record of a write, and checks its size.
pub(super) fn finish(
    request: &mut Request,
    client: Option<(u128, u64)>,
    bytes_max: usize,
) -> Result<(), Error> {
    if let Some((_, sequence)) = client
        && client_version(sequence).is_none()
    {
        return Err(no_such_sequence());
    }
    let payload = &mut request.payload;
    if payload.plan.parts.iter().all(|part| part.checks()) {
        payload.kind = Kind::Watch;
        return Ok(());
    }
    let first = payload.plan.keys().next().unwrap_or_default();
    payload.record.finish(client).map_err(|e| refused(e, first))?;
    let bytes = payload.record.record_bytes();
    if bytes > bytes_max {
        return Err(Error::too_large("the write as it is stored", bytes, bytes_max, "bytes"));
    }
    Ok(())
}
