//! Sealing: from a batch to the bytes of an object.
//!
//! Pieces are sorted by address, neighbours merge, data is copied once into one page-aligned buffer that the store can
//! write without another copy. Data whose memory was given back is read from the log, and verified.

use bytes::Bytes;
use lsvd_common::codec::page_ceil;
use lsvd_common::ids::ObjectSeq;
use lsvd_common::limits::FRAME_BYTES;
use lsvd_common::object::data::{DataHeader, plain_frames};
use lsvd_common::object::prefix::{ObjectId, ObjectKind};
use lsvd_common::units::{SectorRange, Sectors};
use std::sync::Arc;

use crate::batch::{Batch, Content};
use crate::disk::AlignedBuf;
use crate::error::Result;
use crate::read::from_log;
use crate::state::Shared;

/// Adds a range behind the others; it merges with the last one if it continues it.
fn push_merged(ranges: &mut Vec<SectorRange>, range: SectorRange) {
    match ranges.last_mut() {
        Some(last) if last.end() == range.start => last.len += range.len,
        _ => ranges.push(range),
    }
}

/// Builds the object for a batch. Returns its header, fingerprint and bytes.
///
/// # Errors
/// The log could not be read, or what it holds is not what was written.
pub(crate) async fn build(
    shared: &Arc<Shared>,
    batch: &Arc<Batch>,
    seq: ObjectSeq,
) -> Result<(DataHeader, u32, Bytes)> {
    let (mut extents, mut discards) = (Vec::new(), Vec::new());
    for (range, content) in batch.contents() {
        let ranges = if content == Content::Hole { &mut discards } else { &mut extents };
        push_merged(ranges, range);
    }
    let payload_len = Sectors(extents.iter().map(|e: &SectorRange| e.len.0).sum()).bytes_usize();
    let frames = payload_len.div_ceil(FRAME_BYTES);
    let header_len = DataHeader::encoded_len(extents.len(), discards.len(), 0, frames);
    let mut buffer = AlignedBuf::with_capacity(header_len + page_ceil(payload_len));
    buffer.spare_mut()[..header_len].fill(0);
    buffer.advance(header_len);
    for (range, content) in batch.contents() {
        if let Content::Entry { index, skip } = content {
            match batch.in_ram(index, skip, range.len) {
                Some(data) => buffer.extend_from_slice(&data),
                None => {
                    let data = from_log::read(shared, batch, index, skip, range.len).await?;
                    buffer.extend_from_slice(&data);
                }
            }
        }
    }
    let payload = &buffer[header_len..header_len + payload_len];
    let header = DataHeader {
        id: ObjectId {
            image: shared.image,
            epoch: shared.term.epoch(),
            seq,
            created_ms: shared.options.world.wall_ms(),
        },
        kind: ObjectKind::Data,
        first_write: batch.first_write,
        last_write: batch.last_write,
        extents,
        discards,
        sources: Vec::new(),
        frames: plain_frames(payload),
        salt: [0; 16],
    };
    buffer.pad_to_page();
    let fingerprint = header.encode_into(&mut buffer[..header_len]);
    Ok((header, fingerprint, buffer.freeze()))
}
