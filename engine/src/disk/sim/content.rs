//! What a simulated file holds: live and durable, and which sectors differ.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use super::Loss;
use super::faults::{FaultKind, Tally};
use super::random::Random;

pub(super) const SECTOR: usize = 512;
/// One byte of marks has a bit for each sector of a page.
const PAGE: usize = 8 * SECTOR;

type Page = Arc<[u8; PAGE]>;

static ZEROS: LazyLock<Page> = LazyLock::new(|| Arc::new([0; PAGE]));

/// Bytes in pages that are shared until they are written: a copy of a disk copies no bytes.
#[derive(Clone, Default)]
pub(super) struct Bytes {
    pages: Vec<Page>,
    /// What the last page holds beyond it is zero.
    len: usize,
}

impl Bytes {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether no page of it is a copy of the other's.
    #[cfg(test)]
    pub(super) fn shares_all(&self, other: &Bytes) -> bool {
        let mut pages = self.pages.iter().zip(&other.pages);
        self.len == other.len && pages.all(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// Fills the buffer; `None` beyond the end.
    pub(super) fn read(&self, offset: usize, buffer: &mut [u8]) -> Option<()> {
        let end = offset.checked_add(buffer.len()).filter(|&end| end <= self.len)?;
        for (page, within) in pages(offset..end) {
            let at = page * PAGE + within.start - offset;
            buffer[at..at + within.len()].copy_from_slice(&self.pages[page][within]);
        }
        Some(())
    }

    /// Writes what lies within the length.
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = (offset + bytes.len()).min(self.len);
        for (page, within) in pages(offset.min(end)..end) {
            let at = page * PAGE + within.start - offset;
            let from = &bytes[at..at + within.len()];
            Arc::make_mut(&mut self.pages[page])[within].copy_from_slice(from);
        }
    }

    fn resize(&mut self, len: usize) {
        self.pages.resize_with(len.div_ceil(PAGE), || Arc::clone(&ZEROS));
        self.len = len;
        self.zero_rest();
    }

    fn zero_rest(&mut self) {
        let within = self.len % PAGE;
        if within != 0
            && let Some(last) = self.pages.last_mut()
            && last[within..] != ZEROS[within..]
        {
            Arc::make_mut(last)[within..].fill(0);
        }
    }
}

/// The pages that a range lies in, and what of each.
fn pages(range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    (range.start / PAGE..range.end.div_ceil(PAGE)).filter_map(move |page| {
        let start = range.start.max(page * PAGE) - page * PAGE;
        let end = range.end.min((page + 1) * PAGE) - page * PAGE;
        (start < end).then_some((page, start..end))
    })
}

#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) live: Bytes,
    pub(super) durable: Bytes,
    /// For each page, the sectors whose live content is not durable.
    marked: Vec<u8>,
    length_marked: bool,
}

impl Content {
    /// Fills the buffer from the device: what the system gave up after a failed sync is there no more, though its cache
    /// shows it.
    pub(super) fn read_direct(&self, offset: usize, buffer: &mut [u8]) -> Option<()> {
        self.live.read(offset, buffer)?;
        for (page, mask) in masks(offset..offset + buffer.len()) {
            let clean = mask & !self.marked.get(page).copied().unwrap_or(0);
            let device = self.durable.pages.get(page).unwrap_or(&ZEROS);
            if clean == 0 || Arc::ptr_eq(device, &self.live.pages[page]) {
                continue;
            }
            for sector in (0..8).filter(|sector| clean & 1 << sector != 0) {
                let at = page * PAGE + sector * SECTOR;
                let from = at.max(offset);
                let to = (at + SECTOR).min(offset + buffer.len());
                let bytes = &device[from % PAGE..from % PAGE + (to - from)];
                buffer[from - offset..to - offset].copy_from_slice(bytes);
            }
        }
        Some(())
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.live.len {
            self.set_len(end);
        }
        self.live.write(offset, bytes);
        self.mark(offset..end);
    }

    /// Changes bytes behind the system's back: live, and durable as far as the file is.
    pub(super) fn overwrite(&mut self, offset: usize, bytes: &[u8]) {
        self.live.write(offset, bytes);
        self.durable.write(offset, bytes);
    }

    /// Changes bits at rest.
    pub(super) fn rot(&mut self, offset: usize, bits: &[u8]) {
        for image in [&mut self.live, &mut self.durable] {
            let mut bytes = vec![0; bits.len().min(image.len.saturating_sub(offset))];
            if image.read(offset, &mut bytes).is_some() {
                bytes.iter_mut().zip(bits).for_each(|(byte, bits)| *byte ^= bits);
                image.write(offset, &bytes);
            }
        }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        let before = self.live.len;
        self.length_marked |= len != before;
        self.live.resize(len);
        // What is cut off and grown again is zeros.
        self.mark(before.min(len)..before.max(len));
    }

    fn mark(&mut self, range: Range<usize>) {
        self.marked.resize(self.marked.len().max(range.end.div_ceil(PAGE)), 0);
        for (page, mask) in masks(range) {
            self.marked[page] |= mask;
        }
    }

    /// Makes a range durable, and the length.
    pub(super) fn settle(&mut self, range: Range<usize>) {
        self.settle_length();
        for (page, mask) in masks(range) {
            self.settle_page(page, mask);
        }
    }

    pub(super) fn settle_all(&mut self) {
        self.settle_length();
        for page in 0..self.marked.len() {
            self.settle_page(page, u8::MAX);
        }
    }

    /// The system gives up what it could not write.
    pub(super) fn forget(&mut self, range: Range<usize>) {
        for (page, mask) in masks(range) {
            if let Some(marked) = self.marked.get_mut(page) {
                *marked &= !mask;
            }
        }
    }

    /// As if it had not been written since it was durable last.
    pub(super) fn revert(&mut self, range: Range<usize>) {
        for (page, mask) in masks(range) {
            let marked = self.marked.get(page).copied().unwrap_or(0) & mask;
            let Some(to) = self.live.pages.get_mut(page).filter(|_| marked != 0) else { continue };
            let from = self.durable.pages.get(page).unwrap_or(&ZEROS);
            copy_sectors(from, to, marked);
            self.marked[page] &= !marked;
        }
    }

    pub(super) fn forget_all(&mut self) {
        self.marked.clear();
        self.length_marked = false;
    }

    fn settle_length(&mut self) {
        self.length_marked = false;
        self.durable.resize(self.live.len);
    }

    fn settle_page(&mut self, page: usize, mask: u8) {
        let Some(marked) = self.marked.get_mut(page) else { return };
        let mask = mask & *marked;
        *marked &= !mask;
        let Some(from) = self.live.pages.get(page) else { return };
        let Some(to) = self.durable.pages.get_mut(page) else { return };
        if mask == u8::MAX {
            *to = Arc::clone(from);
        } else {
            copy_sectors(from, to, mask);
        }
        if page + 1 == self.durable.pages.len() {
            self.durable.zero_rest();
        }
    }

    /// What is left after a power cut, all of it durable. With a block, one of so many bytes is damaged as a whole if any of it was being
    /// written.
    pub(super) fn after_power_cut(
        mut self,
        loss: Loss,
        damaged: Option<usize>,
        random: &mut Random,
        tally: &mut Tally,
    ) -> Content {
        if self.length_marked {
            if loss == Loss::Random && random.coin() {
                self.settle_length();
            } else {
                tally.add(FaultKind::LostLength);
            }
        }
        let torn: Vec<usize> = match damaged {
            Some(block) => self.blocks_being_written(block).filter(|_| random.coin()).collect(),
            None => Vec::new(),
        };
        let inside = self.live.len.div_ceil(PAGE);
        for page in 0..self.marked.len().min(inside) {
            let marked = self.marked[page];
            if marked == 0 {
                continue;
            }
            let kept = if loss == Loss::Random { random.next() as u8 & marked } else { 0 };
            tally.add_many(FaultKind::LostSector, (marked & !kept).count_ones().into());
            if kept != 0 && kept != marked {
                tally.add(FaultKind::TornWrite);
            }
            self.settle_page(page, kept);
        }
        let block = damaged.unwrap_or(0);
        let mut noise = vec![0; block];
        let len = self.durable.len;
        for at in torn.into_iter().filter(|at| *at < len) {
            random.fill(&mut noise);
            self.durable.write(at, &noise);
            tally.add(FaultKind::DamagedBlock);
        }
        let marked = vec![0; self.durable.pages.len()];
        Content { live: self.durable.clone(), durable: self.durable, marked, length_marked: false }
    }

    /// Where the blocks start of which a sector is not durable.
    fn blocks_being_written(&self, block: usize) -> impl Iterator<Item = usize> {
        (0..self.live.len).step_by(block).filter(move |&at| {
            masks(at..at + block)
                .any(|(page, mask)| self.marked.get(page).is_some_and(|marked| marked & mask != 0))
        })
    }
}

fn copy_sectors(from: &Page, to: &mut Page, mask: u8) {
    for sector in (0..8).filter(|sector| mask & 1 << sector != 0) {
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        Arc::make_mut(to)[range.clone()].copy_from_slice(&from[range]);
    }
}

/// The pages that a range lies in, and a bit for each of its sectors in them.
fn masks(range: Range<usize>) -> impl Iterator<Item = (usize, u8)> {
    pages(range).map(|(page, within)| {
        let sectors = within.start / SECTOR..within.end.div_ceil(SECTOR);
        (page, (u8::MAX << sectors.start) & (u8::MAX >> (8 - sectors.end)))
    })
}
