//! The state of an open volume, and what all its tasks share.
//!
//! Concurrency: one short lock, never held over an await. Three parties change the state: callers
//! queue writes; the log writer (one task) applies records in order; the destager (one task)
//! retires objects in order. The map therefore always equals the durable objects up to
//! `retired_object`, and what was acknowledged since is in the batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lsvd_common::ids::{ImageId, LogId, ObjectSeq, WriteSeq};
use lsvd_common::name::ImageName;
use lsvd_common::object::superblock::SectorSize;
use lsvd_common::units::{SECTOR_BYTES, SectorRange, Sectors};
use lsvd_store::ObjectStore;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::admission::Admission;
use crate::batch::Batch;
use crate::cache::{FrameKey, ReadCache, SingleFlight};
use crate::disk::{BufPool, Disk};
use crate::error::{Error, ErrorKind, Result};
use crate::fence::Term;
use crate::log::ring::Ring;
use crate::map::ExtentMap;
use crate::options::VolumeOptions;
use crate::read::headers::HeaderCache;
use crate::table::ObjectTable;

/// What a queued write does.
#[derive(Debug)]
pub(crate) enum Action {
    Write(Bytes),
    Discard,
}

/// A write that has its sequence and waits for the log.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) write: WriteSeq,
    pub(crate) range: SectorRange,
    pub(crate) action: Action,
    /// Acknowledge only when durable on the SSD.
    pub(crate) fua: bool,
    pub(crate) reply: oneshot::Sender<Result<WriteSeq>>,
}

impl Queued {
    pub(crate) fn data_len(&self) -> usize {
        match &self.action {
            Action::Write(data) => data.len(),
            Action::Discard => 0,
        }
    }
}

/// Somebody who waits until all records before `page` are durable.
#[derive(Debug)]
pub(crate) struct SyncWaiter {
    pub(crate) page: u64,
    pub(crate) write: WriteSeq,
    pub(crate) reply: oneshot::Sender<Result<WriteSeq>>,
}

/// Whether the volume takes requests.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Open,
    /// Draining for a clean close; nothing new is taken.
    Closing,
    Closed,
    /// Nothing is acknowledged any more.
    Failed(Error),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// The sequence of the next write.
    pub(crate) next_write: WriteSeq,
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) queued_bytes: usize,
    /// Records that were taken off the queue and are not applied yet.
    pub(crate) writing: usize,
    pub(crate) ring: Ring,
    /// All records before this page are in the log and applied.
    pub(crate) applied_page: u64,
    /// The last write that was applied.
    pub(crate) applied_write: WriteSeq,
    /// All records before this page are durable.
    pub(crate) synced_page: u64,
    pub(crate) sync_waiters: VecDeque<SyncWaiter>,
    /// Flushes in a row that came right behind one record each.
    pub(crate) flush_streak: u32,
    /// A flush came since the last record was started.
    pub(crate) flushed_since_record: bool,
    pub(crate) open: Option<Batch>,
    /// Sealed batches, oldest first; the first `uploading` are on their way to the store.
    pub(crate) sealed: VecDeque<Arc<Batch>>,
    pub(crate) uploading: usize,
    /// A flush to the backend wants the open batch sealed now.
    pub(crate) seal_now: bool,
    pub(crate) map: ExtentMap,
    pub(crate) table: ObjectTable,
    pub(crate) retired_object: ObjectSeq,
    pub(crate) retired_write: WriteSeq,
    /// Since when the store does not take objects.
    pub(crate) store_trouble: Option<Instant>,
    /// The tasks end as soon as nothing is left to do.
    pub(crate) stop: bool,
}

impl State {
    /// The error that a request gets now, if it is not taken.
    pub(crate) fn refusal(&self) -> Option<Error> {
        match &self.phase {
            Phase::Open => None,
            Phase::Closing | Phase::Closed => {
                Some(Error::new(ErrorKind::Closed, "the volume is closed"))
            }
            Phase::Failed(error) => Some(error.clone()),
        }
    }

    /// Bytes that are acknowledged, or about to be, and not in the store.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        let batches = self.sealed.iter().map(|batch| batch.raw_bytes());
        let open = self.open.as_ref().map_or(0, Batch::raw_bytes);
        (batches.sum::<usize>() + open + self.queued_bytes) as u64
    }

    /// Seals the open batch. It must hold something.
    pub(crate) fn seal(&mut self) {
        if let Some(batch) = self.open.take() {
            self.sealed.push_back(Arc::new(batch));
        }
        self.seal_now = false;
    }
}

/// Counters of a volume, for status and metrics.
#[derive(Debug, Default)]
pub struct Stats {
    /// Reads completed.
    pub reads: AtomicU64,
    /// Bytes read.
    pub read_bytes: AtomicU64,
    /// Writes acknowledged.
    pub writes: AtomicU64,
    /// Bytes written.
    pub write_bytes: AtomicU64,
    /// Discards and zeroings acknowledged.
    pub discards: AtomicU64,
    /// Flushes acknowledged.
    pub flushes: AtomicU64,
    /// Log records written.
    pub records: AtomicU64,
    /// Bytes written to the log.
    pub log_bytes: AtomicU64,
    /// Syncs of the SSD.
    pub syncs: AtomicU64,
    /// Data objects stored.
    pub objects: AtomicU64,
    /// Bytes of data objects stored.
    pub object_bytes: AtomicU64,
    /// Checkpoints stored.
    pub checkpoints: AtomicU64,
    /// Frames fetched from the store.
    pub frames_fetched: AtomicU64,
}

impl Stats {
    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

/// What all tasks of a volume share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: ImageName,
    pub(crate) image: ImageId,
    pub(crate) log_id: LogId,
    pub(crate) sector_size: SectorSize,
    pub(crate) size: Size,
    pub(crate) region_shift: u8,
    pub(crate) options: VolumeOptions,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) log: Arc<dyn Disk>,
    pub(crate) cache: Arc<ReadCache>,
    pub(crate) headers: HeaderCache,
    pub(crate) flights: SingleFlight<FrameKey, Error>,
    pub(crate) term: Term,
    pub(crate) pool: BufPool,
    pub(crate) state: Mutex<State>,
    pub(crate) admission: Admission,
    /// Work for the log writer.
    pub(crate) log_wake: Notify,
    /// Work for the destager.
    pub(crate) destage_wake: Notify,
    /// Log space became free.
    pub(crate) space: Notify,
    /// Something was retired, or the volume failed.
    pub(crate) retired: Notify,
    pub(crate) stats: Stats,
}

impl Shared {
    /// Refuses everything from now on: an SSD that failed once may lie the second time, and a
    /// fenced writer must not acknowledge. Every waiter gets the error; the first failure is
    /// kept.
    pub(crate) fn fail(&self, error: &Error) {
        let kind =
            if error.kind() == ErrorKind::Fenced { ErrorKind::Fenced } else { ErrorKind::Failed };
        let error = &error.clone().as_kind(kind);
        let (queue, waiters) = {
            let mut state = self.state.lock();
            if !matches!(state.phase, Phase::Failed(_)) {
                state.phase = Phase::Failed(error.clone());
                tracing::error!(image = %self.name, error = error.report(), "volume failed");
            }
            state.queued_bytes = 0;
            (std::mem::take(&mut state.queue), std::mem::take(&mut state.sync_waiters))
        };
        for queued in queue {
            drop(queued.reply.send(Err(error.clone())));
        }
        for waiter in waiters {
            drop(waiter.reply.send(Err(error.clone())));
        }
        self.log_wake.notify_one();
        self.destage_wake.notify_one();
        self.space.notify_waiters();
        self.retired.notify_waiters();
    }

    /// The failure, if there was one.
    pub(crate) fn failure(&self) -> Option<Error> {
        match &self.state.lock().phase {
            Phase::Failed(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// Size in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size.now().0 * SECTOR_BYTES
    }
}

/// Where requests end. It only grows: a range that was inside stays inside, so a request is checked
/// once, without a lock.
#[derive(Debug)]
pub(crate) struct Size(AtomicU64);

impl Size {
    pub(crate) fn new(size: Sectors) -> Self {
        Self(AtomicU64::new(size.0))
    }

    pub(crate) fn now(&self) -> Sectors {
        Sectors(self.0.load(Ordering::Acquire))
    }

    /// The superblock in the store must have this size already.
    pub(crate) fn grow(&self, size: Sectors) {
        self.0.fetch_max(size.0, Ordering::Release);
    }
}

/// Fails the volume if the task that holds it ends in a panic: no task dies silently.
pub(crate) struct PanicGuard {
    pub(crate) shared: Arc<Shared>,
    pub(crate) task: &'static str,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let context = format!("the {} of image {} panicked", self.task, self.shared.name);
            self.shared.fail(&Error::new(ErrorKind::Failed, context));
        }
    }
}
