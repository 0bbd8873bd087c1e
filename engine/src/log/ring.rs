//! Space in the ring of a write log, in pages.
//!
//! Positions count pages since the log was made and never wrap; the place in the file is the
//! position modulo the size. Invariant: `tail <= head <= tail + pages`. The tail is the one that is
//! *durable* in the log's superblock: a record that the superblock may still point at is never
//! overwritten.

use lsvd_common::log::header::RING_START_PAGE;
use lsvd_common::units::PAGE_BYTES;

use crate::batch::LogMark;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    pages: u64,
    head: LogMark,
    tail: u64,
}

/// Space for one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// Pages up to the end of the ring that must be skipped first, by a record of their own.
    pub(crate) skip: u64,
    /// Where the record starts, behind what is skipped.
    pub(crate) page: u64,
}

impl Ring {
    pub(crate) fn new(pages: u64, head: LogMark, tail: u64) -> Self {
        assert!(tail <= head.page && head.page <= tail + pages, "the ring holds tail to head");
        Self { pages, head, tail }
    }

    /// Where the next record starts.
    pub(crate) fn head(&self) -> LogMark {
        self.head
    }

    /// Pages in use.
    pub(crate) fn used(&self) -> u64 {
        self.head.page - self.tail
    }

    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Finds space for a record; none while the ring is too full.
    pub(crate) fn find(&self, pages: u64) -> Option<Space> {
        let at = self.head.page % self.pages;
        let skip = if at + pages > self.pages { self.pages - at } else { 0 };
        let fits = self.used() + skip + pages <= self.pages;
        fits.then_some(Space { skip, page: self.head.page + skip })
    }

    /// Moves the head behind a record that was encoded for it.
    pub(crate) fn advance(&mut self, pages: u64, crc: u32) {
        self.head = LogMark {
            page: self.head.page + pages,
            record: self.head.record.next(),
            previous_crc: crc,
        };
        assert!(self.used() <= self.pages, "space was found before it was taken");
    }

    /// Frees everything before `page`, once the superblock that says so is durable.
    pub(crate) fn free_to(&mut self, page: u64) {
        assert!(
            self.tail <= page && page <= self.head.page,
            "the tail only moves towards the head"
        );
        self.tail = page;
    }

    /// The byte offset in the file of a position.
    pub(crate) fn offset(&self, page: u64) -> u64 {
        (RING_START_PAGE + page % self.pages) * PAGE_BYTES
    }

    /// Bytes of the file that holds a ring of `pages`.
    pub(crate) fn file_bytes(pages: u64) -> u64 {
        (RING_START_PAGE + pages) * PAGE_BYTES
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    const START: LogMark =
        LogMark { page: 0, record: lsvd_common::ids::RecordSeq(1), previous_crc: 0 };

    #[test]
    fn a_record_never_crosses_the_end() {
        let mut ring = Ring::new(10, START, 0);
        ring.advance(8, 1);
        ring.free_to(8);
        assert_eq!(ring.find(3), Some(Space { skip: 2, page: 10 }));
        assert_eq!(ring.find(9), None);
        assert_eq!(ring.offset(10), RING_START_PAGE * PAGE_BYTES);
    }

    #[test]
    fn a_full_ring_has_no_space() {
        let mut ring = Ring::new(4, START, 0);
        ring.advance(4, 1);
        assert_eq!(ring.find(1), None);
        ring.free_to(1);
        assert_eq!(ring.find(1), Some(Space { skip: 0, page: 4 }));
        assert_eq!(ring.find(2), None);
    }

    proptest! {
        #[test]
        fn records_in_use_never_share_a_page(ops in prop::collection::vec((1_u64..9, any::<bool>()), 1..200)) {
            let mut ring = Ring::new(32, START, 0);
            let mut used = std::collections::VecDeque::new();
            for (pages, free) in ops {
                if free && let Some((page, pages)) = used.pop_front() {
                    let _: u64 = pages;
                    let next = used.front().map_or(page + pages, |(page, _)| *page);
                    ring.free_to(next);
                }
                let Some(space) = ring.find(pages) else { continue };
                if space.skip > 0 {
                    used.push_back((ring.head().page, space.skip));
                    ring.advance(space.skip, 0);
                }
                prop_assert_eq!(ring.head().page, space.page);
                prop_assert!(space.page % 32 + pages <= 32);
                ring.advance(pages, 0);
                used.push_back((space.page, pages));
                let mut taken = [false; 32];
                for (page, pages) in &used {
                    for p in *page..page + pages {
                        let place = (p % 32) as usize;
                        prop_assert!(!taken[place]);
                        taken[place] = true;
                    }
                }
            }
        }
    }
}
