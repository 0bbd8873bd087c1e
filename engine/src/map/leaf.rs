//! A leaf: a sorted run of entries in one shared allocation, and how to search it.

use std::ops::Range;
use std::sync::Arc;

use super::entry::Entry;

/// Most entries of a leaf: the measured knee (`benches/map.rs`). A leaf of 190 saves 0.65 bytes per
/// extent, but an insert moves half as much again; one of 94 costs 0.5 bytes and gains nothing.
pub(super) const LEAF_ENTRIES_MAX: usize = 8 * LEAF_STEP - 2;

/// Leaves that hold no more than this together become one. Half a leaf: the joined leaf is far
/// from being split again, so that no workload can make the map split and join by turns.
pub(super) const LEAF_JOIN_MAX: usize = LEAF_ENTRIES_MAX / 2;

/// Capacities grow by this many entries: memory follows content, where leaves of full size would
/// be 69 % full under random inserts, and few sizes keep the allocator from fragmenting.
const LEAF_STEP: usize = 16;

/// Probes of one round of [`search`]. In a leaf they lie about a cache line apart, so that one
/// round fetches all of it at once: what an insert will move, and the entry that is looked for.
const PROBES: usize = 24;

/// The directory's hold on a leaf. The number of entries and the first LBA live here, so that a
/// search and a neighbour's check do without a cache miss in the leaf itself.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    first: u32,
    len: u32,
    /// As long as the capacity; what lies behind `len` means nothing.
    entries: Arc<[Entry]>,
}

impl Leaf {
    /// Cuts the first `len` entries of `scratch` into leaves of equal fill. Entries behind `len`
    /// are lost.
    pub(super) fn cut(scratch: &mut Vec<Entry>, len: usize) -> impl Iterator<Item = Self> {
        scratch.resize(len + LEAF_STEP, Entry::default());
        let chunk = len.div_ceil(len.div_ceil(LEAF_ENTRIES_MAX).max(1)).max(1);
        (0..len).step_by(chunk).map(move |start| {
            let used = chunk.min(len - start);
            Self {
                first: scratch[start].lba(),
                len: u32::try_from(used).expect("a leaf has few entries"),
                // The capacity is filled with whatever follows: one copy, nothing to initialise.
                entries: Arc::from(&scratch[start..start + capacity_for(used)]),
            }
        })
    }

    pub(super) fn first(&self) -> u32 {
        self.first
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries[..self.len()]
    }

    /// Bytes of the leaf on the heap, with the two counters of `Arc` and the allocator's header.
    pub(super) fn heap_bytes(&self) -> usize {
        heap_bytes(self.entries.len())
    }

    /// The last entry that starts at or before `lba`, else the first entry.
    pub(super) fn seek(&self, lba: u32) -> usize {
        let entries = self.entries();
        search(entries.len(), lba, |index| entries[index].lba())
    }

    /// Replaces the entries of `range` by `patch`. False, and nothing has happened, if there is no
    /// room, if nothing would remain, or if a smaller allocation would do.
    pub(super) fn splice(&mut self, range: Range<usize>, patch: &[Entry]) -> bool {
        let old = self.len();
        let new = old - range.len() + patch.len();
        let room = self.entries.len();
        if new == 0 || new > room || room - new > 2 * LEAF_STEP {
            return false;
        }
        // Copies the leaf if a snapshot shares it.
        let entries = Arc::make_mut(&mut self.entries);
        entries.copy_within(range.end..old, range.start + patch.len());
        entries[range.start..][..patch.len()].copy_from_slice(patch);
        self.first = entries[0].lba();
        self.len = u32::try_from(new).expect("a leaf has few entries");
        true
    }
}

/// The last index below `len` whose key is not above `target`, else 0. Keys must ascend.
///
/// Not a binary search: its probes depend on each other, and at 10 M extents each is a miss of the
/// cache. Here the probes of a round are independent and their misses overlap.
pub(super) fn search(len: usize, target: u32, key: impl Fn(usize) -> u32) -> usize {
    let (mut start, mut len) = (0, len);
    while len > 1 {
        let stride = len.div_ceil(PROBES);
        let below = (0..len).step_by(stride).filter(|&probe| key(start + probe) <= target).count();
        let chunk = below.saturating_sub(1) * stride;
        start += chunk;
        len = stride.min(len - chunk);
        if stride == 1 {
            break;
        }
    }
    start
}

/// Rounds up to a capacity. With the counters of `Arc` and an allocator's header of 8 bytes each
/// capacity is a whole number of allocation units of 16 bytes.
const fn capacity_for(entries: usize) -> usize {
    (entries + 2).next_multiple_of(LEAF_STEP) - 2
}

const fn heap_bytes(capacity: usize) -> usize {
    const COUNTERS: usize = 2 * size_of::<usize>();
    const ALLOCATOR_HEADER: usize = 8;
    ALLOCATOR_HEADER + COUNTERS + capacity * size_of::<Entry>()
}

const _: () =
    assert!(heap_bytes(capacity_for(1)).is_multiple_of(16) && LEAF_STEP.is_multiple_of(4));

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn search_agrees_with_a_linear_scan() {
        for len in (0..70_usize).chain([255, 256, 257, 300, 5000]) {
            let keys: Vec<u32> =
                (0..len).map(|index| 3 * u32::try_from(index).unwrap() + 5).collect();
            for target in 0..3 * u32::try_from(len).unwrap() + 10 {
                let slow = keys.iter().rposition(|&key| key <= target).unwrap_or(0);
                assert_eq!(search(len, target, |index| keys[index]), slow, "{len} {target}");
            }
        }
    }
}
