//! After each round: the store is closed, opened again, and what it holds is counted. A figure for what was not kept is none.

use std::collections::HashMap;

use crate::{
    store::{Key, Result, Session, Store},
    workload::Round,
};

/// How many aggregates have their version compared one by one. All events are counted in any case.
const VERSIONS_COMPARED: usize = 1_000;

/// What was acknowledged: how many events, and of which aggregates.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged {
    versions: HashMap<Key, u64>,
    events: u64,
}

impl Acknowledged {
    /// An aggregate is at a version, and so has as many events.
    ///
    /// # Panics
    ///
    /// If it was given twice.
    pub fn add(&mut self, key: Key, version: u64) {
        self.events += version;
        if version > 0 && self.versions.len() < VERSIONS_COMPARED {
            assert!(self.versions.insert(key, version).is_none(), "an aggregate was counted twice");
        }
    }

    /// How many events there are in all.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Closes the store, opens it again and compares.
    pub fn check_reopened<S: Store>(&self, store: S, round: &Round<'_>) -> Result<()> {
        store.close().map_err(|error| format!("closing the store failed: {error}"))?;
        let store = S::open(round.dir, &round.setup)
            .map_err(|error| format!("opening the store again failed: {error}"))?;
        let mut session = store.session()?;
        let compared = self.compare(&mut session);
        drop(session);
        store.close()?;
        compared
    }

    fn compare(&self, session: &mut impl Session) -> Result<()> {
        for (key, expected) in &self.versions {
            let found = session.version(*key)?;
            if found != *expected {
                let key = String::from_utf8_lossy(key);
                return Err(format!(
                    "opened again, {key} is at version {found}: {expected} was acknowledged, the store does not keep its promise"
                )
                .into());
            }
        }
        let found = session.read_all(&mut |_| ())?;
        if found != self.events {
            return Err(format!(
                "opened again, the store holds {found} events: {} were acknowledged, the store does not keep its promise",
                self.events
            )
            .into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::{Append, Setup, key},
        stores::{contract, file::LoneFile},
        workload::Case,
    };

    /// Checks a store with three events of two aggregates against what is said to have been acknowledged.
    fn check(versions: &[(u64, u64)]) -> Result<()> {
        let dir = contract::folder();
        let case = Case::new("solo", "a case", []);
        let round = Round::short(&case, dir.path());
        let store = LoneFile::open(dir.path(), &Setup::default())?;
        let mut session = store.session()?;
        for number in [1, 1, 2] {
            session.append(&[Append { key: key(number), expected: None, payload: b"event" }])?;
        }
        drop(session);
        let mut acknowledged = Acknowledged::default();
        for (number, version) in versions {
            acknowledged.add(key(*number), *version);
        }
        acknowledged.check_reopened(store, &round)
    }

    #[test]
    fn what_was_acknowledged_is_there() {
        check(&[(1, 2), (2, 1), (3, 0)]).expect("that is what it holds");
    }

    #[test]
    fn what_is_missing_or_too_much_is_found_out() {
        let said =
            |versions: &[_]| check(versions).expect_err("it holds something else").to_string();
        assert!(said(&[(1, 3), (2, 1)]).contains("is at version 2: 3 was acknowledged"));
        assert!(said(&[(1, 1), (2, 2)]).contains("acknowledged"));
        assert!(said(&[(1, 2)]).contains("holds 3 events: 2 were acknowledged"));
    }
}
