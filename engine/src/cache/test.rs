//! The whole cache over a disk that crashes, fails, lies and waits.

mod disk;
mod model;

use std::sync::Arc;
use std::time::Duration;

use lsvd_common::cache_file::{FrameKey, Geometry};
use lsvd_common::ids::Uuid;
use tokio::runtime::{Builder, Handle, Runtime};

use super::{CacheConfig, Hint, ReadCache, test_key};
use disk::TestDisk;

const FRAME: usize = 65_536;
const PAGE: usize = 4096;
/// No test waits for it.
const NEVER: Duration = Duration::from_secs(3600);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

/// A disk with room for exactly `slots` slots.
fn disk_of(slots: u32) -> Arc<TestDisk> {
    let geometry = (1_u64..)
        .map(|pages| Geometry::of_file(pages * PAGE as u64))
        .find_map(|geometry| geometry.filter(|geometry| geometry.slots() == slots))
        .expect("some size has so many slots");
    TestDisk::zeroed(geometry.file_bytes())
}

async fn open_after(disk: &Arc<TestDisk>, ram_frames: u64, delay: Duration) -> Arc<ReadCache> {
    let config = CacheConfig {
        ram_bytes: ram_frames * (FRAME as u64 + super::ram::ENTRY_OVERHEAD),
        new_cache: Uuid::from_u128(disk.fresh_id()),
        runtime: Handle::current(),
    };
    ReadCache::open_with(config, Some(Arc::clone(disk) as _), delay).await
}

async fn open(disk: &Arc<TestDisk>, ram_frames: u64) -> Arc<ReadCache> {
    open_after(disk, ram_frames, NEVER).await
}

/// The content of a frame: most of it zeros, as frames of a young file system are, so that frames
/// differ in few pages.
fn frame_of(key: &FrameKey, len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    let seed = key.hash64().to_le_bytes();
    for (at, byte) in (0..len).step_by(len.div_ceil(3)).zip(seed.iter().cycle()) {
        frame[at] = byte | 1;
    }
    frame[..8].copy_from_slice(&seed);
    frame
}

fn full(frame: u32) -> (FrameKey, Vec<u8>) {
    let key = test_key(1, frame);
    (key, frame_of(&key, FRAME))
}

async fn put(cache: &ReadCache, frame: u32, hint: Hint) {
    let (key, bytes) = full(frame);
    cache.insert(key, &bytes, hint);
    settle(cache).await;
}

async fn settle(cache: &ReadCache) {
    cache.ssd.as_ref().expect("the cache has an SSD").writers_settled().await;
}

async fn flush(cache: &ReadCache) {
    cache.ssd.as_ref().expect("the cache has an SSD").flush_index().await;
}

/// The whole frame, which must be right if it is there.
async fn look(cache: &ReadCache, frame: u32) -> bool {
    let (key, bytes) = full(frame);
    let found = cache.get(&key, 0..FRAME).await;
    assert!(found.as_ref().is_none_or(|found| *found == bytes), "frame {frame} came back wrong");
    found.is_some()
}

#[test]
fn pieces_come_back_from_ram_and_from_the_ssd() {
    runtime().block_on(async {
        for ram_frames in [0, 40] {
            let cache = open(&disk_of(8), ram_frames).await;
            for len in [512, 4096, 4608, 61_440, 65_024, 65_536] {
                let key = test_key(1, len as u32);
                let frame = frame_of(&key, len);
                cache.insert(key, &frame, Hint::Random);
                settle(&cache).await;
                for within in [0..512, 0..len, len - 512..len, len / 1024 * 512..len] {
                    if !within.is_empty() {
                        let piece = cache.get(&key, within.clone()).await;
                        assert!(piece.as_deref() == Some(&frame[within]), "{ram_frames} {len}");
                    }
                }
                assert_eq!(cache.get(&key, len..len + 512).await, None, "behind the frame");
            }
            let stats = cache.stats();
            assert_eq!(stats.ram_hits > 0, ram_frames > 0);
            assert_eq!(stats.ssd_hits > 0, ram_frames == 0);
        }
    });
}

#[test]
fn a_small_read_touches_only_its_pages_and_the_second_one_promotes() {
    runtime().block_on(async {
        let disk = disk_of(40);
        let cache = open(&disk, 4).await;
        for frame in 0..40 {
            put(&cache, frame, Hint::Random).await;
        }
        let is_cold = |frame: &u32| cache.get_ram(&full(*frame).0).is_none();
        let (key, bytes) = full((0..40).find(is_cold).expect("RAM holds a few of them"));
        disk.take_reads();
        let piece = cache.get(&key, 4608..8704).await;
        assert!(piece.as_deref() == Some(&bytes[4608..8704]));
        let reads = disk.take_reads();
        assert_eq!(reads.iter().map(|read| read.1).collect::<Vec<_>>(), [2 * PAGE]);
        assert!(cache.get_ram(&key).is_none(), "one touch is no reason to read 16 pages");
        assert!(cache.get(&key, 0..512).await.as_deref() == Some(&bytes[..512]));
        assert_eq!(disk.take_reads()[0].1, FRAME);
        assert!(cache.get_ram(&key).as_deref() == Some(&bytes));
    });
}

#[test]
fn it_is_warm_after_a_close() {
    runtime().block_on(async {
        let disk = disk_of(40);
        let cache = open(&disk, 4).await;
        for frame in 0..40 {
            put(&cache, frame, Hint::Random).await;
        }
        cache.close().await;
        drop(cache);
        disk.lose_power(|| false);
        let cache = open(&disk, 0).await;
        assert_eq!(cache.stats().slots_used, 40);
        for frame in 0..40 {
            assert!(look(&cache, frame).await, "frame {frame}");
        }
        assert_eq!(cache.stats().corrupt_dropped, 0);
    });
}

#[test]
fn the_index_is_written_some_time_after_a_change_and_then_all_is_quiet() {
    runtime().block_on(async {
        let disk = disk_of(40);
        let cache = open_after(&disk, 0, Duration::from_millis(1)).await;
        put(&cache, 1, Hint::Random).await;
        let metrics = Handle::current().metrics();
        while metrics.num_alive_tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(cache);
        let cache = open(&disk, 0).await;
        assert!(look(&cache, 1).await, "warm although it was never closed");
        assert_eq!(metrics.num_alive_tasks(), 0);
    });
}

#[test]
fn a_dropped_cache_writes_no_more_and_leaves_no_task() {
    runtime().block_on(async {
        let disk = disk_of(40);
        let cache = open(&disk, 0).await;
        put(&cache, 1, Hint::Random).await;
        disk.hold_writes(true);
        for frame in 2..30 {
            cache.insert(full(frame).0, &full(frame).1, Hint::Random);
        }
        tokio::task::yield_now().await;
        drop(cache);
        disk.take_writes();
        disk.hold_writes(false);
        let metrics = Handle::current().metrics();
        while metrics.num_alive_tasks() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(disk.take_writes().len() <= 4, "those that were on their way");
    });
}

#[test]
fn a_first_look_at_a_recovered_slot_verifies_all_of_it() {
    runtime().block_on(async {
        let disk = disk_of(4);
        let cache = open(&disk, 0).await;
        put(&cache, 1, Hint::Random).await;
        cache.close().await;
        let at = disk.find(&full(1).1[..PAGE]).expect("the frame is on the disk");
        disk.edit(|bytes| bytes[at + FRAME - 1] ^= 1);
        let (key, bytes) = full(1);
        let first_page = cache.get(&key, 0..512).await;
        assert!(first_page.as_deref() == Some(&bytes[..512]), "this run has written it");
        drop(cache);
        let cache = open(&disk, 0).await;
        assert_eq!(cache.get(&key, 0..512).await, None, "its first page is right, its last is not");
        let stats = cache.stats();
        assert_eq!((stats.corrupt_dropped, stats.slots_used), (1, 0));
    });
}

#[test]
fn a_stale_index_over_rewritten_slots_yields_nothing_wrong() {
    runtime().block_on(async {
        let disk = disk_of(4);
        let cache = open(&disk, 0).await;
        for frame in 0..4 {
            put(&cache, frame, Hint::Random).await;
        }
        flush(&cache).await;
        for frame in [4, 5, 4, 5] {
            put(&cache, frame, Hint::Random).await;
        }
        assert_eq!(cache.stats().ssd_evictions, 2);
        drop(cache);
        let cache = open(&disk, 0).await;
        let mut warm = 0;
        for frame in 0..6 {
            warm += u32::from(look(&cache, frame).await);
        }
        assert_eq!((warm, cache.stats().corrupt_dropped), (2, 2));
    });
}

#[test]
fn a_damaged_or_foreign_file_is_started_empty_and_old_claims_stay_dead() {
    runtime().block_on(async {
        let disk = disk_of(8);
        let cache = open(&disk, 0).await;
        put(&cache, 1, Hint::Random).await;
        cache.close().await;
        drop(cache);
        disk.edit(|bytes| bytes[20] ^= 1);
        for _ in 0..2 {
            let cache = open(&disk, 0).await;
            assert_eq!(cache.stats().slots_used, 0);
            assert!(!look(&cache, 1).await);
        }
        let cache = open(&disk, 0).await;
        put(&cache, 2, Hint::Random).await;
        cache.close().await;
        drop(cache);
        disk.edit(|bytes| bytes.resize(bytes.len() + 4 * FRAME, 0));
        let cache = open(&disk, 0).await;
        let stats = cache.stats();
        assert_eq!((stats.slots_used, stats.slots_total), (0, 12));
    });
}

#[test]
fn a_disk_without_room_or_without_life_leaves_the_ram_tier() {
    runtime().block_on(async {
        let dead = disk_of(8);
        dead.fail_reads(true);
        let read_only = disk_of(8);
        read_only.fail_writes(true);
        for disk in [TestDisk::zeroed(PAGE as u64), dead, read_only] {
            let cache = open(&disk, 40).await;
            cache.insert(full(1).0, &full(1).1, Hint::Random);
            assert!(look(&cache, 1).await && !look(&cache, 2).await);
            assert_eq!(cache.stats().slots_total, 0);
            cache.close().await;
        }
    });
}

#[test]
fn a_full_tier_admits_the_second_touch_and_never_a_scan() {
    runtime().block_on(async {
        let cache = open(&disk_of(4), 0).await;
        for frame in 0..4 {
            put(&cache, frame, Hint::Sequential).await;
        }
        assert_eq!(cache.stats().slots_used, 4, "while there is room, all are welcome");
        for _ in 0..3 {
            put(&cache, 10, Hint::Sequential).await;
        }
        assert!(!look(&cache, 10).await);
        put(&cache, 11, Hint::Random).await;
        assert!(!look(&cache, 11).await);
        put(&cache, 11, Hint::Random).await;
        assert!(look(&cache, 11).await);
        assert_eq!(cache.stats().not_admitted, 4);
    });
}

#[test]
fn scans_do_not_evict_what_is_used() {
    runtime().block_on(async {
        let cache = open(&disk_of(64), 4).await;
        for frame in 0..64 {
            put(&cache, frame, Hint::Random).await;
        }
        for scanned in 0..600 {
            assert!(look(&cache, scanned % 48).await, "frame {} was lost", scanned % 48);
            let hint = if scanned % 2 == 0 { Hint::Sequential } else { Hint::Random };
            put(&cache, 1000 + scanned, hint).await;
        }
        assert_eq!(cache.stats().ssd_evictions, 0);
    });
}

#[test]
fn what_ram_holds_keeps_its_slot_for_the_next_start() {
    runtime().block_on(async {
        let disk = disk_of(64);
        let cache = open(&disk, 40).await;
        for frame in 0..64 {
            put(&cache, frame, Hint::Random).await;
        }
        for new in 100..160 {
            for hot in 0..8 {
                assert!(cache.get_ram(&full(hot).0).is_some(), "hits in RAM only");
            }
            put(&cache, new, Hint::Random).await;
            put(&cache, new, Hint::Random).await;
        }
        assert!(cache.stats().ssd_evictions >= 60);
        cache.close().await;
        drop(cache);
        let cache = open(&disk, 0).await;
        for hot in 0..8 {
            assert!(look(&cache, hot).await, "frame {hot} was the most used of all");
        }
    });
}

#[test]
fn a_slot_is_not_read_before_it_is_written_and_a_full_queue_drops() {
    runtime().block_on(async {
        let disk = disk_of(200);
        let cache = open(&disk, 0).await;
        disk.hold_writes(true);
        for frame in 0..100 {
            let (key, bytes) = full(frame);
            cache.insert(key, &bytes, Hint::Random);
            tokio::task::yield_now().await;
        }
        let dropped = cache.stats().queue_dropped;
        assert_eq!(dropped, 100 - 64 - 4, "64 wait, 4 are being written");
        assert!(!look(&cache, 0).await && !look(&cache, 50).await);
        disk.hold_writes(false);
        settle(&cache).await;
        for frame in 0..100 {
            assert_eq!(look(&cache, frame).await, u64::from(frame) < 100 - dropped);
        }
    });
}

#[test]
fn a_slot_that_is_being_read_is_not_given_away() {
    runtime().block_on(async {
        let disk = disk_of(1);
        let cache = open(&disk, 0).await;
        put(&cache, 1, Hint::Random).await;
        disk.hold_reads(true);
        let reader = Arc::clone(&cache);
        let read = tokio::spawn(async move { look(&reader, 1).await });
        tokio::task::yield_now().await;
        put(&cache, 2, Hint::Random).await;
        put(&cache, 2, Hint::Random).await;
        assert_eq!(cache.stats().queue_dropped, 1, "the only slot is pinned");
        cache.remove_image(full(1).0.image);
        disk.hold_reads(false);
        assert!(read.await.expect("the look-up ends"), "it began before the image was removed");
        assert_eq!(cache.stats().slots_used, 0);
        put(&cache, 3, Hint::Random).await;
        assert!(look(&cache, 3).await && !look(&cache, 1).await);
    });
}

#[test]
fn a_dropped_look_up_takes_its_pin_back() {
    runtime().block_on(async {
        let disk = disk_of(1);
        let cache = open(&disk, 0).await;
        put(&cache, 1, Hint::Random).await;
        disk.hold_reads(true);
        let reader = Arc::clone(&cache);
        let read = tokio::spawn(async move { look(&reader, 1).await });
        tokio::task::yield_now().await;
        read.abort();
        assert!(read.await.is_err());
        disk.hold_reads(false);
        put(&cache, 2, Hint::Random).await;
        put(&cache, 2, Hint::Random).await;
        assert!(look(&cache, 2).await);
    });
}

#[test]
fn a_failed_read_is_a_miss_and_frees_the_slot() {
    runtime().block_on(async {
        let disk = disk_of(4);
        let cache = open(&disk, 0).await;
        put(&cache, 1, Hint::Random).await;
        disk.fail_reads(true);
        assert!(!look(&cache, 1).await);
        disk.fail_reads(false);
        assert!(!look(&cache, 1).await);
        let stats = cache.stats();
        assert_eq!((stats.read_errors, stats.ssd_misses, stats.slots_used), (1, 2, 0));
    });
}

#[test]
fn writes_that_keep_failing_switch_the_ssd_off_and_ram_goes_on() {
    runtime().block_on(async {
        let disk = disk_of(40);
        let cache = open(&disk, 40).await;
        for frame in 0..7 {
            disk.fail_writes(true);
            put(&cache, frame, Hint::Random).await;
        }
        disk.fail_writes(false);
        put(&cache, 7, Hint::Random).await;
        assert!(!cache.stats().is_ssd_off, "one success starts the count anew");
        disk.fail_writes(true);
        for frame in 10..18 {
            assert!(!cache.stats().is_ssd_off);
            put(&cache, frame, Hint::Random).await;
        }
        let stats = cache.stats();
        assert!(stats.is_ssd_off);
        assert_eq!(stats.write_errors, 15);
        disk.take_writes();
        put(&cache, 20, Hint::Random).await;
        assert!(look(&cache, 20).await);
        cache.close().await;
        assert_eq!(disk.take_writes(), []);
    });
}

#[test]
fn an_index_page_that_could_not_be_written_is_written_later() {
    runtime().block_on(async {
        let disk = disk_of(40);
        let cache = open(&disk, 0).await;
        put(&cache, 1, Hint::Random).await;
        disk.fail_writes(true);
        flush(&cache).await;
        disk.fail_writes(false);
        flush(&cache).await;
        drop(cache);
        let cache = open(&disk, 0).await;
        assert!(look(&cache, 1).await);
    });
}

#[test]
fn a_removed_image_is_gone_for_good() {
    runtime().block_on(async {
        let disk = disk_of(40);
        let cache = open(&disk, 40).await;
        let other = test_key(2, 1);
        cache.insert(other, &frame_of(&other, 512), Hint::Random);
        put(&cache, 1, Hint::Random).await;
        cache.remove_image(full(1).0.image);
        assert!(!look(&cache, 1).await);
        assert!(cache.get(&other, 0..512).await.is_some());
        cache.close().await;
        drop(cache);
        let cache = open(&disk, 0).await;
        assert!(!look(&cache, 1).await);
        assert!(cache.get(&other, 0..512).await.is_some());
    });
}
