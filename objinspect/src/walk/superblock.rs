//! The superblock of an image.

use lsvd_common::checksum::header_crc;
use lsvd_common::layout::Layout;
use lsvd_common::object::superblock::{
    CHECKPOINT_ROW_LAYOUT, CHILD_ROW_LAYOUT, LINEAGE_ROW_LAYOUT, OWNER_FIELDS_LAYOUT,
    SNAPSHOT_ROW_LAYOUT, SUPERBLOCK_FIELDS_LAYOUT, Superblock,
};

use super::object::{crc_field, offset_of};
use super::{Options, Walk, check_crc, check_reader};
use crate::report::{Report, Value};
use crate::view::View;

pub(super) fn walk(bytes: &[u8], options: &Options, report: &mut Report) {
    let mut walk = Walk::new(bytes, 0, options.all, report);
    // None means that the bytes ended, which has been noted.
    let _ = parts(&mut walk);
    let behind = walk.at;
    if report.stopped.is_none() && behind < bytes.len() {
        let detail = format!("{} bytes follow the last part", bytes.len() - behind);
        report.check("superblock length", behind as u64, false, detail);
    }
    check_reader(report, "superblock as a whole", 0, Superblock::decode(bytes));
}

fn parts(walk: &mut Walk<'_, '_>) -> Option<()> {
    let fields = walk.structure("superblock", &SUPERBLOCK_FIELDS_LAYOUT)?;
    let at = offset_of(&SUPERBLOCK_FIELDS_LAYOUT, "crc");
    let (expected, found) = (crc_field(&fields, "crc"), header_crc(walk.bytes, at));
    check_crc(walk.report, "superblock checksum".into(), at as u64, expected, found);
    if fields.number("owner_present") == 1 {
        owner(walk)?;
    }
    let count = fields.length("checkpoint_count");
    walk.table("checkpoints", &CHECKPOINT_ROW_LAYOUT, count, |_, _, row| {
        format!("object {:016x}, covers up to {:016x}", row.number("seq"), row.number("covers"))
    })?;
    named(walk, "snapshots", &SNAPSHOT_ROW_LAYOUT, fields.length("snapshot_count"))?;
    named(walk, "lineage", &LINEAGE_ROW_LAYOUT, fields.length("lineage_count"))?;
    named(walk, "children", &CHILD_ROW_LAYOUT, fields.length("child_count"))
}

fn owner(walk: &mut Walk<'_, '_>) -> Option<()> {
    let fields = walk.structure("owner", &OWNER_FIELDS_LAYOUT)?;
    let offset = walk.offset();
    let host = walk.text("owner's host", fields.length("host_len"))?;
    let place = walk.text("owner's place", fields.length("place_len"))?;
    walk.report.notes.push(format!(
        "the owner is process {} on {host}, its write log in {place} (texts at {offset})",
        fields.number("pid")
    ));
    Some(())
}

/// Rows that each end in a name.
fn named(walk: &mut Walk<'_, '_>, name: &str, layout: &'static Layout, count: usize) -> Option<()> {
    walk.rows(name, layout.name, count, |walk, index| {
        let Some(view) = View::new(layout, walk.rest(), walk.offset()) else {
            walk.ended(&format!("row {index} of {name}"), layout.size);
            return None;
        };
        walk.at += layout.size;
        let text = walk.text(&format!("name in row {index} of {name}"), view.length("name_len"))?;
        let mut row = view.row(format!("named {text}"));
        row.values.push(("name", Value::Text(text)));
        Some(row)
    })
}
