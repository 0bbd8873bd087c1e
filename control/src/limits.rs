//! Every limit of the control socket, each with its reason.
//!
//! Together they bound what one connection can hold: one request, its parsed form, and one answer.
//! A client that sends and never reads gets no further than its first answer.

use std::time::Duration;

/// Bytes of one request, white space before it left out. The receive buffer of SPDK.
pub const REQUEST_BYTES_MAX: usize = 256 << 10;

/// JSON values in one request: every name, every scalar, both ends of every array and object. As
/// many as SPDK decodes.
pub const REQUEST_VALUES_MAX: usize = 8192;

/// Arrays and objects inside of each other, as in SPDK, and below what our parser recurses into.
pub const NESTING_MAX: u32 = 64;

/// Bytes of an id as written, quotes included. As in SPDK.
pub const ID_BYTES_MAX: usize = 128;

/// Bytes of one answer, all answers of a batch together. As in SPDK; a few thousand namespaces
/// take one.
pub const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Clients at a time, as in SPDK. More wait in the socket's backlog.
pub const CONNECTIONS_MAX: usize = 64;

/// How long a client can wait for a volume to appear: it holds one of the places meanwhile.
pub const VOLUME_WAIT_MAX: Duration = Duration::from_secs(600);

/// Connections that the kernel keeps for us before they are accepted.
pub(crate) const BACKLOG: u32 = 128;

/// Bytes of a file with an image's settings; a full one has some hundred.
pub const SETTINGS_BYTES_MAX: u64 = 64 << 10;

/// Bytes that are read from a socket at once.
pub(crate) const READ_BYTES: usize = 4096;

const _: () = assert!(READ_BYTES < REQUEST_BYTES_MAX && NESTING_MAX <= u64::BITS);
