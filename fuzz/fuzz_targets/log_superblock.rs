//! Superblocks of write logs.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_common::log::header::LogSuperblock;

/// Its checksum covers a page, most of which is padding: inputs are made that long.
const PAGE: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let mut page = data.to_vec();
    page.resize(PAGE + 1, 0);
    let Some(input) = lsvd_fuzz::input(&page, |_| PAGE) else { return };
    let _ = LogSuperblock::decode(data);
    let Ok(superblock) = LogSuperblock::decode(&input.bytes) else { return };
    let again = superblock.encode();
    assert_eq!(LogSuperblock::decode(&again), Ok(superblock));
    assert_eq!(LogSuperblock::newest(data, &again), Ok(superblock));
});
