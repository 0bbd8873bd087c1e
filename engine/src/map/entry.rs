//! One extent as the map stores it: 12 bytes.

use super::{Location, OBJECT_SECTORS_MAX};

/// An extent within one region. Its location never leaves its object: `offset + len` is at most
/// [`OBJECT_SECTORS_MAX`], which is also what lets a length and an offset share one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// First sector, counted from the start of the region.
    lba: u32,
    slot: u32,
    /// Length in sectors, less one: no entry is empty, and a whole object has to fit 16 bits.
    len_less_one: u16,
    offset: u16,
}

const _: () = assert!(size_of::<Entry>() == 12);
const _: () = assert!(OBJECT_SECTORS_MAX == 1 << 16);

impl Entry {
    /// # Panics
    /// If the extent is empty or leaves its object; whoever takes extents from outside checks that.
    pub(super) fn new(lba: u32, len: u32, at: Location) -> Self {
        const WHY: &str = "an entry is not empty and lies within its object";
        let len_less_one = len.checked_sub(1).and_then(|len| u16::try_from(len).ok());
        Self {
            lba,
            slot: at.slot,
            len_less_one: len_less_one.expect(WHY),
            offset: u16::try_from(at.offset).expect(WHY),
        }
    }

    pub(super) fn lba(self) -> u32 {
        self.lba
    }

    pub(super) fn len(self) -> u32 {
        u32::from(self.len_less_one) + 1
    }

    pub(super) fn end(self) -> u32 {
        self.lba + self.len()
    }

    pub(super) fn slot(self) -> u32 {
        self.slot
    }

    pub(super) fn at(self) -> Location {
        Location { slot: self.slot, offset: u32::from(self.offset) }
    }

    /// True if `next` continues this entry both on the image and in the object.
    pub(super) fn joins(self, next: Self) -> bool {
        self.end() == next.lba && self.at().advanced(self.len()) == next.at()
    }

    /// This entry and `next`, which must join it, as one.
    pub(super) fn joined(self, next: Self) -> Self {
        debug_assert!(self.joins(next));
        Self::new(self.lba, self.len() + next.len(), self.at())
    }

    /// The part of this entry within `from..to`, if there is any.
    pub(super) fn clipped(self, from: u32, to: u32) -> Option<Self> {
        let start = self.lba.max(from);
        let end = self.end().min(to);
        (start < end).then(|| Self::new(start, end - start, self.at().advanced(start - self.lba)))
    }
}

/// Appends `entry`, as part of the last one if it joins that.
pub(super) fn push_joined(entries: &mut Vec<Entry>, entry: Entry) {
    match entries.last_mut() {
        Some(last) if last.joins(entry) => *last = last.joined(entry),
        _ => entries.push(entry),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn at(slot: u32, offset: u32) -> Location {
        Location { slot, offset }
    }

    #[test]
    fn a_whole_object_fits_one_entry() {
        let entry = Entry::new(7, OBJECT_SECTORS_MAX, at(u32::MAX, 0));
        assert_eq!((entry.len(), entry.end()), (65536, 65543));
        let last = Entry::new(0, 1, at(1, OBJECT_SECTORS_MAX - 1));
        assert_eq!(last.at(), at(1, 65535));
    }

    #[test]
    fn only_extents_contiguous_on_both_sides_join() {
        let entry = Entry::new(10, 5, at(3, 20));
        assert!(entry.joins(Entry::new(15, 1, at(3, 25))));
        assert!(!entry.joins(Entry::new(16, 1, at(3, 25))));
        assert!(!entry.joins(Entry::new(15, 1, at(3, 26))));
        assert!(!entry.joins(Entry::new(15, 1, at(4, 25))));
        let end_of_object = Entry::new(10, 1, at(3, OBJECT_SECTORS_MAX - 1));
        assert!(!end_of_object.joins(Entry::new(11, 1, at(3, 0))));
    }

    #[test]
    fn clipping_keeps_the_location_of_each_sector() {
        let entry = Entry::new(10, 5, at(3, 20));
        assert_eq!(entry.clipped(12, 14), Some(Entry::new(12, 2, at(3, 22))));
        assert_eq!(entry.clipped(0, 100), Some(entry));
        assert_eq!(entry.clipped(15, 100), None);
        assert_eq!(entry.clipped(0, 10), None);
    }
}
