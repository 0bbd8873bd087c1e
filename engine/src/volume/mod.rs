//! An open volume: reads, writes, flushes, discards, growth, and a clean close.
//!
//! Does not: speak a protocol, cut bytes into sectors for a client, or know other volumes.
//! Concurrency: any number of callers on any thread. Dropping the future of a write leaves its
//! outcome open, as with any disk; dropping a volume without `close` is a crash, and recovery deals
//! with it.

mod close;
mod resize;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lsvd_common::ids::{Epoch, ImageId, ObjectSeq, WriteSeq};
use lsvd_common::units::{PAGE_BYTES, SECTOR_BYTES, SectorRange, Sectors};
use tokio::task::JoinHandle;

use crate::destage::Destager;
use crate::error::{Error, ErrorKind, Result};
use crate::read;
use crate::recovery::Recovered;
use crate::state::{Phase, Shared, Stats};

pub(crate) use resize::Geometry;

/// A volume.
#[derive(Debug)]
pub struct Volume {
    shared: Arc<Shared>,
    recovered: Recovered,
    tasks: tokio::sync::Mutex<Option<Tasks>>,
}

pub(crate) struct Tasks {
    pub(crate) writer: JoinHandle<()>,
    pub(crate) destager: JoinHandle<Destager>,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tasks")
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // A volume that is dropped without a close must not go on writing behind its owner's back.
        self.writer.abort();
        self.destager.abort();
    }
}

/// A part of a volume that is all data, or reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The part.
    pub range: SectorRange,
    /// True if nothing is stored for it.
    pub hole: bool,
}

/// What a volume is doing now, for status and metrics.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Bytes of log space in use.
    pub log_used: u64,
    /// Bytes of log space.
    pub log_bytes: u64,
    /// Bytes that the store does not have yet.
    pub dirty_bytes: u64,
    /// Objects that the map refers to or did.
    pub objects: usize,
    /// Bytes of those objects in the store.
    pub stored_bytes: u64,
    /// Sectors that hold data.
    pub mapped: Sectors,
    /// Extents in the map.
    pub extents: u64,
    /// Memory of the map in bytes.
    pub map_bytes: usize,
    /// The last object that the store has, with all before it.
    pub retired_object: ObjectSeq,
    /// The last write that those objects cover.
    pub retired_write: WriteSeq,
    /// The last write that was applied.
    pub applied_write: WriteSeq,
    /// How long the store has not taken objects.
    pub store_away: Option<Duration>,
}

impl Volume {
    pub(crate) fn new(shared: Arc<Shared>, recovered: Recovered, tasks: Tasks) -> Self {
        Self { shared, recovered, tasks: tokio::sync::Mutex::new(Some(tasks)) }
    }

    /// The image's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared.name.as_str()
    }

    /// The image's identity.
    #[must_use]
    pub fn image(&self) -> ImageId {
        self.shared.image
    }

    /// Size in bytes. It may grow at any time.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.size_bytes()
    }

    /// Size of a sector as clients see it, in bytes.
    #[must_use]
    pub fn sector_bytes(&self) -> u32 {
        self.shared.sector_size.bytes()
    }

    /// What recovery found when the volume was opened.
    #[must_use]
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// The term under which the volume writes.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.shared.term.epoch()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// What the volume is doing now.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.shared.state.lock();
        Status {
            log_used: state.ring.used() * PAGE_BYTES,
            log_bytes: state.ring.pages() * PAGE_BYTES,
            dirty_bytes: state.dirty_bytes(),
            objects: state.table.len(),
            stored_bytes: state.table.stored_bytes(),
            mapped: state.map.mapped_sectors(),
            extents: state.map.extent_count(),
            map_bytes: state.map.memory_bytes(),
            retired_object: state.retired_object,
            retired_write: state.retired_write,
            applied_write: state.applied_write,
            store_away: state.store_trouble.map(|since| since.elapsed()),
        }
    }

    /// Checks a byte range against the image and its sectors.
    fn range(&self, offset: u64, len: u64) -> Result<SectorRange> {
        let sector = u64::from(self.sector_bytes());
        let end = offset.checked_add(len);
        let inside = end.is_some_and(|end| end <= self.size_bytes());
        let range = SectorRange::from_bytes(offset, len);
        match range {
            Some(range)
                if inside && offset.is_multiple_of(sector) && len.is_multiple_of(sector) =>
            {
                Ok(range)
            }
            _ => {
                let context = format!(
                    "{len} bytes at {offset} are not whole {sector}-byte sectors of image {} of {} \
                     bytes",
                    self.name(),
                    self.size_bytes()
                );
                Err(Error::new(ErrorKind::OutOfRange, context))
            }
        }
    }

    /// Reads from memory only; `None` if something must be fetched, or the read would be refused.
    #[must_use]
    pub fn try_read(&self, offset: u64, len: u64) -> Option<Bytes> {
        let range = self.range(offset, len).ok()?;
        let pieces = {
            let state = self.shared.state.lock();
            if matches!(state.phase, Phase::Closed | Phase::Failed(_)) {
                return None;
            }
            read::plan(&state, range)
        };
        let data = read::from_memory(&self.shared, &pieces, range.len.bytes_usize())?;
        self.count_read(len);
        Some(data)
    }

    /// Reads `len` bytes at byte `offset`.
    ///
    /// # Errors
    /// `OutOfRange`, `Corrupt`, `Unavailable`, `Closed`, `Fenced`, `Failed`.
    pub async fn read(&self, offset: u64, len: u64) -> Result<Bytes> {
        let range = self.range(offset, len)?;
        let pieces = {
            let state = self.shared.state.lock();
            match &state.phase {
                Phase::Open | Phase::Closing => {}
                Phase::Closed => return Err(Error::new(ErrorKind::Closed, "the volume is closed")),
                Phase::Failed(error) => return Err(error.clone()),
            }
            read::plan(&state, range)
        };
        let len_memory = range.len.bytes_usize();
        let data = match read::from_memory(&self.shared, &pieces, len_memory) {
            Some(data) => data,
            None => read::execute(&self.shared, pieces, len_memory).await?,
        };
        self.count_read(len);
        Ok(data)
    }

    fn count_read(&self, len: u64) {
        Stats::add(&self.shared.stats.reads, 1);
        Stats::add(&self.shared.stats.read_bytes, len);
    }

    /// Which parts of a range hold data, in order, at most `limit` of them; the last one may end
    /// before the range does.
    ///
    /// # Errors
    /// `OutOfRange`, `Closed`, `Failed`.
    pub fn allocation(&self, offset: u64, len: u64, limit: usize) -> Result<Vec<Allocation>> {
        let range = self.range(offset, len)?;
        let state = self.shared.state.lock();
        if let Phase::Failed(error) = &state.phase {
            return Err(error.clone());
        }
        let mut parts: Vec<Allocation> = Vec::new();
        let mut at = range.start;
        for piece in read::plan(&state, range) {
            let (hole, sectors) = match &piece {
                read::Piece::Hole(len) => (true, *len),
                read::Piece::Ram(data) => (false, Sectors(data.len() as u64 / SECTOR_BYTES)),
                read::Piece::Log { len, .. } | read::Piece::Object { len, .. } => (false, *len),
            };
            let full = parts.len() == limit;
            match parts.last_mut() {
                Some(last) if last.hole == hole => last.range.len += sectors,
                _ if full => break,
                _ => parts.push(Allocation { range: SectorRange::new(at, sectors), hole }),
            }
            at = at + sectors;
        }
        Ok(parts)
    }
}
