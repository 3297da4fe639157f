//! What is known of every write: told by the writer through a pipe, and read from the log of a store that was recovered.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::plan::WriteId;

/// A write that stands in a log, or was acknowledged to stand there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stands {
    /// Which write.
    pub id: WriteId,
    /// The shard.
    pub shard: u16,
    /// Where in the shard's log.
    pub position: u64,
    /// The version of each part, in the order of the plan.
    pub versions: Vec<u64>,
}

/// What a writer says. A line is written after what it speaks of has happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// The store is open.
    Opened,
    /// Durable, said the ticket.
    Acknowledged(Stands),
    /// The same write, sent again, was answered so.
    Replayed(Stands),
    /// It can't be in the log, said the error.
    Refused(WriteId),
    /// It may be in the log.
    Unknown(WriteId),
    /// Something that the store should not have said.
    Wrong(String),
}

/// What may be held against an image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Truth {
    /// Decides what every write is.
    pub seed: u64,
    /// What the log held when it was last served: still its beginning, shard by shard.
    pub history: Vec<Stands>,
    /// What was acknowledged before the cut was asked for.
    pub acknowledged: Vec<Stands>,
    /// What was acknowledged later: where it is there, it stands there.
    pub later: Vec<Stands>,
    /// What can't be there.
    pub refused: HashSet<WriteId>,
}

/// What was heard from a writer so far.
#[derive(Debug, Default)]
pub struct Heard(Mutex<Words>);

#[derive(Clone, Debug, Default)]
struct Words {
    opened: bool,
    acknowledged: Vec<Stands>,
    known: HashMap<WriteId, Stands>,
    refused: HashSet<WriteId>,
    replays: u64,
    unknown: u64,
    wrong: Vec<String>,
}

impl Heard {
    fn with<R>(&self, with: impl FnOnce(&mut Words) -> R) -> R {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hears all that comes through a pipe. A line that a kill has cut off says nothing.
    pub fn listen(&self, pipe: impl Read) {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { return };
            match serde_json::from_str(&line) {
                Ok(word) => self.hear(word),
                Err(_) => return,
            }
        }
    }

    /// Hears one word.
    pub fn hear(&self, word: Word) {
        self.with(|words| match word {
            Word::Opened => words.opened = true,
            Word::Acknowledged(stands) => {
                words.known.insert(stands.id, stands.clone());
                words.acknowledged.push(stands);
            }
            Word::Replayed(stands) => {
                words.replays += 1;
                let original = words.known.get(&stands.id);
                if original != Some(&stands) {
                    words.wrong.push(format!("sent again, {stands:?} first was {original:?}"));
                }
            }
            Word::Refused(id) => drop(words.refused.insert(id)),
            Word::Unknown(_) => words.unknown += 1,
            Word::Wrong(what) => words.wrong.push(what),
        });
    }

    /// Whether the store was opened.
    pub fn opened(&self) -> bool {
        self.with(|words| words.opened)
    }

    /// How many acknowledgements were heard.
    pub fn acknowledgements(&self) -> usize {
        self.with(|words| words.acknowledged.len())
    }

    /// How many writes were sent again, and how many ended unknown.
    pub fn replays_and_unknown(&self) -> (u64, u64) {
        self.with(|words| (words.replays, words.unknown))
    }

    /// What the writer's store said that it should not have.
    pub fn wrong(&self) -> Vec<String> {
        self.with(|words| words.wrong.clone())
    }

    /// The truth for a cut that was asked for when so many acknowledgements had been heard.
    pub fn truth(&self, seed: u64, history: &[Stands], acknowledgements: usize) -> Truth {
        self.with(|words| {
            let (before, later) = words.acknowledged.split_at(acknowledgements);
            Truth {
                seed,
                history: history.to_vec(),
                acknowledged: before.to_vec(),
                later: later.to_vec(),
                refused: words.refused.clone(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stands(sequence: u64, position: u64) -> Stands {
        let id = WriteId { client: 1, sequence };
        Stands { id, shard: 0, position, versions: vec![sequence] }
    }

    #[test]
    fn words_come_through_a_pipe_and_a_cut_line_says_nothing() {
        let mut bytes = Vec::new();
        for word in [
            Word::Opened,
            Word::Acknowledged(stands(1, 100)),
            Word::Acknowledged(stands(2, 200)),
            Word::Refused(WriteId { client: 1, sequence: 3 }),
        ] {
            bytes.extend(serde_json::to_vec(&word).unwrap());
            bytes.push(b'\n');
        }
        bytes.extend(b"{\"acknowledged\":{\"id\"");
        let heard = Heard::default();
        heard.listen(&bytes[..]);
        assert!(heard.opened());
        let truth = heard.truth(9, &[], 1);
        assert_eq!(truth.acknowledged, [stands(1, 100)]);
        assert_eq!(truth.later, [stands(2, 200)]);
        assert_eq!(truth.refused.len(), 1);
    }

    #[test]
    fn a_replay_that_answers_otherwise_is_noticed() {
        let heard = Heard::default();
        heard.hear(Word::Acknowledged(stands(1, 100)));
        heard.hear(Word::Replayed(stands(1, 100)));
        assert!(heard.wrong().is_empty());
        heard.hear(Word::Replayed(stands(1, 101)));
        assert_eq!(heard.wrong().len(), 1);
    }
}
