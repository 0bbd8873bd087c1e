//! Data objects: a sealed batch, coalesced and sorted by address, or live data moved by garbage
//! collection.
//!
//! Order of bytes: prefix, fields, extents, discards, sources, frames, zeros to a whole page; then
//! the payload, also padded to whole pages so that direct I/O can write it. The payload of the
//! extents follows one another in the order of the extents; a frame is up to 64 KiB of it.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{Domain, crc};
use crate::codec::{DecodeError, DecodeKind, Reader, page_ceil, to_u32, to_usize};
use crate::ids::{ObjectSeq, WriteSeq};
use crate::layout::layout;
use crate::limits::{COUNTER_MAX, FRAME_BYTES, IMAGE_SECTORS_MAX, OBJECT_PAYLOAD_MAX};
use crate::object::prefix::{ObjectId, ObjectKind, Prefix, finish, verify};
use crate::units::{SECTOR_LEN, Sector, SectorRange, Sectors};

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DataFields {
    first_write: U64,
    last_write: U64,
    payload_len: U32,
    extent_count: U32,
    discard_count: U32,
    source_count: U32,
    frame_count: U32,
    frame_bytes: U32,
    salt: [u8; 16],
    reserved: U64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Extent {
    lba: U64,
    sectors: U32,
    reserved: U32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Discard {
    lba: U64,
    sectors: U64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Source {
    seq: U64,
    offset: U32,
    reserved: U32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Frame {
    stored_offset: U32,
    stored_len: U32,
    crc: U32,
    codec: u8,
    reserved: [u8; 3],
}

layout!(
    DATA_FIELDS_LAYOUT,
    DataFields,
    64,
    [
        first_write,
        last_write,
        payload_len,
        extent_count,
        discard_count,
        source_count,
        frame_count,
        frame_bytes,
        salt,
        reserved
    ]
);
layout!(EXTENT_LAYOUT, Extent, 16, [lba, sectors, reserved]);
layout!(DISCARD_LAYOUT, Discard, 16, [lba, sectors]);
layout!(SOURCE_LAYOUT, Source, 16, [seq, offset, reserved]);
layout!(FRAME_LAYOUT, Frame, 16, [stored_offset, stored_len, crc, codec, reserved]);

/// Where the fields start, behind the prefix.
const FIELDS_AT: usize = size_of::<Prefix>();

/// Bytes of a row of each of the four tables.
const ROW_BYTES: usize = 16;

/// Sectors of the largest payload.
const PAYLOAD_SECTORS_MAX: u64 = (OBJECT_PAYLOAD_MAX / SECTOR_LEN) as u64;

const _: () = assert!(
    size_of::<Extent>() == ROW_BYTES
        && size_of::<Discard>() == ROW_BYTES
        && size_of::<Source>() == ROW_BYTES
        && size_of::<Frame>() == ROW_BYTES
);

/// How the stored bytes of a frame were made from its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Plain = 0,
}

/// One frame: where its stored bytes are in the body, and their checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// Offset of the stored bytes in the body.
    pub stored_offset: u32,
    /// Length of the stored bytes.
    pub stored_len: u32,
    /// CRC-32C of the stored bytes, domain `Data`.
    pub crc: u32,
    /// How they are coded.
    pub codec: Codec,
}

/// Where an extent's data was before garbage collection moved it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePlace {
    /// The object that held it.
    pub seq: ObjectSeq,
    /// Offset in that object's payload.
    pub offset: Sectors,
}

/// The header of a data object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// Whose it is.
    pub id: ObjectId,
    /// `Data` or `Moved`.
    pub kind: ObjectKind,
    /// The first write that it covers.
    pub first_write: WriteSeq,
    /// The last write that it covers; all writes between are covered too.
    pub last_write: WriteSeq,
    /// What was written, ascending and apart; payload follows in this order.
    pub extents: Vec<SectorRange>,
    /// What was discarded or zeroed, ascending, apart from each other and from the extents.
    pub discards: Vec<SectorRange>,
    /// For `Moved`: the source of each extent. Empty for `Data`.
    pub sources: Vec<SourcePlace>,
    /// The frames of the payload, in order.
    pub frames: Vec<FrameInfo>,
    /// Salt of the object's encryption key; zeros while nothing is encrypted.
    pub salt: [u8; 16],
}

impl DataHeader {
    /// The bytes that a header with these counts takes, whole pages.
    #[must_use]
    pub fn encoded_len(extents: usize, discards: usize, sources: usize, frames: usize) -> usize {
        let rows = extents + discards + sources + frames;
        page_ceil(FIELDS_AT + size_of::<DataFields>() + ROW_BYTES * rows)
    }

    /// The payload in bytes, before coding.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.extents.iter().map(|extent| extent.len.bytes_usize()).sum()
    }

    /// Length of the stored frames together.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.frames.last().map_or(0, |f| to_usize(f.stored_offset) + to_usize(f.stored_len))
    }

    /// Length of the header in bytes.
    #[must_use]
    pub fn header_len(&self) -> usize {
        Self::encoded_len(
            self.extents.len(),
            self.discards.len(),
            self.sources.len(),
            self.frames.len(),
        )
    }

    /// Length of the whole object in bytes, padding included.
    #[must_use]
    pub fn object_len(&self) -> usize {
        self.header_len() + page_ceil(self.body_len())
    }

    /// Writes the header to `out`, which has exactly `header_len` bytes. Returns the fingerprint
    /// (the header's CRC).
    ///
    /// # Panics
    /// If `out` has another length: the caller laid the object out by `encoded_len`. If the object
    /// is above the limits: nobody could read it.
    pub fn encode_into(&self, out: &mut [u8]) -> u32 {
        assert_eq!(out.len(), self.header_len(), "a header is encoded into its own space");
        assert!(self.payload_len() <= OBJECT_PAYLOAD_MAX, "a batch is smaller than an object");
        out.fill(0);
        let fields = DataFields {
            first_write: U64::new(self.first_write.0),
            last_write: U64::new(self.last_write.0),
            payload_len: U32::new(to_u32(self.payload_len())),
            extent_count: U32::new(to_u32(self.extents.len())),
            discard_count: U32::new(to_u32(self.discards.len())),
            source_count: U32::new(to_u32(self.sources.len())),
            frame_count: U32::new(to_u32(self.frames.len())),
            frame_bytes: U32::new(to_u32(FRAME_BYTES)),
            salt: self.salt,
            reserved: U64::new(0),
        };
        let mut at = FIELDS_AT;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(fields.as_bytes());
        for extent in &self.extents {
            let sectors = u32::try_from(extent.len.0).expect("an extent is shorter than an object");
            let row = Extent {
                lba: U64::new(extent.start.0),
                sectors: U32::new(sectors),
                reserved: U32::new(0),
            };
            put(row.as_bytes());
        }
        for discard in &self.discards {
            let row = Discard { lba: U64::new(discard.start.0), sectors: U64::new(discard.len.0) };
            put(row.as_bytes());
        }
        for source in &self.sources {
            let offset =
                u32::try_from(source.offset.0).expect("offsets are below an object's size");
            let row = Source {
                seq: U64::new(source.seq.0),
                offset: U32::new(offset),
                reserved: U32::new(0),
            };
            put(row.as_bytes());
        }
        for frame in &self.frames {
            let row = Frame {
                stored_offset: U32::new(frame.stored_offset),
                stored_len: U32::new(frame.stored_len),
                crc: U32::new(frame.crc),
                codec: frame.codec as u8,
                reserved: [0; 3],
            };
            put(row.as_bytes());
        }
        finish(out, self.kind, &self.id, to_u32(self.body_len()))
    }

    /// Reads and verifies a header; `bytes` starts with it and may go on. Returns it with its
    /// fingerprint.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn decode(bytes: &[u8]) -> Result<(Self, u32), DecodeError> {
        let (verified, kind) = verify(bytes, &[ObjectKind::Data, ObjectKind::Moved])?;
        let mut reader = Reader::new(verified.header);
        reader.bytes("object prefix", FIELDS_AT)?;
        let fields: &DataFields = reader.one("data fields")?;
        if to_usize(fields.frame_bytes.get()) != FRAME_BYTES {
            return Err(DecodeError::range("frame size", FIELDS_AT + 36));
        }
        let at = reader.position();
        let rows: &[Extent] = reader.many("extents", to_usize(fields.extent_count.get()))?;
        let rows = rows.iter().map(|r| (r.lba.get(), r.sectors.get().into()));
        let extents = ranges("extents", at, rows)?;
        let at = reader.position();
        let rows: &[Discard] = reader.many("discards", to_usize(fields.discard_count.get()))?;
        let rows = rows.iter().map(|r| (r.lba.get(), r.sectors.get()));
        let discards = ranges("discards", at, rows)?;
        check_apart(&extents, &discards, at)?;
        let sources = decode_sources(&mut reader, fields, kind, &extents, verified.id.seq)?;
        let frame_count = to_usize(fields.frame_count.get());
        let payload_len = to_usize(fields.payload_len.get());
        let frames = decode_frames(&mut reader, frame_count, payload_len, verified.body_len)?;
        let header = Self {
            id: verified.id,
            kind,
            first_write: WriteSeq(fields.first_write.get()),
            last_write: WriteSeq(fields.last_write.get()),
            extents,
            discards,
            sources,
            frames,
            salt: fields.salt,
        };
        if header.first_write > header.last_write || header.last_write.0 > COUNTER_MAX {
            return Err(DecodeError::range("write sequences", FIELDS_AT));
        }
        let sectors = header.extents.iter().fold(0_u64, |sum, e| sum.saturating_add(e.len.0));
        if sectors > PAYLOAD_SECTORS_MAX || header.payload_len() != payload_len {
            return Err(DecodeError::range("payload length", FIELDS_AT + 16));
        }
        if header.header_len() != verified.header.len() {
            return Err(DecodeError::range("header length", 48));
        }
        Ok((header, verified.fingerprint))
    }
}

/// Reads ranges that must be ascending, apart, not empty and inside the largest image. The table is
/// at byte `at`.
fn ranges(
    what: &'static str,
    at: usize,
    rows: impl Iterator<Item = (u64, u64)>,
) -> Result<Vec<SectorRange>, DecodeError> {
    let mut behind = 0_u64;
    rows.enumerate()
        .map(|(index, (lba, sectors))| {
            let at = at + index * ROW_BYTES;
            let end = lba.checked_add(sectors).filter(|end| *end <= IMAGE_SECTORS_MAX);
            let Some(end) = end.filter(|_| sectors > 0) else {
                return Err(DecodeError::range(what, at));
            };
            if lba < behind {
                return Err(DecodeError::new(what, at, DecodeKind::Overlap));
            }
            behind = end;
            Ok(SectorRange::new(Sector(lba), Sectors(sectors)))
        })
        .collect()
}

/// Checks that nothing is both written and discarded: which of the two counts would depend on who
/// reads. The table of discards is at byte `at`.
fn check_apart(
    extents: &[SectorRange],
    discards: &[SectorRange],
    at: usize,
) -> Result<(), DecodeError> {
    let mut extents = extents.iter().peekable();
    for (index, discard) in discards.iter().enumerate() {
        while extents.next_if(|extent| extent.end() <= discard.start).is_some() {}
        if extents.peek().is_some_and(|extent| extent.start < discard.end()) {
            let at = at + index * ROW_BYTES;
            return Err(DecodeError::new("discards", at, DecodeKind::Overlap));
        }
    }
    Ok(())
}

fn decode_sources(
    reader: &mut Reader<'_>,
    fields: &DataFields,
    kind: ObjectKind,
    extents: &[SectorRange],
    own: ObjectSeq,
) -> Result<Vec<SourcePlace>, DecodeError> {
    let count = to_usize(fields.source_count.get());
    let wanted = if kind == ObjectKind::Moved { extents.len() } else { 0 };
    if count != wanted {
        return Err(DecodeError::range("source count", FIELDS_AT + 28));
    }
    let at = reader.position();
    let rows: &[Source] = reader.many("sources", count)?;
    let mut sources = Vec::with_capacity(count);
    for (index, (row, extent)) in rows.iter().zip(extents).enumerate() {
        let seq = ObjectSeq(row.seq.get());
        let offset = Sectors(row.offset.get().into());
        let end = extent.len.0.checked_add(offset.0);
        let inside = end.is_some_and(|end| end <= PAYLOAD_SECTORS_MAX);
        if seq.0 == 0 || seq >= own || !inside {
            return Err(DecodeError::range("sources", at + index * ROW_BYTES));
        }
        sources.push(SourcePlace { seq, offset });
    }
    Ok(sources)
}

fn decode_frames(
    reader: &mut Reader<'_>,
    count: usize,
    payload_len: usize,
    body_len: usize,
) -> Result<Vec<FrameInfo>, DecodeError> {
    if payload_len > OBJECT_PAYLOAD_MAX || count != payload_len.div_ceil(FRAME_BYTES) {
        return Err(DecodeError::range("frame count", FIELDS_AT + 32));
    }
    let at = reader.position();
    let rows: &[Frame] = reader.many("frames", count)?;
    let mut next = 0_usize;
    let mut frames = Vec::with_capacity(count);
    for (index, row) in rows.iter().enumerate() {
        let at = at + index * ROW_BYTES;
        let plain_len = FRAME_BYTES.min(payload_len - index * FRAME_BYTES);
        let stored_len = to_usize(row.stored_len.get());
        if row.codec != Codec::Plain as u8 || stored_len != plain_len {
            return Err(DecodeError::range("frame codec or length", at));
        }
        if to_usize(row.stored_offset.get()) != next {
            return Err(DecodeError::new("frame offset", at, DecodeKind::Overlap));
        }
        next += stored_len;
        frames.push(FrameInfo {
            stored_offset: row.stored_offset.get(),
            stored_len: row.stored_len.get(),
            crc: row.crc.get(),
            codec: Codec::Plain,
        });
    }
    if next != body_len {
        return Err(DecodeError::range("body length", 52));
    }
    Ok(frames)
}

/// Cuts a payload into plain frames and computes their checksums.
#[must_use]
pub fn plain_frames(payload: &[u8]) -> Vec<FrameInfo> {
    payload
        .chunks(FRAME_BYTES)
        .enumerate()
        .map(|(index, chunk)| FrameInfo {
            stored_offset: to_u32(index * FRAME_BYTES),
            stored_len: to_u32(chunk.len()),
            crc: crc(Domain::Data, chunk),
            codec: Codec::Plain,
        })
        .collect()
}

/// Checks the stored bytes of a frame.
///
/// # Errors
/// `Truncated` or `BadChecksum`, at the frame's offset in the body.
pub fn check_frame(frame: &FrameInfo, stored: &[u8]) -> Result<(), DecodeError> {
    let at = to_usize(frame.stored_offset);
    if stored.len() != to_usize(frame.stored_len) {
        let kind =
            DecodeKind::Truncated { needed: to_usize(frame.stored_len), found: stored.len() };
        return Err(DecodeError::new("frame", at, kind));
    }
    let found = crc(Domain::Data, stored);
    if found != frame.crc {
        let kind = DecodeKind::BadChecksum { expected: frame.crc, found };
        return Err(DecodeError::new("frame", at, kind));
    }
    Ok(())
}
