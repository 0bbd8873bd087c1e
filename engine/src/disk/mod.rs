//! The engine's view of a local SSD: a disk of bytes, and a directory of such disks.
//!
//! Does not: know what is stored. Log and cache bring their own formats and checksums.
//! Crash: what a completed `sync` covers is on the medium. Of everything else any subset of the
//! 512-byte pieces may be there, in any order, so a reader must be able to tell.
//! Concurrency: any thread may call; nothing is held over an await. [`FileDisk`] operations go
//! through the calling thread's io_uring if it has one (see [`ring`]), else through a few blocking
//! threads.

mod blocking;
mod file;
mod locked;
mod mem;
mod op;
pub mod ring;

#[cfg(test)]
mod conformance;

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use file::{FileDir, FileDisk};
pub use locked::IoMode;
pub use lsvd_buf::{AlignedBuf, BufPool, PAGE};

const _: () = assert!(PAGE as u64 == lsvd_common::units::PAGE_BYTES);
pub use mem::{MemDir, MemDisk};

/// Operations that wait in user space for one ring, or for one directory's blocking threads.
///
/// Admission bounds them far below; reaching this is our own mistake and gives `ResourceBusy`
/// instead of memory without end. A waiting operation takes about 150 bytes beside the data it
/// writes; memory to read into is taken only when a read starts.
pub const QUEUED_OPS_MAX: usize = 1 << 16;

/// The outcome of a disk operation. May be awaited on another thread than the one that started it.
pub type DiskFuture<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// A fixed number of bytes on a device, open exclusively.
///
/// Operations start when the method is called, not when the future is polled, and run to their end
/// even if the future is dropped: they own their memory. There is no order between operations in
/// flight together. Offsets and lengths are multiples of [`PAGE`]; anything else panics. A range
/// past the end gives `InvalidInput`.
pub trait Disk: Send + Sync + Debug {
    /// Length in bytes, a multiple of [`PAGE`].
    fn len(&self) -> u64;

    /// True if there is no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes all of `data` at byte `offset`.
    ///
    /// Completes when the device has the bytes, which is before they survive a power cut: see
    /// [`Disk::sync`]. After an error any part of the range may be old or new. `data` that does not
    /// start at a page boundary of memory is copied.
    fn write_at(&self, offset: u64, data: Bytes) -> DiskFuture<()>;

    /// As [`Disk::write_at`], but completes only when these bytes survive a power cut. Says nothing
    /// of other writes. One trip to the device where a write and a sync are two.
    fn write_durable_at(&self, offset: u64, data: Bytes) -> DiskFuture<()>;

    /// Reads exactly `len` bytes at byte `offset`.
    fn read_at(&self, offset: u64, len: usize) -> DiskFuture<AlignedBuf>;

    /// Makes all writes durable that completed before this was called. A write still in flight
    /// then may or may not be covered.
    ///
    /// After an error nothing is known of any write since the last success, and a later success
    /// does not cover them: the kernel reports lost pages once.
    fn sync(&self) -> DiskFuture<()>;

    /// What it is and how it is reached, for people.
    fn describe(&self) -> String;
}

/// Disks by name. A name is 1 to 200 bytes without `/` and NUL that does not start with a dot;
/// another name gives `InvalidInput`.
///
/// A disk that is open anywhere, in this process or another, is in use: opening, removing or
/// replacing it gives `ResourceBusy`. It stays in use until its last handle and operation is gone.
/// A change of names is durable when the method returns success.
#[async_trait]
pub trait DiskDir: Send + Sync + Debug {
    /// Opens the disk `name` exclusively; `None` if there is none.
    async fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>>;

    /// Makes a disk of `len` zero bytes (a multiple of [`PAGE`], not 0) and opens it.
    /// `AlreadyExists` if there is one, `StorageFull` if there is no room. After a crash or an
    /// error there is nothing, or the whole disk.
    async fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn Disk>>;

    /// Gives the disk `from` the name `to`, in one step that also removes a disk that was called
    /// `to`. Handles on `from` stay good. `NotFound` if there is no `from`.
    async fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes the disk `name`. `NotFound` if there is none.
    async fn remove(&self, name: &str) -> io::Result<()>;

    /// All names, sorted.
    async fn list(&self) -> io::Result<Vec<String>>;

    /// What it is and how it is reached, for people.
    fn describe(&self) -> String;
}

/// Why a name or a range was refused, or a disk is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("not a valid disk name")]
    Name,
    #[error("the length is not a multiple of a page, or zero")]
    Length,
    #[error("the range ends behind the end of the disk")]
    Range,
    #[error("in use by this or another process")]
    InUse,
    #[error("not a regular file")]
    NotAFile,
    #[error("there is a disk of this name")]
    Exists,
    #[error("no disk of this name")]
    Missing,
    #[error("{QUEUED_OPS_MAX} operations wait already")]
    QueueFull,
    #[error("the operation was dropped with the thread that ran it")]
    Dropped,
    #[error("the device transferred less than a page")]
    NoProgress,
    #[error("creation was given up")]
    GivenUp,
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        let kind = match refused {
            Refused::Name | Refused::Range => io::ErrorKind::InvalidInput,
            Refused::Length | Refused::NotAFile => io::ErrorKind::InvalidData,
            Refused::InUse | Refused::QueueFull => io::ErrorKind::ResourceBusy,
            Refused::Exists => io::ErrorKind::AlreadyExists,
            Refused::Missing => io::ErrorKind::NotFound,
            Refused::Dropped => io::ErrorKind::BrokenPipe,
            Refused::NoProgress => io::ErrorKind::UnexpectedEof,
            Refused::GivenUp => io::ErrorKind::Interrupted,
        };
        Self::new(kind, refused)
    }
}

/// Checks a range against the contract of [`Disk`].
fn check_range(disk_len: u64, offset: u64, len: usize) -> Result<(), Refused> {
    assert!(offset.is_multiple_of(PAGE as u64), "offset {offset} is not page aligned");
    assert!(len.is_multiple_of(PAGE), "length {len} is not whole pages");
    match offset.checked_add(len as u64) {
        Some(end) if end <= disk_len => Ok(()),
        _ => Err(Refused::Range),
    }
}

/// Checks a name against the contract of [`DiskDir`]: it must be safe as a file name, and the dot
/// is reserved for files under construction.
fn check_name(name: &str) -> Result<(), Refused> {
    let valid = (1..=200).contains(&name.len())
        && !name.starts_with('.')
        && !name.bytes().any(|byte| byte == b'/' || byte == 0);
    if valid { Ok(()) } else { Err(Refused::Name) }
}

/// Checks the length of a disk that is about to be made or was found.
fn check_len(len: u64) -> Result<(), Refused> {
    if len > 0 && len.is_multiple_of(PAGE as u64) { Ok(()) } else { Err(Refused::Length) }
}
