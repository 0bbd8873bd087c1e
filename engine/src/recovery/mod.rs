//! Opening an image: claim the term, recover what the store has, then what the log has, and start
//! the volume.
//!
//! Order, and what a crash after each step leaves: 1. the log file is opened (or made) and locked:
//! nothing changed.
//! 2. The superblock names our epoch and log, by compare-and-swap: a new open with the same log
//!    goes on from here, any
//! other needs a takeover. 3. Checkpoint and object headers are read, then the log: nothing
//! changed. 4. The fence is set: objects from the next sequence on count only with our epoch. 5.
//! The log superblock gets our epoch and the tail; from here on records are written. Recovery is a
//! function of store and log: repeated, it gives the same image.

mod claim;
mod objects;

use std::sync::Arc;
use std::time::Duration;

use lsvd_common::ids::{LogId, ObjectSeq, RecordSeq, WriteSeq};
use lsvd_common::log::header::LogSuperblock;
use lsvd_common::name::ImageName;
use lsvd_common::object::superblock::Fence;
use lsvd_common::units::{PAGE_BYTES, PAGE_LEN, Sectors};
use lsvd_store::ObjectStore;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::admission::Admission;
use crate::batch::{Batch, LogMark};
use crate::cache::{ReadCache, SingleFlight};
use crate::destage::checkpoint::Progress;
use crate::destage::tail::Tail;
use crate::destage::{Destager, tail};
use crate::disk::{AlignedBuf, BufPool, Disk, DiskDir};
use crate::error::{Error, ErrorKind, Result};
use crate::fence::Term;
use crate::log::ring::Ring;
use crate::log::scan::{self, Scan, Scanned};
use crate::log::writer;
use crate::options::VolumeOptions;
use crate::read::headers::HeaderCache;
use crate::recovery::claim::{Claimed, Stranded};
use crate::recovery::objects::StoreState;
use crate::state::{Phase, Shared, Size, State, Stats};
use crate::volume::{Tasks, Volume};

pub use claim::log_name;

/// What an open found and did.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The checkpoint that the map was loaded from.
    pub checkpoint: Option<ObjectSeq>,
    /// Objects replayed behind it.
    pub objects: u64,
    /// Log records replayed behind those.
    pub records: u64,
    /// Bytes of data in those records.
    pub record_bytes: u64,
    /// Objects of an earlier term behind a gap; they are replaced as their names are used.
    pub leftovers: u64,
    /// True if the log of the last term was there.
    pub log_kept: bool,
    /// Where a log was set aside whose writes are not part of the image any more.
    pub set_aside: Option<String>,
    /// Time to read the store.
    pub store_time: Duration,
    /// Time to read the log.
    pub log_time: Duration,
    /// Time for all of it.
    pub total_time: Duration,
}

/// Where a volume's parts come from.
#[derive(Clone, Debug)]
pub struct Places {
    /// The pool.
    pub store: Arc<dyn ObjectStore>,
    /// The directory of write logs.
    pub logs: Arc<dyn DiskDir>,
    /// The read cache of the gateway.
    pub cache: Arc<ReadCache>,
    /// Memory for log records and for answers that are put together.
    pub buffers: BufPool,
}

impl Volume {
    /// Opens an image as its only writer. With `takeover`, also if another gateway has it or the
    /// log of the last term is gone: then the image is what the store has, a prefix of what was
    /// acknowledged.
    ///
    /// # Errors
    /// `NotFound`, `InUse` naming the owner, `Corrupt` naming the damage, `Full`, `Unavailable`,
    /// `Invalid` options.
    pub async fn open(
        places: Places,
        name: &ImageName,
        options: VolumeOptions,
        takeover: bool,
    ) -> Result<Self> {
        options.check()?;
        let begun = Instant::now();
        let claimed = claim::claim(&places, name, &options, takeover).await?;
        let mut recovered = Recovered {
            log_kept: claimed.resumed,
            set_aside: claimed.stranded.as_ref().map(|Stranded { name, .. }| name.clone()),
            ..Recovered::default()
        };
        let superblock = &claimed.known.superblock;
        let store = objects::recover(&places.store, name, superblock, &options).await?;
        recovered.checkpoint = store.checkpoint;
        recovered.objects = store.progress_objects;
        recovered.store_time = begun.elapsed();
        let log_begun = Instant::now();
        let log = replay_log(&claimed, &store, &options).await?;
        recovered.records = log.records;
        recovered.record_bytes = log.bytes;
        recovered.log_time = log_begun.elapsed();
        let (shared, tasks) =
            start(places, name, options, claimed, store, log, &mut recovered).await?;
        recovered.total_time = begun.elapsed();
        Ok(Self::new(shared, recovered, tasks))
    }
}

/// What the log adds to the store.
struct LogState {
    superblock: LogSuperblock,
    head: LogMark,
    synced_page: u64,
    batches: VecDeque<Arc<Batch>>,
    last_write: WriteSeq,
    records: u64,
    bytes: u64,
}

/// Reads the records that the store does not cover into batches, whose data stays in the log.
async fn replay_log(
    claimed: &Claimed,
    store: &StoreState,
    options: &VolumeOptions,
) -> Result<LogState> {
    let superblock = claimed.log_superblock;
    #[cfg(feature = "canary")]
    let trust = options.canary == Some(crate::options::Canary::TrustTornRecord);
    #[cfg(not(feature = "canary"))]
    let trust = false;
    let Scan { records, end, synced_page } = if claimed.resumed && !superblock.clean {
        check_store_keeps(&superblock, store)?;
        scan::scan(&*claimed.log, &superblock, trust).await?
    } else {
        let end = LogMark {
            page: superblock.tail_page,
            record: superblock.tail_record,
            previous_crc: superblock.tail_previous_crc,
        };
        Scan { records: Vec::new(), end, synced_page: end.page }
    };
    #[cfg(feature = "canary")]
    let records = forget_discards(records, options);
    let mut state = LogState {
        superblock,
        head: end,
        synced_page,
        batches: VecDeque::new(),
        last_write: store.last_write,
        records: 0,
        bytes: 0,
    };
    let mut batch: Option<Batch> = None;
    for record in records.iter().filter(|record| record.last_write > store.last_write) {
        if record.first_write != state.last_write.next() {
            let context = format!(
                "the write log goes on with write {}, the store ends with write {}: objects are \
                 missing from the store",
                record.first_write, state.last_write
            );
            return Err(Error::new(ErrorKind::Corrupt, context));
        }
        let open = batch
            .get_or_insert_with(|| Batch::new(record.begin, record.first_write, Instant::now()));
        state.bytes += replay_record(open, record, claimed.known.superblock.size)?;
        state.records += 1;
        state.last_write = record.last_write;
        if open.is_full(options.batch_bytes) {
            state.batches.extend(batch.take().map(Arc::new));
        }
    }
    state.batches.extend(batch.take().map(Arc::new));
    Ok(state)
}

#[cfg(feature = "canary")]
fn forget_discards(mut records: Vec<Scanned>, options: &VolumeOptions) -> Vec<Scanned> {
    if options.canary == Some(crate::options::Canary::ForgetDiscard) {
        for record in &mut records {
            record.entries.retain(|entry| entry.place.is_some());
        }
    }
    records
}

fn replay_record(batch: &mut Batch, record: &Scanned, size: Sectors) -> Result<u64> {
    let mut bytes = 0;
    for entry in &record.entries {
        if entry.range.end().0 > size.0 {
            let context = format!("a log record of {} reaches past the image", entry.range);
            return Err(Error::new(ErrorKind::Corrupt, context));
        }
        match entry.place {
            None => batch.add_hole(entry.range),
            Some(place) => {
                bytes += u64::from(place.len);
                batch.add_data(entry.range, place, None);
            }
        }
    }
    batch.last_write = record.last_write;
    batch.end = record.end;
    Ok(bytes)
}

/// The log knows what the store had acknowledged; a store that has less lost it.
fn check_store_keeps(log: &LogSuperblock, store: &StoreState) -> Result<()> {
    if log.retired_write <= store.last_write {
        return Ok(());
    }
    let context = format!(
        "the store lost acknowledged objects: it had confirmed everything up to object {} (write \
         {}), now its objects end at {} (write {}); bring them back, or move the write log away and take \
         the image over to go on with what there is",
        log.retired_object,
        log.retired_write,
        store.next_object.previous().unwrap_or_default(),
        store.last_write
    );
    Err(Error::new(ErrorKind::Corrupt, context))
}

/// Sets the fence and the log superblock, and starts the tasks.
async fn start(
    places: Places,
    name: &ImageName,
    options: VolumeOptions,
    claimed: Claimed,
    store: StoreState,
    log: LogState,
    recovered: &mut Recovered,
) -> Result<(Arc<Shared>, Tasks)> {
    let superblock = claimed.known.superblock.clone();
    let log_id = claimed.log_superblock.log;
    let term = Term::new(Arc::clone(&places.store), name.clone(), log_id, claimed.known);
    let tail = log.batches.front().map_or(log.head, |batch| batch.begin);
    forget_torn_record(&*claimed.log, &log, name).await?;
    // What is replayed was perhaps not synced before the crash; it is readable from now on, so it
    // must stay.
    let (pages, from) = (log.superblock.ring_pages, log.synced_page.max(tail.page));
    let rewrite_context = || format!("make the log of image {name} durable");
    let rewritten = scan::rewrite(&*claimed.log, pages, from, log.head.page).await;
    rewritten.map_err(|error| Error::disk(rewrite_context(), error))?;
    claimed.log.sync().await.map_err(|error| Error::disk(rewrite_context(), error))?;
    let fence = Fence { epoch: term.epoch(), seq: store.next_object };
    term.update(|superblock| superblock.fence = fence).await?;
    recovered.leftovers = store.leftovers;
    let log_superblock = LogSuperblock {
        generation: log.superblock.generation + 1,
        epoch: term.epoch(),
        tail_page: tail.page,
        tail_record: tail.record,
        tail_previous_crc: tail.previous_crc,
        retired_object: store.next_object.previous().unwrap_or_default(),
        retired_write: store.last_write,
        clean: false,
        ..log.superblock
    };
    let tail_task = Tail::start(&*claimed.log, log_superblock).await;
    let tail_task = tail_task
        .map_err(|error| Error::disk(format!("write the log superblock of image {name}"), error))?;
    let ring = Ring::new(log_superblock.ring_pages, log.head, tail.page);
    let next_object = store.next_object;
    let progress = Progress::resume(store.sections, store.progress_objects, store.progress_bytes);
    let state = State {
        phase: Phase::Open,
        next_write: log.last_write.next(),
        queue: VecDeque::new(),
        queued_bytes: 0,
        writing: 0,
        ring,
        applied_page: log.head.page,
        applied_write: log.last_write,
        synced_page: log.head.page,
        sync_waiters: VecDeque::new(),
        flush_streak: 0,
        flushed_since_record: false,
        open: None,
        sealed: log.batches,
        uploading: 0,
        seal_now: false,
        map: store.map,
        table: store.table,
        retired_object: next_object.previous().unwrap_or_default(),
        retired_write: store.last_write,
        store_trouble: None,
        stop: false,
    };
    let shared = Arc::new(Shared {
        name: name.clone(),
        image: superblock.image,
        log_id,
        sector_size: superblock.sector_size,
        size: Size::new(superblock.size),
        region_shift: superblock.region_shift,
        store: places.store,
        log: claimed.log,
        cache: places.cache,
        headers: HeaderCache::default(),
        flights: SingleFlight::default(),
        term,
        pool: places.buffers,
        state: Mutex::new(state),
        admission: Admission::new(),
        log_wake: Notify::new(),
        destage_wake: Notify::new(),
        space: Notify::new(),
        retired: Notify::new(),
        stats: Stats::default(),
        options,
    });
    let destager = Destager::new(Arc::clone(&shared), next_object, tail_task, progress);
    let tasks = Tasks {
        writer: shared.options.home.spawn(writer::run(Arc::clone(&shared))),
        destager: shared.options.backend.spawn(destager.run()),
    };
    Ok((shared, tasks))
}

/// Destroys what is left of a record at the end of the log. Its header may be whole and only its
/// data torn: a record written over it later, and torn in its header, could complete it, and a
/// write would appear that this term read as not there.
async fn forget_torn_record(log: &dyn Disk, state: &LogState, name: &ImageName) -> Result<()> {
    let LogSuperblock { tail_page, ring_pages, .. } = state.superblock;
    if state.head.page - tail_page >= ring_pages {
        // The ring is full: the page at its end is the first of a record that counts.
        return Ok(());
    }
    let offset = Ring::file_bytes(state.head.page % ring_pages);
    let zeros = AlignedBuf::zeroed(PAGE_LEN).freeze();
    log.write_at(offset, zeros).await.map_err(|error| {
        Error::disk(format!("write to the log of image {name} at byte {offset}"), error)
    })
}

/// Makes a new, empty log.
async fn new_log(
    logs: &dyn DiskDir,
    file: &str,
    options: &VolumeOptions,
    image: lsvd_common::ids::ImageId,
) -> Result<(Arc<dyn Disk>, LogSuperblock)> {
    let ring_pages = options.log_bytes / PAGE_BYTES;
    let superblock = empty_log(options, image, ring_pages, 1);
    let log = logs.create(file, Ring::file_bytes(ring_pages)).await.map_err(|error| {
        let context =
            format!("make a write log of {} MiB in {}", options.log_bytes >> 20, logs.describe());
        Error::disk(context, error)
    })?;
    write_new(&*log, &superblock).await?;
    Ok((log, superblock))
}

/// Makes a drained log new, in place: what its ring still holds names another log and so never
/// counts.
async fn renew_log(
    log: &dyn Disk,
    old: &LogSuperblock,
    options: &VolumeOptions,
) -> Result<LogSuperblock> {
    let superblock = empty_log(options, old.image, old.ring_pages, old.generation + 1);
    write_new(log, &superblock).await?;
    Ok(superblock)
}

async fn write_new(log: &dyn Disk, superblock: &LogSuperblock) -> Result<()> {
    tail::write_superblock(log, superblock)
        .await
        .map_err(|error| Error::disk(format!("write to the write log {}", log.describe()), error))
}

/// The superblock of a log without records.
fn empty_log(
    options: &VolumeOptions,
    image: lsvd_common::ids::ImageId,
    ring_pages: u64,
    generation: u64,
) -> LogSuperblock {
    LogSuperblock {
        image,
        log: LogId(options.world.uuid()),
        generation,
        epoch: lsvd_common::ids::Epoch(0),
        ring_pages,
        tail_page: 0,
        tail_record: RecordSeq(1),
        tail_previous_crc: 0,
        retired_object: ObjectSeq(0),
        retired_write: WriteSeq(0),
        clean: true,
    }
}
