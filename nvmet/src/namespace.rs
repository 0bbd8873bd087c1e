//! What the target needs from a disk. The target owns this trait; the gateway implements it.

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use uuid::Uuid;

use crate::wire::Status;

/// A disk as the target sees it. Offsets and lengths are in bytes.
///
/// The target has checked every range against [`NamespaceInfo`] before it calls: inside the
/// namespace, whole logical blocks, not empty, at most [`TRANSFER_MAX`](crate::limits::TRANSFER_MAX)
/// bytes for `read` and `write`, and no change to a read-only or unready namespace. A resize may
/// come between the check and the call, so an implementation checks the end again. Calls come from
/// the connections' tasks, on any thread, and must not block. Several may be under way at once, in
/// any order.
pub trait Namespace: Send + Sync {
    /// Facts as they are now. Asked for every command, so it must be cheap.
    fn info(&self) -> NamespaceInfo;

    /// Exactly `len` bytes from `offset`.
    fn read(&self, offset: u64, len: u32) -> Outcome<Bytes>;

    /// Stores `data` at `offset`; with `fua`, durably so before success is reported.
    ///
    /// `data` may be a slice of a receive buffer of [`RECEIVE_BYTES`](crate::limits::RECEIVE_BYTES)
    /// that it keeps alive: copy it to hold it beyond the operation.
    fn write(&self, offset: u64, data: Bytes, fua: bool) -> Outcome<()>;

    /// Succeeds once every change that had succeeded before this call, on any connection, is
    /// durable.
    fn flush(&self) -> Outcome<()>;

    /// Makes the range read as zeros; with `deallocate`, its space may be given up. With `fua`,
    /// durably so before success is reported.
    fn write_zeroes(&self, range: ByteRange, deallocate: bool, fua: bool) -> Outcome<()>;

    /// Gives up the contents of the ranges, at most 256 of them, which may overlap. They read as
    /// zeros afterwards: the target tells hosts so.
    fn deallocate(&self, ranges: Vec<ByteRange>) -> Outcome<()>;
}

/// A boxed operation. It owns what it needs, and any thread may poll it.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The outcome of an operation, now or later.
///
/// What is known at once takes no allocation and no task. A pending operation is polled by its
/// connection until it is done, even if the peer has gone; it is dropped only when the future of
/// [`serve`](crate::serve) is dropped.
pub enum Outcome<T> {
    /// Done.
    Ready(Result<T, Failure>),
    /// To be waited for.
    Pending(BoxFuture<Result<T, Failure>>),
}

impl<T> fmt::Debug for Outcome<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready(Ok(_)) => "Ready(Ok)",
            Self::Ready(Err(_)) => "Ready(Err)",
            Self::Pending(_) => "Pending",
        })
    }
}

/// A range of bytes; neither empty nor beyond `u64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Size of a logical block, the unit in which hosts address a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LbaSize {
    /// 512 bytes.
    B512,
    /// 4096 bytes.
    B4096,
}

impl LbaSize {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        1 << self.shift()
    }

    /// Binary logarithm of the bytes (LBADS).
    #[must_use]
    pub const fn shift(self) -> u8 {
        match self {
            Self::B512 => 9,
            Self::B4096 => 12,
        }
    }
}

/// Facts about a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Capacity in logical blocks.
    pub blocks: u64,
    /// Size of a logical block.
    pub lba_size: LbaSize,
    /// Identity for hosts, the same wherever the image is opened. Also the NGUID, unless there is
    /// one of its own.
    pub uuid: Uuid,
    /// NGUID, if it is to differ from the UUID.
    pub nguid: Option<[u8; 16]>,
    /// Changes are refused before they reach the namespace.
    pub read_only: bool,
    /// Commands are served. If not, hosts are told to come back later.
    pub is_ready: bool,
}

/// Why an operation failed, as far as a host can tell the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The data could not be read, and reading again will not help: it is damaged or gone.
    #[error("data cannot be read")]
    Unrecovered,
    /// The data could not be read or stored this time.
    #[error("input or output error")]
    Io,
    /// No space for a write. Space may come back.
    #[error("no space left")]
    NoSpace,
    /// The namespace does not take changes.
    #[error("namespace is read-only")]
    ReadOnly,
    /// Beyond the end of the namespace, which may just have shrunk.
    #[error("beyond the end of the namespace")]
    OutOfRange,
    /// Not yet, or not any more; another connection or a later try may succeed.
    #[error("namespace is not ready")]
    NotReady,
}

impl Failure {
    /// What the host is told; `reading` tells a failed read from a failed change. "Do Not Retry"
    /// only where a retry cannot help.
    pub(crate) fn status(self, reading: bool) -> Status {
        match self {
            Self::Unrecovered => Status::UNRECOVERED_READ_ERROR.dnr(),
            Self::Io if reading => Status::INTERNAL_ERROR,
            Self::Io => Status::WRITE_FAULT,
            Self::NoSpace => Status::CAPACITY_EXCEEDED,
            Self::ReadOnly => Status::NAMESPACE_WRITE_PROTECTED.dnr(),
            Self::OutOfRange => Status::LBA_OUT_OF_RANGE.dnr(),
            Self::NotReady => Status::NAMESPACE_NOT_READY,
        }
    }
}
