//! The log writer: the one task that writes records and syncs the SSD.
//!
//! Group commit: all writes that wait when the device becomes free go out as one record. While a
//! record is on its way a further one is started only when much data waits, so that small writes
//! gather and large ones keep the device busy. One sync at a time serves all flushes that wait when
//! it starts. A client that flushes after every record gets its records written durably at once:
//! one trip to the device instead of two.
//!
//! Invariants: 1. records are applied (to the batch, then acknowledged) in log order, so
//! acknowledgement order is write sequence order. 2. A sync that serves a waiter started after the
//! waiter's record was complete. 3. After a failed write or sync nothing is acknowledged any more.
//! Crash: a record counts from the moment that it and all before it are whole on the SSD. One that
//! was applied but not synced may be lost with everything behind it; a flush behind it was then not
//! acknowledged. A record is written durably only when all before it are durable, so that its
//! completion means what a sync means. Concurrency: owns the order of device operations; takes the
//! state lock only to take work and to apply results.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use lsvd_common::codec::page_ceil;
use lsvd_common::ids::WriteSeq;
use lsvd_common::limits::{ENTRY_DATA_MAX, RECORD_ENTRIES_MAX};
use lsvd_common::log::record::{Entry, EntryKind, RecordHeader, RecordKind, entry_crc};
use lsvd_common::units::{PAGE_BYTES, SECTOR_LEN, SectorRange, Sectors};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::batch::{Batch, EntryPlace, LogMark};
use crate::disk::DiskFuture;
use crate::error::{Error, Result};
use crate::state::{Action, PanicGuard, Phase, Queued, Shared, Stats, SyncWaiter};

/// Records on their way to the SSD at one time.
const FLIGHT_MAX: usize = 4;

/// Flushes in a row, each behind one record, after which the next record is written durably at
/// once.
const FLUSH_STREAK: u32 = 2;

/// Data that must wait before a record is started behind one that is still on its way.
const FLIGHT_BYTES_MIN: usize = 256 << 10;

/// A record on its way.
struct Flight {
    write: DiskFuture<()>,
    begin: LogMark,
    end: LogMark,
    writes: Vec<Queued>,
    entries: Vec<Entry>,
    /// Data of the record, in entry order.
    data: Bytes,
    /// Byte offset of the data in the log file.
    data_at: u64,
    /// Complete means durable, for this record and all before it.
    durable: bool,
}

enum Event {
    Written(std::io::Result<()>),
    Synced(std::io::Result<()>),
    Woken,
}

/// Runs until the volume stops or fails.
pub(crate) async fn run(shared: Arc<Shared>) {
    let _guard = PanicGuard { shared: Arc::clone(&shared), task: "log writer" };
    let mut writer = Writer { shared, flight: VecDeque::new(), sync: None };
    if let Err(error) = writer.run().await {
        writer.shared.fail(&error);
        for flight in writer.flight.drain(..) {
            for queued in flight.writes {
                drop(queued.reply.send(Err(error.clone())));
            }
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    flight: VecDeque<Flight>,
    /// The sync on its way, and the page that all records were applied before when it started.
    sync: Option<(DiskFuture<()>, u64)>,
}

impl Writer {
    async fn run(&mut self) -> Result<()> {
        loop {
            self.start_records();
            self.start_sync();
            {
                let state = self.shared.state.lock();
                if let Phase::Failed(error) = &state.phase {
                    return Err(error.clone());
                }
                let idle = self.flight.is_empty() && self.sync.is_none();
                if state.stop && idle && state.queue.is_empty() && state.sync_waiters.is_empty() {
                    return Ok(());
                }
            }
            match self.next().await {
                Event::Woken => {}
                Event::Written(result) => {
                    let context = format!("write the log of image {}", self.shared.name);
                    result.map_err(|error| Error::disk(context, error))?;
                    self.apply();
                }
                Event::Synced(result) => {
                    let context = format!("sync the log of image {}", self.shared.name);
                    result.map_err(|error| Error::disk(context, error))?;
                    self.synced();
                }
            }
        }
    }

    async fn next(&mut self) -> Event {
        let mut woken = std::pin::pin!(self.shared.log_wake.notified());
        let (flight, sync) = (&mut self.flight, &mut self.sync);
        poll_fn(|cx: &mut Context<'_>| {
            if let Some(front) = flight.front_mut()
                && let Poll::Ready(result) = front.write.as_mut().poll(cx)
            {
                return Poll::Ready(Event::Written(result));
            }
            if let Some((running, _)) = sync
                && let Poll::Ready(result) = running.as_mut().poll(cx)
            {
                return Poll::Ready(Event::Synced(result));
            }
            woken.as_mut().poll(cx).map(|()| Event::Woken)
        })
        .await
    }

    fn start_records(&mut self) {
        while self.flight.len() < FLIGHT_MAX {
            let Some((writes, skip, begin)) = self.take_group() else { return };
            if let Some(pages) = skip {
                self.start_skip(pages);
            }
            self.start_record(writes, begin);
        }
    }

    /// Takes the writes of the next record off the queue, if one should start now and has space.
    /// Returns them with the pages to skip before it and the mark where the log's head was.
    fn take_group(&self) -> Option<(Vec<Queued>, Option<u64>, LogMark)> {
        let mut state = self.shared.state.lock();
        if state.queue.is_empty() || matches!(state.phase, Phase::Failed(_)) {
            return None;
        }
        if !self.flight.is_empty() && state.queued_bytes < FLIGHT_BYTES_MIN {
            return None;
        }
        let (mut count, mut data, mut entries) = (0, 0, 0);
        for queued in &state.queue {
            let len = queued.data_len();
            let more = len.div_ceil(ENTRY_DATA_MAX).max(1);
            let full = data + len > self.shared.options.record_bytes
                || entries + more > RECORD_ENTRIES_MAX;
            if count > 0 && full {
                break;
            }
            (count, data, entries) = (count + 1, data + len, entries + more);
        }
        let pages = (RecordHeader::encoded_len(entries) + page_ceil(data)) as u64 / PAGE_BYTES;
        let begin = state.ring.head();
        let space = state.ring.find(pages)?;
        state.queued_bytes -= data;
        state.writing += 1;
        let writes = state.queue.drain(..count).collect();
        Some((writes, (space.skip > 0).then_some(space.skip), begin))
    }

    fn header(&self, at: LogMark, kind: RecordKind, entries: Vec<Entry>) -> RecordHeader {
        let data = |entry: &Entry| match entry.kind {
            EntryKind::Data(_) => entry.range.len.bytes_usize(),
            EntryKind::Discard => 0,
        };
        RecordHeader {
            image: self.shared.image,
            log: self.shared.log_id,
            epoch: self.shared.term.epoch(),
            record: at.record,
            page: at.page,
            previous_crc: at.previous_crc,
            synced_page: self.shared.state.lock().synced_page,
            kind,
            data_len: entries.iter().map(data).sum(),
            entries,
        }
    }

    /// Writes the record that says to go on at the start of the ring.
    fn start_skip(&mut self, pages: u64) {
        let begin = self.shared.state.lock().ring.head();
        let header = self.header(begin, RecordKind::Skip, Vec::new());
        let mut buffer = self.shared.pool.take(header.header_len());
        let crc = header.encode_into(&mut buffer.spare_mut()[..header.header_len()]);
        buffer.advance(header.header_len());
        let (end, offset) = self.advance(pages, crc, begin);
        let write = self.shared.log.write_at(offset, buffer.freeze());
        let (data, data_at) = (Bytes::new(), offset);
        self.flight.push_back(Flight {
            write,
            begin,
            end,
            writes: Vec::new(),
            entries: Vec::new(),
            data,
            data_at,
            durable: false,
        });
    }

    fn start_record(&mut self, writes: Vec<Queued>, begin: LogMark) {
        let entries = entries_of(&writes);
        let at = self.shared.state.lock().ring.head();
        let header = self.header(at, RecordKind::Writes, entries);
        let header_len = header.header_len();
        let mut buffer = self.shared.pool.take(header_len + page_ceil(header.data_len));
        let crc = header.encode_into(&mut buffer.spare_mut()[..header_len]);
        buffer.advance(header_len);
        for queued in &writes {
            if let Action::Write(data) = &queued.action {
                buffer.extend_from_slice(data);
            }
        }
        buffer.pad_to_page();
        let (end, offset) = self.advance(header.pages(), crc, at);
        let record = buffer.freeze();
        Stats::add(&self.shared.stats.records, 1);
        Stats::add(&self.shared.stats.log_bytes, record.len() as u64);
        let data = record.slice(header_len..header_len + header.data_len);
        let durable = self.wants_durable(at, &writes);
        #[cfg(feature = "canary")]
        let lies = self.shared.options.canary == Some(crate::options::Canary::FlushWithoutSync);
        #[cfg(not(feature = "canary"))]
        let lies = false;
        let write = if durable && !lies {
            self.shared.log.write_durable_at(offset, record)
        } else {
            self.shared.log.write_at(offset, record)
        };
        let data_at = offset + header_len as u64;
        // A skip in between belongs to the batch of the record behind it.
        self.flight.push_back(Flight {
            write,
            begin,
            end,
            writes,
            entries: header.entries,
            data,
            data_at,
            durable,
        });
    }

    /// True if the record at `at` should be durable when it is complete: somebody wants that of it,
    /// or probably will.
    fn wants_durable(&self, at: LogMark, writes: &[Queued]) -> bool {
        let mut state = self.shared.state.lock();
        if !state.flushed_since_record {
            state.flush_streak = 0;
        }
        state.flushed_since_record = false;
        let wanted = state.flush_streak >= FLUSH_STREAK || writes.iter().any(|queued| queued.fua);
        wanted && self.flight.is_empty() && self.sync.is_none() && state.synced_page == at.page
    }

    /// Moves the head of the ring behind a record at `at`. Returns the new head and the record's
    /// byte offset.
    fn advance(&self, pages: u64, crc: u32, at: LogMark) -> (LogMark, u64) {
        let mut state = self.shared.state.lock();
        let offset = state.ring.offset(at.page);
        state.ring.advance(pages, crc);
        (state.ring.head(), offset)
    }

    /// Applies the oldest record on its way, which is complete: its data goes to the open batch,
    /// its writes are acknowledged (or wait for a sync).
    fn apply(&mut self) {
        let Some(flight) = self.flight.pop_front() else { return };
        let mut acknowledged = Vec::with_capacity(flight.writes.len());
        let target = self.shared.options.batch_bytes;
        let sealed = {
            let mut state = self.shared.state.lock();
            state.applied_page = flight.end.page;
            if flight.durable {
                state.synced_page = flight.end.page;
            }
            if let Some(last) = flight.writes.last() {
                state.applied_write = last.write;
                state.writing -= 1;
                let first = flight.writes[0].write;
                let batch = state
                    .open
                    .get_or_insert_with(|| Batch::new(flight.begin, first, Instant::now()));
                fill(batch, &flight);
            }
            for queued in flight.writes {
                if queued.fua && !flight.durable {
                    let (page, write) = (flight.end.page, queued.write);
                    let waiter = SyncWaiter { page, write, reply: queued.reply };
                    state.sync_waiters.push_back(waiter);
                } else {
                    acknowledged.push((queued.reply, queued.write));
                }
            }
            let full = state.open.as_ref().is_some_and(|batch| batch.is_full(target));
            let was_empty = state.open.as_ref().is_some_and(|batch| batch.begin == flight.begin);
            if full {
                state.seal();
            }
            full || was_empty
        };
        if sealed {
            self.shared.destage_wake.notify_one();
        }
        acknowledge(acknowledged);
    }

    fn start_sync(&mut self) {
        if self.sync.is_some() {
            return;
        }
        let page = {
            let state = self.shared.state.lock();
            if state.sync_waiters.is_empty() {
                return;
            }
            state.applied_page
        };
        #[cfg(feature = "canary")]
        if self.shared.options.canary == Some(crate::options::Canary::FlushWithoutSync) {
            self.sync = Some((Box::pin(std::future::ready(Ok(()))), page));
            return;
        }
        Stats::add(&self.shared.stats.syncs, 1);
        self.sync = Some((self.shared.log.sync(), page));
    }

    fn synced(&mut self) {
        let Some((_, page)) = self.sync.take() else { return };
        let mut acknowledged = Vec::new();
        {
            let mut state = self.shared.state.lock();
            state.synced_page = state.synced_page.max(page);
            let waiting = std::mem::take(&mut state.sync_waiters);
            for waiter in waiting {
                if waiter.page <= page {
                    acknowledged.push((waiter.reply, waiter.write));
                } else {
                    state.sync_waiters.push_back(waiter);
                }
            }
        }
        acknowledge(acknowledged);
    }
}

/// Sends the answers. Whoever stopped waiting does not need one.
fn acknowledge(answers: Vec<(oneshot::Sender<Result<WriteSeq>>, WriteSeq)>) {
    for (reply, write) in answers {
        drop(reply.send(Ok(write)));
    }
}

/// The entries of a record: each write cut into entries of at most 64 KiB.
fn entries_of(writes: &[Queued]) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(writes.len());
    for queued in writes {
        let write = queued.write;
        match &queued.action {
            Action::Discard => {
                let (range, kind) = (queued.range, EntryKind::Discard);
                entries.push(Entry { range, write, kind, last: true });
            }
            Action::Write(data) => {
                let mut start = queued.range.start;
                let mut chunks = data.chunks(ENTRY_DATA_MAX).peekable();
                while let Some(chunk) = chunks.next() {
                    let len = Sectors((chunk.len() / SECTOR_LEN) as u64);
                    let range = SectorRange::new(start, len);
                    let kind = EntryKind::Data(entry_crc(chunk));
                    entries.push(Entry { range, write, kind, last: chunks.peek().is_none() });
                    start = range.end();
                }
            }
        }
    }
    entries
}

/// Adds the content of a record to the batch that it belongs to.
fn fill(batch: &mut Batch, flight: &Flight) {
    let mut at = 0_usize;
    for entry in &flight.entries {
        match entry.kind {
            EntryKind::Discard => batch.add_hole(entry.range),
            EntryKind::Data(crc) => {
                let len = entry.range.len.bytes_usize();
                let place = EntryPlace {
                    at: flight.data_at + at as u64,
                    len: u32::try_from(len).expect("an entry has at most 64 KiB"),
                    crc,
                };
                batch.add_data(entry.range, place, Some(flight.data.slice(at..at + len)));
                at += len;
            }
        }
        batch.last_write = entry.write;
    }
    batch.end = flight.end;
}
