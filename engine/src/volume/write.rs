//! The way of a write into the log: range, admission, sequence, queue; and what waits for
//! durability.
//!
//! Invariant: a write is queued in the order in which it was admitted, and admission is in the
//! order of calls, so the order of calls on one thread is the order of write sequences.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use lsvd_common::ids::WriteSeq;
use lsvd_common::limits::RECORD_ENTRIES_MAX;
use lsvd_common::units::{PAGE_BYTES, SECTOR_BYTES, SectorRange, Sectors};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::admission::Fill;
use crate::error::{Error, ErrorKind, Result};
use crate::options::FlushPolicy;
use crate::state::{Action, Phase, Queued, Shared, State, Stats, SyncWaiter};
use crate::volume::Volume;

/// Bytes that wait for the log at one time; callers beyond wait for their turn.
const QUEUED_BYTES_MAX: usize = 32 << 20;

/// Writes that wait for the log at one time: two full records of discards.
const QUEUED_MAX: usize = 2 * RECORD_ENTRIES_MAX;

/// What a discard counts for in admission: its entry in a record, and its share of the rest.
const DISCARD_COST: u64 = 64;

/// A waiter for log space looks again at least this often.
const SPACE_WAIT: Duration = Duration::from_millis(100);

impl Volume {
    /// Writes `data` at byte `offset`. With `fua` it is acknowledged only when a flush behind it
    /// would be.
    ///
    /// A write of up to the record size (4 MiB by default) is atomic: after a crash all or nothing
    /// of it is there. Returns its place in the order in which the image acknowledges.
    ///
    /// # Errors
    /// `OutOfRange`, `Closed`, `Fenced`, `Failed`; after `Failed` it is unknown whether the data
    /// will be there.
    pub async fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<WriteSeq> {
        let range = self.range(offset, data.len() as u64)?;
        let len = data.len() as u64;
        if range.is_empty() {
            return Ok(self.shared.state.lock().applied_write);
        }
        let unit = self.shared.options.record_bytes;
        let local_fua = fua && self.shared.options.flush == FlushPolicy::Local;
        let mut replies = Vec::with_capacity(1);
        let mut at = 0;
        while at < data.len() {
            let end = data.len().min(at + unit);
            let part = data.slice(at..end);
            let start = range.start + Sectors(at as u64 / SECTOR_BYTES);
            let sectors = Sectors((end - at) as u64 / SECTOR_BYTES);
            let part_range = SectorRange::new(start, sectors);
            replies.push(self.submit(part_range, Action::Write(part), local_fua).await?);
            at = end;
        }
        let write = self.answers(replies).await?;
        if fua && self.shared.options.flush == FlushPolicy::Backend {
            self.wait_for_store(write).await?;
        }
        Stats::add(&self.shared.stats.writes, 1);
        Stats::add(&self.shared.stats.write_bytes, len);
        Ok(write)
    }

    /// Makes a range read as zeros and gives its space back. Logged, ordered and durable like a
    /// write.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn discard(&self, offset: u64, len: u64, fua: bool) -> Result<WriteSeq> {
        let range = self.range(offset, len)?;
        if range.is_empty() {
            return Ok(self.shared.state.lock().applied_write);
        }
        let local_fua = fua && self.shared.options.flush == FlushPolicy::Local;
        let reply = self.submit(range, Action::Discard, local_fua).await?;
        let write = self.answers(vec![reply]).await?;
        if fua && self.shared.options.flush == FlushPolicy::Backend {
            self.wait_for_store(write).await?;
        }
        Stats::add(&self.shared.stats.discards, 1);
        Ok(write)
    }

    /// Waits until everything acknowledged before is durable: on the SSD, or in the store, as the
    /// volume was opened. Returns the last write that it covers.
    ///
    /// # Errors
    /// `Closed`, `Fenced`, `Failed`: then nothing is known of what was not flushed before.
    pub async fn flush(&self) -> Result<WriteSeq> {
        let write = match self.shared.options.flush {
            FlushPolicy::Local => self.sync_log().await?,
            FlushPolicy::Backend => {
                let write = {
                    let state = self.shared.state.lock();
                    match state.refusal() {
                        Some(error) => return Err(error),
                        None => state.applied_write,
                    }
                };
                self.wait_for_store(write).await?;
                write
            }
        };
        Stats::add(&self.shared.stats.flushes, 1);
        Ok(write)
    }

    async fn sync_log(&self) -> Result<WriteSeq> {
        let answer = {
            let mut state = self.shared.state.lock();
            if let Phase::Failed(error) = &state.phase {
                return Err(error.clone());
            }
            if let Phase::Closed = &state.phase {
                return Err(Error::new(ErrorKind::Closed, "the volume is closed"));
            }
            let (page, write) = (state.applied_page, state.applied_write);
            if !state.flushed_since_record {
                state.flushed_since_record = true;
                state.flush_streak = state.flush_streak.saturating_add(1);
            }
            if state.synced_page >= page {
                return Ok(write);
            }
            let (reply, answer) = oneshot::channel();
            state.sync_waiters.push_back(SyncWaiter { page, write, reply });
            answer
        };
        self.shared.log_wake.notify_one();
        self.answer(answer).await
    }

    /// Waits until the store has every write up to `write`, sealing what is open.
    async fn wait_for_store(&self, write: WriteSeq) -> Result<()> {
        loop {
            let mut retired = std::pin::pin!(self.shared.retired.notified());
            retired.as_mut().enable();
            {
                let mut state = self.shared.state.lock();
                if let Phase::Failed(error) = &state.phase {
                    return Err(error.clone());
                }
                if state.retired_write >= write {
                    return Ok(());
                }
                let open = state.open.as_ref();
                if open.is_some_and(|open| open.first_write <= write) && !state.seal_now {
                    state.seal_now = true;
                    self.shared.destage_wake.notify_one();
                }
            }
            retired.await;
        }
    }

    /// Gives a write its sequence and queues it, once there is room.
    async fn submit(
        &self,
        range: SectorRange,
        action: Action,
        fua: bool,
    ) -> Result<oneshot::Receiver<Result<WriteSeq>>> {
        let bytes = match &action {
            Action::Write(data) => data.len() as u64,
            Action::Discard => DISCARD_COST,
        };
        if !self.has_room(bytes)? {
            self.admit(bytes).await?;
        }
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            if let Some(error) = state.refusal() {
                return Err(error);
            }
            let write = state.next_write;
            state.next_write = write.next();
            let queued = Queued { write, range, action, fua, reply };
            state.queued_bytes += queued.data_len();
            state.queue.push_back(queued);
        }
        self.shared.log_wake.notify_one();
        Ok(answer)
    }

    /// True if a write may be queued at once.
    fn has_room(&self, bytes: u64) -> Result<bool> {
        let state = self.shared.state.lock();
        if let Some(error) = state.refusal() {
            return Err(error);
        }
        Ok(has_place(&state, bytes)
            && self.shared.admission.is_open(fill(&state, self.shared.options.batch_ram_bytes)))
    }

    /// Waits, in the order of calls, until a write may be queued.
    async fn admit(&self, bytes: u64) -> Result<()> {
        let admission = &self.shared.admission;
        admission.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(&self.shared);
        let _turn = admission.turn.lock().await;
        loop {
            let mut space = std::pin::pin!(self.shared.space.notified());
            space.as_mut().enable();
            let (fill, full) = {
                let state = self.shared.state.lock();
                if let Some(error) = state.refusal() {
                    return Err(error);
                }
                let fill = fill(&state, self.shared.options.batch_ram_bytes);
                (fill, !has_place(&state, bytes) || fill.used + 2 * bytes >= fill.capacity)
            };
            if full && fill.used > 0 {
                drop(timeout(SPACE_WAIT, space).await);
                continue;
            }
            match admission.charge(bytes, fill, Instant::now()) {
                None => return Ok(()),
                Some(wait) => sleep(wait).await,
            }
        }
    }

    async fn answers(&self, replies: Vec<oneshot::Receiver<Result<WriteSeq>>>) -> Result<WriteSeq> {
        let mut last = WriteSeq(0);
        for reply in replies {
            last = self.answer(reply).await?;
        }
        Ok(last)
    }

    async fn answer(&self, reply: oneshot::Receiver<Result<WriteSeq>>) -> Result<WriteSeq> {
        match reply.await {
            Ok(answer) => answer,
            // The writer is gone without an answer: it failed or the volume was dropped.
            Err(_) => Err(self.shared.failure().unwrap_or_else(|| {
                Error::new(ErrorKind::Closed, "the volume was closed meanwhile")
            })),
        }
    }
}

/// True if the queue takes another write.
fn has_place(state: &State, bytes: u64) -> bool {
    state.queued_bytes as u64 + bytes <= QUEUED_BYTES_MAX as u64 && state.queue.len() < QUEUED_MAX
}

/// How full the log is or is about to be.
fn fill(state: &State, memory: usize) -> Fill {
    Fill {
        used: state.ring.used() * PAGE_BYTES + state.queued_bytes as u64,
        capacity: state.ring.pages() * PAGE_BYTES,
        memory: memory as u64,
    }
}

/// Counts a waiter for as long as it waits, also if its future is dropped.
struct Waiting<'a>(&'a Shared);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.admission.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
