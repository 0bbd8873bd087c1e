//! The formats from outside: golden bytes, every refusal, and properties of arbitrary values.

mod golden;
mod limits;
mod properties;
mod refusals;
mod values;

use lsvd_common::checksum::header_crc;

/// Where every header has its own checksum.
const CRC_AT: usize = 12;

/// Makes the checksum of a header of `len` bytes right again, so that the checks behind it are
/// reached.
fn fix_crc(bytes: &mut [u8], len: usize) {
    let crc = header_crc(&bytes[..len], CRC_AT);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}
