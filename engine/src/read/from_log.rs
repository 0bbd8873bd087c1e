//! Reading data of a batch back from the log: while the store is away, and after a restart.

use std::sync::Arc;

use bytes::Bytes;
use lsvd_common::log::record::check_entry;
use lsvd_common::units::{PAGE_BYTES, SECTOR_LEN, Sectors};

use crate::batch::{Batch, EntryPlace};
use crate::error::{Error, Result};
use crate::state::Shared;

/// Part of an entry's data. The whole entry is read and verified.
///
/// # Errors
/// The SSD failed, or the entry is not what was written.
pub(crate) async fn read(
    shared: &Arc<Shared>,
    batch: &Arc<Batch>,
    index: u32,
    skip: u32,
    len: Sectors,
) -> Result<Bytes> {
    let place = batch.place_of(index);
    let first = place.at / PAGE_BYTES * PAGE_BYTES;
    let behind = (place.at + u64::from(place.len)).next_multiple_of(PAGE_BYTES);
    let pages = usize::try_from(behind - first).expect("an entry is short");
    let bytes = shared.log.read_at(first, pages).await.map_err(|error| {
        Error::disk(format!("read the log of image {} at byte {first}", shared.name), error)
    })?;
    let from = usize::try_from(place.at - first).expect("less than a page");
    let data = bytes.freeze().slice(from..from + place.len as usize);
    verify(shared, place, &data)?;
    let from = skip as usize * SECTOR_LEN;
    Ok(data.slice(from..from + len.bytes_usize()))
}

/// The data of a whole batch, read from the log in one or two large reads.
pub(crate) struct LogImage {
    /// Where each read began in the log file, and what it found; in the order of the batch's
    /// records.
    runs: Vec<(u64, Bytes)>,
}

impl LogImage {
    /// Reads everything that a batch has in the log.
    ///
    /// # Errors
    /// The SSD failed.
    pub(crate) async fn read(shared: &Arc<Shared>, batch: &Arc<Batch>) -> Result<Self> {
        let mut spans: Vec<(u64, u64)> = Vec::new();
        for place in batch.places() {
            let first = place.at / PAGE_BYTES * PAGE_BYTES;
            let behind = (place.at + u64::from(place.len)).next_multiple_of(PAGE_BYTES);
            match spans.last_mut() {
                // Entries follow each other; one that is before the last is behind the end of the
                // ring.
                Some((start, end)) if *start <= first => *end = behind.max(*end),
                _ => spans.push((first, behind)),
            }
        }
        let mut runs = Vec::with_capacity(spans.len());
        for (first, behind) in spans {
            let len = usize::try_from(behind - first).expect("a batch fits memory");
            let bytes = shared.log.read_at(first, len).await.map_err(|error| {
                Error::disk(format!("read the log of image {} at byte {first}", shared.name), error)
            })?;
            runs.push((first, bytes.freeze()));
        }
        Ok(Self { runs })
    }

    /// Part of an entry's data. The whole entry is verified.
    ///
    /// # Errors
    /// The entry is not what was written.
    pub(crate) fn part(
        &self,
        shared: &Arc<Shared>,
        place: EntryPlace,
        skip: u32,
        len: Sectors,
    ) -> Result<Bytes> {
        let end = place.at + u64::from(place.len);
        let holds = |(first, bytes): &&(u64, Bytes)| {
            *first <= place.at && end <= *first + bytes.len() as u64
        };
        let (first, bytes) = self.runs.iter().find(holds).expect("every entry was read");
        let from = usize::try_from(place.at - first).expect("a batch fits memory");
        let data = bytes.slice(from..from + place.len as usize);
        verify(shared, place, &data)?;
        let from = skip as usize * SECTOR_LEN;
        Ok(data.slice(from..from + len.bytes_usize()))
    }
}

fn verify(shared: &Arc<Shared>, place: EntryPlace, data: &[u8]) -> Result<()> {
    check_entry(place.crc, data, 0).map_err(|error| {
        let context = format!("the log of image {} is damaged at byte {}", shared.name, place.at);
        Error::corrupt(context, error)
    })
}
