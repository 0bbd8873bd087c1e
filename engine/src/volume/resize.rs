//! Growth of an open volume, and how far an image may grow.
//!
//! Does not: tell clients, which the front ends do; shrink an image.
//! Invariant: no request is taken behind the size that the superblock in the store has. The
//! superblock grows first, and the volume once the store has acknowledged that.
//! Crash: until the swap lands the image has its old size, afterwards its new one with zeros behind
//! the old end. Log records, objects and checkpoints are made of requests that were taken, so they
//! reach behind the old end only when the larger superblock is durable; every later superblock is
//! made from that one, a successor's claim too, so recovery never finds anything behind the end. A
//! swap whose answer was lost leaves either size until the superblock changes again: that change
//! contains the swap, or keeps it from landing. A superblock larger than the volume does no harm:
//! nothing is there.
//! Concurrency: resizes and a close take turns. Requests see the old size or the new one. Dropping
//! the future leaves either size, as a lost answer does.

use lsvd_common::limits::{IMAGE_SECTORS_MAX, REGIONS_MAX};
use lsvd_common::name::ImageName;
use lsvd_common::object::superblock::{SectorSize, Superblock};
use lsvd_common::units::{SECTOR_BYTES, Sectors};

use crate::error::{Error, ErrorKind, Result};
use crate::volume::Volume;

impl Volume {
    /// Grows the volume to `size_bytes`, durably: the new range reads as zeros and takes requests
    /// when this returns. Asking for the size that the volume has settles what an attempt without
    /// an answer left open.
    ///
    /// # Errors
    /// `Invalid` for a smaller size, one that is not whole sectors, or one above what the image may
    /// grow to; `Closed`, `Failed`; `Fenced`, and then the volume has failed. `Unavailable`: the
    /// volume goes on with its old size, and the next open finds either.
    pub async fn resize(&self, size_bytes: u64) -> Result<()> {
        // A close that went on now would end the term under the swap.
        let _turn = self.tasks.lock().await;
        let shared = &self.shared;
        if let Some(error) = shared.state.lock().refusal() {
            return Err(error);
        }
        let geometry = Geometry {
            sector_size: shared.sector_size,
            region_shift: shared.region_shift,
            size: shared.size.now(),
        };
        let size = geometry.grown(&shared.name, size_bytes)?;
        #[cfg(feature = "canary")]
        if shared.options.canary == Some(crate::options::Canary::GrowEarly) {
            shared.size.grow(size);
        }
        if let Err(error) = shared.term.update(|superblock| superblock.size = size).await {
            if error.kind() == ErrorKind::Fenced {
                shared.fail(&error);
            }
            return Err(error);
        }
        shared.size.grow(size);
        Ok(())
    }
}

/// What decides how far an image may grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) sector_size: SectorSize,
    pub(crate) region_shift: u8,
    pub(crate) size: Sectors,
}

impl Geometry {
    pub(crate) fn of(superblock: &Superblock) -> Self {
        let Superblock { sector_size, region_shift, size, .. } = *superblock;
        Self { sector_size, region_shift, size }
    }

    /// The size that somebody asked for, if the image may grow to it.
    pub(crate) fn grown(&self, name: &ImageName, size_bytes: u64) -> Result<Sectors> {
        let refuse = |why: String| Err(Error::new(ErrorKind::Invalid, why));
        let sector = u64::from(self.sector_size.bytes());
        if !size_bytes.is_multiple_of(sector) {
            return refuse(format!(
                "the size must be a multiple of the sector size, {sector} bytes"
            ));
        }
        let size = Sectors(size_bytes / SECTOR_BYTES);
        if size < self.size {
            let now = self.size.0 * SECTOR_BYTES;
            return refuse(format!(
                "image {name} has {now} bytes and cannot be made smaller: shrinking is not \
                 supported yet"
            ));
        }
        // The regions of the map keep their size, and an index of them all must fit one object.
        let most = IMAGE_SECTORS_MAX.min(REGIONS_MAX << self.region_shift);
        if size.0 > most {
            return refuse(format!(
                "image {name} can grow to {} GiB, as large as the regions of its map allow",
                most >> 21
            ));
        }
        Ok(size)
    }
}
