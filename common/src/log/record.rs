//! Log records: the writes of one group commit, with a checksum over the header and one over the
//! data of each entry.
//!
//! A record starts at a page: header, entries, zeros to a whole page, then the data of the entries
//! one after another, zeros to a whole page. It counts only if it is whole and the record before it
//! is the one whose checksum it names: so a record left over from before a crash never follows one
//! written after it.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{Domain, crc, header_crc};
use crate::codec::{DecodeError, DecodeKind, Reader, page_ceil, to_u32, to_usize};
use crate::ids::{Epoch, ImageId, LogId, RecordSeq, Uuid, WriteSeq};
use crate::layout::layout;
use crate::limits::{
    COUNTER_MAX, ENTRY_DATA_MAX, IMAGE_SECTORS_MAX, RECORD_DATA_MAX, RECORD_ENTRIES_MAX,
    RECORD_HEADER_MAX,
};
use crate::units::{PAGE_BYTES, SECTOR_BYTES, Sector, SectorRange, Sectors};

/// First bytes of a record.
pub const RECORD_MAGIC: [u8; 8] = *b"LSVDrec\x01";

/// The version that this software writes. History: 1, the first.
pub const RECORD_VERSION: u16 = 1;

const CRC_AT: usize = 12;

/// The entry is the last of its write: a write of more than 64 KiB has several entries of one
/// sequence.
const FLAG_LAST: u8 = 1;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RecordHeaderBytes {
    magic: [u8; 8],
    version: U16,
    kind: u8,
    reserved: u8,
    crc: U32,
    image: [u8; 16],
    log: [u8; 16],
    epoch: U64,
    record: U64,
    page: U64,
    first_write: U64,
    last_write: U64,
    previous_crc: U32,
    header_len: U32,
    data_len: U32,
    entry_count: U32,
    synced_page: U64,
    reserved2: [u8; 16],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RecordEntryBytes {
    lba: U64,
    sectors: U64,
    write: U64,
    crc: U32,
    kind: u8,
    flags: u8,
    reserved: U16,
}

layout!(
    RECORD_HEADER_LAYOUT,
    RecordHeaderBytes,
    128,
    [
        magic,
        version,
        kind,
        reserved,
        crc,
        image,
        log,
        epoch,
        record,
        page,
        first_write,
        last_write,
        previous_crc,
        header_len,
        data_len,
        entry_count,
        synced_page,
        reserved2
    ]
);
layout!(
    RECORD_ENTRY_LAYOUT,
    RecordEntryBytes,
    32,
    [lba, sectors, write, crc, kind, flags, reserved]
);

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// Writes and discards.
    Writes = 1,
    /// Nothing: the rest of the ring up to its end is skipped.
    Skip = 2,
}

/// What an entry does to its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// It holds the entry's data, whose CRC-32C (domain `Data`) is this.
    Data(u32),
    /// It reads as zeros.
    Discard,
}

/// One entry of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where on the image.
    pub range: SectorRange,
    /// The write that it belongs to.
    pub write: WriteSeq,
    /// What it does.
    pub kind: EntryKind,
    /// True for the last entry of its write.
    pub last: bool,
}

/// The header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The image.
    pub image: ImageId,
    /// The log.
    pub log: LogId,
    /// The term that wrote it.
    pub epoch: Epoch,
    /// Its sequence in the log.
    pub record: RecordSeq,
    /// Where it starts, in pages since the log was made.
    pub page: u64,
    /// The header checksum of the record before it.
    pub previous_crc: u32,
    /// Records that start before this page were durable when this one was written: if one of them
    /// is damaged, that is no torn tail.
    pub synced_page: u64,
    /// What it is for.
    pub kind: RecordKind,
    /// Its entries, ascending by write sequence; empty for `Skip`.
    pub entries: Vec<Entry>,
    /// Bytes of data behind the header, padding excluded.
    pub data_len: usize,
}

/// What the first 128 bytes say before anything is verified; lengths are within the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPeek {
    /// Claimed length of the header in bytes.
    pub header_len: usize,
    /// Claimed length of the data in bytes.
    pub data_len: usize,
}

impl RecordPeek {
    /// Pages that the whole record takes.
    #[must_use]
    pub fn pages(&self) -> u64 {
        ((self.header_len + page_ceil(self.data_len)) as u64) / PAGE_BYTES
    }
}

impl RecordHeader {
    /// Bytes of a header with so many entries, whole pages.
    #[must_use]
    pub fn encoded_len(entries: usize) -> usize {
        page_ceil(size_of::<RecordHeaderBytes>() + entries * size_of::<RecordEntryBytes>())
    }

    /// Bytes of the header.
    #[must_use]
    pub fn header_len(&self) -> usize {
        Self::encoded_len(self.entries.len())
    }

    /// Pages that the whole record takes.
    #[must_use]
    pub fn pages(&self) -> u64 {
        ((self.header_len() + page_ceil(self.data_len)) as u64) / PAGE_BYTES
    }

    /// Writes the header to `out`, which has exactly `header_len` bytes. Returns its checksum,
    /// which the next record names.
    ///
    /// # Panics
    /// If `out` has another length, or `decode` would refuse the record: what it holds will be
    /// acknowledged.
    pub fn encode_into(&self, out: &mut [u8]) -> u32 {
        assert_eq!(out.len(), self.header_len(), "a header is encoded into its own space");
        assert!(self.data_len <= RECORD_DATA_MAX, "the writer ends a record at its limit");
        assert_eq!(self.check(), Ok(()), "the writer makes records that recovery takes");
        out.fill(0);
        let write = |entry: Option<&Entry>| U64::new(entry.map_or(0, |entry| entry.write.0));
        let header = RecordHeaderBytes {
            magic: RECORD_MAGIC,
            version: U16::new(RECORD_VERSION),
            kind: self.kind as u8,
            reserved: 0,
            crc: U32::new(0),
            image: *self.image.0.as_bytes(),
            log: *self.log.0.as_bytes(),
            epoch: U64::new(self.epoch.0),
            record: U64::new(self.record.0),
            page: U64::new(self.page),
            first_write: write(self.entries.first()),
            last_write: write(self.entries.last()),
            previous_crc: U32::new(self.previous_crc),
            header_len: U32::new(to_u32(out.len())),
            data_len: U32::new(to_u32(self.data_len)),
            entry_count: U32::new(to_u32(self.entries.len())),
            synced_page: U64::new(self.synced_page),
            reserved2: [0; 16],
        };
        let (head, rest) = out.split_at_mut(size_of::<RecordHeaderBytes>());
        head.copy_from_slice(header.as_bytes());
        for (entry, slot) in self.entries.iter().zip(rest.chunks_exact_mut(32)) {
            let (kind, crc) = match entry.kind {
                EntryKind::Data(crc) => (1, crc),
                EntryKind::Discard => (2, 0),
            };
            let row = RecordEntryBytes {
                lba: U64::new(entry.range.start.0),
                sectors: U64::new(entry.range.len.0),
                write: U64::new(entry.write.0),
                crc: U32::new(crc),
                kind,
                flags: if entry.last { FLAG_LAST } else { 0 },
                reserved: U16::new(0),
            };
            slot.copy_from_slice(row.as_bytes());
        }
        let crc = header_crc(out, CRC_AT);
        out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Reads the start of a record. Nothing in the answer is verified yet.
    ///
    /// # Errors
    /// Not a record, a later version, or a length above the limits.
    pub fn peek(bytes: &[u8]) -> Result<RecordPeek, DecodeError> {
        let header: &RecordHeaderBytes = Reader::new(bytes).one("record header")?;
        if header.magic != RECORD_MAGIC {
            return Err(DecodeError::new("record magic", 0, DecodeKind::BadMagic));
        }
        let version = header.version.get();
        if version == 0 || version > RECORD_VERSION {
            let kind = DecodeKind::UnsupportedVersion { found: version, known: RECORD_VERSION };
            return Err(DecodeError::new("record version", 8, kind));
        }
        let header_len = to_usize(header.header_len.get());
        let data_len = to_usize(header.data_len.get());
        if header_len > RECORD_HEADER_MAX || header_len != page_ceil(header_len) || header_len == 0
        {
            return Err(DecodeError::range("record header length", 92));
        }
        if data_len > RECORD_DATA_MAX {
            return Err(DecodeError::range("record data length", 96));
        }
        Ok(RecordPeek { header_len, data_len })
    }

    /// Reads and verifies a header; `bytes` starts with it and may go on. Returns it with its
    /// checksum.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn decode(bytes: &[u8]) -> Result<(Self, u32), DecodeError> {
        let peeked = Self::peek(bytes)?;
        let header_bytes = Reader::new(bytes).bytes("record header", peeked.header_len)?;
        let mut reader = Reader::new(header_bytes);
        let fields: &RecordHeaderBytes = reader.one("record header")?;
        let (expected, found) = (fields.crc.get(), header_crc(header_bytes, CRC_AT));
        if expected != found {
            let kind = DecodeKind::BadChecksum { expected, found };
            return Err(DecodeError::new("record header", CRC_AT, kind));
        }
        let kind = match fields.kind {
            1 => RecordKind::Writes,
            2 => RecordKind::Skip,
            _ => return Err(DecodeError::range("record kind", 10)),
        };
        let count = to_usize(fields.entry_count.get());
        let rows: &[RecordEntryBytes] = reader.many("record entries", count)?;
        let entries = rows.iter().enumerate().map(decode_entry).collect::<Result<Vec<_>, _>>()?;
        let header = Self {
            image: ImageId(Uuid::from_bytes(fields.image)),
            log: LogId(Uuid::from_bytes(fields.log)),
            epoch: Epoch(fields.epoch.get()),
            record: RecordSeq(fields.record.get()),
            page: fields.page.get(),
            previous_crc: fields.previous_crc.get(),
            synced_page: fields.synced_page.get(),
            kind,
            entries,
            data_len: peeked.data_len,
        };
        header.check()?;
        let write = |entry: Option<&Entry>| entry.map_or(0, |entry| entry.write.0);
        if fields.first_write.get() != write(header.entries.first()) {
            return Err(DecodeError::range("first write", 72));
        }
        if fields.last_write.get() != write(header.entries.last()) {
            return Err(DecodeError::range("last write", 80));
        }
        if header.header_len() != peeked.header_len {
            return Err(DecodeError::range("record header length", 92));
        }
        Ok((header, expected))
    }

    /// The rules for values; `decode` and `encode_into` share them.
    fn check(&self) -> Result<(), DecodeError> {
        let is_skip = self.kind == RecordKind::Skip;
        if is_skip != self.entries.is_empty() || self.entries.len() > RECORD_ENTRIES_MAX {
            return Err(DecodeError::range("record entry count", 100));
        }
        let counters = [
            ("record epoch", 48, self.epoch.0),
            ("record sequence", 56, self.record.0),
            ("record page", 64, self.page),
            ("synced page", 104, self.synced_page),
        ];
        if let Some((what, at, _)) = counters.iter().find(|(_, _, value)| *value > COUNTER_MAX) {
            return Err(DecodeError::range(what, *at));
        }
        let mut data = 0_usize;
        for (index, entry) in self.entries.iter().enumerate() {
            let at = entry_at(index);
            if let EntryKind::Data(_) = entry.kind {
                data = data.saturating_add(entry.range.len.bytes_usize());
            }
            if !(1..=COUNTER_MAX).contains(&entry.write.0) {
                return Err(DecodeError::range("entry write sequence", at + 16));
            }
            // A write is acknowledged as a whole and in its turn: nothing may be missing between
            // entries.
            let next = self.entries.get(index + 1).map(|next| next.write.0);
            let follows = next.is_none_or(|next| next == entry.write.0 + u64::from(entry.last));
            if !follows || (next.is_none() && !entry.last) {
                return Err(DecodeError::new("entry write sequence", at + 16, DecodeKind::Overlap));
            }
        }
        if data != self.data_len {
            return Err(DecodeError::range("record data length", 96));
        }
        Ok(())
    }

    /// Checks the data of every entry; `data` starts with the record's data and may go on.
    ///
    /// # Errors
    /// `Truncated` or `BadChecksum`, at the entry's offset in the data.
    pub fn check_data(&self, data: &[u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(data);
        for entry in &self.entries {
            if let EntryKind::Data(expected) = entry.kind {
                let at = reader.position();
                let bytes = reader.bytes("record data", entry.range.len.bytes_usize())?;
                check_entry(expected, bytes, at)?;
            }
        }
        Ok(())
    }
}

/// Checks the data of one entry; `at` is only for the error.
///
/// # Errors
/// `BadChecksum`.
pub fn check_entry(expected: u32, data: &[u8], at: usize) -> Result<(), DecodeError> {
    let found = entry_crc(data);
    if expected == found {
        return Ok(());
    }
    Err(DecodeError::new("record data", at, DecodeKind::BadChecksum { expected, found }))
}

/// The checksum of an entry's data.
#[must_use]
pub fn entry_crc(data: &[u8]) -> u32 {
    crc(Domain::Data, data)
}

/// Byte offset of an entry in its record.
fn entry_at(index: usize) -> usize {
    size_of::<RecordHeaderBytes>() + index * size_of::<RecordEntryBytes>()
}

fn decode_entry((index, row): (usize, &RecordEntryBytes)) -> Result<Entry, DecodeError> {
    let wrong = DecodeError::range("record entry", entry_at(index));
    let (lba, sectors) = (row.lba.get(), row.sectors.get());
    let end = lba.checked_add(sectors).ok_or(wrong)?;
    if sectors == 0 || end > IMAGE_SECTORS_MAX {
        return Err(wrong);
    }
    let range = SectorRange::new(Sector(lba), Sectors(sectors));
    let kind = match row.kind {
        1 if sectors <= ENTRY_DATA_MAX as u64 / SECTOR_BYTES => EntryKind::Data(row.crc.get()),
        2 => EntryKind::Discard,
        _ => return Err(wrong),
    };
    let last = row.flags & FLAG_LAST != 0;
    Ok(Entry { range, write: WriteSeq(row.write.get()), kind, last })
}
