//! A batch: the writes on their way from the log to one object.
//!
//! It knows, for each address that it touches, the newest entry that wrote it; so overwritten data
//! never leaves the machine, and a reader finds what was acknowledged before the object exists.
//! While it is open it grows; once sealed only its memory may be given back, after which its data
//! is read from the log.
//!
//! Invariants: 1. pieces are apart. 2. It covers whole records, from `begin` to `end`, and all
//! writes in between.
//! 3. The log keeps those records until the batch is retired and no reader holds a pin on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lsvd_common::ids::{RecordSeq, WriteSeq};
use lsvd_common::units::{SECTOR_LEN, Sector, SectorRange, Sectors};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::disk::PAGE;

/// A place between two records of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogMark {
    /// Pages since the log was made.
    pub(crate) page: u64,
    /// The record that starts here.
    pub(crate) record: RecordSeq,
    /// Header checksum of the record that ends here.
    pub(crate) previous_crc: u32,
}

/// Where the data of one log entry is, and its checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryPlace {
    /// Byte offset in the log file.
    pub(crate) at: u64,
    /// Length in bytes.
    pub(crate) len: u32,
    /// CRC-32C, domain `Data`.
    pub(crate) crc: u32,
}

/// What a range of a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Zeros.
    Hole,
    /// Part of an entry's data, from this sector of it on.
    Entry { index: u32, skip: u32 },
}

impl Content {
    fn advance(self, sectors: u64) -> Self {
        match self {
            Self::Hole => Self::Hole,
            Self::Entry { index, skip } => {
                let by = u32::try_from(sectors).expect("an entry has fewer than 2^32 sectors");
                Self::Entry { index, skip: skip + by }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    len: u64,
    content: Content,
}

/// A batch holds at most this many times its target size in memory, overwritten data included.
const RAW_FACTOR: usize = 2;

/// Entries and pieces of a batch: the tables of its object must stay below the header limit, with a
/// whole record of single sectors on top.
const ROWS_MAX: usize = 200_000;

/// Readers that may hold log space at one time; more wait their turn by looking again.
const PINS_MAX: u32 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) begin: LogMark,
    pub(crate) end: LogMark,
    pub(crate) first_write: WriteSeq,
    pub(crate) last_write: WriteSeq,
    pub(crate) opened: Instant,
    pieces: BTreeMap<u64, Piece>,
    places: Vec<EntryPlace>,
    /// The data of each entry; none once memory was given back.
    ram: Mutex<Option<Vec<Bytes>>>,
    data_sectors: u64,
    raw_bytes: usize,
    pins: Arc<Semaphore>,
}

impl Batch {
    pub(crate) fn new(begin: LogMark, first_write: WriteSeq, opened: Instant) -> Self {
        Self {
            begin,
            end: begin,
            first_write,
            last_write: first_write,
            opened,
            pieces: BTreeMap::new(),
            places: Vec::new(),
            ram: Mutex::new(Some(Vec::new())),
            data_sectors: 0,
            raw_bytes: 0,
            pins: Arc::new(Semaphore::new(PINS_MAX as usize)),
        }
    }

    /// Adds an entry with data. `data` is none when it was found in the log by recovery.
    pub(crate) fn add_data(&mut self, range: SectorRange, place: EntryPlace, data: Option<Bytes>) {
        let index = u32::try_from(self.places.len()).expect("a batch has fewer than 2^32 entries");
        self.places.push(place);
        self.raw_bytes += place.len as usize;
        let ram = self.ram.get_mut();
        match (data, ram.as_mut()) {
            (Some(data), Some(ram)) => ram.push(data),
            _ => *ram = None,
        }
        self.place(range, Content::Entry { index, skip: 0 });
    }

    /// Adds a discard.
    pub(crate) fn add_hole(&mut self, range: SectorRange) {
        self.place(range, Content::Hole);
    }

    fn place(&mut self, range: SectorRange, content: Content) {
        let (start, end) = (range.start.0, range.end().0);
        if let Some((&at, piece)) = self.pieces.range_mut(..start).next_back() {
            let behind = at + piece.len;
            if behind > start {
                let old = *piece;
                piece.len = start - at;
                self.uncount(old.content, behind.min(end) - start);
                if behind > end {
                    let rest = Piece { len: behind - end, content: old.content.advance(end - at) };
                    self.pieces.insert(end, rest);
                }
            }
        }
        while let Some((&at, &old)) = self.pieces.range(start..end).next() {
            self.pieces.remove(&at);
            let behind = at + old.len;
            self.uncount(old.content, behind.min(end) - at);
            if behind > end {
                let rest = Piece { len: behind - end, content: old.content.advance(end - at) };
                self.pieces.insert(end, rest);
            }
        }
        self.pieces.insert(start, Piece { len: range.len.0, content });
        if content != Content::Hole {
            self.data_sectors += range.len.0;
        }
    }

    fn uncount(&mut self, content: Content, sectors: u64) {
        if content != Content::Hole {
            self.data_sectors -= sectors;
        }
    }

    /// Bytes that the object will hold.
    pub(crate) fn data_bytes(&self) -> usize {
        Sectors(self.data_sectors).bytes_usize()
    }

    /// Bytes of all entries, overwritten ones included.
    pub(crate) fn raw_bytes(&self) -> usize {
        self.raw_bytes
    }

    /// True if it should be sealed, for an object of about `target` bytes.
    pub(crate) fn is_full(&self, target: usize) -> bool {
        self.data_bytes() >= target
            || self.raw_bytes >= RAW_FACTOR * target
            || self.places.len() + self.pieces.len() >= ROWS_MAX
    }

    /// Calls `found` for each part of `range` that the batch holds and `missing` for the rest, in
    /// address order.
    pub(crate) fn overlay(
        &self,
        range: SectorRange,
        found: &mut dyn FnMut(SectorRange, Content),
        missing: &mut dyn FnMut(SectorRange),
    ) {
        let (mut at, end) = (range.start.0, range.end().0);
        let before = self.pieces.range(..=at).next_back();
        let within = self.pieces.range(at + 1..end.max(at + 1));
        for (&start, piece) in before.into_iter().chain(within) {
            let behind = start + piece.len;
            if behind <= at {
                continue;
            }
            if start > at {
                missing((at..start).into());
                at = start;
            }
            let stop = behind.min(end);
            found((at..stop).into(), piece.content.advance(at - start));
            at = stop;
        }
        if at < end {
            missing((at..end).into());
        }
    }

    /// The whole content in address order.
    pub(crate) fn contents(&self) -> impl Iterator<Item = (SectorRange, Content)> {
        self.pieces.iter().map(|(&start, piece)| {
            (SectorRange::new(Sector(start), Sectors(piece.len)), piece.content)
        })
    }

    /// Where an entry is in the log.
    pub(crate) fn place_of(&self, index: u32) -> EntryPlace {
        self.places[index as usize]
    }

    /// All entries, in the order of the log.
    pub(crate) fn places(&self) -> &[EntryPlace] {
        &self.places
    }

    /// Part of an entry's data, if it is still in memory.
    pub(crate) fn in_ram(&self, index: u32, skip: u32, len: Sectors) -> Option<Bytes> {
        let ram = self.ram.lock();
        let data = ram.as_ref()?.get(index as usize)?;
        let from = skip as usize * SECTOR_LEN;
        Some(data.slice(from..from + len.bytes_usize()))
    }

    /// Bytes of memory that the batch holds now: whole records, since their buffers are shared.
    pub(crate) fn ram_bytes(&self) -> usize {
        let pages = usize::try_from(self.end.page - self.begin.page).unwrap_or(usize::MAX);
        if self.ram.lock().is_some() { pages.saturating_mul(PAGE) } else { 0 }
    }

    /// Gives the memory back; the data is read from the log from now on.
    pub(crate) fn drop_ram(&self) {
        *self.ram.lock() = None;
    }

    /// Keeps the log from reusing the batch's records; none if that began already, and then the
    /// data is in an object.
    pub(crate) fn pin(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.pins).try_acquire_owned().ok()
    }

    /// Waits until no reader holds a pin, and lets none come.
    pub(crate) async fn unpinned(&self) {
        // The semaphore is never closed before this, so an error cannot come; either way no pin is
        // left.
        if let Ok(all) = self.pins.acquire_many(PINS_MAX).await {
            all.forget();
        }
    }
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    const MARK: LogMark = LogMark { page: 0, record: RecordSeq(1), previous_crc: 0 };

    fn batch() -> Batch {
        // A runtime is not needed to make an instant.
        Batch::new(MARK, WriteSeq(1), Instant::now())
    }

    fn read(batch: &Batch, range: SectorRange) -> Vec<Option<u8>> {
        let out = std::cell::RefCell::new(Vec::new());
        batch.overlay(
            range,
            &mut |range, content| match content {
                Content::Hole => {
                    out.borrow_mut().extend(std::iter::repeat_n(Some(0), range.len.0 as usize));
                }
                Content::Entry { index, skip } => {
                    let data = batch.in_ram(index, skip, range.len).unwrap();
                    out.borrow_mut().extend(data.chunks(SECTOR_LEN).map(|s| Some(s[0])));
                }
            },
            &mut |range| {
                out.borrow_mut().extend(std::iter::repeat_n(None, range.len.0 as usize));
            },
        );
        out.into_inner()
    }

    proptest! {
        #[test]
        fn it_reads_like_an_array(ops in prop::collection::vec((0_u64..60, 1_u64..12, any::<bool>()), 1..60)) {
            let mut batch = batch();
            let mut model = vec![None; 80];
            for (op, (start, len, hole)) in ops.into_iter().enumerate() {
                let range = SectorRange::from(start..start + len);
                let stamp = u8::try_from(op).unwrap() + 1;
                if hole {
                    batch.add_hole(range);
                } else {
                    let mut data = Vec::new();
                    for sector in 0..len {
                        data.extend(std::iter::repeat_n(stamp ^ (sector as u8) << 4, SECTOR_LEN));
                    }
                    let len = u32::try_from(data.len()).unwrap();
                    let place = EntryPlace { at: 0, len, crc: 0 };
                    batch.add_data(range, place, Some(data.into()));
                }
                for sector in 0..len {
                    let stamped = if hole { 0 } else { stamp ^ (sector as u8) << 4 };
                    model[(start + sector) as usize] = Some(stamped);
                }
                prop_assert_eq!(&read(&batch, (0..80).into()), &model);
                prop_assert_eq!(&read(&batch, (start..start + 5).into()), &model[start as usize..start as usize + 5]);
            }
            let holes: u64 = batch.contents().filter(|(_, c)| *c == Content::Hole).map(|(r, _)| r.len.0).sum();
            let all: u64 = batch.contents().map(|(r, _)| r.len.0).sum();
            prop_assert_eq!(batch.data_bytes() as u64, (all - holes) * 512);
        }
    }

    #[tokio::test]
    async fn log_space_waits_for_readers() {
        let batch = batch();
        let pin = batch.pin().unwrap();
        let mut waiting = std::pin::pin!(batch.unpinned());
        assert!(futures_poll(waiting.as_mut()).await.is_pending());
        drop(pin);
        waiting.await;
        assert!(batch.pin().is_none());
    }

    async fn futures_poll<F: Future>(
        mut future: std::pin::Pin<&mut F>,
    ) -> std::task::Poll<F::Output> {
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx))).await
    }
}
