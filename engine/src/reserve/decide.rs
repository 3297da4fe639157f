//! How writes to slots are decided: without a lock, and without waiting for a stalled thread.
//!
//! A write goes through these steps.
//!
//! 1. *Look* at each slot: its tick and version. Refuse the write if a condition does not hold. ([`look`])
//! 2. *Submit* it: push it on the log writer's stack. ([`super::stack`])
//! 3. *Install* its entries, slot by slot in order of address, each by a compare-and-swap of the very word that was
//!    looked at. ([`decide`])
//! 4. *Decide* it: when all are in, swap its status from undecided to accepted. That is the moment it takes effect,
//!    in all slots at once. If a slot turns out to have another tick than the entry's `before`, swap it to rejected.
//! 5. *Wake* the log writer if it sleeps.
//!
//! Any thread may take steps 3 and 4 for any write that it finds in its way, and must: nobody installs an entry over
//! an undecided one. Helping goes by iteration; a write is only ever in the way at a higher address, so it ends.
//!
//! # Rules
//!
//! 1. Ticks only grow, so a write that was rejected for a tick could never have been accepted later.
//! 2. The word that an entry replaces can't come back while somebody who saw it may still swap: plain ticks come back
//!    only under a rejected entry (rule 4), entries only if their memory is used again, which guards prevent.
//! 3. An accepted write was in all its slots, and no *late helper* (one who looked before the decision) can install
//!    an entry of it again: its slot's tick has moved on for good.
//! 4. A rejected write may still be installed by a late helper. So what stands of it in a slot is taken out by the
//!    log writer only when a grace period has passed since the decision, and only when everything on that slot up to
//!    `before` is published: a plain tick means that nothing is pending. When it is out, and a second grace period has
//!    passed, its memory is free. An accepted one is taken out when it is published, and free a grace period later.
//! 5. An accepted entry stays until it is durable. The next writer decides against it and covers it.
//! 6. Submission comes before installation, so the log writer knows every write that can be accepted, and knows it
//!    before everything that was decided against it. What it takes undecided it decides itself, like any helper. So
//!    the order of submission is the order of the log, and it waits for nobody.
//!
//! Models: `loom-tests/tests/reserve.rs`. Rules 4 and 6, the steps' order and the orderings each have a twin that is
//! broken on purpose and fails.

use std::ptr;

use super::slot::Word;
use super::slot_ref::SlotRef;
use super::write::{Entry, Status, Write};
use crate::sync::atomic::Ordering;
use crate::sync::broken;
use crate::sync::epoch::Guard;

/// What a slot is at, decided writes that are not yet durable included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// The tick: what the `before` of a write decided on this look must be.
    pub tick: u64,
    /// The version.
    pub version: u64,
    /// Whether nothing is pending: `version` is published.
    pub settled: bool,
}

impl Look {
    /// An aggregate without a slot.
    pub const NOTHING: Look = Look { tick: 0, version: 0, settled: true };
}

/// What stands in a slot.
pub(super) enum Standing<'g, P> {
    /// A plain tick.
    Tick(u64),
    /// An entry of a decided write, and whether it was accepted.
    Decided(&'g Entry<P>, bool),
    /// An entry of a write that is not decided.
    Undecided(&'g Write<P>),
}

/// Follows a word.
#[inline]
pub(super) fn standing<'g, P>(word: Word, _guard: &'g Guard<'_>) -> Standing<'g, P> {
    let address = match word.unpack() {
        Ok(tick) => return Standing::Tick(tick),
        Err(address) => address,
    };
    // SAFETY: the word was read from a slot under the guard, so its entry was in the slot then, and stays alive as
    // long as the guard. All words of a slot point to entries of one payload type: an index serves one shard.
    let entry: &'g Entry<P> = unsafe { &*ptr::with_exposed_provenance::<Entry<P>>(address) };
    // SAFETY: a write lives as long as its entries.
    let write: &'g Write<P> = unsafe { &*entry.write };
    match write.status() {
        Status::Undecided => Standing::Undecided(write),
        Status::Accepted => Standing::Decided(entry, true),
        Status::Rejected => Standing::Decided(entry, false),
    }
}

/// The word that installs an entry.
#[inline]
fn word_of<P>(entry: &Entry<P>) -> Word {
    Word::entry(ptr::from_ref(entry).expose_provenance())
}

/// Step 1: what a slot is at. Helps an undecided write in it to its decision first.
#[inline]
pub fn look<P>(slot: SlotRef, guard: &Guard<'_>) -> Look {
    loop {
        let word = slot.word();
        match standing::<P>(word, guard) {
            Standing::Tick(tick) => {
                step!("look at the version");
                let version = slot.version();
                // The version is this tick's if nothing was installed meanwhile: it is written only while an entry
                // that has it stands in the slot.
                if broken!(LooksOnce) || slot.word() == word {
                    return Look { tick, version, settled: true };
                }
            }
            Standing::Decided(entry, true) => {
                return Look {
                    tick: entry.after(),
                    version: if broken!(ReissuesVersion) {
                        entry.version_before
                    } else {
                        entry.version_after
                    },
                    settled: slot.version() == entry.version_after,
                };
            }
            Standing::Decided(entry, false) => {
                return Look {
                    tick: entry.before,
                    version: entry.version_before,
                    settled: slot.version() == entry.version_before,
                };
            }
            Standing::Undecided(write) => {
                decide(write, guard);
            }
        }
    }
}

/// How far one pass over a write's entries came.
enum Pass<'g, P> {
    Decided(Status),
    /// An undecided write stands in the way.
    Blocked(&'g Write<P>),
}

/// Steps 3 and 4: brings a submitted write to its decision, and tells it.
pub fn decide<P>(write: &Write<P>, guard: &Guard<'_>) -> Status {
    let mut current = write;
    loop {
        match install(current, guard) {
            Pass::Decided(status) if ptr::eq(current, write) => return status,
            Pass::Decided(_) => current = write,
            Pass::Blocked(other) => current = other,
        }
    }
}

#[inline]
fn install<'g, P>(write: &Write<P>, guard: &'g Guard<'_>) -> Pass<'g, P> {
    for entry in write.entries() {
        let ours = word_of(entry);
        loop {
            let decided = write.status();
            if decided != Status::Undecided {
                return Pass::Decided(decided);
            }
            let word = entry.slot.word();
            if word == ours {
                break;
            }
            let (tick, pred) = match standing::<P>(word, guard) {
                Standing::Tick(tick) => (tick, ptr::null_mut()),
                Standing::Decided(covered, true) => {
                    (covered.after(), ptr::from_ref(covered).cast_mut())
                }
                // What it covered is still what made this tick.
                Standing::Decided(covered, false) if broken!(ForgetsCovered) => {
                    (covered.before, ptr::null_mut())
                }
                Standing::Decided(covered, false) => (covered.before, covered.pred()),
                Standing::Undecided(_) if broken!(InstallsOverUndecided) => {
                    (entry.before, ptr::null_mut())
                }
                Standing::Undecided(other) => return Pass::Blocked(other),
            };
            if tick != entry.before {
                return Pass::Decided(write.settle(Status::Rejected));
            }
            if !pred.is_null() {
                // Relaxed: visible with the entry, by the exchange below. All who help store the same, or nothing: one
                // accepted entry made this tick.
                entry.pred.store(pred, Ordering::Relaxed);
            }
            step!("install");
            if entry.slot.replace(word, ours).is_ok() {
                step!("installed");
                break;
            }
        }
    }
    step!("accept");
    Pass::Decided(write.settle(Status::Accepted))
}

/// Log writer: takes an entry of a published write out of its slot, if it is still on top.
#[inline]
pub fn clear_published<P>(entry: &Entry<P>) {
    let _covered = entry.slot.replace(word_of(entry), Word::plain(entry.after()));
}

/// Log writer: takes what stands of a rejected write out of its slots (rule 4); whether it is out of all of them.
pub fn clear_rejected<P>(write: &Write<P>) -> bool {
    write.entries().iter().all(|entry| {
        let ours = word_of(entry);
        if entry.slot.word() != ours {
            return true;
        }
        (broken!(SweepsUnpublished) || entry.slot.published() == entry.before) && {
            let _covered = entry.slot.replace(ours, Word::plain(entry.before));
            true
        }
    })
}
