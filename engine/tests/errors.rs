//! `docs/ERRORS.md` lists every kind with its number, once, and nothing else.

use std::collections::BTreeMap;

use annals::ErrorKind;

const KINDS: [ErrorKind; 18] = [
    ErrorKind::Conflict,
    ErrorKind::Contended,
    ErrorKind::NotFound,
    ErrorKind::Duplicate,
    ErrorKind::CrossShard,
    ErrorKind::Invalid,
    ErrorKind::TooLarge,
    ErrorKind::Busy,
    ErrorKind::Full,
    ErrorKind::Locked,
    ErrorKind::Corrupt,
    ErrorKind::Unsupported,
    ErrorKind::Io,
    ErrorKind::Stopped,
    ErrorKind::NotWritten,
    ErrorKind::OutcomeUnknown,
    ErrorKind::Closed,
    ErrorKind::Forked,
];

/// The kinds that the source declares, so that one that is added there is missed here.
fn declared() -> Vec<String> {
    let source = include_str!("../src/error.rs");
    let body = source.split("pub enum ErrorKind {").nth(1).expect("the enum stands there");
    let body = body.split("\n}").next().expect("and ends");
    body.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("///"))
        .map(|line| line.trim_end_matches(',').to_owned())
        .collect()
}

fn listed() -> BTreeMap<u32, String> {
    let mut rows = BTreeMap::new();
    for line in include_str!("../../docs/ERRORS.md").lines() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (Some(code), Some(kind)) = (cells.next(), cells.next()) else { continue };
        let Ok(code) = code.parse() else { continue };
        let full = cells.filter(|cell| !cell.is_empty()).count();
        assert_eq!(full, 3, "{kind}: whether it was written, the store, what to do");
        let before = rows.insert(code, kind.trim_matches('`').to_owned());
        assert_eq!(before, None, "{code} is listed twice");
    }
    rows
}

#[test]
fn every_kind_is_listed_with_its_number_and_name() {
    let kinds: BTreeMap<u32, String> =
        KINDS.iter().map(|kind| (kind.code(), format!("{kind:?}"))).collect();
    assert_eq!(kinds.len(), KINDS.len(), "two kinds share a number");
    assert_eq!(listed(), kinds);
}

#[test]
fn no_kind_is_missing_here() {
    let mut declared = declared();
    let mut known: Vec<String> = KINDS.iter().map(|kind| format!("{kind:?}")).collect();
    declared.sort();
    known.sort();
    assert_eq!(declared, known);
}

#[test]
fn numbers_that_callers_were_promised() {
    for (kind, code) in [
        (ErrorKind::Conflict, 2003),
        (ErrorKind::Duplicate, 2002),
        (ErrorKind::Contended, 2004),
        (ErrorKind::NotFound, 2005),
        (ErrorKind::CrossShard, 9001),
    ] {
        assert_eq!(kind.code(), code, "{kind:?}");
    }
}
