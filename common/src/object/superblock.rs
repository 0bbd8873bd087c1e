//! The superblock: the only mutable object of an image, changed by compare-and-swap.
//!
//! It says what the image is, who may write it, and where its newest checkpoints are. After the
//! fixed fields come, in this order: the owner (if any), checkpoints, snapshots, lineage, children.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::header_crc;
use crate::codec::{DecodeError, DecodeKind, Reader, to_u32, to_usize};
use crate::ids::{Epoch, ImageId, LogId, ObjectSeq, Uuid, WriteSeq};
use crate::layout::layout;
use crate::limits::{
    CHECKPOINTS_KEPT, COUNTER_MAX, IMAGE_SECTORS_MAX, IMAGE_SECTORS_MIN, OBJECT_SEQ_MAX,
    REGION_SHIFT_MAX, REGION_SHIFT_MIN, REGIONS_MAX, SUPERBLOCK_BYTES_MAX,
};
use crate::name::ImageName;
use crate::units::Sectors;

/// First bytes of a superblock.
pub const SUPERBLOCK_MAGIC: [u8; 8] = *b"LSVDsup\x01";

/// The version that this software writes. History: 1, the first.
pub const SUPERBLOCK_VERSION: u16 = 1;

/// Incompatible features that this software knows; an image with others is not opened.
pub const INCOMPAT_KNOWN: u64 = 0;

/// Read-only-compatible features that this software knows; an image with others is only opened for
/// reading.
pub const RO_COMPAT_KNOWN: u64 = 0;

const CRC_AT: usize = 12;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SuperblockFields {
    magic: [u8; 8],
    version: U16,
    reserved: U16,
    crc: U32,
    image: [u8; 16],
    total_len: U32,
    sector_bytes: U32,
    size_sectors: U64,
    feature_compat: U64,
    feature_ro_compat: U64,
    feature_incompat: U64,
    epoch: U64,
    fence_epoch: U64,
    fence_seq: U64,
    floor_seq: U64,
    created_ms: U64,
    region_shift: u8,
    owner_present: u8,
    reserved2: [u8; 2],
    checkpoint_count: U32,
    snapshot_count: U32,
    lineage_count: U32,
    child_count: U32,
    reserved3: [u8; 60],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct OwnerFields {
    log: [u8; 16],
    claimed_ms: U64,
    pid: U32,
    host_len: U16,
    place_len: U16,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct CheckpointRow {
    seq: U64,
    covers: U64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SnapshotRow {
    seq: U64,
    write: U64,
    created_ms: U64,
    name_len: U16,
    reserved: [u8; 6],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct LineageRow {
    image: [u8; 16],
    last_seq: U64,
    name_len: U16,
    reserved: [u8; 6],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ChildRow {
    image: [u8; 16],
    name_len: U16,
    reserved: [u8; 6],
}

layout!(
    SUPERBLOCK_FIELDS_LAYOUT,
    SuperblockFields,
    192,
    [
        magic,
        version,
        reserved,
        crc,
        image,
        total_len,
        sector_bytes,
        size_sectors,
        feature_compat,
        feature_ro_compat,
        feature_incompat,
        epoch,
        fence_epoch,
        fence_seq,
        floor_seq,
        created_ms,
        region_shift,
        owner_present,
        reserved2,
        checkpoint_count,
        snapshot_count,
        lineage_count,
        child_count,
        reserved3
    ]
);
layout!(OWNER_FIELDS_LAYOUT, OwnerFields, 32, [log, claimed_ms, pid, host_len, place_len]);
layout!(CHECKPOINT_ROW_LAYOUT, CheckpointRow, 16, [seq, covers]);
layout!(SNAPSHOT_ROW_LAYOUT, SnapshotRow, 32, [seq, write, created_ms, name_len, reserved]);
layout!(LINEAGE_ROW_LAYOUT, LineageRow, 32, [image, last_seq, name_len, reserved]);
layout!(CHILD_ROW_LAYOUT, ChildRow, 24, [image, name_len, reserved]);

/// The sector size that an image shows to its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectorSize {
    /// 512 bytes.
    B512,
    /// 4096 bytes, the default.
    B4096,
}

impl SectorSize {
    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }

    /// From bytes; `None` for anything but 512 and 4096.
    #[must_use]
    pub fn from_bytes(bytes: u32) -> Option<Self> {
        match bytes {
            512 => Some(Self::B512),
            4096 => Some(Self::B4096),
            _ => None,
        }
    }
}

/// Feature flags in the three classes of ext4: unknown *compatible* ones are ignored, unknown
/// *read-only-compatible* ones forbid writing, unknown *incompatible* ones forbid opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// May be ignored.
    pub compat: u64,
    /// Must be known to write.
    pub ro_compat: u64,
    /// Must be known to open.
    pub incompat: u64,
}

/// The gateway that has the image open, or had when it crashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The write log that holds what is not in the store yet. Only its holder may continue without
    /// a takeover.
    pub log: LogId,
    /// When it claimed the image, in milliseconds since 1970.
    pub claimed_ms: u64,
    /// Its process.
    pub pid: u32,
    /// Its host, for people.
    pub host: String,
    /// Where its write log is on that host, for people.
    pub place: String,
}

/// The newest epoch from which objects count at a position: what a fenced writer puts behind it
/// does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// Objects from `seq` on count only with this epoch or a newer one.
    pub epoch: Epoch,
    /// The first object of that epoch.
    pub seq: ObjectSeq,
}

/// A checkpoint that the superblock names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointName {
    /// The checkpoint object.
    pub seq: ObjectSeq,
    /// What it covers: replay goes on with the object behind.
    pub covers: ObjectSeq,
}

/// A named checkpoint that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name, by the rules of image names, unique in the image.
    pub name: String,
    /// The checkpoint object.
    pub seq: ObjectSeq,
    /// The last write that it contains.
    pub write: WriteSeq,
    /// When it was made.
    pub created_ms: u64,
}

/// An image that this one was cloned from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// Identity of the base.
    pub image: ImageId,
    /// Name of the base.
    pub name: String,
    /// Objects up to this one are the base's.
    pub last_seq: ObjectSeq,
}

/// An image that was cloned from this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Identity of the clone.
    pub image: ImageId,
    /// Name of the clone.
    pub name: String,
}

/// The root of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Identity of the image.
    pub image: ImageId,
    /// What clients see as a sector.
    pub sector_size: SectorSize,
    /// Size of the image.
    pub size: Sectors,
    /// Feature flags.
    pub features: Features,
    /// The current, or last, term.
    pub epoch: Epoch,
    /// Where the newest term that finished recovery begins.
    pub fence: Fence,
    /// Numbered objects below this one may have been deleted; 1 while none ever was.
    pub floor: ObjectSeq,
    /// When the image was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// Region size of checkpoints, as a power of two of sectors.
    pub region_shift: u8,
    /// Who has it open; none after a clean close.
    pub owner: Option<Owner>,
    /// The newest checkpoints, newest first.
    pub checkpoints: Vec<CheckpointName>,
    /// Snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// Bases of a clone, nearest first.
    pub lineage: Vec<Lineage>,
    /// Clones of this image.
    pub children: Vec<Child>,
}

impl Superblock {
    /// The bytes of the object.
    ///
    /// # Errors
    /// `OutOfRange` for whatever `decode` would refuse: an image that nobody can open again must
    /// not be written. Most likely the whole is above the limit: too many snapshots or clones.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        self.check()?;
        let mut out = vec![0; size_of::<SuperblockFields>()];
        if let Some(owner) = &self.owner {
            out.extend_from_slice(
                OwnerFields {
                    log: *owner.log.0.as_bytes(),
                    claimed_ms: U64::new(owner.claimed_ms),
                    pid: U32::new(owner.pid),
                    host_len: text_len("owner host", &owner.host)?,
                    place_len: text_len("owner place", &owner.place)?,
                }
                .as_bytes(),
            );
            out.extend_from_slice(owner.host.as_bytes());
            out.extend_from_slice(owner.place.as_bytes());
        }
        for checkpoint in &self.checkpoints {
            let (seq, covers) = (U64::new(checkpoint.seq.0), U64::new(checkpoint.covers.0));
            out.extend_from_slice(CheckpointRow { seq, covers }.as_bytes());
        }
        for snapshot in &self.snapshots {
            let row = SnapshotRow {
                seq: U64::new(snapshot.seq.0),
                write: U64::new(snapshot.write.0),
                created_ms: U64::new(snapshot.created_ms),
                name_len: text_len("snapshot name", &snapshot.name)?,
                reserved: [0; 6],
            };
            out.extend_from_slice(row.as_bytes());
            out.extend_from_slice(snapshot.name.as_bytes());
        }
        for base in &self.lineage {
            let row = LineageRow {
                image: *base.image.0.as_bytes(),
                last_seq: U64::new(base.last_seq.0),
                name_len: text_len("base name", &base.name)?,
                reserved: [0; 6],
            };
            out.extend_from_slice(row.as_bytes());
            out.extend_from_slice(base.name.as_bytes());
        }
        for child in &self.children {
            let row = ChildRow {
                image: *child.image.0.as_bytes(),
                name_len: text_len("child name", &child.name)?,
                reserved: [0; 6],
            };
            out.extend_from_slice(row.as_bytes());
            out.extend_from_slice(child.name.as_bytes());
        }
        if out.len() > SUPERBLOCK_BYTES_MAX {
            return Err(DecodeError::range("superblock length", 32));
        }
        self.encode_fields(&mut out);
        Ok(out)
    }

    fn encode_fields(&self, out: &mut [u8]) {
        let fields = SuperblockFields {
            magic: SUPERBLOCK_MAGIC,
            version: U16::new(SUPERBLOCK_VERSION),
            reserved: U16::new(0),
            crc: U32::new(0),
            image: *self.image.0.as_bytes(),
            total_len: U32::new(to_u32(out.len())),
            sector_bytes: U32::new(self.sector_size.bytes()),
            size_sectors: U64::new(self.size.0),
            feature_compat: U64::new(self.features.compat),
            feature_ro_compat: U64::new(self.features.ro_compat),
            feature_incompat: U64::new(self.features.incompat),
            epoch: U64::new(self.epoch.0),
            fence_epoch: U64::new(self.fence.epoch.0),
            fence_seq: U64::new(self.fence.seq.0),
            floor_seq: U64::new(self.floor.0),
            created_ms: U64::new(self.created_ms),
            region_shift: self.region_shift,
            owner_present: u8::from(self.owner.is_some()),
            reserved2: [0; 2],
            checkpoint_count: U32::new(to_u32(self.checkpoints.len())),
            snapshot_count: U32::new(to_u32(self.snapshots.len())),
            lineage_count: U32::new(to_u32(self.lineage.len())),
            child_count: U32::new(to_u32(self.children.len())),
            reserved3: [0; 60],
        };
        out[..size_of::<SuperblockFields>()].copy_from_slice(fields.as_bytes());
        let crc = header_crc(out, CRC_AT);
        out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads and verifies a superblock.
    ///
    /// # Errors
    /// What is wrong, and where; `UnknownFeature` if the image needs a later version of this
    /// software.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let fields: &SuperblockFields = reader.one("superblock")?;
        verify(fields, bytes)?;
        let owner = match fields.owner_present {
            0 => None,
            1 => Some(decode_owner(&mut reader)?),
            _ => return Err(DecodeError::range("owner present", 113)),
        };
        let count = to_usize(fields.checkpoint_count.get());
        if count > CHECKPOINTS_KEPT {
            return Err(DecodeError::range("checkpoint count", 116));
        }
        let rows: &[CheckpointRow] = reader.many("checkpoints", count)?;
        let name = |row: &CheckpointRow| CheckpointName {
            seq: ObjectSeq(row.seq.get()),
            covers: ObjectSeq(row.covers.get()),
        };
        let checkpoints = rows.iter().map(name).collect();
        let superblock = Self {
            image: ImageId(Uuid::from_bytes(fields.image)),
            sector_size: SectorSize::from_bytes(fields.sector_bytes.get())
                .ok_or(DecodeError::range("sector size", 36))?,
            size: Sectors(fields.size_sectors.get()),
            features: Features {
                compat: fields.feature_compat.get(),
                ro_compat: fields.feature_ro_compat.get(),
                incompat: fields.feature_incompat.get(),
            },
            epoch: Epoch(fields.epoch.get()),
            fence: Fence {
                epoch: Epoch(fields.fence_epoch.get()),
                seq: ObjectSeq(fields.fence_seq.get()),
            },
            floor: ObjectSeq(fields.floor_seq.get()),
            created_ms: fields.created_ms.get(),
            region_shift: fields.region_shift,
            owner,
            checkpoints,
            snapshots: decode_snapshots(&mut reader, fields.snapshot_count.get())?,
            lineage: decode_lineage(&mut reader, fields.lineage_count.get())?,
            children: decode_children(&mut reader, fields.child_count.get())?,
        };
        if reader.position() != bytes.len() {
            return Err(DecodeError::range("superblock length", 32));
        }
        superblock.check()?;
        Ok(superblock)
    }

    /// The rules for values; `decode` and `encode` share them.
    fn check(&self) -> Result<(), DecodeError> {
        let size_ok = (IMAGE_SECTORS_MIN..=IMAGE_SECTORS_MAX).contains(&self.size.0);
        let unit = u64::from(self.sector_size.bytes()) / crate::units::SECTOR_BYTES;
        if !size_ok || !self.size.0.is_multiple_of(unit) {
            return Err(DecodeError::range("image size", 40));
        }
        let shift_ok = (REGION_SHIFT_MIN..=REGION_SHIFT_MAX).contains(&self.region_shift);
        if !shift_ok || self.size.0.div_ceil(1 << self.region_shift) > REGIONS_MAX {
            return Err(DecodeError::range("region size", 112));
        }
        if self.epoch.0 > COUNTER_MAX {
            return Err(DecodeError::range("epoch", 72));
        }
        if self.fence.epoch > self.epoch {
            return Err(DecodeError::range("fence epoch", 80));
        }
        if self.fence.seq.0 > OBJECT_SEQ_MAX {
            return Err(DecodeError::range("fence sequence", 88));
        }
        if !(1..=OBJECT_SEQ_MAX).contains(&self.floor.0) {
            return Err(DecodeError::range("floor sequence", 96));
        }
        if self.checkpoints.len() > CHECKPOINTS_KEPT {
            return Err(DecodeError::range("checkpoint count", 116));
        }
        self.check_sections()
    }

    /// The rules for what follows the fixed fields. Where a row is depends on what is before it, so
    /// errors name the field that counts the rows.
    fn check_sections(&self) -> Result<(), DecodeError> {
        let is_name = |name: &str| ImageName::parse(name).is_ok();
        let checkpoint = |c: &CheckpointName| c.covers < c.seq && c.seq.0 <= OBJECT_SEQ_MAX;
        if !self.checkpoints.iter().all(checkpoint) {
            return Err(DecodeError::range("checkpoint", 116));
        }
        let snapshot = |s: &Snapshot| {
            is_name(&s.name) && s.seq.0 <= OBJECT_SEQ_MAX && s.write.0 <= COUNTER_MAX
        };
        if !self.snapshots.iter().all(snapshot) {
            return Err(DecodeError::range("snapshot", 120));
        }
        if !self.lineage.iter().all(|l| is_name(&l.name) && l.last_seq.0 <= OBJECT_SEQ_MAX) {
            return Err(DecodeError::range("base", 124));
        }
        if !self.children.iter().all(|child| is_name(&child.name)) {
            return Err(DecodeError::range("child", 128));
        }
        Ok(())
    }
}

fn verify(fields: &SuperblockFields, bytes: &[u8]) -> Result<(), DecodeError> {
    if fields.magic != SUPERBLOCK_MAGIC {
        return Err(DecodeError::new("superblock magic", 0, DecodeKind::BadMagic));
    }
    let version = fields.version.get();
    if version == 0 || version > SUPERBLOCK_VERSION {
        let kind = DecodeKind::UnsupportedVersion { found: version, known: SUPERBLOCK_VERSION };
        return Err(DecodeError::new("superblock version", 8, kind));
    }
    let total = to_usize(fields.total_len.get());
    if total > SUPERBLOCK_BYTES_MAX {
        return Err(DecodeError::range("superblock length", 32));
    }
    if total > bytes.len() {
        let kind = DecodeKind::Truncated { needed: total, found: bytes.len() };
        return Err(DecodeError::new("superblock", 0, kind));
    }
    if total != bytes.len() {
        return Err(DecodeError::range("superblock length", 32));
    }
    let (expected, found) = (fields.crc.get(), header_crc(bytes, CRC_AT));
    if expected != found {
        let kind = DecodeKind::BadChecksum { expected, found };
        return Err(DecodeError::new("superblock", CRC_AT, kind));
    }
    let bits = fields.feature_incompat.get() & !INCOMPAT_KNOWN;
    if bits != 0 {
        return Err(DecodeError::new("superblock", 64, DecodeKind::UnknownFeature { bits }));
    }
    Ok(())
}

fn text_len(what: &'static str, text: &str) -> Result<U16, DecodeError> {
    u16::try_from(text.len()).map(U16::new).map_err(|_| DecodeError::range(what, 0))
}

fn decode_owner(reader: &mut Reader<'_>) -> Result<Owner, DecodeError> {
    let row: &OwnerFields = reader.one("owner")?;
    let host = reader.text("owner host", row.host_len.get().into())?;
    let place = reader.text("owner place", row.place_len.get().into())?;
    Ok(Owner {
        log: LogId(Uuid::from_bytes(row.log)),
        claimed_ms: row.claimed_ms.get(),
        pid: row.pid.get(),
        host: host.to_owned(),
        place: place.to_owned(),
    })
}

fn decode_snapshots(reader: &mut Reader<'_>, count: u32) -> Result<Vec<Snapshot>, DecodeError> {
    let mut snapshots = Vec::new();
    for _ in 0..count {
        let row: &SnapshotRow = reader.one("snapshot")?;
        let name = reader.text("snapshot name", row.name_len.get().into())?.to_owned();
        snapshots.push(Snapshot {
            name,
            seq: ObjectSeq(row.seq.get()),
            write: WriteSeq(row.write.get()),
            created_ms: row.created_ms.get(),
        });
    }
    Ok(snapshots)
}

fn decode_lineage(reader: &mut Reader<'_>, count: u32) -> Result<Vec<Lineage>, DecodeError> {
    let mut lineage = Vec::new();
    for _ in 0..count {
        let row: &LineageRow = reader.one("base")?;
        let name = reader.text("base name", row.name_len.get().into())?.to_owned();
        let image = ImageId(Uuid::from_bytes(row.image));
        lineage.push(Lineage { image, name, last_seq: ObjectSeq(row.last_seq.get()) });
    }
    Ok(lineage)
}

fn decode_children(reader: &mut Reader<'_>, count: u32) -> Result<Vec<Child>, DecodeError> {
    let mut children = Vec::new();
    for _ in 0..count {
        let row: &ChildRow = reader.one("child")?;
        let name = reader.text("child name", row.name_len.get().into())?.to_owned();
        children.push(Child { image: ImageId(Uuid::from_bytes(row.image)), name });
    }
    Ok(children)
}
