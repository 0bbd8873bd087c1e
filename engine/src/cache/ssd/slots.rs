//! Which slot of the SSD holds which frame: the index in memory, free slots, eviction, dirty index
//! pages.
//!
//! Does not: any I/O; nor does it decide what is admitted.
//! Invariants: 1. A key leads to at most one slot, and that slot's claim names it. 2. A slot with a
//! pin is not given to another frame; its writer holds a pin too. 3. A slot whose entry on the SSD
//! may differ from memory is on a dirty index page. 4. Free + used slots = all slots.
//! Crash: the index on the SSD is older than this one; what it claims wrongly is found at first
//! use, because a recovered slot is `Claimed` until all its pages were read and verified.
//! Concurrency: plain data behind the tier's lock; every call is short, `remove_image` is cut into
//! steps.

use std::collections::BTreeSet;
use std::ops::Range;

use lsvd_common::cache_file::{ENTRIES_PER_PAGE, FrameClaim, FrameKey, SLOT_PAGES};
use lsvd_common::ids::{ImageId, ObjectSeq, Uuid};

/// Slots that the clock's hand passes before it takes the first one it may: bounds the time under
/// the lock. Reached only when nearly everything is in use again and again, and then one choice is
/// as good as another.
const HAND_STEPS_MAX: u32 = 256;

/// Highest count of touches: a frame in frequent use survives so many rounds of the hand without
/// another touch.
const TOUCHES_MAX: u8 = 3;

/// Fills the slots that have none.
const NO_CLAIM: FrameClaim = FrameClaim {
    key: FrameKey { image: ImageId(Uuid::nil()), object: ObjectSeq(0), fingerprint: 0, frame: 0 },
    frame_bytes: 0,
    digest: 0,
    page_crcs: [0; SLOT_PAGES],
};

/// Ends a chain.
const NONE: u32 = u32::MAX;

/// All slots of one file.
#[derive(Debug)]
pub(super) struct Slots {
    table: Box<[Slot]>,
    /// First slot of the chain of each hash. Chains through the table itself take 4 to 8 bytes a
    /// slot; a map with the keys in it would take 80.
    heads: Box<[u32]>,
    free: Vec<u32>,
    hand: u32,
    dirty: BTreeSet<u32>,
    evictions: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    claim: FrameClaim,
    next: u32,
    pins: u16,
    touches: u8,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Holds nothing, on the free list.
    Free,
    /// Has a key, but its pages are not written yet.
    Writing,
    /// Recovered from the index; nobody has looked at its pages since.
    Claimed,
    /// Written, or verified as a whole, since the file was opened.
    Valid,
    /// Has lost its key, but is pinned; free when the last pin goes.
    Doomed,
}

/// A pinned slot and what it should contain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pinned {
    pub(super) slot: u32,
    pub(super) claim: FrameClaim,
    /// False until all pages were verified: a single page proves nothing about a recovered slot.
    pub(super) is_valid: bool,
}

impl Slots {
    /// `count` free slots, at most `SLOTS_MAX`.
    pub(super) fn new(count: u32) -> Self {
        let len = count as usize;
        let mut slots = Self {
            table: vec![Slot::EMPTY; len].into_boxed_slice(),
            heads: vec![NONE; len.next_power_of_two()].into_boxed_slice(),
            free: Vec::new(),
            hand: 0,
            dirty: BTreeSet::new(),
            evictions: 0,
        };
        slots.collect_free();
        slots
    }

    /// `count` slots that are to be filled from the index on the SSD.
    pub(super) fn recovering(count: u32) -> Recovery {
        Recovery(Self::new(count))
    }

    pub(super) fn total(&self) -> u64 {
        self.table.len() as u64
    }

    pub(super) fn used(&self) -> u64 {
        (self.table.len() - self.free.len()) as u64
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Memory that the index takes, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        let bytes = size_of_val(&*self.table) + size_of_val(&*self.heads);
        (bytes + self.free.capacity() * size_of::<u32>()) as u64
    }

    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// True if the key has a slot, which counts as a touch.
    pub(super) fn touch(&mut self, key: &FrameKey) -> bool {
        let Some(slot) = self.find(key) else {
            return false;
        };
        let slot = &mut self.table[slot as usize];
        slot.touches = (slot.touches + 1).min(TOUCHES_MAX);
        true
    }

    /// Pins the slot of `key` for reading, which counts as a touch. `None` if there is nothing to
    /// read (yet).
    pub(super) fn pin(&mut self, key: &FrameKey) -> Option<Pinned> {
        let slot = self.find(key)?;
        let entry = &mut self.table[slot as usize];
        if entry.state == State::Writing {
            return None;
        }
        entry.pins = entry.pins.checked_add(1)?;
        entry.touches = (entry.touches + 1).min(TOUCHES_MAX);
        Some(Pinned { slot, claim: entry.claim, is_valid: entry.state == State::Valid })
    }

    /// Takes a pin back.
    pub(super) fn unpin(&mut self, slot: u32) {
        let entry = &mut self.table[slot as usize];
        entry.pins = entry.pins.checked_sub(1).expect("every pin is taken back once");
        if entry.pins == 0 && entry.state == State::Doomed {
            self.release(slot);
        }
    }

    /// A slot for a frame that has none, pinned for its writer: `commit` or `doom`, then `unpin`.
    /// Takes a free slot, or evicts the frame that was touched least lately, sparing those that
    /// `is_spared` names while there is another. `None` if all slots are pinned.
    pub(super) fn reserve(
        &mut self,
        key: FrameKey,
        is_spared: impl Fn(&FrameKey) -> bool,
    ) -> Option<u32> {
        assert!(self.find(&key).is_none(), "a key leads to at most one slot");
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.evict(is_spared)?,
        };
        let entry = &mut self.table[slot as usize];
        assert!(entry.state == State::Free && entry.pins == 0, "only a free slot is given away");
        *entry = Slot { state: State::Writing, pins: 1, ..Slot::EMPTY };
        entry.claim.key = key;
        self.link(slot);
        Some(slot)
    }

    /// The frame of a reserved slot is written; without effect if the slot was doomed meanwhile.
    pub(super) fn commit(&mut self, slot: u32, claim: FrameClaim) {
        let entry = &mut self.table[slot as usize];
        if entry.state == State::Writing {
            assert_eq!(entry.claim.key, claim.key, "the claim is about the reserved frame");
            entry.claim = claim;
            entry.state = State::Valid;
            self.mark_dirty(slot / ENTRIES_PER_PAGE);
        }
    }

    /// All pages of a pinned slot were verified.
    pub(super) fn set_valid(&mut self, slot: u32) {
        let entry = &mut self.table[slot as usize];
        if entry.state == State::Claimed {
            entry.state = State::Valid;
        }
    }

    /// Forgets what a slot holds; it becomes free when nothing pins it. False if it was forgotten
    /// before.
    pub(super) fn doom(&mut self, slot: u32) -> bool {
        let entry = &self.table[slot as usize];
        if matches!(entry.state, State::Free | State::Doomed) {
            return false;
        }
        self.unlink(slot);
        self.mark_dirty(slot / ENTRIES_PER_PAGE);
        if self.table[slot as usize].pins == 0 {
            self.release(slot);
        } else {
            self.table[slot as usize].state = State::Doomed;
        }
        true
    }

    /// Forgets what slots `range` hold of an image.
    pub(super) fn remove_image(&mut self, image: ImageId, range: Range<u32>) {
        for slot in range {
            let entry = &self.table[slot as usize];
            if entry.state != State::Free && entry.claim.key.image == image {
                self.doom(slot);
            }
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(super) fn mark_dirty(&mut self, page: u32) {
        self.dirty.insert(page);
    }

    /// Takes the next run of neighbouring dirty index pages at or behind `from`, at most
    /// `pages_max` long: the page numbers, and the entries of their slots in order.
    pub(super) fn take_dirty(
        &mut self,
        from: u32,
        pages_max: u32,
    ) -> Option<(Range<u32>, Vec<Option<FrameClaim>>)> {
        let first = *self.dirty.range(from..).next()?;
        let mut end = first;
        while end - first < pages_max && self.dirty.remove(&end) {
            end += 1;
        }
        let from = (first * ENTRIES_PER_PAGE) as usize;
        let to = self.table.len().min((end * ENTRIES_PER_PAGE) as usize);
        let claims = self.table[from..to].iter().map(Slot::entry).collect();
        Some((first..end, claims))
    }

    /// Low slots first: a file that is larger than what it caches stays small on thin storage.
    fn collect_free(&mut self) {
        let count = u32::try_from(self.table.len()).expect("SLOTS_MAX fits 32 bits");
        let table = &self.table;
        self.free = (0..count).rev().filter(|s| table[*s as usize].state == State::Free).collect();
    }

    /// The clock: passes touched frames with a touch less, and takes the first that has none. The
    /// slot is free, but not on the free list.
    fn evict(&mut self, is_spared: impl Fn(&FrameKey) -> bool) -> Option<u32> {
        let count = u32::try_from(self.table.len()).expect("SLOTS_MAX fits 32 bits");
        // After the merciful steps one whole lap takes whatever it may; if that is nothing, all are
        // pinned.
        for step in 0..count.saturating_add(HAND_STEPS_MAX) {
            let slot = self.hand;
            self.hand = (self.hand + 1) % count;
            let entry = &mut self.table[slot as usize];
            if entry.pins > 0 || !matches!(entry.state, State::Claimed | State::Valid) {
                continue;
            }
            if step < HAND_STEPS_MAX {
                if entry.touches > 0 {
                    entry.touches -= 1;
                    continue;
                }
                if is_spared(&entry.claim.key) {
                    continue;
                }
            }
            self.doom(slot);
            self.evictions += 1;
            return self.free.pop();
        }
        None
    }

    fn release(&mut self, slot: u32) {
        self.table[slot as usize] = Slot::EMPTY;
        self.free.push(slot);
    }

    fn head_of(&self, key: &FrameKey) -> usize {
        let place = key.hash64() & (self.heads.len() as u64 - 1);
        usize::try_from(place).expect("less than the number of heads")
    }

    fn find(&self, key: &FrameKey) -> Option<u32> {
        let mut slot = self.heads[self.head_of(key)];
        while slot != NONE {
            let entry = &self.table[slot as usize];
            if entry.claim.key == *key {
                return Some(slot);
            }
            slot = entry.next;
        }
        None
    }

    fn link(&mut self, slot: u32) {
        let head = self.head_of(&self.table[slot as usize].claim.key);
        self.table[slot as usize].next = std::mem::replace(&mut self.heads[head], slot);
    }

    fn unlink(&mut self, slot: u32) {
        let head = self.head_of(&self.table[slot as usize].claim.key);
        let next = self.table[slot as usize].next;
        if self.heads[head] == slot {
            self.heads[head] = next;
            return;
        }
        let mut before = self.heads[head];
        while self.table[before as usize].next != slot {
            before = self.table[before as usize].next;
        }
        self.table[before as usize].next = next;
    }
}

/// Slots on the way from the index on the SSD into memory.
#[derive(Debug)]
pub(super) struct Recovery(Slots);

impl Recovery {
    /// What the index says about `slot`. Of two claims to one key the first stays: at most one of
    /// them is true, and if it was the other, the frame is merely fetched again.
    pub(super) fn add(&mut self, slot: u32, claim: FrameClaim) {
        let entry = &mut self.0.table[slot as usize];
        assert!(entry.state == State::Free, "the index has one entry for each slot");
        if self.0.find(&claim.key).is_none() {
            self.0.table[slot as usize] = Slot { claim, state: State::Claimed, ..Slot::EMPTY };
            self.0.link(slot);
        }
    }

    pub(super) fn finish(mut self) -> Slots {
        self.0.collect_free();
        self.0
    }
}

impl Slot {
    const EMPTY: Self =
        Self { claim: NO_CLAIM, next: NONE, pins: 0, touches: 0, state: State::Free };

    /// What the index on the SSD should say. A slot that is being written claims nothing.
    fn entry(&self) -> Option<FrameClaim> {
        matches!(self.state, State::Claimed | State::Valid).then_some(self.claim)
    }
}

#[cfg(test)]
mod test;
