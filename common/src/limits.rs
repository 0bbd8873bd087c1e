//! Every limit of the formats, with its reason. Writers stay below, readers refuse above.

use crate::units::{PAGE_LEN, SECTOR_BYTES, SECTOR_LEN};

/// Largest image, in sectors (64 TiB): 2^37 sectors leave room in every packed field.
pub const IMAGE_SECTORS_MAX: u64 = 1 << 37;

/// Smallest image, in sectors (1 MiB): below that the metadata outweighs the data.
pub const IMAGE_SECTORS_MIN: u64 = (1 << 20) / SECTOR_BYTES;

/// Largest object in the store, any kind: RADOS refuses writes above 90 MiB by default, and a small
/// object keeps retries and memory small.
pub const OBJECT_BYTES_MAX: usize = 32 << 20;

/// Largest payload of a data object before coding: offsets in sectors must fit the map's 16 bits.
pub const OBJECT_PAYLOAD_MAX: usize = 24 << 20;

/// Frame: the unit of checksum, coding and caching.
pub const FRAME_BYTES: usize = 64 << 10;

/// Largest header of an object, tables included.
pub const OBJECT_HEADER_MAX: usize = OBJECT_BYTES_MAX - OBJECT_PAYLOAD_MAX;

/// Largest data part of a log record, and so the largest write that is atomic.
pub const RECORD_DATA_MAX: usize = 4 << 20;

/// Most entries in a log record: a full record of single sectors.
pub const RECORD_ENTRIES_MAX: usize = RECORD_DATA_MAX / SECTOR_LEN;

/// Largest data of one log entry: a read that must go to the log verifies a whole entry.
pub const ENTRY_DATA_MAX: usize = 64 << 10;

/// Largest superblock: snapshots and children are listed in it.
pub const SUPERBLOCK_BYTES_MAX: usize = 4 << 20;

/// Checkpoints that the superblock names, newest first: one spare for when the newest is damaged.
pub const CHECKPOINTS_KEPT: usize = 2;

/// Longest image name in bytes: object stores allow 1,024 for the whole key.
pub const IMAGE_NAME_MAX: usize = 96;

/// Smallest region of the map that the format allows, as a power of two of sectors; tests use it on
/// tiny images.
pub const REGION_SHIFT_MIN: u8 = 10;
/// Region size of a new image unless it is large (64 MiB): the unit of an incremental checkpoint.
pub const REGION_SHIFT_DEFAULT: u8 = 17;
/// The largest region (512 MiB): fully fragmented over as many objects, its section is 20 MiB and
/// still fits one object.
pub const REGION_SHIFT_MAX: u8 = 20;

/// Most regions of an image: an index of them all fills half of a checkpoint, the other half is for
/// the object table.
pub const REGIONS_MAX: u64 = IMAGE_SECTORS_MAX >> REGION_SHIFT_MAX;

/// Largest sequence of a numbered object: numbers of object table sections fit 32 bits, with room
/// to count on.
pub const OBJECT_SEQ_MAX: u64 = 1 << 43;

/// Largest epoch, write sequence, record sequence, generation and log position that is read:
/// whoever counts on from there, or adds a length, does not overflow. A million writes a second
/// take 146,000 years to get there.
pub const COUNTER_MAX: u64 = 1 << 62;

/// Largest ring of a write log, in pages (16 TiB): its size in bytes does not overflow.
pub const RING_PAGES_MAX: u64 = 1 << 32;

/// Object table entries in one section of a checkpoint, as a power of two.
pub const TABLE_SHIFT: u32 = 12;

/// Entries of a record header that fit its first page; more make the header longer, page by page.
pub const RECORD_HEADER_MAX: usize = (128 + 32 * RECORD_ENTRIES_MAX).next_multiple_of(PAGE_LEN);

const _: () = {
    assert!(OBJECT_PAYLOAD_MAX / SECTOR_LEN <= 1 << 16, "offsets fit 16 bits");
    assert!(RECORD_DATA_MAX <= OBJECT_PAYLOAD_MAX / 4, "a batch ends at a record");
    // Every sector an extent of 12 bytes, and every one in another object, whose number takes 8.
    assert!((1 << REGION_SHIFT_MAX) * (12 + 8) < OBJECT_PAYLOAD_MAX, "a region fits an object");
    assert!(REGIONS_MAX * 32 <= OBJECT_HEADER_MAX as u64 / 2, "an index of regions fits");
    assert!(OBJECT_SEQ_MAX >> TABLE_SHIFT < u32::MAX as u64, "table sections have numbers");
    assert!(OBJECT_BYTES_MAX <= u32::MAX as usize, "lengths in objects fit 32 bits");
    assert!(FRAME_BYTES.is_multiple_of(PAGE_LEN));
    assert!(ENTRY_DATA_MAX.is_multiple_of(PAGE_LEN));
};

/// The region size for an image of `sectors`: as fine as a table of 8,192 regions allows.
#[must_use]
pub fn region_shift_for(sectors: u64) -> u8 {
    (REGION_SHIFT_DEFAULT..REGION_SHIFT_MAX)
        .find(|shift| sectors >> shift <= 8192)
        .unwrap_or(REGION_SHIFT_MAX)
}
