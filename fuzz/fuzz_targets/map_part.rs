//! Map parts and the sections in them. Sections carry no checksum of their own, so they are fuzzed
//! as they are.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_common::object::map_part::{
    MapPartHeader, check_section, decode_region, decode_table, encode_region, encode_table,
};

fuzz_target!(|data: &[u8]| {
    let Some(input) = lsvd_fuzz::input(data, lsvd_fuzz::object_header_len) else { return };
    let bytes = &input.bytes;
    match input.choice % 3 {
        0 => {
            let Ok(header) = MapPartHeader::decode(bytes) else { return };
            let body = MapPartHeader::encoded_len(header.sections.len());
            for section in &header.sections {
                let at = body + section.offset as usize;
                if let Some(stored) = bytes.get(at..at + section.len as usize) {
                    let _ = check_section(section.crc, stored);
                }
            }
        }
        1 => {
            let Some((head, section)) = bytes.split_first_chunk::<5>() else { return };
            let index = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            let shift = 10 + head[4] % 11;
            let Ok(extents) = decode_region(index, shift, section) else { return };
            let again = encode_region(index, shift, &extents);
            assert_eq!(decode_region(index, shift, &again), Ok(extents));
        }
        _ => {
            let Ok(rows) = decode_table(bytes) else { return };
            assert_eq!(decode_table(&encode_table(&rows)), Ok(rows));
        }
    }
});
