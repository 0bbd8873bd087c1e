//! The table of objects that the map refers to: how many of their sectors live, and what a
//! checkpoint must write anew.
//!
//! The map names an object by its slot here. Invariant: the live sectors of an object are exactly
//! those that the map points at.

use std::collections::{BTreeMap, BTreeSet};

use lsvd_common::ids::ObjectSeq;
use lsvd_common::limits::TABLE_SHIFT;
use lsvd_common::object::map_part::TableRow;
use lsvd_common::units::Sectors;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ObjectTable {
    rows: Vec<TableRow>,
    by_seq: BTreeMap<ObjectSeq, u32>,
    dirty: BTreeSet<u32>,
}

impl ObjectTable {
    /// Adds an object; returns its slot. An object that is known already keeps its slot.
    pub(crate) fn add(&mut self, row: TableRow) -> u32 {
        let slot = u32::try_from(self.rows.len()).expect("fewer than 2^32 objects");
        self.mark(row.seq);
        self.by_seq.insert(row.seq, slot);
        self.rows.push(row);
        slot
    }

    /// Adds an object that a checkpoint lists: it need not be written again.
    pub(crate) fn load(&mut self, row: TableRow) {
        let slot = u32::try_from(self.rows.len()).expect("fewer than 2^32 objects");
        self.by_seq.insert(row.seq, slot);
        self.rows.push(row);
    }

    pub(crate) fn slot_of(&self, seq: ObjectSeq) -> Option<u32> {
        self.by_seq.get(&seq).copied()
    }

    pub(crate) fn row(&self, slot: u32) -> &TableRow {
        &self.rows[slot as usize]
    }

    /// Counts sectors that the map does not point at any more.
    pub(crate) fn displaced(&mut self, slot: u32, sectors: Sectors) {
        let row = &mut self.rows[slot as usize];
        assert!(row.live >= sectors, "an object cannot lose more than it has");
        row.live -= sectors;
        let seq = row.seq;
        self.mark(seq);
    }

    fn mark(&mut self, seq: ObjectSeq) {
        self.dirty.insert(section_of(seq));
    }

    /// The sections that changed since the last call, with all their rows.
    pub(crate) fn take_dirty(&mut self) -> Vec<(u32, Vec<TableRow>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty
            .into_iter()
            .map(|section| {
                let first = ObjectSeq(u64::from(section) << TABLE_SHIFT);
                let behind = ObjectSeq(u64::from(section + 1) << TABLE_SHIFT);
                let slots = self.by_seq.range(first..behind).map(|(_, slot)| *slot);
                (section, slots.map(|slot| self.rows[slot as usize]).collect())
            })
            .collect()
    }

    /// The sequence of each slot.
    pub(crate) fn sequences(&self) -> Vec<ObjectSeq> {
        self.rows.iter().map(|row| row.seq).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn live_sectors(&self) -> u64 {
        self.rows.iter().map(|row| row.live.0).sum()
    }

    pub(crate) fn stored_bytes(&self) -> u64 {
        self.rows.iter().map(|row| u64::from(row.object_bytes)).sum()
    }
}

/// The section of the object table that lists an object.
fn section_of(seq: ObjectSeq) -> u32 {
    u32::try_from(seq.0 >> TABLE_SHIFT).expect("fewer than 2^44 objects in an image's life")
}
