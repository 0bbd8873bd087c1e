//! Checkpoints.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_common::object::checkpoint::Checkpoint;

fuzz_target!(|data: &[u8]| {
    let Some(input) = lsvd_fuzz::input(data, lsvd_fuzz::object_header_len) else { return };
    let Ok(checkpoint) = Checkpoint::decode(&input.bytes) else { return };
    let again = checkpoint.encode().expect("what was accepted can be written");
    assert_eq!(Checkpoint::decode(&again), Ok(checkpoint));
});
