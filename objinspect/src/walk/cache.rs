//! A gateway's read cache: its superblock, and the claims of its index.
//!
//! A claim that does not hold is no damage: the index is written later than the slots, and
//! leftovers of an earlier cache are never cleared. So claims are counted, and only the superblock
//! is judged.

use std::io;

use lsvd_common::cache_file::{
    CACHE_ENTRY_LAYOUT, CACHE_SUPERBLOCK_LAYOUT, CacheSuperblock, ENTRIES_PER_PAGE, FrameClaim,
    Geometry, decode_entry,
};
use lsvd_common::ids::Uuid;
use lsvd_common::units::PAGE_LEN;

use super::{Options, ROWS_SHOWN, Walk, check_reader};
use crate::input::Input;
use crate::report::{Part, Report, Row, Table};
use crate::view::View;

/// Index pages that are read at a time.
const PAGES_AT_ONCE: u32 = 256;

#[derive(Default)]
struct Index {
    rows: Vec<Row>,
    claims: u64,
    empty: u64,
    strange: u64,
    disproved: u64,
}

pub(super) fn walk(input: &Input, options: &Options, report: &mut Report) -> io::Result<()> {
    let first = input.read(0, PAGE_LEN)?;
    let mut walk = Walk::new(&first, 0, options.all, report);
    let Some(fields) = walk.structure("cache superblock", &CACHE_SUPERBLOCK_LAYOUT) else {
        return Ok(());
    };
    let cache = Uuid::from_slice(fields.raw("cache")).unwrap_or_default();
    let decoded = CacheSuperblock::decode(&first, input.len());
    check_reader(report, "cache superblock", 0, decoded);
    // What the file's length makes of it, even if the superblock says otherwise.
    let Some(geometry) = Geometry::of_file(input.len()) else {
        report.stop(PAGE_LEN as u64, "the file is too small for a single slot".to_owned(), true);
        return Ok(());
    };
    let index = read_index(input, options, geometry, cache)?;
    let Index { rows, claims, empty, strange, disproved } = index;
    report.notes.push(format!(
        "{} slots: {claims} claimed, {empty} empty, {strange} with entries that are not of this \
         cache or damaged, which is no loss",
        geometry.slots()
    ));
    if options.all {
        report.notes.push(format!(
            "{disproved} of the claims do not hold: the slot has other content by now, which is no \
             loss"
        ));
    }
    report.parts.push(Part::Table(Table {
        name: "claims".to_owned(),
        layout: CACHE_ENTRY_LAYOUT.name,
        offset: geometry.index_page_offset(0),
        count: claims,
        rows,
    }));
    Ok(())
}

fn read_index(
    input: &Input,
    options: &Options,
    geometry: Geometry,
    cache: Uuid,
) -> io::Result<Index> {
    let mut index = Index::default();
    let mut page = 0;
    while page < geometry.index_pages() {
        let pages = PAGES_AT_ONCE.min(geometry.index_pages() - page);
        let at = geometry.index_page_offset(page);
        let bytes = input.read(at, pages as usize * PAGE_LEN)?;
        let entries = bytes.chunks_exact(CACHE_ENTRY_LAYOUT.size);
        let first = page * ENTRIES_PER_PAGE;
        for (slot, entry) in (first..geometry.slots()).zip(entries) {
            match decode_entry(entry, cache, slot) {
                Ok(None) => index.empty += 1,
                Err(_) => index.strange += 1,
                Ok(Some(claim)) => {
                    index.claims += 1;
                    let mut meaning = format!("slot {slot}, image {}", claim.key.image);
                    if options.all && !holds(input, geometry, slot, &claim)? {
                        index.disproved += 1;
                        meaning.push_str(", does not hold");
                    }
                    let at = at + u64::from(slot - first) * CACHE_ENTRY_LAYOUT.size as u64;
                    if options.all || index.rows.len() < ROWS_SHOWN {
                        let view = View::new(&CACHE_ENTRY_LAYOUT, entry, at);
                        index.rows.extend(view.map(|view| view.row(meaning)));
                    }
                }
            }
        }
        page += pages;
    }
    Ok(index)
}

fn holds(input: &Input, geometry: Geometry, slot: u32, claim: &FrameClaim) -> io::Result<bool> {
    let pages = input.read(geometry.slot_offset(slot), claim.pages() * PAGE_LEN)?;
    Ok(claim.proved_by(&pages))
}
