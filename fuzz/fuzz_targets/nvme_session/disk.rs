//! A namespace whose operations are done when the input says so, in the order that it says.

use std::sync::Arc;

use bytes::Bytes;
use lsvd_nvmet::{ByteRange, Failure, LbaSize, Namespace, NamespaceInfo, Outcome, RamNamespace};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::Uuid;

/// Operations that wait for their end, oldest first.
type Waiting = Mutex<Vec<oneshot::Sender<Option<Failure>>>>;

pub struct Disk {
    pub ram: RamNamespace,
    is_deferred: bool,
    waiting: Arc<Waiting>,
}

impl Disk {
    pub fn new(id: u128, lba_size: LbaSize, blocks: u32, is_deferred: bool) -> Self {
        let ram = RamNamespace::new(Uuid::from_u128(id), lba_size, blocks);
        Self { ram, is_deferred, waiting: Arc::default() }
    }

    /// Ends one of the operations that wait, if there are any.
    pub fn complete(&self, which: usize, failure: Option<Failure>) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.is_empty() {
            return false;
        }
        let at = which % waiting.len();
        let operation = waiting.remove(at);
        drop(waiting);
        // A connection that was dropped does not wait for it any more.
        let _ = operation.send(failure);
        true
    }

    /// The operation is done at once; what becomes known later is its outcome.
    fn answer<T: Send + 'static>(&self, outcome: Outcome<T>) -> Outcome<T> {
        let Outcome::Ready(result) = outcome else { return outcome };
        if !self.is_deferred {
            return Outcome::Ready(result);
        }
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().push(sender);
        Outcome::Pending(Box::pin(async move {
            match receiver.await {
                Ok(Some(failure)) => Err(failure),
                Ok(None) | Err(_) => result,
            }
        }))
    }
}

impl Namespace for Disk {
    fn info(&self) -> NamespaceInfo {
        self.ram.info()
    }

    fn read(&self, offset: u64, len: u32) -> Outcome<Bytes> {
        self.answer(self.ram.read(offset, len))
    }

    fn write(&self, offset: u64, data: Bytes, fua: bool) -> Outcome<()> {
        self.answer(self.ram.write(offset, data, fua))
    }

    fn flush(&self) -> Outcome<()> {
        self.answer(self.ram.flush())
    }

    fn write_zeroes(&self, range: ByteRange, deallocate: bool, fua: bool) -> Outcome<()> {
        self.answer(self.ram.write_zeroes(range, deallocate, fua))
    }

    fn deallocate(&self, ranges: Vec<ByteRange>) -> Outcome<()> {
        self.answer(self.ram.deallocate(ranges))
    }
}
