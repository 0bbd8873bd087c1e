//! Superblocks and index entries of read caches. The checksum of an entry is of another kind than
//! those of headers, so it is made right here.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_common::cache_file::{CacheSuperblock, decode_entry, encode_entry};
use lsvd_common::checksum::{Domain, crc, crc_more};
use lsvd_common::ids::Uuid;

fuzz_target!(|data: &[u8]| {
    let Some(input) = lsvd_fuzz::input(data, |_| 64) else { return };
    let Some((head, bytes)) = input.bytes.split_first_chunk::<8>() else { return };
    let file_bytes = u64::from_le_bytes(*head);
    if let Ok(superblock) = CacheSuperblock::decode(&input.bytes, file_bytes) {
        assert!(superblock.geometry.file_bytes() <= file_bytes);
    }
    if let Ok(superblock) = CacheSuperblock::decode(&input.bytes, 128 << 10) {
        assert_eq!(superblock.geometry.slots(), 1);
        let again = CacheSuperblock::decode(&superblock.encode(), 128 << 10);
        assert_eq!(again, Ok(superblock));
    }
    let (cache, slot) = (Uuid::from_u64_pair(file_bytes, 1), u32::from(input.choice));
    let mut entry = bytes.to_vec();
    if let Some((claim, rest)) = entry.split_at_mut_checked(124)
        && let Some(field) = rest.first_chunk_mut()
    {
        let identity = crc_more(crc(Domain::Header, cache.as_bytes()), &slot.to_le_bytes());
        *field = crc_more(identity, claim).to_le_bytes();
    }
    let _ = decode_entry(bytes, cache, slot);
    if let Ok(Some(claim)) = decode_entry(&entry, cache, slot) {
        let again = encode_entry(Some(&claim), cache, slot);
        assert_eq!(decode_entry(&again, cache, slot), Ok(Some(claim)));
        let _ = claim.matches(slot as usize, bytes);
        let _ = claim.proved_by(bytes);
    }
});
