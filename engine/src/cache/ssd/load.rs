//! Opening the file: its superblock and its index, or a fresh start.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use lsvd_common::cache_file::{
    CacheSuperblock, ENTRIES_PER_PAGE, ENTRY_BYTES, Geometry, decode_entry,
};
use lsvd_common::ids::Uuid;
use lsvd_common::units::PAGE_LEN;

use super::slots::{Recovery, Slots};
use crate::disk::{AlignedBuf, Disk, DiskFuture};

/// Index pages in one read (1 MiB), and reads at a time: the 128 MiB of a 64 GiB cache at the speed
/// of the SSD.
const LOAD_PAGES: u32 = 256;
const LOADS_IN_FLIGHT: usize = 8;

/// Reads what the disk says it holds. A disk that does not hold a cache of this version and size is
/// started empty.
pub(super) async fn load(disk: &dyn Disk, new_cache: Uuid) -> io::Result<(CacheSuperblock, Slots)> {
    let Some(geometry) = Geometry::of_file(disk.len()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no room for a single frame"));
    };
    let page = disk.read_at(0, PAGE_LEN).await?;
    match CacheSuperblock::decode(&page, disk.len()) {
        Ok(superblock) => Ok((superblock, load_index(disk, superblock).await)),
        Err(error) => {
            let disk_name = disk.describe();
            if page.iter().all(|byte| *byte == 0) {
                tracing::info!(disk = disk_name, "read cache starts on a new file");
            } else {
                tracing::warn!(disk = disk_name, %error, "read cache starts empty");
            }
            let superblock = CacheSuperblock { cache: new_cache, geometry };
            format(disk, &superblock).await?;
            Ok((superblock, Slots::new(geometry.slots())))
        }
    }
}

/// The index needs no clearing: its old entries do not carry the new identity. That is why this is
/// synced before any entry is written: under the old identity, entries of the new cache would be
/// leftovers.
async fn format(disk: &dyn Disk, superblock: &CacheSuperblock) -> io::Result<()> {
    let mut page = AlignedBuf::zeroed(PAGE_LEN);
    let bytes = superblock.encode();
    page[..bytes.len()].copy_from_slice(&bytes);
    disk.write_at(0, page.freeze()).await?;
    disk.sync().await
}

async fn load_index(disk: &dyn Disk, superblock: CacheSuperblock) -> Slots {
    let geometry = superblock.geometry;
    let mut recovery = Slots::recovering(geometry.slots());
    let mut reads: VecDeque<(u32, DiskFuture<AlignedBuf>)> = VecDeque::new();
    let mut failed = 0_u64;
    let mut starts = (0..geometry.index_pages()).step_by(LOAD_PAGES as usize);
    loop {
        while reads.len() < LOADS_IN_FLIGHT
            && let Some(first) = starts.next()
        {
            let pages = LOAD_PAGES.min(geometry.index_pages() - first) as usize;
            let offset = geometry.index_page_offset(first);
            reads.push_back((first, disk.read_at(offset, pages * PAGE_LEN)));
        }
        let Some((first, read)) = reads.pop_front() else {
            break;
        };
        match read.await {
            Ok(pages) => add_entries(&mut recovery, superblock, first, &pages.freeze()),
            Err(_) => failed += 1,
        }
    }
    let slots = recovery.finish();
    let (used, total) = (slots.used(), slots.total());
    let disk = disk.describe();
    if failed > 0 {
        tracing::warn!(disk, failed, "read cache lost a part of its index to read errors");
    }
    tracing::info!(disk, used, total, "read cache on SSD opened");
    slots
}

/// Entries that do not decode are empty slots: an older cache's leftovers, a torn page, damage.
/// Nothing is lost but a frame that can be fetched again.
fn add_entries(recovery: &mut Recovery, superblock: CacheSuperblock, first: u32, pages: &Bytes) {
    let slots = first * ENTRIES_PER_PAGE..superblock.geometry.slots();
    for (slot, entry) in slots.zip(pages.chunks_exact(ENTRY_BYTES)) {
        if let Ok(Some(claim)) = decode_entry(entry, superblock.cache, slot) {
            recovery.add(slot, claim);
        }
    }
}
