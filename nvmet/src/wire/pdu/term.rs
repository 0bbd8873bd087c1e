//! Fatal errors and the termination requests that report them (TCP section 3.5).

use bytes::BytesMut;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::common;
use super::{CommonHeader, Direction, PduKind};

/// Most bytes of a termination request, the copied header included.
pub const TERM_BYTES_MAX: usize = 152;

/// Fatal error status of a termination request (TCP sections 3.6.2.4 and 3.6.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum FatalStatus {
    /// Invalid PDU Header Field; the information is its offset in bytes.
    InvalidHeaderField = 1,
    /// PDU Sequence Error: the PDU may not come now.
    SequenceError = 2,
    /// Header Digest Error; the information is the digest that was received.
    HeaderDigest = 3,
    /// Data Transfer Out of Range: not within the command or the R2T.
    DataOutOfRange = 4,
    /// Data Transfer Limit Exceeded; to a controller: R2T Limit Exceeded.
    LimitExceeded = 5,
    /// Unsupported Parameter; the information is the offset of its field in bytes.
    UnsupportedParameter = 6,
}

impl FatalStatus {
    /// `None` for a reserved value.
    #[must_use]
    pub const fn parse(fes: u16) -> Option<Self> {
        Some(match fes {
            1 => Self::InvalidHeaderField,
            2 => Self::SequenceError,
            3 => Self::HeaderDigest,
            4 => Self::DataOutOfRange,
            5 => Self::LimitExceeded,
            6 => Self::UnsupportedParameter,
            _ => return None,
        })
    }
}

/// Why a connection ends, as told to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{status:?}, information {information:#x}")]
pub struct TermError {
    /// Fatal Error Status (FES).
    pub status: FatalStatus,
    /// Fatal Error Information (FEI); 0 where the status has none.
    pub information: u32,
}

impl TermError {
    /// The PDU may not come now.
    pub const SEQUENCE: Self = Self { status: FatalStatus::SequenceError, information: 0 };
    /// The data is not within its command or R2T.
    pub const OUT_OF_RANGE: Self = Self { status: FatalStatus::DataOutOfRange, information: 0 };
    /// More data, or more R2Ts, than was agreed.
    pub const LIMIT: Self = Self { status: FatalStatus::LimitExceeded, information: 0 };

    /// The header field at this offset in bytes is wrong.
    #[must_use]
    pub const fn field(offset: u32) -> Self {
        Self { status: FatalStatus::InvalidHeaderField, information: offset }
    }

    /// The parameter at this offset in bytes is beyond what is supported.
    #[must_use]
    pub const fn parameter(offset: u32) -> Self {
        Self { status: FatalStatus::UnsupportedParameter, information: offset }
    }
}

/// Terminate Connection Request of either side, as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermReq {
    /// Fatal Error Status, see [`super::FatalStatus::parse`].
    pub fes: u16,
    /// Fatal Error Information.
    pub fei: u32,
}

impl TermReq {
    /// Size of the header in bytes; up to 128 bytes of the offending header follow it.
    pub const BYTES: usize = 24;

    /// Reads a header that passed [`super::PduRules::check`].
    #[must_use]
    pub fn parse(header: &[u8; Self::BYTES]) -> Self {
        let bytes = TermBytes::read_from_bytes(header).expect("the size is that of the struct");
        Self { fes: bytes.fes.get(), fei: bytes.fei.get() }
    }
}

impl TermError {
    /// Appends the termination request that tells the peer of this error. `offending` are the
    /// first bytes of the PDU that was wrong; at most 128 of them are sent.
    pub fn encode(&self, from: Direction, offending: &[u8], out: &mut BytesMut) {
        let copied = &offending[..offending.len().min(TERM_BYTES_MAX - TermReq::BYTES)];
        let kind = match from {
            Direction::HostToController => PduKind::H2cTermReq,
            Direction::ControllerToHost => PduKind::C2hTermReq,
        };
        let bytes = TermBytes {
            common: common(kind, 0, 0, TermReq::BYTES + copied.len()),
            fes: (self.status as u16).into(),
            fei: self.information.into(),
            reserved: [0; 10],
        };
        out.extend_from_slice(bytes.as_bytes());
        out.extend_from_slice(copied);
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct TermBytes {
    common: CommonHeader,
    fes: U16,
    fei: U32,
    reserved: [u8; 10],
}

const _: () = assert!(size_of::<TermBytes>() == TermReq::BYTES);
