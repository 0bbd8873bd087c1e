//! Disks in memory, for unit tests of what stands on a disk.
//!
//! Does not: lose anything. What a crash leaves of unsynced writes is the simulator's subject.
//! Concurrency: an operation happens while it is started, in the order of the calls.

use std::collections::BTreeMap;
use std::fmt;
use std::future::ready;
use std::io;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::{AlignedBuf, Disk, DiskDir, DiskFuture, Refused, check_len, check_name, check_range};

/// A disk in memory. Clones share the bytes; [`MemDir`] hands out one handle at a time.
#[derive(Clone)]
pub struct MemDisk(Arc<RwLock<Vec<u8>>>);

impl MemDisk {
    /// A disk of `len` zero bytes.
    ///
    /// # Panics
    /// If `len` is not a multiple of a page, is zero, or does not fit in memory.
    #[must_use]
    pub fn new(len: u64) -> Self {
        assert_eq!(check_len(len), Ok(()));
        let len = usize::try_from(len).expect("a disk in memory fits the address space");
        Self(Arc::new(RwLock::new(vec![0; len])))
    }

    /// The start of a checked range, as an index.
    fn check(&self, offset: u64, len: usize) -> io::Result<usize> {
        check_range(self.len(), offset, len)?;
        Ok(usize::try_from(offset).expect("it lies in the disk, which is in memory"))
    }
}

impl Disk for MemDisk {
    fn len(&self) -> u64 {
        self.0.read().len() as u64
    }

    fn write_at(&self, offset: u64, data: Bytes) -> DiskFuture<()> {
        let written = self.check(offset, data.len()).map(|start| {
            self.0.write()[start..][..data.len()].copy_from_slice(&data);
        });
        Box::pin(ready(written))
    }

    fn write_durable_at(&self, offset: u64, data: Bytes) -> DiskFuture<()> {
        self.write_at(offset, data)
    }

    fn read_at(&self, offset: u64, len: usize) -> DiskFuture<AlignedBuf> {
        let read = self.check(offset, len).map(|start| {
            let mut buf = AlignedBuf::with_capacity(len);
            buf.extend_from_slice(&self.0.read()[start..][..len]);
            buf
        });
        Box::pin(ready(read))
    }

    fn sync(&self) -> DiskFuture<()> {
        Box::pin(ready(Ok(())))
    }

    fn describe(&self) -> String {
        format!("memory, {} bytes", self.len())
    }
}

impl fmt::Debug for MemDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemDisk").field("len", &self.len()).finish()
    }
}

/// A directory of [`MemDisk`]s.
#[derive(Debug, Default)]
pub struct MemDir {
    entries: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Debug)]
struct Entry {
    disk: MemDisk,
    /// The handle that is out, if it still is.
    handle: Weak<MemDisk>,
}

impl Entry {
    fn check_unused(&self) -> Result<(), Refused> {
        if self.handle.strong_count() == 0 { Ok(()) } else { Err(Refused::InUse) }
    }

    fn hand_out(&mut self) -> Arc<dyn Disk> {
        let handle = Arc::new(self.disk.clone());
        self.handle = Arc::downgrade(&handle);
        handle
    }
}

#[async_trait]
impl DiskDir for MemDir {
    async fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        check_name(name)?;
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(name) else { return Ok(None) };
        entry.check_unused()?;
        Ok(Some(entry.hand_out()))
    }

    async fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn Disk>> {
        check_name(name)?;
        check_len(len)?;
        let mut entries = self.entries.lock();
        if entries.contains_key(name) {
            return Err(Refused::Exists.into());
        }
        let mut entry = Entry { disk: MemDisk::new(len), handle: Weak::new() };
        let handle = entry.hand_out();
        entries.insert(name.to_owned(), entry);
        Ok(handle)
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        let mut entries = self.entries.lock();
        if !entries.contains_key(from) {
            return Err(Refused::Missing.into());
        }
        if from != to {
            entries.get(to).map_or(Ok(()), Entry::check_unused)?;
            let entry = entries.remove(from).expect("it was there under the same lock");
            entries.insert(to.to_owned(), entry);
        }
        Ok(())
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        let mut entries = self.entries.lock();
        entries.get(name).ok_or(Refused::Missing)?.check_unused()?;
        entries.remove(name);
        Ok(())
    }

    async fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.entries.lock().keys().cloned().collect())
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}
