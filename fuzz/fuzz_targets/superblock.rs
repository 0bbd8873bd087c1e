//! Superblocks of images.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_common::object::superblock::Superblock;

fuzz_target!(|data: &[u8]| {
    let Some(mut input) = lsvd_fuzz::input(data, <[u8]>::len) else { return };
    // Half of the inputs get the right length: it would hardly ever be guessed.
    if input.choice & 1 == 1 && input.bytes.len() >= 36 {
        let len = u32::try_from(input.bytes.len()).expect("a short input");
        input.bytes[32..36].copy_from_slice(&len.to_le_bytes());
        let fixed = [&[1], &input.bytes[..]].concat();
        input = lsvd_fuzz::input(&fixed, <[u8]>::len).expect("it has a first byte");
    }
    let Ok(superblock) = Superblock::decode(&input.bytes) else { return };
    let again = superblock.encode().expect("what was accepted can be written");
    assert_eq!(Superblock::decode(&again), Ok(superblock));
});
