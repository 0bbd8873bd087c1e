//! PDUs as this initiator writes and reads them (NVMe/TCP 1.0, section 3.6.2).
//!
//! Owns no state. Written apart from the target's code on purpose, see the crate documentation.
//! Invariants: a frame is only handed out whole, with lengths that fit its type and digests that
//! fit its bytes.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::Violation;

/// Bytes of the common header.
pub const COMMON_BYTES: usize = 8;
/// Bytes of ICReq and ICResp.
pub const INITIALIZE_BYTES: usize = 128;
/// Bytes of the header of all other PDUs for a host.
pub const HEADER_BYTES: usize = 24;
const DIGEST_BYTES: usize = 4;

/// PDU types (section 3.3, figure 10).
pub mod kind {
    /// Initialize Connection Request.
    pub const ICREQ: u8 = 0x00;
    /// Initialize Connection Response.
    pub const ICRESP: u8 = 0x01;
    /// Host to Controller Termination Request.
    pub const H2C_TERM: u8 = 0x02;
    /// Controller to Host Termination Request.
    pub const C2H_TERM: u8 = 0x03;
    /// Command Capsule.
    pub const COMMAND: u8 = 0x04;
    /// Response Capsule.
    pub const RESPONSE: u8 = 0x05;
    /// Host to Controller Data.
    pub const H2C_DATA: u8 = 0x06;
    /// Controller to Host Data.
    pub const C2H_DATA: u8 = 0x07;
    /// Ready to Transfer.
    pub const R2T: u8 = 0x09;
}

/// Bits of the FLAGS byte.
pub mod flag {
    /// A header digest follows the header (HDGSTF).
    pub const HEADER_DIGEST: u8 = 1;
    /// A data digest follows the data (DDGSTF).
    pub const DATA_DIGEST: u8 = 2;
    /// The last data PDU (LAST_PDU).
    pub const LAST: u8 = 4;
    /// No response capsule follows (SUCCESS).
    pub const SUCCESS: u8 = 8;
}

/// What both sides agreed on about the shape of PDUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Headers carry a CRC-32C.
    pub header_digest: bool,
    /// Data carries a CRC-32C.
    pub data_digest: bool,
    /// Data that this host sends starts at a multiple of this many bytes (CPDA); 4 or less: no
    /// padding.
    pub alignment: usize,
    /// Data that the target sends starts at a multiple of this many bytes (HPDA).
    pub peer_alignment: usize,
}

/// One received PDU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// PDU type.
    pub kind: u8,
    /// FLAGS.
    pub flags: u8,
    /// The first bytes of the header, common header included: all that any type uses.
    pub header: [u8; HEADER_BYTES],
    /// The data, without its digest.
    pub data: Bytes,
}

impl Frame {
    /// Two bytes of the header, little-endian. Offsets are constants of this crate.
    pub(crate) fn u16_at(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.header[offset], self.header[offset + 1]])
    }

    /// Four bytes of the header, little-endian.
    pub(crate) fn u32_at(&self, offset: usize) -> u32 {
        u32::from(self.u16_at(offset)) | u32::from(self.u16_at(offset + 2)) << 16
    }
}

/// Appends a PDU: `specific` is the header after the common header, `flags` those of the type; the
/// flags of the digests are added.
pub fn put(out: &mut BytesMut, shape: Shape, kind: u8, flags: u8, specific: &[u8], data: &[u8]) {
    let header = COMMON_BYTES + specific.len();
    let digested = header + if shape.header_digest { DIGEST_BYTES } else { 0 };
    let offset =
        if data.is_empty() { 0 } else { digested.next_multiple_of(shape.alignment.max(1)) };
    let has_data_digest = shape.data_digest && !data.is_empty();
    let all = if data.is_empty() { digested } else { offset + data.len() }
        + if has_data_digest { DIGEST_BYTES } else { 0 };
    let flags = flags
        | if shape.header_digest { flag::HEADER_DIGEST } else { 0 }
        | if has_data_digest { flag::DATA_DIGEST } else { 0 };
    let [header_byte, offset_byte] =
        [header, offset].map(|len| u8::try_from(len).expect("headers and padding are short"));
    let all = u32::try_from(all).expect("payloads are far below 4 GiB");
    let start = out.len();
    out.extend_from_slice(&[kind, flags, header_byte, offset_byte]);
    out.extend_from_slice(&all.to_le_bytes());
    out.extend_from_slice(specific);
    if shape.header_digest {
        let digest = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&digest.to_le_bytes());
    }
    if !data.is_empty() {
        out.resize(start + offset, 0);
        out.extend_from_slice(data);
    }
    if has_data_digest {
        out.extend_from_slice(&crc32c::crc32c(data).to_le_bytes());
    }
}

/// Appends ICReq. `alignment` is HPDA in bytes (a multiple of 4, 0 for none), `r2ts` how many R2Ts
/// of one command may be outstanding (at least 1).
pub fn put_initialize(out: &mut BytesMut, shape: Shape, r2ts: u32) {
    let mut specific = [0; INITIALIZE_BYTES - COMMON_BYTES];
    let units = (shape.peer_alignment / 4).saturating_sub(1);
    specific[2] = u8::try_from(units & 0x1f).expect("five bits");
    specific[3] = u8::from(shape.header_digest) | u8::from(shape.data_digest) << 1;
    specific[4..8].copy_from_slice(&(r2ts.max(1) - 1).to_le_bytes());
    put(out, Shape::default(), kind::ICREQ, 0, &specific, &[]);
}

/// Takes the next PDU off `inbox`; `None` while it is not all there. `data_max` bounds what a PDU
/// may carry; a longer one is refused as soon as its length is seen.
///
/// # Errors
/// The rule that the PDU breaks.
pub fn take(inbox: &mut BytesMut, shape: Shape, data_max: u32) -> Result<Option<Frame>, Violation> {
    let Some(&[kind, flags, header, offset, a, b, c, d]) = inbox.first_chunk::<COMMON_BYTES>()
    else {
        return Ok(None);
    };
    let all = u32::from_le_bytes([a, b, c, d]);
    let lengths = Violation::Lengths { kind, header, offset, all };
    let header_len = usize::from(header);
    if header_len != header_bytes(kind).ok_or(Violation::Kind(kind))? {
        return Err(lengths);
    }
    let digestible = !matches!(kind, kind::ICRESP | kind::C2H_TERM);
    let (header_digest, has_data) =
        (shape.header_digest && digestible, kind == kind::C2H_DATA || kind == kind::C2H_TERM);
    let data_digest = shape.data_digest && kind == kind::C2H_DATA;
    let flagged = flags & (flag::HEADER_DIGEST | flag::DATA_DIGEST);
    if flagged != u8::from(header_digest) | u8::from(data_digest) << 1 {
        return Err(Violation::DigestFlags(kind));
    }
    let head = header_len + if header_digest { DIGEST_BYTES } else { 0 };
    let start = if kind == kind::C2H_DATA {
        let aligned = head.next_multiple_of(shape.peer_alignment.max(1));
        if usize::from(offset) != aligned {
            return Err(lengths);
        }
        aligned
    } else {
        head
    };
    let trailer = if data_digest { DIGEST_BYTES } else { 0 };
    let len = (all as usize).checked_sub(start + trailer).ok_or(lengths)?;
    if (!has_data && len != 0) || len > data_max as usize {
        return Err(lengths);
    }
    if inbox.len() < all as usize {
        inbox.reserve(all as usize - inbox.len());
        return Ok(None);
    }
    if header_digest && digest_at(inbox, header_len) != crc32c::crc32c(&inbox[..header_len]) {
        return Err(Violation::HeaderDigest(kind));
    }
    if data_digest && digest_at(inbox, start + len) != crc32c::crc32c(&inbox[start..start + len]) {
        return Err(Violation::DataDigest(kind));
    }
    let header = *inbox.first_chunk().expect("every header has these bytes");
    let data = if len == 0 {
        inbox.advance(all as usize);
        Bytes::new()
    } else {
        let mut pdu = inbox.split_to(all as usize);
        pdu.advance(start);
        pdu.truncate(len);
        pdu.freeze()
    };
    Ok(Some(Frame { kind, flags, header, data }))
}

/// HLEN of what a controller sends; `None` for other types.
fn header_bytes(kind: u8) -> Option<usize> {
    match kind {
        kind::ICRESP => Some(INITIALIZE_BYTES),
        kind::C2H_TERM | kind::RESPONSE | kind::C2H_DATA | kind::R2T => Some(HEADER_BYTES),
        _ => None,
    }
}

fn digest_at(pdu: &[u8], offset: usize) -> u32 {
    let bytes = pdu[offset..].first_chunk().expect("the digest is within the checked length");
    u32::from_le_bytes(*bytes)
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    const NONE: Shape =
        Shape { header_digest: false, data_digest: false, alignment: 0, peer_alignment: 0 };

    fn bytes(kind: u8, shape: Shape, specific: &[u8], data: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        put(&mut out, shape, kind, 0, specific, data);
        out
    }

    #[test]
    fn a_capsule_with_data_and_digests_is_laid_out_as_linux_sends_it() {
        let shape = Shape { header_digest: true, data_digest: true, ..NONE };
        let out = bytes(kind::COMMAND, shape, &[0; 64], &[7; 512]);
        assert_eq!(out.len(), 76 + 512 + 4);
        assert_eq!(out[..8], [0x04, 0x03, 72, 76, 0x50, 0x02, 0, 0]);
        assert_eq!(digest_at(&out, 72), crc32c::crc32c(&out[..72]));
        assert_eq!(digest_at(&out, 588), crc32c::crc32c(&[7; 512]));
    }

    #[test]
    fn padding_moves_data_to_the_asked_alignment() {
        let out = bytes(kind::H2C_DATA, Shape { alignment: 64, ..NONE }, &[0; 16], &[1, 2, 3]);
        assert_eq!((out[3], out.len()), (64, 67));
        assert_eq!(out[64..], [1, 2, 3]);
    }

    #[test]
    fn a_request_says_alignment_digests_and_r2ts() {
        let mut out = BytesMut::new();
        let shape = Shape { header_digest: true, data_digest: true, peer_alignment: 16, ..NONE };
        put_initialize(&mut out, shape, 4);
        assert_eq!(out.len(), 128);
        assert_eq!(out[..16], [0, 0, 128, 0, 128, 0, 0, 0, 0, 0, 3, 3, 3, 0, 0, 0]);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused_before_the_bytes_arrive() {
        let refused = |bytes: [u8; 8]| take(&mut BytesMut::from(&bytes[..]), NONE, 4096).is_err();
        assert!(refused([0x05, 0, 24, 0, 25, 0, 0, 0]), "a response with data");
        assert!(refused([0x05, 0, 25, 0, 25, 0, 0, 0]), "a long header");
        assert!(refused([0x07, 0, 24, 25, 28, 0, 0, 0]), "data at an odd place");
        assert!(refused([0x07, 0, 24, 24, 23, 0, 0, 0]), "shorter than its header");
        assert!(refused([0x07, 0, 24, 24, 0x19, 0x10, 0, 0]), "more data than allowed");
        assert!(refused([0x04, 0, 72, 0, 72, 0, 0, 0]), "a command for a host");
        assert!(!refused([0x07, 0, 24, 24, 0x18, 0x10, 0, 0]));
    }

    proptest! {
        #[test]
        fn data_is_read_back_however_it_is_split_and_no_flipped_bit_passes(
            data in prop::collection::vec(any::<u8>(), 1..100),
            split in 0usize..150,
            flip in 0usize..1000,
            units in 0usize..8,
        ) {
            let alignment = units * 4;
            let shape = Shape {
                header_digest: true, data_digest: true, alignment, peer_alignment: alignment,
            };
            let out = bytes(kind::C2H_DATA, shape, &[9; 16], &data);
            let split = split.min(out.len() - 1);
            let mut inbox = BytesMut::from(&out[..split]);
            prop_assert_eq!(take(&mut inbox, shape, 100), Ok(None));
            inbox.extend_from_slice(&out[split..]);
            let frame = take(&mut inbox, shape, 100).unwrap().unwrap();
            prop_assert_eq!(&frame.data[..], &data[..]);
            prop_assert!(inbox.is_empty());

            let mut damaged = out.clone();
            let (byte, bit) = (flip % out.len(), flip % 8);
            damaged[byte] ^= 1 << bit;
            let padding = 28..out.len() - data.len() - 4;
            if let Ok(Some(frame)) = take(&mut damaged, shape, 100) {
                // Only the padding is not covered by a digest.
                prop_assert!(padding.contains(&byte), "byte {} of {:?}", byte, frame);
            }
        }
    }
}
