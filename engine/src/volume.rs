//! An open volume: reads, writes, flushes, discards, and a clean close.
//!
//! Does not: speak a protocol, cut bytes into sectors for a client, or know other volumes.
//! Concurrency: any number of callers on any thread. Dropping the future of a write leaves its outcome open, as with
//! any disk; dropping a volume without `close` is a crash, and recovery deals with it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use lsvd_common::ids::{Epoch, ImageId, ObjectSeq, WriteSeq};
use lsvd_common::units::{PAGE_BYTES, SECTOR_BYTES, SectorRange, Sectors};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::admission::Fill;
use crate::destage::Destager;
use crate::error::{Error, ErrorKind, Result};
use crate::options::FlushPolicy;
use crate::read;
use crate::recovery::Recovered;
use crate::state::{Action, Phase, Queued, Shared, State, Stats, SyncWaiter};

/// Bytes that wait for the log at one time; callers beyond wait for their turn.
const QUEUED_BYTES_MAX: usize = 32 << 20;

/// A waiter for log space looks again at least this often.
const SPACE_WAIT: Duration = Duration::from_millis(100);

/// How often a close that waits for the store says so.
const CLOSE_REPORT: Duration = Duration::from_secs(10);

/// A volume.
#[derive(Debug)]
pub struct Volume {
    shared: Arc<Shared>,
    recovered: Recovered,
    tasks: tokio::sync::Mutex<Option<Tasks>>,
}

pub(crate) struct Tasks {
    pub(crate) writer: JoinHandle<()>,
    pub(crate) destager: JoinHandle<Destager>,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tasks")
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // A volume that is dropped without a close must not go on writing behind its owner's back.
        self.writer.abort();
        self.destager.abort();
    }
}

/// A part of a volume that is all data, or reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The part.
    pub range: SectorRange,
    /// True if nothing is stored for it.
    pub hole: bool,
}

/// What a volume is doing now, for status and metrics.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Bytes of log space in use.
    pub log_used: u64,
    /// Bytes of log space.
    pub log_bytes: u64,
    /// Bytes that the store does not have yet.
    pub dirty_bytes: u64,
    /// Objects that the map refers to or did.
    pub objects: usize,
    /// Bytes of those objects in the store.
    pub stored_bytes: u64,
    /// Sectors that hold data.
    pub mapped: Sectors,
    /// Extents in the map.
    pub extents: u64,
    /// Memory of the map in bytes.
    pub map_bytes: usize,
    /// The last object that the store has, with all before it.
    pub retired_object: ObjectSeq,
    /// The last write that those objects cover.
    pub retired_write: WriteSeq,
    /// The last write that was applied.
    pub applied_write: WriteSeq,
    /// How long the store has not taken objects.
    pub store_away: Option<Duration>,
}

impl Volume {
    pub(crate) fn new(shared: Arc<Shared>, recovered: Recovered, tasks: Tasks) -> Self {
        Self { shared, recovered, tasks: tokio::sync::Mutex::new(Some(tasks)) }
    }

    /// The image's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared.name.as_str()
    }

    /// The image's identity.
    #[must_use]
    pub fn image(&self) -> ImageId {
        self.shared.image
    }

    /// Size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.size_bytes()
    }

    /// Size of a sector as clients see it, in bytes.
    #[must_use]
    pub fn sector_bytes(&self) -> u32 {
        self.shared.sector_size.bytes()
    }

    /// What recovery found when the volume was opened.
    #[must_use]
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// The term under which the volume writes.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.shared.term.epoch()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// What the volume is doing now.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.shared.state.lock();
        Status {
            log_used: state.ring.used() * PAGE_BYTES,
            log_bytes: state.ring.pages() * PAGE_BYTES,
            dirty_bytes: state.dirty_bytes(),
            objects: state.table.len(),
            stored_bytes: state.table.stored_bytes(),
            mapped: state.map.mapped_sectors(),
            extents: state.map.extent_count(),
            map_bytes: state.map.memory_bytes(),
            retired_object: state.retired_object,
            retired_write: state.retired_write,
            applied_write: state.applied_write,
            store_away: state.store_trouble.map(|since| since.elapsed()),
        }
    }

    /// Checks a byte range against the image and its sectors.
    fn range(&self, offset: u64, len: u64) -> Result<SectorRange> {
        let sector = u64::from(self.sector_bytes());
        let end = offset.checked_add(len);
        let inside = end.is_some_and(|end| end <= self.size_bytes());
        let range = SectorRange::from_bytes(offset, len);
        match range {
            Some(range)
                if inside && offset.is_multiple_of(sector) && len.is_multiple_of(sector) =>
            {
                Ok(range)
            }
            _ => {
                let context = format!(
                    "{len} bytes at {offset} are not whole {sector}-byte sectors of image {} of {} \
                     bytes",
                    self.name(),
                    self.size_bytes()
                );
                Err(Error::new(ErrorKind::OutOfRange, context))
            }
        }
    }

    /// Reads from memory only; `None` if something must be fetched, or the read would be refused.
    #[must_use]
    pub fn try_read(&self, offset: u64, len: u64) -> Option<Bytes> {
        let range = self.range(offset, len).ok()?;
        let pieces = {
            let state = self.shared.state.lock();
            if matches!(state.phase, Phase::Closed | Phase::Failed(_)) {
                return None;
            }
            read::plan(&state, range)
        };
        let data = read::from_memory(&self.shared, &pieces, range.len.bytes_usize())?;
        self.count_read(len);
        Some(data)
    }

    /// Reads `len` bytes at byte `offset`.
    ///
    /// # Errors
    /// `OutOfRange`, `Corrupt`, `Unavailable`, `Closed`, `Fenced`, `Failed`.
    pub async fn read(&self, offset: u64, len: u64) -> Result<Bytes> {
        let range = self.range(offset, len)?;
        let pieces = {
            let state = self.shared.state.lock();
            match &state.phase {
                Phase::Open | Phase::Closing => {}
                Phase::Closed => return Err(Error::new(ErrorKind::Closed, "the volume is closed")),
                Phase::Failed(error) => return Err(error.clone()),
            }
            read::plan(&state, range)
        };
        let len_memory = range.len.bytes_usize();
        let data = match read::from_memory(&self.shared, &pieces, len_memory) {
            Some(data) => data,
            None => read::execute(&self.shared, pieces, len_memory).await?,
        };
        self.count_read(len);
        Ok(data)
    }

    fn count_read(&self, len: u64) {
        Stats::add(&self.shared.stats.reads, 1);
        Stats::add(&self.shared.stats.read_bytes, len);
    }

    /// Writes `data` at byte `offset`. With `fua` it is acknowledged only when a flush behind it would be.
    ///
    /// A write of up to the record size (4 MiB by default) is atomic: after a crash all or nothing of it is there.
    /// Returns its place in the order in which the image acknowledges.
    ///
    /// # Errors
    /// `OutOfRange`, `Closed`, `Fenced`, `Failed`; after `Failed` it is unknown whether the data will be there.
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

    /// Makes a range read as zeros and gives its space back. Logged, ordered and durable like a write.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn discard(&self, offset: u64, len: u64, fua: bool) -> Result<WriteSeq> {
        let range = self.range(offset, len)?;
        if range.is_empty() {
            return Ok(self.shared.state.lock().applied_write);
        }
        #[cfg(feature = "canary")]
        if self.shared.options.canary == Some(crate::options::Canary::ForgetDiscard) {
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

    /// Waits until everything acknowledged before is durable: on the SSD, or in the store, as the volume was opened.
    /// Returns the last write that it covers.
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
            Action::Discard => 0,
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
        let queue = state.queued_bytes as u64 + bytes <= QUEUED_BYTES_MAX as u64;
        Ok(queue && self.shared.admission.is_open(fill(&state)))
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
                let fill = fill(&state);
                let queue = state.queued_bytes as u64 + bytes > QUEUED_BYTES_MAX as u64;
                (fill, queue || fill.used + 2 * bytes >= fill.capacity)
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

    /// Which parts of a range hold data, in order, at most `limit` of them; the last one may end before the range does.
    ///
    /// # Errors
    /// `OutOfRange`, `Closed`, `Failed`.
    pub fn allocation(&self, offset: u64, len: u64, limit: usize) -> Result<Vec<Allocation>> {
        let range = self.range(offset, len)?;
        let state = self.shared.state.lock();
        if let Phase::Failed(error) = &state.phase {
            return Err(error.clone());
        }
        let mut parts: Vec<Allocation> = Vec::new();
        let mut at = range.start;
        for piece in read::plan(&state, range) {
            let (hole, sectors) = match &piece {
                read::Piece::Hole(len) => (true, *len),
                read::Piece::Ram(data) => (false, Sectors(data.len() as u64 / SECTOR_BYTES)),
                read::Piece::Log { len, .. } | read::Piece::Object { len, .. } => (false, *len),
            };
            let full = parts.len() == limit;
            match parts.last_mut() {
                Some(last) if last.hole == hole => last.range.len += sectors,
                _ if full => break,
                _ => parts.push(Allocation { range: SectorRange::new(at, sectors), hole }),
            }
            at = at + sectors;
        }
        Ok(parts)
    }

    /// Closes the volume: refuses new writes, drains to the store, writes a checkpoint, releases the image. Reads go on
    /// until the end. Waits for the store for as long as it takes; dropping the future leaves a volume that a later open
    /// recovers, with nothing lost.
    ///
    /// # Errors
    /// `Fenced`, `Failed`; then the image was not released. `Closed` if it was closed before.
    pub async fn close(&self) -> Result<()> {
        let mut tasks = self.tasks.lock().await;
        if tasks.is_none() {
            return Err(Error::new(ErrorKind::Closed, "the volume is closed"));
        }
        {
            let mut state = self.shared.state.lock();
            if let Phase::Failed(error) = &state.phase {
                return Err(error.clone());
            }
            state.phase = Phase::Closing;
        }
        self.drain().await?;
        // From here on there is no way back: whatever interrupts this leaves a volume to be recovered.
        let Some(mut running) = tasks.take() else {
            return Err(Error::new(ErrorKind::Closed, "the volume is closed"));
        };
        self.shared.state.lock().stop = true;
        self.shared.log_wake.notify_one();
        self.shared.destage_wake.notify_one();
        let ended = |error| Error::with(ErrorKind::Failed, "a task of the volume ended", error);
        (&mut running.writer).await.map_err(ended)?;
        let mut destager = (&mut running.destager).await.map_err(ended)?;
        if let Some(error) = self.shared.failure() {
            return Err(error);
        }
        destager.close().await?;
        self.shared.term.release().await?;
        self.shared.state.lock().phase = Phase::Closed;
        Ok(())
    }

    /// Waits until nothing is queued, open or on its way.
    async fn drain(&self) -> Result<()> {
        let mut report = Instant::now() + CLOSE_REPORT;
        loop {
            let mut retired = std::pin::pin!(self.shared.retired.notified());
            retired.as_mut().enable();
            self.shared.destage_wake.notify_one();
            {
                let state = self.shared.state.lock();
                if let Phase::Failed(error) = &state.phase {
                    return Err(error.clone());
                }
                let applied = state.applied_page == state.ring.head().page;
                let batches = state.open.is_none() && state.sealed.is_empty();
                if state.queue.is_empty() && applied && batches {
                    return Ok(());
                }
                if report <= Instant::now() {
                    let bytes = state.dirty_bytes();
                    tracing::warn!(image = %self.shared.name, bytes, "close waits for the store");
                    report = Instant::now() + CLOSE_REPORT;
                }
            }
            drop(timeout(SPACE_WAIT, retired).await);
        }
    }
}

/// How full the log is or is about to be.
fn fill(state: &State) -> Fill {
    Fill {
        used: state.ring.used() * PAGE_BYTES + state.queued_bytes as u64,
        capacity: state.ring.pages() * PAGE_BYTES,
    }
}

/// Counts a waiter for as long as it waits, also if its future is dropped.
struct Waiting<'a>(&'a Shared);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.admission.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
