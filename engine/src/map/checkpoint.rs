//! What a checkpoint needs of the map: the regions that changed, and a way to bring them back.

use std::sync::Arc;

use lsvd_common::units::{Sector, Sectors};

use super::entry::{Entry, push_joined};
use super::region::Region;
use super::{ExtentMap, Location, OBJECT_SECTORS_MAX, REGIONS_MAX, RegionCell};

/// What is wrong with a region that [`ExtentMap::load_region`] was given. The caller knows which
/// object it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// No image has a region of this index.
    #[error("there are no regions above {}", REGIONS_MAX - 1)]
    NoSuchRegion,
    /// The region has extents already: an index names it twice.
    #[error("region is loaded already")]
    Loaded,
    /// The extent that starts here has no sectors.
    #[error("extent at {0} is empty")]
    Empty(Sector),
    /// The extent that starts here is not entirely in the region.
    #[error("extent at {0} leaves its region")]
    OutOfRegion(Sector),
    /// The extent that starts here does not lie behind the one before it.
    #[error("extent at {0} overlaps or precedes the one before it")]
    OutOfOrder(Sector),
    /// The location of the extent that starts here leaves the largest object.
    #[error("location of the extent at {0} leaves its object")]
    OutOfObject(Sector),
}

/// A region as it was when [`ExtentMap::take_dirty`] was called; later changes do not show.
///
/// While it lives, a write to the region copies the leaf that it changes.
#[derive(Clone, Debug)]
pub struct RegionSnapshot {
    base: Sector,
    /// `None` if nothing was mapped.
    region: Option<Arc<Region>>,
}

impl RegionSnapshot {
    /// The extents in order: first sector, length, location. None could be joined with the next.
    pub fn entries(&self) -> impl Iterator<Item = (Sector, Sectors, Location)> {
        self.region.iter().flat_map(|region| region.entries()).map(|entry| {
            let start = Sector(self.base.0 + u64::from(entry.lba()));
            (start, Sectors(u64::from(entry.len())), entry.at())
        })
    }

    /// How many extents [`entries`](Self::entries) gives.
    #[must_use]
    pub fn len(&self) -> usize {
        self.region.as_ref().map_or(0, |region| region.len())
    }

    /// True if nothing is mapped: a checkpoint has to forget what it holds of the region.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.region.is_none()
    }
}

impl ExtentMap {
    /// How many regions changed since the last [`take_dirty`](Self::take_dirty).
    #[must_use]
    pub fn dirty_regions(&self) -> usize {
        self.dirty.len()
    }

    /// The regions that changed since the last call, by ascending index, also those in which
    /// nothing is mapped any more. Copies no extents.
    pub fn take_dirty(&mut self) -> Vec<(u32, RegionSnapshot)> {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        let snapshot = |index: u32| {
            let cell = &mut self.regions[index as usize];
            cell.dirty = false;
            let base = Sector(u64::from(index) << self.shift);
            (index, RegionSnapshot { base, region: cell.region.clone() })
        };
        dirty.into_iter().map(snapshot).collect()
    }

    /// Counts a region as changed, because the checkpoint that took it failed.
    ///
    /// # Panics
    /// If no image has a region of this index.
    pub fn mark_dirty(&mut self, index: u32) {
        assert!(index < REGIONS_MAX, "no image has a region of this index");
        let at = index as usize;
        if self.regions.len() <= at {
            self.regions.resize_with(at + 1, RegionCell::default);
        }
        if !self.regions[at].dirty {
            self.regions[at].dirty = true;
            self.dirty.push(index);
        }
    }

    /// Fills an empty region with what [`RegionSnapshot::entries`] gave, read back from a
    /// checkpoint. Does not make it dirty. After an error the map is as before.
    ///
    /// # Errors
    /// [`MapError`] says what no checkpoint of this map would hold. That `index` lies within the
    /// image and that the slots exist is for the caller to check.
    pub fn load_region(
        &mut self,
        index: u32,
        entries: impl IntoIterator<Item = (Sector, Sectors, Location)>,
    ) -> Result<(), MapError> {
        if index >= REGIONS_MAX {
            return Err(MapError::NoSuchRegion);
        }
        let at = index as usize;
        if self.regions.get(at).is_some_and(|cell| cell.region.is_some()) {
            return Err(MapError::Loaded);
        }
        let base = u64::from(index) << self.shift;
        let mut checked = Vec::new();
        let mut mapped = 0;
        let mut end = 0;
        for extent in entries {
            let entry = self.checked_entry(base, end, extent)?;
            end = entry.end();
            mapped += u64::from(entry.len());
            push_joined(&mut checked, entry);
        }
        if checked.is_empty() {
            return Ok(());
        }
        if self.regions.len() <= at {
            self.regions.resize_with(at + 1, RegionCell::default);
        }
        let region = Region::from_entries(self.region_end(), &checked);
        self.regions[at].region = Some(Arc::new(region));
        self.extents += checked.len() as u64;
        self.mapped += mapped;
        Ok(())
    }

    /// An extent read back, if it may follow one that ended at `end` in the region at `base`.
    fn checked_entry(
        &self,
        base: u64,
        end: u32,
        (start, len, at): (Sector, Sectors, Location),
    ) -> Result<Entry, MapError> {
        let region = self.region_sectors();
        let lba = start.0.checked_sub(base).filter(|&lba| lba < region);
        let lba = lba.ok_or(MapError::OutOfRegion(start))?;
        if len.is_zero() {
            return Err(MapError::Empty(start));
        }
        if len.0 > region - lba {
            return Err(MapError::OutOfRegion(start));
        }
        if lba < u64::from(end) {
            return Err(MapError::OutOfOrder(start));
        }
        if u64::from(at.offset) + len.0 > u64::from(OBJECT_SECTORS_MAX) {
            return Err(MapError::OutOfObject(start));
        }
        let within = "a region has fewer than 2^32 sectors";
        Ok(Entry::new(self.within(start.0), u32::try_from(len.0).expect(within), at))
    }
}
