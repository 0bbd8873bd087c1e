//! Every limit of the NVMe/TCP front end, each with its reason.
//!
//! Together they bound what one connection can pin: `PAYLOAD_IN_FLIGHT_MAX` of payload, plus one
//! receive buffer for each of `QUEUE_DEPTH_MAX` in-capsule writes that still refer to one, plus
//! `REPLIES_GATE` and one reply. All connections together share `PAYLOAD_SHARED_MAX` of payload. A
//! connection that has not connected a queue holds one small
//! receive buffer. A peer that sends and never reads gets no further.

use std::time::Duration;

/// Entries of an I/O or admin submission queue (MQES + 1), which is one more than the commands that
/// a connection may have in flight. Linux asks for 128 unless told otherwise.
pub const QUEUE_DEPTH_MAX: u16 = 128;

/// Entries that an admin queue has in any case: the fewest that a discovery log may promise (base
/// 2.0, 5.16.1.23).
pub(crate) const ADMIN_QUEUE_DEPTH_MIN: u16 = 32;

/// I/O queues of one controller. Linux asks for one per CPU.
pub const IO_QUEUES_MAX: u16 = 64;

/// Longest data transfer of one command, in bytes (MDTS). Linux sends 1280 KiB if it may; 1 MiB
/// keeps several commands inside `PAYLOAD_IN_FLIGHT_MAX`.
pub const TRANSFER_MAX: u32 = 1 << 20;

/// `TRANSFER_MAX` as Identify Controller wants it: a power of two of 4096 bytes.
pub(crate) const MDTS: u8 = (TRANSFER_MAX / 4096).ilog2() as u8;

/// Longest data inside an I/O capsule, in bytes, unless the target is set up otherwise. 8 KiB, like
/// SPDK: a 4 KiB write saves the round trip of its R2T.
pub const IN_CAPSULE_DEFAULT: u32 = 8 << 10;

/// Largest in-capsule size that the target can be set to, in bytes. A capsule must fit into the
/// receive buffer as a whole.
pub const IN_CAPSULE_MAX: u32 = 64 << 10;

/// In-capsule data of admin and Fabrics commands, in bytes: what NVMe/TCP grants them, whatever
/// IOCCSZ says, and what Linux relies on.
pub const ADMIN_IN_CAPSULE_MAX: u32 = 8 << 10;

/// Longest data of one H2CData PDU (MAXH2CDATA), in bytes. The buffer of a write is there as a whole
/// before its R2T is sent, so that one PDU may fill it.
pub(crate) const H2C_DATA_MAX: u32 = TRANSFER_MAX;

/// Payload bytes in flight on one connection: writes that are to arrive, reads under way, replies
/// that wait for the socket. Further commands wait until there is room.
pub const PAYLOAD_IN_FLIGHT_MAX: usize = 16 << 20;

/// Payload bytes that all connections may have in flight together, as far as that leaves each queue
/// `TRANSFER_MAX`: with more than 16 queues each has its share of this. Nobody gives back what it
/// holds when a queue is added, so what is held can exceed this for as long as peers do not read:
/// with N queues by a factor of 1 + ln(N / 16) at most.
pub const PAYLOAD_SHARED_MAX: usize = 256 << 20;

/// With this many bytes of replies waiting, they are sent before the next command is taken: they
/// are still in the CPU's cache, and a peer that is slow to read holds less.
pub(crate) const REPLIES_GATE: usize = 256 << 10;

/// One receive buffer, in bytes: 31 in-capsule writes of 4 KiB.
pub const RECEIVE_BYTES: usize = 128 << 10;

/// Receive buffer of a connection that has not connected a queue yet, in bytes: ICReq and Connect.
pub(crate) const RECEIVE_BYTES_CONNECTING: usize = 4 << 10;

/// With less free space than this the receive buffer is rewound or replaced, so that the last bytes
/// of a buffer do not cause a burst of tiny reads.
pub(crate) const RECEIVE_SPARE_MIN: usize = 16 << 10;

/// H2CData PDUs with at least this much data left go straight from the socket to the buffer of
/// their command; for less, the copy out of the receive buffer costs less than a system call.
pub(crate) const DIRECT_RECEIVE_MIN: usize = 16 << 10;

/// First read after a payload that went straight to its buffer. Such writes come in rows; a short
/// read leaves the next payload in the socket, from where it goes to its own buffer without a copy.
pub(crate) const RECEIVE_AFTER_LARGE: usize = 512;

/// Slices in one vectored write. `IOV_MAX` is 1024; this array lives on the stack.
pub(crate) const SLICES_MAX: usize = 256;

/// Asynchronous Event Requests that a controller holds (AERL + 1): Linux uses one, SPDK four.
pub(crate) const ASYNC_EVENTS_MAX: usize = 4;

/// Commands that the host may ask to abort at once (ACL + 1). Aborts are answered at once.
pub(crate) const ABORTS_MAX: u8 = 4;

/// Namespace IDs go from 1 to this; also the most namespaces that a subsystem may be set up for.
pub const NAMESPACES_MAX: u32 = 1024;

/// Controllers of one subsystem at a time. More hosts are told to come back later.
pub const CONTROLLERS_MAX: usize = 1024;

/// Entries of the changed namespace list (base 2.0, 5.16.1.5); beyond it the list says "all".
pub(crate) const CHANGED_NAMESPACES_MAX: usize = 1024;

/// Entries that the error log keeps (ELPE + 1).
pub(crate) const ERROR_LOG_MAX: usize = 64;

/// Allowed hosts, and listeners, of one subsystem. The discovery log has an entry for each listener.
pub const HOSTS_MAX: usize = 1024;
/// See [`HOSTS_MAX`].
pub const LISTENERS_MAX: usize = 64;

/// The ANA group that all namespaces of a subsystem are in, which is also the number of groups: a
/// path is good or bad for the gateway as a whole, and another gateway that shows the same namespace
/// has to name the same group.
pub(crate) const ANA_GROUP: u32 = 1;

/// ANA Transition Time (ANATT), in seconds. A state changes at once; hosts wait this long for a path
/// that is to become accessible.
pub(crate) const ANA_TRANSITION_S: u8 = 10;

/// Subsystems of one target, so that the discovery log stays below 64 MiB.
pub const SUBSYSTEMS_MAX: usize = 1024;

/// Longest time that a controller takes to get ready or to shut down (CAP.TO, CRTO), in units of
/// 500 ms. Both are done at once here; hosts wait this long before they give up.
pub(crate) const READY_TIMEOUT_500MS: u8 = 20;

/// Keep Alive granularity (KAS), in units of 100 ms.
pub(crate) const KEEP_ALIVE_GRANULARITY: u16 = 10;

/// A peer has this long from its connection to the end of a successful Connect command.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// After the last command was taken the peer has this long to read its replies.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// After the last reply the peer has this long to close its side. Closing first, with bytes unread
/// in the socket, would reset the connection and could destroy replies and termination PDUs.
pub(crate) const LINGER_MAX: Duration = Duration::from_secs(1);

const _: () = assert!(PAYLOAD_IN_FLIGHT_MAX >= 2 * TRANSFER_MAX as usize);
const _: () = assert!(ADMIN_QUEUE_DEPTH_MIN <= QUEUE_DEPTH_MAX);
const _: () = assert!(1 << (MDTS + 12) == TRANSFER_MAX);
// A capsule must fit into the receive buffer, or it would never be complete.
const _: () = assert!(RECEIVE_BYTES >= IN_CAPSULE_MAX as usize + RECEIVE_SPARE_MIN);
const _: () = assert!(IN_CAPSULE_MAX >= ADMIN_IN_CAPSULE_MAX);
const _: () = assert!(RECEIVE_BYTES_CONNECTING >= 128 + 72 + 1024);
