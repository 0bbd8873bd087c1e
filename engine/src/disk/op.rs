//! One operation on an open file: it owns its file, memory and reply from start to end.
//!
//! Does not: choose how it is executed. The ring and the blocking threads both start a round, feed
//! its outcome to [`Op::advance`], and go on until that says it is over.
//! Invariants: 1. Progress is counted in whole pages, so that each round is again fit for direct
//! I/O. 2. The memory of a round does not move and is not freed before the outcome is known: both
//! kinds of buffer keep their bytes on the heap.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::ReadWriteFlags;
use tokio::sync::oneshot;

use super::{AlignedBuf, BufPool, DiskFuture, PAGE, Refused};

/// Bytes of one round. The kernel takes at most 2 GiB less a page at once and a ring entry has 32
/// bits for it; half of that leaves no corner case.
const ROUND_BYTES_MAX: usize = 1 << 30;

/// A file that is locked as long as this lives.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

type Reply<T> = oneshot::Sender<io::Result<T>>;

pub(super) struct Op {
    file: Arc<OpenFile>,
    offset: u64,
    /// Bytes transferred by earlier rounds.
    done: usize,
    task: Task,
}

enum Task {
    Write { data: Bytes, durable: bool, reply: Reply<()> },
    Read { len: usize, pool: BufPool, buf: AlignedBuf, reply: Reply<AlignedBuf> },
    Sync { reply: Reply<()> },
}

/// What the next round asks of the kernel. Offsets in bytes of the file.
pub(super) enum Round<'a> {
    Write { offset: u64, data: &'a [u8], durable: bool },
    Read { offset: u64, into: &'a mut [u8] },
    Sync,
}

/// What failed, for the log of whoever handles it; the kind stays that of the cause.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {len} bytes at {offset} of {}", path.display())]
struct OpFailed {
    verb: &'static str,
    len: usize,
    offset: u64,
    path: PathBuf,
    source: io::Error,
}

impl Op {
    pub(super) fn write(
        file: Arc<OpenFile>,
        offset: u64,
        data: Bytes,
        durable: bool,
    ) -> (Self, DiskFuture<()>) {
        let (reply, outcome) = reply();
        (Self { file, offset, done: 0, task: Task::Write { data, durable, reply } }, outcome)
    }

    pub(super) fn read(
        file: Arc<OpenFile>,
        offset: u64,
        len: usize,
        pool: BufPool,
    ) -> (Self, DiskFuture<AlignedBuf>) {
        let (reply, outcome) = reply();
        let task = Task::Read { len, pool, buf: AlignedBuf::default(), reply };
        (Self { file, offset, done: 0, task }, outcome)
    }

    pub(super) fn sync(file: Arc<OpenFile>) -> (Self, DiskFuture<()>) {
        let (reply, outcome) = reply();
        (Self { file, offset: 0, done: 0, task: Task::Sync { reply } }, outcome)
    }

    pub(super) fn file(&self) -> &File {
        &self.file.file
    }

    /// The next round. A read takes its memory here, so that waiting operations have none.
    pub(super) fn round(&mut self) -> Round<'_> {
        let offset = self.offset + self.done as u64;
        match &mut self.task {
            Task::Write { data, durable, .. } => {
                let left = data.len() - self.done;
                let data = &data[self.done..][..left.min(ROUND_BYTES_MAX)];
                Round::Write { offset, data, durable: *durable }
            }
            Task::Read { len, pool, buf, .. } => {
                if buf.capacity() < *len {
                    *buf = pool.take(*len);
                }
                let left = *len - self.done;
                let into = &mut buf.spare_mut()[..left.min(ROUND_BYTES_MAX)];
                Round::Read { offset, into }
            }
            Task::Sync { .. } => Round::Sync,
        }
    }

    /// Takes the outcome of a round: bytes transferred, or the error. `None` if there is more to
    /// do, else what to [`Op::finish`] with.
    pub(super) fn advance(&mut self, outcome: io::Result<usize>) -> Option<io::Result<()>> {
        let transferred = match outcome {
            Ok(bytes) => bytes,
            // The kernel asks for another try. A log must not fail over a signal.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) =>
            {
                return None;
            }
            Err(error) => return Some(Err(error)),
        };
        let progress = transferred - transferred % PAGE;
        let len = match &mut self.task {
            Task::Sync { .. } => return Some(Ok(())),
            Task::Write { data, .. } => data.len(),
            Task::Read { len, buf, .. } => {
                buf.advance(progress);
                *len
            }
        };
        self.done += progress;
        assert!(self.done <= len, "the kernel transferred more than it was asked to");
        if self.done == len {
            Some(Ok(()))
        } else if progress == 0 {
            Some(Err(Refused::NoProgress.into()))
        } else {
            None
        }
    }

    /// Gives the outcome to whoever waits for it, if anyone does.
    ///
    /// File and memory are let go of first: whoever drops a disk after its last outcome may open
    /// it again at once.
    pub(super) fn finish(self, result: io::Result<()>) {
        let Self { file, offset, task, .. } = self;
        let (verb, len) = match &task {
            Task::Write { data, .. } => ("write", data.len()),
            Task::Read { len, .. } => ("read", *len),
            Task::Sync { .. } => ("sync", 0),
        };
        let result = result.map_err(|source| {
            let path = file.path.clone();
            io::Error::new(source.kind(), OpFailed { verb, len, offset, path, source })
        });
        drop(file);
        // A receiver that is gone had its future dropped, which is allowed at any time.
        match task {
            Task::Write { data, reply, .. } => {
                drop(data);
                drop(reply.send(result));
            }
            Task::Read { buf, reply, .. } => drop(reply.send(result.map(|()| buf))),
            Task::Sync { reply } => drop(reply.send(result)),
        }
    }

    /// Gives up without knowing whether the kernel still uses the memory, which is leaked.
    pub(super) fn abandon(self) {
        let lost = || io::Error::from(Refused::Dropped);
        match self.task {
            Task::Write { data, reply, .. } => {
                drop(reply.send(Err(lost())));
                Box::leak(Box::new(data));
            }
            Task::Read { buf, reply, .. } => {
                drop(reply.send(Err(lost())));
                Box::leak(Box::new(buf));
            }
            Task::Sync { reply } => drop(reply.send(Err(lost()))),
        }
    }

    /// Executes all rounds on this thread, and finishes.
    pub(super) fn run(mut self) {
        let result = loop {
            let open = Arc::clone(&self.file);
            let outcome = match self.round() {
                Round::Write { offset, data, durable } => {
                    let flags =
                        if durable { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
                    let data = [io::IoSlice::new(data)];
                    rustix::io::pwritev2(&open.file, &data, offset, flags).map_err(Into::into)
                }
                Round::Read { offset, into } => open.file.read_at(into, offset),
                Round::Sync => open.file.sync_data().map(|()| 0),
            };
            if let Some(result) = self.advance(outcome) {
                break result;
            }
        };
        self.finish(result);
    }
}

fn reply<T: Send + 'static>() -> (Reply<T>, DiskFuture<T>) {
    let (reply, outcome) = oneshot::channel();
    let outcome = async { outcome.await.unwrap_or_else(|_| Err(Refused::Dropped.into())) };
    (reply, Box::pin(outcome))
}

#[cfg(test)]
mod test {
    use super::*;

    fn file_of(pages: usize) -> Arc<OpenFile> {
        let file = tempfile::tempfile().unwrap();
        file.set_len((pages * PAGE) as u64).unwrap();
        Arc::new(OpenFile { file, path: "test".into() })
    }

    fn outcome<T>(mut future: DiskFuture<T>) -> io::Result<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(result) => result,
            std::task::Poll::Pending => panic!("the operation is not over"),
        }
    }

    #[test]
    fn a_short_transfer_goes_on_at_a_page_boundary() {
        let (mut op, done) = Op::write(file_of(3), 0, Bytes::from(vec![1; 3 * PAGE]), false);
        assert!(op.advance(Ok(PAGE + 512)).is_none());
        match op.round() {
            Round::Write { offset, data, .. } => {
                assert_eq!((offset, data.len()), (PAGE as u64, 2 * PAGE));
            }
            _ => panic!("a write became something else"),
        }
        op.run();
        outcome(done).unwrap();
    }

    #[test]
    fn a_device_that_stops_taking_bytes_is_an_error() {
        let (mut op, done) = Op::write(file_of(1), 0, Bytes::from(vec![1; PAGE]), false);
        let result = op.advance(Ok(512)).unwrap();
        op.finish(result);
        assert_eq!(outcome(done).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_file_that_was_cut_off_gives_an_error_and_not_the_memory_of_an_earlier_read() {
        let (op, done) = Op::read(file_of(1), 0, 2 * PAGE, BufPool::default());
        op.run();
        assert_eq!(outcome(done).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_interrupted_round_is_tried_again() {
        let (mut op, done) = Op::sync(file_of(1));
        assert!(op.advance(Err(io::ErrorKind::Interrupted.into())).is_none());
        op.run();
        outcome(done).unwrap();
    }

    #[test]
    fn an_error_names_the_file_the_range_and_the_cause() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let full = Arc::new(OpenFile { file: full, path: "/dev/full".into() });
        let (op, done) = Op::write(full, PAGE as u64, Bytes::from(vec![1; PAGE]), false);
        op.run();
        let error = outcome(done).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(error.to_string(), "write 4096 bytes at 4096 of /dev/full");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("No space left"), "{cause}");
    }
}
