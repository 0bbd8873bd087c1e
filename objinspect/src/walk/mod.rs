//! Goes through the bytes: one module for each family of formats, and what they share.

mod cache;
mod log;
mod object;
mod sections;
mod superblock;

use std::io;

use lsvd_common::cache_file;
use lsvd_common::codec::DecodeError;
use lsvd_common::ids::{ImageId, ObjectSeq};
use lsvd_common::layout::Layout;
use lsvd_common::limits::{OBJECT_BYTES_MAX, SUPERBLOCK_BYTES_MAX};
use lsvd_common::log::header::LOG_MAGIC;
use lsvd_common::log::record::RECORD_MAGIC;
use lsvd_common::object::prefix::OBJECT_MAGIC;
use lsvd_common::object::superblock::SUPERBLOCK_MAGIC;
use lsvd_common::units::PAGE_BYTES;

use crate::input::Input;
use crate::report::{Format, Part, Report, Row, Table};
use crate::view::{self, View};

/// Rows of a table that are kept unless all are wanted.
const ROWS_SHOWN: usize = 20;

/// How to look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Keep every row of every table, and go into what tables refer to.
    pub all: bool,
    /// Take the bytes for this, whatever their magic says.
    pub format: Option<Format>,
    /// What is known from elsewhere.
    pub expected: Expected,
}

/// What an object's place says about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// The image by its superblock.
    pub image: Option<ImageId>,
    /// The sequence by its name.
    pub seq: Option<ObjectSeq>,
}

/// Decodes the input as far as possible.
///
/// # Errors
/// Those of reading; what the bytes say is never an error.
pub fn inspect(input: &Input, options: &Options) -> io::Result<Report> {
    let mut report = Report::new(input.name(), input.len());
    let format = match options.format {
        Some(format) => format,
        None => detect(input)?,
    };
    report.format = format;
    match format {
        Format::Object | Format::Data | Format::Moved | Format::MapPart | Format::Checkpoint => {
            // One byte more, so that an object above the limit is seen as one.
            object::walk(&input.read(0, OBJECT_BYTES_MAX + 1)?, options, &mut report);
        }
        Format::Superblock => {
            superblock::walk(&input.read(0, SUPERBLOCK_BYTES_MAX + 1)?, options, &mut report);
        }
        Format::Log => log::walk(input, options, &mut report)?,
        Format::Cache => cache::walk(input, options, &mut report)?,
        Format::Unknown => {
            let why = if input.is_empty() {
                "there are no bytes".to_owned()
            } else {
                let first = view::hex(&input.read(0, 8)?);
                format!("{first} is no magic of ours; if you know what it is, say so with --as")
            };
            report.stop(0, why, true);
        }
    }
    Ok(report)
}

fn detect(input: &Input) -> io::Result<Format> {
    let first = input.read(0, 8)?;
    let known = |magic: &[u8]| match magic {
        magic if magic == OBJECT_MAGIC => Some(Format::Object),
        magic if magic == SUPERBLOCK_MAGIC => Some(Format::Superblock),
        magic if magic == LOG_MAGIC || magic == RECORD_MAGIC => Some(Format::Log),
        magic if magic == cache_file::MAGIC => Some(Format::Cache),
        _ => None,
    };
    if let Some(format) = known(&first) {
        return Ok(format);
    }
    // The first copy of a log's superblock may be the damaged one.
    let second = input.read(PAGE_BYTES, 8)?;
    Ok(if second == LOG_MAGIC { Format::Log } else { Format::Unknown })
}

/// A position in bytes that are gone through in order.
struct Walk<'a, 'r> {
    bytes: &'a [u8],
    /// Of the first byte, in the input.
    base: u64,
    at: usize,
    all: bool,
    report: &'r mut Report,
}

impl<'a, 'r> Walk<'a, 'r> {
    fn new(bytes: &'a [u8], base: u64, all: bool, report: &'r mut Report) -> Self {
        Self { bytes, base, at: 0, all, report }
    }

    /// In the input.
    fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn ended(&mut self, name: &str, needed: usize) {
        let why = format!("{name}: {needed} bytes needed and {} there", self.rest().len());
        self.report.stop(self.offset(), why, true);
    }

    /// The next structure. None, after noting where the bytes ended, if it is not all there.
    fn structure(&mut self, name: &str, layout: &'static Layout) -> Option<View<'a>> {
        let (rest, offset) = (self.rest(), self.offset());
        self.report.parts.push(Part::Structure(view::structure(name, layout, rest, offset)));
        let Some(view) = View::new(layout, rest, offset) else {
            self.ended(name, layout.size);
            return None;
        };
        self.at += layout.size;
        Some(view)
    }

    /// The next `count` rows, each with what `meaning` says about it.
    fn table(
        &mut self,
        name: &str,
        layout: &'static Layout,
        count: usize,
        mut meaning: impl FnMut(&mut Report, usize, View<'a>) -> String,
    ) -> Option<()> {
        self.rows(name, layout.name, count, |walk, index| {
            let view = View::new(layout, walk.rest(), walk.offset());
            let Some(view) = view else {
                walk.ended(&format!("row {index} of {name}"), layout.size);
                return None;
            };
            walk.at += layout.size;
            let meaning = meaning(walk.report, index, view);
            Some(view.row(meaning))
        })
    }

    /// The next `count` rows, each made by `next`. Keeps the first of them, or all.
    fn rows(
        &mut self,
        name: &str,
        layout: &'static str,
        count: usize,
        mut next: impl FnMut(&mut Self, usize) -> Option<Row>,
    ) -> Option<()> {
        if count == 0 {
            return Some(());
        }
        let offset = self.offset();
        let mut rows = Vec::new();
        let mut whole = Some(());
        for index in 0..count {
            let Some(row) = next(self, index) else {
                whole = None;
                break;
            };
            if self.all || index < ROWS_SHOWN {
                rows.push(row);
            }
        }
        let count = count as u64;
        self.report.parts.push(Part::Table(Table {
            name: name.to_owned(),
            layout,
            offset,
            count,
            rows,
        }));
        whole
    }

    /// The next `len` bytes as text.
    fn text(&mut self, name: &str, len: usize) -> Option<String> {
        let Some(bytes) = self.rest().get(..len) else {
            self.ended(name, len);
            return None;
        };
        self.at += len;
        Some(String::from_utf8_lossy(bytes).escape_debug().to_string())
    }
}

/// Adds what the reader of this software makes of the bytes, so that a report never calls whole
/// what would be refused.
fn check_reader<T>(report: &mut Report, what: &str, at: u64, result: Result<T, DecodeError>) {
    match result {
        Ok(_) => report.check(what, at, true, "accepted".to_owned()),
        Err(error) => report.check(what, at, false, error.to_string()),
    }
}

/// Adds a comparison of checksums.
fn check_crc(report: &mut Report, what: String, at: u64, expected: u32, found: u32) {
    let ok = expected == found;
    let detail = if ok {
        format!("{found:08x}")
    } else {
        format!("expected {expected:08x}, found {found:08x}")
    };
    report.check(what, at, ok, detail);
}

/// A range of bytes in words; wild values do not overflow.
fn byte_range(sector: u64, sectors: u64) -> String {
    let bytes = |sectors: u64| u128::from(sectors) * 512;
    format!("bytes {}..{}", bytes(sector), bytes(sector) + bytes(sectors))
}

#[cfg(test)]
mod test;
