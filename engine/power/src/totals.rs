//! What a run adds up to.

use std::fmt;
use std::time::Duration;

use crate::control::Counts;
use crate::device::AtStake;

/// Images, what was checked in them, and what they went through.
#[derive(Clone, Default, Debug)]
pub struct Totals {
    /// Lives of a writer.
    pub lives: u64,
    /// Images of them that were looked at.
    pub images: u64,
    /// Images of cuts while another image was opened.
    pub while_opening: u64,
    /// Images of cuts after one was opened.
    pub after_opening: u64,
    /// The most cuts in a row, each while the store opened what the one before had left.
    pub in_a_row: u64,
    /// Acknowledged writes that had to be there and were, summed over images.
    pub acknowledged: u64,
    /// Writes that were read and compared, byte for byte.
    pub read: u64,
    /// Writes that were refused and that no image may hold.
    pub refused: u64,
    /// Writes that were sent again and answered as before, by writers and after recovery.
    pub replays: u64,
    /// Writes after recovery.
    pub appended: u64,
    /// By policy: images, and sectors kept and dropped.
    pub stakes: Vec<(String, u64, AtStake)>,
    /// Of a lying drive: images that lacked what was acknowledged, and the store served what it had.
    pub lost: u64,
    /// Of a lying drive: images that the store refused as damaged.
    pub refused_as_damaged: u64,
    /// Of a lying drive: images whose file system did not survive.
    pub file_system_gone: u64,
    /// What the drives went through.
    pub counts: Counts,
    /// How long it took.
    pub time: Duration,
}

impl Totals {
    /// Adds what was at stake in one cut.
    pub fn add_stake(&mut self, policy: &str, stake: AtStake) {
        let at = self.stakes.iter().position(|(name, ..)| name == policy).unwrap_or_else(|| {
            self.stakes.push((policy.to_owned(), 0, AtStake::default()));
            self.stakes.len() - 1
        });
        let (_, images, sum) = &mut self.stakes[at];
        *images += 1;
        sum.kept += stake.kept;
        sum.dropped += stake.dropped;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(
            f,
            "{} images of {} lives, {} of cuts during recovery (at most {} in a row), {} after it; {:.1} s",
            self.images,
            self.lives,
            self.while_opening,
            self.in_a_row,
            self.after_opening,
            self.time.as_secs_f64()
        )?;
        writeln!(
            f,
            "{} acknowledged writes found as they were, {} writes read, {} refused and not there, {} replays, {} appended after recovery",
            self.acknowledged, self.read, self.refused, self.replays, self.appended
        )?;
        for (policy, images, stake) in &self.stakes {
            writeln!(
                f,
                "{policy}: {images} cuts, {} unsynced sectors kept, {} dropped",
                stake.kept, stake.dropped
            )?;
        }
        if self.lost + self.refused_as_damaged + self.file_system_gone > 0 {
            writeln!(
                f,
                "a lying drive: {} images lack acknowledged writes, {} refused as damaged, {} without a file system",
                self.lost, self.refused_as_damaged, self.file_system_gone
            )?;
        }
        write!(
            f,
            "drives: {} writes, {} flushes, {} flushes ignored",
            counts.writes, counts.flushes, counts.lies
        )
    }
}
