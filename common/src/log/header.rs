//! The superblock of a write log: whose log it is, how large its ring is, and where its tail is.
//!
//! Two copies, in pages 0 and 1, are written in turn; the newer whole one counts. A crash while one
//! is written leaves the other.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::header_crc;
use crate::codec::{DecodeError, DecodeKind, Reader};
use crate::ids::{Epoch, ImageId, LogId, ObjectSeq, RecordSeq, Uuid, WriteSeq};
use crate::layout::layout;
use crate::limits::{COUNTER_MAX, OBJECT_SEQ_MAX, RING_PAGES_MAX};
use crate::units::PAGE_LEN;

/// First bytes of a write log.
pub const LOG_MAGIC: [u8; 8] = *b"LSVDlog\x01";

/// The version that this software writes. History: 1, the first.
pub const LOG_VERSION: u16 = 1;

/// The ring starts behind the two superblock pages.
pub const RING_START_PAGE: u64 = 2;

const CRC_AT: usize = 12;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct LogSuperblockBytes {
    magic: [u8; 8],
    version: U16,
    clean: u8,
    reserved: u8,
    crc: U32,
    image: [u8; 16],
    log: [u8; 16],
    generation: U64,
    epoch: U64,
    ring_pages: U64,
    tail_page: U64,
    tail_record: U64,
    retired_object: U64,
    retired_write: U64,
    tail_previous_crc: U32,
    reserved2: [u8; 12],
}

layout!(
    LOG_SUPERBLOCK_LAYOUT,
    LogSuperblockBytes,
    120,
    [
        magic,
        version,
        clean,
        reserved,
        crc,
        image,
        log,
        generation,
        epoch,
        ring_pages,
        tail_page,
        tail_record,
        retired_object,
        retired_write,
        tail_previous_crc,
        reserved2
    ]
);

impl LogSuperblockBytes {
    fn check(&self) -> Result<(), DecodeError> {
        if self.clean > 1 {
            return Err(DecodeError::range("clean", 10));
        }
        if !(1..=RING_PAGES_MAX).contains(&self.ring_pages.get()) {
            return Err(DecodeError::range("ring size", 64));
        }
        if !(1..=COUNTER_MAX).contains(&self.tail_record.get()) {
            return Err(DecodeError::range("tail record", 80));
        }
        if self.retired_object.get() > OBJECT_SEQ_MAX {
            return Err(DecodeError::range("retired object", 88));
        }
        let counters = [
            ("generation", 48, self.generation),
            ("log epoch", 56, self.epoch),
            ("tail page", 72, self.tail_page),
            ("retired write", 96, self.retired_write),
        ];
        match counters.iter().find(|(_, _, counter)| counter.get() > COUNTER_MAX) {
            Some((what, at, _)) => Err(DecodeError::range(what, *at)),
            None => Ok(()),
        }
    }
}

/// The superblock of a write log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSuperblock {
    /// The image that the log belongs to.
    pub image: ImageId,
    /// Identity of this log.
    pub log: LogId,
    /// Counts superblock writes in this file, also when a drained log is made new; the newer of
    /// the two copies counts.
    pub generation: u64,
    /// The newest epoch that may have written records.
    pub epoch: Epoch,
    /// Size of the ring in pages.
    pub ring_pages: u64,
    /// Where the oldest record that is still needed starts, in pages since the log was made; its
    /// place in the ring is this modulo `ring_pages`.
    pub tail_page: u64,
    /// The sequence of that record.
    pub tail_record: RecordSeq,
    /// The header checksum of the record before it, 0 if there was none.
    pub tail_previous_crc: u32,
    /// The store had acknowledged every object up to this one when the superblock was written.
    pub retired_object: ObjectSeq,
    /// The last write that those objects cover.
    pub retired_write: WriteSeq,
    /// The volume was closed cleanly: nothing in the ring is needed.
    pub clean: bool,
}

impl LogSuperblock {
    /// One page.
    ///
    /// # Panics
    /// If `decode` would refuse it: a log whose superblock cannot be read is lost.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bytes = LogSuperblockBytes {
            magic: LOG_MAGIC,
            version: U16::new(LOG_VERSION),
            clean: u8::from(self.clean),
            reserved: 0,
            crc: U32::new(0),
            image: *self.image.0.as_bytes(),
            log: *self.log.0.as_bytes(),
            generation: U64::new(self.generation),
            epoch: U64::new(self.epoch.0),
            ring_pages: U64::new(self.ring_pages),
            tail_page: U64::new(self.tail_page),
            tail_record: U64::new(self.tail_record.0),
            retired_object: U64::new(self.retired_object.0),
            retired_write: U64::new(self.retired_write.0),
            tail_previous_crc: U32::new(self.tail_previous_crc),
            reserved2: [0; 12],
        };
        assert_eq!(bytes.check(), Ok(()), "a log is made and kept within the limits");
        let mut out = bytes.as_bytes().to_vec();
        out.resize(PAGE_LEN, 0);
        let crc = header_crc(&out, CRC_AT);
        out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads and verifies one copy; `page` starts with it and may go on.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn decode(page: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(page);
        let page = reader.bytes("log superblock", PAGE_LEN)?;
        let fields: &LogSuperblockBytes = Reader::new(page).one("log superblock")?;
        if fields.magic != LOG_MAGIC {
            return Err(DecodeError::new("log magic", 0, DecodeKind::BadMagic));
        }
        let version = fields.version.get();
        if version == 0 || version > LOG_VERSION {
            let kind = DecodeKind::UnsupportedVersion { found: version, known: LOG_VERSION };
            return Err(DecodeError::new("log version", 8, kind));
        }
        let (expected, found) = (fields.crc.get(), header_crc(page, CRC_AT));
        if expected != found {
            let kind = DecodeKind::BadChecksum { expected, found };
            return Err(DecodeError::new("log superblock", CRC_AT, kind));
        }
        fields.check()?;
        Ok(Self {
            image: ImageId(Uuid::from_bytes(fields.image)),
            log: LogId(Uuid::from_bytes(fields.log)),
            generation: fields.generation.get(),
            epoch: Epoch(fields.epoch.get()),
            ring_pages: fields.ring_pages.get(),
            tail_page: fields.tail_page.get(),
            tail_record: RecordSeq(fields.tail_record.get()),
            tail_previous_crc: fields.tail_previous_crc.get(),
            retired_object: ObjectSeq(fields.retired_object.get()),
            retired_write: WriteSeq(fields.retired_write.get()),
            clean: fields.clean == 1,
        })
    }

    /// The copy that counts, of the two in the first two pages.
    ///
    /// # Errors
    /// If neither is whole: what is wrong with the first.
    pub fn newest(first: &[u8], second: &[u8]) -> Result<Self, DecodeError> {
        match (Self::decode(first), Self::decode(second)) {
            (Ok(a), Ok(b)) if b.generation > a.generation => Ok(b),
            (Ok(a), _) => Ok(a),
            (Err(_), Ok(b)) => Ok(b),
            (Err(error), Err(_)) => Err(error),
        }
    }
}
