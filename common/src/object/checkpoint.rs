//! Checkpoints: the index of a whole map at one sequence, by reference to sections in map parts.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::codec::{DecodeError, DecodeKind, Reader, page_ceil, to_u32, to_usize};
use crate::ids::{ObjectSeq, WriteSeq};
use crate::layout::layout;
use crate::limits::{
    COUNTER_MAX, IMAGE_SECTORS_MAX, OBJECT_BYTES_MAX, OBJECT_HEADER_MAX, REGION_SHIFT_MAX,
    REGION_SHIFT_MIN,
};
use crate::object::map_part::SectionKey;
use crate::object::prefix::{ObjectId, ObjectKind, Prefix, finish, verify};
use crate::units::PAGE_LEN;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct CheckpointFields {
    covers: U64,
    last_write: U64,
    live_sectors: U64,
    section_count: U32,
    pending_count: U32,
    region_shift: u8,
    reserved: [u8; 31],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SectionRow {
    kind: u8,
    reserved: [u8; 3],
    index: U32,
    seq: U64,
    offset: U32,
    len: U32,
    crc: U32,
    reserved2: U32,
}

layout!(
    CHECKPOINT_FIELDS_LAYOUT,
    CheckpointFields,
    64,
    [covers, last_write, live_sectors, section_count, pending_count, region_shift, reserved]
);
layout!(
    SECTION_REF_LAYOUT,
    SectionRow,
    32,
    [kind, reserved, index, seq, offset, len, crc, reserved2]
);

/// Where the newest serialisation of a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionRef {
    /// What it describes.
    pub key: SectionKey,
    /// The map part that holds it.
    pub seq: ObjectSeq,
    /// Offset from the start of that object, header included.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
    /// CRC-32C of the section.
    pub crc: u32,
}

/// The index of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose it is.
    pub id: ObjectId,
    /// The map holds the effect of every object up to and including this one, and of none behind
    /// it.
    pub covers: ObjectSeq,
    /// The last write that those objects cover.
    pub last_write: WriteSeq,
    /// Sectors that the map refers to.
    pub live_sectors: u64,
    /// The size of a region, as a power of two of sectors.
    pub region_shift: u8,
    /// The sections that are not empty, ascending by key.
    pub sections: Vec<SectionRef>,
    /// Objects that nothing needs any more and that may be deleted once this checkpoint is
    /// durable.
    pub pending_deletes: Vec<ObjectSeq>,
}

impl Checkpoint {
    /// The bytes of the whole object, whole pages. `None` if the index is too large for one object:
    /// the image has more regions and objects than the limits foresee.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let len = Self::encoded_len(self.sections.len(), self.pending_deletes.len());
        if len > OBJECT_HEADER_MAX {
            return None;
        }
        let fields = CheckpointFields {
            covers: U64::new(self.covers.0),
            last_write: U64::new(self.last_write.0),
            live_sectors: U64::new(self.live_sectors),
            section_count: U32::new(to_u32(self.sections.len())),
            pending_count: U32::new(to_u32(self.pending_deletes.len())),
            region_shift: self.region_shift,
            reserved: [0; 31],
        };
        let mut out = Vec::with_capacity(len);
        out.resize(size_of::<Prefix>(), 0);
        out.extend_from_slice(fields.as_bytes());
        for section in &self.sections {
            let (kind, index) = section.key.encode();
            let row = SectionRow {
                kind,
                reserved: [0; 3],
                index: U32::new(index),
                seq: U64::new(section.seq.0),
                offset: U32::new(section.offset),
                len: U32::new(section.len),
                crc: U32::new(section.crc),
                reserved2: U32::new(0),
            };
            out.extend_from_slice(row.as_bytes());
        }
        for seq in &self.pending_deletes {
            out.extend_from_slice(&seq.0.to_le_bytes());
        }
        out.resize(len, 0);
        finish(&mut out, ObjectKind::Checkpoint, &self.id, 0);
        Some(out)
    }

    fn encoded_len(sections: usize, pending: usize) -> usize {
        let fixed = size_of::<Prefix>() + size_of::<CheckpointFields>();
        page_ceil(fixed + sections * size_of::<SectionRow>() + pending * size_of::<U64>())
    }

    /// Reads and verifies a checkpoint; `bytes` starts with it and may go on.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (verified, _) = verify(bytes, &[ObjectKind::Checkpoint])?;
        let mut reader = Reader::new(verified.header);
        reader.bytes("object prefix", size_of::<Prefix>())?;
        let at = reader.position();
        let fields: &CheckpointFields = reader.one("checkpoint fields")?;
        if !(REGION_SHIFT_MIN..=REGION_SHIFT_MAX).contains(&fields.region_shift) {
            return Err(DecodeError::range("region size", at + 32));
        }
        let covers = ObjectSeq(fields.covers.get());
        if covers >= verified.id.seq {
            return Err(DecodeError::range("covered sequence", at));
        }
        if fields.last_write.get() > COUNTER_MAX {
            return Err(DecodeError::range("last write", at + 8));
        }
        if fields.live_sectors.get() > IMAGE_SECTORS_MAX {
            return Err(DecodeError::range("live sectors", at + 16));
        }
        if verified.body_len != 0 {
            return Err(DecodeError::range("body length", 52));
        }
        let sections =
            decode_sections(&mut reader, to_usize(fields.section_count.get()), verified.id.seq)?;
        let pending_at = reader.position();
        let pending: &[U64] =
            reader.many("pending deletes", to_usize(fields.pending_count.get()))?;
        let known = |seq: &U64| (1..verified.id.seq.0).contains(&seq.get());
        if let Some(index) = pending.iter().position(|seq| !known(seq)) {
            let at = pending_at + index * size_of::<U64>();
            return Err(DecodeError::range("pending deletes", at));
        }
        if Self::encoded_len(sections.len(), pending.len()) != verified.header.len() {
            return Err(DecodeError::range("header length", 48));
        }
        Ok(Self {
            id: verified.id,
            covers,
            last_write: WriteSeq(fields.last_write.get()),
            live_sectors: fields.live_sectors.get(),
            region_shift: fields.region_shift,
            sections,
            pending_deletes: pending.iter().map(|seq| ObjectSeq(seq.get())).collect(),
        })
    }
}

/// Reads references of a checkpoint with sequence `own`: to objects before it, inside the limits of
/// an object.
fn decode_sections(
    reader: &mut Reader<'_>,
    count: usize,
    own: ObjectSeq,
) -> Result<Vec<SectionRef>, DecodeError> {
    let at = reader.position();
    let rows: &[SectionRow] = reader.many("sections", count)?;
    let mut sections: Vec<SectionRef> = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let at = at + index * size_of::<SectionRow>();
        let key = SectionKey::decode(row.kind, row.index.get(), at)?;
        if sections.last().is_some_and(|last| last.key >= key) {
            return Err(DecodeError::new("sections", at, DecodeKind::Overlap));
        }
        let seq = ObjectSeq(row.seq.get());
        if seq.0 == 0 || seq >= own {
            return Err(DecodeError::range("section object", at + 8));
        }
        let (offset, len) = (to_usize(row.offset.get()), to_usize(row.len.get()));
        let end = offset.checked_add(len).filter(|end| *end <= OBJECT_BYTES_MAX);
        if offset < PAGE_LEN || end.is_none() {
            return Err(DecodeError::range("section place", at + 16));
        }
        sections.push(SectionRef {
            key,
            seq,
            offset: row.offset.get(),
            len: row.len.get(),
            crc: row.crc.get(),
        });
    }
    Ok(sections)
}
