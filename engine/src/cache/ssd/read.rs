//! Reading slots: as few pages as will do, every one verified.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use lsvd_common::cache_file::FrameKey;
use lsvd_common::units::PAGE_LEN;

use super::slots::Pinned;
use super::{SsdTier, is_worth_a_line};
use crate::disk::AlignedBuf;

/// What was found for a look-up.
#[derive(Debug)]
pub(in crate::cache) struct Found {
    /// The bytes that were asked for.
    pub(in crate::cache) bytes: Bytes,
    /// The whole frame, in memory of its own, if it belongs into RAM now.
    pub(in crate::cache) frame: Option<Bytes>,
}

/// What to read for a look-up.
struct Plan {
    pinned: Pinned,
    /// Pages of the slot.
    pages: Range<usize>,
    is_promoted: bool,
}

/// Takes a pin back however the look-up ends; a dropped future is one of the ways.
struct PinGuard<'a> {
    tier: &'a SsdTier,
    slot: u32,
}

impl Drop for PinGuard<'_> {
    fn drop(&mut self) {
        self.tier.state.lock().slots.unpin(self.slot);
    }
}

impl SsdTier {
    /// The bytes `within` the frame of `key`, if a slot has it and it proves right.
    pub(in crate::cache) async fn read(
        self: &Arc<Self>,
        key: &FrameKey,
        within: Range<usize>,
        may_promote: bool,
    ) -> Option<Found> {
        let plan = self.plan(key, &within, may_promote)?;
        let slot = plan.pinned.slot;
        let _pin = PinGuard { tier: self, slot };
        let offset =
            self.superblock.geometry.slot_offset(slot) + (plan.pages.start * PAGE_LEN) as u64;
        let len = plan.pages.len() * PAGE_LEN;
        let found = match self.disk.read_at(offset, len).await {
            Ok(pages) => self.accept(&plan, pages, within),
            Err(error) => {
                self.record_read_error(&error);
                None
            }
        };
        if found.is_none() {
            self.drop_slot(slot);
        }
        found
    }

    fn plan(&self, key: &FrameKey, within: &Range<usize>, may_promote: bool) -> Option<Plan> {
        let mut state = self.state.lock();
        if state.is_off {
            return None;
        }
        let pinned = state.slots.pin(key)?;
        if within.end > pinned.claim.frame_bytes as usize {
            state.slots.unpin(pinned.slot);
            return None;
        }
        // A recovered slot is read as a whole anyway, and RAM is empty then: take what was paid
        // for.
        let is_promoted =
            may_promote && (state.promotion.is_second_touch(key.hash64()) || !pinned.is_valid);
        let pages = if is_promoted || !pinned.is_valid {
            0..pinned.claim.pages()
        } else {
            within.start / PAGE_LEN..within.end.div_ceil(PAGE_LEN)
        };
        Some(Plan { pinned, pages, is_promoted })
    }

    fn accept(&self, plan: &Plan, pages: AlignedBuf, within: Range<usize>) -> Option<Found> {
        let Pinned { slot, claim, is_valid } = plan.pinned;
        self.counts.bytes_read.fetch_add(pages.len() as u64, Ordering::Relaxed);
        let is_right = if is_valid {
            pages.len() == plan.pages.len() * PAGE_LEN && claim.matches(plan.pages.start, &pages)
        } else {
            claim.proved_by(&pages)
        };
        if !is_right {
            let dropped = self.counts.corrupt_dropped.fetch_add(1, Ordering::Relaxed) + 1;
            // After a crash some claims are expected to be wrong; in a slot that was right before,
            // it is damage.
            if is_valid && is_worth_a_line(dropped) {
                let (disk, key) = (self.disk.describe(), claim.key);
                tracing::warn!(disk, slot, ?key, dropped, "read cache dropped a damaged frame");
            }
            return None;
        }
        if !is_valid {
            self.state.lock().slots.set_valid(slot);
        }
        self.counts.hits.fetch_add(1, Ordering::Relaxed);
        if plan.is_promoted {
            let frame = Bytes::copy_from_slice(&pages[..claim.frame_bytes as usize]);
            return Some(Found { bytes: frame.slice(within), frame: Some(frame) });
        }
        let skipped = plan.pages.start * PAGE_LEN;
        let bytes = pages.freeze().slice(within.start - skipped..within.end - skipped);
        Some(Found { bytes, frame: None })
    }

    fn record_read_error(&self, error: &io::Error) {
        let errors = self.counts.read_errors.fetch_add(1, Ordering::Relaxed) + 1;
        if is_worth_a_line(errors) {
            let disk = self.disk.describe();
            tracing::warn!(disk, errors, %error, "read cache failed to read its SSD");
        }
    }

    /// A slot that could not be read is not read again: its next frame may find the spot repaired
    /// by the write.
    fn drop_slot(self: &Arc<Self>, slot: u32) {
        self.state.lock().slots.doom(slot);
        self.arm_flusher();
    }
}
