//! A write log: its two superblocks, and its records from the tail to the end.
//!
//! Does not: judge otherwise than recovery does. A record that is not whole is the ordinary end of
//! a log, unless a later one says that it had been durable.

use std::io;

use lsvd_common::codec::{DecodeError, page_ceil};
use lsvd_common::ids::Epoch;
use lsvd_common::limits::{RECORD_DATA_MAX, RECORD_HEADER_MAX};
use lsvd_common::log::header::{LOG_SUPERBLOCK_LAYOUT, LogSuperblock, RING_START_PAGE};
use lsvd_common::log::record::{
    EntryKind, RECORD_ENTRY_LAYOUT, RECORD_HEADER_LAYOUT, RecordHeader, RecordKind,
};
use lsvd_common::units::{PAGE_BYTES, PAGE_LEN};

use super::{Options, ROWS_SHOWN, Walk, byte_range};
use crate::input::Input;
use crate::report::{Part, Report, Row, Table, Value};

/// Pages behind the end in which a later record would say that more was durable: the record at the
/// end, whole, and one behind it, as in recovery.
const LOOK_BEHIND: u64 = ((RECORD_HEADER_MAX + RECORD_DATA_MAX) as u64 / PAGE_BYTES) * 2;

pub(super) fn walk(input: &Input, options: &Options, report: &mut Report) -> io::Result<()> {
    let first = input.read(0, PAGE_LEN)?;
    let second = input.read(PAGE_BYTES, PAGE_LEN)?;
    for (name, page, at) in [("first copy", &first, 0), ("second copy", &second, PAGE_BYTES)] {
        let name = format!("log superblock, {name}");
        let mut walk = Walk::new(page, at, options.all, report);
        // A short page is noted below, as a copy that does not count.
        if page.len() >= LOG_SUPERBLOCK_LAYOUT.size {
            let _ = walk.structure(&name, &LOG_SUPERBLOCK_LAYOUT);
        }
    }
    for (name, page) in [("first", &first), ("second", &second)] {
        if let Err(error) = LogSuperblock::decode(page) {
            let note = format!("the {name} copy of the superblock does not count: {error}");
            report.notes.push(note);
        }
    }
    let mut records = Records { input, all: options.all, report, rows: Vec::new(), count: 0 };
    match LogSuperblock::newest(&first, &second) {
        Ok(superblock) => {
            let detail = format!("generation {} counts", superblock.generation);
            records.report.check("log superblock", 0, true, detail);
            records.walk_from_tail(&superblock)?;
        }
        Err(error) => {
            let detail = format!("neither copy is whole: {error}");
            records.report.check("log superblock", 0, false, detail);
            records.wherever_they_are()?;
        }
    }
    records.finish();
    Ok(())
}

struct Records<'a> {
    input: &'a Input,
    all: bool,
    report: &'a mut Report,
    rows: Vec<Row>,
    count: u64,
}

/// A record with a whole header.
struct Found {
    header: RecordHeader,
    crc: u32,
    data: Result<(), DecodeError>,
    /// The header's bytes.
    bytes: Vec<u8>,
}

/// What the next record must be.
#[derive(Clone, Copy)]
struct Next {
    page: u64,
    record: u64,
    previous_crc: u32,
    epoch: Epoch,
}

impl Records<'_> {
    fn read(&self, at: u64) -> io::Result<Result<Found, DecodeError>> {
        let first = self.input.read(at, PAGE_LEN)?;
        let peeked = match RecordHeader::peek(&first) {
            Ok(peeked) => peeked,
            Err(error) => return Ok(Err(error)),
        };
        let whole = peeked.header_len + page_ceil(peeked.data_len);
        let mut bytes = self.input.read(at, whole)?;
        let (header, crc) = match RecordHeader::decode(&bytes) {
            Ok(decoded) => decoded,
            Err(error) => return Ok(Err(error)),
        };
        let data = header.check_data(bytes.get(peeked.header_len..).unwrap_or_default());
        bytes.truncate(peeked.header_len);
        Ok(Ok(Found { header, crc, data, bytes }))
    }

    /// From the tail on, as recovery goes.
    fn walk_from_tail(&mut self, log: &LogSuperblock) -> io::Result<()> {
        let ring_end = RING_START_PAGE.checked_add(log.ring_pages);
        let ring_end = ring_end.and_then(|pages| pages.checked_mul(PAGE_BYTES));
        if ring_end.is_none_or(|end| end > self.input.len()) {
            let detail =
                format!("{} pages of ring do not fit {} bytes", log.ring_pages, self.input.len());
            self.report.check("ring size", 64, false, detail);
        }
        let mut next = Next {
            page: log.tail_page,
            record: log.tail_record.0,
            previous_crc: log.tail_previous_crc,
            epoch: Epoch(0),
        };
        let why = loop {
            let Some(at) = place(log, next.page) else {
                break "the position is past the end of any file".to_owned();
            };
            let found = match self.read(at)? {
                Ok(found) => found,
                Err(error) => break format!("no whole record: {error}"),
            };
            if let Some(why) = breaks_chain(&found.header, &next, log) {
                break why;
            }
            if let Err(error) = found.data {
                break format!("record {}: {error}", found.header.record);
            }
            let in_ring = next.page % log.ring_pages;
            let (pages, left) = (found.header.pages(), log.ring_pages - in_ring);
            let used = next.page - log.tail_page;
            if pages > left || used + pages > log.ring_pages {
                break format!("record {} does not fit the ring", found.header.record);
            }
            let step = if found.header.kind == RecordKind::Skip { left } else { pages };
            self.push(at, &found);
            let Some(page) = next.page.checked_add(step) else {
                break "positions ran out".to_owned();
            };
            next = Next {
                page,
                record: found.header.record.0.saturating_add(1),
                previous_crc: found.crc,
                epoch: found.header.epoch,
            };
        };
        let what = lsvd_cli::human::count(self.count, "record");
        let first = place(log, log.tail_page).unwrap_or_default();
        self.report.check(what, first, true, "headers, data and chain hold".to_owned());
        let evidence = self.durable_behind(log, &next)?;
        let at = place(log, next.page).unwrap_or(self.input.len());
        match evidence {
            Some(record) => {
                let why = format!(
                    "{why}; record {} had been durable, as record {record} behind it says: \
                     acknowledged data is damaged",
                    next.record
                );
                self.report.stop(at, why, true);
            }
            None => {
                let why = format!("the log ends before record {} ({why})", next.record);
                self.report.stop(at, why, false);
            }
        }
        Ok(())
    }

    /// A later record of this log that says that the one at `end` was durable.
    fn durable_behind(&self, log: &LogSuperblock, end: &Next) -> io::Result<Option<u64>> {
        let last = log.tail_page.saturating_add(log.ring_pages);
        let last = end.page.saturating_add(LOOK_BEHIND).min(last);
        for page in end.page..last {
            let Some(at) = place(log, page) else { break };
            if at >= self.input.len() {
                break;
            }
            let Ok(found) = self.read(at)? else { continue };
            let header = &found.header;
            let ours = header.image == log.image && header.log == log.log;
            let later = header.record.0 > end.record && header.page == page;
            let believed = found.data.is_ok() && header.epoch <= log.epoch;
            if ours && later && believed && header.synced_page > end.page {
                return Ok(Some(header.record.0));
            }
        }
        Ok(None)
    }

    /// Without a superblock: every record that is whole, in the order of the file.
    fn wherever_they_are(&mut self) -> io::Result<()> {
        let mut at = 0;
        while at < self.input.len() {
            let step = match self.read(at)? {
                Ok(found) if found.data.is_ok() => {
                    self.push(at, &found);
                    found.header.pages() * PAGE_BYTES
                }
                _ => PAGE_BYTES,
            };
            at += step;
        }
        let why = "without a superblock nobody knows which of the records count".to_owned();
        self.report.stop(0, why, true);
        Ok(())
    }

    fn push(&mut self, at: u64, found: &Found) {
        self.count += 1;
        if !self.all && self.rows.len() >= ROWS_SHOWN {
            return;
        }
        let header = &found.header;
        let number = |value| Value::Number(value);
        let write = |entry: Option<&lsvd_common::log::record::Entry>| {
            number(entry.map_or(0, |entry| entry.write.0))
        };
        let (kind, meaning) = match header.kind {
            RecordKind::Writes => ("writes", sum_up(header)),
            RecordKind::Skip => ("skip", "the rest of the ring is skipped".to_owned()),
        };
        let values = vec![
            ("record", number(header.record.0)),
            ("page", number(header.page)),
            ("epoch", number(header.epoch.0)),
            ("kind", Value::Text(kind.to_owned())),
            ("first_write", write(header.entries.first())),
            ("last_write", write(header.entries.last())),
            ("entries", number(header.entries.len() as u64)),
            ("data_len", number(header.data_len as u64)),
            ("synced_page", number(header.synced_page)),
            ("previous_crc", number(header.previous_crc.into())),
            ("crc", number(found.crc.into())),
        ];
        self.rows.push(Row { offset: at, values, meaning });
        if self.all {
            self.push_fields(at, found);
        }
    }

    /// Every field and entry of a record.
    fn push_fields(&mut self, at: u64, found: &Found) {
        let mut walk = Walk::new(&found.bytes, at, true, self.report);
        let name = format!("record {}", found.header.record);
        if walk.structure(&name, &RECORD_HEADER_LAYOUT).is_none() {
            return;
        }
        let name = format!("entries of record {}", found.header.record);
        let count = found.header.entries.len();
        let _ = walk.table(&name, &RECORD_ENTRY_LAYOUT, count, |_, _, row| {
            format!("{} of the image", byte_range(row.number("lba"), row.number("sectors")))
        });
    }

    fn finish(self) {
        let offset = self.rows.first().map_or(RING_START_PAGE * PAGE_BYTES, |row| row.offset);
        let table = Table {
            name: "records".to_owned(),
            layout: "",
            offset,
            count: self.count,
            rows: self.rows,
        };
        self.report.parts.push(Part::Table(table));
    }
}

/// Where a position is in the file; none if no file is that long.
fn place(log: &LogSuperblock, page: u64) -> Option<u64> {
    // The decoder refuses a ring without pages.
    (page % log.ring_pages).checked_add(RING_START_PAGE)?.checked_mul(PAGE_BYTES)
}

/// Why a record is not the one that continues the log; none if it is.
fn breaks_chain(header: &RecordHeader, next: &Next, log: &LogSuperblock) -> Option<String> {
    if header.image != log.image || header.log != log.log {
        return Some(format!("a record of another log, {} of image {}", header.log, header.image));
    }
    if header.record.0 != next.record || header.page != next.page {
        return Some(format!(
            "a record from another round of the ring, {} at page {}",
            header.record, header.page
        ));
    }
    if header.previous_crc != next.previous_crc {
        return Some(format!("record {} continues another one", header.record));
    }
    if header.epoch < next.epoch || header.epoch > log.epoch {
        return Some(format!("record {} is of epoch {}", header.record, header.epoch));
    }
    None
}

fn sum_up(header: &RecordHeader) -> String {
    let data = |entry: &&lsvd_common::log::record::Entry| matches!(entry.kind, EntryKind::Data(_));
    let written = header.entries.iter().filter(data).count();
    let discards = header.entries.len() - written;
    format!("entries with data {written}, discards {discards}, checksums ok")
}
