//! How a connection fails.

use std::io;

use crate::limits::{DRAIN_MAX, HANDSHAKE_MAX};

/// Why a connection ended before its time. Requests that fail are answered and are no errors here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer broke the protocol in a way that no reply can repair.
    #[error("peer broke the protocol")]
    Violation(#[from] Violation),
    /// Reading or writing failed.
    #[error("socket failed")]
    Socket(#[from] io::Error),
    /// The peer hung up in the middle of a message.
    #[error("peer hung up in the middle of a message")]
    Truncated,
    /// The peer took too long to choose an export.
    #[error("handshake took longer than {HANDSHAKE_MAX:?}")]
    HandshakeTimeout,
    /// The connection was to close, and the peer did not read its replies.
    #[error("peer did not read its replies within {DRAIN_MAX:?}")]
    Stalled,
}

/// What a peer did that forces a hard disconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A request did not start with NBD_REQUEST_MAGIC.
    #[error("request starts with {found:#010x}")]
    RequestMagic {
        /// The first four bytes.
        found: u32,
    },
    /// An option did not start with "IHAVEOPT".
    #[error("option starts with {found:#018x}")]
    OptionMagic {
        /// The first eight bytes.
        found: u64,
    },
    /// Client flags that we did not offer ("Client flags").
    #[error("unknown client flags {found:#010x}")]
    ClientFlags {
        /// All client flags.
        found: u32,
    },
    /// Any option but NBD_OPT_EXPORT_NAME from a client without fixed newstyle.
    #[error("option {number} from a client without fixed newstyle")]
    NotFixedNewstyle {
        /// The option's number.
        number: u32,
    },
    /// Option data longer than is worth skipping.
    #[error("option {number} has {len} bytes of data")]
    OptionLength {
        /// The option's number.
        number: u32,
        /// Bytes.
        len: u32,
    },
    /// NBD_OPT_EXPORT_NAME for an export that we do not have; it knows no error reply.
    #[error("unknown export asked for by NBD_OPT_EXPORT_NAME")]
    UnknownExport,
}
