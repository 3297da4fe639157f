//! What came of many seeds.

use std::collections::BTreeMap;
use std::fmt;

use crate::run::Outcome;

/// See the module.
#[derive(Default, Debug)]
pub struct Report {
    /// How many seeds were run.
    pub seeds: u64,
    /// Operations of the disk.
    pub ios: u64,
    counts: BTreeMap<String, u64>,
    faults: BTreeMap<String, u64>,
    /// The seeds in which something was found.
    pub failures: Vec<Outcome>,
}

impl Report {
    /// Takes in what came of a seed.
    pub fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.ios += outcome.ios;
        for (what, count) in &outcome.counts {
            *self.counts.entry(what.clone()).or_default() += count;
        }
        for (what, count) in &outcome.faults {
            *self.faults.entry(what.clone()).or_default() += count;
        }
        if outcome.failure.is_some() {
            self.failures.push(outcome);
        }
    }

    /// How often something happened.
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).or_else(|| self.faults.get(what)).copied().unwrap_or(0)
    }

    /// Those of these faults that never happened.
    pub fn never<'a>(&self, kinds: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        kinds.into_iter().filter(|kind| self.count(kind) == 0).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>12}  seeds", self.seeds)?;
        writeln!(f, "{:>12}  operations of the disk", self.ios)?;
        writeln!(f, "\nwhat was done, answered and checked:")?;
        for (what, count) in &self.counts {
            writeln!(f, "{count:>12}  {what}")?;
        }
        writeln!(f, "\nwhat went wrong on the disk:")?;
        for (what, count) in &self.faults {
            writeln!(f, "{count:>12}  {what}")?;
        }
        Ok(())
    }
}
