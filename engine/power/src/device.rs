//! What a drive keeps: bytes that are durable, and writes that it has acknowledged and not yet made durable.
//!
//! Pure and in memory. A write lands in `current`, which reads see, and is remembered; a flush makes what is remembered
//! durable. A **cut** is the image of another drive: what was durable, and of the rest what chance, a policy and
//! a seed left. Pages are shared between a drive and its images, so an image costs a table of pointers.

use std::fmt;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// What a drive writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;
/// The beginning of a drive, which is written whole or not at all: ext4 keeps a superblock of two sectors there, with one
/// checksum, and does not mount if only one of them was written.
const SUPERBLOCK_END: u64 = 4096;

type Page = [u8; PAGE_BYTES];

/// The bytes of a drive. What was never written is zero and takes no memory.
#[derive(Clone)]
struct Pages(Vec<Option<Arc<Page>>>);

impl Pages {
    fn new(bytes: u64) -> Pages {
        Pages(vec![None; bytes.div_ceil(PAGE_BYTES as u64) as usize])
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = offset as usize;
        let mut rest = data;
        while !rest.is_empty() {
            let start = at % PAGE_BYTES;
            let (now, later) = rest.split_at(rest.len().min(PAGE_BYTES - start));
            let page = &mut self.0[at / PAGE_BYTES];
            if page.is_some() || now.iter().any(|byte| *byte != 0) {
                let page = page.get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
                Arc::make_mut(page)[start..start + now.len()].copy_from_slice(now);
            }
            at += now.len();
            rest = later;
        }
    }

    fn read(&self, offset: u64, into: &mut [u8]) {
        let mut at = offset as usize;
        let mut rest = into;
        while !rest.is_empty() {
            let start = at % PAGE_BYTES;
            let length = rest.len().min(PAGE_BYTES - start);
            let (now, later) = rest.split_at_mut(length);
            match &self.0[at / PAGE_BYTES] {
                Some(page) => now.copy_from_slice(&page[start..start + length]),
                None => now.fill(0),
            }
            at += length;
            rest = later;
        }
    }
}

/// Which of the sectors that are not yet durable outlive a cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Each sector on its own, with a chance that is drawn for the cut.
    Subset,
    /// All writes before one and that one in part; nothing after it.
    Torn,
    /// Whole writes, each on its own: later ones without earlier ones.
    Reorder,
    /// None.
    Nothing,
    /// All.
    Everything,
}

/// How many sectors were at stake in cuts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct AtStake {
    /// Sectors of unsynced writes that the image has.
    pub kept: u64,
    /// Those that it has not.
    pub dropped: u64,
}

/// A write that a flush has yet to make durable.
struct Unsynced {
    offset: u64,
    data: Box<[u8]>,
}

/// A drive with a volatile write cache.
pub struct Device {
    bytes: u64,
    durable: Pages,
    current: Pages,
    unsynced: Vec<Unsynced>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("bytes", &self.bytes)
            .field("unsynced", &self.unsynced.len())
            .finish_non_exhaustive()
    }
}

impl Device {
    /// A drive of zeros.
    pub fn new(bytes: u64) -> Device {
        let pages = Pages::new(bytes);
        Device { bytes, durable: pages.clone(), current: pages, unsynced: Vec::new() }
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a range lies on the drive.
    pub fn has(&self, offset: u64, length: usize) -> bool {
        offset.checked_add(length as u64).is_some_and(|end| end <= self.bytes)
    }

    /// What was written last, durable or not. The range must lie on the drive.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        self.current.read(offset, into);
    }

    /// A write into the cache. The range must lie on the drive.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        self.current.write(offset, data);
        self.unsynced.push(Unsynced { offset, data: data.into() });
    }

    /// Whether there is something that a flush would make durable.
    pub fn has_unsynced(&self) -> bool {
        !self.unsynced.is_empty()
    }

    /// Makes all that was written durable.
    pub fn flush(&mut self) {
        for write in self.unsynced.drain(..) {
            // All of the page is durable now, so both can have the same one.
            let first = write.offset as usize / PAGE_BYTES;
            let end = (write.offset as usize + write.data.len()).div_ceil(PAGE_BYTES);
            self.durable.0[first..end].clone_from_slice(&self.current.0[first..end]);
        }
    }

    /// The drive as the next start finds it if the power fails now.
    pub fn cut(&self, policy: Policy, seed: u64) -> (Device, AtStake) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut durable = self.durable.clone();
        let mut stake = AtStake::default();
        let chance = [0.1, 0.5, 0.9][random.random_range(0..3)];
        let torn = match self.unsynced.len() {
            0 => 0,
            count => random.random_range(0..count),
        };
        for (at, write) in self.unsynced.iter().enumerate() {
            let whole = random.random_bool(0.5);
            let mut superblock = None;
            for (index, sector) in write.data.chunks(SECTOR_BYTES).enumerate() {
                let offset = write.offset + (index * SECTOR_BYTES) as u64;
                let drawn = match policy {
                    Policy::Subset => random.random_bool(chance),
                    Policy::Torn => at < torn || (at == torn && random.random_bool(0.5)),
                    Policy::Reorder => whole,
                    Policy::Nothing => false,
                    Policy::Everything => true,
                };
                let keep = match offset {
                    ..SUPERBLOCK_END => *superblock.get_or_insert(drawn),
                    _ => drawn,
                };
                if keep {
                    durable.write(offset, sector);
                    stake.kept += 1;
                } else {
                    stake.dropped += 1;
                }
            }
        }
        let current = durable.clone();
        (Device { bytes: self.bytes, durable, current, unsynced: Vec::new() }, stake)
    }

    /// The durable pages that are not zero, with their offsets.
    pub fn durable_pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.durable.0.iter().enumerate().filter_map(|(index, page)| {
            page.as_ref().map(|page| ((index * PAGE_BYTES) as u64, &page[..]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = SUPERBLOCK_END;

    /// The first byte of each sector behind the superblock.
    fn sectors(device: &Device) -> Vec<u8> {
        let mut bytes = vec![0; device.bytes() as usize];
        device.read(0, &mut bytes);
        let sectors = bytes.chunks(SECTOR_BYTES).map(|sector| sector[0]);
        sectors.skip(SUPERBLOCK_END as usize / SECTOR_BYTES).collect()
    }

    fn three_writes() -> Device {
        let mut device = Device::new(64 << 10);
        device.write(START, &[1; 4 * SECTOR_BYTES]);
        device.flush();
        device.write(START, &[2; 4 * SECTOR_BYTES]);
        device.write(START + 4096, &[3; 8 * SECTOR_BYTES]);
        device.write(START + 512, &[4; SECTOR_BYTES]);
        device
    }

    #[test]
    fn what_was_flushed_is_in_every_cut_and_the_rest_in_some() {
        let device = three_writes();
        assert_eq!(sectors(&device)[..5], [2, 4, 2, 2, 0]);
        let (nothing, stake) = device.cut(Policy::Nothing, 1);
        assert_eq!(sectors(&nothing)[..9], [1, 1, 1, 1, 0, 0, 0, 0, 0]);
        assert_eq!(stake, AtStake { kept: 0, dropped: 13 });
        let (all, stake) = device.cut(Policy::Everything, 1);
        assert_eq!(sectors(&all), sectors(&device));
        assert_eq!(stake, AtStake { kept: 13, dropped: 0 });
        let mut subsets: Vec<_> =
            (0..50).map(|seed| sectors(&device.cut(Policy::Subset, seed).0)).collect();
        subsets.sort();
        subsets.dedup();
        assert!(subsets.len() > 30, "{} of 50 cuts differ", subsets.len());
    }

    #[test]
    fn a_seed_is_a_cut() {
        let device = three_writes();
        for policy in [Policy::Subset, Policy::Torn, Policy::Reorder] {
            for seed in 0..20 {
                let (one, stake) = device.cut(policy, seed);
                let (other, same) = device.cut(policy, seed);
                assert_eq!((sectors(&one), stake), (sectors(&other), same));
            }
        }
    }

    #[test]
    fn a_torn_cut_ends_within_one_write() {
        let device = three_writes();
        let mut parts = 0;
        for seed in 0..100 {
            let cut = sectors(&device.cut(Policy::Torn, seed).0);
            let third = cut[8..16].iter().filter(|sector| **sector == 3).count();
            let second = cut[..4].iter().filter(|sector| matches!(sector, 2 | 4)).count();
            assert!(third == 0 || second == 4, "the second write before the third: {cut:?}");
            parts += usize::from(third % 8 != 0 || second % 4 != 0);
        }
        assert!(parts > 50, "only {parts} of 100 cuts are torn");
    }

    #[test]
    fn a_reordering_cut_keeps_whole_writes_and_later_ones_without_earlier_ones() {
        let device = three_writes();
        let mut late_alone = 0;
        for seed in 0..100 {
            let cut = sectors(&device.cut(Policy::Reorder, seed).0);
            let third = cut[8..16].iter().filter(|sector| **sector == 3).count();
            assert!(third == 0 || third == 8, "{cut:?}");
            late_alone += usize::from(third == 8 && cut[0] == 1);
        }
        assert!(late_alone > 10, "only {late_alone} of 100");
    }

    #[test]
    fn the_superblock_is_never_torn() {
        let mut device = Device::new(64 << 10);
        device.write(0, &[1; 16 * SECTOR_BYTES]);
        let mut wholes = 0;
        for seed in 0..100 {
            let mut first = [0; SUPERBLOCK_END as usize];
            device.cut(Policy::Subset, seed).0.read(0, &mut first);
            assert!(first.iter().all(|byte| *byte == first[0]));
            wholes += u32::from(first[0]);
        }
        assert!((10..90).contains(&wholes), "{wholes} of 100");
    }

    #[test]
    fn an_image_is_a_drive_of_its_own() {
        let device = three_writes();
        let (mut image, _) = device.cut(Policy::Everything, 1);
        image.write(START, &[9; SECTOR_BYTES]);
        image.flush();
        assert_eq!(sectors(&device)[0], 2);
        assert_eq!(sectors(&image)[0], 9);
    }
}
