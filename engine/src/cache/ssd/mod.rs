//! The SSD tier: frames in slots of one disk, read by pages, written behind.
//!
//! Does not: hold frames in memory, other than those that wait to be written.
//! Invariants: 1. A slot is read only under a pin, and never before its write has completed. 2. At
//! most `WRITE_QUEUE_FRAMES` wait and `WRITES_IN_FLIGHT` are written. 3. Index pages are written by
//! one task at a time, or an older page could land on top of a newer one.
//! Crash: slots and index are written without order between them; see `slots` for why that is
//! enough.
//! Concurrency: one lock over plain data, held for microseconds and never over an await.

mod flush;
mod ghost;
mod load;
mod read;
mod slots;
mod write;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lsvd_common::cache_file::{CacheSuperblock, FrameKey, SLOT_BYTES};
use lsvd_common::ids::ImageId;
use lsvd_common::limits::FRAME_BYTES;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::{CacheConfig, CacheStats, Hint};
use crate::disk::{BufPool, Disk};
use ghost::Ghost;
use slots::Slots;

/// Frames that may wait to be written (4 MiB): enough for the burst of one object, little enough to
/// be forgotten.
const WRITE_QUEUE_FRAMES: usize = 64;

/// Slot writes at a time: keeps an SSD streaming without filling its queue, which reads share.
const WRITES_IN_FLIGHT: usize = 4;

/// Writes that fail in a row before the tier is switched off: fewer may be one bad spot.
const WRITE_FAILURES_MAX: u32 = 8;

/// Slots that `remove_image` looks at under one lock: tens of microseconds.
const REMOVE_STEP: u32 = 4096;

/// Bounds of the tables that remember first touches, in keys; 4 bytes each.
const GHOST_MIN: usize = 64;
const GHOST_MAX: usize = 1 << 20;

/// The tier.
#[derive(Debug)]
pub(super) struct SsdTier {
    disk: Arc<dyn Disk>,
    superblock: CacheSuperblock,
    runtime: Handle,
    flush_delay: Duration,
    buffers: BufPool,
    state: Mutex<State>,
    /// Held by who writes index pages.
    flush_turn: tokio::sync::Mutex<()>,
    /// Told when the last writer ends.
    writers_ended: Notify,
    /// Told when a flusher that waits should end instead.
    flusher_cancelled: Arc<Notify>,
    counts: Counts,
}

#[derive(Debug)]
struct State {
    slots: Slots,
    /// First touches of frames that have no slot, as many as there are slots.
    admission: Ghost,
    /// First touches of frames that have a slot but are not in RAM, as many as fit RAM: a second
    /// touch within that time would have been a hit in RAM.
    promotion: Ghost,
    queue: VecDeque<Job>,
    writers: usize,
    is_flusher_armed: bool,
    /// Nothing is taken in any more.
    is_closed: bool,
    /// Failed for good: neither read nor written.
    is_off: bool,
    write_failures: u32,
}

/// A frame that has a slot and waits to be written to it.
#[derive(Debug)]
struct Job {
    slot: u32,
    key: FrameKey,
    frame: Bytes,
}

#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    not_admitted: AtomicU64,
    queue_dropped: AtomicU64,
    corrupt_dropped: AtomicU64,
    read_errors: AtomicU64,
    write_errors: AtomicU64,
}

impl SsdTier {
    /// Opens the tier on `disk`. `None`, after a warning, if the disk is too small or cannot be
    /// read and written.
    pub(super) async fn open(
        disk: Arc<dyn Disk>,
        config: &CacheConfig,
        flush_delay: Duration,
    ) -> Option<Arc<Self>> {
        let (superblock, slots) = match load::load(&*disk, config.new_cache).await {
            Ok(loaded) => loaded,
            Err(error) => {
                let disk = disk.describe();
                tracing::warn!(disk, %error, "read cache goes on without its SSD");
                return None;
            }
        };
        let state = State {
            admission: Ghost::new(slots.total(), GHOST_MIN, GHOST_MAX),
            promotion: Ghost::new(config.ram_bytes / SLOT_BYTES, GHOST_MIN, GHOST_MAX),
            slots,
            queue: VecDeque::with_capacity(WRITE_QUEUE_FRAMES),
            writers: 0,
            is_flusher_armed: false,
            is_closed: false,
            is_off: false,
            write_failures: 0,
        };
        Some(Arc::new(Self {
            disk,
            superblock,
            runtime: config.runtime.clone(),
            flush_delay,
            buffers: BufPool::new(WRITES_IN_FLIGHT * FRAME_BYTES),
            state: Mutex::new(state),
            flush_turn: tokio::sync::Mutex::new(()),
            writers_ended: Notify::new(),
            flusher_cancelled: Arc::new(Notify::new()),
            counts: Counts::default(),
        }))
    }

    /// Drops what the slots hold of an image.
    pub(super) fn remove_image(self: &Arc<Self>, image: ImageId) {
        let count = self.superblock.geometry.slots();
        for first in (0..count).step_by(REMOVE_STEP as usize) {
            self.state.lock().slots.remove_image(image, first..count.min(first + REMOVE_STEP));
        }
        self.arm_flusher();
    }

    /// Fills in the figures of this tier; `stats.ssd_misses` holds all look-ups that came here.
    pub(super) fn add_to(&self, stats: &mut CacheStats) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        stats.ssd_hits = of(&self.counts.hits);
        stats.ssd_misses = stats.ssd_misses.saturating_sub(stats.ssd_hits);
        stats.ssd_bytes_read = of(&self.counts.bytes_read);
        stats.ssd_bytes_written = of(&self.counts.bytes_written);
        stats.not_admitted = of(&self.counts.not_admitted);
        stats.queue_dropped = of(&self.counts.queue_dropped);
        stats.corrupt_dropped = of(&self.counts.corrupt_dropped);
        stats.read_errors = of(&self.counts.read_errors);
        stats.write_errors = of(&self.counts.write_errors);
        let state = self.state.lock();
        stats.ssd_evictions = state.slots.evictions();
        stats.slots_used = state.slots.used();
        stats.slots_total = state.slots.total();
        stats.index_bytes = state.slots.memory_bytes();
        stats.is_ssd_off = state.is_off;
    }

    /// Takes nothing more in, waits for the writers, and makes the index durable.
    pub(super) async fn close(&self) {
        self.state.lock().is_closed = true;
        self.flusher_cancelled.notify_waiters();
        self.writers_settled().await;
        if self.state.lock().is_off {
            return;
        }
        self.flush_index().await;
        // One sync for index and slots: before it, neither needs to survive a power failure.
        if let Err(error) = self.disk.sync().await {
            let disk = self.disk.describe();
            tracing::warn!(disk, %error, "read cache may start cold, its index is not durable");
        }
    }

    /// Takes nothing more in, and forgets what waits: the cache is gone, and its disk may get
    /// another one.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.queue.clear();
        drop(state);
        self.flusher_cancelled.notify_waiters();
    }

    /// A write of a slot or an index page succeeded or failed.
    fn record_write(&self, result: &io::Result<()>) {
        let mut state = self.state.lock();
        let Err(error) = result else {
            state.write_failures = 0;
            return;
        };
        let errors = self.counts.write_errors.fetch_add(1, Ordering::Relaxed) + 1;
        state.write_failures += 1;
        let is_last_straw = state.write_failures >= WRITE_FAILURES_MAX && !state.is_off;
        if is_last_straw {
            state.is_off = true;
            state.queue.clear();
        }
        drop(state);
        let disk = self.disk.describe();
        if is_last_straw {
            tracing::error!(disk, errors, %error, "read cache on SSD switched off, writes fail");
        } else if is_worth_a_line(errors) {
            tracing::warn!(disk, errors, %error, "read cache failed to write to its SSD");
        }
    }
}

/// Once in a while without a clock: the first error, the second, the fourth, ..
fn is_worth_a_line(errors: u64) -> bool {
    errors.is_power_of_two()
}
