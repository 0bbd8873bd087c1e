//! The adapter between a volume and the NVMe target: the only place where the two meet.

use std::sync::Arc;

use bytes::Bytes;
use lsvd_engine::{Error, ErrorKind, Volume};
use lsvd_nvmet::{ByteRange, Failure, LbaSize, Namespace, NamespaceInfo, Outcome};

use crate::polling;

/// An open volume as NVMe hosts see it.
#[derive(Debug)]
pub(crate) struct VolumeNamespace(pub(crate) Arc<Volume>);

/// What a host is told. The log has the whole story.
fn failure(error: &Error) -> Failure {
    match error.kind() {
        ErrorKind::OutOfRange | ErrorKind::Invalid => Failure::OutOfRange,
        ErrorKind::ReadOnly => Failure::ReadOnly,
        ErrorKind::Full => Failure::NoSpace,
        ErrorKind::Corrupt => Failure::Unrecovered,
        // Another gateway may have the image by now: the host is to look for it.
        ErrorKind::Closed | ErrorKind::Fenced => Failure::NotReady,
        ErrorKind::InUse
        | ErrorKind::NotFound
        | ErrorKind::Exists
        | ErrorKind::Unavailable
        | ErrorKind::Failed => Failure::Io,
    }
}

/// A change under way. Its host usually sends the next command soon after, and its SSD operation is
/// short.
fn change(work: impl Future<Output = Result<(), Error>> + Send + 'static) -> Outcome<()> {
    polling::expect_more();
    Outcome::Pending(Box::pin(async move {
        let result = work.await;
        polling::expect_more();
        result.map_err(|error| failure(&error))
    }))
}

impl Namespace for VolumeNamespace {
    fn info(&self) -> NamespaceInfo {
        let lba_size = if self.0.sector_bytes() == 512 { LbaSize::B512 } else { LbaSize::B4096 };
        NamespaceInfo {
            blocks: self.0.size_bytes() / u64::from(lba_size.bytes()),
            lba_size,
            uuid: self.0.image().0,
            nguid: None,
            read_only: false,
            is_ready: true,
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

    /// A log has no place to reserve: with or without `deallocate`, a later write takes new space.
    fn write_zeroes(&self, range: ByteRange, _deallocate: bool, fua: bool) -> Outcome<()> {
        let volume = Arc::clone(&self.0);
        change(async move { volume.discard(range.offset, range.len, fua).await.map(drop) })
    }

    fn deallocate(&self, ranges: Vec<ByteRange>) -> Outcome<()> {
        let volume = Arc::clone(&self.0);
        change(async move {
            for range in ranges {
                volume.discard(range.offset, range.len, false).await?;
            }
            Ok(())
        })
    }
}
