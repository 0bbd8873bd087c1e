//! The adapter between a volume and the NBD server: the only place where the two meet.

use std::sync::Arc;

use bytes::Bytes;
use lsvd_engine::{Error, ErrorKind, Volume};
use lsvd_nbd::{BlockSizes, Export, ExportInfo, Extent, Failure, Outcome, limits};

use crate::polling;

/// What clients should prefer, whatever the sector size: the unit of the SSD and of most file
/// systems.
const PREFERRED_BYTES: u32 = 4096;

/// An open volume as NBD clients see it.
#[derive(Debug)]
pub(crate) struct VolumeExport(pub(crate) Arc<Volume>);

/// What a client is told. The log has the whole story.
fn failure(error: &Error) -> Failure {
    match error.kind() {
        ErrorKind::OutOfRange | ErrorKind::Invalid => Failure::Invalid,
        ErrorKind::ReadOnly => Failure::ReadOnly,
        ErrorKind::Closed => Failure::ShuttingDown,
        ErrorKind::Full => Failure::NoSpace,
        ErrorKind::Fenced
        | ErrorKind::InUse
        | ErrorKind::NotFound
        | ErrorKind::Exists
        | ErrorKind::Unavailable
        | ErrorKind::Corrupt
        | ErrorKind::Failed => Failure::Io,
    }
}

/// A change under way. Its client usually sends the next request soon after, and its SSD operation
/// is short.
fn change(work: impl Future<Output = Result<(), Error>> + Send + 'static) -> Outcome<()> {
    polling::expect_more();
    Outcome::Pending(Box::pin(async move {
        let result = work.await;
        polling::expect_more();
        result.map_err(|error| failure(&error))
    }))
}

impl Export for VolumeExport {
    fn info(&self) -> ExportInfo {
        let sizes = BlockSizes::new(self.0.sector_bytes(), PREFERRED_BYTES, limits::PAYLOAD_MAX);
        ExportInfo {
            name: self.0.name().to_owned(),
            description: format!("LSVD image {}", self.0.image()),
            size: self.0.size_bytes(),
            block_sizes: sizes.expect("512 and 4096 are allowed by the protocol"),
            read_only: false,
            rotational: false,
            fast_zero: true,
            multi_conn: true,
        }
    }

    fn read(&self, offset: u64, len: u32) -> Outcome<Bytes> {
        polling::expect_more();
        if let Some(data) = self.0.try_read(offset, len.into()) {
            return Outcome::Ready(Ok(data));
        }
        let volume = Arc::clone(&self.0);
        Outcome::Pending(Box::pin(async move {
            volume.read(offset, len.into()).await.map_err(|error| {
                tracing::error!(
                    image = volume.name(),
                    offset,
                    len,
                    error = error.report(),
                    "read failed"
                );
                failure(&error)
            })
        }))
    }

    fn write(&self, offset: u64, data: Bytes, fua: bool) -> Outcome<()> {
        let volume = Arc::clone(&self.0);
        change(async move { volume.write(offset, data, fua).await.map(drop) })
    }

    fn flush(&self) -> Outcome<()> {
        let volume = Arc::clone(&self.0);
        change(async move { volume.flush().await.map(drop) })
    }

    fn trim(&self, offset: u64, len: u32, fua: bool) -> Outcome<()> {
        let volume = Arc::clone(&self.0);
        change(async move { volume.discard(offset, len.into(), fua).await.map(drop) })
    }

    fn write_zeroes(&self, offset: u64, len: u32, fua: bool, _no_hole: bool) -> Outcome<()> {
        // A log has no place to reserve: a later write takes new space in any case.
        self.trim(offset, len, fua)
    }

    fn block_status(&self, offset: u64, len: u32, extents_max: usize) -> Outcome<Vec<Extent>> {
        let parts = self.0.allocation(offset, len.into(), extents_max);
        let extents = parts.map(|parts| {
            let extent = |part: lsvd_engine::Allocation| Extent {
                len: part.range.len.bytes_usize() as u64,
                hole: part.hole,
                zero: part.hole,
            };
            parts.into_iter().map(extent).collect()
        });
        Outcome::Ready(extents.map_err(|error| failure(&error)))
    }
}
