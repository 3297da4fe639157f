//! One order of a window's steps, put together step by step.
//!
//! Every step says at which version it found each aggregate, so what must stand before what is known: a write before what
//! saw its version, that before the next write, and what was over before what began later. A step is taken when all that
//! must stand before it is taken. This decides nothing: the library is asked whether the order is right.

use std::collections::{HashMap, HashSet};

use super::{State, Step};
use crate::history::{Client, History, Nanos};
use crate::mark::WriteId;

/// What a step needs, and what it leaves.
#[derive(Default)]
struct Needs {
    /// It found these aggregates at these versions.
    at: Vec<(u16, u64)>,
    /// It brings them to the next version.
    appends: Vec<u16>,
    /// It is a write of a client.
    client: Option<Client>,
    /// It found that a client's newest write to these aggregates had its sequence.
    newest: Vec<(u64, u16, u64)>,
    /// It found that a client had used a higher sequence on one of these aggregates.
    overtaken: Vec<(u64, u16, u64)>,
}

/// The steps by their places, in an order that may be right. `None` if it does not go on somewhere.
pub(super) fn of(
    history: &History,
    begins: &State,
    timed: &[(Nanos, Nanos, Step)],
) -> Option<Vec<usize>> {
    let needs = needs_of(history, timed)?;
    let mut state = Taken::new(begins, &needs);
    let mut by_call: Vec<usize> = (0..timed.len()).collect();
    by_call.sort_by_key(|at| timed[*at].0);
    let mut by_end = by_call.clone();
    by_end.sort_by_key(|at| timed[*at].1);
    let mut done = vec![false; timed.len()];
    let mut order = Vec::with_capacity(timed.len());
    let (mut first, mut ends) = (0, 0);
    while order.len() < timed.len() {
        while done[by_call[first]] {
            first += 1;
        }
        while done[by_end[ends]] {
            ends += 1;
        }
        // What was called after this moment stands behind what was over then and is not taken yet.
        let until = timed[by_end[ends]].1;
        let open = by_call[first..].iter().take_while(|at| timed[**at].0 <= until);
        let next = *open.into_iter().find(|at| !done[**at] && state.is_ready(&needs[**at]))?;
        state.take(&needs[next]);
        done[next] = true;
        order.push(next);
    }
    Some(order)
}

fn needs_of(history: &History, timed: &[(Nanos, Nanos, Step)]) -> Option<Vec<Needs>> {
    let told = timed.iter().filter_map(|(_, _, step)| match step {
        Step::Wrote { write, .. } => Some(*write),
        _ => None,
    });
    let mut wrote: HashSet<WriteId> = told.collect();
    timed
        .iter()
        .map(|(called, _, step)| {
            let mut needs = Needs::default();
            match step {
                Step::Begins(_) | Step::Ends(_) => return None,
                Step::Wrote { parts, client, versions, .. } => {
                    for (subject, version) in versions {
                        let part = parts.iter().find(|part| part.subject == *subject)?;
                        let appends = part.events > 0;
                        needs.at.push((*subject, version.checked_sub(appends.into())?));
                        needs.appends.extend(appends.then_some(*subject));
                    }
                    needs.client = *client;
                }
                Step::Took { write, parts, client } => {
                    let record =
                        history.log.iter().find(|record| record.write() == Some(*write))?;
                    let earlier = history
                        .calls
                        .iter()
                        .any(|call| call.called < *called && super::wrote(call) == Some(*write));
                    if earlier || !wrote.insert(*write) {
                        let client = (*client)?;
                        let appends = parts.iter().filter(|part| part.events > 0);
                        let newest = |subject| (client.id, subject, client.sequence);
                        needs.newest = appends.map(|part| newest(part.subject)).collect();
                    } else {
                        for part in &record.parts {
                            let before = part.version.checked_sub(part.appends.into())?;
                            needs.at.push((part.subject?, before));
                            needs.appends.extend(part.appends.then_some(part.subject?));
                        }
                        needs.client = *client;
                    }
                }
                Step::Replayed { parts, client, .. } => {
                    let appends = parts.iter().filter(|part| part.events > 0);
                    let newest = |subject| (client.id, subject, client.sequence);
                    needs.newest = appends.map(|part| newest(part.subject)).collect();
                }
                Step::Refused { subject, actual, .. } => needs.at.push((*subject, *actual)),
                Step::Saw { subject, version, .. } => needs.at.push((*subject, *version)),
                Step::Overtaken { parts, client } => {
                    let appends = parts.iter().filter(|part| part.events > 0);
                    let above = |subject| (client.id, subject, client.sequence);
                    needs.overtaken = appends.map(|part| above(part.subject)).collect();
                }
            }
            Some(needs)
        })
        .collect()
}

/// What the steps that were taken have left, and what those that were not still need.
struct Taken {
    versions: HashMap<u16, u64>,
    sequences: HashMap<(u64, u16), u64>,
    /// Steps that are to see an aggregate at a version.
    seeing: HashMap<(u16, u64), usize>,
    /// Steps that are to see a sequence of a client.
    replaying: HashMap<(u64, u16, u64), usize>,
}

impl Taken {
    fn new(begins: &State, needs: &[Needs]) -> Taken {
        let versions = begins.subjects.iter().map(|(subject, (version, _))| (*subject, *version));
        let sequences = begins.clients.iter().map(|(client, (sequence, _))| (*client, *sequence));
        let mut taken = Taken {
            versions: versions.collect(),
            sequences: sequences.collect(),
            seeing: HashMap::new(),
            replaying: HashMap::new(),
        };
        for needs in needs {
            for at in &needs.at {
                *taken.seeing.entry(*at).or_default() += 1;
            }
            for newest in &needs.newest {
                *taken.replaying.entry(*newest).or_default() += 1;
            }
        }
        taken
    }

    fn version(&self, subject: u16) -> u64 {
        self.versions.get(&subject).copied().unwrap_or(0)
    }

    fn sequence(&self, client: u64, subject: u16) -> u64 {
        self.sequences.get(&(client, subject)).copied().unwrap_or(0)
    }

    fn is_ready(&self, needs: &Needs) -> bool {
        let here = needs.at.iter().all(|(subject, version)| self.version(*subject) == *version);
        let newest = needs
            .newest
            .iter()
            .all(|(client, subject, sequence)| self.sequence(*client, *subject) == *sequence);
        let overtaken = needs.overtaken.is_empty()
            || needs
                .overtaken
                .iter()
                .any(|(client, subject, sequence)| self.sequence(*client, *subject) > *sequence);
        // Nobody else is to see what it changes: the one is the step itself.
        let alone = needs.appends.iter().all(|subject| {
            self.seeing.get(&(*subject, self.version(*subject))) == Some(&1)
                && needs.client.is_none_or(|client| {
                    let now = (client.id, *subject, self.sequence(client.id, *subject));
                    self.replaying.get(&now).is_none_or(|count| *count == 0)
                })
        });
        here && newest && overtaken && alone
    }

    fn take(&mut self, needs: &Needs) {
        for at in &needs.at {
            if let Some(count) = self.seeing.get_mut(at) {
                *count -= 1;
            }
        }
        for newest in &needs.newest {
            if let Some(count) = self.replaying.get_mut(newest) {
                *count -= 1;
            }
        }
        for subject in &needs.appends {
            *self.versions.entry(*subject).or_default() += 1;
            if let Some(client) = needs.client {
                self.sequences.insert((client.id, *subject), client.sequence);
            }
        }
    }
}
