//! A region: the extents of 2^`region_shift` sectors, as a directory of leaves.
//!
//! Does not: know where on the image it lies, or that others have snapshots of it: those hold
//! clones, which share the leaves.
//! Invariants: 1. entries ascend and do not overlap; 2. no two neighbours join, across leaves
//! either; 3. no leaf is empty; 4. two neighbouring leaves hold more than `LEAF_JOIN_MAX` entries
//! together, so that the number of leaves follows the number of entries.

use std::ops::Range;

use lsvd_common::units::Sectors;

use super::entry::Entry;
use super::leaf::{LEAF_ENTRIES_MAX, LEAF_JOIN_MAX, Leaf, search};

/// Told the slot and the length of each piece that lost its place in the map.
pub(super) type Displaced<'a> = &'a mut dyn FnMut(u32, Sectors);

#[derive(Clone, Debug)]
pub(super) struct Region {
    /// Where the region ends.
    end: u32,
    leaves: Vec<Leaf>,
}

/// What a change did to the totals of the map.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    pub(super) entries_removed: u64,
    pub(super) entries_added: u64,
    pub(super) sectors_displaced: u64,
}

/// An entry's place, or the place behind a leaf's last entry.
#[derive(Clone, Copy, Debug)]
struct Place {
    leaf: usize,
    index: usize,
}

/// The entries that a change replaces, and what of them stays on either side.
#[derive(Debug)]
struct Cut {
    from: Place,
    to: Place,
    head: Option<Entry>,
    tail: Option<Entry>,
    change: Change,
}

impl Region {
    /// A region of `end` sectors, none of them mapped.
    pub(super) fn new(end: u32) -> Self {
        Self { end, leaves: Vec::new() }
    }

    /// A region of `end` sectors with `entries`, which hold to invariants 1 and 2. Leaves are full.
    pub(super) fn from_entries(end: u32, entries: &[Entry]) -> Self {
        let mut leaf = Vec::with_capacity(2 * LEAF_ENTRIES_MAX);
        let mut leaves = Vec::with_capacity(entries.len().div_ceil(LEAF_ENTRIES_MAX));
        for chunk in entries.chunks(LEAF_ENTRIES_MAX) {
            leaf.clear();
            leaf.extend_from_slice(chunk);
            leaves.extend(Leaf::cut(&mut leaf, chunk.len()));
        }
        Self { end, leaves }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.leaves.iter().map(Leaf::len).sum()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.leaves.iter().flat_map(|leaf| leaf.entries().iter().copied())
    }

    /// Bytes of the region's leaves and directory on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let leaves: usize = self.leaves.iter().map(Leaf::heap_bytes).sum();
        leaves + self.leaves.capacity() * size_of::<Leaf>()
    }

    /// The entries of one leaf and the leaves behind it, from the last entry that starts at or
    /// before `lba`, else from the first.
    pub(super) fn walk_from(&self, lba: u32) -> (&[Entry], &[Leaf]) {
        if self.leaves.is_empty() {
            return (&[], &[]);
        }
        let Place { leaf, index } = self.seek(lba);
        (&self.leaves[leaf].entries()[index..], &self.leaves[leaf + 1..])
    }

    /// True if some sector of `range` is mapped.
    pub(super) fn maps_any(&self, range: &Range<u32>) -> bool {
        let (entries, leaves) = self.walk_from(range.start);
        // The first may end before the range; then the second decides.
        let following = leaves.iter().map(|leaf| leaf.entries()[0]);
        let mut candidates = entries.iter().copied().chain(following).take(2);
        candidates.any(|entry| entry.clipped(range.start, range.end).is_some())
    }

    /// Maps `range` as `new`, which covers it exactly, or unmaps it. `scratch` is working memory.
    pub(super) fn replace(
        &mut self,
        range: &Range<u32>,
        new: Option<Entry>,
        scratch: &mut Vec<Entry>,
        displaced: Displaced<'_>,
    ) -> Change {
        if self.leaves.is_empty() {
            scratch.clear();
            scratch.extend(new);
            self.leaves.extend(Leaf::cut(scratch, usize::from(new.is_some())));
            return Change { entries_added: u64::from(new.is_some()), ..Change::default() };
        }
        let cut = self.cut(range, new, displaced);
        let mut patch = [Entry::default(); 3];
        let mut used = 0;
        for entry in [cut.head, new, cut.tail].into_iter().flatten() {
            if used > 0 && patch[used - 1].joins(entry) {
                patch[used - 1] = patch[used - 1].joined(entry);
            } else {
                patch[used] = entry;
                used += 1;
            }
        }
        let patch = &patch[..used];
        if !self.splice_one_leaf(cut.from, cut.to, patch) {
            self.rebuild(cut.from, cut.to, patch, scratch);
        }
        Change { entries_added: patch.len() as u64, ..cut.change }
    }

    /// Finds what a change touches: entries that overlap `range`, and neighbours that join `new`.
    fn cut(&self, range: &Range<u32>, new: Option<Entry>, displaced: Displaced<'_>) -> Cut {
        let touched = |entry: Entry| {
            (entry.lba() < range.end && entry.end() > range.start)
                || new.is_some_and(|new| entry.joins(new) || new.joins(entry))
        };
        // The directory answers for almost every leaf that is not touched.
        let next_leaf = |place: Place| {
            let next = self.leaves.get(place.leaf + 1)?;
            let touched = next.first() <= range.end && touched(next.entries()[0]);
            (place.index == self.leaves[place.leaf].len() && touched)
                .then_some(Place { leaf: place.leaf + 1, index: 0 })
        };
        // From before the range: behind an entry that starts with it, `new` may join another.
        let mut from = self.seek_to_change(range.start.saturating_sub(1));
        let first = self.leaves[from.leaf].entries()[from.index];
        if first.lba() < range.start && !touched(first) {
            from.index += 1;
        }
        let from = next_leaf(from).unwrap_or(from);
        let mut cut = Cut { from, to: from, head: None, tail: None, change: Change::default() };
        loop {
            cut.to = next_leaf(cut.to).unwrap_or(cut.to);
            if cut.to.index == self.leaves[cut.to.leaf].len() {
                return cut;
            }
            let entry = self.leaves[cut.to.leaf].entries()[cut.to.index];
            if !touched(entry) {
                return cut;
            }
            if let Some(lost) = entry.clipped(range.start, range.end) {
                displaced(lost.slot(), Sectors(u64::from(lost.len())));
                cut.change.sectors_displaced += u64::from(lost.len());
            }
            cut.head = cut.head.or(entry.clipped(0, range.start));
            cut.tail = entry.clipped(range.end, u32::MAX);
            cut.change.entries_removed += 1;
            cut.to.index += 1;
        }
    }

    /// The fast path: one leaf, which afterwards is neither too full nor too small.
    fn splice_one_leaf(&mut self, from: Place, to: Place, patch: &[Entry]) -> bool {
        let removed = to.index.saturating_sub(from.index);
        if from.leaf != to.leaf
            || (patch.len() < removed && self.joins_neighbour(from.leaf, removed - patch.len()))
        {
            return false;
        }
        self.leaves[from.leaf].splice(from.index..to.index, patch)
    }

    /// True if `leaf`, `fewer` entries smaller, is to be joined with a neighbour.
    fn joins_neighbour(&self, leaf: usize, fewer: usize) -> bool {
        let len = self.leaves[leaf].len() - fewer;
        let before = leaf.checked_sub(1).and_then(|before| self.leaves.get(before));
        let mut neighbours = before.into_iter().chain(self.leaves.get(leaf + 1));
        neighbours.any(|neighbour| neighbour.len() + len <= LEAF_JOIN_MAX)
    }

    /// The general path: makes new leaves of all that the change touches, and of small neighbours.
    fn rebuild(&mut self, from: Place, to: Place, patch: &[Entry], scratch: &mut Vec<Entry>) {
        scratch.clear();
        scratch.extend_from_slice(&self.leaves[from.leaf].entries()[..from.index]);
        scratch.extend_from_slice(patch);
        scratch.extend_from_slice(&self.leaves[to.leaf].entries()[to.index..]);
        let (mut first, mut end) = (from.leaf, to.leaf + 1);
        // Also when nothing remains: then the leaves on either side have become neighbours.
        while first > 0 && scratch.len() + self.leaves[first - 1].len() <= LEAF_JOIN_MAX {
            first -= 1;
            scratch.splice(0..0, self.leaves[first].entries().iter().copied());
        }
        while end < self.leaves.len() && scratch.len() + self.leaves[end].len() <= LEAF_JOIN_MAX {
            scratch.extend_from_slice(self.leaves[end].entries());
            end += 1;
        }
        let len = scratch.len();
        self.leaves.splice(first..end, Leaf::cut(scratch, len));
    }

    /// The last entry that starts at or before `lba`, else the first. There must be one.
    fn seek(&self, lba: u32) -> Place {
        let (leaf, next) = self.seek_leaf(lba);
        Place { leaf, index: self.leaves[leaf].seek(lba, next) }
    }

    fn seek_to_change(&self, lba: u32) -> Place {
        let (leaf, next) = self.seek_leaf(lba);
        Place { leaf, index: self.leaves[leaf].seek_to_change(lba, next) }
    }

    /// The leaf of an address, and where the leaf behind it starts.
    fn seek_leaf(&self, lba: u32) -> (usize, u32) {
        let leaf = search(self.leaves.len(), lba, 0..self.end, |index| self.leaves[index].first());
        (leaf, self.leaves.get(leaf + 1).map_or(self.end, Leaf::first))
    }

    /// # Panics
    /// If an invariant does not hold, or an entry ends behind the region.
    pub(super) fn self_check(&self) {
        let mut last: Option<Entry> = None;
        for entry in self.entries() {
            assert!(entry.end() <= self.end, "an entry stays in its region");
            if let Some(last) = last {
                assert!(last.end() <= entry.lba(), "invariant 1: entries ascend");
                assert!(!last.joins(entry), "invariant 2: neighbours do not join");
            }
            last = Some(entry);
        }
        for leaf in &self.leaves {
            assert!(leaf.len() > 0, "invariant 3: no leaf is empty");
            assert_eq!(leaf.first(), leaf.entries()[0].lba(), "the directory is right");
        }
        for pair in self.leaves.windows(2) {
            assert!(
                pair[0].len() + pair[1].len() > LEAF_JOIN_MAX,
                "invariant 4: small leaves join"
            );
        }
    }
}
