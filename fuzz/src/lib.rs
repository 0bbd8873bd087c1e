//! What the fuzz targets share.
//!
//! The first byte of an input chooses how it is used. A fuzzer cannot guess a checksum, so all
//! targets make it right for half of the inputs: only then the checks behind it are reached.

use lsvd_common::checksum::header_crc;
use lsvd_common::object::prefix;

/// Where every header has its checksum.
const CRC_AT: usize = 12;

/// An input taken apart.
pub struct Input {
    /// The bytes to decode.
    pub bytes: Vec<u8>,
    /// The rest of the first byte, for the target to use.
    pub choice: u8,
}

/// Takes an input apart and, if its first bit says so, makes the checksum of the first
/// `header_len` bytes right. None for the empty input.
pub fn input(data: &[u8], header_len: impl Fn(&[u8]) -> usize) -> Option<Input> {
    let (first, bytes) = data.split_first()?;
    let mut bytes = bytes.to_vec();
    let len = header_len(&bytes).min(bytes.len());
    if first & 1 == 1 && len >= CRC_AT + 4 {
        let crc = header_crc(&bytes[..len], CRC_AT);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }
    Some(Input { bytes, choice: first >> 1 })
}

/// The length that an object's header claims.
pub fn object_header_len(bytes: &[u8]) -> usize {
    prefix::peek(bytes).map_or(0, |peeked| peeked.header_len)
}
