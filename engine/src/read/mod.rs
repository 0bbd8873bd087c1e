//! Reads: a plan under the lock, then the pieces, each verified before a byte of it is returned.
//!
//! A range consists of pieces in batches (memory, or the log once memory was given back), in
//! objects, and holes. The newest wins: the open batch, sealed batches from the youngest to the
//! oldest, then the map. Pieces in objects go by frame: RAM tier, SSD tier, else the store, one
//! range GET for a run of missing frames.
//!
//! Invariant: a piece in the log is pinned when it is planned, so its space is not reused before it
//! is read. Concurrency: any number of reads at a time; a read that only needs memory never waits.

pub(crate) mod frames;
pub(crate) mod from_log;
pub(crate) mod headers;

use std::sync::Arc;

use bytes::Bytes;
use lsvd_common::ids::ObjectSeq;
use lsvd_common::units::{Sector, SectorRange, Sectors};
use tokio::sync::OwnedSemaphorePermit;

use crate::batch::{Batch, Content};
use crate::disk::{AlignedBuf, BufPool};
use crate::error::Result;
use crate::state::{Shared, State};

/// Where a part of a range is.
#[derive(Debug)]
pub(crate) enum Piece {
    Hole(Sectors),
    Ram(Bytes),
    Log { batch: Arc<Batch>, index: u32, skip: u32, len: Sectors, _pin: OwnedSemaphorePermit },
    Object { place: ObjectPlace, len: Sectors },
}

/// A place in the payload of an object, with what is needed to find and name its frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ObjectPlace {
    pub(crate) seq: ObjectSeq,
    pub(crate) fingerprint: u32,
    pub(crate) header_bytes: u32,
    pub(crate) offset: Sectors,
}

/// Looks a range up, newest first.
pub(crate) fn plan(state: &State, range: SectorRange) -> Vec<Piece> {
    if state.open.is_none() && state.sealed.is_empty() {
        return map_pieces(state, range).map(|(_, piece)| piece).collect();
    }
    let mut plan = Plan { pieces: Vec::new(), gaps: vec![range] };
    if let Some(open) = &state.open {
        // The open batch always has its data in memory: only sealed batches give it back.
        plan.layer(open, &mut |index, skip, range| {
            open.in_ram(index, skip, range.len).map(Piece::Ram)
        });
    }
    for batch in state.sealed.iter().rev() {
        if plan.gaps.is_empty() {
            break;
        }
        plan.layer(batch, &mut |index, skip, range| {
            if let Some(data) = batch.in_ram(index, skip, range.len) {
                return Some(Piece::Ram(data));
            }
            let pin = batch.pin()?;
            Some(Piece::Log { batch: Arc::clone(batch), index, skip, len: range.len, _pin: pin })
        });
    }
    let Plan { mut pieces, gaps } = plan;
    for gap in gaps {
        pieces.extend(map_pieces(state, gap));
    }
    pieces.sort_unstable_by_key(|(start, _)| *start);
    pieces.into_iter().map(|(_, piece)| piece).collect()
}

/// Where part of an entry's data is: its index, the sectors to skip, and the range on the image.
type DataOf<'a> = dyn FnMut(u32, u32, SectorRange) -> Option<Piece> + 'a;

/// A plan in the making.
struct Plan {
    pieces: Vec<(Sector, Piece)>,
    /// What the layers so far do not answer.
    gaps: Vec<SectorRange>,
}

impl Plan {
    /// Lets a batch answer what it can.
    fn layer(&mut self, batch: &Batch, data: &mut DataOf<'_>) {
        let mut left = Vec::with_capacity(self.gaps.len());
        for gap in std::mem::take(&mut self.gaps) {
            batch.overlay(
                gap,
                &mut |range, content| {
                    let piece = match content {
                        Content::Hole => Piece::Hole(range.len),
                        Content::Entry { index, skip } => data(index, skip, range)
                            .expect("a batch has its data in memory or in the log"),
                    };
                    self.pieces.push((range.start, piece));
                },
                &mut |range| left.push(range),
            );
        }
        self.gaps = left;
    }
}

/// What the map says of a range.
fn map_pieces(state: &State, range: SectorRange) -> impl Iterator<Item = (Sector, Piece)> {
    state.map.lookup(range).map(|found| {
        let len = found.range.len;
        let piece = match found.at {
            None => Piece::Hole(len),
            Some(at) => {
                let row = state.table.row(at.slot);
                let place = ObjectPlace {
                    seq: row.seq,
                    fingerprint: row.fingerprint,
                    header_bytes: row.header_bytes,
                    offset: Sectors(at.offset.into()),
                };
                Piece::Object { place, len }
            }
        };
        (found.range.start, piece)
    })
}

/// Zeros that every hole shares.
fn zeros(len: usize) -> Bytes {
    static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
    match ZEROS.get(..len) {
        Some(zeros) => Bytes::from_static(zeros),
        None => Bytes::from(vec![0; len]),
    }
}

/// Collects the parts of an answer; a single part is passed on without a copy.
struct Answer<'a> {
    len: usize,
    first: Option<Bytes>,
    all: Option<AlignedBuf>,
    buffers: &'a BufPool,
}

impl<'a> Answer<'a> {
    fn new(len: usize, shared: &'a Shared) -> Self {
        Self { len, first: None, all: None, buffers: &shared.pool }
    }

    fn push(&mut self, part: Bytes) {
        if self.first.is_none() && self.all.is_none() && part.len() == self.len {
            self.first = Some(part);
            return;
        }
        self.all.get_or_insert_with(|| self.buffers.take(self.len)).extend_from_slice(&part);
    }

    fn finish(self) -> Bytes {
        let answer = self.first.or_else(|| self.all.map(AlignedBuf::freeze)).unwrap_or_default();
        assert_eq!(answer.len(), self.len, "the pieces cover the range");
        answer
    }
}

/// The answer, if all pieces are in memory.
pub(crate) fn from_memory(shared: &Shared, pieces: &[Piece], len: usize) -> Option<Bytes> {
    let mut answer = Answer::new(len, shared);
    for piece in pieces {
        match piece {
            Piece::Hole(len) => answer.push(zeros(len.bytes_usize())),
            Piece::Ram(data) => answer.push(data.clone()),
            Piece::Log { .. } => return None,
            Piece::Object { place, len } => {
                for part in frames::parts(place, *len) {
                    let frame = shared.cache.get_ram(&frames::key(shared, place, part.frame))?;
                    answer.push(frame.get(part.within.clone()).map(|_| frame.slice(part.within))?);
                }
            }
        }
    }
    Some(answer.finish())
}

/// Fetches what is not in memory and puts the answer together.
///
/// # Errors
/// A piece could not be read, or is not what was written.
pub(crate) async fn execute(shared: &Arc<Shared>, pieces: Vec<Piece>, len: usize) -> Result<Bytes> {
    let mut answer = Answer::new(len, shared);
    for piece in pieces {
        match piece {
            Piece::Hole(len) => answer.push(zeros(len.bytes_usize())),
            Piece::Ram(data) => answer.push(data),
            Piece::Log { batch, index, skip, len, _pin } => {
                answer.push(from_log::read(shared, &batch, index, skip, len).await?);
            }
            Piece::Object { place, len } => {
                for part in frames::read(shared, &place, len).await? {
                    answer.push(part);
                }
            }
        }
    }
    Ok(answer.finish())
}
