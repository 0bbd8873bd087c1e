//! Destage: from batches to objects, in parallel to the store and retired in order.
//!
//! One task owns the order. It starts the upload of what is sealed (data objects, map parts,
//! checkpoints; each takes the next sequence), several at a time, and retires them strictly in
//! sequence order: only then does the map learn of them, the log's tail move, the superblock name
//! them.
//!
//! Invariants: 1. an object is retired only when it and all before it are in the store and the term
//! was unbroken after that. 2. The map equals the retired objects. 3. The log's tail passes a
//! record only when the object that covers it is retired and the log superblock that says so is
//! durable. 4. The superblock names a checkpoint only when it and everything that it refers to are
//! retired. Crash: after a put, the object counts if no gap is before it; recovery then skips the
//! log records that it covers. After a retire but before the log superblock, recovery skips the
//! same records by their write sequence. After a checkpoint's put but before the superblock, the
//! checkpoint is an object that replay passes over. Concurrency: uploads run as tasks of their own
//! and touch no state; the state is changed here, in one place.

pub(crate) mod checkpoint;
pub(crate) mod seal;
pub(crate) mod tail;
pub(crate) mod upload;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lsvd_common::ids::ObjectSeq;
use lsvd_common::object::data::DataHeader;
use lsvd_common::object::map_part::TableRow;
use lsvd_common::object::prefix::ObjectKind;
use lsvd_common::units::{SectorRange, Sectors};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::batch::Batch;
use crate::destage::checkpoint::{Plan, Progress};
use crate::destage::tail::Tail;
use crate::error::{Error, ErrorKind, Result};
use crate::map::Location;
use crate::state::{PanicGuard, Phase, Shared, State, Stats};

/// Extents that are applied to the map under one hold of the lock.
const APPLY_CHUNK: usize = 128;

/// Pause between attempts when the store refuses what retrying below did not settle.
pub(crate) const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// Memory for records that stays when there is nothing to destage: enough for the next few writes.
const IDLE_BUFFERS_MAX: usize = 4 << 20;

/// An upload on its way.
struct Upload {
    seq: ObjectSeq,
    what: What,
    task: JoinHandle<Result<Option<(DataHeader, u32)>>>,
}

enum What {
    Data(Arc<Batch>),
    MapPart,
    Checkpoint(Box<Plan>),
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The destager's own state; nobody else sees it.
pub(crate) struct Destager {
    shared: Arc<Shared>,
    uploads: VecDeque<Upload>,
    next_object: ObjectSeq,
    tail: Tail,
    progress: Progress,
}

enum Event {
    Woken,
    Aged,
    Stored(Result<Option<(DataHeader, u32)>>),
}

impl Destager {
    pub(crate) fn new(
        shared: Arc<Shared>,
        next_object: ObjectSeq,
        tail: Tail,
        progress: Progress,
    ) -> Self {
        Self { shared, uploads: VecDeque::new(), next_object, tail, progress }
    }

    /// Runs until the volume stops or fails. Returns itself, for the last steps of a close.
    pub(crate) async fn run(mut self) -> Self {
        let _guard = PanicGuard { shared: Arc::clone(&self.shared), task: "destager" };
        if let Err(error) = self.drive().await {
            self.shared.fail(&error);
        }
        self
    }

    async fn drive(&mut self) -> Result<()> {
        loop {
            let deadline = self.seal_if_due();
            self.start_uploads().await;
            if self.finished()? {
                return Ok(());
            }
            match self.next(deadline).await {
                Event::Woken | Event::Aged => {}
                Event::Stored(result) => {
                    let Some(upload) = self.uploads.pop_front() else { continue };
                    self.retire(upload, result?).await?;
                    if self.progress.is_due(&self.shared) {
                        self.progress.start(&self.shared);
                    }
                }
            }
        }
    }

    /// True when the volume stops and nothing is left to do.
    fn finished(&mut self) -> Result<bool> {
        let (stop, empty) = {
            let state = self.shared.state.lock();
            if let Phase::Failed(error) = &state.phase {
                return Err(error.clone());
            }
            (state.stop, state.open.is_none() && state.sealed.is_empty())
        };
        let idle = self.uploads.is_empty() && !self.progress.has_objects();
        if empty && idle {
            self.shared.pool.trim(IDLE_BUFFERS_MAX);
        }
        if !stop || !empty || !idle {
            return Ok(false);
        }
        Ok(true)
    }

    /// Seals the open batch if it is old, wanted by a flush, or the volume is closing. Returns when
    /// it will be old.
    fn seal_if_due(&self) -> Option<Instant> {
        let mut state = self.shared.state.lock();
        let opened = state.open.as_ref()?.opened;
        let due = opened + self.shared.options.batch_age;
        let closing = matches!(state.phase, Phase::Closing);
        // While batches wait for an upload, age alone makes none of them smaller and all of them
        // more.
        let waiting = state.sealed.len() > state.uploading;
        if waiting && !state.seal_now && !closing {
            return None;
        }
        if state.seal_now || closing || due <= Instant::now() {
            state.seal();
            return None;
        }
        Some(due)
    }

    async fn next(&mut self, deadline: Option<Instant>) -> Event {
        let mut woken = std::pin::pin!(self.shared.destage_wake.notified());
        let mut sleep: Option<Pin<Box<Sleep>>> = deadline.map(|at| Box::pin(sleep_until(at)));
        let uploads = &mut self.uploads;
        poll_fn(|cx: &mut Context<'_>| {
            if let Some(front) = uploads.front_mut()
                && let Poll::Ready(result) = Pin::new(&mut front.task).poll(cx)
            {
                let lost = |error| Error::with(ErrorKind::Failed, "an upload task ended", error);
                return Poll::Ready(Event::Stored(result.map_err(lost).and_then(|inner| inner)));
            }
            if let Some(sleep) = &mut sleep
                && sleep.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Event::Aged);
            }
            woken.as_mut().poll(cx).map(|()| Event::Woken)
        })
        .await
    }

    async fn start_uploads(&mut self) {
        while self.uploads.len() < self.shared.options.puts_in_flight {
            if self.start_checkpoint_object().await {
                continue;
            }
            let Some(batch) = self.next_batch() else { break };
            let seq = self.next_object;
            self.next_object = seq.next();
            let (shared, ours) = (Arc::clone(&self.shared), Arc::clone(&batch));
            let task = async move {
                let (header, fingerprint, body) = seal::build(&shared, &ours, seq).await?;
                upload::put(&shared, seq, body).await?;
                Ok(Some((header, fingerprint)))
            };
            let task = self.shared.options.backend.spawn(task);
            self.uploads.push_back(Upload { seq, what: What::Data(batch), task });
        }
        self.give_ram_back();
    }

    /// Starts the next object of a checkpoint, unless there is none or one is on its way: that
    /// bounds their memory, and leaves the other places to data.
    async fn start_checkpoint_object(&mut self) -> bool {
        let on_its_way = |upload: &Upload| !matches!(upload.what, What::Data(_));
        if self.uploads.iter().any(on_its_way) {
            return false;
        }
        let seq = self.next_object;
        let Some((body, plan)) = self.progress.next_object(&self.shared, seq).await else {
            return false;
        };
        self.next_object = seq.next();
        let shared = Arc::clone(&self.shared);
        let task = async move {
            upload::put(&shared, seq, body.into()).await?;
            Ok(None)
        };
        let task = self.shared.options.backend.spawn(task);
        let what = plan.map_or(What::MapPart, |plan| What::Checkpoint(Box::new(plan)));
        self.uploads.push_back(Upload { seq, what, task });
        true
    }

    fn next_batch(&self) -> Option<Arc<Batch>> {
        let mut state = self.shared.state.lock();
        let batch = Arc::clone(state.sealed.get(state.uploading)?);
        state.uploading += 1;
        #[cfg(feature = "canary")]
        if self.shared.options.canary == Some(crate::options::Canary::TailBeforeRetire) {
            state.ring.free_to(batch.end.page);
            self.shared.space.notify_waiters();
            self.shared.log_wake.notify_one();
        }
        Some(batch)
    }

    /// Gives back the memory of batches that wait for an upload, the youngest first, while there is
    /// too much of it.
    fn give_ram_back(&self) {
        let state = self.shared.state.lock();
        let mut held: usize = state.sealed.iter().map(|batch| batch.ram_bytes()).sum();
        for batch in state.sealed.iter().skip(state.uploading).rev() {
            if held <= self.shared.options.batch_ram_bytes {
                break;
            }
            held -= batch.ram_bytes();
            batch.drop_ram();
        }
    }

    async fn retire(&mut self, upload: Upload, stored: Option<(DataHeader, u32)>) -> Result<()> {
        self.check_term().await?;
        match &upload.what {
            What::Data(batch) => {
                if let Some((header, fingerprint)) = stored {
                    self.retire_data(upload.seq, batch, &header, fingerprint).await?;
                }
            }
            What::MapPart => {}
            What::Checkpoint(plan) => {
                self.name_checkpoint(plan).await?;
                self.progress.done(plan);
                Stats::add(&self.shared.stats.checkpoints, 1);
            }
        }
        Ok(())
    }

    /// Asks the store whether we are still the writer, for as long as it takes to get an answer.
    async fn check_term(&self) -> Result<()> {
        #[cfg(feature = "canary")]
        if self.shared.options.canary == Some(crate::options::Canary::IgnoreFence) {
            return Ok(());
        }
        loop {
            match self.shared.term.check().await {
                Err(error) if error.kind() != ErrorKind::Fenced => {
                    upload::trouble(&self.shared, &error).await?;
                }
                other => return other,
            }
        }
    }

    async fn name_checkpoint(&self, plan: &Plan) -> Result<()> {
        loop {
            let named = self.shared.term.update(|superblock| plan.name_in(superblock)).await;
            match named {
                Err(error) if error.kind() != ErrorKind::Fenced => {
                    upload::trouble(&self.shared, &error).await?;
                }
                other => return other,
            }
        }
    }

    async fn retire_data(
        &mut self,
        seq: ObjectSeq,
        batch: &Arc<Batch>,
        header: &DataHeader,
        fingerprint: u32,
    ) -> Result<()> {
        let slot = self.shared.state.lock().table.add(row_of(header, fingerprint));
        // The batch stays in front of the map until all of it is there, so readers see no
        // half-applied object.
        for part in parts(header).chunks(APPLY_CHUNK) {
            apply(&mut self.shared.state.lock(), slot, part);
        }
        self.shared.headers.insert(seq, fingerprint, header);
        {
            let mut state = self.shared.state.lock();
            state.retired_object = seq;
            state.retired_write = header.last_write;
            let front = state.sealed.pop_front();
            assert!(front.is_some_and(|front| Arc::ptr_eq(&front, batch)), "retired in order");
            state.uploading -= 1;
        }
        self.shared.retired.notify_waiters();
        Stats::add(&self.shared.stats.objects, 1);
        Stats::add(&self.shared.stats.object_bytes, header.object_len() as u64);
        self.progress.stored(header.object_len() as u64);
        self.tail.retired(&self.shared, batch, seq).await
    }

    /// The last checkpoint of a clean close: everything is retired, nothing else runs.
    pub(crate) async fn close(&mut self) -> Result<()> {
        if self.progress.has_news() {
            self.progress.start(&self.shared);
            while self.progress.has_objects() || !self.uploads.is_empty() {
                self.start_uploads().await;
                if let Event::Stored(result) = self.next(None).await
                    && let Some(upload) = self.uploads.pop_front()
                {
                    self.retire(upload, result?).await?;
                }
                if let Some(error) = self.shared.failure() {
                    return Err(error);
                }
            }
        }
        self.tail.close(&self.shared).await
    }
}

/// The row of a data object in the object table, all of it live.
pub(crate) fn row_of(header: &DataHeader, fingerprint: u32) -> TableRow {
    let fits = "an object is smaller than 2^32 bytes";
    let payload = Sectors(header.extents.iter().map(|extent| extent.len.0).sum());
    TableRow {
        seq: header.id.seq,
        object_bytes: u32::try_from(header.object_len()).expect(fits),
        header_bytes: u32::try_from(header.header_len()).expect(fits),
        fingerprint,
        payload,
        live: payload,
        kind: ObjectKind::Data,
    }
}

/// One change of the map: a range that is at an offset of the object now, or a hole.
pub(crate) type Part = (SectorRange, Option<u32>);

/// The changes that an object makes to the map.
pub(crate) fn parts(header: &DataHeader) -> Vec<Part> {
    let mut offset = 0_u64;
    let holes = header.discards.iter().map(|range| (*range, None));
    let extents = header.extents.iter().map(|range| {
        let at = u32::try_from(offset).expect("a payload has fewer than 2^32 sectors");
        offset += range.len.0;
        (*range, Some(at))
    });
    holes.chain(extents).collect()
}

/// Applies changes of the object in `slot`. The same function serves the running volume and
/// recovery, so both see the same map.
pub(crate) fn apply(state: &mut State, slot: u32, parts: &[Part]) {
    let State { map, table, .. } = state;
    apply_to(map, table, slot, parts);
}

/// As [`apply`], on a map and a table on their own.
pub(crate) fn apply_to(
    map: &mut crate::map::ExtentMap,
    table: &mut crate::table::ObjectTable,
    slot: u32,
    parts: &[Part],
) {
    let mut displaced = |slot, sectors| table.displaced(slot, sectors);
    for (range, offset) in parts {
        match offset {
            None => map.remove(*range, &mut displaced),
            Some(offset) => map.insert(*range, Location { slot, offset: *offset }, &mut displaced),
        }
    }
}
