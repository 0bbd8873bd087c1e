//! Headers of numbered objects, of data objects above all, and frames.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_common::object::data::{DataHeader, check_frame};
use lsvd_common::object::prefix::{check_place, identify};

fuzz_target!(|data: &[u8]| {
    let Some(input) = lsvd_fuzz::input(data, lsvd_fuzz::object_header_len) else { return };
    let bytes = &input.bytes;
    let identified = identify(bytes);
    let Ok((header, fingerprint)) = DataHeader::decode(bytes) else { return };
    assert_eq!(identified, Ok(header.id));
    assert_eq!(check_place(&header.id, header.id.image, header.id.seq), Ok(()));
    assert!(header.object_len() <= 32 << 20);
    if let Some(frame) = header.frames.first() {
        let _ = check_frame(frame, bytes.get(header.header_len()..).unwrap_or_default());
    }
    // The same values in canonical bytes: reserved fields and padding may have had others.
    let mut again = vec![0; header.header_len()];
    let canonical = header.encode_into(&mut again);
    assert_eq!(DataHeader::decode(&again), Ok((header, canonical)));
    assert!(again != bytes[..again.len()] || canonical == fingerprint);
});
