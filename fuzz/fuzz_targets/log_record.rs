//! Records of write logs.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_common::log::record::RecordHeader;

fuzz_target!(|data: &[u8]| {
    let header_len = |bytes: &[u8]| RecordHeader::peek(bytes).map_or(0, |peeked| peeked.header_len);
    let Some(input) = lsvd_fuzz::input(data, header_len) else { return };
    let Ok((header, _)) = RecordHeader::decode(&input.bytes) else { return };
    assert!(header.pages() <= (266_240 + (4 << 20)) / 4096);
    let _ = header.check_data(&input.bytes[header.header_len()..]);
    let mut again = vec![0; header.header_len()];
    let crc = header.encode_into(&mut again);
    assert_eq!(RecordHeader::decode(&again), Ok((header, crc)));
});
