//! Reading data of a batch back from the log: while the store is away, and after a restart.

use std::sync::Arc;

use bytes::Bytes;
use lsvd_common::log::record::check_entry;
use lsvd_common::units::{PAGE_BYTES, SECTOR_LEN, Sectors};

use crate::batch::Batch;
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
    check_entry(place.crc, &data, 0).map_err(|error| {
        let context = format!("the log of image {} is damaged at byte {}", shared.name, place.at);
        Error::corrupt(context, error)
    })?;
    let from = skip as usize * SECTOR_LEN;
    Ok(data.slice(from..from + len.bytes_usize()))
}
