//! Every limit of the NBD front end, each with its reason.
//!
//! Together they bound what one connection can pin: `PAYLOAD_IN_FLIGHT_MAX` of payload, plus one
//! receive buffer for each of `REQUESTS_MAX` small writes that still refer to one, plus one reply
//! of extents for each request (4 MiB). A peer that sends and never reads gets no further.

use std::time::Duration;

/// Requests of one connection between their header and the last byte of their reply. 128 covers
/// the deepest queue that the Linux client uses by default; deeper queues wait in the socket.
pub const REQUESTS_MAX: usize = 128;

/// Longest payload of one READ or WRITE, in bytes. 32 MiB: the portable maximum of the protocol
/// document ("Size constraints").
pub const PAYLOAD_MAX: u32 = 32 << 20;

/// Payload bytes of all requests in flight on one connection, the write that is arriving included.
pub const PAYLOAD_IN_FLIGHT_MAX: u64 = 64 << 20;

/// The next request is taken while no more than this is in flight. One request below the maximum:
/// the length of the next request is not known before its header is taken.
pub(crate) const PAYLOAD_GATE: u64 = PAYLOAD_IN_FLIGHT_MAX - PAYLOAD_MAX as u64;

/// With this many bytes of replies waiting, they are sent before the next request is taken: they
/// are still in the CPU's cache, and a peer that is slow to read holds less.
pub(crate) const REPLIES_GATE: usize = 256 << 10;

/// Write payloads from here on get a buffer of their own, filled straight from the socket: beyond
/// 64 KiB the copy out of the receive buffer costs more than one more system call.
pub(crate) const LARGE_PAYLOAD: u32 = 64 << 10;

/// One receive buffer, in bytes: 31 writes of 4 KiB, or some 4600 requests without payload.
pub const RECEIVE_BYTES: usize = 128 << 10;

/// With less free space than this the receive buffer is rewound or replaced, so that the last bytes
/// of a buffer do not cause a burst of tiny reads.
pub(crate) const RECEIVE_SPARE_MIN: usize = 16 << 10;

/// First read after a large payload. Such writes come in rows; a short read leaves the next payload
/// in the socket, from where it goes to its own buffer without a copy.
pub(crate) const RECEIVE_AFTER_LARGE: usize = 512;

/// Longest option data that is looked at. A name takes at most 4 KiB; the rest is for queries.
pub(crate) const OPTION_BYTES_MAX: u32 = 32 << 10;

/// Longest option data that is skipped and refused with an answer; beyond it the peer is not
/// speaking NBD and is disconnected.
pub(crate) const OPTION_SKIP_MAX: u32 = 1 << 20;

/// Longest string of the protocol, in bytes (protocol document, "Values").
pub(crate) const NAME_BYTES_MAX: usize = 4096;

/// Extents in one reply to BLOCK_STATUS: 32 KiB of reply. The client asks again for the rest.
pub const EXTENTS_MAX: usize = 4096;

/// Slices in one vectored write: 64 replies with payload. `IOV_MAX` is 1024; this array lives on
/// the stack.
pub(crate) const SLICES_MAX: usize = 128;

/// A client has this long to finish option haggling.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// After the last request was taken the peer has this long to read its replies.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// After the last reply the peer has this long to close its side. Closing first, with requests
/// unread in the socket, would reset the connection and could destroy replies under way.
pub(crate) const LINGER_MAX: Duration = Duration::from_secs(1);

const _: () = assert!(PAYLOAD_IN_FLIGHT_MAX >= 2 * PAYLOAD_MAX as u64);
// A small payload and its header must fit into the receive buffer, or it would never be complete.
const _: () = assert!(RECEIVE_BYTES >= LARGE_PAYLOAD as usize + RECEIVE_SPARE_MIN);
const _: () = assert!(OPTION_BYTES_MAX as usize >= NAME_BYTES_MAX + 1024);
const _: () = assert!(OPTION_SKIP_MAX > OPTION_BYTES_MAX);
