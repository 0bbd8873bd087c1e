//! A leaf: a sorted run of entries in one shared allocation, and how to search it.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use super::entry::Entry;

/// Most entries of a leaf. Longer ones save memory and make an insert move more; one of 94 costs
/// half a byte more for each extent and is no faster (`benches/map.rs`).
pub(super) const LEAF_ENTRIES_MAX: usize = 8 * LEAF_STEP - 2;

/// Leaves that hold no more than this together become one. Half a leaf: the joined leaf is far
/// from being split again, so that no workload can make the map split and join by turns.
pub(super) const LEAF_JOIN_MAX: usize = LEAF_ENTRIES_MAX / 2;

/// Capacities grow by this many entries: memory follows content, where leaves of full size would
/// be 69 % full under random inserts, and few sizes keep the allocator from fragmenting.
const LEAF_STEP: usize = 16;

/// How far [`search`] looks to either side of its guess. Where a hundred random keys are spread
/// over a leaf, a key strays from its proportional place by five at most (one standard deviation).
const GUESS_REACH: usize = 10;

/// Entries that fit a line of the CPU's cache.
const ENTRIES_PER_LINE: usize = 64 / size_of::<Entry>();

/// Probes of one round of [`search_wide`]. In a leaf they lie about a cache line apart, so that one
/// round fetches all of it at once.
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

    /// The last entry that starts at or before `lba`, else the first entry. The leaf behind starts
    /// at `end`, or the region ends there.
    pub(super) fn seek(&self, lba: u32, end: u32) -> usize {
        let entries = self.entries();
        search(entries.len(), lba, self.first..end, |index| entries[index].lba())
    }

    /// As [`seek`](Self::seek), by one who will change the leaf from there on: what the change will
    /// read is fetched along with what the search reads, not one miss after the other.
    pub(super) fn seek_to_change(&self, lba: u32, end: u32) -> usize {
        let entries = self.entries();
        let guess = proportion(entries.len(), lba, self.first..end);
        black_box(Arc::strong_count(&self.entries));
        let moved = entries[guess..].iter().step_by(ENTRIES_PER_LINE);
        black_box(moved.fold(0, |all, entry| all ^ entry.lba()));
        self.seek(lba, end)
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

/// The last index below `len` whose key is not above `target`, else 0. Keys must ascend; `spread`
/// is where they lie, as far as that is known without a look at them.
///
/// Not a binary search: its probes depend on each other, and at 10 M extents each is a miss of the
/// cache. Keys that are spread evenly, random or not, lie close to their proportional place: a look
/// around it is a few misses, and all at once.
pub(super) fn search(
    len: usize,
    target: u32,
    spread: Range<u32>,
    key: impl Fn(usize) -> u32,
) -> usize {
    let guess = proportion(len, target, spread);
    let (start, end) = (guess.saturating_sub(GUESS_REACH), (guess + GUESS_REACH).min(len));
    if start > 0 && key(start) > target {
        search_wide(0..start, target, key)
    } else if end < len && key(end) <= target {
        search_wide(end..len, target, key)
    } else {
        let below = (start..end).filter(|&index| key(index) <= target).count();
        start + below.saturating_sub(1)
    }
}

/// Where `target` lies among `len` keys if they are spread evenly.
fn proportion(len: usize, target: u32, spread: Range<u32>) -> usize {
    let width = u64::from(spread.end.saturating_sub(spread.start)).max(1);
    let guess = u64::from(target.saturating_sub(spread.start)) * len as u64 / width;
    usize::try_from(guess).unwrap_or(len).min(len)
}

/// The last index of `range` whose key is not above `target`, else the first, for keys of any
/// distribution. The probes of a round are independent, and their misses overlap.
fn search_wide(range: Range<usize>, target: u32, key: impl Fn(usize) -> u32) -> usize {
    let (mut start, mut len) = (range.start, range.len());
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
        type Shape = fn(u32) -> u32;
        let shapes: [Shape; 3] = [
            |index| 3 * index + 5,
            // Close together at the start, or at the end: the guess is far off.
            |index| 5 + index + index * index / 40,
            |index| 5 + 2 * index + (index / 30) * (index / 30) * 10,
        ];
        for len in (0..70).chain([110, 255, 256, 257, 300, 1500]) {
            for shape in shapes {
                let keys: Vec<u32> = (0..len).map(shape).collect();
                let end = shape(len);
                for target in 0..end + 10 {
                    let slow = keys.iter().rposition(|&key| key <= target).unwrap_or(0);
                    for spread in [0..end, 5..end, 0..1 << 20, end..end] {
                        let found = search(keys.len(), target, spread, |index| keys[index]);
                        assert_eq!(found, slow, "{len} {target}");
                    }
                }
            }
        }
    }
}
