//! A disk in memory that remembers what was asked of it, can lose what was not synced, fail, and
//! hold back.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use super::PAGE;
use crate::disk::{AlignedBuf, Disk, DiskFuture};

#[derive(Debug)]
pub(super) struct TestDisk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    bytes: Vec<u8>,
    /// Pages as they were before each write since the last sync.
    unsynced: Vec<(usize, Vec<u8>)>,
    reads: Vec<(u64, usize)>,
    writes: Vec<(u64, usize)>,
    fails_reads: bool,
    fails_writes: bool,
    holds_reads: bool,
    holds_writes: bool,
    held: Vec<Waker>,
    ids: u128,
}

impl TestDisk {
    pub(super) fn zeroed(len: u64) -> Arc<Self> {
        let bytes = vec![0; usize::try_from(len).expect("small")];
        Arc::new(Self(Arc::new(Mutex::new(Inner { bytes, ..Inner::default() }))))
    }

    /// An identity that was never used on this disk.
    pub(super) fn fresh_id(&self) -> u128 {
        let mut inner = self.0.lock();
        inner.ids += 1;
        inner.ids
    }

    /// Where `needle` begins, at a page boundary.
    pub(super) fn find(&self, needle: &[u8]) -> Option<usize> {
        let inner = self.0.lock();
        (0..inner.bytes.len()).step_by(PAGE).find(|at| inner.bytes[*at..].starts_with(needle))
    }

    pub(super) fn edit(&self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.0.lock().bytes);
    }

    /// Takes back every page written since the last sync of which `keep` does not say otherwise.
    pub(super) fn lose_power(&self, mut keep: impl FnMut() -> bool) {
        let mut inner = self.0.lock();
        while let Some((at, before)) = inner.unsynced.pop() {
            if !keep() {
                inner.bytes[at..at + PAGE].copy_from_slice(&before);
            }
        }
    }

    pub(super) fn take_reads(&self) -> Vec<(u64, usize)> {
        std::mem::take(&mut self.0.lock().reads)
    }

    pub(super) fn take_writes(&self) -> Vec<(u64, usize)> {
        std::mem::take(&mut self.0.lock().writes)
    }

    pub(super) fn fail_reads(&self, fails: bool) {
        self.0.lock().fails_reads = fails;
    }

    pub(super) fn fail_writes(&self, fails: bool) {
        self.0.lock().fails_writes = fails;
    }

    pub(super) fn hold_reads(&self, holds: bool) {
        self.change_holding(|inner| inner.holds_reads = holds);
    }

    pub(super) fn hold_writes(&self, holds: bool) {
        self.change_holding(|inner| inner.holds_writes = holds);
    }

    fn change_holding(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.0.lock();
        change(&mut inner);
        inner.held.drain(..).for_each(Waker::wake);
    }

    /// Waits a turn, as a device would, and then as long as `holds` says.
    async fn turn(inner: &Mutex<Inner>, holds: fn(&Inner) -> bool) {
        tokio::task::yield_now().await;
        poll_fn(|context| {
            let mut inner = inner.lock();
            if holds(&inner) {
                inner.held.push(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}

fn place(offset: u64, len: usize) -> usize {
    let at = usize::try_from(offset).expect("small");
    assert!(at.is_multiple_of(PAGE) && len.is_multiple_of(PAGE) && len > 0, "{at} + {len}");
    at
}

impl Disk for TestDisk {
    fn len(&self) -> u64 {
        self.0.lock().bytes.len() as u64
    }

    fn write_at(&self, offset: u64, data: Bytes) -> DiskFuture<()> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let at = place(offset, data.len());
            Self::turn(&inner, |inner| inner.holds_writes).await;
            let inner = &mut *inner.lock();
            inner.writes.push((offset, data.len()));
            if inner.fails_writes {
                return Err(io::ErrorKind::StorageFull.into());
            }
            for (at, page) in (at..).step_by(PAGE).zip(data.chunks_exact(PAGE)) {
                let before = &mut inner.bytes[at..at + PAGE];
                inner.unsynced.push((at, before.to_vec()));
                before.copy_from_slice(page);
            }
            Ok(())
        })
    }

    fn write_durable_at(&self, _offset: u64, _data: Bytes) -> DiskFuture<()> {
        unreachable!("a cache makes nothing durable while it runs")
    }

    fn read_at(&self, offset: u64, len: usize) -> DiskFuture<AlignedBuf> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let at = place(offset, len);
            Self::turn(&inner, |inner| inner.holds_reads).await;
            let mut inner = inner.lock();
            inner.reads.push((offset, len));
            if inner.fails_reads {
                return Err(io::ErrorKind::Other.into());
            }
            let mut buf = AlignedBuf::with_capacity(len);
            buf.extend_from_slice(&inner.bytes[at..at + len]);
            Ok(buf)
        })
    }

    fn sync(&self) -> DiskFuture<()> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            inner.lock().unsynced.clear();
            Ok(())
        })
    }

    fn describe(&self) -> String {
        "test disk".to_owned()
    }
}
