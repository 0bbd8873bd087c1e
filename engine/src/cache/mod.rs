//! The read cache of a gateway: decoded frames of immutable objects, in RAM and on the SSD, for all
//! its volumes.
//!
//! Does not: fetch, decode or know volumes. A caller that gets `None` fetches the frame (through
//! [`SingleFlight`], so that concurrent misses fetch once) and inserts it.
//! Invariants: 1. What comes out under a key is what was inserted under it, or nothing: every read
//! of the SSD is verified. 2. RAM, the write queue, and the slots are bounded by configuration and
//! named limits. 3. Nothing waits for a write to the SSD; an insert that finds the queue full stays
//! in RAM only.
//! Crash: nothing here is needed. What is on the SSD is used again after a restart once it was
//! verified.
//! Concurrency: any thread. `get` may be dropped at any point. Background work runs on the
//! configured runtime while there is some: an idle cache has no task and no timer.

mod ram;
mod single_flight;
mod ssd;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lsvd_common::ids::{ImageId, Uuid};
use lsvd_common::limits::FRAME_BYTES;
use lsvd_common::units::SECTOR_LEN;
use tokio::runtime::Handle;

pub use lsvd_common::cache_file::FrameKey;
pub use single_flight::SingleFlight;

use crate::disk::Disk;
use ram::RamTier;
use ssd::SsdTier;

/// How long an index page stays dirty before it is written: what a killed gateway forgets of its
/// newest frames, against one write for each page of 32 slots. Slots are filled in order, so a busy
/// cache writes each page about once.
pub const INDEX_FLUSH_DELAY: Duration = Duration::from_secs(5);

/// What a cache needs to know when it is opened.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Limit of the RAM tier in bytes, overhead of its entries included; 0 for none. The index of
    /// the SSD tier comes on top, about 128 bytes for each 64 KiB of SSD: see
    /// [`CacheStats::index_bytes`].
    pub ram_bytes: u64,
    /// The identity that the SSD gets if it must be started empty. Never used before; the caller
    /// makes it, because the engine draws no random numbers.
    pub new_cache: Uuid,
    /// Where background writes run. Its timer must be enabled, and it must be alive when `close`
    /// is called.
    pub runtime: Handle,
}

/// How an inserted frame came to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Somebody asked for a part of it.
    Random,
    /// It is part of a long run, read once: a scan, a read-ahead, a copy. It gets no slot that
    /// another frame has.
    Sequential,
}

/// What a cache did since it was opened, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Look-ups that RAM answered.
    pub ram_hits: u64,
    /// Calls of `get` that RAM did not answer.
    pub ram_misses: u64,
    /// Frames that RAM gave up for others.
    pub ram_evictions: u64,
    /// Frames in RAM.
    pub ram_frames: u64,
    /// Bytes in RAM, overhead included; at most the configured limit.
    pub ram_bytes: u64,
    /// Calls of `get` that the SSD answered.
    pub ssd_hits: u64,
    /// Calls of `get` that neither tier answered. Hits and misses of the SSD add up to the misses
    /// of RAM.
    pub ssd_misses: u64,
    /// Frames that the SSD gave up for others.
    pub ssd_evictions: u64,
    /// Bytes read from slots.
    pub ssd_bytes_read: u64,
    /// Bytes written to slots.
    pub ssd_bytes_written: u64,
    /// Inserts that did not qualify for a slot: a first touch or a scan, and no slot was free.
    pub not_admitted: u64,
    /// Inserts that qualified, but came faster than the SSD writes, or found every slot in use.
    pub queue_dropped: u64,
    /// Slots whose content was not what it should be: damage, or a claim from before a crash.
    pub corrupt_dropped: u64,
    /// Reads of slots that failed.
    pub read_errors: u64,
    /// Writes of slots or index pages that failed.
    pub write_errors: u64,
    /// Slots that hold a frame or are being filled.
    pub slots_used: u64,
    /// Slots there are; 0 without SSD.
    pub slots_total: u64,
    /// Memory of the SSD tier's index, in bytes.
    pub index_bytes: u64,
    /// True if writes failed repeatedly and the SSD is used no more until the cache is opened
    /// again.
    pub is_ssd_off: bool,
}

/// The cache. Dropping it without `close` forgets what it did in the last seconds, no more.
#[derive(Debug)]
pub struct ReadCache {
    ram: RamTier,
    ssd: Option<Arc<SsdTier>>,
    ram_hits: AtomicU64,
    ram_misses: AtomicU64,
}

impl ReadCache {
    /// Opens the cache on a disk of its own, with whatever that still holds of an earlier run.
    ///
    /// This cannot fail: without a usable disk the cache has its RAM tier only, and says so once.
    pub async fn open(config: CacheConfig, ssd: Option<Arc<dyn Disk>>) -> Arc<Self> {
        Self::open_with(config, ssd, INDEX_FLUSH_DELAY).await
    }

    async fn open_with(
        config: CacheConfig,
        ssd: Option<Arc<dyn Disk>>,
        flush_delay: Duration,
    ) -> Arc<Self> {
        let ssd = match ssd {
            Some(disk) => SsdTier::open(disk, &config, flush_delay).await,
            None => None,
        };
        Arc::new(Self {
            ram: RamTier::new(config.ram_bytes),
            ssd,
            ram_hits: AtomicU64::new(0),
            ram_misses: AtomicU64::new(0),
        })
    }

    /// The whole frame, if it is in RAM. A miss is not counted: `get` follows.
    #[must_use]
    pub fn get_ram(&self, key: &FrameKey) -> Option<Bytes> {
        let frame = self.ram.get(key)?;
        self.ram_hits.fetch_add(1, Ordering::Relaxed);
        Some(frame)
    }

    /// The bytes `within` the frame, if the cache has them; a range that ends behind the frame is
    /// not there. From the SSD it reads the pages that the range touches, or the whole frame when
    /// that is likely to be used again or was never verified.
    ///
    /// # Panics
    /// If the range is empty or not in multiples of 512.
    pub async fn get(&self, key: &FrameKey, within: Range<usize>) -> Option<Bytes> {
        let is_whole_sectors =
            within.start.is_multiple_of(SECTOR_LEN) && within.end.is_multiple_of(SECTOR_LEN);
        assert!(within.start < within.end && is_whole_sectors, "a range of sectors: {within:?}");
        if let Some(frame) = self.get_ram(key) {
            return (within.end <= frame.len()).then(|| frame.slice(within));
        }
        self.ram_misses.fetch_add(1, Ordering::Relaxed);
        let found = self.ssd.as_ref()?.read(key, within, self.ram.is_enabled()).await?;
        if let Some(frame) = found.frame {
            self.ram.insert(*key, frame);
        }
        Some(found.bytes)
    }

    /// Takes a frame in. Returns at once; the SSD is written later, or not at all.
    ///
    /// The bytes are copied: `frame` may be a slice of a large buffer, which must not live as long
    /// as the frame does.
    ///
    /// # Panics
    /// If the length is not a multiple of 512 in 512..=65,536.
    pub fn insert(&self, key: FrameKey, frame: &[u8], hint: Hint) {
        let len = frame.len();
        let is_frame = (1..=FRAME_BYTES).contains(&len) && len.is_multiple_of(SECTOR_LEN);
        assert!(is_frame, "{len} bytes are no frame");
        let frame = Bytes::copy_from_slice(frame);
        self.ram.insert(key, frame.clone());
        if let Some(ssd) = &self.ssd {
            ssd.offer(key, frame, hint, |key| self.ram.contains(key));
        }
    }

    /// Forgets all frames of an image that was deleted. Takes time in proportion to the size of the
    /// cache, but holds up others only for moments. Not needed for correctness: an identity is
    /// never used again.
    pub fn remove_image(&self, image: ImageId) {
        self.ram.remove_image(image);
        if let Some(ssd) = &self.ssd {
            ssd.remove_image(image);
        }
    }

    /// The figures of this moment.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let ram_misses = self.ram_misses.load(Ordering::Relaxed);
        let mut stats = CacheStats {
            ram_hits: self.ram_hits.load(Ordering::Relaxed),
            ram_misses,
            ram_evictions: self.ram.evictions(),
            ram_frames: self.ram.frames(),
            ram_bytes: self.ram.bytes(),
            ssd_misses: ram_misses,
            ..CacheStats::default()
        };
        if let Some(ssd) = &self.ssd {
            ssd.add_to(&mut stats);
        }
        stats
    }

    /// Finishes the writes that wait, and makes the index durable. Look-ups go on working, inserts
    /// reach RAM only.
    pub async fn close(&self) {
        if let Some(ssd) = &self.ssd {
            ssd.close().await;
        }
    }
}

impl Drop for ReadCache {
    fn drop(&mut self) {
        if let Some(ssd) = &self.ssd {
            ssd.abandon();
        }
    }
}

#[cfg(test)]
fn test_key(image: u128, frame: u32) -> FrameKey {
    use lsvd_common::ids::ObjectSeq;
    let image = ImageId(Uuid::from_u128(image));
    FrameKey { image, object: ObjectSeq(u64::from(frame / 128) + 1), fingerprint: 5, frame }
}

#[cfg(test)]
mod test;
