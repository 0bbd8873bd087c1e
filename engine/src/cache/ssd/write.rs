//! Taking frames in: admission, the bounded queue, and the tasks that write slots.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use lsvd_common::cache_file::{FrameClaim, FrameKey};

use super::{Hint, Job, SsdTier, State, WRITE_QUEUE_FRAMES, WRITES_IN_FLIGHT};

/// A writer's place among the `WRITES_IN_FLIGHT`, given back even if its runtime ends under it:
/// `close` waits for it.
struct WriterPlace {
    tier: Arc<SsdTier>,
    is_given_back: bool,
}

impl WriterPlace {
    /// The next frame to write. With the last one the place is given back, under the same lock: an
    /// insert in between would see a writer that no longer looks.
    fn next_job(&mut self) -> Option<Job> {
        let mut state = self.tier.state.lock();
        let job = state.queue.pop_front();
        if job.is_none() {
            self.is_given_back = true;
            self.tier.end_writer(&mut state);
        }
        job
    }
}

impl Drop for WriterPlace {
    fn drop(&mut self) {
        if !self.is_given_back {
            self.tier.end_writer(&mut self.tier.state.lock());
        }
    }
}

impl SsdTier {
    /// Gives a frame a slot and has it written, if it qualifies. `frame` must own no more than its
    /// bytes. `is_in_ram` spares slots: what RAM holds must be on the SSD too, or a restart forgets
    /// the most used frames of all.
    pub(in crate::cache) fn offer(
        self: &Arc<Self>,
        key: FrameKey,
        frame: Bytes,
        hint: Hint,
        is_in_ram: impl Fn(&FrameKey) -> bool,
    ) {
        let mut state = self.state.lock();
        if state.is_closed || state.is_off || state.slots.touch(&key) {
            return;
        }
        if !state.admits(&key, hint) {
            drop(state);
            self.counts.not_admitted.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let slot = if state.queue.len() < WRITE_QUEUE_FRAMES {
            state.slots.reserve(key, is_in_ram)
        } else {
            None
        };
        let Some(slot) = slot else {
            drop(state);
            self.counts.queue_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        state.queue.push_back(Job { slot, key, frame });
        if state.writers < WRITES_IN_FLIGHT {
            state.writers += 1;
            drop(state);
            let place = WriterPlace { tier: Arc::clone(self), is_given_back: false };
            self.runtime.spawn(write_queued(place));
        }
    }

    /// Waits until nothing is queued or being written.
    pub(in crate::cache) async fn writers_settled(&self) {
        loop {
            let ended = self.writers_ended.notified();
            if self.state.lock().writers == 0 {
                return;
            }
            ended.await;
        }
    }

    fn end_writer(&self, state: &mut State) {
        state.writers -= 1;
        if state.writers == 0 {
            self.writers_ended.notify_waiters();
        }
    }

    async fn write_slot(self: &Arc<Self>, job: Job) {
        let Job { slot, key, frame } = job;
        let mut pages = self.buffers.take(frame.len());
        pages.extend_from_slice(&frame);
        pages.pad_to_page();
        let frame_bytes = u32::try_from(frame.len()).expect("a frame is 64 KiB at most");
        drop(frame);
        let claim = FrameClaim::about(key, frame_bytes, &pages);
        let bytes = pages.len() as u64;
        let offset = self.superblock.geometry.slot_offset(slot);
        let result: io::Result<()> = self.disk.write_at(offset, pages.freeze()).await;
        self.record_write(&result);
        let mut state = self.state.lock();
        if result.is_ok() {
            state.slots.commit(slot, claim);
            self.counts.bytes_written.fetch_add(bytes, Ordering::Relaxed);
        } else {
            state.slots.doom(slot);
        }
        state.slots.unpin(slot);
        drop(state);
        self.arm_flusher();
    }
}

impl State {
    /// While there is room everything is let in. Then a frame has to be asked for twice, since it
    /// takes the place of one that was.
    fn admits(&mut self, key: &FrameKey, hint: Hint) -> bool {
        self.slots.has_free()
            || (hint == Hint::Random && self.admission.is_second_touch(key.hash64()))
    }
}

async fn write_queued(mut place: WriterPlace) {
    while let Some(job) = place.next_job() {
        let tier = Arc::clone(&place.tier);
        tier.write_slot(job).await;
    }
}
