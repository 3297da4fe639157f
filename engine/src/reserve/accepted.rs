//! What is accepted on a slot and not yet durable.
//!
//! An accepted entry stays in its slot until it is durable, and whoever covers it notes it as the `pred` of its own. So
//! from the top of a slot one can go down, version by version, to what is published. `pred` may lead to memory that is
//! used for something else by now; it is followed in one case:
//!
//! * under a guard,
//! * with the slot's `version` read after the guard was taken,
//! * while that version is below the entry's `version_before`.
//!
//! What made `version_before` was then not published after the guard was taken. It is retired only when it is published,
//! and free a grace period after that: not while the guard lives.
//!
//! `pred` is not null then: an entry is installed without one only over a plain tick, or over a rejected entry that was,
//! and who sees a plain tick sees the version published with it.
//!
//! Models: `loom-tests/tests/accepted.rs`.

use super::decide::{self, Standing, standing};
use super::slot_ref::SlotRef;
use super::write::Entry;
use crate::sync::broken;
use crate::sync::epoch::Guard;

/// Shows the accepted entries of a slot that bring it to versions above `above` and are not published, newest first.
/// Returns the version that is published.
pub fn visit<P>(
    slot: SlotRef,
    guard: &Guard<'_>,
    above: u64,
    mut see: impl FnMut(&Entry<P>, &P),
) -> Published {
    loop {
        step!("visit");
        let word = slot.word();
        match standing::<P>(word, guard) {
            Standing::Tick(_) => {
                let version = slot.version();
                if slot.word() == word {
                    return Published { version, quiet: true };
                }
            }
            Standing::Undecided(write) => {
                decide::decide(write, guard);
            }
            Standing::Decided(top, accepted) => {
                // A model that breaks this asks for what is above a version that it knows from an earlier guard.
                let version = if broken!(ReadsBeforeGuard) { above } else { slot.version() };
                let known = version.max(above);
                let mut next = if accepted { Some(top) } else { covered(top, known, guard) };
                while let Some(entry) = next {
                    step!("follow");
                    if entry.version_after > known.max(entry.version_before)
                        || broken!(FollowsPublished)
                    {
                        // SAFETY: a write lives as long as its entries, and its payload changes no more.
                        see(entry, unsafe { &(*entry.write).payload });
                    }
                    next = covered(entry, known, guard);
                }
                return Published { version, quiet: false };
            }
        }
    }
}

/// What a slot's durable side was at during a visit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Published {
    /// The version that was published.
    pub version: u64,
    /// Nothing was pending: all that was seen is below the watermark.
    pub quiet: bool,
}

/// The entry below, if it brought the slot beyond `known`, which is not below the version that was published when it was
/// read under the guard.
fn covered<'g, P>(entry: &Entry<P>, known: u64, _guard: &'g Guard<'_>) -> Option<&'g Entry<P>> {
    if entry.version_before <= known && !broken!(FollowsPublished) {
        return None;
    }
    // SAFETY: by the rule of the module it is alive as long as the guard, or null.
    unsafe { entry.pred().as_ref() }
}
