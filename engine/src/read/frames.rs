//! Frames of objects: from the cache, else from the store, verified.
//!
//! A run of neighbouring frames that the cache lacks is one range GET. When the frame before a run
//! is in memory, the reader is walking through the object, in the order in which the data was
//! written, and the run is made longer.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lsvd_common::limits::FRAME_BYTES;
use lsvd_common::object::data::{DataHeader, FrameInfo, check_frame};
use lsvd_common::object::prefix::check_place;
use lsvd_common::units::Sectors;

use crate::cache::{FrameKey, Hint};
use crate::error::{Error, ErrorKind, Result};
use crate::read::ObjectPlace;
use crate::read::headers::FrameTable;
use crate::state::{Shared, Stats};

/// Frames that one GET fetches at most.
const RUN_MAX: u32 = 16;

/// Frames fetched ahead of a reader that walks through an object.
const AHEAD: u32 = 8;

/// Part of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) frame: u32,
    pub(crate) within: Range<usize>,
}

/// The parts of frames that hold `len` sectors at a place.
pub(crate) fn parts(place: &ObjectPlace, len: Sectors) -> impl Iterator<Item = Part> + use<> {
    let mut at = place.offset.bytes_usize();
    let end = at + len.bytes_usize();
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let frame = at / FRAME_BYTES;
        let start = frame * FRAME_BYTES;
        let stop = end.min(start + FRAME_BYTES);
        let within = at - start..stop - start;
        at = stop;
        Some(Part { frame: u32::try_from(frame).expect("few frames"), within })
    })
}

/// The name of a frame in the cache.
pub(crate) fn key(shared: &Shared, place: &ObjectPlace, frame: u32) -> FrameKey {
    FrameKey { image: shared.image, object: place.seq, fingerprint: place.fingerprint, frame }
}

/// Reads `len` sectors at a place.
///
/// # Errors
/// The store failed, or the object is not what was written.
pub(crate) async fn read(
    shared: &Arc<Shared>,
    place: &ObjectPlace,
    len: Sectors,
) -> Result<Vec<Bytes>> {
    let mut answer = Vec::new();
    // Parts that the cache lacks, in a row.
    let mut missing: Vec<Part> = Vec::new();
    for part in parts(place, len) {
        let cached = shared.cache.get(&key(shared, place, part.frame), part.within.clone()).await;
        let full = missing.len() >= RUN_MAX as usize;
        if cached.is_some() || full {
            fetch_run(shared, place, &mut missing, &mut answer).await?;
        }
        match cached {
            Some(data) => answer.push(data),
            None => missing.push(part),
        }
    }
    fetch_run(shared, place, &mut missing, &mut answer).await?;
    Ok(answer)
}

/// Fetches the frames of `missing`, which are neighbours, and moves the parts to `answer`.
async fn fetch_run(
    shared: &Arc<Shared>,
    place: &ObjectPlace,
    missing: &mut Vec<Part>,
    answer: &mut Vec<Bytes>,
) -> Result<()> {
    let mut parts = missing.drain(..).peekable();
    while let Some(first) = parts.peek() {
        let first = first.frame;
        let wanted = u32::try_from(parts.len()).unwrap_or(RUN_MAX).min(RUN_MAX);
        // Who comes for the same run meanwhile waits for this one, and may get a longer or shorter
        // one.
        let fetch = || fetch(shared, place, first, wanted);
        let run = shared.flights.run(key(shared, place, first), fetch).await?;
        let before = answer.len();
        while let Some(part) = parts.peek() {
            let at = (part.frame - first) as usize * FRAME_BYTES;
            if at + part.within.end > run.len() {
                break;
            }
            answer.push(run.slice(at + part.within.start..at + part.within.end));
            parts.next();
        }
        if answer.len() == before {
            let name = shared.name.numbered(place.seq);
            let context = format!("the map points behind the end of object {name}");
            return Err(Error::new(ErrorKind::Corrupt, context));
        }
    }
    Ok(())
}

/// Fetches `wanted` frames from `first` on, and more if the reader walks. Returns their payload.
async fn fetch(
    shared: &Arc<Shared>,
    place: &ObjectPlace,
    first: u32,
    wanted: u32,
) -> Result<Bytes> {
    let table = frame_table(shared, place).await?;
    let walking = first > 0 && shared.cache.get_ram(&key(shared, place, first - 1)).is_some();
    let ahead = if walking { wanted.max(AHEAD) } else { wanted };
    let first_at = first as usize;
    let last = (first_at + ahead as usize).min(table.frames.len());
    let frames = table.frames.get(first_at..last).filter(|frames| !frames.is_empty());
    let Some(frames) = frames else {
        let context = format!(
            "the map of image {} points at frame {first} of object {}, which has {}",
            shared.name,
            shared.name.numbered(place.seq),
            table.frames.len()
        );
        return Err(Error::new(ErrorKind::Corrupt, context));
    };
    let body = match stored_bytes(shared, place, frames).await {
        // The end of a truncated object must not cost the frames before it.
        Err(error) if error.kind() == ErrorKind::Corrupt && frames.len() > 1 => {
            stored_bytes(shared, place, &frames[..1]).await?
        }
        body => body?,
    };
    Stats::add(&shared.stats.frames_fetched, frames.len() as u64);
    // Neighbours that were not asked for, and long runs, are scans as far as the SSD tier is
    // concerned.
    let hint = if walking || wanted > 2 { Hint::Sequential } else { Hint::Random };
    let mut at = 0_usize;
    for (index, frame) in (first..).zip(frames) {
        let end = at + frame.stored_len as usize;
        if end > body.len() {
            break;
        }
        let bytes = body.slice(at..end);
        match check_frame(frame, &bytes) {
            // The answer ends before a damaged frame: it is an error for who asks for it, and for
            // nobody else.
            Err(_) if index > first => break,
            checked => checked.map_err(|error| damaged(shared, place, frame, error))?,
        }
        shared.cache.insert(key(shared, place, index), &bytes, hint);
        at = end;
    }
    Ok(body.slice(..at))
}

/// The stored bytes of neighbouring frames.
async fn stored_bytes(
    shared: &Arc<Shared>,
    place: &ObjectPlace,
    frames: &[FrameInfo],
) -> Result<Bytes> {
    let stored = stored_range(frames);
    let name = shared.name.numbered(place.seq);
    let offset = u64::from(place.header_bytes) + stored.start;
    let body = shared.store.get_range(&name, offset, stored.end - stored.start).await;
    body.map_err(|error| unreadable(shared, place, error))
}

fn stored_range(frames: &[FrameInfo]) -> Range<u64> {
    let start = frames.first().map_or(0, |frame| u64::from(frame.stored_offset));
    let end = frames
        .last()
        .map_or(0, |frame| u64::from(frame.stored_offset) + u64::from(frame.stored_len));
    start..end
}

/// The frames of an object, from memory or from its header in the store.
async fn frame_table(shared: &Arc<Shared>, place: &ObjectPlace) -> Result<FrameTable> {
    let known = shared.headers.get(place.seq);
    if let Some(table) = known.filter(|table| table.fingerprint == place.fingerprint) {
        return Ok(table);
    }
    let name = shared.name.numbered(place.seq);
    let bytes = shared
        .store
        .get_range(&name, 0, place.header_bytes.into())
        .await
        .map_err(|error| unreadable(shared, place, error))?;
    let corrupt = |error| Error::corrupt(format!("object {name} is damaged"), error);
    let (header, fingerprint) = DataHeader::decode(&bytes).map_err(corrupt)?;
    check_place(&header.id, shared.image, place.seq).map_err(corrupt)?;
    if fingerprint != place.fingerprint {
        let context = format!(
            "object {name} is not the one that the map was made from: its header checksum is \
             {fingerprint:08x}, expected {:08x}",
            place.fingerprint
        );
        return Err(Error::new(ErrorKind::Corrupt, context));
    }
    shared.headers.insert(place.seq, fingerprint, &header);
    Ok(FrameTable { fingerprint, frames: header.frames.into() })
}

/// An object that the map needs and the store does not give. If it is not there, data is lost: that
/// is damage, not an answer.
fn unreadable(shared: &Shared, place: &ObjectPlace, error: lsvd_store::StoreError) -> Error {
    let name = shared.name.numbered(place.seq);
    let lost =
        matches!(error.kind(), lsvd_store::ErrorKind::NotFound | lsvd_store::ErrorKind::Invalid);
    let error = Error::store(format!("read object {name}"), error);
    let error = if lost { error.as_kind(ErrorKind::Corrupt) } else { error };
    if lost {
        tracing::error!(image = %shared.name, error = error.report(), "an object is missing or short");
    }
    error
}

fn damaged(
    shared: &Shared,
    place: &ObjectPlace,
    frame: &FrameInfo,
    error: lsvd_common::codec::DecodeError,
) -> Error {
    let offset = u64::from(place.header_bytes) + u64::from(frame.stored_offset);
    let context = format!(
        "object {} of image {} is damaged at byte {offset}",
        shared.name.numbered(place.seq),
        shared.name
    );
    let error = Error::corrupt(context, error);
    tracing::error!(image = %shared.name, error = error.report(), "damaged object");
    error
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_range_across_frames_has_a_part_in_each() {
        let place = ObjectPlace {
            seq: lsvd_common::ids::ObjectSeq(1),
            fingerprint: 0,
            header_bytes: 4096,
            offset: Sectors(127),
        };
        let parts: Vec<Part> = parts(&place, Sectors(130)).collect();
        let expected = [
            Part { frame: 0, within: 65024..65536 },
            Part { frame: 1, within: 0..65536 },
            Part { frame: 2, within: 0..512 },
        ];
        assert_eq!(parts, expected);
    }
}
