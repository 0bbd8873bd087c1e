//! Sealing: from a batch to the bytes of an object.
//!
//! Pieces are sorted by address and neighbours merge. Whole pages are not copied: the object's
//! payload is the list of pieces of log records that it consists of. Only pieces that direct I/O
//! could not write are gathered into pages. Data whose memory was given back is read from the log,
//! and verified. A frame that is one log entry keeps the entry's checksum, made when the write came
//! in.

use std::sync::Arc;

use bytes::Bytes;
use lsvd_common::checksum::{Domain, crc, crc_more};
use lsvd_common::ids::ObjectSeq;
use lsvd_common::limits::FRAME_BYTES;
use lsvd_common::object::data::{Codec, DataHeader, FrameInfo};
use lsvd_common::object::prefix::{ObjectId, ObjectKind};
use lsvd_common::units::{PAGE_LEN, SectorRange};
use lsvd_store::Payload;

use crate::batch::{Batch, Content};
use crate::disk::AlignedBuf;
use crate::error::Result;
use crate::read::from_log::LogImage;
use crate::state::Shared;

/// A part of the payload.
struct Slice {
    data: Bytes,
    /// The checksum of the data, if it is a whole entry of the log.
    crc: Option<u32>,
}

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
) -> Result<(DataHeader, u32, Payload)> {
    let (mut extents, mut discards) = (Vec::new(), Vec::new());
    for (range, content) in batch.contents() {
        let ranges = if content == Content::Hole { &mut discards } else { &mut extents };
        push_merged(ranges, range);
    }
    let slices = slices(shared, batch).await?;
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
        frames: frames(&slices),
        salt: [0; 16],
    };
    let mut buffer = AlignedBuf::zeroed(header.header_len());
    let fingerprint = header.encode_into(&mut buffer);
    let payload = whole_pages(slices.into_iter().map(|slice| slice.data));
    let parts = std::iter::once(buffer.freeze()).chain(payload);
    Ok((header, fingerprint, parts.collect()))
}

/// The same bytes in parts that each start at a page of memory and are whole pages long, zeros at
/// the end included: one part that is not would send the whole object through the page cache.
fn whole_pages(parts: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
    let fits = |part: &Bytes| {
        part.as_ptr().addr().is_multiple_of(PAGE_LEN) && part.len().is_multiple_of(PAGE_LEN)
    };
    let gather = |parts: &mut Vec<Bytes>| {
        let mut buffer = AlignedBuf::with_capacity(parts.iter().map(Bytes::len).sum());
        for part in parts.drain(..) {
            buffer.extend_from_slice(&part);
        }
        buffer.pad_to_page();
        buffer.freeze()
    };
    let (mut whole, mut waiting, mut waiting_len) = (Vec::new(), Vec::new(), 0_usize);
    for part in parts {
        if waiting.is_empty() && fits(&part) {
            whole.push(part);
            continue;
        }
        waiting_len += part.len();
        waiting.push(part);
        if waiting_len.is_multiple_of(PAGE_LEN) {
            whole.push(gather(&mut waiting));
        }
    }
    if !waiting.is_empty() {
        whole.push(gather(&mut waiting));
    }
    whole
}

/// The data of a batch in address order.
async fn slices(shared: &Arc<Shared>, batch: &Arc<Batch>) -> Result<Vec<Slice>> {
    let mut log = None;
    let mut slices = Vec::new();
    for (range, content) in batch.contents() {
        let Content::Entry { index, skip } = content else { continue };
        let place = batch.place_of(index);
        let data = match batch.in_ram(index, skip, range.len) {
            Some(data) => data,
            None => {
                // Memory is given back for a whole batch at once, so all of it is read at once.
                let image = match &mut log {
                    Some(image) => image,
                    none => none.insert(LogImage::read(shared, batch).await?),
                };
                image.part(shared, place, skip, range.len)?
            }
        };
        let whole = data.len() == place.len as usize;
        slices.push(Slice { data, crc: whole.then_some(place.crc) });
    }
    Ok(slices)
}

/// Cuts the payload into frames and finds their checksums.
fn frames(slices: &[Slice]) -> Vec<FrameInfo> {
    let total: usize = slices.iter().map(|slice| slice.data.len()).sum();
    let mut frames = Vec::with_capacity(total.div_ceil(FRAME_BYTES));
    let mut rest = slices.iter();
    let mut current: &[u8] = &[];
    let mut at = 0;
    while at < total {
        let len = FRAME_BYTES.min(total - at);
        let mut sum = None;
        let mut missing = len;
        while missing > 0 {
            if current.is_empty() {
                let Some(slice) = rest.next() else { break };
                if missing == len && slice.data.len() == len && slice.crc.is_some() {
                    sum = slice.crc;
                    break;
                }
                current = &slice.data;
            }
            let (now, later) = current.split_at(current.len().min(missing));
            sum = Some(sum.map_or_else(|| crc(Domain::Data, now), |sum| crc_more(sum, now)));
            (current, missing) = (later, missing - now.len());
        }
        let fits = "a payload is smaller than 2^32 bytes";
        frames.push(FrameInfo {
            stored_offset: u32::try_from(at).expect(fits),
            stored_len: u32::try_from(len).expect(fits),
            crc: sum.expect("a frame is not empty"),
            codec: Codec::Plain,
        });
        at += len;
    }
    frames
}

#[cfg(test)]
mod test {
    use lsvd_common::object::data::plain_frames;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn gathered_parts_are_whole_pages_of_the_same_bytes(
            lens in prop::collection::vec(prop_oneof![1_usize..20, Just(8), Just(16)], 0..40),
            aligned: bool,
        ) {
            let mut bytes = Vec::new();
            let parts: Vec<Bytes> = lens.into_iter().enumerate().map(|(index, sectors)| {
                let data: Vec<u8> = (0..sectors * 512).map(|i| (i * 5 + index) as u8).collect();
                bytes.extend_from_slice(&data);
                if aligned {
                    let mut buffer = AlignedBuf::with_capacity(data.len());
                    buffer.extend_from_slice(&data);
                    buffer.freeze()
                } else {
                    data.into()
                }
            }).collect();
            let whole = whole_pages(parts.into_iter());
            for part in &whole {
                prop_assert!(part.as_ptr().addr().is_multiple_of(PAGE_LEN));
                prop_assert!(part.len().is_multiple_of(PAGE_LEN));
            }
            bytes.resize(bytes.len().next_multiple_of(PAGE_LEN), 0);
            prop_assert_eq!(whole.concat(), bytes);
        }

        #[test]
        fn frames_of_slices_are_those_of_the_whole(
            lens in prop::collection::vec(prop_oneof![1_usize..40, Just(128), Just(64)], 0..24),
            seed: u8,
        ) {
            let mut whole = Vec::new();
            let mut slices = Vec::new();
            for (index, sectors) in lens.into_iter().enumerate() {
                let data: Vec<u8> = (0..sectors * 512).map(|i| (i * 7 + index) as u8 ^ seed).collect();
                whole.extend_from_slice(&data);
                let known = (index % 3 > 0).then(|| crc(Domain::Data, &data));
                slices.push(Slice { data: data.into(), crc: known });
            }
            prop_assert_eq!(frames(&slices), plain_frames(&whole));
        }
    }
}
