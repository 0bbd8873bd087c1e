//! A namespace in memory, for tests and benches: it forgets everything with the process.

use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;
use uuid::Uuid;

use crate::namespace::{ByteRange, Failure, LbaSize, Namespace, NamespaceInfo, Outcome};

/// A namespace in memory. Nothing is durable; flushes succeed because nothing would survive anyway.
#[derive(Debug)]
pub struct RamNamespace {
    info: RwLock<NamespaceInfo>,
    data: RwLock<Vec<u8>>,
}

impl RamNamespace {
    /// Zeros, `blocks` logical blocks of `lba_size`.
    #[must_use]
    pub fn new(uuid: Uuid, lba_size: LbaSize, blocks: u32) -> Self {
        let info = NamespaceInfo {
            blocks: u64::from(blocks),
            lba_size,
            uuid,
            nguid: None,
            read_only: false,
            is_ready: true,
        };
        let bytes = blocks as usize * lba_size.bytes() as usize;
        Self { info: RwLock::new(info), data: RwLock::new(vec![0; bytes]) }
    }

    /// Makes it longer or shorter; the target learns of it by
    /// [`Target::namespace_resized`](crate::Target::namespace_resized).
    pub fn resize(&self, blocks: u32) {
        let mut info = self.info.write();
        info.blocks = u64::from(blocks);
        self.data.write().resize(blocks as usize * info.lba_size.bytes() as usize, 0);
    }

    /// Refuses changes from now on, or takes them again.
    pub fn set_read_only(&self, read_only: bool) {
        self.info.write().read_only = read_only;
    }

    /// Serves commands from now on, or answers "not ready".
    pub fn set_ready(&self, is_ready: bool) {
        self.info.write().is_ready = is_ready;
    }

    fn fill_zero(&self, range: ByteRange) -> Result<(), Failure> {
        let mut data = self.data.write();
        let bytes = slice_range(range.offset, range.len, data.len())?;
        data[bytes].fill(0);
        Ok(())
    }
}

fn slice_range(offset: u64, len: u64, size: usize) -> Result<std::ops::Range<usize>, Failure> {
    let end = offset.checked_add(len).ok_or(Failure::OutOfRange)?;
    let end = usize::try_from(end).map_err(|_| Failure::OutOfRange)?;
    let start = usize::try_from(offset).map_err(|_| Failure::OutOfRange)?;
    if end <= size { Ok(start..end) } else { Err(Failure::OutOfRange) }
}

impl Namespace for RamNamespace {
    fn info(&self) -> NamespaceInfo {
        *self.info.read()
    }

    fn read(&self, offset: u64, len: u32) -> Outcome<Bytes> {
        let data = self.data.read();
        let bytes = slice_range(offset, u64::from(len), data.len());
        Outcome::Ready(bytes.map(|bytes| BytesMut::from(&data[bytes]).freeze()))
    }

    fn write(&self, offset: u64, data: Bytes, _fua: bool) -> Outcome<()> {
        let mut stored = self.data.write();
        let bytes = slice_range(offset, data.len() as u64, stored.len());
        Outcome::Ready(bytes.map(|bytes| stored[bytes].copy_from_slice(&data)))
    }

    fn flush(&self) -> Outcome<()> {
        Outcome::Ready(Ok(()))
    }

    fn write_zeroes(&self, range: ByteRange, _deallocate: bool, _fua: bool) -> Outcome<()> {
        Outcome::Ready(self.fill_zero(range))
    }

    fn deallocate(&self, ranges: Vec<ByteRange>) -> Outcome<()> {
        Outcome::Ready(ranges.into_iter().try_for_each(|range| self.fill_zero(range)))
    }
}
