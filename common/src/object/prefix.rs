//! The first 64 bytes of every numbered object: what it is, whose it is, and the checksum of its
//! header.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::header_crc;
use crate::codec::{DecodeError, DecodeKind, Reader, to_usize};
use crate::ids::{Epoch, ImageId, ObjectSeq, Uuid};
use crate::layout::layout;
use crate::limits::{COUNTER_MAX, OBJECT_BYTES_MAX, OBJECT_HEADER_MAX, OBJECT_SEQ_MAX};
use crate::units::PAGE_LEN;

/// First bytes of every numbered object.
pub const OBJECT_MAGIC: [u8; 8] = *b"LSVDobj\x01";

/// The version that this software writes. History: 1, the first.
pub const OBJECT_VERSION: u16 = 1;

/// Where the header's checksum is stored.
const CRC_AT: usize = 12;

/// What a numbered object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ObjectKind {
    /// Writes, sealed from a batch.
    Data = 1,
    /// Live data moved by garbage collection; each extent names its source.
    Moved = 2,
    /// Sections of a map, referenced by checkpoints.
    MapPart = 3,
    /// Index of a whole map at one sequence.
    Checkpoint = 4,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Prefix {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U16,
    pub(crate) kind: u8,
    pub(crate) reserved: u8,
    pub(crate) header_crc: U32,
    pub(crate) image: [u8; 16],
    pub(crate) epoch: U64,
    pub(crate) seq: U64,
    pub(crate) header_len: U32,
    pub(crate) body_len: U32,
    pub(crate) created_ms: U64,
}

layout!(
    PREFIX_LAYOUT,
    Prefix,
    64,
    [
        magic, version, kind, reserved, header_crc, image, epoch, seq, header_len, body_len,
        created_ms
    ]
);

/// Identity of a numbered object, the same for every kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectId {
    /// The image it belongs to.
    pub image: ImageId,
    /// The term of the gateway that wrote it.
    pub epoch: Epoch,
    /// Its place in the image's stream; also in its name.
    pub seq: ObjectSeq,
    /// When it was sealed, in milliseconds since 1970 by the writer's clock. Only shown, never
    /// trusted.
    pub created_ms: u64,
}

/// What the first 64 bytes say before anything is verified: enough to know how much to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek {
    /// Claimed kind.
    pub kind: ObjectKind,
    /// Claimed length of the header in bytes, within the limit.
    pub header_len: usize,
    /// Claimed length of the body in bytes, within the limit.
    pub body_len: usize,
}

/// Reads the first 64 bytes of an object. Nothing in the answer is verified yet; lengths are within
/// the limits.
///
/// # Errors
/// Not an object, a later version, an unknown kind, or a length above the limits.
pub fn peek(bytes: &[u8]) -> Result<Peek, DecodeError> {
    let prefix: &Prefix = Reader::new(bytes).one("object prefix")?;
    if prefix.magic != OBJECT_MAGIC {
        return Err(DecodeError::new("object magic", 0, DecodeKind::BadMagic));
    }
    let version = prefix.version.get();
    if version == 0 || version > OBJECT_VERSION {
        let kind = DecodeKind::UnsupportedVersion { found: version, known: OBJECT_VERSION };
        return Err(DecodeError::new("object version", 8, kind));
    }
    let kind = match prefix.kind {
        1 => ObjectKind::Data,
        2 => ObjectKind::Moved,
        3 => ObjectKind::MapPart,
        4 => ObjectKind::Checkpoint,
        _ => return Err(DecodeError::range("object kind", 10)),
    };
    let header_len = to_usize(prefix.header_len.get());
    let body_len = to_usize(prefix.body_len.get());
    let whole_pages = header_len.is_multiple_of(PAGE_LEN);
    if header_len == 0 || header_len > OBJECT_HEADER_MAX || !whole_pages {
        return Err(DecodeError::range("object header length", 48));
    }
    if body_len > OBJECT_BYTES_MAX - header_len {
        return Err(DecodeError::range("object body length", 52));
    }
    Ok(Peek { kind, header_len, body_len })
}

/// A header whose checksum holds.
pub(crate) struct Verified<'a> {
    pub(crate) id: ObjectId,
    pub(crate) header: &'a [u8],
    pub(crate) body_len: usize,
    /// The checksum itself, which tells two objects of one name apart.
    pub(crate) fingerprint: u32,
}

/// Checks the checksum of a header of one of `kinds`.
pub(crate) fn verify<'a>(
    bytes: &'a [u8],
    kinds: &[ObjectKind],
) -> Result<(Verified<'a>, ObjectKind), DecodeError> {
    let peeked = peek(bytes)?;
    let header = Reader::new(bytes).bytes("object header", peeked.header_len)?;
    let prefix: &Prefix = Reader::new(header).one("object prefix")?;
    let (expected, found) = (prefix.header_crc.get(), header_crc(header, CRC_AT));
    if expected != found {
        let kind = DecodeKind::BadChecksum { expected, found };
        return Err(DecodeError::new("object header", CRC_AT, kind));
    }
    if !kinds.contains(&peeked.kind) {
        return Err(DecodeError::range("object kind", 10));
    }
    if prefix.epoch.get() > COUNTER_MAX {
        return Err(DecodeError::range("object epoch", 32));
    }
    if !(1..=OBJECT_SEQ_MAX).contains(&prefix.seq.get()) {
        return Err(DecodeError::range("object sequence", 40));
    }
    let id = ObjectId {
        image: ImageId(Uuid::from_bytes(prefix.image)),
        epoch: Epoch(prefix.epoch.get()),
        seq: ObjectSeq(prefix.seq.get()),
        created_ms: prefix.created_ms.get(),
    };
    Ok((Verified { id, header, body_len: peeked.body_len, fingerprint: expected }, peeked.kind))
}

/// Writes the prefix of a finished header and, last, its checksum. Returns the checksum.
///
/// # Panics
/// If the object is above the limits: nobody could read it, and what it holds would be lost.
pub(crate) fn finish(header: &mut [u8], kind: ObjectKind, id: &ObjectId, body_len: u32) -> u32 {
    assert!(header.len() <= OBJECT_HEADER_MAX, "the writer keeps headers below their limit");
    assert!(
        to_usize(body_len) <= OBJECT_BYTES_MAX - header.len(),
        "the writer keeps objects below their limit"
    );
    let header_len = crate::codec::to_u32(header.len());
    let mut prefix = Prefix {
        magic: OBJECT_MAGIC,
        version: U16::new(OBJECT_VERSION),
        kind: kind as u8,
        reserved: 0,
        header_crc: U32::new(0),
        image: *id.image.0.as_bytes(),
        epoch: U64::new(id.epoch.0),
        seq: U64::new(id.seq.0),
        header_len: U32::new(header_len),
        body_len: U32::new(body_len),
        created_ms: U64::new(id.created_ms),
    };
    let (head, _) = header.split_at_mut(size_of::<Prefix>());
    head.copy_from_slice(prefix.as_bytes());
    let crc = header_crc(header, CRC_AT);
    prefix.header_crc = U32::new(crc);
    header[..size_of::<Prefix>()].copy_from_slice(prefix.as_bytes());
    crc
}

/// Checks that an object is the one that was asked for.
///
/// # Errors
/// `Misplaced` if it belongs to another image or has another sequence than its name says.
pub fn check_place(id: &ObjectId, image: ImageId, seq: ObjectSeq) -> Result<(), DecodeError> {
    if id.image != image {
        return Err(DecodeError::new("object image", 16, DecodeKind::Misplaced));
    }
    if id.seq != seq {
        return Err(DecodeError::new("object sequence", 40, DecodeKind::Misplaced));
    }
    Ok(())
}

/// Whose an object is, of any kind, if its header is whole.
///
/// # Errors
/// What is wrong, and where.
pub fn identify(bytes: &[u8]) -> Result<ObjectId, DecodeError> {
    let kinds = [ObjectKind::Data, ObjectKind::Moved, ObjectKind::MapPart, ObjectKind::Checkpoint];
    verify(bytes, &kinds).map(|(verified, _)| verified.id)
}
