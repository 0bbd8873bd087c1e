//! Writing the index: dirty pages, some time after they became dirty, and when the cache is closed.

use std::sync::{Arc, Weak};

use lsvd_common::cache_file::{ENTRIES_PER_PAGE, encode_entry};
use lsvd_common::units::PAGE_LEN;

use super::SsdTier;
use crate::disk::AlignedBuf;

/// Neighbouring index pages in one write: copying their 256 entries under the lock takes
/// microseconds.
const FLUSH_PAGES: u32 = 8;

impl SsdTier {
    /// Has the index written after a delay, if it must be and no task waits to do so already.
    pub(super) fn arm_flusher(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.is_flusher_armed || state.is_closed || state.is_off || !state.slots.is_dirty() {
            return;
        }
        state.is_flusher_armed = true;
        drop(state);
        let cancelled = Arc::clone(&self.flusher_cancelled);
        let delay = self.flush_delay;
        let tier = Arc::downgrade(self);
        self.runtime.spawn(async move {
            // The pause holds no strong reference: a cache that was dropped must not write to a
            // disk that may be another cache's by now.
            while tokio::time::timeout(delay, cancelled.notified()).await.is_err()
                && flush_once(&tier).await
            {}
        });
    }

    /// Writes the index pages that are dirty now. Those that fail stay dirty.
    pub(in crate::cache) async fn flush_index(&self) {
        let _turn = self.flush_turn.lock().await;
        let mut from = 0;
        loop {
            // Upwards only: pages that become dirty behind us have a delay of their own.
            let Some((pages, claims)) = self.state.lock().slots.take_dirty(from, FLUSH_PAGES)
            else {
                return;
            };
            let mut bytes = AlignedBuf::with_capacity(pages.len() * PAGE_LEN);
            for (slot, claim) in (pages.start * ENTRIES_PER_PAGE..).zip(&claims) {
                bytes.extend_from_slice(&encode_entry(claim.as_ref(), self.superblock.cache, slot));
            }
            bytes.pad_to_page();
            let offset = self.superblock.geometry.index_page_offset(pages.start);
            let result = self.disk.write_at(offset, bytes.freeze()).await;
            self.record_write(&result);
            from = pages.end;
            if result.is_err() {
                let mut state = self.state.lock();
                pages.for_each(|page| state.slots.mark_dirty(page));
                return;
            }
        }
    }
}

/// Flushes; true if the task should wait and come back.
async fn flush_once(tier: &Weak<SsdTier>) -> bool {
    let Some(tier) = tier.upgrade() else {
        return false;
    };
    if tier.state.lock().is_closed {
        return false;
    }
    tier.flush_index().await;
    let mut state = tier.state.lock();
    state.is_flusher_armed = state.slots.is_dirty() && !state.is_closed && !state.is_off;
    state.is_flusher_armed
}
