//! What can go wrong between this initiator and a target.

use std::io;

use lsvd_nvmet::wire::Status;

/// Why a call failed. After anything but [`Error::Status`] and [`Error::QueueFull`] the queue is of
/// no further use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The target closed the connection between two PDUs.
    #[error("the target closed the connection")]
    Closed,
    /// The target ended the connection with a termination request.
    #[error("the target ended the connection: fatal error status {status:#x}, {info:#x}")]
    Terminated {
        /// Fatal Error Status (FES).
        status: u16,
        /// Fatal Error Information (FEI).
        info: u32,
    },
    /// The target broke a rule of the specification.
    #[error("the target broke the protocol: {0}")]
    Violation(#[from] Violation),
    /// The target completed a command with an error.
    #[error("the command failed: {0:?}")]
    Status(Status),
    /// As many commands are outstanding as the queue has entries.
    #[error("the queue is full")]
    QueueFull,
    /// The controller did not become ready, or not in time.
    #[error("the controller is not ready: CSTS {csts:#x}")]
    NotReady {
        /// The last status register that was read.
        csts: u32,
    },
}

/// A rule that the target broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A PDU type that only a host sends, or none at all.
    #[error("PDU type {0:#x} is not for a host")]
    Kind(u8),
    /// A header length, data offset or PDU length that does not fit the PDU.
    #[error("PDU type {kind:#x} has impossible lengths: header {header}, data at {offset}, {all}")]
    Lengths {
        /// PDU type.
        kind: u8,
        /// HLEN in bytes.
        header: u8,
        /// PDO in bytes.
        offset: u8,
        /// PLEN in bytes.
        all: u32,
    },
    /// The header digest does not fit the header.
    #[error("the header digest of PDU type {0:#x} is wrong")]
    HeaderDigest(u8),
    /// The data digest does not fit the data.
    #[error("the data digest of PDU type {0:#x} is wrong")]
    DataDigest(u8),
    /// Digests are in the flags though they were not agreed on, or the other way round.
    #[error("the digest flags of PDU type {0:#x} are not what was agreed on")]
    DigestFlags(u8),
    /// A parameter of ICResp that is not allowed, or is not what was asked for.
    #[error("ICResp has an impossible {0}")]
    Icresp(&'static str),
    /// A PDU for a command identifier that is not outstanding.
    #[error("command {0} is not outstanding")]
    UnknownCommand(u16),
    /// Data of a read that is not the next part of it.
    #[error("command {cid}: data at {offset} instead of {expected}, or past its end")]
    DataOrder {
        /// Command identifier.
        cid: u16,
        /// DATAO in bytes.
        offset: u32,
        /// The offset that is next.
        expected: u32,
    },
    /// An R2T that is not for the next part of the data, or for nothing.
    #[error("command {cid}: R2T at {offset} instead of {expected}, empty, or past the end")]
    R2tOrder {
        /// Command identifier.
        cid: u16,
        /// R2TO in bytes.
        offset: u32,
        /// The offset that is next.
        expected: u32,
    },
    /// More R2Ts outstanding than MAXR2T allows.
    #[error("command {0}: too many R2Ts at once")]
    R2tFlood(u16),
    /// SUCCESS without LAST, or while the queue has flow control.
    #[error("command {0}: SUCCESS where it is not allowed")]
    Success(u16),
    /// LAST before the end of the data, or the end without LAST.
    #[error("command {0}: LAST is not on the last data")]
    Last(u16),
    /// A command was completed with success before all its data was moved.
    #[error("command {cid}: completed after {moved} of {all} bytes")]
    CompletedEarly {
        /// Command identifier.
        cid: u16,
        /// Bytes moved.
        moved: u32,
        /// Bytes that the command asked for.
        all: u32,
    },
    /// SQHD is not a place in the queue.
    #[error("submission queue head {0} is outside the queue")]
    QueueHead(u16),
    /// The connection ended in the middle of a PDU.
    #[error("the connection ended within a PDU")]
    CutOff,
    /// An answer whose content is impossible.
    #[error("the answer to {0} makes no sense")]
    Answer(&'static str),
}
