//! Reading the map: what a range consists of.

use std::slice;

use lsvd_common::units::SectorRange;

use super::entry::Entry;
use super::leaf::Leaf;
use super::{ExtentMap, Location, RegionCell};

/// A part of a looked-up range that is contiguous in one object, or not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The part. Never empty.
    pub range: SectorRange,
    /// Where its first sector is; the others follow it. `None` if the part is a hole.
    pub at: Option<Location>,
}

/// The pieces of a range, in order and without gaps. Two neighbours never could be one piece.
///
/// Made by [`ExtentMap::lookup`].
#[derive(Clone, Debug)]
pub struct Lookup<'a> {
    extents: Extents<'a>,
    /// An extent that was read to see whether it continues the one before.
    ahead: Option<Extent>,
    /// What is not yet told.
    start: u64,
    end: u64,
}

#[derive(Clone, Copy, Debug)]
struct Extent {
    start: u64,
    end: u64,
    at: Location,
}

/// The stored extents of a range, clipped to it. Three nested walks.
#[derive(Clone, Debug)]
struct Extents<'a> {
    entries: slice::Iter<'a, Entry>,
    leaves: slice::Iter<'a, Leaf>,
    regions: slice::Iter<'a, RegionCell>,
    /// First sector of the region that is walked.
    base: u64,
    region_sectors: u64,
    start: u64,
    end: u64,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(map: &'a ExtentMap, range: SectorRange) -> Self {
        let (start, end) = (range.start.0, range.end().0);
        Self { extents: Extents::new(map, start, end), ahead: None, start, end }
    }

    fn piece(&mut self, end: u64, at: Option<Location>) -> Piece {
        let range = SectorRange::from(self.start..end);
        self.start = end;
        Piece { range, at }
    }
}

impl Iterator for Lookup<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.start >= self.end {
            return None;
        }
        let Some(mut extent) = self.ahead.take().or_else(|| self.extents.next()) else {
            return Some(self.piece(self.end, None));
        };
        if extent.start > self.start {
            self.ahead = Some(extent);
            return Some(self.piece(extent.start, None));
        }
        // An extent that reaches the end of the range spares the cache miss of the next one.
        while extent.end < self.end {
            match self.extents.next() {
                Some(next) if extent.joins(next) => extent.end = next.end,
                ahead => {
                    self.ahead = ahead;
                    break;
                }
            }
        }
        Some(self.piece(extent.end, Some(extent.at)))
    }
}

impl std::iter::FusedIterator for Lookup<'_> {}

impl Extent {
    /// True for extents of one region border as well, where the map itself does not join them.
    fn joins(self, next: Self) -> bool {
        self.end == next.start
            && self.at.slot == next.at.slot
            && u64::from(self.at.offset) + (self.end - self.start) == u64::from(next.at.offset)
    }
}

impl<'a> Extents<'a> {
    fn new(map: &'a ExtentMap, start: u64, end: u64) -> Self {
        let region_sectors = map.region_sectors();
        let base = start & !(region_sectors - 1);
        let index = usize::try_from(start >> map.shift).unwrap_or(usize::MAX);
        let mut regions = map.regions.get(index..).unwrap_or_default().iter();
        let (entries, leaves) = match regions.next().and_then(|cell| cell.region.as_deref()) {
            Some(region) => region.walk_from(map.within(start)),
            None => (&[][..], &[][..]),
        };
        let (entries, leaves) = (entries.iter(), leaves.iter());
        Self { entries, leaves, regions, base, region_sectors, start, end }
    }

    fn next(&mut self) -> Option<Extent> {
        loop {
            if let Some(entry) = self.entries.next() {
                let start = self.base + u64::from(entry.lba());
                let end = start + u64::from(entry.len());
                if start >= self.end {
                    return None;
                }
                // Only the first entry of a walk may lie before the range, or begin before it.
                if end > self.start {
                    let skipped = self.start.saturating_sub(start);
                    let skipped = u32::try_from(skipped).expect("an entry is short");
                    let start = start.max(self.start);
                    let at = entry.at().advanced(skipped);
                    return Some(Extent { start, end: end.min(self.end), at });
                }
            } else if let Some(leaf) = self.leaves.next() {
                // The directory knows that the leaf is of no use; the leaf itself may be cold.
                if self.base + u64::from(leaf.first()) >= self.end {
                    return None;
                }
                self.entries = leaf.entries().iter();
            } else {
                let cell = self.regions.next()?;
                self.base += self.region_sectors;
                if self.base >= self.end {
                    return None;
                }
                if let Some(region) = &cell.region {
                    let (entries, leaves) = region.walk_from(0);
                    (self.entries, self.leaves) = (entries.iter(), leaves.iter());
                }
            }
        }
    }
}
