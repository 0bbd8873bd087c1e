//! The RAM tier: whole frames, bounded by bytes, overhead included.
//!
//! Does not: know the SSD, or copy frames; what is inserted here must own exactly its bytes.
//! Invariants: the sum of frames and overheads never exceeds the limit.
//! Concurrency: sharded inside, any thread, no lock is held on return.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lsvd_common::cache_file::{FrameKey, SLOT_BYTES};
use lsvd_common::ids::ImageId;
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

/// Bytes that an entry costs beside its frame. `quick_cache` keeps (key + value + 21) * 1.5 for its
/// table and ghosts, which a table that has just doubled doubles again: 255. Allocator headers and
/// the shared counter of `Bytes` add 56.
pub(super) const ENTRY_OVERHEAD: u64 = 312;

/// The share of the tier for frames that were used again. The rest is for newcomers: read-ahead
/// must live long enough to be read once, and the default of 3 % is one window of 8 MiB in a tier
/// of 256 MiB.
const HOT_SHARE: f64 = 0.9;

/// The tier. Without capacity it holds nothing and costs nothing.
#[derive(Debug)]
pub(super) struct RamTier {
    frames: Option<Cache<FrameKey, Bytes, ByBytes, ByKey, CountEvictions>>,
    evictions: Arc<AtomicU64>,
}

impl RamTier {
    pub(super) fn new(limit_bytes: u64) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        if limit_bytes == 0 {
            return Self { frames: None, evictions };
        }
        let entries = usize::try_from(limit_bytes / (SLOT_BYTES + ENTRY_OVERHEAD));
        let options = OptionsBuilder::new()
            .weight_capacity(limit_bytes)
            .estimated_items_capacity(entries.unwrap_or(usize::MAX).max(1))
            .shards(SHARDS)
            .hot_allocation(HOT_SHARE)
            .build()
            .expect("capacity and estimate are set");
        let lifecycle = CountEvictions(Arc::clone(&evictions));
        Self { frames: Some(Cache::with_options(options, ByBytes, ByKey, lifecycle)), evictions }
    }

    /// False if the tier holds nothing by configuration.
    pub(super) fn is_enabled(&self) -> bool {
        self.frames.is_some()
    }

    pub(super) fn get(&self, key: &FrameKey) -> Option<Bytes> {
        self.frames.as_ref()?.get(key)
    }

    /// Like `get`, but the frame is not used by it.
    pub(super) fn contains(&self, key: &FrameKey) -> bool {
        self.frames.as_ref().is_some_and(|frames| frames.contains_key(key))
    }

    pub(super) fn insert(&self, key: FrameKey, frame: Bytes) {
        if let Some(frames) = &self.frames {
            frames.insert(key, frame);
        }
    }

    /// Drops every frame of an image; proportional to the frames in the tier.
    pub(super) fn remove_image(&self, image: ImageId) {
        if let Some(frames) = &self.frames {
            frames.retain(|key, _| key.image != image);
        }
    }

    /// Bytes in use, overhead included.
    pub(super) fn bytes(&self) -> u64 {
        self.frames.as_ref().map_or(0, Cache::weight)
    }

    pub(super) fn frames(&self) -> u64 {
        self.frames.as_ref().map_or(0, |frames| frames.len() as u64)
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }
}

/// Fixed, where the library would ask the machine: which frame is evicted must not depend on the
/// number of cores.
const SHARDS: usize = 16;

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<FrameKey, Bytes> for ByBytes {
    fn weight(&self, _key: &FrameKey, frame: &Bytes) -> u64 {
        frame.len() as u64 + ENTRY_OVERHEAD
    }
}

/// Hands through the hash that the key makes of itself.
#[derive(Clone, Debug)]
struct ByKey;

#[derive(Debug)]
struct KeyHash(u64);

impl BuildHasher for ByKey {
    type Hasher = KeyHash;

    fn build_hasher(&self) -> KeyHash {
        KeyHash(0)
    }
}

impl Hasher for KeyHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not reached by FrameKey, but right for any other key.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 ^= hash;
    }
}

#[derive(Clone, Debug)]
struct CountEvictions(Arc<AtomicU64>);

impl Lifecycle<FrameKey, Bytes> for CountEvictions {
    /// The last evicted frame, so that usually none is freed while a shard is locked.
    type RequestState = Option<Bytes>;

    fn on_evict(&self, last: &mut Self::RequestState, _key: FrameKey, frame: Bytes) {
        self.0.fetch_add(1, Ordering::Relaxed);
        *last = Some(frame);
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::cache::test_key;

    fn frame(bytes: usize) -> Bytes {
        Bytes::from(vec![1; bytes])
    }

    #[test]
    fn its_bytes_never_exceed_the_limit() {
        let limit = 3 << 20;
        let ram = RamTier::new(limit);
        for i in 0..3000 {
            ram.insert(test_key(1, i), frame(512 * (1 + i as usize % 128)));
            assert!(ram.bytes() <= limit);
        }
        assert!(ram.bytes() > limit / 2, "and the room is used: {}", ram.bytes());
        assert_eq!(ram.evictions() + ram.frames(), 3000);
    }

    #[test]
    fn the_overhead_covers_what_the_table_takes_for_the_smallest_frames() {
        let ram = RamTier::new(1 << 20);
        for i in 0..10_000 {
            ram.insert(test_key(1, i), frame(512));
        }
        let table = ram.frames.as_ref().expect("enabled").memory_used().total() as u64;
        assert!(table <= ram.frames() * ENTRY_OVERHEAD, "{table} for {} frames", ram.frames());
    }

    #[test]
    fn no_capacity_holds_nothing() {
        let ram = RamTier::new(0);
        ram.insert(test_key(1, 1), frame(512));
        assert_eq!(ram.get(&test_key(1, 1)), None);
        assert_eq!((ram.bytes(), ram.frames()), (0, 0));
    }

    #[test]
    fn a_scan_leaves_what_is_used_again() {
        let ram = RamTier::new(16 << 20);
        let hot = 0..100;
        for i in hot.clone() {
            ram.insert(test_key(1, i), frame(65_536));
        }
        for i in 0..2000 {
            for hot in hot.clone().step_by(10) {
                let _ = ram.get(&test_key(1, hot + i % 10));
            }
            ram.insert(test_key(2, i), frame(65_536));
        }
        let kept = hot.filter(|i| ram.contains(&test_key(1, *i))).count();
        assert!(kept >= 95, "{kept} of 100 hot frames survived a scan of 2000");
    }

    #[test]
    fn an_image_goes_without_its_neighbours() {
        let ram = RamTier::new(16 << 20);
        ram.insert(test_key(1, 1), frame(512));
        ram.insert(test_key(2, 1), frame(512));
        ram.remove_image(test_key(1, 1).image);
        assert!(!ram.contains(&test_key(1, 1)) && ram.contains(&test_key(2, 1)));
    }
}
