//! PDUs of NVMe/TCP (TCP section 3.6.2): their geometry, their headers, and how they go wrong.
//!
//! Reading goes in three steps, each of which needs only what the one before has shown to be there:
//! [`PduRules::check`] on the first 8 bytes, [`PduFrame::check_header_digest`] on the header, then
//! the header's own `parse`. Every failure is a [`TermError`], after which the connection ends.

mod agreement;
mod header;
mod term;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use agreement::{Alignment, DIGEST_BYTES, Digests, digest, digest_append};
pub use header::{CapsuleCommand, CapsuleResponse, DataPdu, IcReq, IcResp, PduWriter, R2t};
pub use term::{FatalStatus, TERM_BYTES_MAX, TermError, TermReq};

use agreement::digest_bytes;

/// Most bytes of a header, its digest and the padding before the data: PDO is one byte.
pub const HEADER_BYTES_MAX: usize = 255;
/// Bytes of an ICReq or ICResp.
pub const IC_BYTES: usize = 128;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// H2C.
    HostToController,
    /// C2H.
    ControllerToHost,
}

/// PDU types (TCP section 3.3, figure 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PduKind {
    /// Initialize Connection Request.
    IcReq = 0x00,
    /// Initialize Connection Response.
    IcResp = 0x01,
    /// Host to Controller Terminate Connection Request.
    H2cTermReq = 0x02,
    /// Controller to Host Terminate Connection Request.
    C2hTermReq = 0x03,
    /// Command Capsule.
    CapsuleCmd = 0x04,
    /// Response Capsule.
    CapsuleResp = 0x05,
    /// Host to Controller Data Transfer.
    H2cData = 0x06,
    /// Controller to Host Data Transfer.
    C2hData = 0x07,
    /// Ready to Transfer.
    R2t = 0x09,
}

impl PduKind {
    /// `None` for a reserved type.
    #[must_use]
    pub const fn parse(pdu_type: u8) -> Option<Self> {
        Some(match pdu_type {
            0x00 => Self::IcReq,
            0x01 => Self::IcResp,
            0x02 => Self::H2cTermReq,
            0x03 => Self::C2hTermReq,
            0x04 => Self::CapsuleCmd,
            0x05 => Self::CapsuleResp,
            0x06 => Self::H2cData,
            0x07 => Self::C2hData,
            0x09 => Self::R2t,
            _ => return None,
        })
    }

    /// Who sends PDUs of this type.
    #[must_use]
    pub const fn direction(self) -> Direction {
        match self {
            Self::IcReq | Self::H2cTermReq | Self::CapsuleCmd | Self::H2cData => {
                Direction::HostToController
            }
            Self::IcResp | Self::C2hTermReq | Self::CapsuleResp | Self::C2hData | Self::R2t => {
                Direction::ControllerToHost
            }
        }
    }

    /// HLEN in bytes, fixed for each type.
    #[must_use]
    pub const fn header_bytes(self) -> usize {
        match self {
            Self::IcReq | Self::IcResp => IC_BYTES,
            Self::CapsuleCmd => 72,
            Self::H2cTermReq
            | Self::C2hTermReq
            | Self::CapsuleResp
            | Self::H2cData
            | Self::C2hData
            | Self::R2t => 24,
        }
    }

    const fn is_ic(self) -> bool {
        matches!(self, Self::IcReq | Self::IcResp)
    }

    const fn is_term(self) -> bool {
        matches!(self, Self::H2cTermReq | Self::C2hTermReq)
    }

    /// Whether the header is followed by its digest where that was agreed.
    const fn has_digest(self) -> bool {
        !self.is_ic() && !self.is_term()
    }
}

/// Flags of the common header; each exists only for the types that name it.
mod flag {
    /// HDGSTF: the header is followed by its digest.
    pub(super) const HEADER_DIGEST: u8 = 1 << 0;
    /// DDGSTF: the data is followed by its digest. Capsule command and data PDUs.
    pub(super) const DATA_DIGEST: u8 = 1 << 1;
    /// LAST_PDU: the last one of a transfer. Data PDUs.
    pub(super) const LAST: u8 = 1 << 2;
    /// SUCCESS: there will be no response capsule. C2HData.
    pub(super) const SUCCESS: u8 = 1 << 3;
}

/// The first 8 bytes of every PDU (TCP section 3.6.2.1).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct CommonHeader {
    /// PDU-Type.
    pub pdu_type: u8,
    /// FLAGS.
    pub flags: u8,
    /// Header Length (HLEN) in bytes, without digest.
    pub hlen: u8,
    /// PDU Data Offset (PDO) in bytes from the start of the PDU.
    pub pdo: u8,
    /// PDU Length (PLEN) in bytes, all included.
    pub plen: U32,
}

impl CommonHeader {
    /// Size in bytes.
    pub const BYTES: usize = 8;
}

const _: () = assert!(size_of::<CommonHeader>() == CommonHeader::BYTES);

const AT_TYPE: u32 = 0;
const AT_FLAGS: u32 = 1;
const AT_HLEN: u32 = 2;
const AT_PDO: u32 = 3;
const AT_PLEN: u32 = 4;

/// What a receiver accepts at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PduRules {
    /// Who sends to this receiver.
    pub from: Direction,
    /// Whether ICReq and ICResp have been exchanged.
    pub connected: bool,
    /// Digests that were agreed upon.
    pub digests: Digests,
    /// Alignment that this receiver asked for.
    pub alignment: Alignment,
    /// Most bytes of in-capsule data.
    pub capsule_data_max: u32,
    /// Most bytes of one data PDU: MAXH2CDATA at a controller.
    pub data_max: u32,
}

/// The geometry of one PDU, checked. Every length here is within the rules it was checked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PduFrame {
    kind: PduKind,
    flags: u8,
    header_digest: bool,
    data_digest: bool,
    data_offset: u8,
    data_bytes: u32,
}

impl PduRules {
    /// Checks the first 8 bytes of a PDU.
    ///
    /// # Errors
    /// What to end the connection with: PDU Sequence Error for ICReq and ICResp out of place and
    /// for all else before them, Data Transfer Limit Exceeded for a data PDU beyond `data_max`,
    /// Invalid PDU Header Field for the rest.
    pub fn check(&self, header: &[u8; CommonHeader::BYTES]) -> Result<PduFrame, TermError> {
        let header = CommonHeader::read_from_bytes(header).expect("8 bytes are a common header");
        let kind = PduKind::parse(header.pdu_type)
            .filter(|kind| kind.direction() == self.from)
            .ok_or(TermError::field(AT_TYPE))?;
        if kind.is_ic() == self.connected && !kind.is_term() {
            return Err(TermError::SEQUENCE);
        }
        if usize::from(header.hlen) != kind.header_bytes() {
            return Err(TermError::field(AT_HLEN));
        }
        let frame = PduFrame {
            kind,
            flags: header.flags,
            header_digest: kind.has_digest() && self.digests.header,
            data_digest: false,
            data_offset: header.hlen,
            data_bytes: 0,
        };
        if kind.has_digest() && frame.has(flag::HEADER_DIGEST) != self.digests.header {
            return Err(TermError::field(AT_FLAGS));
        }
        match kind {
            PduKind::CapsuleCmd | PduKind::H2cData | PduKind::C2hData => {
                self.check_data(frame, header)
            }
            PduKind::H2cTermReq | PduKind::C2hTermReq => frame.check_term(header),
            PduKind::IcReq | PduKind::IcResp | PduKind::CapsuleResp | PduKind::R2t => {
                frame.check_without_data(header)
            }
        }
    }

    fn check_data(&self, frame: PduFrame, header: CommonHeader) -> Result<PduFrame, TermError> {
        let plen = header.plen.get();
        if plen as usize == frame.header_len() && frame.kind == PduKind::CapsuleCmd {
            return frame.check_without_data(header);
        }
        if frame.has(flag::DATA_DIGEST) != self.digests.data {
            return Err(TermError::field(AT_FLAGS));
        }
        if frame.kind == PduKind::C2hData && frame.is_success() && !frame.is_last() {
            return Err(TermError::field(AT_FLAGS));
        }
        let pdo = usize::from(header.pdo);
        if pdo < frame.header_len() || !pdo.is_multiple_of(self.alignment.bytes()) {
            return Err(TermError::field(AT_PDO));
        }
        let around = u32::from(header.pdo) + digest_bytes(self.digests.data) as u32;
        let data_bytes = match plen.checked_sub(around) {
            None | Some(0) => return Err(TermError::field(AT_PLEN)),
            Some(bytes) => bytes,
        };
        if frame.kind == PduKind::CapsuleCmd {
            // The peer knows this limit from IOCCSZ, so that beyond it the length is simply wrong.
            if data_bytes > self.capsule_data_max {
                return Err(TermError::field(AT_PLEN));
            }
        } else if data_bytes > self.data_max {
            return Err(TermError::LIMIT);
        }
        Ok(PduFrame {
            data_digest: self.digests.data,
            data_offset: header.pdo,
            data_bytes,
            ..frame
        })
    }
}

impl PduFrame {
    fn check_without_data(self, header: CommonHeader) -> Result<Self, TermError> {
        if header.plen.get() as usize != self.header_len() {
            return Err(TermError::field(AT_PLEN));
        }
        Ok(Self { data_offset: self.header_len() as u8, ..self })
    }

    /// The data of a termination request is the header that the peer complains about.
    fn check_term(self, header: CommonHeader) -> Result<Self, TermError> {
        let plen = header.plen.get();
        if !(self.header_len()..=TERM_BYTES_MAX).contains(&(plen as usize)) {
            return Err(TermError::field(AT_PLEN));
        }
        Ok(Self { data_bytes: plen - u32::from(self.data_offset), ..self })
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Type of the PDU.
    #[must_use]
    pub const fn kind(&self) -> PduKind {
        self.kind
    }

    /// Bytes of the header and its digest: what to have before [`Self::check_header_digest`].
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.kind.header_bytes() + digest_bytes(self.header_digest)
    }

    /// Where the data starts, in bytes from the start of the PDU; between [`Self::header_len`] and
    /// here is padding.
    #[must_use]
    pub const fn data_offset(&self) -> usize {
        self.data_offset as usize
    }

    /// Bytes of data, without padding and digest.
    #[must_use]
    pub const fn data_len(&self) -> u32 {
        self.data_bytes
    }

    /// Whether the data is followed by its digest.
    #[must_use]
    pub const fn has_data_digest(&self) -> bool {
        self.data_digest
    }

    /// PLEN: bytes of the whole PDU.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.data_offset() + self.data_bytes as usize + digest_bytes(self.data_digest)
    }

    /// Always false; a PDU has a header.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Whether a data PDU is the last one of its transfer (LAST_PDU).
    #[must_use]
    pub const fn is_last(&self) -> bool {
        self.has(flag::LAST)
    }

    /// Whether a C2HData PDU stands for a successful response as well (SUCCESS).
    #[must_use]
    pub const fn is_success(&self) -> bool {
        self.has(flag::SUCCESS)
    }

    /// Checks the digest after the header, if there is one. `header` starts with at least
    /// [`Self::header_len`] bytes of the PDU.
    ///
    /// # Errors
    /// Header Digest Error with the digest that was received.
    pub fn check_header_digest(&self, header: &[u8]) -> Result<(), TermError> {
        if !self.header_digest {
            return Ok(());
        }
        let (header, rest) = header.split_at(self.kind.header_bytes());
        let received = rest.first_chunk().expect("the caller has the digest too");
        let received = u32::from_le_bytes(*received);
        if received == digest(header) {
            Ok(())
        } else {
            Err(TermError { status: FatalStatus::HeaderDigest, information: received })
        }
    }
}

#[cfg(test)]
mod test;
