//! Numbered objects: prefix, header, and what the body's checksums say.

use lsvd_common::checksum::{Domain, crc, header_crc};
use lsvd_common::codec::{DecodeError, page_ceil};
use lsvd_common::layout::Layout;
use lsvd_common::object::checkpoint::Checkpoint;
use lsvd_common::object::data::{
    DATA_FIELDS_LAYOUT, DISCARD_LAYOUT, DataHeader, EXTENT_LAYOUT, FRAME_LAYOUT, SOURCE_LAYOUT,
};
use lsvd_common::object::map_part::MapPartHeader;
use lsvd_common::object::prefix::{PREFIX_LAYOUT, peek};

use super::{Options, Walk, byte_range, check_crc, check_reader, sections};
use crate::report::{Format, Report};
use crate::view::View;

/// Where the checksum of the header is: its place in the prefix.
const CRC_FIELD: &str = "header_crc";

pub(super) fn walk(bytes: &[u8], options: &Options, report: &mut Report) {
    let mut walk = Walk::new(bytes, 0, options.all, report);
    let Some(prefix) = walk.structure("object prefix", &PREFIX_LAYOUT) else { return };
    let report = walk.report;
    // Nothing is believed that the reader would refuse; what follows is shown all the same.
    check_reader(report, "object prefix", 0, peek(bytes));
    let header_len = prefix.length("header_len").max(PREFIX_LAYOUT.size);
    let header = bytes.get(..header_len);
    check_header(report, &prefix, header, header_len, bytes.len());
    check_place(report, &prefix, options);
    check_length(report, &prefix, header_len);
    let mut walk = Walk::new(header.unwrap_or(bytes), 0, options.all, report);
    walk.at = PREFIX_LAYOUT.size;
    let body = bytes.get(header_len..).unwrap_or_default();
    match prefix.number("kind") {
        kind @ (1 | 2) => {
            walk.report.format = if kind == 1 { Format::Data } else { Format::Moved };
            data(&mut walk, header_len, body);
            accept(report, DataHeader::decode(bytes));
        }
        3 => {
            walk.report.format = Format::MapPart;
            sections::map_part(&mut walk, header_len, body);
            accept(report, MapPartHeader::decode(bytes));
        }
        4 => {
            walk.report.format = Format::Checkpoint;
            sections::checkpoint(&mut walk);
            accept(report, Checkpoint::decode(bytes));
        }
        kind => report.stop(10, format!("objects of kind {kind} are unknown"), true),
    }
}

fn accept<T>(report: &mut Report, result: Result<T, DecodeError>) {
    check_reader(report, "header as a whole", 0, result);
}

fn check_header(
    report: &mut Report,
    prefix: &View<'_>,
    header: Option<&[u8]>,
    header_len: usize,
    found: usize,
) {
    let at = offset_of(&PREFIX_LAYOUT, CRC_FIELD);
    match header {
        Some(header) => {
            let expected = crc_field(prefix, CRC_FIELD);
            check_crc(
                report,
                "header checksum".into(),
                at as u64,
                expected,
                header_crc(header, at),
            );
        }
        None => {
            let detail = format!("{header_len} bytes of header needed and {found} there");
            report.check("header checksum", at as u64, false, detail);
        }
    }
}

/// The object is where its name and its image say.
fn check_place(report: &mut Report, prefix: &View<'_>, options: &Options) {
    if let Some(seq) = options.expected.seq {
        let found = prefix.number("seq");
        let detail = format!("the name says {}, the object {found}", seq.0);
        let at = offset_of(&PREFIX_LAYOUT, "seq") as u64;
        report.check("sequence", at, seq.0 == found, detail);
    }
    if let Some(image) = options.expected.image {
        let ok = image.0.as_bytes() == prefix.raw("image");
        let detail = format!("the superblock says {image}");
        report.check("image", offset_of(&PREFIX_LAYOUT, "image") as u64, ok, detail);
    }
}

fn check_length(report: &mut Report, prefix: &View<'_>, header_len: usize) {
    let body_len = prefix.length("body_len");
    let wanted = (header_len + page_ceil(body_len)) as u64;
    let found = report.bytes;
    let detail = if wanted == found {
        format!("{found} bytes")
    } else {
        format!("{wanted} bytes by the header, {found} there")
    };
    report.check("object length", 0, wanted == found, detail);
}

fn data(walk: &mut Walk<'_, '_>, header_len: usize, body: &[u8]) -> Option<()> {
    let fields = walk.structure("data fields", &DATA_FIELDS_LAYOUT)?;
    let mut payload = 0_u64;
    walk.table("extents", &EXTENT_LAYOUT, fields.length("extent_count"), |_, _, row| {
        let (lba, sectors) = (row.number("lba"), row.number("sectors"));
        let at = payload;
        payload = payload.saturating_add(sectors.saturating_mul(512));
        format!("{} of the image, payload from {at} on", byte_range(lba, sectors))
    })?;
    walk.table("discards", &DISCARD_LAYOUT, fields.length("discard_count"), |_, _, row| {
        format!("{} of the image", byte_range(row.number("lba"), row.number("sectors")))
    })?;
    walk.table("sources", &SOURCE_LAYOUT, fields.length("source_count"), |_, index, row| {
        format!("extent {index} was in object {:016x}", row.number("seq"))
    })?;
    walk.table("frames", &FRAME_LAYOUT, fields.length("frame_count"), |report, index, row| {
        frame(report, index, &row, header_len, body)
    })
}

/// Verifies the stored bytes of a frame, and says how it came out.
fn frame(
    report: &mut Report,
    index: usize,
    row: &View<'_>,
    header_len: usize,
    body: &[u8],
) -> String {
    let what = format!("frame {index}");
    let (offset, len) = (row.length("stored_offset"), row.length("stored_len"));
    let at = (header_len as u64).saturating_add(offset as u64);
    let Some(stored) = body.get(offset..).and_then(|rest| rest.get(..len)) else {
        let detail = format!("{len} bytes needed, the object ends before");
        report.check(what, at, false, detail);
        return "not all there".to_owned();
    };
    let (expected, found) = (crc_field(row, "crc"), crc(Domain::Data, stored));
    check_crc(report, what, at, expected, found);
    verdict(expected, found)
}

/// The outcome of a comparison of checksums, for a row.
pub(super) fn verdict(expected: u32, found: u32) -> String {
    if expected == found {
        "checksum ok".to_owned()
    } else {
        format!("CHECKSUM BAD, found {found:08x}")
    }
}

/// A 32-bit field.
pub(super) fn crc_field(view: &View<'_>, field: &str) -> u32 {
    u32::try_from(view.number(field)).expect("checksums have 4 bytes")
}

/// Where a field is in its layout.
pub(super) fn offset_of(layout: &Layout, field: &str) -> usize {
    let found = layout.fields.iter().find(|candidate| candidate.name == field);
    found.expect("callers name fields of the layout").offset
}
