//! Map parts and checkpoints: the map's sections, and references to them.

use lsvd_common::checksum::{Domain, crc};
use lsvd_common::limits::REGION_SHIFT_MAX;
use lsvd_common::object::checkpoint::{CHECKPOINT_FIELDS_LAYOUT, SECTION_REF_LAYOUT};
use lsvd_common::object::map_part::{
    MAP_PART_FIELDS_LAYOUT, OBJECT_ROW_LAYOUT, REGION_ENTRY_LAYOUT, REGION_HEAD_LAYOUT,
    SECTION_LAYOUT, decode_region, decode_table,
};

use super::object::{crc_field, verdict};
use super::{Walk, byte_range, check_crc, check_reader};
use crate::report::Report;
use crate::view::{self, View};

const REGION: u64 = 1;
const OBJECTS: u64 = 2;

/// A section that is all there.
struct Found<'a> {
    kind: u64,
    index: u64,
    at: u64,
    bytes: &'a [u8],
}

pub(super) fn map_part(walk: &mut Walk<'_, '_>, header_len: usize, body: &[u8]) -> Option<()> {
    let fields = walk.structure("map part fields", &MAP_PART_FIELDS_LAYOUT)?;
    let mut found = Vec::new();
    let all = walk.all;
    walk.table(
        "sections",
        &SECTION_LAYOUT,
        fields.length("section_count"),
        |report, index, row| {
            let at = header_len as u64 + row.number("offset");
            let stored = body.get(row.length("offset")..);
            let Some(bytes) = stored.and_then(|rest| rest.get(..row.length("len"))) else {
                let detail = "the object ends before the section does".to_owned();
                report.check(format!("section {index}"), at, false, detail);
                return "not all there".to_owned();
            };
            let section = Found { kind: row.number("kind"), index: row.number("index"), at, bytes };
            let meaning = verify(report, index, &row, &section);
            if all {
                found.push(section);
            }
            meaning
        },
    )?;
    for section in found {
        content(walk.report, &section);
    }
    Some(())
}

/// Checks a section and sums it up.
fn verify(report: &mut Report, index: usize, row: &View<'_>, section: &Found<'_>) -> String {
    let (expected, found) = (crc_field(row, "crc"), crc(Domain::Section, section.bytes));
    let what = format!("section {index}");
    check_crc(report, what.clone(), section.at, expected, found);
    let content = match section.kind {
        // The size of regions is in checkpoints and the superblock; the largest one accepts them
        // all.
        REGION => match decode_region(0, REGION_SHIFT_MAX, section.bytes) {
            Ok(extents) => format!("extents {}", extents.len()),
            Err(error) => {
                check_reader(report, &what, section.at, Err::<(), _>(error));
                error.to_string()
            }
        },
        OBJECTS => match decode_table(section.bytes) {
            Ok(rows) => {
                let live: u64 = rows.iter().map(|row| row.live.0).sum();
                format!("objects {}, live sectors {live}", rows.len())
            }
            Err(error) => {
                check_reader(report, &what, section.at, Err::<(), _>(error));
                error.to_string()
            }
        },
        _ => "of unknown kind".to_owned(),
    };
    format!("{}, {content}", verdict(expected, found))
}

/// Every row of a section.
fn content(report: &mut Report, section: &Found<'_>) -> Option<()> {
    let Found { kind, index, at, bytes } = *section;
    let mut walk = Walk::new(bytes, at, true, report);
    match kind {
        REGION => {
            let head = walk.structure(&format!("region {index}"), &REGION_HEAD_LAYOUT)?;
            let mut objects = Vec::new();
            walk.rows("objects of the region", "", head.length("object_count"), |walk, number| {
                let Some(raw) = walk.rest().get(..8) else {
                    walk.ended("object of a region", 8);
                    return None;
                };
                let seq = view::little_endian(raw)?;
                let offset = walk.offset();
                walk.at += raw.len();
                objects.push(seq);
                Some(view::number_row(offset, "seq", seq, format!("object {number}, {seq:016x}")))
            })?;
            walk.table("extents", &REGION_ENTRY_LAYOUT, head.length("entry_count"), |_, _, row| {
                let sectors = row.number("sectors_minus_one") + 1;
                let range = byte_range(row.number("lba"), sectors);
                match objects.get(row.length("object")) {
                    Some(seq) => format!("{range} of the region are in {seq:016x}"),
                    None => format!("{range} of the region are in an object that is not listed"),
                }
            })
        }
        OBJECTS => {
            let name = format!("object table {index}");
            let count = bytes.len() / OBJECT_ROW_LAYOUT.size;
            walk.table(&name, &OBJECT_ROW_LAYOUT, count, |_, _, row| {
                format!("object {:016x}", row.number("seq"))
            })
        }
        _ => None,
    }
}

pub(super) fn checkpoint(walk: &mut Walk<'_, '_>) -> Option<()> {
    let fields = walk.structure("checkpoint fields", &CHECKPOINT_FIELDS_LAYOUT)?;
    let shift = u32::try_from(fields.number("region_shift")).unwrap_or(u32::MAX);
    let region = 1_u64.checked_shl(shift).unwrap_or(0);
    let count = fields.length("section_count");
    walk.table("sections", &SECTION_REF_LAYOUT, count, |_, _, row| {
        let (index, seq) = (row.number("index"), row.number("seq"));
        let what = if row.number("kind") == REGION {
            format!("{} of the image", byte_range(index.saturating_mul(region), region))
        } else {
            format!("rows of objects from {} on", index.saturating_mul(4096))
        };
        format!("{what}, in map part {seq:016x}")
    })?;
    walk.rows("pending deletes", "", fields.length("pending_count"), |walk, _| {
        let Some(raw) = walk.rest().get(..8) else {
            walk.ended("pending delete", 8);
            return None;
        };
        let (seq, offset) = (view::little_endian(raw)?, walk.offset());
        walk.at += raw.len();
        Some(view::number_row(offset, "seq", seq, format!("object {seq:016x} may be deleted")))
    })
}
