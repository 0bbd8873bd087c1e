//! The extent map of one volume: which sector of the image is where in which object.
//!
//! The image is cut into *regions*, the unit of a checkpoint. A region is a directory of *leaves*,
//! and a leaf is a sorted run of 12-byte extents. Everything below the map itself is shared with
//! its clones and snapshots and is copied when it is changed, one leaf at a time.
//!
//! Does not: know objects (a *slot* is an index in the engine's table of live objects), count live
//! data (it tells each displaced piece to whoever does), or see the open batch and the log.
//! Invariants: 1. the map holds the state of the durable objects up to one sequence, because its
//! owner applies whole objects only, in order; 2. `extents` and `mapped` are the totals of the
//! regions; 3. a region is dirty if it differs from what was last taken or loaded; 4. no region is
//! empty (see `region` for what holds inside).
//! Concurrency: one owner changes the map. Clones and [`RegionSnapshot`]s may be read anywhere, and
//! never make the owner wait; what they cost it is one copy of each leaf that it changes meanwhile.

mod checkpoint;
mod entry;
mod leaf;
mod lookup;
mod region;
#[cfg(test)]
mod test;

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use lsvd_common::units::{SectorRange, Sectors};

pub use self::checkpoint::{MapError, RegionSnapshot};
pub use self::lookup::{Lookup, Piece};

use self::entry::Entry;
use self::region::{Change, Displaced, Region};

/// Most sectors of an object's payload: 32 MiB, the limit of any object.
pub const OBJECT_SECTORS_MAX: u32 = 1 << 16;

/// The sizes of a region, as powers of two in sectors: 64 MiB to 512 MiB. Smaller regions make the
/// table of regions large, larger ones make a checkpoint write much that did not change.
pub const REGION_SHIFTS: RangeInclusive<u32> = 10..=20;

/// Most regions of an image: 1 PiB of the smallest. Bounds what a wild address can make us
/// allocate.
pub const REGIONS_MAX: u32 = 1 << 24;

/// Where the first sector of an extent is stored; the others follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// Index in the engine's table of live objects.
    pub slot: u32,
    /// Sectors from the start of the object's payload, less than [`OBJECT_SECTORS_MAX`].
    pub offset: u32,
}

impl Location {
    /// The location of the sector that lies `sectors` behind this one.
    fn advanced(self, sectors: u32) -> Self {
        Self { slot: self.slot, offset: self.offset + sectors }
    }
}

/// LBA range to location in an object. A clone is a snapshot: it copies the table of regions only.
#[derive(Clone)]
pub struct ExtentMap {
    /// A region has `1 << shift` sectors.
    shift: u32,
    /// By index of the region, as far as extents ever reached.
    regions: Vec<RegionCell>,
    /// Indices of the regions that are dirty.
    dirty: Vec<u32>,
    extents: u64,
    mapped: u64,
    /// Working memory for new leaves. Holds nothing between calls.
    scratch: Vec<Entry>,
}

#[derive(Clone, Debug, Default)]
struct RegionCell {
    /// `None` if nothing is mapped.
    region: Option<Arc<Region>>,
    dirty: bool,
}

impl ExtentMap {
    /// An empty map with regions of `1 << region_shift` sectors.
    ///
    /// # Panics
    /// Unless `region_shift` is one of [`REGION_SHIFTS`].
    #[must_use]
    pub fn new(region_shift: u32) -> Self {
        assert!(REGION_SHIFTS.contains(&region_shift), "the region size was checked");
        Self::with_shift(region_shift)
    }

    /// Tests have smaller regions than images have.
    fn with_shift(shift: u32) -> Self {
        let (regions, dirty, scratch) = (Vec::new(), Vec::new(), Vec::new());
        Self { shift, regions, dirty, extents: 0, mapped: 0, scratch }
    }

    /// Maps `range` to `at` and what follows it. `displaced` is told the slot and the length of
    /// each piece that was mapped there before, also if the location is the same.
    ///
    /// # Panics
    /// If the extent leaves the largest object or the largest image: the header of an object is
    /// checked when it is decoded.
    pub fn insert(
        &mut self,
        range: SectorRange,
        at: Location,
        displaced: &mut dyn FnMut(u32, Sectors),
    ) {
        let object_end = u64::from(at.offset).checked_add(range.len.0);
        assert!(
            object_end.is_some_and(|end| end <= u64::from(OBJECT_SECTORS_MAX)),
            "an extent lies within its object"
        );
        let mut at = at;
        for (index, part) in self.parts(range) {
            let len = part.end - part.start;
            self.change(index, &part, Some(Entry::new(part.start, len, at)), displaced);
            at = at.advanced(len);
        }
    }

    /// Unmaps `range`. `displaced` is told the slot and the length of each piece that was mapped
    /// there. The cost follows what is mapped in the range, not its length.
    ///
    /// # Panics
    /// If the end of the range does not fit 64 bits.
    pub fn remove(&mut self, range: SectorRange, displaced: &mut dyn FnMut(u32, Sectors)) {
        let known = SectorRange::from(0..(self.regions.len() as u64) << self.shift);
        for (index, part) in self.parts(range.intersect(known)) {
            let Some(region) = &self.regions[index as usize].region else { continue };
            if u64::from(part.end - part.start) == self.region_sectors() {
                self.drop_region(index, displaced);
            } else if region.maps_any(&part) {
                self.change(index, &part, None, displaced);
            }
        }
    }

    /// Maps to `to` those parts of `range` that are still at `from`, sector for sector, and
    /// returns how many sectors moved. What was written or discarded since stays as it is.
    ///
    /// # Panics
    /// As [`insert`](Self::insert), for either location.
    pub fn insert_where(&mut self, range: SectorRange, from: Location, to: Location) -> Sectors {
        let object_end = u64::from(from.offset.max(to.offset)).checked_add(range.len.0);
        assert!(
            object_end.is_some_and(|end| end <= u64::from(OBJECT_SECTORS_MAX)),
            "an extent lies within its object"
        );
        let skipped = |piece: &Piece| {
            u32::try_from((piece.range.start - range.start).0).expect("an extent is short")
        };
        let unchanged = |piece: &Piece| piece.at == Some(from.advanced(skipped(piece)));
        let unchanged: Vec<Piece> = self.lookup(range).filter(unchanged).collect();
        let mut moved = Sectors::ZERO;
        for piece in unchanged {
            let count = &mut |_, sectors| moved += sectors;
            self.insert(piece.range, to.advanced(skipped(&piece)), count);
        }
        moved
    }

    /// What `range` consists of: pieces that cover it exactly, holes included. Does not allocate.
    ///
    /// # Panics
    /// If the end of the range does not fit 64 bits.
    #[must_use]
    pub fn lookup(&self, range: SectorRange) -> Lookup<'_> {
        Lookup::new(self, range)
    }

    /// How many extents the map stores. An extent that crosses a border of regions counts on
    /// either side.
    #[must_use]
    pub fn extent_count(&self) -> u64 {
        self.extents
    }

    /// How many sectors are mapped.
    #[must_use]
    pub fn mapped_sectors(&self) -> Sectors {
        Sectors(self.mapped)
    }

    /// Bytes that the map holds on the heap, with the allocator's headers. What it shares with
    /// clones and snapshots counts in each. Reads every directory, so not for every operation.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let regions = self.regions.iter().filter_map(|cell| cell.region.as_deref());
        // A region comes with the counters of its `Arc` and two headers of the allocator.
        const REGION_BYTES: usize = size_of::<Region>() + 4 * size_of::<usize>();
        regions.map(|region| REGION_BYTES + region.heap_bytes()).sum::<usize>()
            + self.regions.capacity() * size_of::<RegionCell>()
            + self.dirty.capacity() * size_of::<u32>()
            + self.scratch.capacity() * size_of::<Entry>()
    }

    /// Checks everything that must hold; reads the whole map.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn self_check(&self) {
        let (mut extents, mut mapped) = (0, 0);
        for region in self.regions.iter().filter_map(|cell| cell.region.as_deref()) {
            region.self_check();
            assert!(!region.is_empty(), "invariant 4: no region is empty");
            extents += region.len() as u64;
            mapped += region.entries().map(|entry| u64::from(entry.len())).sum::<u64>();
        }
        assert_eq!((extents, mapped), (self.extents, self.mapped), "invariant 2: totals");
        let dirty = self.regions.iter().filter(|cell| cell.dirty).count();
        assert_eq!(dirty, self.dirty.len(), "each dirty region is listed once");
        let listed = |&index: &u32| self.regions[index as usize].dirty;
        assert!(self.dirty.iter().all(listed), "only dirty regions are listed");
    }

    fn region_sectors(&self) -> u64 {
        1 << self.shift
    }

    /// The same as an address within a region: its end.
    fn region_end(&self) -> u32 {
        1 << self.shift
    }

    /// The sector's address within its region.
    fn within(&self, sector: u64) -> u32 {
        let within = sector & (self.region_sectors() - 1);
        u32::try_from(within).expect("a region has fewer than 2^32 sectors")
    }

    /// Cuts a range at the borders of regions: index, and part within the region.
    fn parts(&self, range: SectorRange) -> impl Iterator<Item = (u32, Range<u32>)> + use<> {
        let (shift, size) = (self.shift, self.region_sectors());
        let (mut next, end) = (range.start.0, range.end().0);
        std::iter::from_fn(move || {
            let base = next & !(size - 1);
            let within = |sector: u64| u32::try_from(sector - base).expect("a region is small");
            let part = (next < end).then(|| within(next)..within(end.min(base + size)))?;
            let index = u32::try_from(base >> shift).expect("an address was checked");
            next = base + u64::from(part.end);
            Some((index, part))
        })
    }

    /// Changes a part of one region and keeps the totals.
    fn change(
        &mut self,
        index: u32,
        part: &Range<u32>,
        new: Option<Entry>,
        displaced: Displaced<'_>,
    ) {
        self.mark_dirty(index);
        let end = self.region_end();
        let cell = &mut self.regions[index as usize];
        let region = cell.region.get_or_insert_with(|| Arc::new(Region::new(end)));
        let region = Arc::make_mut(region);
        let change = region.replace(part, new, &mut self.scratch, displaced);
        if region.is_empty() {
            cell.region = None;
        }
        let added = new.map_or(0, |entry| u64::from(entry.len()));
        self.count(change, added);
    }

    /// Unmaps a whole region. Cheaper than a change: nothing is copied, even if it is shared.
    fn drop_region(&mut self, index: u32, displaced: Displaced<'_>) {
        let Some(region) = self.regions[index as usize].region.take() else { return };
        self.mark_dirty(index);
        let mut change = Change::default();
        for entry in region.entries() {
            let sectors = u64::from(entry.len());
            displaced(entry.slot(), Sectors(sectors));
            change.entries_removed += 1;
            change.sectors_displaced += sectors;
        }
        self.count(change, 0);
    }

    fn count(&mut self, change: Change, sectors_added: u64) {
        self.extents = self.extents + change.entries_added - change.entries_removed;
        self.mapped = self.mapped + sectors_added - change.sectors_displaced;
    }
}

impl fmt::Debug for ExtentMap {
    /// The totals: the extents of a volume would fill a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtentMap")
            .field("region_shift", &self.shift)
            .field("extents", &self.extents)
            .field("mapped_sectors", &self.mapped)
            .field("dirty_regions", &self.dirty.len())
            .finish_non_exhaustive()
    }
}
