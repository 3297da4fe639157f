//! What a key-value store keeps for aggregates, and how a transaction over it decides writes: two tables, shared by all peers
//! that are not event stores themselves.
//!
//! `versions` has the number of events of each aggregate; `events` has every event under its aggregate's key and version, in an order
//! in which an aggregate's events are neighbours.

use std::collections::HashMap;

use crate::store::{Append, Key, Outcome, Result};

/// A row's key in the table of events: the aggregate's key and the version that the event made, most significant byte first.
pub type EventKey = [u8; 24];

/// The key of the event that made `version` of an aggregate.
pub fn event_key(key: &Key, version: u64) -> EventKey {
    let mut row = [0; 24];
    row[..16].copy_from_slice(key);
    row[16..].copy_from_slice(&version.to_be_bytes());
    row
}

/// The keys of the last `events` events of an aggregate that is at `version`: the first and the last of them.
pub fn last_keys(key: &Key, version: u64, events: usize) -> (EventKey, EventKey) {
    let first = version.saturating_sub(events as u64) + 1;
    (event_key(key, first), event_key(key, version))
}

/// The version in a row of the table of versions; 0 if there is none.
pub fn version_in(row: Option<&[u8]>) -> Result<u64> {
    let Some(row) = row else { return Ok(0) };
    let bytes = row.try_into().map_err(|_| {
        format!(
            "a version of 8 bytes was expected and {} were found: the store is damaged",
            row.len()
        )
    })?;
    Ok(u64::from_be_bytes(bytes))
}

/// A transaction that holds the right to write.
pub trait Rows {
    /// An aggregate's version as it was when the transaction began; 0 if it is not there.
    fn version(&mut self, key: &Key) -> Result<u64>;

    /// Adds an event.
    fn put_event(&mut self, key: &Key, version: u64, payload: &[u8]) -> Result<()>;

    /// Sets an aggregate's version. Called once for each changed aggregate, after its events.
    fn put_version(&mut self, key: &Key, version: u64) -> Result<()>;
}

/// A store's one way to commit: a transaction that becomes durable whole or not at all.
pub trait Writer: Send + 'static {
    /// Begins a transaction, has `work` fill it, and makes it durable if `work` says that there is something in it: then, and not
    /// before, it returns. If not, or if `work` fails, nothing is kept.
    fn transact(&mut self, work: &mut dyn FnMut(&mut dyn Rows) -> Result<bool>) -> Result<()>;
}

/// Decides the writes of one transaction, each seeing those before it.
#[derive(Debug, Default)]
pub struct Decisions {
    /// What is known of aggregates: the version, and whether this transaction changed it.
    versions: HashMap<Key, (u64, bool)>,
}

impl Decisions {
    fn version(&mut self, rows: &mut dyn Rows, key: &Key) -> Result<u64> {
        if let Some(&(version, _)) = self.versions.get(key) {
            return Ok(version);
        }
        let version = rows.version(key)?;
        self.versions.insert(*key, (version, false));
        Ok(version)
    }

    /// Decides one write and, if its conditions hold, puts its events.
    pub fn decide<'a>(
        &mut self,
        rows: &mut dyn Rows,
        appends: impl Iterator<Item = Append<'a>> + Clone,
    ) -> Result<Outcome> {
        for append in appends.clone() {
            let version = self.version(rows, &append.key)?;
            if append.expected.is_some_and(|expected| expected != version) {
                return Ok(Outcome::Conflict(version));
            }
        }
        let mut first = None;
        for append in appends {
            let version = self.version(rows, &append.key)? + 1;
            rows.put_event(&append.key, version, append.payload)?;
            self.versions.insert(append.key, (version, true));
            first.get_or_insert(version);
        }
        Ok(Outcome::Committed(
            first.ok_or("a write of one or two events was expected and it has none")?,
        ))
    }

    /// Puts the versions of all that changed: whether there was anything. Forgets everything, for the next transaction.
    pub fn finish(&mut self, rows: &mut dyn Rows) -> Result<bool> {
        let mut changed = false;
        for (key, (version, written)) in self.versions.drain() {
            if written {
                rows.put_version(&key, version)?;
                changed = true;
            }
        }
        Ok(changed)
    }
}

/// A transaction for one write.
pub fn transact_one(writer: &mut dyn Writer, appends: &[Append<'_>]) -> Result<Outcome> {
    let mut outcome = None;
    writer.transact(&mut |rows| {
        let mut decisions = Decisions::default();
        outcome = Some(decisions.decide(rows, appends.iter().copied())?);
        decisions.finish(rows)
    })?;
    Ok(outcome.ok_or("a transaction was expected to do its work once and did not")?)
}

/// Fills a store with events, many to a transaction. How many there were.
pub fn load(
    writer: &mut dyn Writer,
    events: &mut dyn Iterator<Item = (Key, &[u8])>,
) -> Result<u64> {
    const EVENTS: usize = 10_000;
    let mut chunk = Vec::with_capacity(EVENTS);
    let mut count = 0;
    loop {
        chunk.clear();
        let next = events.take(EVENTS);
        chunk.extend(next.map(|(key, payload)| Append { key, expected: None, payload }));
        if chunk.is_empty() {
            return Ok(count);
        }
        writer.transact(&mut |rows| {
            let mut decisions = Decisions::default();
            for append in &chunk {
                decisions.decide(rows, std::iter::once(*append))?;
            }
            decisions.finish(rows)
        })?;
        count += chunk.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::key;

    #[derive(Default)]
    struct Memory {
        versions: HashMap<Key, u64>,
        events: Vec<(Key, u64, Vec<u8>)>,
    }

    impl Rows for Memory {
        fn version(&mut self, key: &Key) -> Result<u64> {
            Ok(self.versions.get(key).copied().unwrap_or(0))
        }
        fn put_event(&mut self, key: &Key, version: u64, payload: &[u8]) -> Result<()> {
            self.events.push((*key, version, payload.to_vec()));
            Ok(())
        }
        fn put_version(&mut self, key: &Key, version: u64) -> Result<()> {
            self.versions.insert(*key, version);
            Ok(())
        }
    }

    fn append(number: u64, expected: Option<u64>) -> Append<'static> {
        Append { key: key(number), expected, payload: b"event" }
    }

    #[test]
    fn a_write_sees_those_before_it_in_its_transaction() {
        let (mut rows, mut decisions) = (Memory::default(), Decisions::default());
        for (expected, outcome) in [
            (Some(0), Outcome::Committed(1)),
            (Some(0), Outcome::Conflict(1)),
            (Some(1), Outcome::Committed(2)),
            (None, Outcome::Committed(3)),
        ] {
            let decided = decisions.decide(&mut rows, [append(1, expected)].into_iter()).unwrap();
            assert_eq!(decided, outcome);
        }
        assert!(decisions.finish(&mut rows).unwrap());
        assert_eq!(rows.versions[&key(1)], 3);
        assert_eq!(rows.events.len(), 3);
    }

    #[test]
    fn a_second_condition_that_fails_puts_nothing() {
        let (mut rows, mut decisions) = (Memory::default(), Decisions::default());
        let both = [append(1, Some(0)), append(2, Some(7))];
        assert_eq!(decisions.decide(&mut rows, both.into_iter()).unwrap(), Outcome::Conflict(0));
        assert!(!decisions.finish(&mut rows).unwrap());
        assert!(rows.events.is_empty() && rows.versions.is_empty());
    }

    #[test]
    fn rows_of_an_aggregate_are_in_the_order_of_versions() {
        let (first, last) = last_keys(&key(9), 300, 45);
        assert_eq!((first, last), (event_key(&key(9), 256), event_key(&key(9), 300)));
        assert!(event_key(&key(9), 255) < first && first < last && last < event_key(&key(10), 1));
        assert_eq!(last_keys(&key(9), 3, 10).0, event_key(&key(9), 1));
    }
}
