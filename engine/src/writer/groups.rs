//! The words that waiting threads sleep on: one for each group of writes, so that one system call wakes a group.
//!
//! A write joins the group that is current when it is submitted; the log writer begins another one with every flush.
//! Nearly all writes of a group reach the disk in one flush. The words belong to the process, so a ticket that is
//! waited on needs no store; stores start at different ones.

use crate::sync::wake_word::WakeWord;

const GROUPS: usize = 256;

#[repr(align(64))]
struct Line(WakeWord);

#[cfg(not(shuttle))]
static WORDS: [Line; GROUPS] = [const { Line(WakeWord::new()) }; GROUPS];
#[cfg(shuttle)]
crate::sync::lazy_static! {
    static ref WORDS: [Line; GROUPS] = std::array::from_fn(|_| Line(WakeWord::new()));
}

pub(crate) fn word(group: u8) -> &'static WakeWord {
    &WORDS[usize::from(group)].0
}

/// Groups to wake.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct GroupSet([u64; GROUPS / 64]);

impl GroupSet {
    pub(crate) fn insert(&mut self, group: u8) {
        self.0[usize::from(group) / 64] |= 1 << (group % 64);
    }

    /// Wakes them all, and is empty afterwards.
    pub(crate) fn wake(&mut self) {
        for (index, bits) in self.0.iter_mut().enumerate() {
            while *bits != 0 {
                let bit = bits.trailing_zeros();
                *bits &= *bits - 1;
                word((index * 64) as u8 + bit as u8).wake_all();
            }
        }
    }
}
