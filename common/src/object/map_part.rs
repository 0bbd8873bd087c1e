//! Map parts: sections of a map (regions of extents, rows of the object table) that checkpoints
//! refer to.
//!
//! A section is written when it changed since the last checkpoint and stays valid in the map part
//! that holds it for as long as a checkpoint refers to it. The directory in the header makes a map
//! part readable on its own.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{Domain, crc};
use crate::codec::{DecodeError, DecodeKind, Reader, page_ceil, to_u32, to_usize};
use crate::ids::ObjectSeq;
use crate::layout::layout;
use crate::limits::{
    IMAGE_SECTORS_MAX, OBJECT_BYTES_MAX, OBJECT_HEADER_MAX, OBJECT_PAYLOAD_MAX, OBJECT_SEQ_MAX,
    REGION_SHIFT_MAX,
};
use crate::object::prefix::{ObjectId, ObjectKind, Prefix, finish, verify};
use crate::units::{PAGE_LEN, SECTOR_LEN, Sector, Sectors};

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct MapPartFields {
    section_count: U32,
    reserved: [u8; 60],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Section {
    kind: u8,
    reserved: [u8; 3],
    index: U32,
    offset: U32,
    len: U32,
    crc: U32,
    reserved2: U32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RegionHead {
    object_count: U32,
    entry_count: U32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RegionEntry {
    lba: U32,
    object: U32,
    sectors_minus_one: U16,
    offset: U16,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ObjectRow {
    seq: U64,
    object_bytes: U32,
    header_bytes: U32,
    fingerprint: U32,
    payload_sectors: U32,
    live_sectors: U32,
    kind: u8,
    reserved: [u8; 3],
}

layout!(MAP_PART_FIELDS_LAYOUT, MapPartFields, 64, [section_count, reserved]);
layout!(SECTION_LAYOUT, Section, 24, [kind, reserved, index, offset, len, crc, reserved2]);
layout!(REGION_HEAD_LAYOUT, RegionHead, 8, [object_count, entry_count]);
layout!(REGION_ENTRY_LAYOUT, RegionEntry, 12, [lba, object, sectors_minus_one, offset]);
layout!(
    OBJECT_ROW_LAYOUT,
    ObjectRow,
    32,
    [seq, object_bytes, header_bytes, fingerprint, payload_sectors, live_sectors, kind, reserved]
);

/// Sectors of the largest payload of an object.
const PAYLOAD_SECTORS_MAX: u64 = (OBJECT_PAYLOAD_MAX / SECTOR_LEN) as u64;

/// What a section describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SectionKey {
    /// The extents of one region of the image.
    Region(u32),
    /// Rows `index << 12` up to the next of the object table, by object sequence.
    Objects(u32),
}

impl SectionKey {
    pub(crate) fn encode(self) -> (u8, u32) {
        match self {
            Self::Region(index) => (1, index),
            Self::Objects(index) => (2, index),
        }
    }

    pub(crate) fn decode(kind: u8, index: u32, at: usize) -> Result<Self, DecodeError> {
        match kind {
            1 => Ok(Self::Region(index)),
            2 => Ok(Self::Objects(index)),
            _ => Err(DecodeError::range("section kind", at)),
        }
    }
}

/// Where a section is in its map part's body, and its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionPlace {
    /// What it describes.
    pub key: SectionKey,
    /// Offset in the body.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
    /// CRC-32C, domain `Section`.
    pub crc: u32,
}

/// The header of a map part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapPartHeader {
    /// Whose it is.
    pub id: ObjectId,
    /// The sections of the body, in order.
    pub sections: Vec<SectionPlace>,
}

impl MapPartHeader {
    /// A whole map part, header and body, from sections with ascending keys. Returns it with the
    /// place of each section.
    ///
    /// # Panics
    /// If the keys do not ascend or the whole is above the limits of an object: nobody could read
    /// it.
    #[must_use]
    pub fn build(id: ObjectId, sections: &[(SectionKey, Vec<u8>)]) -> (Self, Vec<u8>) {
        assert!(
            sections.is_sorted_by(|a, b| a.0 < b.0),
            "a map is written in the order of its keys"
        );
        let mut places = Vec::with_capacity(sections.len());
        let mut body_len = 0;
        for (key, bytes) in sections {
            places.push(SectionPlace {
                key: *key,
                offset: to_u32(body_len),
                len: to_u32(bytes.len()),
                crc: crc(Domain::Section, bytes),
            });
            body_len += bytes.len();
        }
        let header = Self { id, sections: places };
        let header_len = Self::encoded_len(sections.len());
        let mut out = Vec::with_capacity(header_len + page_ceil(body_len));
        out.resize(header_len, 0);
        for (_, bytes) in sections {
            out.extend_from_slice(bytes);
        }
        out.resize(header_len + page_ceil(body_len), 0);
        header.encode_into(&mut out[..header_len], to_u32(body_len));
        (header, out)
    }

    /// Bytes of a header with so many sections.
    #[must_use]
    pub fn encoded_len(sections: usize) -> usize {
        let fixed = size_of::<Prefix>() + size_of::<MapPartFields>();
        page_ceil(fixed + size_of::<Section>() * sections)
    }

    fn encode_into(&self, out: &mut [u8], body_len: u32) {
        let fields = MapPartFields {
            section_count: U32::new(to_u32(self.sections.len())),
            reserved: [0; 60],
        };
        let mut at = size_of::<Prefix>();
        out[at..at + size_of::<MapPartFields>()].copy_from_slice(fields.as_bytes());
        at += size_of::<MapPartFields>();
        for place in &self.sections {
            let (kind, index) = place.key.encode();
            let row = Section {
                kind,
                reserved: [0; 3],
                index: U32::new(index),
                offset: U32::new(place.offset),
                len: U32::new(place.len),
                crc: U32::new(place.crc),
                reserved2: U32::new(0),
            };
            out[at..at + size_of::<Section>()].copy_from_slice(row.as_bytes());
            at += size_of::<Section>();
        }
        finish(out, ObjectKind::MapPart, &self.id, body_len);
    }

    /// Reads and verifies a header; `bytes` starts with it and may go on.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (verified, _) = verify(bytes, &[ObjectKind::MapPart])?;
        let mut reader = Reader::new(verified.header);
        reader.bytes("object prefix", size_of::<Prefix>())?;
        let fields: &MapPartFields = reader.one("map part fields")?;
        let at = reader.position();
        let rows: &[Section] = reader.many("sections", to_usize(fields.section_count.get()))?;
        let mut sections: Vec<SectionPlace> = Vec::with_capacity(rows.len());
        let mut next = 0_usize;
        for (index, row) in rows.iter().enumerate() {
            let at = at + index * size_of::<Section>();
            let key = SectionKey::decode(row.kind, row.index.get(), at)?;
            if sections.last().is_some_and(|last| last.key >= key) {
                return Err(DecodeError::new("section key", at, DecodeKind::Overlap));
            }
            if to_usize(row.offset.get()) != next {
                return Err(DecodeError::new("section offset", at, DecodeKind::Overlap));
            }
            next = next
                .checked_add(to_usize(row.len.get()))
                .filter(|end| *end <= verified.body_len)
                .ok_or(DecodeError::range("section length", at))?;
            sections.push(SectionPlace {
                key,
                offset: row.offset.get(),
                len: row.len.get(),
                crc: row.crc.get(),
            });
        }
        if next != verified.body_len {
            return Err(DecodeError::range("body length", 52));
        }
        if Self::encoded_len(sections.len()) != verified.header.len() {
            return Err(DecodeError::range("header length", 48));
        }
        Ok(Self { id: verified.id, sections })
    }
}

/// Checks the bytes of a section against the checksum that refers to it.
///
/// # Errors
/// `BadChecksum`.
pub fn check_section(expected: u32, bytes: &[u8]) -> Result<(), DecodeError> {
    let found = crc(Domain::Section, bytes);
    if expected == found {
        return Ok(());
    }
    Err(DecodeError::new("map section", 0, DecodeKind::BadChecksum { expected, found }))
}

/// One extent of a region: where it is on the image and in which object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedExtent {
    /// First sector on the image.
    pub start: Sector,
    /// Length, 1 to 65536 sectors.
    pub len: Sectors,
    /// The object that holds it.
    pub object: ObjectSeq,
    /// Offset in that object's payload.
    pub offset: Sectors,
}

/// Encodes the extents of region `index` of size `2^shift`, ascending. Objects are named once and
/// referred to by number.
///
/// # Panics
/// If an extent is outside the region or a value does not fit: the map's own limits are stricter.
#[must_use]
pub fn encode_region(index: u32, shift: u8, extents: &[MappedExtent]) -> Vec<u8> {
    let base = u64::from(index) << shift;
    let mut objects: Vec<u64> = extents.iter().map(|e| e.object.0).collect();
    objects.sort_unstable();
    objects.dedup();
    let head = RegionHead {
        object_count: U32::new(to_u32(objects.len())),
        entry_count: U32::new(to_u32(extents.len())),
    };
    let len = size_of::<RegionHead>() + 8 * objects.len() + 12 * extents.len();
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(head.as_bytes());
    for object in &objects {
        out.extend_from_slice(&object.to_le_bytes());
    }
    for extent in extents {
        let lba = extent.start.0.checked_sub(base).filter(|lba| *lba < 1 << shift);
        let lba = lba.and_then(|lba| u32::try_from(lba).ok()).expect("an extent is in its region");
        let object = objects.binary_search(&extent.object.0).expect("every object was collected");
        let fits = "the map keeps extents and offsets below 65536 sectors";
        let row = RegionEntry {
            lba: U32::new(lba),
            object: U32::new(to_u32(object)),
            sectors_minus_one: U16::new(u16::try_from(extent.len.0 - 1).expect(fits)),
            offset: U16::new(u16::try_from(extent.offset.0).expect(fits)),
        };
        out.extend_from_slice(row.as_bytes());
    }
    out
}

/// Decodes a region that `encode_region` wrote.
///
/// # Errors
/// Truncated, bytes left over, objects or extents out of order, an extent outside the region or the
/// largest image or object, or an object number without an object.
///
/// # Panics
/// If `shift` is above its limit: it comes from a superblock, which was checked.
pub fn decode_region(
    index: u32,
    shift: u8,
    bytes: &[u8],
) -> Result<Vec<MappedExtent>, DecodeError> {
    assert!(shift <= REGION_SHIFT_MAX, "the superblock's region size was checked");
    let base = u64::from(index) << shift;
    let mut reader = Reader::new(bytes);
    let head: &RegionHead = reader.one("region head")?;
    let at = reader.position();
    let objects: &[U64] = reader.many("region objects", to_usize(head.object_count.get()))?;
    for (index, object) in objects.iter().enumerate() {
        let at = at + index * size_of::<U64>();
        if !(1..=OBJECT_SEQ_MAX).contains(&object.get()) {
            return Err(DecodeError::range("region objects", at));
        }
        if index > 0 && objects[index - 1].get() >= object.get() {
            return Err(DecodeError::new("region objects", at, DecodeKind::Overlap));
        }
    }
    let entries_at = reader.position();
    let rows: &[RegionEntry] = reader.many("region entries", to_usize(head.entry_count.get()))?;
    if reader.position() != bytes.len() {
        return Err(DecodeError::range("region length", reader.position()));
    }
    let mut behind = 0_u64;
    let mut extents = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let at = entries_at + index * size_of::<RegionEntry>();
        let lba = u64::from(row.lba.get());
        let len = u64::from(row.sectors_minus_one.get()) + 1;
        if lba < behind {
            return Err(DecodeError::new("region entry", at, DecodeKind::Overlap));
        }
        behind = lba + len;
        let object = objects.get(to_usize(row.object.get()));
        let in_region = behind <= 1 << shift && base + behind <= IMAGE_SECTORS_MAX;
        let in_object = u64::from(row.offset.get()) + len <= PAYLOAD_SECTORS_MAX;
        let Some(object) = object.filter(|_| in_region && in_object) else {
            return Err(DecodeError::range("region entry", at));
        };
        extents.push(MappedExtent {
            start: Sector(base + lba),
            len: Sectors(len),
            object: ObjectSeq(object.get()),
            offset: Sectors(row.offset.get().into()),
        });
    }
    Ok(extents)
}

/// One row of the object table: an object that holds live data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// The object.
    pub seq: ObjectSeq,
    /// Its size in the store, in bytes.
    pub object_bytes: u32,
    /// The length of its header, in bytes; the payload starts there.
    pub header_bytes: u32,
    /// The CRC of its header.
    pub fingerprint: u32,
    /// Sectors of payload.
    pub payload: Sectors,
    /// Sectors of payload that the map still refers to.
    pub live: Sectors,
    /// `Data` or `Moved`.
    pub kind: ObjectKind,
}

/// Encodes rows of the object table, ascending by sequence.
#[must_use]
pub fn encode_table(rows: &[TableRow]) -> Vec<u8> {
    let fits = "payloads are smaller than an object";
    let mut out = Vec::with_capacity(rows.len() * size_of::<ObjectRow>());
    for row in rows {
        let row = ObjectRow {
            seq: U64::new(row.seq.0),
            object_bytes: U32::new(row.object_bytes),
            header_bytes: U32::new(row.header_bytes),
            fingerprint: U32::new(row.fingerprint),
            payload_sectors: U32::new(u32::try_from(row.payload.0).expect(fits)),
            live_sectors: U32::new(u32::try_from(row.live.0).expect(fits)),
            kind: row.kind as u8,
            reserved: [0; 3],
        };
        out.extend_from_slice(row.as_bytes());
    }
    out
}

/// Decodes rows of the object table.
///
/// # Errors
/// Not whole rows, rows out of order, sizes above the limits or against each other, or a kind that
/// holds no data.
pub fn decode_table(bytes: &[u8]) -> Result<Vec<TableRow>, DecodeError> {
    let count = bytes.len() / size_of::<ObjectRow>();
    let mut reader = Reader::new(bytes);
    let rows: &[ObjectRow] = reader.many("object rows", count)?;
    if reader.position() != bytes.len() {
        return Err(DecodeError::range("object rows", reader.position()));
    }
    let mut previous = ObjectSeq(0);
    let mut table = Vec::with_capacity(count);
    for (index, row) in rows.iter().enumerate() {
        let at = index * size_of::<ObjectRow>();
        let seq = ObjectSeq(row.seq.get());
        if !(1..=OBJECT_SEQ_MAX).contains(&seq.0) {
            return Err(DecodeError::range("object row sequence", at));
        }
        if previous >= seq {
            return Err(DecodeError::new("object rows", at, DecodeKind::Overlap));
        }
        previous = seq;
        let kind = match row.kind {
            1 => ObjectKind::Data,
            2 => ObjectKind::Moved,
            _ => return Err(DecodeError::range("object row kind", at + 28)),
        };
        let header_len = to_usize(row.header_bytes.get());
        let whole_pages = header_len.is_multiple_of(PAGE_LEN);
        if header_len == 0 || header_len > OBJECT_HEADER_MAX || !whole_pages {
            return Err(DecodeError::range("object row header length", at + 12));
        }
        if !(header_len..=OBJECT_BYTES_MAX).contains(&to_usize(row.object_bytes.get())) {
            return Err(DecodeError::range("object row length", at + 8));
        }
        if u64::from(row.payload_sectors.get()) > PAYLOAD_SECTORS_MAX {
            return Err(DecodeError::range("payload sectors", at + 20));
        }
        if row.live_sectors.get() > row.payload_sectors.get() {
            return Err(DecodeError::range("live sectors", at + 24));
        }
        table.push(TableRow {
            seq,
            object_bytes: row.object_bytes.get(),
            header_bytes: row.header_bytes.get(),
            fingerprint: row.fingerprint.get(),
            payload: Sectors(row.payload_sectors.get().into()),
            live: Sectors(row.live_sectors.get().into()),
            kind,
        });
    }
    Ok(table)
}
