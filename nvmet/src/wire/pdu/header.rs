//! The headers of each PDU type, read after [`super::PduRules::check`] and written for the peer.

use bytes::BytesMut;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    Alignment, CommonHeader, DIGEST_BYTES, Digests, Direction, IC_BYTES, PduFrame, PduKind,
    TermError, digest, digest_bytes, flag,
};
use crate::wire::cqe::Cqe;
use crate::wire::sqe::Sqe;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct IcBytes {
    common: CommonHeader,
    pfv: U16,
    alignment: u8,
    dgst: u8,
    limit: U32,
    reserved: [u8; 112],
}

/// H2CData, C2HData and R2T share one layout.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct TransferBytes {
    common: CommonHeader,
    cccid: U16,
    ttag: U16,
    offset: U32,
    len: U32,
    reserved: U32,
}

const TRANSFER_BYTES: usize = 24;
const _: () = assert!(size_of::<IcBytes>() == IC_BYTES);
const _: () = assert!(size_of::<TransferBytes>() == TRANSFER_BYTES);

const AT_PFV: u32 = 8;
const AT_ALIGNMENT: u32 = 10;
const AT_MAXH2CDATA: u32 = 12;
const AT_DATA_LEN: u32 = 16;

/// Smallest MAXH2CDATA that a controller should report, in bytes (TCP section 3.6.2.3); Linux
/// refuses less too.
const H2C_DATA_MIN: u32 = 4096;

pub(super) fn common(kind: PduKind, flags: u8, pdo: usize, plen: usize) -> CommonHeader {
    CommonHeader {
        pdu_type: kind as u8,
        flags,
        hlen: kind.header_bytes() as u8,
        pdo: pdo as u8,
        plen: (plen as u32).into(),
    }
}

/// Initialize Connection Request (TCP section 3.6.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcReq {
    /// HPDA: alignment of the data that the host receives.
    pub alignment: Alignment,
    /// Digests that the host asks for.
    pub digests: Digests,
    /// MAXR2T, 0-based: 0 allows one outstanding R2T per command.
    pub maxr2t: u32,
}

impl IcReq {
    /// Reads a PDU that passed [`super::PduRules::check`].
    ///
    /// # Errors
    /// Unsupported Parameter for another format version, Invalid PDU Header Field for an alignment
    /// that does not exist.
    pub fn parse(pdu: &[u8; IC_BYTES]) -> Result<Self, TermError> {
        let bytes = IcBytes::read_from_bytes(pdu).expect("the size is that of the struct");
        if bytes.pfv.get() != 0 {
            return Err(TermError::parameter(AT_PFV));
        }
        Ok(Self {
            alignment: Alignment::from_field(bytes.alignment)
                .ok_or(TermError::field(AT_ALIGNMENT))?,
            digests: Digests::from_field(bytes.dgst),
            maxr2t: bytes.limit.get(),
        })
    }

    /// The whole PDU.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; IC_BYTES] {
        ic_bytes(PduKind::IcReq, self.alignment, self.digests, self.maxr2t)
    }
}

/// Initialize Connection Response (TCP section 3.6.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcResp {
    /// CPDA: alignment of the data that the controller receives.
    pub alignment: Alignment,
    /// Digests of this connection. Linux insists on exactly what it asked for.
    pub digests: Digests,
    /// MAXH2CDATA: most bytes of one H2CData PDU, a multiple of 4 and at least 4096.
    pub maxh2cdata: u32,
}

impl IcResp {
    /// Reads a PDU that passed [`super::PduRules::check`].
    ///
    /// # Errors
    /// Unsupported Parameter for another format version, Invalid PDU Header Field for values that
    /// do not exist.
    pub fn parse(pdu: &[u8; IC_BYTES]) -> Result<Self, TermError> {
        let bytes = IcBytes::read_from_bytes(pdu).expect("the size is that of the struct");
        let maxh2cdata = bytes.limit.get();
        if bytes.pfv.get() != 0 {
            return Err(TermError::parameter(AT_PFV));
        }
        if maxh2cdata < H2C_DATA_MIN || !maxh2cdata.is_multiple_of(4) {
            return Err(TermError::field(AT_MAXH2CDATA));
        }
        Ok(Self {
            alignment: Alignment::from_field(bytes.alignment)
                .ok_or(TermError::field(AT_ALIGNMENT))?,
            digests: Digests::from_field(bytes.dgst),
            maxh2cdata,
        })
    }

    /// The whole PDU.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; IC_BYTES] {
        ic_bytes(PduKind::IcResp, self.alignment, self.digests, self.maxh2cdata)
    }
}

fn ic_bytes(kind: PduKind, alignment: Alignment, digests: Digests, limit: u32) -> [u8; IC_BYTES] {
    let bytes = IcBytes {
        common: common(kind, 0, 0, IC_BYTES),
        pfv: U16::ZERO,
        alignment: alignment.to_field(),
        dgst: digests.to_field(),
        limit: limit.into(),
        reserved: [0; 112],
    };
    zerocopy::transmute!(bytes)
}

/// Command capsule header (TCP section 3.6.2.6).
#[derive(Debug, Clone, Copy)]
pub struct CapsuleCommand;

impl CapsuleCommand {
    /// Size of the header in bytes.
    pub const BYTES: usize = CommonHeader::BYTES + Sqe::BYTES;

    /// The command in a header that passed [`super::PduRules::check`].
    #[must_use]
    pub fn parse(header: &[u8; Self::BYTES]) -> Sqe {
        let (_, sqe) = header.split_at(CommonHeader::BYTES);
        Sqe::read_from_bytes(sqe).expect("64 bytes remain")
    }
}

/// Response capsule header (TCP section 3.6.2.7).
#[derive(Debug, Clone, Copy)]
pub struct CapsuleResponse;

impl CapsuleResponse {
    /// Size of the header in bytes.
    pub const BYTES: usize = CommonHeader::BYTES + Cqe::BYTES;

    /// The completion in a header that passed [`super::PduRules::check`].
    #[must_use]
    pub fn parse(header: &[u8; Self::BYTES]) -> Cqe {
        let (_, cqe) = header.split_at(CommonHeader::BYTES);
        Cqe::read_from_bytes(cqe).expect("16 bytes remain")
    }
}

/// Header of H2CData and C2HData (TCP sections 3.6.2.8 and 3.6.2.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataPdu {
    /// Command Capsule CID (CCCID).
    pub cid: u16,
    /// Transfer Tag (TTAG) of the R2T that H2CData answers; reserved in C2HData.
    pub ttag: u16,
    /// Data Offset (DATAO): where the data belongs, in bytes from the start of the command's data.
    pub offset: u32,
    /// Data Length (DATAL) in bytes, not 0.
    pub len: u32,
    /// LAST_PDU.
    pub is_last: bool,
    /// SUCCESS; C2HData with `is_last` only.
    pub is_success: bool,
}

impl DataPdu {
    /// Size of the header in bytes.
    pub const BYTES: usize = TRANSFER_BYTES;

    /// Reads the header of a PDU whose geometry is `frame`.
    ///
    /// # Errors
    /// Invalid PDU Header Field if DATAL is not the length that PLEN leaves for data.
    pub fn parse(header: &[u8; Self::BYTES], frame: &PduFrame) -> Result<Self, TermError> {
        let bytes = TransferBytes::read_from_bytes(header).expect("the size is that of the struct");
        if bytes.len.get() != frame.data_len() {
            return Err(TermError::field(AT_DATA_LEN));
        }
        Ok(Self {
            cid: bytes.cccid.get(),
            ttag: bytes.ttag.get(),
            offset: bytes.offset.get(),
            len: bytes.len.get(),
            is_last: frame.is_last(),
            is_success: frame.kind() == PduKind::C2hData && frame.is_success(),
        })
    }
}

/// Ready to Transfer (TCP section 3.6.2.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct R2t {
    /// Command Capsule CID (CCCID).
    pub cid: u16,
    /// Transfer Tag (TTAG), chosen by the controller and returned with the data.
    pub ttag: u16,
    /// Requested Data Offset (R2TO): first byte that is asked for.
    pub offset: u32,
    /// Requested Data Length (R2TL) in bytes, not 0.
    pub len: u32,
}

impl R2t {
    /// Size of the header in bytes.
    pub const BYTES: usize = TRANSFER_BYTES;

    /// Reads a header that passed [`super::PduRules::check`].
    ///
    /// # Errors
    /// Invalid PDU Header Field for a length of 0.
    pub fn parse(header: &[u8; Self::BYTES]) -> Result<Self, TermError> {
        let bytes = TransferBytes::read_from_bytes(header).expect("the size is that of the struct");
        if bytes.len.get() == 0 {
            return Err(TermError::field(AT_DATA_LEN));
        }
        Ok(Self {
            cid: bytes.cccid.get(),
            ttag: bytes.ttag.get(),
            offset: bytes.offset.get(),
            len: bytes.len.get(),
        })
    }
}

/// Writes the headers of one direction of a connection. Data, and the digest after it, are the
/// caller's: they go to the socket from where they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PduWriter {
    /// Digests that were agreed upon.
    pub digests: Digests,
    /// Alignment that the receiver asked for.
    pub alignment: Alignment,
}

impl PduWriter {
    /// Most bytes that a call appends: a command with its digest, 76 bytes, padded to twice 72.
    pub const BYTES_MAX: usize = 144;

    /// Appends header, digest and padding of a command capsule with `data_len` bytes to follow.
    pub fn capsule_command(&self, sqe: &Sqe, data_len: u32, out: &mut BytesMut) {
        self.write(PduKind::CapsuleCmd, 0, sqe.as_bytes(), data_len, out);
    }

    /// Appends a response capsule.
    pub fn capsule_response(&self, cqe: &Cqe, out: &mut BytesMut) {
        self.write(PduKind::CapsuleResp, 0, cqe.as_bytes(), 0, out);
    }

    /// Appends header, digest and padding of a data PDU, H2CData or C2HData by who sends it.
    pub fn data(&self, from: Direction, data: &DataPdu, out: &mut BytesMut) {
        let (kind, success) = match from {
            Direction::HostToController => (PduKind::H2cData, 0),
            Direction::ControllerToHost => (PduKind::C2hData, flag::SUCCESS),
        };
        let last = if data.is_last { flag::LAST } else { 0 };
        let success = if data.is_success { success } else { 0 };
        let body = transfer_body(data.cid, data.ttag, data.offset, data.len);
        self.write(kind, last | success, &body, data.len, out);
    }

    /// Appends a request for data.
    pub fn r2t(&self, r2t: &R2t, out: &mut BytesMut) {
        let body = transfer_body(r2t.cid, r2t.ttag, r2t.offset, r2t.len);
        self.write(PduKind::R2t, 0, &body, 0, out);
    }

    /// Bytes of the digest that follows data on this connection, 0 or 4.
    #[must_use]
    pub const fn data_digest_len(&self) -> usize {
        digest_bytes(self.digests.data)
    }

    fn write(&self, kind: PduKind, flags: u8, body: &[u8], data_len: u32, out: &mut BytesMut) {
        let header_len = kind.header_bytes() + digest_bytes(self.digests.header);
        let mut flags = flags;
        if self.digests.header {
            flags |= flag::HEADER_DIGEST;
        }
        let mut pdo = 0;
        let mut plen = header_len;
        if data_len > 0 {
            if self.digests.data {
                flags |= flag::DATA_DIGEST;
            }
            pdo = header_len.next_multiple_of(self.alignment.bytes());
            plen = pdo + data_len as usize + self.data_digest_len();
        }
        out.reserve(Self::BYTES_MAX);
        let start = out.len();
        out.extend_from_slice(common(kind, flags, pdo, plen).as_bytes());
        out.extend_from_slice(body);
        if self.digests.header {
            let digest: [u8; DIGEST_BYTES] = digest(&out[start..]).to_le_bytes();
            out.extend_from_slice(&digest);
        }
        if data_len > 0 {
            out.resize(start + pdo, 0);
        }
    }
}

fn transfer_body(cid: u16, ttag: u16, offset: u32, len: u32) -> [u8; 16] {
    let mut body = [0; 16];
    body[..2].copy_from_slice(&cid.to_le_bytes());
    body[2..4].copy_from_slice(&ttag.to_le_bytes());
    body[4..8].copy_from_slice(&offset.to_le_bytes());
    body[8..12].copy_from_slice(&len.to_le_bytes());
    body
}
