//! What the server needs from a disk. The server owns these traits; the gateway implements them.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::limits::PAYLOAD_MAX;

/// The exports that clients can ask for by name.
pub trait Exports: Send + Sync {
    /// Names of all exports, for NBD_OPT_LIST. At most 4096 bytes each.
    fn list(&self) -> Vec<String>;

    /// The export called `name`, or `None` if there is none or it is not available.
    ///
    /// The server asks for the empty name only if an export is called so; otherwise the empty name
    /// means the only export, if there is exactly one.
    fn open(&self, name: &str) -> Option<Arc<dyn Export>>;
}

/// A disk as the server sees it. Offsets and lengths are in bytes.
///
/// The server has checked every range against [`ExportInfo`] before it calls: inside the export,
/// aligned to the minimum block size, not empty, no longer than the maximum payload for `read` and
/// `write`, and no change to a read-only export. Calls come from the connection's task and must
/// not block it. Several may be under way at once, in any order.
pub trait Export: Send + Sync {
    /// Facts that stay the same while the export is open. Asked once per handshake.
    fn info(&self) -> ExportInfo;

    /// Exactly `len` bytes from `offset`.
    fn read(&self, offset: u64, len: u32) -> Outcome<Bytes>;

    /// Stores `data` at `offset`; with `fua`, durably so before success is reported.
    ///
    /// `data` may be a slice of a receive buffer of [`RECEIVE_BYTES`](crate::limits::RECEIVE_BYTES)
    /// that it keeps alive: copy it to hold it beyond the operation.
    fn write(&self, offset: u64, data: Bytes, fua: bool) -> Outcome<()>;

    /// Succeeds once every write, trim and zeroing that had succeeded before this call, on any
    /// connection, is durable.
    fn flush(&self) -> Outcome<()>;

    /// Gives up the range's contents. `len` can be up to `u32::MAX`.
    fn trim(&self, offset: u64, len: u32, fua: bool) -> Outcome<()>;

    /// Makes the range read as zeros; with `no_hole`, space for later writes is to stay reserved.
    /// `len` can be up to `u32::MAX`.
    fn write_zeroes(&self, offset: u64, len: u32, fua: bool, no_hole: bool) -> Outcome<()>;

    /// What the range holds, as consecutive extents from `offset` on. At most `extents_max` of them
    /// are used (1 if the client wants only one), so that there is no need to look further; they
    /// may cover less than `len`, but not nothing.
    fn block_status(&self, offset: u64, len: u32, extents_max: usize) -> Outcome<Vec<Extent>>;

    /// The client is going to read the range soon. A hint; doing nothing is right, too.
    fn cache(&self, _offset: u64, _len: u32) -> Outcome<()> {
        Outcome::Ready(Ok(()))
    }
}

/// A boxed operation. It owns what it needs, and any thread may poll it.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The outcome of an operation, now or later.
///
/// What is known at once takes no allocation and no task. A pending operation is polled by the
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

/// Why an operation failed, as far as a client can tell the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The request makes no sense for this export. NBD_EINVAL.
    #[error("invalid request")]
    Invalid,
    /// No space for a write. NBD_ENOSPC.
    #[error("no space left")]
    NoSpace,
    /// The data could not be read or stored. NBD_EIO.
    #[error("input or output error")]
    Io,
    /// The export does not take changes. NBD_EPERM.
    #[error("export is read-only")]
    ReadOnly,
    /// The server is going away; the client should disconnect. NBD_ESHUTDOWN.
    #[error("server is shutting down")]
    ShuttingDown,
    /// Beyond the end of the export. NBD_ENOSPC for writes and zeroing, else NBD_EINVAL.
    #[error("beyond the end of the export")]
    OutOfRange,
}

/// A run of bytes in one state, for BLOCK_STATUS (`base:allocation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes; a multiple of the minimum block size.
    pub len: u64,
    /// Nothing is stored for this run (NBD_STATE_HOLE).
    pub hole: bool,
    /// The run reads as zeros (NBD_STATE_ZERO).
    pub zero: bool,
}

/// Facts about an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// The name by which clients should call it, at most 4096 bytes.
    pub name: String,
    /// One line for people, at most 4096 bytes; may be empty.
    pub description: String,
    /// Bytes. A multiple of the minimum block size, or the end cannot be reached.
    pub size: u64,
    /// Sizes that requests must keep to.
    pub block_sizes: BlockSizes,
    /// Changes are refused before they reach the export.
    pub read_only: bool,
    /// Seeks cost time.
    pub rotational: bool,
    /// `write_zeroes` without `no_hole` is faster than writing zeros.
    pub fast_zero: bool,
    /// A flush on one connection covers writes done on another.
    pub multi_conn: bool,
}

/// The three sizes of NBD_INFO_BLOCK_SIZE, checked against the protocol's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    minimum: u32,
    preferred: u32,
    payload_max: u32,
}

impl BlockSizes {
    /// Sizes in bytes, or `None` if the protocol forbids them ("Size constraints").
    ///
    /// `minimum` is a power of two of at most 64 KiB; `preferred` a power of two of at least
    /// `minimum` and 512 bytes; `payload_max` a multiple of `minimum` of at least `preferred` and
    /// at most [`PAYLOAD_MAX`].
    #[must_use]
    pub const fn new(minimum: u32, preferred: u32, payload_max: u32) -> Option<Self> {
        let valid = minimum.is_power_of_two()
            && minimum <= 1 << 16
            && preferred.is_power_of_two()
            && preferred >= minimum
            && preferred >= 512
            && payload_max >= preferred
            && payload_max <= PAYLOAD_MAX
            && payload_max.is_multiple_of(minimum);
        if valid { Some(Self { minimum, preferred, payload_max }) } else { None }
    }

    /// Unit of offsets and lengths, in bytes.
    #[must_use]
    pub const fn minimum(self) -> u32 {
        self.minimum
    }

    /// Smallest size without read-modify-write, in bytes.
    #[must_use]
    pub const fn preferred(self) -> u32 {
        self.preferred
    }

    /// Longest READ or WRITE, in bytes.
    #[must_use]
    pub const fn payload_max(self) -> u32 {
        self.payload_max
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn block_sizes_follow_the_rules_of_the_protocol() {
        let sizes = BlockSizes::new(512, 4096, PAYLOAD_MAX).unwrap();
        assert_eq!((sizes.minimum(), sizes.preferred()), (512, 4096));
        assert_eq!(sizes.payload_max(), 32 << 20);
        assert!(BlockSizes::new(1, 512, 1 << 20).is_some());

        assert!(BlockSizes::new(0, 4096, 1 << 20).is_none());
        assert!(BlockSizes::new(3, 4096, 3 << 20).is_none());
        assert!(BlockSizes::new(1 << 17, 1 << 17, 1 << 20).is_none());
        assert!(BlockSizes::new(1, 256, 1 << 20).is_none());
        assert!(BlockSizes::new(4096, 512, 1 << 20).is_none());
        assert!(BlockSizes::new(512, 4096, 2048).is_none());
        assert!(BlockSizes::new(512, 4096, 4097).is_none());
        assert!(BlockSizes::new(512, 4096, PAYLOAD_MAX + 512).is_none());
    }
}
