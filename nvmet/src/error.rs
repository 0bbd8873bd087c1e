//! How a connection fails.

use std::io;

use crate::limits::{DRAIN_MAX, HANDSHAKE_MAX};
use crate::wire::TermError;

/// Why a connection ended before its time. Commands that fail are answered and are no errors here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer broke the protocol; it was told so with a termination PDU.
    #[error("peer broke the protocol")]
    Violation(#[source] TermError),
    /// The peer says that we broke the protocol (H2CTermReq).
    #[error("peer ended the connection: fatal error status {status:#x}")]
    Terminated {
        /// Fatal Error Status (FES) of the PDU; 0, which is reserved, if the PDU was malformed.
        status: u16,
    },
    /// Reading or writing failed.
    #[error("socket failed")]
    Socket(#[from] io::Error),
    /// The peer hung up in the middle of a PDU.
    #[error("peer hung up in the middle of a PDU")]
    Truncated,
    /// The peer took too long to connect a queue.
    #[error("handshake took longer than {HANDSHAKE_MAX:?}")]
    HandshakeTimeout,
    /// The host was silent for longer than its keep alive timeout.
    #[error("host was silent for longer than its keep alive timeout of {timeout_ms} ms")]
    KeepAlive {
        /// Milliseconds.
        timeout_ms: u32,
    },
    /// The connection was to close, and the peer did not read its replies.
    #[error("peer did not read its replies within {DRAIN_MAX:?}")]
    Stalled,
}
