//! The scan of a write log after a crash: every record from the tail on that counts.
//!
//! A record counts if it is whole and continues the one before it: same image and log, next
//! sequence, next position, and the header checksum of its predecessor. The first that does not
//! ends the log: it was being written, or a sync that nobody was told of had not covered it. Unless
//! a later record says that it was durable: then acknowledged data is damaged, and that is an
//! error, not an end.

use lsvd_common::codec::page_ceil;
use lsvd_common::ids::{Epoch, WriteSeq};
use lsvd_common::limits::{RECORD_DATA_MAX, RECORD_HEADER_MAX};
use lsvd_common::log::header::LogSuperblock;
use lsvd_common::log::record::{EntryKind, RecordHeader, RecordKind, RecordPeek};
use lsvd_common::units::{PAGE_BYTES, PAGE_LEN, SectorRange};

use crate::batch::{EntryPlace, LogMark};
use crate::disk::{AlignedBuf, Disk};
use crate::error::{Error, ErrorKind, Result};
use crate::log::ring::Ring;

/// Bytes read at a time.
const WINDOW_BYTES: usize = 4 << 20;

/// What an entry of a scanned record does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScannedEntry {
    pub(crate) range: SectorRange,
    /// Where its data is; none for a discard.
    pub(crate) place: Option<EntryPlace>,
}

/// A record that counts.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) begin: LogMark,
    pub(crate) end: LogMark,
    pub(crate) first_write: WriteSeq,
    pub(crate) last_write: WriteSeq,
    pub(crate) entries: Vec<ScannedEntry>,
}

/// What a log holds.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Records with writes, in order.
    pub(crate) records: Vec<Scanned>,
    /// Behind the last record that counts.
    pub(crate) end: LogMark,
    /// A successful sync is known to cover all records before this page.
    pub(crate) synced_page: u64,
}

/// Reads both superblock pages.
///
/// # Errors
/// The SSD failed, or neither copy is whole.
pub(crate) async fn superblock(log: &dyn Disk) -> Result<LogSuperblock> {
    let pages = log.read_at(0, 2 * PAGE_LEN).await.map_err(|error| {
        Error::disk(format!("read the superblock of {}", log.describe()), error)
    })?;
    let newest = LogSuperblock::newest(&pages[..PAGE_LEN], &pages[PAGE_LEN..]);
    let superblock = newest.map_err(|error| {
        Error::corrupt(
            format!("both superblocks of the write log {} are damaged", log.describe()),
            error,
        )
    })?;
    if Ring::file_bytes(superblock.ring_pages) > log.len() {
        let context = format!(
            "the write log {} has {} bytes, its superblock says {}",
            log.describe(),
            log.len(),
            Ring::file_bytes(superblock.ring_pages)
        );
        return Err(Error::new(ErrorKind::Corrupt, context));
    }
    Ok(superblock)
}

/// Finds every record that counts.
///
/// # Errors
/// The SSD failed, or a record that was durable is damaged.
pub(crate) async fn scan(
    log: &dyn Disk,
    superblock: &LogSuperblock,
    trust_data: bool,
) -> Result<Scan> {
    let mut scanner = Scanner {
        log,
        superblock: *superblock,
        trust_data,
        window: AlignedBuf::zeroed(0),
        window_page: 0,
    };
    let mut mark = LogMark {
        page: superblock.tail_page,
        record: superblock.tail_record,
        previous_crc: superblock.tail_previous_crc,
    };
    let mut records = Vec::new();
    let (mut epoch, mut synced_page) = (Epoch(0), superblock.tail_page);
    while let Some((header, crc)) = scanner.record_at(mark.page).await? {
        let follows = header.record == mark.record
            && header.page == mark.page
            && header.previous_crc == mark.previous_crc
            && header.epoch >= epoch
            && header.epoch <= superblock.epoch;
        let pages = scanner.pages_of(&header);
        if !follows || mark.page - superblock.tail_page + pages > superblock.ring_pages {
            break;
        }
        epoch = header.epoch;
        synced_page = synced_page.max(header.synced_page.min(mark.page));
        let end =
            LogMark { page: mark.page + pages, record: mark.record.next(), previous_crc: crc };
        if header.kind == RecordKind::Writes {
            records.push(scanner.scanned(&header, mark, end));
        }
        mark = end;
    }
    scanner.check_end(mark).await?;
    Ok(Scan { records, end: mark, synced_page })
}

/// Writes the pages from `from` to `to` again, as they are. Pages that a failed sync lost read well
/// until power goes, and no later sync covers them; whoever failed may not have had the time to say
/// so.
pub(crate) async fn rewrite(
    log: &dyn Disk,
    ring_pages: u64,
    from: u64,
    to: u64,
) -> std::io::Result<()> {
    let mut page = from;
    while page < to {
        let place = page % ring_pages;
        let window = (WINDOW_BYTES / PAGE_LEN) as u64;
        let pages = (to - page).min(ring_pages - place).min(window);
        let offset = Ring::file_bytes(place);
        let bytes = log.read_at(offset, pages as usize * PAGE_LEN).await?;
        log.write_at(offset, bytes.freeze()).await?;
        page += pages;
    }
    Ok(())
}

struct Scanner<'a> {
    log: &'a dyn Disk,
    superblock: LogSuperblock,
    trust_data: bool,
    window: AlignedBuf,
    /// Place in the ring of the window's first page.
    window_page: u64,
}

impl Scanner<'_> {
    /// `len` bytes, whole pages, from a position on; none if they cross the end of the ring.
    async fn bytes(&mut self, page: u64, len: usize) -> Result<Option<&[u8]>> {
        let place = page % self.superblock.ring_pages;
        let left = (self.superblock.ring_pages - place) * PAGE_BYTES;
        if len as u64 > left {
            return Ok(None);
        }
        let inside = place.checked_sub(self.window_page).map(|pages| pages * PAGE_BYTES);
        let covered = inside.is_some_and(|at| at + len as u64 <= self.window.len() as u64);
        if !covered {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(len.max(WINDOW_BYTES));
            let offset = Ring::file_bytes(place);
            self.window = self.log.read_at(offset, want).await.map_err(|error| {
                Error::disk(format!("read the write log {}", self.log.describe()), error)
            })?;
            self.window_page = place;
        }
        let at = usize::try_from((place - self.window_page) * PAGE_BYTES).unwrap_or(usize::MAX);
        Ok(self.window.get(at..at + len))
    }

    /// The whole record at a position, if there is one of this image and log.
    async fn record_at(&mut self, page: u64) -> Result<Option<(RecordHeader, u32)>> {
        let Some(first) = self.bytes(page, PAGE_LEN).await? else { return Ok(None) };
        let Ok(peek) = RecordHeader::peek(first) else { return Ok(None) };
        let RecordPeek { header_len, data_len } = peek;
        let (image, log, trust) = (self.superblock.image, self.superblock.log, self.trust_data);
        let whole = header_len + page_ceil(data_len);
        let Some(bytes) = self.bytes(page, whole).await? else { return Ok(None) };
        let Ok((header, crc)) = RecordHeader::decode(bytes) else { return Ok(None) };
        let ours = header.image == image && header.log == log;
        let data = bytes.get(header_len..).unwrap_or_default();
        let is_whole = trust || header.check_data(data).is_ok();
        Ok((ours && is_whole).then_some((header, crc)))
    }

    /// Pages from the start of a record to the start of the next.
    fn pages_of(&self, header: &RecordHeader) -> u64 {
        match header.kind {
            RecordKind::Writes => header.pages(),
            RecordKind::Skip => {
                self.superblock.ring_pages - header.page % self.superblock.ring_pages
            }
        }
    }

    fn scanned(&self, header: &RecordHeader, begin: LogMark, end: LogMark) -> Scanned {
        let place = begin.page % self.superblock.ring_pages;
        let mut at = Ring::file_bytes(place) + header.header_len() as u64;
        let mut entries = Vec::with_capacity(header.entries.len());
        for entry in &header.entries {
            let place = match entry.kind {
                EntryKind::Discard => None,
                EntryKind::Data(crc) => {
                    let len = u32::try_from(entry.range.len.bytes_usize()).unwrap_or(u32::MAX);
                    let place = EntryPlace { at, len, crc };
                    at += u64::from(len);
                    Some(place)
                }
            };
            entries.push(ScannedEntry { range: entry.range, place });
        }
        let write = |entry: Option<&lsvd_common::log::record::Entry>| {
            entry.map_or(WriteSeq(0), |entry| entry.write)
        };
        Scanned {
            begin,
            end,
            first_write: write(header.entries.first()),
            last_write: write(header.entries.last()),
            entries,
        }
    }

    /// The header of a record at a position, if there is a whole one of this image and log. Its
    /// data is not looked at: what the header says of other records is as good without it.
    async fn header_at(&mut self, page: u64) -> Result<Option<RecordHeader>> {
        let Some(first) = self.bytes(page, PAGE_LEN).await? else { return Ok(None) };
        let Ok(peek) = RecordHeader::peek(first) else { return Ok(None) };
        let Some(bytes) = self.bytes(page, peek.header_len).await? else { return Ok(None) };
        let Ok((header, _)) = RecordHeader::decode(bytes) else { return Ok(None) };
        let ours = header.image == self.superblock.image && header.log == self.superblock.log;
        Ok(ours.then_some(header))
    }

    /// Looks behind the end for a record that says that more was durable. Later records are
    /// followed one by one for as far as they go: the first that was written after a sync may
    /// be far behind.
    async fn check_end(&mut self, end: LogMark) -> Result<()> {
        // The record at the end, whole, and one behind it: so far the next one may be away.
        let span = ((RECORD_HEADER_MAX + RECORD_DATA_MAX) as u64 / PAGE_BYTES) * 2;
        let ring = self.superblock.ring_pages;
        let behind = self.superblock.tail_page + ring;
        let (mut page, mut seen) = (end.page, end.page);
        while page < behind && page - seen <= span {
            // Also of a later lap or term: then it is the newer superblock that is damaged, and
            // this one too old.
            let later = self.header_at(page).await?.filter(|header| {
                let is_here = header.page >= page && (header.page - page).is_multiple_of(ring);
                is_here && header.record > end.record
            });
            let Some(header) = later else {
                page += 1;
                continue;
            };
            if header.synced_page > end.page {
                return Err(self.damaged(end));
            }
            seen = page;
            page += self.pages_of(&header);
        }
        Ok(())
    }

    fn damaged(&self, end: LogMark) -> Error {
        let context = format!(
            "the write log {} is damaged at byte {}: record {} was durable and cannot be read; to \
             go on without it and everything behind it, from what the store has, take the image over",
            self.log.describe(),
            Ring::file_bytes(end.page % self.superblock.ring_pages),
            end.record
        );
        Error::new(ErrorKind::Corrupt, context)
    }
}
